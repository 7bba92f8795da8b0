#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# truth.sh NEXUS PLUGINS [PART...]: are the verdicts of this build true on this machine? Runs comparisons whose
# answer is known, with the model that comes with the source, and prints a table: measured, promised, kept or
# not. Status 1 when a promise is not kept, 3 when the machine was too noisy to tell.
#
#   aa         40 pairs of one stack under two names: false alarms
#   power      40 pairs with 5 % added to each step: how many are called slower
#   sweep      whole sweeps in which nothing differs: sweeps with any false alarm, Holm-corrected
#   order      one sweep shuffled (that of part sweep, where it was run) and sorted: do the ratios agree?
#   overhead   null techniques in every slot but kv_codec against none: the cost of a step; and the harness's own share
#   recording  trials with and without what is recorded of them (telemetry of the device, tokens, steps), in turns
#
# DEVICE=cuda:0 runs them on another device than the CPU, TRUTH_MODEL=llama-7b with another model. On a GPU the trials of
# recording should take a second or more: telemetry is read four times a second.
#
# All of them take about an hour on two quiet cores. The run files stay in results/truth/; TRUTH_KEEP=1 goes
# on with those of an earlier start that was stopped, which must have been of the same build. TRUTH_PAIRS,
# TRUTH_ROUNDS and TRUTH_REQUESTS make it shorter to try it out; what is promised holds for the defaults.
#
# Trials are short and rounds many, since the trials of a round share what else the machine does only as far as they
# are near in time. On a virtual machine whose speed wandered by 9 % (its cores shared with others), pairs of
# trials of 0.6 s scattered by 8.9 % and of 0.16 s by 9.5 %, but cost 1.4 and 0.55 s: so in the same time the
# short ones gave intervals two thirds as wide.
set -u
nexus=$1 plugins=$(cd "$2" && pwd) || exit 2
shift 2
parts=${*:-aa power sweep order overhead recording}
device=${DEVICE:-cpu} model=${TRUTH_MODEL:-nano}
prompts=random
[ "$model" != nano ] || prompts=$PWD/experiments/workloads/stories.jsonl
pairs=${TRUTH_PAIRS:-40} rounds=${TRUTH_ROUNDS:-48} requests=${TRUTH_REQUESTS:-16}
out=results/truth
mkdir -p "$out"
export NEXUS_CALIBRATE=0
rows=$out/table.txt
: >"$rows"

for part in $parts; do
	case $part in
	aa | power | sweep | order | overhead | recording) ;;
	*)
		echo "truth: there is no part '$part'; legal: aa, power, sweep, order, overhead, recording" >&2
		exit 2
		;;
	esac
done

say() { printf '%s\n' "$*" >&2; }

# The experiment that all parts share: $1 question, $2 sweep, $3 reference, $4 stacks.
experiment() {
	cat <<-EOF
		# $1
		model: $model
		device: $device
		base: plain
		dtype: bf16
		threads: ${TRUTH_THREADS:-1}
		gate: false
		counters: off
		workload: {prompts: "$prompts", seed: 1}
		techniques: ["$plugins"]
		sweep: $2
		reference: $3
		num_requests: $requests
		trials: $rounds
		stacks:
		$4
	EOF
}

# Runs $1.yaml into $2.h5 unless it is there, with the rest as options; then $2.csv. 1 when that failed.
run() {
	local file=$1 to=$2
	shift 2
	if [ -z "${TRUTH_KEEP:-}" ] || [ ! -s "$to.h5" ]; then
		rm -rf "$to.h5.parts"
		"$nexus" run "$file" -o "$to.h5" --force "$@" >/dev/null 2>"$to.log" || {
			tail -n 3 "$to.log" >&2
			return 1
		}
	fi
	"$nexus" report "$to.h5" --format csv >"$to.csv"
}

