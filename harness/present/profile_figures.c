/* SPDX-License-Identifier: Apache-2.0
 *
 * profile_figures.c: from a cell of a run file to the figures of the classifier. See profile.h.
 */
#include <math.h>
#include <string.h>

#include "base/text.h"
#include "present/profile.h"

#define LINE_BYTES 64.0

static double own_memory(const struct nx_cell_row *c, const char *owner, bool used)
{
	double bytes = 0;
	for (size_t i = 0; i < c->n_mem; i++)
		if (!owner || !strcmp(c->mem[i].owner, owner))
			bytes += (double)(used ? c->mem[i].peak_used_bytes
			                       : c->mem[i].reserved_bytes);
	return bytes;
}

static bool is_f32(const struct nx_run *run)
{
	const char *dtype = nx_fact_get(run->head.facts, run->head.n_facts, "dtype");
	return dtype && !strcmp(dtype, "f32");
}

/* Of all steps of a phase, from the mean of its ranges: they are spread evenly over its steps. */
static double seen(const struct nx_cell_row *c, const struct nx_phase_use *u, enum nx_figure figure)
{
	return c->profiled && u->n_steps > 0
	               ? nx_profiled_figure(c->profiled, u->phase, figure) * (double)u->n_steps
	               : NAN;
}

double nx_profile_idle(const struct nx_cell_row *c)
{
	return c->profiled ? nx_profiled_idle(c->profiled) : NAN;
}

/* Where the device was seen idle, planning costs what of it the device waited for, and launching the rest; planning
 * that went on while the device worked costs nothing. */
static void split_idle(const struct nx_cell_row *c, const struct nx_phase_use *u, double *host_s,
                       double *launch_s)
{
	double idle = nx_profile_idle(c);
	if (!isfinite(idle) || c->profiled->trace_phase != u->phase)
		return;
	double idle_s = idle * 1e-9 * (double)u->time_ns;
	*host_s = fmin(*host_s, idle_s);
	*launch_s = idle_s - *host_s;
}

static void phase_figures(struct nx_profile *p, struct nx_profile_phase *out)
{
	const struct nx_phase_use *u = out->use;
	const struct nx_calibration *cal = &p->run->head.calibration;
	double own = is_f32(p->run) ? cal->f32_flops_per_s : cal->bf16_flops_per_s;
	double set = own_memory(p->cell, "weights", false) + own_memory(p->cell, "kv", true);
	double steps = (double)u->n_steps;
	bool prompt = u->phase == NX_PHASE_PREFILL;
	out->missed_bytes = steps > 0 ? LINE_BYTES * u->perf_llc_misses : NAN;
	double peak = nx_read_peak(cal, (uint64_t)set, &p->cached);
	/* Misses of the cache say nothing about what is read from the cache. */
	bool measured = isfinite(out->missed_bytes) && !p->cached;
	out->seen_bytes = seen(p->cell, u, NX_FIGURE_BYTES);
	out->seen_flops = seen(p->cell, u, NX_FIGURE_FLOPS);
	double moved = isfinite(out->seen_bytes) ? out->seen_bytes
	               : measured                ? out->missed_bytes
	                                         : NAN;
	double host_s = 1e-9 * (double)u->plan_ns, launch_s = NAN;
	split_idle(p->cell, u, &host_s, &launch_s);
	out->figures = (struct nx_bound_figures){
		.phase = nx_phase_name(u->phase),
		.disturbed = p->disturbed,
		.stack = p->run->stack_specs ? p->run->stack_specs[p->cell->stack_index] : NULL,
		.prompt = prompt || u->phase == NX_PHASE_MIXED,
		.source = isfinite(out->seen_bytes) ? "cupti"
	                  : measured                ? "perf"
	                                            : "counted",
		.time_s = 1e-9 * (double)u->time_ns,
		.host_s = host_s,
		.launch_s = launch_s,
		.bytes = {(double)u->counted.weight_bytes, (double)u->counted.kv_bytes,
	                  (double)u->counted.act_bytes},
		.moved_bytes = moved,
		.flops = (double)u->counted.flops,
		.moved_flops = out->seen_flops,
		.peak_bytes_per_s = peak,
		.peak_flops_per_s = fmax(own, cal->blas_flops_per_s),
		.level = p->cached ? "the last-level cache" : "memory",
		.steps = steps,
		.rows = (double)u->rows,
		.tile_rows = p->run->head.device.caps & NX_DEV_TILES ? NX_TILE_ROWS : 0,
		.pad_rows = (double)u->rows_pad,
		.needed_rows =
			prompt ? (double)p->cell->n_ok * p->cell->num_requests * p->cell->seq_len
			       : 0,
		.seqs = steps > 0 ? (double)u->n_seqs / steps : 0,
		/* While prompts are taken in one by one, the others wait for that and for no memory. */
		.waiting = steps > 0 && !prompt ? (double)u->n_waiting / steps : 0,
		.batch = (double)p->cell->batch_size,
		.preempted = (double)u->n_preempted,
		.kv_held = (double)u->kv_held,
		.kv_total = (double)u->kv_total,
		.mem_bytes = p->mem_bytes,
		.device_bytes = (double)p->run->head.device.mem_bytes,
	};
}

