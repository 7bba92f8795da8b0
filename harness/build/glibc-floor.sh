#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# glibc-floor.sh FILE...: the oldest glibc on which all of the files load: the newest version of one of its symbols
# that a file needs. With V=1, first a line for each file.
set -eu
newest() { sort -V | tail -n 1; }
for file; do
	version=$(readelf -VW "$file" 2>/dev/null | sed -n '/Version needs/,$p' | sed 's/GLIBC_ABI_DT_RELR/GLIBC_2.36/' |
		grep -o 'GLIBC_[0-9.]*' | newest || :)
	[ -z "${V:-}" ] || echo "${version:-none} $file" >&2
	echo "$version"
done | sed -n 's/^GLIBC_//p' | newest
