#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh run [TARGET SECONDS JOBS]   what `make fuzz` calls; without TARGET, lists the targets
# fuzz.sh bundle                      what `make fuzz-bundle` calls
#
# With BUILD and MAKE set. Everything is built in $BUILD-fuzz by FUZZ_CC (clang). New finds go to
# $BUILD-fuzz/corpus/TARGET, what crashes, hangs or eats memory to $BUILD-fuzz/crashes/TARGET. JOBS above 1
# goes on after a finding, one job stops at it. Status 1: something was found.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../../.." && pwd)
out=${BUILD:-build}-fuzz
cc=${FUZZ_CC:-clang}
cd "$top"

targets() { for f in "$here"/fuzz_*.c; do f=${f##*/fuzz_}; echo "${f%.c}"; done; }

build() {
	command -v "${cc%% *}" >/dev/null && command -v "${cc##* }" >/dev/null || {
		echo "fuzz: $cc is not here; as root: apt-get install clang" >&2
		exit 3
	}
	# Plugins take the sanitizers' functions from the program, so they are linked without -z defs.
	$MAKE BUILD="$out" CC="$cc" SANITIZE=address,undefined SHARED_LDFLAGS=-shared WERROR= \
		EXTRA_CFLAGS="-fsanitize=fuzzer-no-link -gline-tables-only -DNX_LIBFUZZER" \
		EXTRA_LDFLAGS= fuzzers
}

run() {
	local target=$1 seconds=$2 jobs=$3 crashes status=0 again=() file
	if ! targets | grep -qx -- "${target:-.}"; then
		[ -z "$target" ] || echo "fuzz: there is no target '$target'" >&2
		echo "make fuzz TARGET=... SECONDS=60 JOBS=1, with one of"
		targets | sed 's/^/  /'
		[ -z "$target" ]
		return
	fi
	build
	crashes=$out/crashes/$target
	mkdir -p "$crashes" "$out/corpus/$target"
	[ "$jobs" = 1 ] ||
		again=(-fork="$jobs" -ignore_crashes=1 -ignore_timeouts=1 -ignore_ooms=1)
	# HDF5, linked in, leaks what it refuses, and asks for any size that a file names; test_fuzz_corpus looks
	# for leaks of our own.
	case $target in run_*) again+=(-malloc_limit_mb=1000000000); export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1${ASAN_OPTIONS:+:$ASAN_OPTIONS} ;; esac
	[ ! -e "$here/dict/$target.dict" ] || again+=(-dict="$here/dict/$target.dict")
	touch "$crashes/.began"
	NEXUS_SOURCE=$top "$out/fuzz_$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
		-print_final_stats=1 -artifact_prefix="$crashes/" "${again[@]}" \
		"$out/corpus/$target" "$here/corpus/$target" || status=$?
	while read -r file; do
		status=1
		echo "fuzz: found $file; again: NEXUS_SOURCE=$top $out/fuzz_$target $file"
	done < <(find "$crashes" -type f -newer "$crashes/.began" ! -name .began | sort)
	[ "$status" = 0 ] || return 1
}

bundle() {
	local dir=$out/bundle t lib
	build
	rm -rf "$dir"
	mkdir -p "$dir/techniques" "$dir/dict"
	for t in $(targets); do
		strip -g -o "$dir/fuzz_$t" "$out/fuzz_$t"
	done
	for lib in "$out"/techniques/*.so; do strip -g -o "$dir/techniques/${lib##*/}" "$lib"; done
	cp -r "$here/corpus" "$dir/corpus"
	cp "$here"/dict/*.dict "$dir/dict/"
	cp "$here/run-all.sh" "$dir/"
	harness/build/carry-libs.sh "$dir/lib" "$dir"/fuzz_* "$dir"/techniques/*.so >"$dir/libs.txt"
	echo "glibc $(harness/build/glibc-floor.sh "$dir"/fuzz_* "$dir"/techniques/*.so "$dir"/lib/*) or newer" \
		>>"$dir/libs.txt"
	tar -C "$out" -czf "$out/bundle.tar.gz" bundle
	du -h "$out/bundle.tar.gz"
	echo "there: tar xf bundle.tar.gz && bundle/run-all.sh SECONDS JOBS"
}

case ${1:-} in
run) run "${2:-}" "${3:-60}" "${4:-1}" ;;
bundle) bundle ;;
*) sed -n 's/^# \(fuzz.sh .*\)/\1/p' "$0" >&2; exit 2 ;;
esac
