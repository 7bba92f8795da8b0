/* SPDX-License-Identifier: Apache-2.0
 *
 * record/schema.h: every table of the run file, once. Internal to record/.
 *
 * X(kind, member, column, unit, text). Writer, reader, shards and results/README.md (checked by
 * test_record.c) follow these lists. A change of meaning or a column taken away bumps
 * NX_RUN_SCHEMA; a new column does too, as the reader asks for all of them.
 */
#ifndef NEXUS_RECORD_SCHEMA_H
#define NEXUS_RECORD_SCHEMA_H

#include "record/h5.h"
#include "record/run.h"

/* ---- rows as they lie in the file, where they are not the harness's own structs ---------------
 * */

struct nx_request_row {
	int32_t round;
	struct nx_request_rec r;
};
struct nx_token_row {
	int32_t round;
	struct nx_token_rec r;
};
struct nx_step_row {
	int32_t round;
	struct nx_step_info r;
};
struct nx_mem_row {
	int32_t round;
	struct nx_mem_use r;
};
struct nx_phase_row {
	int32_t round;
	struct nx_phase_use r;
};
struct nx_counter_row {
	int32_t round;
	char name[64], unit[32];
	double value;
};

/* What the instruments saw of a cell, without its lists. */
struct nx_instrument_row {
	int32_t round, n_steps, n_same, first_other, trace_phase, n_trace_steps;
	char versions[128], group[64], no_counters[NX_ERR_MAX], no_trace[NX_ERR_MAX];
	char no_time_line[NX_ERR_MAX];
	uint64_t window_ns, busy_ns, n_records, n_lost, n_samples_lost;
	double idle;
};
struct nx_metric_row {
	char name[NX_METRIC_NAME], as[32], unit[16], figure[16], formula[128], text[192];
	double times;
};
struct nx_kernel_row {
	char kind[16];
	struct nx_kernel_use r;
};

/* A trial without its raw arrays. */
struct nx_trial_row {
	char cell[17], status[16], util_source[16], gate_text[16], cause[NX_ERR_MAX];
	int32_t cell_index, round, n_warmup, batch_size;
	int64_t started_unix_ns;
	uint64_t duration_ns, warmup_ns;
	struct nx_counted counted;
	double perf_cycles, perf_instructions, perf_llc_misses, load_other;
	struct nx_device_state device;
	char throttle[128];
	struct nx_gate gate;
	double metrics[NX_METRIC_COUNT];
};

/* A cell with its enums as text and the names that make the row stand alone. */
struct nx_summary_row {
	struct nx_cell_row c;
	char status[16], verdict[16], util_source[16], gate_text[16];
	char model[64], device[64], host[64], reference[64];
};

/* ---- columns ----------------------------------------------------------------------------------
 * */

#define NX_REQUEST_COLUMNS(X)                                                                      \
	X(I32, round, "round", "index", "round of the trial")                                      \
	X(U32, r.request, "request", "id", "request of the workload")                              \
	X(U32, r.sample, "sample", "index", "continuation of the request's prompt")                \
	X(I32, r.n_in, "n_in", "tokens", "prompt tokens")                                          \
	X(I32, r.n_out, "n_out", "tokens", "output tokens")                                        \
	X(FINISH, r.finish, "finish", "enum", "why it ended")                                      \
	X(I32, r.n_preempted, "n_preempted", "count", "times that it was preempted")               \
	X(U64, r.arrival_ns, "arrival", "ns", "its client became free, since the trial's start")   \
	X(U64, r.admitted_ns, "admitted", "ns", "first step that carried it")                      \
	X(U64, r.first_ns, "first", "ns", "first output token")                                    \
	X(U64, r.last_ns, "last", "ns", "last output token")                                       \
	X(U32, r.session, "session", "id", "conversation; without any, the request's own id")      \
	X(U32, r.turn, "turn", "index", "user turn of the conversation, from 0")                   \
	X(I64, r.planned_ns, "planned_arrival", "ns",                                              \
	  "as the workload's trace has it, since its first; -1 = no trace; not used: the loop is closed")

