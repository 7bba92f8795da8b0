/* SPDX-License-Identifier: Apache-2.0
 *
 * warmup.c: see warmup.h.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/clock.h"
#include "measure/warmup.h"

#define STEPS_MAX                                                                                  \
	4096 /* decode steps of one pass that are looked at; more add nothing to a median */

struct watch {
	uint64_t *step_ns; /* [STEPS_MAX] */
	size_t n;
};

static void on_step(void *ctx, const struct nx_step_info *s)
{
	struct watch *w = ctx;
	if ((s->phase == NX_PHASE_DECODE || s->phase == NX_PHASE_VERIFY) && w->n < STEPS_MAX)
		w->step_ns[w->n++] = s->end_ns - s->begin_ns;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

/* Runs one pass; *shown_ns is the median decode step, or the whole time when there was none. */
static int pass(struct nx_engine *e, const struct nx_request *reqs, size_t n, struct watch *w,
                uint64_t *shown_ns, struct nx_err *err)
{
	const struct nx_sink sink = {.ctx = w, .step = on_step};
	w->n = 0;
	nx_engine_reset(e);
	uint64_t t0 = nx_now_ns();
	int rc = nx_engine_run(e, reqs, n, &sink, err);
	if (rc)
		return rc;
	*shown_ns = nx_now_ns() - t0;
	if (w->n) {
		qsort(w->step_ns, w->n, sizeof(*w->step_ns), by_value);
		*shown_ns = w->step_ns[w->n / 2];
	}
	return 0;
}

static bool settled(uint64_t before_ns, uint64_t now_ns)
{
	double a = (double)before_ns, b = (double)now_ns;
	return before_ns && b <= a * (1 + NX_WARMUP_TOLERANCE) &&
	       b >= a * (1 - NX_WARMUP_TOLERANCE);
}

int nx_warmup_run(struct nx_engine *e, const struct nx_request *reqs, size_t n, int32_t batch_size,
                  struct nx_warmup *w, struct nx_err *err)
{
	int rc = 0;
	uint64_t t0 = nx_now_ns();
	w->n_passes = 0;
	if (n > (size_t)batch_size)
		n = (size_t)batch_size;
	struct nx_request *cut = calloc(n + 1, sizeof(*cut));
	struct watch watch = {.step_ns = calloc(STEPS_MAX, sizeof(*watch.step_ns))};
	if (!cut || !watch.step_ns) {
		rc = nx_fail(err, NX_ENOMEM, "no memory for the warm-up of %zu requests", n);
		goto out;
	}
	memcpy(cut, reqs, n * sizeof(*cut));
	for (size_t i = 0; i < n; i++) {
		cut[i].after = 0; /* a whole batch, turns of one conversation included */
		if (cut[i].max_out > NX_WARMUP_OUT)
			cut[i].max_out = NX_WARMUP_OUT;
	}
	while (w->n_passes < NX_WARMUP_PASSES_MAX) {
		uint64_t shown_ns = 0;
		rc = pass(e, cut, n, &watch, &shown_ns, err);
		if (rc)
			goto out;
		w->n_passes++;
		bool done = settled(w->last_ns, shown_ns);
		w->last_ns = shown_ns;
		if (done || nx_now_ns() - t0 > NX_WARMUP_BUDGET_NS)
			break;
	}
	nx_engine_reset(e);
out:
	w->total_ns = nx_now_ns() - t0;
	free(cut);
	free(watch.step_ns);
	return rc;
}
