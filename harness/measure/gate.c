/* SPDX-License-Identifier: Apache-2.0
 *
 * gate.c: see gate.h.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure/gate_ref.h"

struct judge {
	const struct nx_gate_ref *ref;
	struct nx_gate *out;
	bool invariant;
};

static void on_logits(void *ctx, uint32_t request, uint32_t sample, int32_t index,
                      const float *logits, int32_t vocab)
{
	struct judge *j = ctx;
	const struct nx_gate_ref *r = j->ref;
	(void)sample;
	uint32_t which = request % NX_GATE_REQUESTS; /* the reference's */
	if (index < 0 || index >= r->n_out[which] || vocab != r->vocab)
		return;
	struct nx_gate *g = j->out;
	int32_t want = r->token[which][index], got = nx_gate_argmax(logits, vocab);
	const float *at = r->logits + ((size_t)which * NX_GATE_OUT + (size_t)index) * (size_t)vocab;
	/* In invariant mode every bit of every logit counts, not the choice alone. */
	bool finite = isfinite(logits[got]);
	bool same = got == want && finite &&
	            (!j->invariant || memcmp(at, logits, (size_t)vocab * sizeof(*at)) == 0);
	g->n_positions++;
	if (same) {
		g->n_equal++;
		return;
	}
	double gap = fabs((double)at[want] - (double)at[got]);
	if (!j->invariant && finite && gap <= g->near_tie_width) {
		g->n_near_tie++;
		return;
	}
	if (!g->n_wrong++) {
		g->first_request = (int32_t)request;
		g->first_index = index;
		g->first_gap = gap;
	}
}

static int32_t verdict_of(const struct nx_gate *g)
{
	if (g->n_wrong)
		return NX_GATE_FAILED;
	if (!g->n_near_tie)
		return NX_GATE_EXACT;
	return g->n_near_tie * 100 > g->n_positions ? NX_GATE_INCONCLUSIVE : NX_GATE_NEAR_TIES;
}

int nx_gate_run(const struct nx_gate_config *c, struct nx_gate *out, struct nx_err *err)
{
	*out = (struct nx_gate){.first_request = -1, .first_index = -1};
	if (!c->n_reqs)
		return nx_fail(err, NX_EINVAL, "the gate has no requests");
	const struct nx_gate_ref *ref = NULL;
	int rc = nx_gate_ref_get(c, &ref, err);
	if (rc)
		return rc;
	double floor = ldexp(ref->largest, c->dtype == NX_F32 ? -18 : -7);
	out->near_tie_width = fmax(2 * ref->spread, floor);

	struct nx_request base[NX_GATE_REQUESTS];
	int32_t n_base = nx_gate_requests(c, base), expected = 0;
	/* More requests than places, of unequal lengths: some join while others run and take places that others
	 * left. */
	int32_t n = c->engine_config->batch_size + n_base;
	struct nx_request *reqs = calloc((size_t)n, sizeof(*reqs));
	if (!reqs)
		return nx_fail(err, NX_ENOMEM, "no memory for the gate's %d requests", n);
	for (int32_t i = 0; i < n; i++) {
		int32_t which = i % n_base, full = ref->n_out[which], round = i / n_base % 4;
		reqs[i] = base[which];
		reqs[i].id = (uint32_t)i;
		reqs[i].force = ref->token[which];
		reqs[i].max_out = round ? full * round / 4 + 1 : full;
		if (reqs[i].max_out > full)
			reqs[i].max_out = full;
		expected += reqs[i].max_out * reqs[i].samples;
	}
	struct judge j = {.ref = ref, .out = out, .invariant = c->engine_config->invariant};
	const struct nx_sink sink = {.ctx = &j, .logits = on_logits};
	nx_engine_reset(c->engine);
	rc = nx_engine_run(c->engine, reqs, (size_t)n, &sink, err);
	nx_engine_reset(c->engine);
	free(reqs);
	if (rc)
		return rc;
	/* A stack that shows fewer positions than the reference has not passed them. */
	if (out->n_positions != expected)
		return nx_fail(err, NX_EBUG, "the gate saw %d of %d positions of the stack",
		               out->n_positions, expected);
	out->ran = 1;
	out->verdict = verdict_of(out);
	return 0;
}

void nx_gate_sentence(const struct nx_gate *g, char *buf, size_t size)
{
	switch (g->verdict) {
	case NX_GATE_FAILED:
		snprintf(
			buf, size,
			"the stack chose another token at %d of %d positions, first at request %d, token %d, "
			"where the two logits lie %.3g apart (near tie: %.3g)",
			g->n_wrong, g->n_positions, g->first_request, g->first_index, g->first_gap,
			g->near_tie_width);
		return;
	case NX_GATE_INCONCLUSIVE:
		snprintf(buf, size, "inconclusive: %d of %d positions are near ties", g->n_near_tie,
		         g->n_positions);
		return;
	case NX_GATE_RANDOM_WEIGHTS: snprintf(buf, size, "not run: random weights"); return;
	case NX_GATE_NEAR_TIES:
		snprintf(buf, size, "%d near ties in %d positions", g->n_near_tie, g->n_positions);
		return;
	default: snprintf(buf, size, "%d of %d positions equal", g->n_equal, g->n_positions);
	}
}
