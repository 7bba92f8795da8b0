/* SPDX-License-Identifier: Apache-2.0
 *
 * profile.c: the profile for people. See profile.h.
 */
#include <math.h>
#include <string.h>

#include "measure/runner.h"
#include "present/number.h"
#include "present/profile.h"

/* A paragraph; in Markdown with its characters escaped. */
static void put(struct nx_text *out, enum nx_table_format format, const char *s)
{
	if (format == NX_TABLE_MD)
		nx_text_md(out, s);
	else
		nx_text_put(out, s);
	nx_text_put(out, "\n");
}

static void number(struct nx_table *t, double v, int sig)
{
	char buf[48];
	nx_table_cell(t, "%s", isfinite(v) ? nx_number_text(v, sig, buf, sizeof(buf)) : "unknown");
}

/* Above its peak a figure has an exclamation mark. */
static void percent(struct nx_table *t, double v, bool above)
{
	if (isfinite(v))
		nx_table_cell(t, "%.*f %%%s", 100 * v < 9.95 ? 1 : 0, 100 * v, above ? " !" : "");
	else
		nx_table_cell(t, "unknown");
}

/* Columns that not every run has. */
struct shown {
	bool missed, seen, idle;
};

static void phase_row(struct nx_table *t, const struct nx_profile_phase *p,
                      const struct shown *shown)
{
	const struct nx_bound_figures *f = &p->figures;
	const struct nx_bottleneck *b = &p->bottleneck;
	nx_table_cell(t, "%s", f->phase);
	nx_table_cell(t, "%.0f", f->steps);
	percent(t, p->share, false);
	number(t, 1e3 * f->time_s / f->steps, 3);
	number(t, f->rows / f->steps, 3);
	number(t, b->bytes_per_s / 1e9, 3);
	percent(t, b->bandwidth, b->above_bandwidth);
	number(t, b->flops_per_s / 1e9, 3);
	percent(t, b->compute, b->above_compute);
	number(t, b->intensity, 2);
	percent(t, b->host, false);
	if (shown->idle)
		percent(t, b->launch, false);
	for (int i = 0; i < NX_TRAFFIC_COUNT; i++)
		number(t, f->bytes[i] / 1e6 / f->steps, 3);
	if (shown->missed)
		number(t, p->missed_bytes / 1e6 / f->steps, 3);
	if (shown->seen)
		number(t, p->seen_bytes / 1e6 / f->steps, 3);
	nx_table_cell(t, "%s", f->source);
	nx_table_cell(t, "%s", nx_bound_name(b->bound));
}

static void phases(const struct nx_profile *p, enum nx_table_format format, struct nx_text *out)
{
	static const char *const HEAD[] = {"phase",     "steps",  "time",    "ms/step",
	                                   "rows/step", "GB/s",   "of peak", "GFLOP/s",
	                                   "of peak",   "flop/B", "host"};
	static const char *const BYTES[] = {"weights MB", "KV MB", "act. MB"};
	struct nx_table t;
	struct shown shown = {.idle = isfinite(nx_profile_idle(p->cell))};
	for (int i = 0; i < NX_PHASE_COUNT; i++) {
		if (!p->phases[i].use->n_steps)
			continue;
		shown.missed |= isfinite(p->phases[i].missed_bytes);
		shown.seen |= isfinite(p->phases[i].seen_bytes);
	}
	nx_table_init(&t);
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i], i ? NX_RIGHT : NX_LEFT);
	if (shown.idle)
		nx_table_column(&t, "launch", NX_RIGHT);
	for (size_t i = 0; i < NX_TRAFFIC_COUNT; i++)
		nx_table_column(&t, BYTES[i], NX_RIGHT);
	if (shown.missed)
		nx_table_column(&t, "missed MB", NX_RIGHT);
	if (shown.seen)
		nx_table_column(&t, "moved MB", NX_RIGHT);
	nx_table_column(&t, "source", NX_LEFT);
	nx_table_column(&t, "bound", NX_LEFT);
	for (int i = 0; i < NX_PHASE_COUNT; i++)
		if (p->phases[i].use->n_steps)
			phase_row(&t, &p->phases[i], &shown);
	nx_table_write(&t, format, out);
	nx_table_release(&t);
	nx_text_printf(
		out, "%sMB are counted bytes a step%s%s; host is planning time over step time%s.\n",
		format == NX_TABLE_MD ? "\n" : "",
		shown.missed ? ", missed those that missed the last-level cache (perf)" : "",
		shown.seen ? ", moved those that the device's counters saw (cupti)" : "",
		shown.idle ? ", launch the rest of the time that the device idled (traced)" : "");
}

