#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# install.sh: what `make install` calls, with BUILD, PREFIX, DESTDIR and VERSION set.
set -eu
root=$DESTDIR$PREFIX

# Copies the files of a folder that match, keeping the folders below it.
copy_tree() {
	local from=$1 to=$2 pattern=$3 file
	[ -d "$from" ] || return 0
	(cd "$from" && find . -type f -name "$pattern" | sort) | while read -r file; do
		install -D -m 644 "$from/$file" "$to/$file"
	done
}

install -D -m 755 "$BUILD/nexus" "$root/bin/nexus"
copy_tree "$BUILD/techniques" "$root/lib/nexus/techniques" '*.so'
copy_tree "$BUILD/backends" "$root/lib/nexus/backends" '*.so'
copy_tree harness/include "$root/include" '*.h'
copy_tree kernels/include "$root/include" '*.h'
copy_tree plots "$root/share/nexus/plots" '*.g*p*'
install -d "$root/lib/pkgconfig"
cat >"$root/lib/pkgconfig/nexus.pc" <<END
prefix=$PREFIX
includedir=\${prefix}/include
libdir=\${prefix}/lib
techniquedir=\${libdir}/nexus/techniques
backenddir=\${libdir}/nexus/backends

Name: nexus
Description: Headers for techniques of the Nexus inference benchmark
Version: $VERSION
Cflags: -I\${includedir}
END
echo "installed under $root"
