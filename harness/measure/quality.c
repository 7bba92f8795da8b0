/* SPDX-License-Identifier: Apache-2.0
 *
 * quality.c: see quality.h.
 */
#include "measure/quality.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/file.h"
#include "measure/gate_ref.h"

#define LOGITS_MAX ((size_t)256 << 20)
#define KNOWN 32
#define LINE_MAX_BYTES (1 << 20)

struct nx_quality_bench {
	int32_t n_texts, n_out, vocab;
	int32_t *tokens; /* [n_texts, NX_QUALITY_PROMPT + n_out] */
	float *logits;   /* [n_texts, n_out, vocab] of full precision; NULL until they are wanted */
	double nll_full;
	struct {
		uint64_t key;
		struct nx_quality result;
	} known[KNOWN];
	size_t n_known;
};

#define NUMERICS (1u << NX_SLOT_ATTENTION | 1u << NX_SLOT_KV_CODEC | 1u << NX_SLOT_WEIGHTS)

bool nx_quality_is_lossy(const struct nx_stack *s)
{
	for (int32_t i = 0; i < s->n_layers; i++)
		if ((s->layers[i].plugin->slots & NUMERICS) &&
		    !(s->layers[i].plugin->technique->flags & NX_TECH_EXACT))
			return true;
	return false;
}

bool nx_quality_find(const char *exe_dir, char *path, size_t size)
{
	static const char *const below[] = {"../experiments/" NX_QUALITY_FILE,
	                                    "../share/nexus/experiments/" NX_QUALITY_FILE};
	for (size_t i = 0; exe_dir && i < sizeof(below) / sizeof(below[0]); i++) {
		int n = snprintf(path, size, "%s/%s", exe_dir, below[i]);
		if (n > 0 && (size_t)n < size && nx_file_is_regular(path))
			return true;
	}
	return false;
}

/* ---- texts */

/* The first tokens of one line's text. */
static int read_line(struct nx_quality_bench *b, const struct nx_tokenizer *tok, const char *line,
                     int32_t *to, struct nx_err *err)
{
	json_t *j = json_loads(line, 0, NULL);
	const char *text = json_string_value(json_object_get(j, "text"));
	size_t need = NX_QUALITY_PROMPT + (size_t)b->n_out, n = 0;
	int32_t *ids = NULL;
	int rc = text ? nx_tokenizer_encode(tok, text, strlen(text), NX_TOK_ADD_BOS, &ids, &n, err)
	              : nx_fail(err, NX_EFORMAT, "a line of the held-out texts has no \"text\"");
	if (!rc && n < need)
		rc = nx_fail(err, NX_EFORMAT, "a held-out text has %zu tokens; needed: %zu", n,
		             need);
	if (!rc)
		memcpy(to, ids, need * sizeof(*to));
	free(ids);
	json_decref(j);
	return rc;
}

/* The last n_texts lines. */
static int read_texts(struct nx_quality_bench *b, const struct nx_tokenizer *tok, const char *path,
                      struct nx_err *err)
{
	const uint8_t *base = NULL;
	size_t len = 0;
	int rc = nx_file_map(path, &base, &len, err);
	if (rc)
		return rc;
	size_t end = len;
	int32_t i = b->n_texts;
	while (i > 0 && end > 0 && !rc) {
		while (end > 0 && (base[end - 1] == '\n' || base[end - 1] == '\r'))
			end--;
		size_t begin = end;
		while (begin > 0 && base[begin - 1] != '\n')
			begin--;
		if (begin == end || end - begin > LINE_MAX_BYTES)
			break;
		char *line = strndup((const char *)base + begin, end - begin);
		i--;
		rc = line ? read_line(b, tok, line, b->tokens + i * (NX_QUALITY_PROMPT + b->n_out),
		                      err)
		          : nx_fail(err, NX_ENOMEM, "no memory for the held-out texts");
		free(line);
		end = begin;
	}
	if (base)
		munmap((void *)(uintptr_t)base, len);
	if (!rc && i > 0)
		rc = nx_fail(err, NX_EFORMAT, "%.200s: %d held-out texts are needed, %d are there",
		             path, b->n_texts, b->n_texts - i);
	return rc;
}