#define NX_TOKEN_COLUMNS(X)                                                                        \
	X(I32, round, "round", "index", "round of the trial")                                      \
	X(U32, r.request, "request", "id", "request of the workload")                              \
	X(U32, r.sample, "sample", "index", "continuation of the request's prompt")                \
	X(I32, r.index, "index", "index", "place in the output, from 0")                           \
	X(I32, r.token, "token", "id", "token of the model's vocabulary")                          \
	X(U64, r.t_ns, "time", "ns", "when it was known, since the trial's start")

#define NX_STEP_COLUMNS(X)                                                                         \
	X(I32, round, "round", "index", "round of the trial")                                      \
	X(U64, r.begin_ns, "begin", "ns", "planning began, since the trial's start")               \
	X(U64, r.end_ns, "end", "ns", "results known")                                             \
	X(U64, r.plan_ns, "plan", "ns", "host time of hooks and bookkeeping")                      \
	X(PHASE, r.phase, "phase", "enum", "what the step mostly did")                             \
	X(I32, r.rows[NX_ROW_COMMIT], "rows_commit", "rows", "real tokens")                        \
	X(I32, r.rows[NX_ROW_CANDIDATE], "rows_candidate", "rows", "drafted tokens")               \
	X(I32, r.rows[NX_ROW_PROBE], "rows_probe", "rows", "rows that are never accepted")         \
	X(I32, r.rows[NX_ROW_PAD], "rows_pad", "rows", "padding")                                  \
	X(I32, r.rows[NX_ROW_REDO], "rows_redo", "rows", "computed again")                         \
	X(I32, r.n_seqs, "n_seqs", "count", "sequences in the step")                               \
	X(I32, r.n_emit, "n_emit", "tokens", "tokens given out")                                   \
	X(I32, r.n_accepted, "n_accepted", "rows", "drafted tokens that were accepted")            \
	X(I32, r.replayed, "replayed", "flag", "1 = by verdicts that were given, not found")       \
	X(U64, r.draft_ns, "draft", "ns", "time of drafting (asynchronous devices: host only)")    \
	X(I32, r.n_waiting, "n_waiting", "count", "sequences that waited")                         \
	X(I32, r.n_preempted, "n_preempted", "count", "sequences preempted in the step")           \
	X(I64, r.kv_used, "kv_used", "rows", "KV rows with a token in them")                       \
	X(I64, r.kv_held, "kv_held", "rows", "KV rows reserved for sequences")                     \
	X(I64, r.kv_total, "kv_total", "rows", "KV rows of the pool")

#define NX_PHASE_COLUMNS(X)                                                                        \
	X(I32, round, "round", "index", "round of the trial")                                      \
	X(PHASE, r.phase, "phase", "enum", "what the steps mostly did")                            \
	X(I64, r.n_steps, "n_steps", "count", "steps of the phase")                                \
	X(U64, r.time_ns, "time", "ns", "sum of their times")                                      \
	X(U64, r.plan_ns, "plan", "ns", "of it: host time of hooks and bookkeeping")               \
	X(I64, r.rows, "rows", "rows", "rows computed, of all kinds")                              \
	X(I64, r.rows_pad, "rows_pad", "rows", "of them: padding")                                 \
	X(I64, r.n_seqs, "n_seqs", "count", "sequences, summed over steps")                        \
	X(I64, r.n_waiting, "n_waiting", "count", "sequences that waited, summed over steps")      \
	X(I64, r.n_emit, "n_emit", "tokens", "tokens given out")                                   \
	X(I32, r.n_preempted, "n_preempted", "count", "sequences preempted")                       \
	X(I64, r.kv_held, "kv_held", "rows", "KV rows reserved for sequences, most")               \
	X(I64, r.kv_total, "kv_total", "rows", "KV rows of the pool")                              \
	X(U64, r.counted.weight_bytes, "counted_weights", "bytes", "weights that had to be read")  \
	X(U64, r.counted.kv_bytes, "counted_kv", "bytes", "KV that had to be read or written")     \
	X(U64, r.counted.act_bytes, "counted_activations", "bytes", "activations, likewise")       \
	X(U64, r.counted.flops, "counted_flops", "flop",                                           \
	  "2 a multiply-add, products and attention")                                              \
	X(F64, r.perf_cycles, "perf_cycles", "count", "user-mode cycles; NaN but in profiles")     \
	X(F64, r.perf_instructions, "perf_instructions", "count", "user-mode instructions")        \
	X(F64, r.perf_llc_misses, "perf_llc_misses", "count", "last-level-cache misses")

