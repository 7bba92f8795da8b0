/* SPDX-License-Identifier: Apache-2.0
 *
 * record/run.h: the run file (HDF5), its shards, and its reader.
 *
 * A run directory `<output>.parts/` holds one shard a trial, written to a temporary name and
 * renamed when whole: a crash loses one trial at most. nx_run_merge() makes the run file from them,
 * again by rename. Schema: see results/README.md. A reader refuses another schema version with one
 * sentence.
 */
#ifndef NEXUS_RECORD_RUN_H
#define NEXUS_RECORD_RUN_H

#include "measure/experiment.h"
#include "measure/instrument.h"
#include "measure/trial.h"

/* 2: session, turn and planned_arrival of requests. 3: telemetry of trials, energy, what instruments saw; files of
 * 2 are read, without these. */
#define NX_RUN_SCHEMA 3
#define NX_RUN_SCHEMA_OLDEST 2

/* Key and value, both text; numbers are spelled out. */
struct nx_fact {
	char key[48];
	char value[464];
};

/* What is true of the whole run: /provenance, /config, /calibration. Collected once by the parent
 * (facts) and by the first worker (device, calibration). */
struct nx_run_head {
	const char *name, *question, *config_text; /* borrowed by writers; owned by an nx_run */
	struct nx_fact *facts;
	size_t n_facts; /* "commit", "dirty", "cpu", "os", "argv", "binary_sha256", ... */
	struct nx_calibration calibration;
	struct nx_device_info device;
	struct nx_shape shape;
	double min_effect;
	size_t reference; /* stack index */
};

int nx_facts_collect(struct nx_fact **out, size_t *n, const struct nx_experiment *x, int argc,
                     char **argv, struct nx_err *err); /* release with free() */
const char *nx_fact_get(const struct nx_fact *f, size_t n, const char *key); /* NULL when absent */
int nx_sha256_file(const char *path, char hex[65], struct nx_err *err);
void nx_sha256(const void *data, size_t n, char hex[65]);

/* "not run", "random weights" (so it was not run), "exact", "near ties", "inconclusive", "failed". Verdict names: measure/stats.h. */
const char *nx_gate_text(const struct nx_gate *g);

/* ---- shards ---- */
/* Refuses a directory of another experiment or changed provenance (binary, plugin, model, device,
 * driver), naming the field, unless force (which records it). Creates it when missing. Takes a
 * lock: a second run on the same output is refused, naming the process that holds it. */
struct nx_shards;
/* Also refused: an output that exists (force replaces it at the merge), and shards without resume.
 * A damaged shard is set aside and counts as missing, so that its trial runs again: see
 * nx_shards_note. */
int nx_shards_open(struct nx_shards **out, const char *output, const struct nx_run_head *head,
                   bool resume, bool force, struct nx_err *err);
/* To end a run where it is: locks, and *head is what the run said then of machine, device and command (release it with
 * nx_head_release). Refused: trials of another configuration than `now` says (fact config_sha256), and none. */
int nx_shards_reopen(struct nx_shards **out, const char *output, const struct nx_run_head *now,
                     struct nx_run_head *head, struct nx_err *err);
/* Unlocks; a directory without any trial is removed. */
void nx_shards_close(struct nx_shards *s);
/* With resume: these shards are in the run file already, and the run that wrote it was ended before it
 * had removed them all. Nothing is left to run; read the file, then nx_shards_remove(). */
bool nx_shards_merged(const struct nx_shards *s);
/* Removes the directory and all that this program puts there; other files stay, and so does it then. */
int nx_shards_remove(struct nx_shards *s, struct nx_err *err);
bool nx_shards_has(const struct nx_shards *s, const char *cell, int32_t round);
int nx_shards_write(struct nx_shards *s, const struct nx_trial *t, struct nx_err *err);
/* Once the first worker knows the device: the same refusals for the device, then the head is
 * stored. Facts of changes that were forced are kept and reach the run file. */
int nx_shards_update(struct nx_shards *s, const struct nx_run_head *head, bool force,
                     struct nx_err *err);
/* One sentence for stderr about what open did by itself (damaged shards set aside), or what the merge
 * could not remove; or NULL. */
