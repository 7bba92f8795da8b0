/* SPDX-License-Identifier: Apache-2.0
 *
 * gate_ref.c: computes and keeps references of the gate. See gate_ref.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure/gate_ref.h"

#define KEPT 8
#define KEPT_BYTES_MAX (256u << 20)

struct nx_gate_cache {
	struct nx_gate_ref refs[KEPT];
	size_t n, bytes;
};

struct nx_gate_cache *nx_gate_cache_create(void)
{
	return calloc(1, sizeof(struct nx_gate_cache));
}

static void drop_all(struct nx_gate_cache *c)
{
	for (size_t i = 0; i < c->n; i++)
		free(c->refs[i].logits);
	c->n = c->bytes = 0;
}

void nx_gate_cache_destroy(struct nx_gate_cache *c)
{
	if (c)
		drop_all(c);
	free(c);
}

int32_t nx_gate_argmax(const float *x, int32_t n)
{
	int32_t best = 0;
	for (int32_t i = 1; i < n; i++)
		if (x[i] > x[best])
			best = i;
	return best;
}

int32_t nx_gate_requests(const struct nx_gate_config *c, struct nx_request out[NX_GATE_REQUESTS])
{
	/* Fewer requests than sequences are taken twice: the row counts matter, too. */
	for (size_t i = 0; i < NX_GATE_REQUESTS; i++) {
		const struct nx_request *r = &c->reqs[i % c->n_reqs];
		out[i] = (struct nx_request){
			.id = (uint32_t)i,
			.prompt = r->prompt,
			.n_prompt = r->n_prompt,
			.max_out = r->max_out < NX_GATE_OUT ? r->max_out : NX_GATE_OUT,
			.samples = c->engine_config->samples, /* forks are part of the stack */
			.ignore_eos = true,
			.sampler = {.temperature = 0, .top_p = 1},
		};
	}
	return NX_GATE_REQUESTS;
}

static bool in_reference(const struct nx_layer *l)
{
	const uint32_t numerics =
		1u << NX_SLOT_ATTENTION | 1u << NX_SLOT_KV_CODEC | 1u << NX_SLOT_WEIGHTS;
	return (l->plugin->slots & numerics) != 0;
}

static uint64_t mix(uint64_t h, const void *data, size_t n)
{
	const uint8_t *p = data;
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h;
}

static uint64_t key_of(const struct nx_gate_config *c, const struct nx_request *reqs, int32_t n)
{
	uint64_t h = 0xcbf29ce484222325ull;
	for (int32_t i = 0; i < n; i++) {
		h = mix(h, &reqs[i].max_out, sizeof(reqs[i].max_out));
		h = mix(h, &reqs[i].n_prompt, sizeof(reqs[i].n_prompt));
		h = mix(h, reqs[i].prompt, (size_t)reqs[i].n_prompt * sizeof(int32_t));
	}
	const struct nx_stack *s = c->engine_config->stack;
	for (int32_t i = 0; i < s->n_layers; i++) {
		const struct nx_layer *l = &s->layers[i];
		if (!in_reference(l))
			continue;
		h = mix(h, l->plugin->technique->name, strlen(l->plugin->technique->name));
		for (int32_t k = 0; k < l->plugin->n_params; k++) {
			/* member by member: a struct's padding is not part of its value */
			h = mix(h, &l->values[k].i, sizeof(l->values[k].i));
			h = mix(h, &l->values[k].f, sizeof(l->values[k].f));
			h = mix(h, &l->values[k].b, sizeof(l->values[k].b));
		}
	}
	return h;
}

/* Sink of both passes: the first one keeps logits, the others compare with them. */
struct pass {
	struct nx_gate_ref *ref;
	bool compare;
	bool damaged; /* a logit that is no number was seen, first at: */
	uint32_t request;
	int32_t index;
};

static void on_logits(void *ctx, uint32_t request, uint32_t sample, int32_t index,
                      const float *logits, int32_t vocab)
{
	struct pass *p = ctx;
	struct nx_gate_ref *r = p->ref;
	(void)sample;
	if (request >= NX_GATE_REQUESTS || index < 0 || index >= NX_GATE_OUT || vocab != r->vocab)
		return;
	float *at = r->logits + ((size_t)request * NX_GATE_OUT + (size_t)index) * (size_t)vocab;
	if (!p->compare) {
		memcpy(at, logits, (size_t)vocab * sizeof(*at));
		r->token[request][index] = nx_gate_argmax(logits, vocab);
		if (index >= r->n_out[request])
			r->n_out[request] = index + 1;
		for (int32_t i = 0; i < vocab; i++) {
			r->largest = fmax(r->largest, fabs((double)logits[i]));
			if (!isfinite(logits[i]) && !p->damaged) {
				p->damaged = true;
				p->request = request;
				p->index = index;
			}
		}
		return;
	}
	for (int32_t i = 0; i < vocab; i++)
		r->spread = fmax(r->spread, fabs((double)logits[i] - (double)at[i]));
}

