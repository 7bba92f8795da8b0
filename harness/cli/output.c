/* SPDX-License-Identifier: Apache-2.0
 *
 * output.c: see output.h.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/output.h"
#include "present/grid.h"
#include "present/number.h"
#include "present/table.h"

#define RESULTS "results"
#define PARTS ".h5.parts"

/* results/<name>-<UTC>.h5.parts sorts by time, so the newest is the last by name. */
static int newest(const char *name, char *buf, size_t size, struct nx_err *err)
{
	char best[256] = "";
	size_t n = strlen(name), tail = strlen(PARTS);
	DIR *d = opendir(RESULTS);
	const struct dirent *e;
	while (d && (e = readdir(d))) {
		size_t len = strlen(e->d_name);
		/* name, '-', 16 characters of time: another experiment may begin with this one's name */
		if (len != n + 1 + 16 + tail || strncmp(e->d_name, name, n) ||
		    e->d_name[n] != '-' || strcmp(e->d_name + len - tail, PARTS) ||
		    len >= sizeof(best))
			continue;
		if (strcmp(e->d_name, best) > 0)
			snprintf(best, sizeof(best), "%s", e->d_name);
	}
	if (d)
		closedir(d);
	if (!best[0])
		return nx_fail(err, NX_EINVAL,
		               "there is nothing to resume: no " RESULTS "/%s-*" PARTS
		               "; give the output with -o",
		               name);
	snprintf(buf, size, RESULTS "/%.*s", (int)(strlen(best) - strlen(".parts")), best);
	return 0;
}

static int check_folder(const char *path, struct nx_err *err)
{
	char dir[4096] = ".";
	const char *slash = strrchr(path, '/');
	struct stat st;
	if (slash)
		snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	if (stat(dir, &st) || !S_ISDIR(st.st_mode))
		return nx_fail(
			err, NX_EINVAL,
			"the folder '%s' for the run file is not there; make it, or choose another -o",
			dir);
	if (access(dir, W_OK | X_OK))
		return nx_fail(err, NX_EENV, "the folder '%s' cannot be written to: %s", dir,
		               strerror(errno));
	if (!stat(path, &st) && S_ISDIR(st.st_mode))
		return nx_fail(err, NX_EINVAL, "'%s' is a folder; -o takes the name of a file",
		               path);
	return 0;
}

int nx_output_path(const char *given, const char *name, bool resume, char *buf, size_t size,
                   struct nx_err *err)
{
	if (given) {
		if ((size_t)snprintf(buf, size, "%s", given) >= size || !given[0])
			return nx_fail(err, NX_EINVAL, "-o takes the name of a file");
		char parts[4200];
		snprintf(parts, sizeof(parts), "%s.parts", buf);
		if (resume && access(parts, F_OK) != 0)
			return nx_fail(
				err, NX_EINVAL,
				"nothing to resume: there is no %s; run without --resume, or with the -o of then",
				parts);
	} else if (resume) {
		int rc = newest(name, buf, size, err);
		if (rc)
			return rc;
	} else {
		char utc[32];
		struct tm tm;
		time_t now = time(NULL);
		gmtime_r(&now, &tm);
		strftime(utc, sizeof(utc), "%Y%m%dT%H%M%SZ", &tm);
		if (mkdir(RESULTS, 0777) && errno != EEXIST)
			return nx_fail(err, NX_EENV, "cannot make the folder " RESULTS ": %s",
			               strerror(errno));
		snprintf(buf, size, RESULTS "/%s-%s.h5", name, utc);
	}
	return check_folder(buf, err);
}

/* ---- forecast --------------------------------------------------------------------------------- */

/* Seconds that one trial of a cell takes at least, from calibrated peaks: a prompt row is bound by
 * products, a decode step by reading the weights. Padding, warm-up and gate come on top. */
static double trial_seconds(const struct nx_crew *crew, const struct nx_shape *s,
                            const struct nx_cell *c, const struct nx_forecast *f)
{
	const struct nx_calibration *cal = &crew->calibration;
	double layer = (double)s->d_model * s->head_dim * (2.0 * s->n_heads + 2.0 * s->n_kv_heads) +
	               3.0 * (double)s->d_model * s->d_ff;
	double weights = layer * s->n_layers + (double)s->d_model * s->vocab;
	double bytes = weights * (double)nx_dtype_bytes(crew->x->dtype);
	double own = crew->x->dtype == NX_F32 ? cal->f32_flops_per_s : cal->bf16_flops_per_s;
	double flops = own > cal->blas_flops_per_s ? own : cal->blas_flops_per_s;
	double read = nx_read_peak(cal, (uint64_t)bytes, NULL);
	if (flops <= 0 || read <= 0)
		return 0;
	double in = f->mean_in > 0 ? f->mean_in : nx_dist_mean(&c->seq_len);
	double out = f->mean_out > 0 ? f->mean_out : nx_dist_mean(&c->output_len);
	double prompts = (double)c->num_requests * in;
	double outputs = (double)c->num_requests * out * crew->x->workload.samples;
	double places = (double)c->batch_size * crew->x->workload.samples;
	double step = bytes / read, work = 2 * weights * places / flops;
	return prompts * 2 * weights / flops + outputs / places * (step > work ? step : work);
}