int nx_quality_create(struct nx_quality_bench **out, const struct nx_tokenizer *tokenizer,
                      const char *path, const struct nx_shape *shape, struct nx_err *err)
{
	struct nx_quality_bench *b = calloc(1, sizeof(*b));
	if (!b)
		return nx_fail(err, NX_ENOMEM, "no memory for the quality pass");
	b->vocab = shape->vocab;
	b->n_out = NX_QUALITY_OUT;
	if (b->n_out > shape->ctx_len - NX_QUALITY_PROMPT)
		b->n_out = shape->ctx_len - NX_QUALITY_PROMPT;
	int rc = 0;
	if (b->n_out < 1)
		rc = nx_fail(err, NX_ESKIP, "a context of %d is too short for the quality pass",
		             shape->ctx_len);
	if (!rc) {
		size_t each = (size_t)b->n_out * (size_t)b->vocab * sizeof(float),
		       n = LOGITS_MAX / each;
		b->n_texts = n < 1 ? 1 : n > NX_QUALITY_TEXTS ? NX_QUALITY_TEXTS : (int32_t)n;
		b->tokens = calloc((size_t)b->n_texts * (size_t)(NX_QUALITY_PROMPT + b->n_out),
		                   sizeof(*b->tokens));
		rc = b->tokens ? read_texts(b, tokenizer, path, err)
		               : nx_fail(err, NX_ENOMEM, "no memory for the quality pass");
	}
	if (rc) {
		nx_quality_destroy(b);
		return rc;
	}
	*out = b;
	return 0;
}

void nx_quality_destroy(struct nx_quality_bench *b)
{
	if (!b)
		return;
	free(b->tokens);
	free(b->logits);
	free(b);
}

/* ---- passes */

struct pass {
	struct nx_quality_bench *b;
	bool full; /* keeps logits; else compares with them */
	double nll, kl;
	int64_t n_seen, n_agree;
	int32_t same[NX_QUALITY_TEXTS]; /* leading positions that agree */
	bool damaged;
};

/* ln of the sum of e^x. */
static double log_sum(const float *x, int32_t n)
{
	double most = x[0], sum = 0;
	for (int32_t i = 1; i < n; i++)
		most = x[i] > most ? x[i] : most;
	for (int32_t i = 0; i < n; i++)
		sum += exp(x[i] - most);
	return most + log(sum);
}

static void on_logits(void *ctx, uint32_t request, uint32_t sample, int32_t index,
                      const float *logits, int32_t vocab)
{
	struct pass *p = ctx;
	struct nx_quality_bench *b = p->b;
	(void)sample;
	if (request >= (uint32_t)b->n_texts || index < 0 || index >= b->n_out || vocab != b->vocab)
		return;
	float *at =
		b->logits + ((size_t)request * (size_t)b->n_out + (size_t)index) * (size_t)vocab;
	int32_t next = b->tokens[(int32_t)request * (NX_QUALITY_PROMPT + b->n_out) +
	                         NX_QUALITY_PROMPT + index];
	double z = log_sum(logits, vocab), kl = 0;
	p->n_seen++;
	p->nll += z - logits[next];
	p->damaged |= !isfinite(z);
	if (p->full) {
		memcpy(at, logits, (size_t)vocab * sizeof(*at));
		return;
	}
	double full = log_sum(at, vocab);
	for (int32_t i = 0; i < vocab; i++) {
		double lp = at[i] - full;
		kl += exp(lp) * (lp - (logits[i] - z));
	}
	p->kl += kl;
	bool agree = nx_gate_argmax(at, vocab) == nx_gate_argmax(logits, vocab);
	p->n_agree += agree;
	/* Tokens of a text come in order. */
	if (agree && p->same[request] == index)
		p->same[request]++;
}

static int run(struct nx_quality_bench *b, const struct nx_engine_config *c,
               const struct nx_stack *stack, struct pass *p, struct nx_err *err)
{
	struct nx_request reqs[NX_QUALITY_TEXTS];
	int32_t length = NX_QUALITY_PROMPT + b->n_out;
	for (int32_t i = 0; i < b->n_texts; i++)
		reqs[i] = (struct nx_request){.id = (uint32_t)i,
		                              .prompt = b->tokens + i * length,
		                              .n_prompt = NX_QUALITY_PROMPT,
		                              .max_out = b->n_out,
		                              .samples = 1,
		                              .ignore_eos = true,
		                              .sampler = {.temperature = 0, .top_p = 1},
		                              .force = b->tokens + i * length + NX_QUALITY_PROMPT};
	const struct nx_engine_config ec = {.weights = c->weights,
	                                    .stack = stack,
	                                    .batch_size = b->n_texts,
	                                    .samples = 1,
	                                    .max_len = length,
	                                    .longest_request = length,
	                                    .longest_prompt = NX_QUALITY_PROMPT,
	                                    .invariant = c->invariant};
	const struct nx_sink sink = {.ctx = p, .logits = on_logits};
	struct nx_engine *e = NULL;
	int rc = nx_engine_create(&e, &ec, err);
	if (rc)
		return rc;
	rc = nx_engine_run(e, reqs, (size_t)b->n_texts, &sink, err);
	nx_engine_destroy(e);
	if (!rc && p->n_seen != (int64_t)b->n_texts * b->n_out)
		rc = nx_fail(err, NX_EBUG, "the quality pass saw %lld of %lld positions",
		             (long long)p->n_seen, (long long)b->n_texts * b->n_out);
	if (!rc && p->damaged)
		rc = nx_fail(err, NX_EFORMAT, "logits of the quality pass are no numbers");
	return rc;
}