#define NX_MEM_COLUMNS(X)                                                                          \
	X(I32, round, "round", "index", "round of the trial")                                      \
	X(TEXT, r.owner, "owner", "text", "weights, kv, ..., or a technique's name")               \
	X(U64, r.reserved_bytes, "reserved", "bytes",                                              \
	  "taken; in a skipped round what the forecast says")                                      \
	X(U64, r.peak_used_bytes, "peak_used", "bytes",                                            \
	  "most that was used; in a skipped round, would be")

#define NX_COUNTER_COLUMNS(X)                                                                      \
	X(I32, round, "round", "index", "round of the trial")                                      \
	X(TEXT, name, "name", "text", "technique.counter")                                         \
	X(TEXT, unit, "unit", "text", "unit of value")                                             \
	X(F64, value, "value", "see unit", "value at the trial's end")

#define NX_GATE_COLUMNS(X, g)                                                                      \
	X(TEXT, gate_text, "gate", "text",                                                         \
	  "not run, random weights, exact, near ties, inconclusive, failed")                       \
	X(I32, g.n_positions, "gate_positions", "tokens", "positions compared")                    \
	X(I32, g.n_equal, "gate_equal", "tokens", "positions with the same token")                 \
	X(I32, g.n_near_tie, "gate_near_ties", "tokens", "differ within near_tie_width")           \
	X(I32, g.n_wrong, "gate_wrong", "tokens", "differ beyond it")                              \
	X(F64, g.near_tie_width, "gate_near_tie_width", "logits", "gap that counts as a tie")      \
	X(I32, g.first_request, "gate_first_request", "id",                                        \
	  "request of the first wrong position, -1 = none")                                        \
	X(I32, g.first_index, "gate_first_index", "index", "its place in the output, -1 = none")   \
	X(F64, g.first_gap, "gate_first_gap", "logits", "its gap")

#define NX_TRIAL_COLUMNS(X)                                                                        \
	X(TEXT, cell, "cell", "id", "cell, as in /summary")                                        \
	X(I32, cell_index, "cell_index", "index", "place of the cell in the sweep")                \
	X(I32, round, "round", "index", "round, from 0")                                           \
	X(TEXT, status, "status", "text", "how it ended")                                          \
	X(TEXT, cause, "cause", "text", "why, empty when ok")                                      \
	X(I64, started_unix_ns, "started", "ns since 1970 UTC", "wall clock at the start")         \
	X(U64, duration_ns, "wall", "ns", "the timed region as the worker saw it")                 \
	X(U64, warmup_ns, "warmup", "ns", "warm-up before it")                                     \
	X(I32, n_warmup, "n_warmup", "count", "warm-up passes")                                    \
	X(U64, counted.weight_bytes, "counted_weights", "bytes", "weights that had to be read")    \
	X(U64, counted.kv_bytes, "counted_kv", "bytes", "KV that had to be read or written")       \
	X(U64, counted.act_bytes, "counted_activations", "bytes", "activations, likewise")         \
	X(U64, counted.flops, "counted_flops", "flop", "2 a multiply-add, products and attention") \
	X(TEXT, util_source, "util_source", "text", "where util_* come from")                      \
	X(F64, perf_cycles, "perf_cycles", "count", "user-mode cycles, NaN = not available")       \
	X(F64, perf_instructions, "perf_instructions", "count", "user-mode instructions")          \
	X(F64, perf_llc_misses, "perf_llc_misses", "count", "last-level-cache misses")             \
	X(F64, load_other, "load_other", "processors",                                             \
	  "of those that may be used, kept busy by others")                                        \
	NX_GATE_COLUMNS(X, gate)