# csv FILES: TRIALS OK of all cells, by the names of columns; quoted fields may hold commas.
columns='
function split_csv(line, f,   n, c, i, q, s) {
	n = 1; s = ""; q = 0
	for (i = 1; i <= length(line); i++) {
		c = substr(line, i, 1)
		if (c == "\"") q = !q
		else if (c == "," && !q) { f[n++] = s; s = "" }
		else s = s c
	}
	f[n] = s
	return n
}
FNR == 1 { n_columns = split_csv($0, h); for (i = 1; i <= n_columns; i++) { sub(/ \[.*/, "", h[i]); at[h[i]] = i }; next }
{ split_csv($0, f) }
function col(name) { return f[at[name]] }
'
swept=''
seen_trials=0 seen_ok=0
count_trials() {
	local t o
	read -r t o < <(awk "$columns"'{ t += col("trials") }
		col("cause") !~ /^every trial was disturbed/ { o += col("trials_ok") }
		END { print t + 0, o + 0 }' "$@")
	seen_trials=$((seen_trials + t)) seen_ok=$((seen_ok + o))
}

# row PART WHAT MEASURED PROMISED VERDICT
row() { printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$rows"; }

# How many of so many at 5 % each are still no surprise: P(more) < 5 %.
allowed() {
	awk -v n="$1" 'BEGIN { p = 0.05; for (k = 0; k <= n; k++) { t = 1; for (i = 0; i < k; i++) t *= (n - i) / (i + 1)
		s += t * p ^ k * (1 - p) ^ (n - k); if (s > 0.9499) { print k; exit } } }'
}

# Faster, slower, same, unclear, and pairs that got no verdict, as every trial was disturbed.
verdicts() {
	awk "$columns"'
		col("stack") == col("reference") { next }
		{ v[col("verdict")]++; n++ }
		END { named = v["faster"] + v["slower"] + v["same"] + v["unclear"]
			print v["faster"] + 0, v["slower"] + 0, v["same"] + 0, v["unclear"] + 0, n - named }' "$@"
}

# judged NONE OF VERDICT: the verdict, unless more than a tenth of the pairs could not be judged.
judged() { if [ $(($1 * 10)) -gt "$2" ]; then echo "TOO NOISY"; else echo "$3"; fi; }

# Half-width of the mean pair's interval [%].
half_width() {
	awk "$columns"'col("speedup_lo") != "" && col("speedup_lo") != 1 { s += (log(col("speedup_hi")) - log(col("speedup_lo"))) / 2; n++ }
		END { printf "%.1f", n ? 100 * s / n : 0 }' "$@"
}

part_aa() {
	experiment "Is a stack as fast as itself?" "{batch_size: 4, seq_len: 32, output_len: 32, stack: [a, b]}" a \
		"$(printf '  a: []\n  b: []')" >"$out/aa.yaml"
	local i files=()
	for ((i = 1; i <= pairs; i++)); do
		run "$out/aa.yaml" "$out/aa-$i" --set workload.seed="$i" || return 1
		files+=("$out/aa-$i.csv")
		say "aa: $i of $pairs pairs"
	done
	local f s same unclear none most
	read -r f s same unclear none < <(verdicts "${files[@]}")
	most=$(allowed "$pairs")
	count_trials "${files[@]}"
	row aa "A/A pairs named faster or slower (same $same, unclear $unclear, none $none; interval ± $(half_width "${files[@]}") %)" \
		"$((f + s)) of $((pairs - none))" "5 % each: at most $most" \
		"$(judged "$none" "$pairs" "$([ $((f + s)) -le "$most" ] && echo kept || echo NOT KEPT)")"
}

part_power() {
	experiment "Is a delay of 5 % of each step found?" \
		"{batch_size: 4, seq_len: 32, output_len: 32, stack: [on_time, late]}" on_time \
		"$(printf '  on_time:\n    - null_delay: {percent: 0}\n  late:\n    - null_delay: {percent: 5}')" >"$out/power.yaml"
	local i files=()
	for ((i = 1; i <= pairs; i++)); do
		run "$out/power.yaml" "$out/power-$i" --set workload.seed="$i" || return 1
		files+=("$out/power-$i.csv")
		say "power: $i of $pairs pairs"
	done
	local f s same unclear none need
	read -r f s same unclear none < <(verdicts "${files[@]}")
	need=$(((pairs * 9 + 9) / 10))
	count_trials "${files[@]}"
	local width verdict=kept
	width=$(half_width "${files[@]}")
	[ "$s" -ge "$need" ] && [ "$f" = 0 ] || verdict="NOT KEPT"
	# A logarithm of 5.1 % must be t + 1.28 standard errors to be found nine times in ten, and an interval is t of
	# them wide to each side: wider ones are the machine's doing, not the verdict's.
	if [ "$verdict" != kept ] && [ "$f" = 0 ] && awk -v w="$width" -v n="$rounds" \
		'BEGIN { t = 1.96 + 2.7 / (n - 1); exit !(w > 5.1 * t / (t + 1.28)) }'; then
		verdict="TOO NOISY"
	fi
	verdict=$(judged "$none" "$pairs" "$verdict")
	row power "pairs with 5 % added named slower (faster $f, same $same, unclear $unclear, none $none; interval ± $width %)" \
		"$s of $pairs" "at least $need" "$verdict"
}

sweep_of() {
	experiment "$1" "{batch_size: [1, 4], seq_len: [16, 64], output_len: 24, stack: [a, b, c, d]}" a \
		"$(printf '  a: []\n  b: []\n  c:\n    - null_schedule\n  d:\n    - null_kv_layout')"
}

part_sweep() {
	sweep_of "Do stacks that do the same get the same verdict?" >"$out/sweep.yaml"
	local i f s same unclear none nones=0 alarms=0 named=0 n=${TRUTH_SWEEPS:-3} files=()
	for ((i = 1; i <= n; i++)); do
		run "$out/sweep.yaml" "$out/sweep-$i" --set workload.seed=$((100 + i)) \
			--set num_requests=$((requests * 3 / 4)) || return 1
		files+=("$out/sweep-$i.csv")
		read -r f s same unclear none < <(verdicts "$out/sweep-$i.csv")
		alarms=$((alarms + (f + s > 0))) named=$((named + f + s)) nones=$((nones + none))
		say "sweep: $i of $n sweeps"
	done
	count_trials "${files[@]}"
	swept=yes
	local most
	most=$(allowed "$n")
	row sweep "A/A sweeps of 12 pairs with any alarm ($named pairs named, $nones without a verdict; interval ± $(half_width "${files[@]}") %)" \
		"$alarms of $n" "5 % of sweeps: at most $most" \
		"$(judged "$nones" $((12 * n)) "$([ "$alarms" -le "$most" ] && echo kept || echo NOT KEPT)")"
}

part_order() {
	sweep_of "Does the order of cells matter?" >"$out/order.yaml"
	local o shuffled=$out/sweep-1.csv files=()
	for o in shuffled sorted; do
		if [ $o = shuffled ] && [ -n "$swept" ]; then continue; fi
		run "$out/order.yaml" "$out/order-$o" --set order=$o --set workload.seed=101 \
			--set num_requests=$((requests * 3 / 4)) || return 1
		count_trials "$out/order-$o.csv"
		say "order: $o"
	done
	[ -n "$swept" ] || shuffled=$out/order-shuffled.csv
	files=("$shuffled" "$out/order-sorted.csv")
	# Ratios of each cell: the difference of logarithms against both standard errors, Holm over the cells. The
	# interval is the t interval or a little wider, so this errs on the careful side by a little.
	local result
	result=$(awk "$columns"'
		col("speedup_lo") == "" || col("speedup_lo") == 1 { next }
		{
			key = col("stack") " " col("batch_size") " " col("seq_len")
			est = log(col("speedup")); half = (log(col("speedup_hi")) - log(col("speedup_lo"))) / 2
			if (key in e) { n++; z = (est - e[key]) / sqrt(half * half + w[key] * w[key]) * 1.96; z = z < 0 ? -z : z
				if (z > worst) worst = z; if (z > 1.96) out++ }
			else { e[key] = est; w[key] = half }
		}
		END { printf "%d %d %.2f", n, out, worst }' "${files[@]}")
	local n apart worst
	read -r n apart worst <<<"$result"
	# Bonferroni: the largest of n normal deviates at 5 %.
	local limit
	limit=$(awk -v n="$n" 'BEGIN { p = 0.05 / (n ? n : 1) / 2; t = sqrt(-2 * log(p))
		print t - (2.515517 + 0.802853 * t + 0.010328 * t * t) / (1 + 1.432788 * t + 0.189269 * t * t + 0.001308 * t ^ 3) }')
	row order "ratios whose intervals disagree, shuffled against sorted ($apart beyond 1.96)" "largest z $worst of $n" \
		"$(printf 'below %.2f' "$limit")" "$(judged $((12 - n)) 12 \
			"$(awk -v a="$worst" -v b="$limit" 'BEGIN { print a < b ? "kept" : "NOT KEPT" }')")"
}

part_overhead() {
	# But for kv_codec: that slot has no null form, as a codec brings its own attention.
	experiment "What do null techniques in every slot cost?" \
		"{batch_size: 1, seq_len: 32, output_len: 64, stack: [none, nulls]}" none \
		"$(printf '  none: []\n  nulls:\n    - null_schedule\n    - null_kv_layout\n    - null_attention\n    - null_prefix\n    - null_draft\n    - null_weights')" >"$out/overhead.yaml"
	run "$out/overhead.yaml" "$out/overhead" --set trials=$((4 * rounds)) --set num_requests=$((requests / 4 > 0 ? requests / 4 : 1)) || return 1
	count_trials "$out/overhead.csv"
	local lo ratio hi share step
	read -r ratio lo hi share step < <(awk "$columns"'col("stack") == "nulls" {
		print n(col("speedup")), n(col("speedup_lo")), n(col("speedup_hi")), n(col("host_share")), n(col("decode_step_p50")) }
		function n(x) { return x == "" ? "-" : x }' "$out/overhead.csv")
	# Cost of the nulls: 1 / ratio - 1, its upper end from the ratio'\''s lower end.
	local cost most none
	read -r _ _ _ _ none < <(verdicts "$out/overhead.csv")
	if [ "$lo" = - ] || [ "$share" = - ]; then
		row overhead "null technique in every slot: no figures, see $out/overhead.log" - "under 1 %" "TOO NOISY"
		return
	fi
	cost=$(awk -v r="$ratio" 'BEGIN { printf "%.2f", 100 * (1 / r - 1) }')
	most=$(awk -v r="$lo" 'BEGIN { printf "%.2f", 100 * (1 / r - 1) }')
	row overhead "null technique in every slot, per step of $step ms" "$cost % (at most $most %)" "under 1 %" \
		"$(judged "$none" 1 "$(awk -v c="$cost" -v m="$most" 'BEGIN { print m < 1 ? "kept" : c < 1 ? "TOO NOISY" : "NOT KEPT" }')")"
	row overhead "all planning of the harness with them, of a step" \
		"$(awk -v s="$share" 'BEGIN { printf "%.2f %%", 100 * s }')" "under 1 %" \
		"$(awk -v s="$share" 'BEGIN { print s < 0.01 ? "kept" : "NOT KEPT" }')"
}

part_recording() {
	experiment "What does recording a trial cost?" \
		"{batch_size: ${TRUTH_BATCH:-4}, seq_len: 32, output_len: 64, stack: [recorded, bare]}" bare \
		"$(printf '  recorded: []\n  bare: []\nunrecorded: bare')" >"$out/recording.yaml"
	run "$out/recording.yaml" "$out/recording" --set trials=$((2 * rounds)) || return 1
	count_trials "$out/recording.csv"
	# Cost: 1 / ratio - 1, its ends from the ratio'\''s.
	local cost least most none
	read -r cost least most < <(awk "$columns"'col("stack") == "recorded" && col("speedup_lo") != "" {
		printf "%.2f %.2f %.2f\n", 100 * (1 / col("speedup") - 1), 100 * (1 / col("speedup_hi") - 1), 100 * (1 / col("speedup_lo") - 1) }' \
		"$out/recording.csv")
	read -r _ _ _ _ none < <(verdicts "$out/recording.csv")
	if [ -z "${cost:-}" ]; then
		row recording "recording of trials: no figures, see $out/recording.log" - "under 0.5 %" "TOO NOISY"
		return
	fi
	row recording "time of a trial recorded over one that is not, less 1 ($model, $device)" \
		"$cost % ($least to $most %)" "under 0.5 %" \
		"$(judged "$none" 1 "$(awk -v l="$least" -v m="$most" 'BEGIN { print m < 0.5 ? "kept" : l < 0.5 ? "TOO NOISY" : "NOT KEPT" }')")"
}

began=$(date +%s)
busy_began=$(awk '/^cpu / { print $2 + $3 + $4 + $7 + $8, $9; exit }' /proc/stat)
say "truth: load $(cut -d' ' -f1-3 /proc/loadavg) at the start, $(nproc) processors"
for part in $parts; do
	part_began=$(date +%s)
	"part_$part" || row "$part" "could not be run: see $out/$part*.log" - - "NOT KEPT"
	say "truth: $part took $(($(date +%s) - part_began)) s"
done

printf '\n%-9s %-96s %-24s %-28s %s\n' part what measured promised verdict
while IFS=$'\t' read -r part what measured promised verdict; do
	printf '%-9s %-96s %-24s %-28s %s\n' "$part" "$what" "$measured" "$promised" "$verdict"
done <"$rows"
steal=$(awk -v was="${busy_began#* }" -v s="$(($(date +%s) - began))" '/^cpu / { printf "%.2f", s ? ($9 - was) / 100 / s : 0; exit }' /proc/stat)
printf '\nmachine: load %s at the end, %s cores stolen by the hypervisor; %d of %d trials left out (throttled or void); %d s\n' \
	"$(cut -d' ' -f1-3 /proc/loadavg)" "$steal" $((seen_trials - seen_ok)) "$seen_trials" $(($(date +%s) - began))
if grep -q 'NOT KEPT$' "$rows"; then exit 1; fi
if grep -q 'TOO NOISY$' "$rows"; then exit 3; fi
exit 0
