#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# carry-libs.sh DIR FILE...: copies to DIR the shared libraries that the files need and that no machine is sure to
# have: all but glibc's. Prints one line each: name, size, and the Debian package that it came from.
#
# Drivers of devices belong to the machine, too: a GPU's are left out.
set -eu
dir=$1
shift
mkdir -p "$dir"
is_system() {
	case $1 in
	ld-linux* | libc.so.* | libm.so.* | libmvec.so.* | libpthread.so.* | libdl.so.* | librt.so.*) ;;
	libresolv.so.* | libutil.so.* | libnsl.so.* | libanl.so.* | linux-vdso*) ;;
	libcuda.so.* | libnvidia-*) ;;
	*) return 1 ;;
	esac
}

found=$(for file; do ldd "$file"; done)
if missing=$(grep 'not found' <<<"$found"); then
	echo "carry-libs: not here:" $(awk '{ print $1 }' <<<"$missing" | sort -u) >&2
	exit 3
fi
awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' <<<"$found" | sort -u | while read -r name path; do
	is_system "$name" && continue
	[ -e "$dir/$name" ] && continue
	real=$(realpath "$path")
	# Not stripped: distributions have done that, and a library's own checks may want its bytes.
	install -m 644 "$real" "$dir/$name"
	package=$({ dpkg -S "$real" || dpkg -S "$path" || dpkg -S "/usr$path"; } 2>/dev/null | sed -n '1s/:.*//p' || :)
	printf '%s %s %s\n' "$name" "$(stat -c %s "$real")" "${package:--}"
done
