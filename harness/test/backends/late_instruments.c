/* SPDX-License-Identifier: Apache-2.0
 *
 * test/backends/late_instruments.c: instruments of the late device, which say what is known beforehand.
 *
 * NEXUS_LATE_INSTRUMENTS, words separated by commas; without it the device has none.
 *   on          counters, trace, telemetry
 *   deny        counters: NX_EENV, a permission is missing
 *   notrace     the trace likewise
 * Metrics that begin with "two." need two passes, those that begin with "no." are unknown.
 *   crash       counters_open ends the process
 *   fault, tracefault   the device fails for good in the first range, in the trace
 *   nosamples   sampling: NX_EENV, likewise
 *   hot, capped, shared   telemetry: throttled for heat; at the power cap; another process on the device
 *
 * Of a range, fake.bytes is twice the bytes that the CPU backend counted in it, fake.flops its operations, fake.time
 * 1000 ns. The trace is a kernel "gemm" of 60 ns every 100 ns, and every fifth "norm" of 20 ns right after it. Energy
 * is 100 J a reading. Samples of the interval that was asked for, five of them, are 0.1, 0.2 ... of the memory, half of
 * the SMs and none of the tensor cores; one was lost; 1.5 GHz, 700 W, 55 C.
 */
#include "late.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nexus/instruments.h"

#define KERNELS 50

struct nx_counters {
	char (*names)[NX_METRIC_NAME];
	int32_t n_metrics, n_ranges, max_ranges;
	struct nx_range *ranges;
	double *values;
	struct nx_counted before;
	bool open;
};

static bool word(const char *w)
{
	const char *s = getenv("NEXUS_LATE_INSTRUMENTS");
	size_t n = strlen(w);
	for (; s && *s; s += strcspn(s, ","), s += *s == ',')
		if (strcspn(s, ",") == n && !strncmp(s, w, n))
			return true;
	return false;
}

static int wait_all(struct late_dev *d, struct nx_err *err)
{
	int rc = 0;
	for (struct nx_stream *s = d->streams; s && !rc; s = s->next)
		rc = late_stream_sync(d, s, err);
	return rc;
}

static int metrics_check(void *dev, const char *chip, const char *const *metrics, int32_t n,
                         int32_t *passes, struct nx_err *err)
{
	(void)dev;
	(void)chip;
	*passes = 1;
	for (int32_t i = 0; i < n; i++) {
		if (!strncmp(metrics[i], "no.", 3))
			return nx_fail(err, NX_EINVAL,
			               "there is no metric %s; did you mean fake.bytes?",
			               metrics[i]);
		if (!strncmp(metrics[i], "two.", 4))
			*passes = 2;
	}
	return 0;
}

static void counters_close(void *dev, struct nx_counters *c)
{
	(void)dev;
	free(c->names);
	free(c->ranges);
	free(c->values);
	free(c);
}

static int counters_open(void *dev, const char *const *metrics, int32_t n, int32_t max_ranges,
                         struct nx_counters **out, struct nx_err *err)
{
	(void)dev;
	if (word("deny"))
		return nx_fail(err, NX_EENV,
		               "counters need CAP_PERFMON; load the driver with "
		               "NVreg_RestrictProfilingToAdminUsers=0");
	if (word("crash"))
		abort();
	struct nx_counters *c = late_must(calloc(1, sizeof(*c)));
	c->n_metrics = n;
	c->max_ranges = max_ranges;
	c->names = late_must(calloc((size_t)n, sizeof(*c->names)));
	c->ranges = late_must(calloc((size_t)max_ranges, sizeof(*c->ranges)));
	c->values = late_must(calloc((size_t)n * (size_t)max_ranges, sizeof(double)));
	for (int32_t i = 0; i < n; i++)
		snprintf(c->names[i], NX_METRIC_NAME, "%s", metrics[i]);
	*out = c;
	return 0;
}

/* As an illegal address does on a GPU: from now on every wait says so. */
static int fault(struct late_dev *d, struct nx_err *err)
{
	if (!d->sticky.code)
		nx_fail(&d->sticky, NX_EFAULT, "the late device was told to fail");
	return wait_all(d, err);
}

static int range_begin(void *dev, struct nx_counters *c, const char *name, struct nx_err *err)
{
	struct late_dev *d = dev;
	int rc = word("fault") ? fault(d, err) : wait_all(d, err);
	if (rc)
		return rc;
	if (c->open || c->n_ranges == c->max_ranges || strlen(name) >= NX_RANGE_NAME)
		late_abort("range %s begins in another, beyond the last, or with too long a name",
		           name);
	c->open = true;
	snprintf(c->ranges[c->n_ranges].name, NX_RANGE_NAME, "%s", name);
	late_inner->counted(d->inner, &c->before);
	return 0;
}