/* Since schema 3. */
#define NX_TELEMETRY_COLUMNS(X)                                                                    \
	X(F64, device.energy_j, "device_energy", "J", "of the device, during the trial")           \
	X(F64, device.power_w, "device_power", "W", "highest reading")                             \
	X(F64, device.temperature_c, "device_temperature", "C", "highest")                         \
	X(F64, device.sm_clock_hz, "device_clock", "Hz", "of the SMs, mean of the readings")       \
	X(F64, device.sm_clock_low_hz, "device_clock_low", "Hz", "of the SMs, lowest")             \
	X(F64, device.mem_clock_hz, "device_mem_clock", "Hz", "of the memory, mean")               \
	X(F64, device.mem_used_bytes, "device_mem_used", "bytes",                                  \
	  "most, of the whole device, by whomever")                                                \
	X(F64, device.other_processes, "device_others", "count",                                   \
	  "most other processes that compute on the device")                                       \
	X(F64, device.utilisation, "device_busy", "fraction",                                      \
	  "of sample periods with a kernel running, mean")                                         \
	X(F64, device.n_samples, "device_readings", "count", "telemetry readings")                 \
	X(I64, device.throttle, "device_throttle", "bits",                                         \
	  "why clocks were lower, -1 = not known; nexus/instruments.h")                            \
	X(TEXT, throttle, "device_throttle_text", "text", "the same in words")

#define NX_INSTRUMENT_COLUMNS(X)                                                                   \
	X(I32, round, "round", "index", "round whose requests were run again")                     \
	X(TEXT, versions, "versions", "text", "of what is behind the instruments")                 \
	X(TEXT, group, "group", "text", "group of metrics")                                        \
	X(TEXT, no_counters, "no_counters", "text", "why there are none, or what was left out")    \
	X(TEXT, no_trace, "no_trace", "text", "why there is none")                                 \
	X(I32, n_steps, "n_steps", "count", "steps of the run with counters")                      \
	X(I32, n_same, "n_same", "count", "of them: phase and rows as in the timed trial")         \
	X(I32, first_other, "first_other", "index", "first step that differs, -1 = none")          \
	X(PHASE, trace_phase, "trace_phase", "enum", "phase of the traced steps")                  \
	X(I32, n_trace_steps, "n_trace_steps", "count", "steps that were traced")                  \
	X(U64, window_ns, "window", "ns", "first begin to last end of the trace")                  \
	X(U64, busy_ns, "busy", "ns", "of it: something ran")                                      \
	X(U64, n_records, "n_records", "count", "records of the trace")                            \
	X(U64, n_lost, "n_lost", "count", "records that had no room")                              \
	X(F64, idle, "idle", "fraction", "of the window in which nothing ran; NaN = no trace")

/* Later than the others. */
#define NX_TIME_LINE_COLUMNS(X)                                                                    \
	X(TEXT, no_time_line, "no_time_line", "text", "why there is none where one was asked for") \
	X(U64, n_samples_lost, "n_samples_lost", "count", "samples that had no room, at least")

#define NX_SAMPLE_COLUMNS(X)                                                                       \
	X(U64, begin_ns, "begin", "ns", "since the first sample began, by the device's clock")     \
	X(U64, end_ns, "end", "ns", "likewise")                                                    \
	X(F64, dram, "dram", "fraction", "of the memory's peak throughput")                        \
	X(F64, sm, "sm", "fraction", "of the SMs' cycles in which something was on them")          \
	X(F64, tensor, "tensor", "fraction", "of the tensor cores' cycles in which they worked")

#define NX_METRIC_COLUMNS(X)                                                                       \
	X(TEXT, name, "name", "text", "the device's name of it, or ours; a column of ranges")      \
	X(TEXT, as, "as", "text", "name in formulas")                                              \
	X(TEXT, formula, "formula", "text", "empty: a counter; else how it is worked out")         \
	X(TEXT, unit, "unit", "text", "its unit")                                                  \
	X(TEXT, figure, "figure", "text", "what it adds to: bytes, flops, time_ns, or nothing")    \
	X(F64, times, "times", "ratio", "factor with which it adds")                               \
	X(TEXT, text, "text", "text", "what it is")

