#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# run-tests.sh TEST...: runs test executables BUILD/tests/NAME, a line each, then the logs of those
# that failed, then as the very last line the sum of Check's own summaries: `N passed, N failed`.
# An executable that crashes, runs out of time or prints no summary counts as one more failure.
#
#   NEXUS_TEST_TIMEOUT   seconds for one executable (300; 5400 when NEXUS_TEST_LONG is set)
#   NEXUS_TEST_JOBS      how many run at a time (the number of CPUs, at most 4)
#
# Tests find what was built in NEXUS_BUILD and the source tree's data files in NEXUS_SOURCE.
set -u
NEXUS_SOURCE=$(cd "$(dirname "$0")/../.." && pwd)
export NEXUS_SOURCE
if [ "${NEXUS_TEST_LONG:-}" ]; then limit_s=5400; else limit_s=300; fi
export limit_s=${NEXUS_TEST_TIMEOUT:-$limit_s}
cpus=$(nproc 2>/dev/null || echo 2)
jobs=${NEXUS_TEST_JOBS:-$((cpus < 4 ? cpus : 4))}

# Sanitizers make tests slow; Check's limit of 4 s a case is for hangs only.
export CK_TIMEOUT_MULTIPLIER=${CK_TIMEOUT_MULTIPLIER:-10}
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1:allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

# Runs one executable; leaves its output in LOG and "STATUS PASSED FAILED" in LOG.sum.
run_one() {
	local exe=$1 name build log status began_s seconds passed failed
	name=$(basename "$exe")
	build=$(cd "$(dirname "$exe")/.." 2>/dev/null && pwd)
	log=$build/test-logs/$name.log
	mkdir -p "$build/test-logs"
	began_s=$(date +%s)
	NEXUS_BUILD=$build timeout -k 10 "$limit_s" "$exe" >"$log" 2>&1 </dev/null
	status=$?
	seconds=$(($(date +%s) - began_s))
	read -r passed failed < <(awk '
		/^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+$/ {
			gsub(/,/, ""); n++; bad += $5 + $7; good += $3 - $5 - $7
		}
		END { print good + 0, n ? bad : -1 }' "$log")
	if [ "$status" = 124 ] || [ "$status" = 137 ]; then
		echo "$name ran longer than $limit_s s" >>"$log"
	elif [ "$status" -gt 128 ]; then
		echo "$name was ended by signal $((status - 128))" >>"$log"
	fi
	if [ "$failed" = -1 ]; then
		echo "$name printed no summary of Check (exit status $status)" >>"$log"
		failed=1
	elif [ "$status" != 0 ] && [ "$failed" = 0 ]; then
		echo "$name exited with status $status though all its checks passed" >>"$log"
		failed=1
	fi
	echo "$passed $failed" >"$log.sum"
	printf '  %-4s %-44s %4d passed %3d failed  %3d s\n' \
		"$([ "$failed" = 0 ] && echo ok || echo FAIL)" "$(basename "$build")/$name" \
		"$passed" "$failed" "$seconds"
	# Who stops reading here should know which; the log follows at the end.
	[ "$failed" = 0 ] || grep -aE '^[^ ]+:[0-9]+:[FE]:|^==[0-9]+==ERROR|runtime error:' "$log" | head -n 5 | sed 's/^/       /'
}
export -f run_one

log_of() { echo "$(dirname "$(dirname "$1")")/test-logs/$(basename "$1").log"; }

for exe; do rm -f "$(log_of "$exe")" "$(log_of "$exe").sum"; done
# The arguments are paths below the build folder, so xargs may split them at white space.
[ $# = 0 ] || printf '%s\n' "$@" | xargs -P "$jobs" -I{} bash -c 'run_one "$1"' run_one {}

all_passed=0 all_failed=0
for exe; do
	passed=0 failed=1
	[ ! -f "$(log_of "$exe").sum" ] || read -r passed failed <"$(log_of "$exe").sum"
	all_passed=$((all_passed + passed)) all_failed=$((all_failed + failed))
	[ "$failed" = 0 ] && continue
	printf '\n== %s\n' "$(log_of "$exe")"
	tail -n 120 "$(log_of "$exe")"
done
[ "$all_failed" = 0 ] || echo
echo "$all_passed passed, $all_failed failed"
[ "$all_failed" = 0 ]