static int range_end(void *dev, struct nx_counters *c, struct nx_err *err)
{
	struct late_dev *d = dev;
	struct nx_counted now;
	int rc = wait_all(d, err);
	if (rc)
		return rc;
	if (!c->open)
		late_abort("a range ends that did not begin");
	late_inner->counted(d->inner, &now);
	struct nx_range *r = &c->ranges[c->n_ranges];
	r->values = c->values + (size_t)c->n_ranges * (size_t)c->n_metrics;
	double bytes = (double)(now.weight_bytes - c->before.weight_bytes) +
	               (double)(now.kv_bytes - c->before.kv_bytes) +
	               (double)(now.act_bytes - c->before.act_bytes);
	for (int32_t i = 0; i < c->n_metrics; i++)
		r->values[i] = !strcmp(c->names[i], "fake.bytes") ? 2 * bytes
		               : !strcmp(c->names[i], "fake.flops")
		                       ? (double)(now.flops - c->before.flops)
		               : !strcmp(c->names[i], "fake.time") ? 1000
		                                                   : NAN;
	c->n_ranges++;
	c->open = false;
	return 0;
}

static int counters_read(void *dev, struct nx_counters *c, const struct nx_range **out, int32_t *n,
                         struct nx_err *err)
{
	(void)dev;
	(void)err;
	*out = c->ranges;
	*n = c->n_ranges;
	return 0;
}

static int trace_begin(void *dev, size_t max_records, struct nx_err *err)
{
	if (max_records < KERNELS * 2)
		late_abort("a trace of %zu records", max_records);
	if (word("tracefault"))
		return fault(dev, err);
	return word("notrace") ? nx_fail(err, NX_EENV, "no library for traces is there") : 0;
}

static int trace_end(void *dev, struct nx_trace_record **out, size_t *n, size_t *lost,
                     struct nx_err *err)
{
	int rc = wait_all(dev, err);
	if (rc)
		return rc;
	struct nx_trace_record *r = late_must(calloc(KERNELS * 2, sizeof(*r)));
	*out = r;
	*n = *lost = 0;
	for (uint64_t i = 0; i < KERNELS; i++) {
		r[*n] = (struct nx_trace_record){.begin_ns = 100 * i, .end_ns = 100 * i + 60};
		snprintf(r[(*n)++].name, NX_TRACE_NAME, "gemm");
		if (i % 5)
			continue;
		r[*n] = (struct nx_trace_record){.begin_ns = 100 * i + 60, .end_ns = 100 * i + 80};
		snprintf(r[(*n)++].name, NX_TRACE_NAME, "norm");
	}
	return 0;
}

static void trace_free(void *dev, struct nx_trace_record *records)
{
	(void)dev;
	free(records);
}

static int telemetry(void *dev, struct nx_telemetry *out, struct nx_err *err)
{
	(void)dev;
	(void)err;
	*out = (struct nx_telemetry){
		.sm_clock_hz = 1.5e9,
		.mem_clock_hz = NAN,
		.power_w = 700,
		.temperature_c = 55,
		.mem_used_bytes = 1 << 30,
		.throttle = (word("hot") ? NX_THROTTLE_HEAT : 0) |
	                    (word("capped") ? NX_THROTTLE_POWER : 0) | NX_THROTTLE_IDLE,
		.n_other_processes = word("shared"),
		.utilisation = 1,
	};
	return 0;
}

static int energy(void *dev, double *joules, struct nx_err *err)
{
	static double used;
	(void)dev;
	(void)err;
	*joules = used += 100;
	return 0;
}

#define SAMPLES 5

static uint64_t interval_ns;

static int sampling_begin(void *dev, uint64_t ns, size_t max_samples, struct nx_err *err)
{
	(void)dev;
	if (word("nosamples"))
		return nx_fail(err, NX_EENV, "this library cannot sample");
	if (interval_ns || max_samples < SAMPLES)
		late_abort("sampling of %zu samples begins, the interval is %llu", max_samples,
		           (unsigned long long)interval_ns);
	interval_ns = ns;
	return 0;
}

static int sampling_end(void *dev, struct nx_device_sample **out, size_t *n, size_t *lost,
                        struct nx_err *err)
{
	int rc = wait_all(dev, err);
	if (!interval_ns)
		late_abort("sampling ends that did not begin");
	if (!rc) {
		*out = late_must(calloc(SAMPLES, sizeof(**out)));
		*n = SAMPLES;
		*lost = 1;
		for (uint64_t i = 0; i < SAMPLES; i++)
			(*out)[i] =
				(struct nx_device_sample){.begin_ns = 5000 + i * interval_ns,
			                                  .end_ns = 5000 + (i + 1) * interval_ns,
			                                  .dram = 0.1 * (double)(i + 1),
			                                  .sm = 0.5};
	}
	interval_ns = 0;
	return rc;
}

static void sampling_free(void *dev, struct nx_device_sample *samples)
{
	(void)dev;
	free(samples);
}

static void versions(void *dev, char *dst, size_t size)
{
	(void)dev;
	snprintf(dst, size, "late 1.0");
}

static const struct nx_instrument_ops ops = {
	.size = sizeof(ops),
	.metrics_check = metrics_check,
	.counters_open = counters_open,
	.range_begin = range_begin,
	.range_end = range_end,
	.counters_read = counters_read,
	.counters_close = counters_close,
	.trace_begin = trace_begin,
	.trace_end = trace_end,
	.trace_free = trace_free,
	.telemetry = telemetry,
	.energy = energy,
	.sampling_begin = sampling_begin,
	.sampling_end = sampling_end,
	.sampling_free = sampling_free,
	.versions = versions,
};

const struct nx_instrument_ops *late_instruments(void)
{
	const char *s = getenv("NEXUS_LATE_INSTRUMENTS");
	return s && *s ? &ops : NULL;
}
