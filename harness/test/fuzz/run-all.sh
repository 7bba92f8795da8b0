#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# run-all.sh [SECONDS [JOBS [TARGET...]]]: runs the fuzz targets that lie beside it (`make fuzz-bundle`) at the same
# time, for SECONDS (600) on JOBS processes (the CPUs), going on after each finding, and prints a table.
# Finds, findings and logs are left in $OUT (./fuzz-out). Status 1: something was found.
#
# Needs bash, coreutils, sed and grep. A target is a row: coverage is in edges of our own code.
set -u
here=$(cd "$(dirname "$0")" && pwd)
seconds=${1:-600} jobs=${2:-$(nproc)}
[ $# -lt 2 ] && shift $# || shift 2
out=${OUT:-$PWD/fuzz-out}
if [ $# -gt 0 ]; then
	targets=("$@")
else
	# Those that run slowest come first: they get the processes that are left over.
	targets=()
	for t in run_file run_rows experiment gguf workload trace tokenizer_json safetensors plugin_table yaml config \
		json dequant; do
		[ -x "$here/fuzz_$t" ] && targets+=("$t")
	done
	for f in "$here"/fuzz_*; do
		case " ${targets[*]} " in *" ${f##*/fuzz_} "*) ;; *) targets+=("${f##*/fuzz_}") ;; esac
	done
fi
n=${#targets[@]}
NEXUS_FUZZ_TMP=$(mktemp -d /dev/shm/nexus-fuzz-all-XXXXXX 2>/dev/null || mktemp -d)
export NEXUS_FUZZ_TMP
trap 'rm -rf "$NEXUS_FUZZ_TMP"' EXIT
unset NEXUS_SOURCE NEXUS_BUILD

coverage() { sed -n 's/.*INITED cov: \([0-9]*\) .*/\1/p' "$1" | tail -n 1; }

run_one() {
	local t=$1 workers=$2 more=()
	mkdir -p "$out/corpus/$t" "$out/crashes/$t" "$out/logs"
	[ ! -e "$here/dict/$t.dict" ] || more=(-dict="$here/dict/$t.dict")
	# HDF5, linked in, leaks what it refuses, and asks for any size that a file names. (A function in the
	# background: the others do not see this.)
	case $t in run_*) more+=(-malloc_limit_mb=1000000000); export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1${ASAN_OPTIONS:+:$ASAN_OPTIONS} ;; esac
	"$here/fuzz_$t" -runs=0 "${more[@]}" "$here/corpus/$t" >"$out/logs/$t.seeds" 2>&1
	"$here/fuzz_$t" -fork="$workers" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
		-ignore_crashes=1 -ignore_timeouts=1 -ignore_ooms=1 "${more[@]}" \
		-artifact_prefix="$out/crashes/$t/" "$out/corpus/$t" "$here/corpus/$t" \
		>"$out/logs/$t.log" 2>&1
	# What the processes count together is another number: the same question again, over all that was found.
	"$here/fuzz_$t" -runs=0 "${more[@]}" "$out/corpus/$t" "$here/corpus/$t" >"$out/logs/$t.end" 2>&1
}

i=0
for t in "${targets[@]}"; do
	workers=$((jobs / n + (i < jobs % n)))
	run_one "$t" $((workers > 0 ? workers : 1)) &
	i=$((i + 1))
done
wait

bad=0
printf '%-16s %12s %8s %9s %9s %7s %7s %5s %5s\n' target execs exec/s 'cov seed' 'cov end' corpus \
	crashes hangs ooms
for t in "${targets[@]}"; do
	line=$(grep -E '^#[0-9]+: cov: ' "$out/logs/$t.log" | tail -n 1)
	read -r execs _ corp crashes hangs ooms < <(sed -E \
		's/^#([0-9]+): cov: ([0-9]+) .* corp: ([0-9]+) .*crash: ([0-9]+)\/([0-9]+)\/([0-9]+) .*/\1 \2 \3 \6 \5 \4/' \
		<<<"${line:-#0: cov: 0 ft: 0 corp: 0 exec/s 0 oom/timeout/crash: 0/0/0 time: 0s}")
	printf '%-16s %12d %8d %9s %9s %7d %7d %5d %5d\n' "$t" "$execs" $((execs / seconds)) \
		"$(coverage "$out/logs/$t.seeds")" "$(coverage "$out/logs/$t.end")" "$corp" "$crashes" "$hangs" "$ooms"
	bad=$((bad + crashes + hangs + ooms))
	# The first line of each kind of finding, with how often it came.
	grep -hE 'SUMMARY: |^fuzz: |runtime error: ' "$out/logs/$t.log" | sort | uniq -c | sort -rn |
		head -n 8 | sed 's/^/    /'
done
[ "$bad" = 0 ]