/* Then one float64 column a metric, in the order of metrics. */
#define NX_RANGE_COLUMNS(X)                                                                        \
	X(PHASE, phase, "phase", "enum", "what the step mostly did")                               \
	X(I32, step, "step", "index", "place in the trial's steps")                                \
	X(I32, rows, "rows", "rows", "rows computed, of all kinds")                                \
	X(I32, n_emit, "n_emit", "tokens", "tokens given out")                                     \
	X(U64, step_ns, "step_time", "ns", "time of the step, the range around it")

#define NX_KERNEL_COLUMNS(X)                                                                       \
	X(TEXT, r.name, "name", "text", "kernel, without its arguments")                           \
	X(TEXT, kind, "kind", "text", "kernel, copy, set")                                         \
	X(PHASE, r.phase, "phase", "enum", "of the traced steps")                                  \
	X(I64, r.calls, "calls", "count", "how often it ran in the window")                        \
	X(U64, r.total_ns, "total", "ns",                                                          \
	  "sum of its times, each from when all before it had ended")                              \
	X(F64, r.share, "share", "fraction", "of the sum over all")

#define NX_PERTURBED_COLUMNS(X)                                                                    \
	X(PHASE, phase, "phase", "enum", "what the steps mostly did")                              \
	X(I32, n_traced, "n_traced", "count", "steps under the trace")                             \
	X(U64, traced_ns, "traced", "ns", "their time")                                            \
	X(U64, traced_timed_ns, "traced_timed", "ns", "of the same steps in the timed trial")      \
	X(I32, n_counted, "n_counted", "count", "steps in ranges, which wait for the device")      \
	X(U64, counted_ns, "counted", "ns", "their time")                                          \
	X(U64, counted_timed_ns, "counted_timed", "ns", "of the same steps in the timed trial")    \
	X(I32, n_beside, "n_beside", "count", "other steps while counters were open")              \
	X(U64, beside_ns, "beside", "ns", "their time")                                            \
	X(U64, beside_timed_ns, "beside_timed", "ns", "of the same steps in the timed trial")

/* Later than the others. */
#define NX_TRIAL_LATE_COLUMNS(X) X(I32, batch_size, "batch_size", "requests", "requests in flight")
#define NX_SUMMARY_LATE_COLUMNS(X)                                                                 \
	X(I32, c.fit, "fit", "flag", "1: the batch size is the largest that fits")

#define NX_SUMMARY_COLUMNS(X)                                                                      \
	X(TEXT, c.id, "cell", "id", "hash of axis values, stack and workload; group in /cells")    \
	X(TEXT, model, "model", "text", "model file or shape")                                     \
	X(TEXT, device, "device", "text", "device's name")                                         \
	X(TEXT, host, "host", "text", "machine's name")                                            \
	X(TEXT, c.stack, "stack", "text", "name of the stack")                                     \
	X(I32, c.stack_index, "stack_index", "index", "row of /config/stack_names")                \
	X(I32, c.batch_size, "batch_size", "requests", "requests in flight")                       \
	X(F64, c.seq_len, "seq_len", "tokens", "prompt length, mean")                              \
	X(TEXT, c.seq_len_text, "seq_len_text", "text", "prompt length, as asked for")             \
	X(F64, c.output_len, "output_len", "tokens", "output length, mean")                        \
	X(TEXT, c.output_len_text, "output_len_text", "text", "output length, as asked for")       \
	X(I32, c.num_requests, "num_requests", "requests", "requests of a trial")                  \
	X(I32, c.n_trials, "n_trials", "count", "trials recorded")                                 \
	X(I32, c.n_ok, "n_ok", "count", "trials in the statistics: ok and inexact")                \
	X(TEXT, status, "status", "text", "ok if any trial is; else what stopped it")              \
	X(TEXT, c.cause, "cause", "text", "why; of an ok cell: what was left out")                 \
	X(F64, c.speedup.value, "speedup", "ratio",                                                \
	  "output throughput over the reference's, paired by round")                               \
	X(F64, c.speedup.lo, "speedup_lo", "ratio", "95 % interval, lower end")                    \
	X(F64, c.speedup.hi, "speedup_hi", "ratio", "95 % interval, upper end")                    \
	X(TEXT, reference, "reference", "text", "stack that the ratio is taken against")           \
	X(F64, c.p_value, "p_value", "probability",                                                \
	  "paired t-test, Holm-corrected over the sweep")                                          \
	X(TEXT, verdict, "verdict", "text", "faster, slower, same, unclear, none")                 \
	X(TEXT, c.speedup_note, "speedup_note", "text", "what to know about the ratio")            \
	X(TEXT, util_source, "util_source", "text", "where util_* come from")                      \
	NX_GATE_COLUMNS(X, c.gate)