/* ---- results */

static uint64_t mix(uint64_t h, const void *data, size_t n)
{
	const uint8_t *p = data;
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 0x100000001b3ull;
	return h;
}

static void numerics_of(const struct nx_stack *s, struct nx_stack *out)
{
	out->n_layers = 0;
	for (int32_t i = 0; i < s->n_layers; i++)
		if (s->layers[i].plugin->slots & NUMERICS)
			out->layers[out->n_layers++] = s->layers[i];
}

static uint64_t key_of(const struct nx_stack *s)
{
	uint64_t h = 0xcbf29ce484222325ull;
	for (int32_t i = 0; i < s->n_layers; i++) {
		const struct nx_layer *l = &s->layers[i];
		if (!(l->plugin->slots & NUMERICS))
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

bool nx_quality_known(const struct nx_quality_bench *b, const struct nx_stack *s,
                      struct nx_quality *out)
{
	uint64_t key = key_of(s);
	for (size_t i = 0; i < b->n_known; i++)
		if (b->known[i].key == key) {
			*out = b->known[i].result;
			return true;
		}
	return false;
}

static int run_full(struct nx_quality_bench *b, const struct nx_engine_config *c,
                    struct nx_err *err)
{
	static const struct nx_stack none;
	struct pass p = {.b = b, .full = true};
	if (b->logits)
		return 0;
	b->logits = malloc((size_t)b->n_texts * (size_t)b->n_out * (size_t)b->vocab *
	                   sizeof(*b->logits));
	if (!b->logits)
		return nx_fail(err, NX_ENOMEM, "no memory for the logits of the quality pass");
	int rc = run(b, c, &none, &p, err);
	if (rc) {
		free(b->logits);
		b->logits = NULL;
	}
	b->nll_full = p.nll;
	return rc;
}

int nx_quality_run(struct nx_quality_bench *b, const struct nx_engine_config *c,
                   struct nx_quality *out, struct nx_err *err)
{
	struct pass p = {.b = b};
	struct nx_stack numerics = {0};
	double n = (double)b->n_texts * b->n_out, same = 0;
	*out = (struct nx_quality){0};
	numerics_of(c->stack, &numerics);
	int rc = run_full(b, c, err);
	if (!rc)
		rc = run(b, c, &numerics, &p, err);
	if (rc)
		return rc;
	for (int32_t i = 0; i < b->n_texts; i++)
		same += p.same[i];
	*out = (struct nx_quality){.n_texts = b->n_texts,
	                           .n_positions = b->n_texts * b->n_out,
	                           .perplexity = exp(p.nll / n),
	                           .perplexity_full = exp(b->nll_full / n),
	                           .kl = p.kl / n,
	                           .agreement = (double)p.n_agree / n,
	                           .first_divergence = same / b->n_texts};
	if (b->n_known < KNOWN) {
		b->known[b->n_known].key = key_of(c->stack);
		b->known[b->n_known++].result = *out;
	}
	return 0;
}

void nx_quality_put(const struct nx_quality *q, struct nx_trial *t)
{
	if (!q->n_positions)
		return;
	t->metrics[NX_METRIC_PERPLEXITY] = q->perplexity;
	t->metrics[NX_METRIC_PERPLEXITY_FULL] = q->perplexity_full;
	t->metrics[NX_METRIC_KL_FULL] = q->kl;
	t->metrics[NX_METRIC_TOKEN_AGREEMENT] = q->agreement;
	t->metrics[NX_METRIC_FIRST_DIVERGENCE] = q->first_divergence;
}
