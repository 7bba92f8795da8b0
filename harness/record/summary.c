/* SPDX-License-Identifier: Apache-2.0 */
/* From all trials to one row a cell: medians and intervals, ratios to the reference, verdicts. The
 * rules are in measure/stats.h; throttled and invalid trials stay in /trials and do not count here.
 * */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure/stats.h"
#include "record/schema.h"

/* The sweep as a grid: row[cell * n_rounds + round], NULL where there is no trial. */
struct grid {
	const struct nx_trial_row **row;
	bool *disturbed; /* [n_cells] every trial that ran was throttled: they count, marked, without a verdict */
	size_t n_cells, n_rounds;
	double *a, *b; /* [n_rounds] */
};

bool nx_trial_usable(int status, bool disturbed)
{
	return status == NX_STATUS_OK || status == NX_STATUS_INEXACT ||
	       (disturbed && status == NX_STATUS_THROTTLED);
}

static bool usable(const struct grid *g, size_t c, const struct nx_trial_row *r)
{
	return r && nx_trial_usable(nx_status_find(r->status), g->disturbed[c]);
}

/* A cell without one clean trial is better shown with a mark than not at all. */
static void find_disturbed(struct grid *g)
{
	for (size_t c = 0; c < g->n_cells; c++) {
		bool clean = false;
		for (size_t r = 0; r < g->n_rounds; r++) {
			const struct nx_trial_row *t = g->row[c * g->n_rounds + r];
			clean |= t && nx_trial_usable(nx_status_find(t->status), false);
		}
		g->disturbed[c] = !clean;
	}
}

static uint64_t seed_of(const char *id, int metric)
{
	uint64_t h = 0xcbf29ce484222325u + (uint64_t)metric;

	for (; *id; id++)
		h = (h ^ (unsigned char)*id) * 0x100000001b3u;
	return h;
}

static int grid_init(struct grid *g, const struct nx_cell *cells, size_t n_cells,
                     const struct nx_trial_row *rows, size_t n_rows, struct nx_err *err)
{
	int32_t last = 0;

	for (size_t i = 0; i < n_rows; i++)
		last = rows[i].round > last ? rows[i].round : last;
	*g = (struct grid){.n_cells = n_cells, .n_rounds = (size_t)last + 1};
	g->row = calloc(n_cells * g->n_rounds + 1, sizeof(*g->row));
	g->a = calloc(g->n_rounds, sizeof(*g->a));
	g->b = calloc(g->n_rounds, sizeof(*g->b));
	g->disturbed = calloc(n_cells + 1, sizeof(*g->disturbed));
	if (!g->row || !g->a || !g->b || !g->disturbed)
		return nx_fail(err, NX_ENOMEM, "out of memory for %zu cells of %zu rounds", n_cells,
		               g->n_rounds);
	for (size_t i = 0; i < n_rows; i++) {
		size_t c = (size_t)rows[i].cell_index;
		if (rows[i].round < 0)
			continue;
		if (c >= n_cells || strcmp(cells[c].id, rows[i].cell) != 0)
			for (c = 0; c < n_cells && strcmp(cells[c].id, rows[i].cell) != 0; c++)
				;
		if (c < n_cells)
			g->row[c * g->n_rounds + (size_t)rows[i].round] = &rows[i];
	}
	find_disturbed(g);
	return 0;
}

static void grid_release(struct grid *g)
{
	free(g->disturbed);
	free(g->b);
	free(g->a);
	free(g->row);
}

static void axes(const struct nx_cell *c, struct nx_cell_row *out)
{
	char text[48];

	*out = (struct nx_cell_row){.stack_index = (int32_t)c->stack_index,
	                            .batch_size = c->batch_size,
	                            .fit = c->fit,
	                            .num_requests = c->num_requests,
	                            .seq_len = nx_dist_mean(&c->seq_len),
	                            .output_len = nx_dist_mean(&c->output_len),
	                            .p_value = NAN,
	                            .speedup = {NAN, NAN, NAN}};
	nx_copy_text(out->id, sizeof(out->id), c->id);
	nx_copy_text(out->stack, sizeof(out->stack), c->stack ? c->stack->name : "");
	nx_copy_text(out->seq_len_text, sizeof(out->seq_len_text),
	             nx_dist_text(&c->seq_len, text, sizeof(text)));
	nx_copy_text(out->output_len_text, sizeof(out->output_len_text),
	             nx_dist_text(&c->output_len, text, sizeof(text)));
	out->gate.first_request = out->gate.first_index = -1;
}

