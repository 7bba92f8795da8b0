/* SPDX-License-Identifier: Apache-2.0
 *
 * bottleneck.c: the rules and the evidence. What would help: bottleneck_help.c. See bottleneck.h.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "measure/bottleneck_internal.h"

static const char *const bound_names[] = {
#define X(id, name) name,
	NX_BOUNDS(X)
#undef X
};
static const char *const traffic_names[] = {
#define X(id, name) name,
	NX_TRAFFICS(X)
#undef X
};

const char *nx_bound_name(enum nx_bound b)
{
	return (int)b >= 0 && b < NX_BOUND_COUNT ? bound_names[b] : "unknown";
}

const char *nx_traffic_name(enum nx_traffic t)
{
	return (int)t >= 0 && t < NX_TRAFFIC_COUNT ? traffic_names[t] : "unknown";
}

void nx_sentence_add(char *buf, size_t size, const char *fmt, ...)
{
	size_t at = strlen(buf);
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(buf + at, size - at, fmt, ap);
	va_end(ap);
}

static double ratio(double a, double b)
{
	return b > 0 && isfinite(a) ? a / b : NAN;
}

/* NaN is not far. */
static bool far(double measured_over_counted)
{
	return measured_over_counted > NX_BOUND_FAR_ABOVE ||
	       measured_over_counted < NX_BOUND_FAR_BELOW;
}

static void measure(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	double counted = 0;
	for (int i = 0; i < NX_TRAFFIC_COUNT; i++) {
		counted += f->bytes[i];
		if (f->bytes[i] > f->bytes[b->traffic])
			b->traffic = (enum nx_traffic)i;
	}
	for (int i = 0; i < NX_TRAFFIC_COUNT; i++)
		b->share[i] = ratio(f->bytes[i], counted);
	double bytes = isfinite(f->moved_bytes) ? f->moved_bytes : counted;
	b->moved_over_counted = ratio(f->moved_bytes, counted);
	b->flops_over_counted = f->moved_flops > 0 ? ratio(f->moved_flops, f->flops) : NAN;
	b->far_bytes = far(b->moved_over_counted);
	b->far_flops = far(b->flops_over_counted);
	/* Counters of some units alone see less than the work needs; then the need is the better figure. */
	double flops = b->flops_over_counted > 1 ? f->moved_flops : f->flops;
	b->bytes_per_s = ratio(bytes, f->time_s);
	b->flops_per_s = ratio(flops, f->time_s);
	b->bandwidth = ratio(b->bytes_per_s, f->peak_bytes_per_s);
	b->compute = ratio(b->flops_per_s, f->peak_flops_per_s);
	b->intensity = ratio(flops, bytes);
	b->balance = ratio(f->peak_flops_per_s, f->peak_bytes_per_s);
	b->host = ratio(f->host_s, f->time_s);
	b->launch = ratio(f->launch_s, f->time_s);
	b->memory = ratio(f->mem_bytes, f->device_bytes);
	b->above_bandwidth = b->bandwidth > NX_BOUND_ABOVE;
	b->above_compute = b->compute > NX_BOUND_ABOVE;
}

/* A pool that is full while fewer sequences run than were asked for. */
static bool starved(const struct nx_bound_figures *f)
{
	return f->waiting > 0 && f->seqs < 0.95 * f->batch && f->kv_total > 0 &&
	       f->kv_held >= NX_BOUND_FULL * f->kv_total;
}

static bool short_of_memory(const struct nx_bound_figures *f, const struct nx_bottleneck *b)
{
	return f->preempted > 0 || starved(f) || b->memory >= NX_BOUND_MEMORY;
}

static void decide(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	const struct {
		enum nx_bound bound;
		double share;
	} candidates[] = {{NX_BOUND_BANDWIDTH, b->bandwidth},
	                  {NX_BOUND_COMPUTE, b->compute},
	                  {NX_BOUND_HOST, b->host},
	                  {NX_BOUND_LAUNCH, b->launch}};
	double first = -1, second = -1;
	bool peaks = isfinite(b->bandwidth) || isfinite(b->compute);
	for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
		double share = candidates[i].share;
		if (!isfinite(share))
			continue;
		if (share > first) {
			second = first;
			first = share;
			b->nearest = candidates[i].bound;
		} else if (share > second) {
			second = share;
		}
	}
	if (!(f->time_s > 0) || !(f->steps > 0))
		b->bound = NX_BOUND_UNKNOWN;
	else if (short_of_memory(f, b))
		b->bound = NX_BOUND_CAPACITY;
	else if (first >= NX_BOUND_LEAST && first >= NX_BOUND_LEAD * second)
		b->bound = b->nearest;
	else
		b->bound = peaks ? NX_BOUND_MIXED : NX_BOUND_UNKNOWN;
}

/* ---- evidence --------------------------------------------------------------------------------- */

/* Of a figure with three digits or more. */
static int decimals(double v)
{
	return v >= 100 ? 0 : v >= 10 ? 1 : v >= 1 ? 2 : 3;
}

static void add_rate(struct nx_bottleneck *b, double rate, double peak, const char *unit)
{
	double by = peak >= 1e13 ? 1e12 : 1e9;
	rate /= by;
	peak /= by;
	nx_sentence_add(b->why, sizeof(b->why), "%.*f of %.*f %c%s", decimals(rate), rate,
	                decimals(peak), peak, by > 1e9 ? 'T' : 'G', unit);
}

static void add_bandwidth(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	add_rate(b, b->bytes_per_s, f->peak_bytes_per_s, "B/s");
	nx_sentence_add(b->why, sizeof(b->why), " (%.0f %% of %s's peak, %s)", 100 * b->bandwidth,
	                f->level ? f->level : "memory", f->source ? f->source : "counted");
}

