/* SPDX-License-Identifier: Apache-2.0
 *
 * profile_data.c: the profile for machines: one list of fields makes a CSV row and a JSON object. See profile.h.
 */
#include <math.h>
#include <string.h>

#include "present/profile.h"

/* A number, or a text where text is not NULL. Units are part of the name. */
struct field {
	const char *name, *text;
	double number;
};

#define FIELDS_MAX 64

struct fields {
	struct field f[FIELDS_MAX];
	size_t n;
};

static void num(struct fields *s, const char *name, double v)
{
	if (s->n < FIELDS_MAX)
		s->f[s->n++] = (struct field){name, NULL, v};
}

static void text(struct fields *s, const char *name, const char *v)
{
	if (s->n < FIELDS_MAX)
		s->f[s->n++] = (struct field){name, v, 0};
}

/* Counts keep all their digits. */
static void number(struct nx_text *out, double v)
{
	nx_text_printf(out, v == floor(v) && fabs(v) < 1e15 ? "%.0f" : "%.9g", v);
}

static void cell_fields(struct fields *s, const struct nx_cell_row *c)
{
	text(s, "stack", c->stack);
	num(s, "batch_size", c->batch_size);
	text(s, "seq_len", c->seq_len_text);
	text(s, "output_len", c->output_len_text);
	text(s, "status", nx_status_name(c->status));
	text(s, "cause", c->cause);
}

static void phase_fields(struct fields *s, const struct nx_profile *p,
                         const struct nx_profile_phase *q)
{
	const struct nx_bound_figures *f = &q->figures;
	const struct nx_bottleneck *b = &q->bottleneck;
	text(s, "phase", f->phase);
	num(s, "steps", f->steps);
	num(s, "time_s", f->time_s);
	num(s, "time_share", q->share);
	num(s, "host_s", f->host_s);
	num(s, "rows", f->rows);
	num(s, "rows_pad", f->pad_rows);
	num(s, "tokens", (double)q->use->n_emit);
	num(s, "preempted", f->preempted);
	num(s, "counted_weight_bytes", f->bytes[NX_TRAFFIC_WEIGHTS]);
	num(s, "counted_kv_bytes", f->bytes[NX_TRAFFIC_KV]);
	num(s, "counted_activation_bytes", f->bytes[NX_TRAFFIC_ACTIVATIONS]);
	num(s, "counted_flops", f->flops);
	num(s, "missed_bytes", q->missed_bytes);
	num(s, "seen_bytes", q->seen_bytes);
	num(s, "seen_flops", q->seen_flops);
	num(s, "moved_over_counted", b->moved_over_counted);
	num(s, "flops_over_counted", b->flops_over_counted);
	num(s, "far_from_counted", b->far_bytes || b->far_flops);
	num(s, "bytes_per_s", b->bytes_per_s);
	num(s, "flops_per_s", b->flops_per_s);
	num(s, "peak_bytes_per_s", f->peak_bytes_per_s > 0 ? f->peak_bytes_per_s : NAN);
	num(s, "peak_flops_per_s", f->peak_flops_per_s > 0 ? f->peak_flops_per_s : NAN);
	text(s, "peak_level", p->cached ? "cache" : "memory");
	text(s, "source", f->source);
	num(s, "util_memory", b->memory);
	num(s, "util_bandwidth", b->bandwidth);
	num(s, "util_compute", b->compute);
	num(s, "host_share", b->host);
	num(s, "launch_share", b->launch);
	num(s, "flops_per_byte", b->intensity);
	num(s, "balance_flops_per_byte", b->balance);
	num(s, "above_peak", b->above_bandwidth || b->above_compute);
	text(s, "bound", nx_bound_name(b->bound));
	text(s, "why", b->why);
	text(s, "helps", b->helps);
}

void nx_profile_csv(const struct nx_run *run, struct nx_text *out)
{
	struct nx_profile p;
	bool head = true;
	for (size_t i = 0; i < run->n_cells; i++) {
		nx_profile_of(run, &run->cells[i], &p);
		for (int k = 0; k < NX_PHASE_COUNT; k++) {
			struct fields s = {.n = 0};
			if (!p.phases[k].use->n_steps && !(p.main < 0 && k == 0))
				continue; /* a cell that did not run has one row, with its cause */
			cell_fields(&s, p.cell);
			phase_fields(&s, &p, &p.phases[k]);
			for (size_t j = 0; head && j < s.n; j++)
				nx_text_printf(out, "%s%s", s.f[j].name, j + 1 < s.n ? "," : "\n");
			head = false;
			for (size_t j = 0; j < s.n; j++) {
				if (s.f[j].text)
					nx_text_csv(out, s.f[j].text);
				else if (isfinite(s.f[j].number))
					number(out, s.f[j].number);
				nx_text_put(out, j + 1 < s.n ? "," : "\n");
			}
		}
	}
}