#define NX_CALIBRATION_COLUMNS(X)                                                                  \
	X(F64, read_bytes_per_s, "read", "bytes/s", "memory, streaming read")                      \
	X(F64, copy_bytes_per_s, "copy", "bytes/s", "memory, read and write counted")              \
	X(F64, cache_read_bytes_per_s, "cache_read", "bytes/s", "last-level cache, read")          \
	X(U64, cache_set_bytes, "cache_set", "bytes", "working set of cache_read")                 \
	X(U64, mem_set_bytes, "mem_set", "bytes", "working set of read and copy")                  \
	X(F64, f32_flops_per_s, "f32_flops", "flop/s", "own products, f32")                        \
	X(F64, bf16_flops_per_s, "bf16_flops", "flop/s", "own products, bf16")                     \
	X(F64, blas_flops_per_s, "library_flops", "flop/s", "library's product in the run's type")

#define NX_DEVICE_COLUMNS(X)                                                                       \
	X(TEXT, name, "name", "text", "device's name")                                             \
	X(TEXT, isa, "isa", "text", "kernel path in use")                                          \
	X(TEXT, blas, "library", "text", "library for large products, empty = none")               \
	X(U64, mem_bytes, "memory", "bytes", "memory of the device")                               \
	X(U64, llc_bytes, "llc", "bytes", "last-level cache")                                      \
	X(U64, free_bytes, "free", "bytes", "memory free at the start")                            \
	X(I32, n_units, "n_units", "count", "threads or SMs in use")                               \
	X(I32, act_dtype, "act_dtype", "enum", "activations: 0 f32, 1 bf16")                       \
	X(U32, caps, "caps", "bits", "NX_DEV_* of device.h")

#define NX_SHAPE_COLUMNS(X)                                                                        \
	X(I32, n_layers, "n_layers", "count", "layers")                                            \
	X(I32, d_model, "d_model", "elements", "width")                                            \
	X(I32, n_heads, "n_heads", "count", "query heads")                                         \
	X(I32, n_kv_heads, "n_kv_heads", "count", "KV heads")                                      \
	X(I32, head_dim, "head_dim", "elements", "size of a head")                                 \
	X(I32, d_ff, "d_ff", "elements", "width of the feed-forward")                              \
	X(I32, vocab, "vocab", "tokens", "vocabulary")                                             \
	X(I32, ctx_len, "ctx_len", "tokens", "trained context")                                    \
	X(F64, rope_theta, "rope_theta", "", "RoPE base")                                          \
	X(F64, norm_eps, "norm_eps", "", "epsilon of RMSNorm")                                     \
	X(I32, rope_dim, "rope_dim", "elements", "rotated elements of a head")                     \
	X(I32, tied, "tied", "0 or 1", "output projection is the embedding")

/* nx_shape with members that HDF5 knows. */
struct nx_shape_row {
	int32_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, vocab, ctx_len, rope_dim,
		tied;
	double rope_theta, norm_eps;
};

#define NX_FACT_COLUMNS(X)                                                                         \
	X(TEXT, key, "key", "text", "name of the fact")                                            \
	X(TEXT, value, "value", "text", "numbers are spelled out")

