#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# check-headers.sh HEADER...: compiles each header alone. Public headers (harness/include and
# kernels/include) as C11, as C++17 and, where $NVCC is set, as CUDA; all others as C11.
set -u
export CC=${CC:-gcc} CXX=${CXX:-g++} NVCC=${NVCC:-} LIB_CFLAGS=${LIB_CFLAGS:-}
scratch=$(mktemp -d)
export scratch
trap 'rm -rf "$scratch"' EXIT

check() {
	local header=$1 public="-Iharness/include -Ikernels/include" warn="-Wall -Wextra -Werror" bad=0
	local unit
	unit=$scratch/$(echo "$header" | tr '/.' '__')
	printf '#include "%s"\nextern int nx_not_empty;\n' "$PWD/$header" >"$unit.c"
	cp "$unit.c" "$unit.cc"
	cp "$unit.c" "$unit.cu"
	case $header in
	harness/include/* | kernels/include/*)
		$CC -std=c11 -Wpedantic $warn $public -fsyntax-only "$unit.c" || bad=1
		if command -v "$CXX" >/dev/null; then
			$CXX -std=c++17 $warn $public -fsyntax-only "$unit.cc" || bad=1
		fi
		if [ "$NVCC" ]; then
			"$NVCC" -std=c++17 -Werror all-warnings $public -c -o "$unit.o" "$unit.cu" || bad=1
		fi
		;;
	kernels/*) $CC -std=gnu11 $warn $public -Ikernels -fsyntax-only "$unit.c" || bad=1 ;;
	*) $CC -std=gnu11 $warn $public -Iharness -Iharness/test $LIB_CFLAGS -fsyntax-only "$unit.c" || bad=1 ;;
	esac
	[ "$bad" = 0 ] || echo "$header: does not compile alone" >&2
	return $bad
}
export -f check

[ $# = 0 ] || printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'check "$1"' check {}