static void add_compute(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	add_rate(b, b->flops_per_s, f->peak_flops_per_s, "FLOP/s");
	nx_sentence_add(b->why, sizeof(b->why), " (%.0f %% of the peak)", 100 * b->compute);
}

static void add_intensity(struct nx_bottleneck *b)
{
	if (isfinite(b->intensity) && isfinite(b->balance))
		nx_sentence_add(b->why, sizeof(b->why),
		                ", %.*f flop a byte where the device balances at %.*f",
		                decimals(10 * b->intensity), b->intensity,
		                decimals(10 * b->balance), b->balance);
}

static void why_capacity(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	nx_sentence_add(b->why, sizeof(b->why), "%s is bound by capacity: ", f->phase);
	if (f->preempted > 0)
		nx_sentence_add(b->why, sizeof(b->why),
		                "%.0f sequences were preempted for want of KV memory",
		                f->preempted);
	else if (starved(f))
		nx_sentence_add(b->why, sizeof(b->why),
		                "%.1f sequences ran and %.1f waited where the load asks for %.0f",
		                f->seqs, f->waiting, f->batch);
	else
		nx_sentence_add(b->why, sizeof(b->why), "%.0f %% of the device's memory are taken",
		                100 * b->memory);
	if (f->kv_total > 0 && (f->preempted > 0 || starved(f)))
		nx_sentence_add(b->why, sizeof(b->why),
		                ", and %.0f of the pool's %.0f KV rows were held", f->kv_held,
		                f->kv_total);
}

static void why_mixed(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	nx_sentence_add(b->why, sizeof(b->why), "%s has no single bound: ", f->phase);
	if (isfinite(b->bandwidth)) {
		add_bandwidth(f, b);
		nx_sentence_add(b->why, sizeof(b->why), ", ");
	}
	if (isfinite(b->compute)) {
		add_compute(f, b);
		nx_sentence_add(b->why, sizeof(b->why), ", ");
	}
	if (isfinite(b->launch))
		nx_sentence_add(b->why, sizeof(b->why), "%.0f %% of the time between launches, ",
		                100 * b->launch);
	nx_sentence_add(b->why, sizeof(b->why), "%.2g %% of the time planning on the host",
	                100 * (isfinite(b->host) ? b->host : 0));
}

/* Counters see whole tiles of rows, the count the rows that are in them. */
static void add_flops(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	double rows = ratio(f->rows, f->steps), held = ratio(rows, ceil(ratio(rows, f->tile_rows)));
	nx_sentence_add(b->why, sizeof(b->why), "; counters saw %.2g times the counted operations",
	                b->flops_over_counted);
	if (b->flops_over_counted < 1)
		nx_sentence_add(b->why, sizeof(b->why), ", so the rest ran in other units");
	else if (ratio(f->tile_rows, held) > NX_BOUND_FAR_ABOVE)
		nx_sentence_add(b->why, sizeof(b->why),
		                ", as tensor cores take tiles of %.0f rows, which held %.2g",
		                f->tile_rows, held);
}

static void why(const struct nx_bound_figures *f, struct nx_bottleneck *b)
{
	switch (b->bound) {
	case NX_BOUND_CAPACITY: why_capacity(f, b); break;
	case NX_BOUND_BANDWIDTH:
		nx_sentence_add(b->why, sizeof(b->why), "%s is bound by bandwidth: ", f->phase);
		add_bandwidth(f, b);
		nx_sentence_add(b->why, sizeof(b->why), ", %.0f %% of the bytes for %s",
		                100 * b->share[b->traffic], nx_traffic_name(b->traffic));
		add_intensity(b);
		break;
	case NX_BOUND_COMPUTE:
		nx_sentence_add(b->why, sizeof(b->why), "%s is bound by compute: ", f->phase);
		add_compute(f, b);
		add_intensity(b);
		break;
	case NX_BOUND_HOST:
		nx_sentence_add(
			b->why, sizeof(b->why),
			"%s is bound by the host: it plans for %.0f %% of the step time, %.3g us a step",
			f->phase, 100 * b->host, 1e6 * f->host_s / f->steps);
		break;
	case NX_BOUND_LAUNCH:
		nx_sentence_add(
			b->why, sizeof(b->why),
			"%s is bound by launches: the device idles between them for %.0f %% of the step time",
			f->phase, 100 * b->launch);
		break;
	case NX_BOUND_MIXED: why_mixed(f, b); break;
	default:
		nx_sentence_add(b->why, sizeof(b->why), "what bounds %s is not known: %s", f->phase,
		                f->time_s > 0 && f->steps > 0
		                        ? "no peak was measured to hold its figures against"
		                        : "no step of it was run");
	}
	if (b->above_bandwidth || b->above_compute)
		nx_sentence_add(
			b->why, sizeof(b->why),
			"; the %s figure is above its calibrated peak, so the count, the peak or the level it was read from is wrong",
			b->above_bandwidth ? "bandwidth" : "compute");
	if (b->far_bytes)
		nx_sentence_add(b->why, sizeof(b->why),
		                "; %.2g times the counted bytes were moved (%s)",
		                b->moved_over_counted, f->source ? f->source : "measured");
	if (b->far_flops)
		add_flops(f, b);
	nx_sentence_add(b->why, sizeof(b->why), ".");
}

void nx_bottleneck_find(const struct nx_bound_figures *f, struct nx_bottleneck *out)
{
	*out = (struct nx_bottleneck){.bound = NX_BOUND_UNKNOWN, .nearest = NX_BOUND_UNKNOWN};
	measure(f, out);
	decide(f, out);
	why(f, out);
	nx_bottleneck_help(f, out);
}