/* X(id, struct, text) for tables that are nothing but their list of columns. */
#define NX_TABLES(X)                                                                               \
	X(REQUEST, nx_request_row, "one row a sequence and round")                                 \
	X(TOKEN, nx_token_row, "one row an output token and round")                                \
	X(STEP, nx_step_row, "one row a step of the engine and round")                             \
	X(PHASE, nx_phase_row, "one row a phase and round: the work of its steps")                 \
	X(MEM, nx_mem_row, "one row an owner of memory and round")                                 \
	X(COUNTER, nx_counter_row, "one row a counter of a technique and round")                   \
	X(INSTRUMENT, nx_instrument_row, "one row: what the device's instruments saw of the cell") \
	X(METRIC, nx_metric_row, "one row a metric that was counted")                              \
	X(KERNEL, nx_kernel_row, "one row a kernel of the traced steps")                           \
	X(SAMPLE, nx_device_sample, "one row a sample of the device over time")                    \
	X(PERTURBED, nx_perturbed, "one row a phase: how far looking slowed its steps")            \
	X(TRIAL, nx_trial_row, "one row a trial: a cell in a round")                               \
	X(SUMMARY, nx_summary_row, "one row a cell; medians over trials with 95 % intervals")      \
	X(CALIBRATION, nx_calibration, "peaks measured on this device; 0 = not measured")          \
	X(DEVICE, nx_device_info, "the device")                                                    \
	X(SHAPE, nx_shape_row, "the model's numbers")                                              \
	X(FACT, nx_fact, "provenance")

enum nx_table_id {
#define X(id, row, text) NX_TABLE_##id,
	NX_TABLES(X)
#undef X
		NX_TABLE_COUNT
};
const struct nx_h5_table *nx_schema_table(enum nx_table_id id);

/* The table of ranges of a group, whose names it borrows; columns has room for NX_RANGE_TABLE_MAX. */
#define NX_RANGE_TABLE_MAX (8 + NX_GROUP_MAX + NX_FORMULAS_MAX)
struct nx_h5_table nx_range_table(const struct nx_metric_group *g, struct nx_h5_column *columns);

/* A cell's tables of its instruments, in a profile shard and in a cell's group. */
int nx_profiled_write(hid_t group, const struct nx_profiled *p, struct nx_err *err);
/* *out is NULL where there are none. Release with nx_profiled_release and free(). */
int nx_profiled_read(hid_t group, struct nx_profiled **out, struct nx_err *err);
void nx_profile_shard_path(char *buf, size_t size, const char *dir, const char *cell);

/* ---- conversions ------------------------------------------------------------------------------
 * */

void nx_trial_to_row(const struct nx_trial *t, struct nx_trial_row *row);
int nx_trial_from_row(const struct nx_trial_row *row, struct nx_trial *t, struct nx_err *err);
void nx_cell_to_row(const struct nx_cell_row *c, const struct nx_run_head *head,
                    const char *reference, struct nx_summary_row *row);
int nx_cell_from_row(const struct nx_summary_row *row, struct nx_cell_row *c, struct nx_err *err);
/* -1 for an unknown name. */
int nx_status_find(const char *name);
int nx_verdict_find(const char *name);
int nx_util_source_find(const char *name);
/* Copies text, cut at a whole UTF-8 character. */
void nx_copy_text(char *dst, size_t size, const char *text);

/* /config, /provenance and /calibration, in a run file and in a shard directory's head.h5. The
 * reader allocates; nx_head_release frees what it read. */
int nx_head_write(hid_t file, const struct nx_run_head *head, struct nx_err *err);
int nx_head_read(hid_t file, struct nx_run_head *head, struct nx_err *err);
void nx_head_release(struct nx_run_head *head);
/* Schema version at the root: writes it; refuses another. */
int nx_schema_write(hid_t file, const char *what, struct nx_err *err);
int nx_schema_check(hid_t file, struct nx_err *err);

/* Usable for statistics: ran to its end and was not throttled or voided. */
/* Enters the statistics of its cell; throttled ones only where the whole cell is disturbed. */
bool nx_trial_usable(int status, bool disturbed);
/* Everything in /summary that needs more than one trial. rows: all trials of the sweep, in any
 * order. out has one entry a cell, filled except for memory and counters. Returns 0 or NX_ENOMEM.
 * */
int nx_summarise(const struct nx_cell *cells, size_t n_cells, const struct nx_trial_row *rows,
                 size_t n_rows, const struct nx_run_head *head, struct nx_cell_row *out,
                 struct nx_err *err);

/* Path of a shard in dir. */
void nx_shard_path(char *buf, size_t size, const char *dir, const char *cell, int32_t round);
/* Opens a shard and checks its schema; the sentence carries the path. */
int nx_shard_open(hid_t *file, const char *path, struct nx_err *err);

#endif
