#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# docs.sh [--check] NEXUS FILE...: puts what the program prints into Markdown files, between
#
#     <!-- nexus list paged_attention -->
#     <!-- end -->
#
# so that tables of parameters and of what stacks with what never disagree with the code. --check changes nothing and
# fails, naming the file and the line, where a block is not what the program prints now.
set -euo pipefail
check=
if [ "${1:-}" = --check ]; then check=1; shift; fi
nexus=$1; shift
new=$(mktemp)
trap 'rm -f "$new"' EXIT
status=0
for f; do
	awk -v nexus="$nexus" -v name="$f" '
		function fail(text) { print name ":" NR ": " text >"/dev/stderr"; bad = 1; exit 1 }
		/^<!-- nexus / {
			if (inside) fail("found a block in a block; legal: <!-- end --> before it")
			if ($0 !~ /^<!-- nexus list [a-z0-9_]+ -->$/)
				fail("found " $0 "; legal: <!-- nexus list NAME -->")
			print
			command = "\"" nexus "\" list " $4 " --format md 2>/dev/null"
			n = 0
			while ((command | getline line) > 0) { print line; n++ }
			if (close(command) != 0 || !n) fail("nexus list " $4 " printed nothing")
			inside = NR
			next
		}
		/^<!-- end -->$/ {
			if (!inside) fail("found an end without a begin; legal: <!-- nexus list NAME --> before it")
			inside = 0
		}
		!inside
		END { if (inside && !bad) { print name ":" inside ": the block has no <!-- end -->" >"/dev/stderr"; exit 1 } }
	' "$f" >"$new"
	if [ "$check" ]; then
		cmp -s "$new" "$f" || {
			echo "$f:$(LC_ALL=C cmp "$new" "$f" 2>&1 | sed 's/.*line //'): not what the program prints; make docs writes it anew" >&2
			status=1
		}
	elif ! cmp -s "$new" "$f"; then
		cat "$new" >"$f"
		echo "  DOCS  $f"
	fi
done
exit $status