static void memory(const struct nx_profile *p, enum nx_table_format format, struct nx_text *out)
{
	static const char *const HEAD[] = {"memory of", "reserved", "most used", "of the device"};
	double device = (double)p->run->head.device.mem_bytes;
	char a[32], b[32];
	struct nx_table t;
	nx_table_init(&t);
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i], i ? NX_RIGHT : NX_LEFT);
	for (size_t i = 0; i < p->cell->n_mem; i++) {
		const struct nx_mem_use *m = &p->cell->mem[i];
		nx_table_cell(&t, "%s", m->owner);
		nx_table_cell(&t, "%s", nx_size_text((double)m->reserved_bytes, a, sizeof(a)));
		nx_table_cell(&t, "%s", nx_size_text((double)m->peak_used_bytes, b, sizeof(b)));
		percent(&t, device > 0 ? (double)m->reserved_bytes / device : NAN, false);
	}
	nx_table_cell(&t, "all");
	nx_table_cell(&t, "%s", nx_size_text(p->mem_bytes, a, sizeof(a)));
	nx_table_cell(&t, "%s", "");
	percent(&t, device > 0 ? p->mem_bytes / device : NAN, false);
	nx_table_write(&t, format, out);
	nx_table_release(&t);
	double waste = p->cell->metrics[NX_METRIC_KV_WASTE].value;
	if (isfinite(waste))
		nx_text_printf(
			out,
			"%sOf the KV that sequences held, %.0f %% had no token in it (mean over time).\n",
			format == NX_TABLE_MD ? "\n" : "", 100 * waste);
}

static void heading(const struct nx_profile *p, enum nx_table_format format, struct nx_text *out)
{
	const struct nx_run_head *h = &p->run->head;
	const struct nx_cell_row *c = p->cell;
	const char *model = nx_fact_get(h->facts, h->n_facts, "model");
	const char *base = model ? strrchr(model, '/') : NULL;
	char line[512];
	snprintf(line, sizeof(line),
	         "%s, stack %s: batch size %d, prompt %s, output %s tokens, on %s (%s, %d threads)",
	         base    ? base + 1
	         : model ? model
	                 : "unknown model",
	         c->stack, c->batch_size, c->seq_len_text, c->output_len_text, h->device.name,
	         h->device.isa, h->device.n_units);
	nx_text_put(out, format == NX_TABLE_MD ? "## " : "");
	put(out, format, line);
	nx_text_put(out, "\n");
}

static void rates(const struct nx_profile *p, struct nx_text *out)
{
	const struct nx_estimate *m = p->cell->metrics;
	const struct nx_bound_figures *f = &p->phases[0].figures;
	char a[32], b[32], c[32];
	nx_text_printf(
		out,
		"%s tok/s of output, first token after %s ms (p50), then %s ms a token (p50).\n",
		nx_number_text(m[NX_METRIC_OUTPUT_THROUGHPUT].value, 3, a, sizeof(a)),
		nx_number_text(m[NX_METRIC_TTFT_P50].value, 3, b, sizeof(b)),
		nx_number_text(m[NX_METRIC_TPOT_P50].value, 3, c, sizeof(c)));
	if (f->peak_bytes_per_s > 0)
		nx_text_printf(out,
		               "Calibrated peaks: read %s (%s: weights and KV %s), products %s.\n",
		               nx_rate_text(f->peak_bytes_per_s, "B/s", a, sizeof(a)), f->level,
		               p->cached ? "fit it" : "are larger than the cache's set",
		               nx_rate_text(f->peak_flops_per_s, "FLOP/s", b, sizeof(b)));
	else
		nx_text_put(out, "Peaks were not calibrated.\n");
}

