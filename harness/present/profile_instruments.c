/* SPDX-License-Identifier: Apache-2.0
 *
 * profile_instruments.c: what the device's instruments said, in sentences and as a table of kernels. See profile.h.
 */
#include <math.h>

#include "present/number.h"
#include "present/profile.h"

static void put_counters(const struct nx_profiled *p, struct nx_text *out)
{
	double slower = nx_profiled_perturbation(p, false);
	if (!p->n_ranges) {
		nx_text_printf(out, "No counters, so bytes and operations are counted ones: %s.\n",
		               p->no_counters[0] ? p->no_counters : "no step was measured");
		return;
	}
	nx_text_printf(out, "Counters: %zu ranges of a step each, in a process of their own",
	               p->n_ranges);
	if (p->n_same == p->n_steps)
		nx_text_printf(out, ", whose %d steps were those of the timed trial", p->n_steps);
	else
		nx_text_printf(out,
		               ", of whose %d steps %d were those of the timed trial (the first "
		               "other one was step %d), so take them with care",
		               p->n_steps, p->n_same, p->first_other);
	if (isfinite(slower))
		nx_text_printf(out, "; it ran at %.3g times the timed step time", slower);
	nx_text_put(out, ".\n");
	if (p->no_counters[0])
		nx_text_printf(out, "Of the group of metrics %s.\n", p->no_counters);
}

static void put_trace(const struct nx_profiled *p, struct nx_text *out)
{
	double slower = nx_profiled_perturbation(p, true), idle = nx_profiled_idle(p);
	if (!isfinite(idle)) {
		nx_text_printf(out, "No trace: %s.\n",
		               p->no_trace[0] ? p->no_trace : "nothing ran in its window");
		return;
	}
	nx_text_printf(out,
	               "Trace: in %d %s steps the device idled for %.1f %% of the time between "
	               "the first kernel and the last",
	               p->n_trace_steps, nx_phase_name(p->trace_phase), 100 * idle);
	if (isfinite(slower))
		nx_text_printf(out, "; tracing made them %.3g times as long", slower);
	if (p->n_lost)
		nx_text_printf(out, "; %llu records were lost", (unsigned long long)p->n_lost);
	nx_text_put(out, ".\n");
}

static void put_time_line(const struct nx_profiled *p, struct nx_text *out)
{
	double dram = 0, sm = 0, tensor = 0, n = (double)p->n_samples;
	if (p->no_time_line[0])
		nx_text_printf(out, "No time line: %s.\n", p->no_time_line);
	if (!p->n_samples)
		return;
	for (size_t i = 0; i < p->n_samples; i++) {
		dram += p->samples[i].dram / n;
		sm += p->samples[i].sm / n;
		tensor += p->samples[i].tensor / n;
	}
	nx_text_printf(out,
	               "Time line: %zu samples in %.3g s, in the mean %.0f %% of the memory's "
	               "throughput, %.0f %% of the SMs' cycles, %.0f %% of the tensor cores'",
	               p->n_samples, 1e-9 * (double)p->samples[p->n_samples - 1].end_ns, 100 * dram,
	               100 * sm, 100 * tensor);
	if (p->n_samples_lost)
		nx_text_printf(out, "; %llu or more were lost",
		               (unsigned long long)p->n_samples_lost);
	nx_text_put(out, ".\n");
}

static void put_device(const struct nx_cell_row *c, struct nx_text *out)
{
	const struct nx_cell_device *d = &c->device;
	double energy = c->metrics[NX_METRIC_ENERGY_PER_TOKEN].value,
	       power = c->metrics[NX_METRIC_POWER].value;
	const char *sep = "Device: ";
	char a[32];
	if (isfinite(energy) && energy > 0) {
		nx_text_printf(out, "%s%s J a token", sep, nx_number_text(energy, 3, a, sizeof(a)));
		sep = ", ";
	}
	if (isfinite(power) && power > 0) {
		nx_text_printf(out, "%s%.0f W", sep, power);
		sep = ", ";
	}
	if (d->sm_clock_hz > 0) {
		nx_text_printf(out, "%s%.0f MHz", sep, d->sm_clock_hz / 1e6);
		sep = ", ";
	}
	if (d->temperature_c > 0) {
		nx_text_printf(out, "%sat most %.0f C", sep, d->temperature_c);
		sep = ", ";
	}
	if (d->mem_used_bytes > 0) {
		nx_text_printf(out, "%sat most %s of memory taken by whomever", sep,
		               nx_size_text(d->mem_used_bytes, a, sizeof(a)));
		sep = ", ";
	}
	if (d->throttle > 0) {
		char why[128];
		nx_text_printf(out, "%sheld back by: %s", sep,
		               nx_throttle_text(d->throttle, why, sizeof(why)));
		sep = ", ";
	}
	if (d->other_processes > 0)
		nx_text_printf(out, "%sup to %.0f other process%s had it open", sep,
		               d->other_processes, d->other_processes == 1 ? "" : "es");
	if (*sep == ',' || d->other_processes > 0)
		nx_text_put(out, ".\n");
	if (d->n_capped)
		nx_text_printf(
			out,
			"The power cap was reached in %d of %d trials: the figures are what the "
			"device does at that cap.\n",
			d->n_capped, c->n_trials);
}