static void json_fields(const struct fields *s, struct nx_text *out)
{
	for (size_t j = 0; j < s->n; j++) {
		nx_text_put(out, j ? ", " : "");
		nx_text_json(out, s->f[j].name);
		nx_text_put(out, ": ");
		if (s->f[j].text)
			nx_text_json(out, s->f[j].text);
		else if (isfinite(s->f[j].number))
			number(out, s->f[j].number);
		else
			nx_text_put(out, "null");
	}
}

static void json_memory(const struct nx_cell_row *c, struct nx_text *out)
{
	nx_text_put(out, ",\n  \"memory\": [");
	for (size_t i = 0; i < c->n_mem; i++) {
		struct fields s = {.n = 0};
		text(&s, "owner", c->mem[i].owner);
		num(&s, "reserved_bytes", (double)c->mem[i].reserved_bytes);
		num(&s, "peak_used_bytes", (double)c->mem[i].peak_used_bytes);
		nx_text_put(out, i ? ",\n    {" : "\n    {");
		json_fields(&s, out);
		nx_text_put(out, "}");
	}
	nx_text_put(out, "]");
}

/* What the instruments saw beside the figures of phases. */
static void json_instruments(const struct nx_cell_row *c, struct nx_text *out)
{
	const struct nx_profiled *q = c->profiled;
	struct fields s = {.n = 0};
	if (!q)
		return;
	text(&s, "versions", q->versions);
	text(&s, "no_counters", q->no_counters);
	text(&s, "no_trace", q->no_trace);
	num(&s, "steps", q->n_steps);
	num(&s, "steps_as_timed", q->n_same);
	num(&s, "ranges", (double)q->n_ranges);
	num(&s, "idle", nx_profiled_idle(q));
	num(&s, "slower_with_counters", nx_profiled_perturbation(q, false));
	num(&s, "slower_with_trace", nx_profiled_perturbation(q, true));
	nx_text_put(out, ",\n  \"instruments\": {");
	json_fields(&s, out);
	nx_text_put(out, ", \"kernels\": [");
	for (size_t i = 0; i < q->n_kernels; i++) {
		s.n = 0;
		text(&s, "name", q->kernels[i].name);
		num(&s, "calls", (double)q->kernels[i].calls);
		num(&s, "total_ns", (double)q->kernels[i].total_ns);
		num(&s, "share", q->kernels[i].share);
		nx_text_put(out, i ? ",\n    {" : "\n    {");
		json_fields(&s, out);
		nx_text_put(out, "}");
	}
	nx_text_put(out, "]}");
}

static void json_cell(const struct nx_profile *p, const struct nx_profile_options *o,
                      struct nx_text *out)
{
	struct fields s = {.n = 0};
	char list[256] = "";
	bool first = true;
	if (p->main >= 0)
		nx_profile_missing(o, &p->phases[p->main].bottleneck, list, sizeof(list));
	cell_fields(&s, p->cell);
	text(&s, "main_phase", p->main >= 0 ? p->phases[p->main].figures.phase : "");
	text(&s, "bound",
	     p->main >= 0 ? nx_bound_name(p->phases[p->main].bottleneck.bound) : "unknown");
	text(&s, "why", p->why);
	text(&s, "helps", p->helps);
	text(&s, "not_built", list);
	nx_text_put(out, "{");
	json_fields(&s, out);
	json_memory(p->cell, out);
	json_instruments(p->cell, out);
	nx_text_put(out, ",\n  \"phases\": [");
	for (int k = 0; k < NX_PHASE_COUNT; k++) {
		if (!p->phases[k].use->n_steps)
			continue;
		s.n = 0;
		phase_fields(&s, p, &p->phases[k]);
		nx_text_put(out, first ? "\n    {" : ",\n    {");
		json_fields(&s, out);
		nx_text_put(out, "}");
		first = false;
	}
	nx_text_put(out, "]}");
}

void nx_profile_json(const struct nx_run *run, const struct nx_profile_options *o,
                     struct nx_text *out)
{
	struct nx_profile p;
	const char *model = nx_fact_get(run->head.facts, run->head.n_facts, "model");
	struct fields s = {.n = 0};
	text(&s, "run", run->path);
	text(&s, "model", model ? model : "");
	text(&s, "device", run->head.device.name);
	text(&s, "isa", run->head.device.isa);
	nx_text_put(out, "{");
	json_fields(&s, out);
	nx_text_put(out, ", \"cells\": [");
	for (size_t i = 0; i < run->n_cells; i++) {
		nx_profile_of(run, &run->cells[i], &p);
		nx_text_put(out, i ? ",\n " : "\n ");
		json_cell(&p, o, out);
	}
	nx_text_put(out, "]}\n");
}
