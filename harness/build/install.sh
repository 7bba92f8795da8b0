#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# install.sh: what `make install` and bundle.sh call, with BUILD, PREFIX, DESTDIR and VERSION set, and with PROGRAM
# where another build of it is wanted than $BUILD/nexus.
#
#   bin/nexus                     finds all the rest from where it lies: the tree may be moved as a whole
#   lib/nexus/techniques/*.so     plugins; yours may lie there, too
#   lib/nexus/backends/*.so
#   lib/pkgconfig/nexus.pc        relative to its own place
#   include/nexus/*.h             the contracts, and fake_host.h for tests; include/nexus_kernels/*.h
#   share/nexus/plots             gnuplot templates
#   share/nexus/templates         what `nexus new-technique` writes
#   share/nexus/experiments       experiment files, workloads, models/nano
set -eu
root=$DESTDIR$PREFIX
case $PREFIX in
/*) ;;
*) echo "install: PREFIX is '$PREFIX'; give an absolute path" >&2; exit 2 ;;
esac

# Copies the files of a folder that match, keeping the folders below it.
copy_tree() {
	local from=$1 to=$2 pattern=$3 file
	[ -d "$from" ] || return 0
	(cd "$from" && find . -type f -name "$pattern" | sort) | while read -r file; do
		install -D -m 644 "$from/$file" "$to/$file"
	done
}

install -D -m 755 "${PROGRAM:-$BUILD/nexus}" "$root/bin/nexus"
copy_tree "$BUILD/techniques" "$root/lib/nexus/techniques" '*.so'
copy_tree "$BUILD/backends" "$root/lib/nexus/backends" '*.so'
copy_tree harness/include "$root/include" '*.h'
copy_tree kernels/include "$root/include" '*.h'
copy_tree plots "$root/share/nexus/plots" '*.g*p*'
copy_tree harness/cli/templates "$root/share/nexus/templates" '*.in'
copy_tree experiments/models/nano "$root/share/nexus/experiments/models/nano" '*'
copy_tree experiments/workloads "$root/share/nexus/experiments/workloads" '*.jsonl'
copy_tree experiments/workloads "$root/share/nexus/experiments/workloads" '*.csv'
copy_tree experiments/metrics "$root/share/nexus/experiments/metrics" '*.yaml'
for file in experiments/*.yaml; do
	install -D -m 644 "$file" "$root/share/nexus/$file"
done
install -d "$root/lib/pkgconfig"
cat >"$root/lib/pkgconfig/nexus.pc" <<END
prefix=\${pcfiledir}/../..
includedir=\${prefix}/include
libdir=\${prefix}/lib
bindir=\${prefix}/bin
techniquedir=\${libdir}/nexus/techniques
backenddir=\${libdir}/nexus/backends
sharedir=\${prefix}/share/nexus

Name: nexus
Description: Headers for techniques of the Nexus inference benchmark
Version: $VERSION
Cflags: -I\${includedir}
END
echo "installed under $root"