/* "Of 1.31 s of steps, 84 % are decode and 16 % prefill; " and the main phase's sentence. */
static void load_sentence(struct nx_profile *p)
{
	size_t at = (size_t)snprintf(p->why, sizeof(p->why), "Of %.3g s of steps, ", p->time_s);
	bool first = true;
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < NX_PHASE_COUNT; i++) {
			const struct nx_profile_phase *q = &p->phases[i];
			if ((i == p->main) != (pass == 0) || !(q->share > 0) ||
			    at >= sizeof(p->why))
				continue;
			at += (size_t)snprintf(p->why + at, sizeof(p->why) - at, "%s%.0f %% %s%s",
			                       first ? "" : ", ", 100 * q->share,
			                       first ? "are " : "", q->figures.phase);
			first = false;
		}
	if (at < sizeof(p->why))
		snprintf(p->why + at, sizeof(p->why) - at, "; %s",
		         p->phases[p->main].bottleneck.why);
}

void nx_profile_of(const struct nx_run *run, const struct nx_cell_row *cell, struct nx_profile *out)
{
	*out = (struct nx_profile){.run = run, .cell = cell, .main = -1, .helps = ""};
	/* Its only trials were throttled: they stand, marked. */
	out->disturbed =
		cell->status == NX_STATUS_OK && cell->cause[0] && cell->n_ok == cell->n_trials;
	out->mem_bytes = own_memory(cell, NULL, false);
	for (int i = 0; i < NX_PHASE_COUNT; i++) {
		struct nx_profile_phase *p = &out->phases[i];
		p->use = &cell->phases[i];
		phase_figures(out, p);
		nx_bottleneck_find(&p->figures, &p->bottleneck);
		out->time_s += p->figures.time_s;
		if (p->use->n_steps &&
		    (out->main < 0 || p->figures.time_s > out->phases[out->main].figures.time_s))
			out->main = i;
	}
	for (int i = 0; i < NX_PHASE_COUNT; i++) {
		/* Want of memory makes work in other phases (prompts computed again): it comes first. */
		bool now = out->phases[i].bottleneck.bound == NX_BOUND_CAPACITY;
		bool then = out->main >= 0 &&
		            out->phases[out->main].bottleneck.bound == NX_BOUND_CAPACITY;
		if (now && (!then ||
		            out->phases[i].figures.time_s > out->phases[out->main].figures.time_s))
			out->main = i;
	}
	for (int i = 0; i < NX_PHASE_COUNT; i++)
		out->phases[i].share =
			out->time_s > 0 ? out->phases[i].figures.time_s / out->time_s : 0;
	if (out->main < 0) {
		snprintf(out->why, sizeof(out->why), "%s",
		         cell->cause[0] ? cell->cause : "No step was recorded.");
		return;
	}
	load_sentence(out);
	out->helps = out->phases[out->main].bottleneck.helps;
}

const char *nx_profile_missing(const struct nx_profile_options *o, const struct nx_bottleneck *b,
                               char *buf, size_t size)
{
	const char *names[NX_BOUND_HELPS];
	size_t n = 0;
	buf[0] = '\0';
	for (size_t i = 0; i < b->n_techniques; i++)
		if (o && o->built && !o->built(o->ctx, b->techniques[i]))
			names[n++] = b->techniques[i];
	return n ? nx_list_text(buf, size, names, n) : buf;
}