/* Status, cause, gate and counts of a cell. */
static void outcome(const struct grid *g, size_t c, struct nx_cell_row *out)
{
	const struct nx_trial_row *bad = NULL, *inexact = NULL;
	struct nx_trial scratch;

	nx_trial_init(&scratch);
	for (size_t r = 0; r < g->n_rounds; r++) {
		const struct nx_trial_row *t = g->row[c * g->n_rounds + r];
		if (!t || nx_trial_from_row(t, &scratch, NULL))
			continue;
		out->n_trials++;
		if (nx_trial_usable(scratch.status, g->disturbed[c])) {
			out->n_ok++;
			out->util_source = scratch.util_source;
		}
		if (!nx_trial_usable(scratch.status, false) && !bad)
			bad = t;
		if (scratch.status == NX_STATUS_INEXACT && !inexact)
			inexact = t;
		if ((scratch.gate.ran || scratch.gate.verdict) && !out->gate.ran)
			out->gate = scratch.gate;
	}
	if (inexact || (out->gate.ran && out->gate.verdict == 3 && out->n_ok)) {
		out->status = NX_STATUS_INEXACT;
		snprintf(out->cause, sizeof(out->cause), "%s",
		         inexact ? inexact->cause : "the exactness gate failed");
	} else if (out->n_ok && g->disturbed[c]) {
		out->status = NX_STATUS_OK;
		snprintf(out->cause, sizeof(out->cause),
		         "every trial was disturbed, so no verdict is given; the first: %.400s",
		         bad->cause);
	} else if (out->n_ok) {
		out->status = NX_STATUS_OK;
		if (bad)
			snprintf(out->cause, sizeof(out->cause),
			         "%d of %d trials left out, the first was %s: %.400s",
			         out->n_trials - out->n_ok, out->n_trials, bad->status, bad->cause);
	} else {
		out->status = bad ? nx_status_find(bad->status) : NX_STATUS_SKIPPED;
		snprintf(out->cause, sizeof(out->cause), "%s",
		         bad ? bad->cause : "no trial was run");
	}
}

static void estimates(struct grid *g, size_t c, struct nx_cell_row *out)
{
	for (int m = 0; m < NX_METRIC_COUNT; m++) {
		size_t n = 0;
		for (size_t r = 0; r < g->n_rounds; r++) {
			const struct nx_trial_row *t = g->row[c * g->n_rounds + r];
			if (usable(g, c, t) && !isnan(t->metrics[m]))
				g->a[n++] = t->metrics[m];
		}
		struct nx_interval ci =
			nx_cell_interval(g->a, n, NX_BOOT_DEFAULT, seed_of(out->id, m));
		out->metrics[m] = (struct nx_estimate){nx_median(g->a, n), ci.lo, ci.hi};
	}
}

/* Lengths that are read and not drawn have the mean of what ran: prompts and outputs of a request. */
static void measured_lengths(const struct grid *g, size_t c, const struct nx_cell *cell,
                             struct nx_cell_row *out)
{
	double in = 0, o = 0, n = 0;
	for (size_t r = 0; r < g->n_rounds; r++) {
		const struct nx_trial_row *t = g->row[c * g->n_rounds + r];
		if (!usable(g, c, t))
			continue;
		double tok = t->metrics[NX_METRIC_OUTPUT_THROUGHPUT],
		       req = t->metrics[NX_METRIC_REQUEST_THROUGHPUT];
		double all = t->metrics[NX_METRIC_TOTAL_THROUGHPUT];
		if (!(req > 0) || isnan(tok) || isnan(all))
			continue;
		in += (all - tok) / req;
		o += tok / req;
		n++;
	}
	bool read_in = cell->seq_len.kind == NX_DIST_TRACE || cell->seq_len.kind == NX_DIST_DATASET;
	bool read_out =
		cell->output_len.kind == NX_DIST_TRACE || cell->output_len.kind == NX_DIST_DATASET;
	/* To a thousandth of a token, so that stacks with the same requests have the same length. */
	if (read_in && n > 0)
		out->seq_len = round(in / n * 1e3) / 1e3;
	if (read_out && n > 0)
		out->output_len = round(o / n / (cell->samples ? cell->samples : 1) * 1e3) / 1e3;
}

/* The reference's cell for this one: same lengths and batch, or the largest batch of each where the sweep asks for
 * that; else the reference's largest. */
static const struct nx_cell_row *reference_of(const struct nx_cell *cells,
                                              const struct nx_cell_row *rows, size_t n, size_t i,
                                              size_t reference)
{
	const struct nx_cell_row *best = NULL;

	for (size_t k = 0; k < n; k++) {
		if (cells[k].stack_index != reference ||
		    cells[k].seq_len_index != cells[i].seq_len_index ||
		    cells[k].output_len_index != cells[i].output_len_index || rows[k].n_ok == 0)
			continue;
		if (cells[k].fit == cells[i].fit &&
		    (cells[i].fit || cells[k].batch_size == cells[i].batch_size))
			return &rows[k];
		if (!best || rows[k].batch_size > best->batch_size)
			best = &rows[k];
	}
	return best;
}

static void throughputs(const struct grid *g, size_t c, double *v)
{
	for (size_t r = 0; r < g->n_rounds; r++) {
		const struct nx_trial_row *t = g->row[c * g->n_rounds + r];
		v[r] = usable(g, c, t) ? t->metrics[NX_METRIC_OUTPUT_THROUGHPUT] : NAN;
	}
}

