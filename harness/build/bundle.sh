#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bundle.sh: what `make bundle` calls, with BUILD and VERSION set: what `make install` lays out, with the libraries
# beside it, for a machine without packages and root.
#
#   bin/nexus          looks for libraries in ../lib (DT_RPATH); nothing holds an absolute path
#   lib/*.so.*         all that is not glibc's
#   licences/          of what was not written here, by package
#   README.txt         how to run it, the oldest glibc, what is in it
set -eu
name=nexus-$VERSION-$(uname -m)
root=$BUILD/$name
rm -rf "$root" "$root.tar.gz"
PROGRAM=$BUILD/carried/nexus PREFIX=/$name DESTDIR=$BUILD harness/build/install.sh >/dev/null
cp LICENSE "$root/LICENSE"

plugins=("$root"/lib/nexus/techniques/*.so "$root"/lib/nexus/backends/*.so)
strip -g "$root/bin/nexus" "${plugins[@]}"
libs=$(harness/build/carry-libs.sh "$root/lib" "$root/bin/nexus" "${plugins[@]}")
floor=$(harness/build/glibc-floor.sh "$root/bin/nexus" "${plugins[@]}" "$root"/lib/*.so*)

# HDF5's archive is inside the program, where ldd does not see it.
inside=
if ! ls "$root"/lib/libhdf5* >/dev/null 2>&1; then
	inside=$(dpkg -S '*/libhdf5_serial.a' 2>/dev/null | sed -n '1s/:.*//p' || :)
	inside=${inside:-libhdf5-dev}
fi

without=
for package in $(awk '{ print $3 }' <<<"$libs" | sort -u) $inside; do
	if [ -e "/usr/share/doc/$package/copyright" ]; then
		install -D -m 644 "/usr/share/doc/$package/copyright" "$root/licences/$package"
	else
		without="$without $package"
	fi
done
[ -z "$without" ] || echo "bundle: no licence found of:$without" >&2

cat >"$root/README.txt" <<END
Nexus $VERSION, $(uname -m), with its libraries

Needs Linux with glibc $floor or newer; no packages, no root. The folder may be moved as a whole.

    bin/nexus doctor                                    what this machine lacks for figures to trust
    bin/nexus list                                      techniques
    bin/nexus run share/nexus/experiments/quick.yaml -o quick.h5
    bin/nexus report quick.h5                           tables, verdicts, one HTML page

Plots are drawn by gnuplot, which is not here: \`nexus plot\` wants it in the PATH, or NEXUS_GNUPLOT to name it;
\`nexus report\` does without, and says so on its page.

Techniques of your own belong in lib/nexus/techniques or in a folder that \$NEXUS_TECHNIQUE_PATH names; headers are
in include/. lib/nexus/backends has the backends for devices: cuda.so (where it was built) needs the driver alone; cuBLASLt
(large products), CUPTI (counters) and NVML (telemetry) are opened where the machine has them, and done without elsewhere.

Nexus is under the Apache License 2.0 (LICENSE). The libraries come from the distribution it was built on;
their licences are in licences/:

$(printf '    %-24s %s\n' 'bin/nexus has inside' "${inside:-nothing}")
$(awk '{ printf "    %-24s %s\n", $1, $3 }' <<<"$libs")
END

# The same names and bytes give the same archive.
tar -C "$BUILD" --sort=name --owner=0 --group=0 --numeric-owner \
	--mtime="@$(git log -1 --format=%ct 2>/dev/null || echo 0)" -cf - "$name" | gzip -9n >"$root.tar.gz"
echo "$root: $(du -sh "$root" | cut -f1), $(du -h "$root.tar.gz" | cut -f1) as .tar.gz; glibc $floor or newer"
