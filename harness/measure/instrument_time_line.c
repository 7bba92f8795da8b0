/* SPDX-License-Identifier: Apache-2.0
 *
 * instrument_time_line.c: samples of the device while it runs a cell's requests. See instrument.h.
 */
#include <stdlib.h>

#include "measure/instrument_pass.h"

/* Whose clocks are held is not ours to choose. */
static int check_alone(const struct nx_instrument_ops *ops, void *dev, struct nx_err *err)
{
	struct nx_telemetry t = {.n_other_processes = -1};
	if (ops->telemetry && !ops->telemetry(dev, &t, NULL) && t.n_other_processes > 0)
		return nx_fail(err, NX_ENOTSUP,
		               "%d other process%s the device open, and sampling holds its clocks",
		               t.n_other_processes, t.n_other_processes == 1 ? " has" : "es have");
	return 0;
}

static int keep_samples(struct nx_profiled *out, const struct nx_device_sample *samples, size_t n,
                        struct nx_err *err)
{
	struct nx_device_sample *to = calloc(n + 1, sizeof(*to));
	if (!to)
		return nx_fail(err, NX_ENOMEM, "no memory for %zu samples", n);
	for (size_t i = 0; i < n; i++) {
		to[i] = samples[i];
		to[i].begin_ns -= samples[0].begin_ns;
		to[i].end_ns -= samples[0].begin_ns;
	}
	out->samples = to;
	out->n_samples = n;
	return 0;
}

int nx_time_line_run(const struct nx_instrument_job *job, struct nx_profiled *out,
                     struct nx_err *err)
{
	const struct nx_instrument_ops *ops = job->dev->ops->instruments;
	const struct nx_sink sink = {.ctx = NULL};
	void *dev = job->dev->dev;
	struct nx_device_sample *samples = NULL;
	struct nx_engine *e = NULL;
	size_t n = 0, lost = 0;
	if (!ops->sampling_begin)
		return nx_fail(err, NX_ENOTSUP, "the device cannot be sampled over time");
	int rc = check_alone(ops, dev, err);
	if (!rc)
		rc = nx_instrument_engine(job, job->engine.plan_ahead, &e, err);
	if (!rc)
		rc = ops->sampling_begin(dev, job->time_line_ns, NX_SAMPLES_MAX, err);
	if (!rc) {
		rc = nx_engine_run(e, job->reqs, job->n_reqs, &sink, err);
		int ended = ops->sampling_end(dev, &samples, &n, &lost, rc ? NULL : err);
		rc = rc ? rc : ended;
	}
	if (!rc)
		rc = keep_samples(out, samples, n, err);
	out->n_samples_lost = lost;
	if (samples)
		ops->sampling_free(dev, samples);
	if (e)
		nx_engine_destroy(e);
	return rc;
}