static void owners(const struct nx_forecast *f, char *buf, size_t size)
{
	size_t at = 0;
	buf[0] = '\0';
	for (size_t i = 0; i < f->n_mem && at < size; i++) {
		char bytes[32];
		if (!f->mem[i].reserved_bytes)
			continue;
		at += (size_t)snprintf(
			buf + at, size - at, "%s%s %s", at ? ", " : "", f->mem[i].owner,
			nx_size_text((double)f->mem[i].reserved_bytes, bytes, sizeof(bytes)));
	}
}

int nx_output_forecast(struct nx_crew *crew, const struct nx_shape *shape, int *status,
                       struct nx_err *err)
{
	size_t n, fit = 0;
	const struct nx_cell *cells = nx_experiment_cells(crew->x, &n);
	double total_s = 0;
	struct nx_table t;
	struct nx_text text;
	nx_table_init(&t);
	nx_text_init(&text);
	static const char *const HEAD[] = {"cell",     "stack",  "batch", "prompt", "output",
	                                   "requests", "memory", "fits",  "trial",  "by owner"};
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i],
		                i == 2 || i == 5 || i == 6 || i == 8 ? NX_RIGHT : NX_LEFT);
	int rc = 0;
	for (size_t i = 0; i < n && !rc; i++) {
		const struct nx_cell *c = &cells[i];
		struct nx_forecast f;
		char in[48], out[48], bytes[32], secs[32], by[512];
		rc = nx_crew_forecast(crew, c, &f, err);
		if (rc)
			break;
		double s = f.code ? 0 : trial_seconds(crew, shape, c, &f);
		total_s += s * crew->x->trials.max;
		fit += !f.code;
		owners(&f, by, sizeof(by));
		nx_table_cell(&t, "%s", c->id);
		nx_table_cell(&t, "%s", c->stack->name);
		if (c->fit && f.batch_size == NX_BATCH_FIT)
			nx_table_cell(&t, "none fits");
		else
			nx_table_cell(&t, "%d%s", c->batch_size, c->fit ? " (largest)" : "");
		nx_table_cell(&t, "%s", nx_dist_text(&c->seq_len, in, sizeof(in)));
		nx_table_cell(&t, "%s", nx_dist_text(&c->output_len, out, sizeof(out)));
		nx_table_cell(&t, "%d", c->num_requests);
		nx_table_cell(&t, "%s",
		              f.total_bytes
		                      ? nx_size_text((double)f.total_bytes, bytes, sizeof(bytes))
		                      : "");
		nx_table_cell(&t, "%s", f.code ? "no" : "yes");
		nx_table_cell(&t, "%s", s > 0 ? nx_seconds_text(s, secs, sizeof(secs)) : "");
		/* What does not fit is shown by owner all the same: that says what to make smaller. */
		nx_table_cell(&t, "%s%s%s", f.code ? f.reason : "", f.code && by[0] ? ": " : "",
		              by);
	}
	if (!rc) {
		char secs[32], mem[32];
		nx_table_write(&t, NX_TABLE_TEXT, &text);
		if (text.failed)
			rc = nx_fail(err, NX_ENOMEM, "no memory for the table of %zu cells", n);
		else
			fputs(text.s, stdout);
		fflush(stdout); /* both may go to one pipe */
		fprintf(stderr,
		        "%zu cell%s, %zu fit into %s on %s; up to %d trial%s each; at least %s (computed from "
		        "calibrated peaks, without warm-up, padding and gate)\n",
		        n, n == 1 ? "" : "s", fit,
		        nx_size_text((double)crew->fits_bytes, mem, sizeof(mem)), crew->device.name,
		        crew->x->trials.max, crew->x->trials.max == 1 ? "" : "s",
		        nx_seconds_text(total_s, secs, sizeof(secs)));
		/* as the run would end */
		*status = fit ? NX_EXIT_DONE : NX_EXIT_CELL_FAILED;
	}
	nx_text_release(&text);
	nx_table_release(&t);
	return rc;
}

