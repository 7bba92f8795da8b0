#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bundle_chroot.sh FOLDER: tries what `make bundle` made in an empty root: the bundle, glibc's own files, /proc, /dev/null
# and /tmp, no shell. Needs root and leave to chroot and mount; without, one line, status 0. The last line reads
# `N passed, N failed`. With V=1, what each command said.
set -u
bundle=$(cd "$1" && pwd) || exit 2
name=$(basename "$bundle")
if [ "$(id -u)" != 0 ]; then
	echo "bundle_chroot: skipped, only root may chroot"
	exit 0
fi
# In a mount namespace of its own, so that nothing stays mounted whatever happens.
if [ -z "${NEXUS_IN_NAMESPACE:-}" ]; then
	if ! unshare --mount true 2>/dev/null; then
		echo "bundle_chroot: skipped, a mount namespace is not allowed here"
		exit 0
	fi
	NEXUS_IN_NAMESPACE=1 exec unshare --mount --propagation private "$0" "$@"
fi

root=$(mktemp -d)
trap 'umount "$root/proc" 2>/dev/null; rm -rf --one-file-system "$root"' EXIT
mkdir -p "$root/proc" "$root/dev" "$root/tmp" "$root/opt"
cp -r "$bundle" "$root/opt/"
: >"$root/dev/null"
mknod -m 666 "$root/dev/null.new" c 1 3 2>/dev/null && mv "$root/dev/null.new" "$root/dev/null"
# What the files want of glibc, where they look for it.
find "$root/opt" -type f \( -name '*.so*' -o -name nexus -path '*/bin/*' \) -exec ldd {} \; 2>/dev/null |
	awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | sort -u | while read -r lib; do
	case ${lib##*/} in
	ld-linux* | libc.so.* | libm.so.* | libmvec.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libresolv.so.* | libutil.so.*)
		mkdir -p "$root$(dirname "$lib")"
		cp -L "$lib" "$root$lib"
		;;
	esac
done
if ! mount -t proc proc "$root/proc" 2>/dev/null && ! mount --rbind /proc "$root/proc" 2>/dev/null; then
	echo "bundle_chroot: skipped, /proc cannot be mounted here"
	exit 0
fi

chroot=$(command -v chroot) || exit 2
passed=0 failed=0
log=$root/tmp/log
# check WORDS-IN-OUTPUT STATUSES COMMAND...
check() {
	local words=$1 legal=$2 status=0
	shift 2
	env -i "$chroot" "$root" "/opt/$name/bin/nexus" "$@" >"$log" 2>&1 </dev/null || status=$?
	if [[ " $legal " == *" $status "* ]] && grep -q -- "$words" "$log"; then
		passed=$((passed + 1))
		printf '  ok   nexus %s\n' "$*"
		[ -z "${V:-}" ] || sed 's/^/       /' "$log"
	else
		failed=$((failed + 1))
		printf '  FAIL nexus %s: status %d\n' "$*" "$status"
		sed 's/^/       /' "$log"
	fi
}

quick=/opt/$name/share/nexus/experiments/quick.yaml
check "nexus " 0 --version
check paged_attention 0 list
check gnuplot "0 1 3" doctor
check "" 0 run "$quick" --set sweep.batch_size=1,2 --set sweep.seq_len=32 --set sweep.output_len=8 \
	--set sweep.stack=baseline,all --set trials=2 --set num_requests=2 -o /tmp/quick.h5
check "" 0 report /tmp/quick.h5
check "" 0 report /tmp/quick.h5 --format html
check "gnuplot" 3 plot /tmp/quick.h5
check "" 0 generate --model nano --prompt "Once upon a time" --max-tokens 8
if LC_ALL=C grep -rlF -- "$bundle" "$root/opt" >"$log" 2>&1; then
	failed=$((failed + 1))
	echo "  FAIL these hold the path of the build:" $(cat "$log")
else
	passed=$((passed + 1))
	echo "  ok   no file holds the path of the build"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