/* A technique of the stack that does not claim the base's tokens, or NULL: speed bought with other output. */
static const char *claims_nothing(const struct nx_cell *c)
{
	for (int32_t i = 0; c->stack && i < c->stack->stack.n_layers; i++) {
		const struct nx_technique *t = c->stack->stack.layers[i].plugin->technique;
		if (!(t->flags & NX_TECH_EXACT))
			return t->name;
	}
	return NULL;
}

/* What holds whatever the verdict is comes after what was noted. */
static void add_note(const struct nx_cell *c, char *note, size_t size)
{
	const char *who = claims_nothing(c);
	size_t at = strlen(note);
	if (who && at < size)
		snprintf(note + at, size - at, "%s%s does not claim the base's tokens",
		         at ? "; " : "", who);
}

/* Ratio and note of cell i. Returns whether the pair takes part in the sweep's verdicts. */
static bool compare(struct grid *g, const struct nx_cell *cells, struct nx_cell_row *rows, size_t i,
                    size_t reference, struct nx_pair *pair)
{
	struct nx_cell_row *out = &rows[i];
	const struct nx_cell_row *ref = reference_of(cells, rows, g->n_cells, i, reference);
	char *note = out->speedup_note;
	const size_t size = sizeof(out->speedup_note);

	if (out->n_ok == 0)
		return false;
	if (cells[i].stack_index == reference) {
		out->speedup = (struct nx_estimate){1, 1, 1};
		snprintf(note, size, "the reference itself");
		return false;
	}
	if (out->status == NX_STATUS_INEXACT) {
		snprintf(note, size, "withheld: gate failed");
		return false;
	}
	if (ref && ref->status == NX_STATUS_INEXACT) {
		snprintf(note, size, "withheld: the reference failed the gate");
		return false;
	}
	if (!ref) {
		snprintf(note, size, "no trial of the reference fits these lengths");
		return false;
	}
	throughputs(g, i, g->a);
	throughputs(g, (size_t)(ref - rows), g->b);
	*pair = nx_pair_ratio(g->a, g->b, g->n_rounds, NX_BOOT_DEFAULT, seed_of(out->id, -1));
	out->speedup = (struct nx_estimate){pair->ratio, pair->ci.lo, pair->ci.hi};
	bool largest = out->fit && ref->fit;
	if (!largest && (ref->batch_size != out->batch_size || out->fit != ref->fit)) {
		snprintf(note, size, "reference's largest batch that fits: %d", ref->batch_size);
		return false;
	}
	if (g->disturbed[i] || g->disturbed[ref - rows]) {
		snprintf(note, size, "the trials were disturbed");
		return false;
	}
	if (pair->n < NX_VERDICT_ROUNDS)
		snprintf(note, size, "too few rounds: %zu in common, a verdict takes %d", pair->n,
		         NX_VERDICT_ROUNDS);
	else if (out->gate.ran && out->gate.verdict == 2)
		snprintf(note, size, "gate inconclusive: %d of %d positions are near ties",
		         out->gate.n_near_tie, out->gate.n_positions);
	if (largest) {
		size_t at = strlen(note);
		snprintf(note + at, size - at, "%sthe largest batches: %d against %d",
		         at ? "; " : "", out->batch_size, ref->batch_size);
	}
	return true;
}

int nx_summarise(const struct nx_cell *cells, size_t n_cells, const struct nx_trial_row *rows,
                 size_t n_rows, const struct nx_run_head *head, struct nx_cell_row *out,
                 struct nx_err *err)
{
	struct grid g;
	struct nx_pair *pairs = calloc(n_cells + 1, sizeof(*pairs));
	double *p = calloc(n_cells + 1, sizeof(*p));
	bool *judged = calloc(n_cells + 1, sizeof(*judged));
	int rc = grid_init(&g, cells, n_cells, rows, n_rows, err);

	if (!rc && (!pairs || !p || !judged))
		rc = nx_fail(err, NX_ENOMEM, "out of memory for %zu cells", n_cells);
	if (rc)
		goto release;
	for (size_t i = 0; i < n_cells; i++) {
		axes(&cells[i], &out[i]);
		outcome(&g, i, &out[i]);
		estimates(&g, i, &out[i]);
		measured_lengths(&g, i, &cells[i], &out[i]);
	}
	for (size_t i = 0; i < n_cells; i++) {
		judged[i] = compare(&g, cells, out, i, head->reference, &pairs[i]);
		if (out[i].n_ok && cells[i].stack_index != head->reference)
			add_note(&cells[i], out[i].speedup_note, sizeof(out[i].speedup_note));
		p[i] = judged[i] ? pairs[i].p : NAN;
	}
	nx_holm(p, n_cells);
	for (size_t i = 0; i < n_cells; i++) {
		out[i].p_value = p[i];
		if (judged[i])
			out[i].verdict = nx_pair_verdict(&pairs[i], p[i], head->min_effect);
	}
release:
	grid_release(&g);
	free(judged);
	free(p);
	free(pairs);
	return rc;
}