/* ---- summary ---------------------------------------------------------------------------------- */

static void summary_row(struct nx_table *t, const struct nx_run *run, const struct nx_cell_row *c)
{
	char a[64], b[64], r[64];
	bool usable = nx_cell_usable(c);
	bool reference = c->stack_index == (int32_t)run->head.reference;
	nx_table_cell(t, "%s", c->stack);
	nx_table_cell(t, "%s", nx_cell_batch_text(c, a, sizeof(a)));
	nx_table_cell(t, "%s", c->seq_len_text);
	nx_table_cell(t, "%s", c->output_len_text);
	nx_table_cell(t, "%d/%d", c->n_ok, c->n_trials);
	nx_table_cell(t, "%s",
	              usable ? nx_estimate_text(&c->metrics[NX_METRIC_OUTPUT_THROUGHPUT], 1, 4, a,
	                                        sizeof(a))
	                     : nx_status_name(c->status));
	nx_table_cell(t, "%s",
	              usable ? nx_estimate_text(&c->metrics[NX_METRIC_TPOT_P50], 1, 3, b, sizeof(b))
	                     : "");
	nx_table_cell(t, "%s", reference ? "" : nx_ratio_text(&c->speedup, r, sizeof(r)));
	nx_table_cell(t, "%s",
	              reference            ? "reference"
	              : c->speedup_note[0] ? c->speedup_note
	              : usable             ? nx_verdict_word(c->verdict)
	                                   : "");
}

int nx_output_verdict(const struct nx_run *run)
{
	size_t failed = 0, figures = 0;
	for (size_t i = 0; i < run->n_cells; i++) {
		const struct nx_cell_row *c = &run->cells[i];
		bool invalid = c->status == NX_STATUS_INVALID; /* all that ran was */
		failed += c->n_failed > 0 || invalid;
		figures += !nx_status_final(c->status) && !invalid;
	}
	if (failed)
		nx_say("%zu of %zu cells failed", failed, run->n_cells);
	else if (!figures)
		nx_say("no cell gave figures: all %zu were skipped, see above", run->n_cells);
	return failed || !figures ? NX_EXIT_CELL_FAILED : NX_EXIT_DONE;
}

/* Why there are no counters or no trace: each reason once. */
static void say_instruments(const struct nx_run *run)
{
	const char *counters = "", *trace = "";
	for (size_t i = 0; i < run->n_cells; i++) {
		const struct nx_profiled *p = run->cells[i].profiled;
		if (!p)
			continue;
		if (!p->n_ranges && strcmp(counters, p->no_counters) != 0) {
			counters = p->no_counters;
			fprintf(stderr, "no counters, utilisation is counted: %s\n", counters);
		}
		if (!p->n_records && strcmp(trace, p->no_trace) != 0) {
			trace = p->no_trace;
			fprintf(stderr, "no trace of kernels: %s\n", trace);
		}
	}
}

int nx_output_summary(const char *path, int *status, struct nx_err *err)
{
	struct nx_run *run = NULL;
	int rc = nx_run_read(&run, path, err);
	if (rc)
		return rc;
	struct nx_table t;
	struct nx_text text;
	nx_table_init(&t);
	nx_text_init(&text);
	static const char *const HEAD[] = {"stack",
	                                   "batch",
	                                   "prompt",
	                                   "output",
	                                   "trials",
	                                   "tok/s [95 %]",
	                                   "tpot p50 ms [95 %]",
	                                   "speed-up [95 %]",
	                                   "verdict"};
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i], i == 1 || i == 4 ? NX_RIGHT : NX_LEFT);
	for (size_t i = 0; i < run->n_cells; i++)
		summary_row(&t, run, &run->cells[i]);
	nx_table_write(&t, NX_TABLE_TEXT, &text);
	if (!text.failed && text.s)
		fprintf(stderr, "\n%s", text.s);
	if (run->n_cells)
		fprintf(stderr, "speed-up: output throughput against %s, paired by round\n",
		        nx_run_reference(run));
	for (size_t i = 0; i < run->n_cells; i++)
		if (run->cells[i].cause[0]) {
			char batch[32];
			fprintf(stderr, "  %s, batch %s: %s: %s\n", run->cells[i].stack,
			        nx_cell_batch_text(&run->cells[i], batch, sizeof(batch)),
			        nx_status_name(run->cells[i].status), run->cells[i].cause);
		}
	say_instruments(run);
	*status = nx_output_verdict(run);
	nx_text_release(&text);
	nx_table_release(&t);
	nx_run_destroy(run);
	return 0;
}