const char *nx_shards_note(const struct nx_shards *s);
size_t nx_shards_count(const struct nx_shards *s); /* trials that are there now */
/* Path of the shard directory: a worker writes its trial there by nx_shard_write_file. */
const char *nx_shards_dir(const struct nx_shards *s);
int nx_shard_write_file(const char *dir, const struct nx_trial *t, struct nx_err *err);
/* Where nx_shard_write_file puts a trial. */
void nx_shard_file(char *buf, size_t size, const char *dir, const char *cell, int32_t round);
int nx_shard_read_file(const char *path, struct nx_trial *out, struct nx_err *err);
/* Only the metrics, status and cell/round, for stopping rules: cheap. */
int nx_shard_read_metrics(const char *dir, const char *cell, int32_t round, struct nx_trial *out,
                          struct nx_err *err);

/* What the instruments saw of a cell, or why they saw nothing: one more file beside the cell's shards. */
int nx_profile_shard_write(const char *dir, const struct nx_profiled *p, struct nx_err *err);
bool nx_profile_shard_has(const char *dir, const char *cell);

/* Merges all shards into `output` (temporary name, then rename) and removes the directory; that it
 * could not is a note, no error. */
int nx_run_merge(struct nx_shards *s, const char *output, const struct nx_run_head *head,
                 const struct nx_cell *cells, size_t n_cells, struct nx_err *err);

/* ---- reader: what report, plot and compare need ---- */

struct nx_estimate {
	double value, lo,
		hi; /* median over trials of the cell, 95 % bootstrap interval; NaN = missing */
};

enum nx_pair_verdict {
	NX_VERDICT_NONE,
	NX_VERDICT_FASTER,
	NX_VERDICT_SLOWER,
	NX_VERDICT_SAME,
	NX_VERDICT_UNCLEAR
};

struct nx_cell_row {
	char id[17];
	char stack[64];
	char seq_len_text[48], output_len_text[48];
	int32_t stack_index, batch_size;
	int32_t fit; /* 1: the batch size is the largest that fits; 0, and -1 of older files: it was asked for */
	double seq_len, output_len; /* means */
	int32_t num_requests, n_trials, n_ok;
	int32_t n_failed; /* trials that are final but not skipped: failed, crashed, inexact, ... */
	int32_t status;   /* worst that matters: OK if any trial is ok */
	char cause[NX_ERR_MAX];
	struct nx_estimate metrics[NX_METRIC_COUNT];
	/* Against the reference stack in the same batch size (or both at their largest) and lengths, paired by round. */
	struct nx_estimate speedup; /* ratio of output throughput */
	double p_value;             /* Holm-corrected */
	int32_t verdict;            /* enum nx_pair_verdict */
	char speedup_note
		[128];       /* "withheld: gate failed", "reference's largest batch that fits: 8" */
	struct nx_gate gate; /* of the first trial that ran it */
	struct nx_phase_use
		phases[NX_PHASE_COUNT]; /* sums over ok trials, by phase; a file that was
	                                              * written before there were phases has none */
	struct nx_mem_use mem[NX_TRIAL_MEM_MAX];
	size_t n_mem; /* of the last ok trial; of a skipped cell, what the forecast says */
	struct nx_counter_value counters[NX_TRIAL_COUNTER_MAX];
	size_t n_counters; /* means over ok trials */
	int32_t util_source;
	double *ttft_ms, *tpot_ms; /* pooled over ok trials, for distributions */
	size_t n_ttft, n_tpot;
	struct nx_profiled *profiled; /* what the instruments saw; NULL = they were not asked */
	struct nx_cell_device {
		double temperature_c, power_w;          /* most of a trial; NaN = not known */
		double sm_clock_hz;                     /* mean over trials */
		double mem_used_bytes, other_processes; /* most */
		int64_t throttle; /* all reasons of all trials; -1 = not known */
		int32_t n_capped; /* trials in which the power cap was reached */
	} device;
	int32_t *out_tokens; /* [n_out_tokens] output lengths of the same, sorted */
	size_t n_out_tokens;
};

struct nx_run {
	struct nx_run_head head;
	struct nx_cell_row *cells;
	size_t n_cells;
	char **stacks;
	size_t n_stacks; /* names in the order of the sweep */
	char **stack_specs;
	size_t n_trials;
	char path[1024];
	char *texts; /* what the counters' unit points into */
};

int nx_run_read(struct nx_run **out, const char *path, struct nx_err *err);
void nx_run_destroy(struct nx_run *r);

#endif