void nx_profile_remarks(const struct nx_cell_row *c, struct nx_text *out)
{
	if (c->profiled) {
		put_counters(c->profiled, out);
		put_trace(c->profiled, out);
		put_time_line(c->profiled, out);
	}
	put_device(c, out);
}

bool nx_profile_kernels(const struct nx_cell_row *c, size_t most, struct nx_table *t)
{
	const struct nx_profiled *p = c->profiled;
	if (!p || !p->n_kernels)
		return false;
	nx_table_column(t, "kernel", NX_LEFT);
	nx_table_column(t, "calls a step", NX_RIGHT);
	nx_table_column(t, "us a call", NX_RIGHT);
	nx_table_column(t, "of the time", NX_RIGHT);
	double rest = 0, steps = p->n_trace_steps > 0 ? p->n_trace_steps : 1;
	for (size_t i = 0; i < p->n_kernels; i++) {
		const struct nx_kernel_use *k = &p->kernels[i];
		char a[32], b[32], name[80];
		if (i >= most) {
			rest += k->share;
			continue;
		}
		nx_text_ellipsis(k->name, 60, name, sizeof(name));
		nx_table_cell(t, "%s",
		              name[0]                    ? name
		              : k->kind == NX_TRACE_COPY ? "(copy)"
		                                         : "(set)");
		nx_table_cell(t, "%s", nx_number_text((double)k->calls / steps, 3, a, sizeof(a)));
		nx_table_cell(
			t, "%s",
			k->calls > 0 ? nx_number_text(1e-3 * (double)k->total_ns / (double)k->calls,
		                                      3, b, sizeof(b))
				     : "");
		if (isfinite(k->share))
			nx_table_cell(t, "%.1f %%", 100 * k->share);
		else
			nx_table_cell(t, "unknown");
	}
	if (rest > 0) {
		nx_table_cell(t, "%zu others", p->n_kernels - most);
		nx_table_cell(t, "%s", "");
		nx_table_cell(t, "%s", "");
		nx_table_cell(t, "%.1f %%", 100 * rest);
	}
	return true;
}

static double mean_of(const struct nx_profiled *p, int phase, int32_t formula)
{
	double sum = 0, n = 0;
	for (size_t i = 0; i < p->n_ranges; i++)
		if (p->ranges[i].phase == phase && isfinite(p->ranges[i].worked_out[formula])) {
			sum += p->ranges[i].worked_out[formula];
			n++;
		}
	return n > 0 ? sum / n : NAN;
}

bool nx_profile_worked_out(const struct nx_cell_row *c, struct nx_table *t)
{
	const struct nx_profiled *p = c->profiled;
	bool has[NX_PHASE_COUNT] = {false};
	if (!p || !p->n_ranges || !p->group.n_formulas)
		return false;
	for (size_t i = 0; i < p->n_ranges; i++)
		has[p->ranges[i].phase] = true;
	nx_table_column(t, "of a step", NX_LEFT);
	nx_table_column(t, "unit", NX_LEFT);
	for (int k = 0; k < NX_PHASE_COUNT; k++)
		if (has[k])
			nx_table_column(t, nx_phase_name(k), NX_RIGHT);
	nx_table_column(t, "what", NX_LEFT);
	for (int32_t f = 0; f < p->group.n_formulas; f++) {
		nx_table_cell(t, "%s", p->group.f[f].name);
		nx_table_cell(t, "%s", p->group.f[f].unit);
		for (int k = 0; k < NX_PHASE_COUNT; k++) {
			char buf[48];
			double v = mean_of(p, k, f);
			if (has[k])
				nx_table_cell(t, "%s",
				              isfinite(v) ? nx_number_text(v, 4, buf, sizeof(buf))
				                          : "unknown");
		}
		nx_table_cell(t, "%s", p->group.f[f].text);
	}
	return true;
}