/* The reference at one row count: a fresh engine over the numerics' layers alone. */
static int run_at(const struct nx_gate_config *c, const struct nx_stack *stack, int32_t batch_size,
                  struct nx_request *reqs, int32_t n, struct pass *p, struct nx_err *err)
{
	struct nx_engine_config ec = *c->engine_config;
	ec.stack = stack;
	ec.batch_size = batch_size;
	ec.samples = 1;
	ec.max_rows = 0;
	ec.kv_budget_bytes = 0; /* the reference is not what the budget is for */
	ec.check = false;
	ec.plan_ahead = false;
	ec.longest_request = 0;
	ec.max_len = 0;
	for (int32_t i = 0; i < n; i++) {
		reqs[i].samples = 1;
		if (reqs[i].n_prompt + reqs[i].max_out > ec.max_len)
			ec.max_len = reqs[i].n_prompt + reqs[i].max_out;
	}
	struct nx_engine *e = NULL;
	int rc = nx_engine_create(&e, &ec, err);
	if (rc)
		return rc;
	const struct nx_sink sink = {.ctx = p, .logits = on_logits};
	rc = nx_engine_run(e, reqs, (size_t)n, &sink, err);
	nx_engine_destroy(e);
	return rc;
}

static int compute(const struct nx_gate_config *c, struct nx_request *reqs, int32_t n,
                   struct nx_gate_ref *ref, struct nx_err *err)
{
	struct nx_stack stack = {0};
	const struct nx_stack *full = c->engine_config->stack;
	for (int32_t i = 0; i < full->n_layers; i++)
		if (in_reference(&full->layers[i]))
			stack.layers[stack.n_layers++] = full->layers[i];
	struct pass p = {.ref = ref};
	int rc = run_at(c, &stack, 1, reqs, n, &p, err);
	if (rc)
		return rc;
	/* Tokens of such logits are all the same, and every stack would agree with them. */
	if (p.damaged)
		return nx_fail(
			err, NX_EFORMAT,
			"the model's own logits are no numbers at output token %d of request %u: "
			"its weights are damaged, or too large for this type",
			p.index, p.request);
	for (int32_t i = 0; i < n; i++) {
		reqs[i].force = ref->token[i];
		reqs[i].max_out = ref->n_out[i];
	}
	p.compare = true;
	for (int32_t batch = 2; batch <= NX_GATE_REQUESTS && !rc; batch *= 2)
		rc = run_at(c, &stack, batch, reqs, n, &p, err);
	return rc;
}

int nx_gate_ref_get(const struct nx_gate_config *c, const struct nx_gate_ref **out,
                    struct nx_err *err)
{
	struct nx_request reqs[NX_GATE_REQUESTS];
	int32_t n = nx_gate_requests(c, reqs);
	uint64_t key = key_of(c, reqs, n);
	for (size_t i = 0; i < c->cache->n; i++)
		if (c->cache->refs[i].key == key) {
			*out = &c->cache->refs[i];
			return 0;
		}
	struct nx_gate_ref ref = {.key = key, .n_requests = n, .vocab = c->vocab};
	size_t bytes = (size_t)NX_GATE_REQUESTS * NX_GATE_OUT * (size_t)ref.vocab * sizeof(float);
	if (c->cache->n == KEPT || c->cache->bytes + bytes > KEPT_BYTES_MAX)
		drop_all(c->cache);
	ref.logits = calloc(1, bytes);
	if (!ref.logits)
		return nx_fail(err, NX_ENOMEM, "no memory for the gate's %zu MiB of logits",
		               bytes >> 20);
	int rc = compute(c, reqs, n, &ref, err);
	if (rc) {
		free(ref.logits);
		return rc;
	}
	c->cache->bytes += bytes;
	c->cache->refs[c->cache->n] = ref;
	*out = &c->cache->refs[c->cache->n++];
	return 0;
}