/* Of a disturbed cell: what disturbed it, without what is said of verdicts between stacks. */
static void put_cause(const struct nx_profile *p, enum nx_table_format format, struct nx_text *out)
{
	static const char mark[] = "; the first: ";
	const char *first = p->disturbed ? strstr(p->cell->cause, mark) : NULL;
	char line[sizeof(p->cell->cause) + 32];
	snprintf(line, sizeof(line), "%s%s", first ? "Disturbed: " : "",
	         first ? first + sizeof(mark) - 1 : p->cell->cause);
	put(out, format, line);
}

static void instruments(const struct nx_profile *p, enum nx_table_format format,
                        struct nx_text *out)
{
	struct nx_table t;
	struct nx_text lines;
	nx_text_init(&lines);
	nx_profile_remarks(p->cell, &lines);
	for (char *s = lines.s; s && *s;) {
		char *end = strchr(s, '\n');
		if (end)
			*end = '\0';
		put(out, format, s);
		s = end ? end + 1 : NULL;
	}
	if (lines.len)
		nx_text_put(out, "\n");
	out->failed |= lines.failed;
	nx_text_release(&lines);
	nx_table_init(&t);
	if (nx_profile_worked_out(p->cell, &t)) {
		nx_table_write(&t, format, out);
		nx_text_put(out, "\n");
	}
	nx_table_release(&t);
	nx_table_init(&t);
	if (nx_profile_kernels(p->cell, 12, &t)) {
		nx_table_write(&t, format, out);
		nx_text_put(out, "\n");
	}
	nx_table_release(&t);
}

static void cell(const struct nx_profile *p, const struct nx_profile_options *o,
                 enum nx_table_format format, struct nx_text *out)
{
	char list[256];
	heading(p, format, out);
	put(out, format, p->why);
	if (p->helps[0])
		put(out, format, p->helps);
	if (p->main < 0)
		return;
	nx_profile_missing(o, &p->phases[p->main].bottleneck, list, sizeof(list));
	if (list[0])
		nx_text_printf(out, "Not in this build yet: %s.\n", list);
	if (p->cell->cause[0])
		put_cause(p, format, out);
	if (p->cell->n_ok > 0 && nx_load_slack(p->time_s / p->cell->n_ok) > NX_LOAD_OTHER_MAX)
		nx_text_put(out,
		            "The trial was too short to tell whether other processes disturbed it; "
		            "more steps say more.\n");
	nx_text_put(out, "\n");
	phases(p, format, out);
	rates(p, out);
	for (int i = 0; i < NX_PHASE_COUNT; i++) {
		const struct nx_profile_phase *q = &p->phases[i];
		if (!q->use->n_steps || i == p->main)
			continue;
		nx_text_put(out, "\n");
		put(out, format, q->bottleneck.why);
		put(out, format, q->bottleneck.helps);
	}
	nx_text_put(out, "\n");
	instruments(p, format, out);
	memory(p, format, out);
}

int nx_profile_write(const struct nx_run *run, const struct nx_profile_options *o,
                     enum nx_table_format format, struct nx_text *out, struct nx_err *err)
{
	struct nx_profile p;
	switch (format) {
	case NX_TABLE_CSV: nx_profile_csv(run, out); break;
	case NX_TABLE_JSON: nx_profile_json(run, o, out); break;
	default:
		for (size_t i = 0; i < run->n_cells; i++) {
			nx_profile_of(run, &run->cells[i], &p);
			nx_text_put(out, i ? "\n" : "");
			cell(&p, o, format, out);
		}
	}
	return out->failed ? nx_fail(err, NX_ENOMEM, "no memory for the profile") : 0;
}
