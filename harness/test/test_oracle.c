/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_oracle.c: the engine against an independent implementation (Transformers, float32, on weights
 * dequantised from the same file), and the bf16 path against our own f32 path. Data and the command that
 * made them: harness/test/data/oracle/.
 */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"
#include "tiny_model.h"

struct subject {
	const char *oracle, *model;
	int32_t prompts; /* how many of the oracle's 20 are used */
};

/* Under a sanitizer a tenth of the speed is left: it gets a few prompts of the small model, and the release
 * build, in which `make test` runs this file too, gets all of both. SmolLM2 is fetched by `make models`; where it
 * is missing the test says so. */
#ifdef __SANITIZE_ADDRESS__
#define N_SUBJECTS 1
#define N_PROMPTS 3
#else
#define N_SUBJECTS 3
#define N_PROMPTS 20
#endif
static const struct subject subjects[] = {
	{"harness/test/data/oracle/nano.jsonl", "experiments/models/nano/nano.gguf", N_PROMPTS},
	{"harness/test/data/oracle/nano-mtp.jsonl", "experiments/models/nano/nano-mtp.gguf",
         N_PROMPTS},
	{"harness/test/data/oracle/smollm2.jsonl",
         "experiments/models/smollm2-135m-instruct-q4_1.gguf", N_PROMPTS},
};

struct prompt {
	int32_t n, n_prompt;
	int32_t *tokens, *argmax;
	double *logit, *gap;
};

static int32_t *ints(json_t *a, size_t n)
{
	int32_t *v = calloc(n, sizeof(*v));
	ck_assert(v && json_array_size(a) == n);
	for (size_t i = 0; i < n; i++)
		v[i] = (int32_t)json_integer_value(json_array_get(a, i));
	return v;
}

static double *reals(json_t *a, size_t n)
{
	double *v = calloc(n, sizeof(*v));
	ck_assert(v && json_array_size(a) == n);
	for (size_t i = 0; i < n; i++)
		v[i] = json_number_value(json_array_get(a, i));
	return v;
}

static int32_t load_oracle(const char *path, struct prompt *out, int32_t max)
{
	FILE *f = fopen(path, "r");
	char *line = NULL;
	size_t cap = 0;
	int32_t n = 0;
	ck_assert_msg(f != NULL, "cannot read %s", path);
	while (getline(&line, &cap, f) > 0 && n < max) {
		json_t *j = json_loads(line, 0, NULL);
		ck_assert_ptr_nonnull(j);
		if (json_object_get(j, "tokens")) {
			size_t t = json_array_size(json_object_get(j, "tokens"));
			out[n++] = (struct prompt){.n = (int32_t)t,
			                           .n_prompt = (int32_t)json_integer_value(
							   json_object_get(j, "n_prompt")),
			                           .tokens = ints(json_object_get(j, "tokens"), t),
			                           .argmax = ints(json_object_get(j, "argmax"), t),
			                           .logit = reals(json_object_get(j, "logit"), t),
			                           .gap = reals(json_object_get(j, "gap"), t)};
		}
		json_decref(j);
	}
	free(line);
	fclose(f);
	return n;
}

static void free_oracle(struct prompt *p, int32_t n)
{
	for (int32_t i = 0; i < n; i++) {
		free(p[i].tokens);
		free(p[i].argmax);
		free(p[i].logit);
		free(p[i].gap);
	}
}

struct rig {
	struct nx_model *model;
	struct nx_device dev;
	struct nx_weights *weights;
	struct nx_engine *engine;
	struct nx_stack stack;
};

static void rig_open(struct rig *r, const char *path, enum nx_dtype dtype, const char *isa,
                     int32_t longest)
{
	struct nx_err err = {0};
	struct nx_device_config cfg = {.n_threads = 2, .dtype = dtype, .isa = isa};
	memset(r, 0, sizeof(*r));
	ck_assert_msg(nx_model_open(&r->model, path, &err) == 0, "%s", err.msg);
	ck_assert_msg(nx_device_open(&r->dev, "cpu", &cfg, getenv("NEXUS_BUILD"), &err) == 0, "%s",
	              err.msg);
	ck_assert_msg(nx_weights_create(&r->weights, r->model, &r->dev, dtype, &err) == 0, "%s",
	              err.msg);
	struct nx_engine_config ec = {.weights = r->weights,
	                              .stack = &r->stack,
	                              .batch_size = 4,
	                              .samples = 1,
	                              .max_len = longest,
	                              .longest_request = longest};
	ck_assert_msg(nx_engine_create(&r->engine, &ec, &err) == 0, "%s", err.msg);
}

static void rig_close(struct rig *r)
{
	nx_engine_destroy(r->engine);
	nx_weights_destroy(r->weights);
	nx_device_close(&r->dev);
	nx_model_close(r->model);
}

struct judge {
	const struct prompt *prompts;
	int64_t n, n_mismatch,
		n_far; /* positions; other argmax; of these, where the oracle's gap is no tie */
	double worst_logit; /* largest difference of the oracle's top logit */
	float *keep;        /* [sum of positions, vocab] or NULL */
	const float *other; /* to compare with */
	size_t *base;       /* first kept position of each prompt */
	double kl_sum;
};

static double kl(const float *p, const float *q, int32_t vocab)
{
	double mp = p[0], mq = q[0], sp = 0, sq = 0, sum = 0;
	for (int32_t i = 1; i < vocab; i++) {
		mp = p[i] > mp ? p[i] : mp;
		mq = q[i] > mq ? q[i] : mq;
	}
	for (int32_t i = 0; i < vocab; i++) {
		sp += exp(p[i] - mp);
		sq += exp(q[i] - mq);
	}
	for (int32_t i = 0; i < vocab; i++) {
		double lp = p[i] - mp - log(sp), lq = q[i] - mq - log(sq);
		sum += exp(lp) * (lp - lq);
	}
	return sum;
}

/* The logits at output `index` follow tokens[0 .. n_prompt - 1 + index]. */
static void on_logits(void *ctx, uint32_t request, uint32_t sample, int32_t index,
                      const float *logits, int32_t vocab)
{
	struct judge *j = ctx;
	const struct prompt *p = &j->prompts[request];
	int32_t at = p->n_prompt - 1 + index, best = 0;
	(void)sample;
	for (int32_t i = 1; i < vocab; i++)
		if (logits[i] > logits[best])
			best = i;
	j->n++;
	double d = fabs((double)logits[p->argmax[at]] - p->logit[at]);
	if (d > j->worst_logit)
		j->worst_logit = d;
	if (best != p->argmax[at]) {
		j->n_mismatch++;
		if (p->gap[at] >= 1e-3)
			j->n_far++;
	}
	size_t row = j->base[request] + (size_t)index;
	if (j->keep)
		memcpy(j->keep + row * (size_t)vocab, logits, (size_t)vocab * sizeof(float));
	if (j->other)
		j->kl_sum += kl(j->other + row * (size_t)vocab, logits, vocab);
}

static void judge_run(struct rig *r, const struct prompt *p, int32_t n, struct judge *j)
{
	struct nx_err err = {0};
	struct nx_request *reqs = calloc((size_t)n, sizeof(*reqs));
	for (int32_t i = 0; i < n; i++)
		reqs[i] = (struct nx_request){.id = (uint32_t)i,
		                              .prompt = p[i].tokens,
		                              .n_prompt = p[i].n_prompt,
		                              .max_out = p[i].n - p[i].n_prompt,
		                              .samples = 1,
		                              .ignore_eos = true,
		                              .force = p[i].tokens + p[i].n_prompt};
	struct nx_sink sink = {.ctx = j, .logits = on_logits};
	ck_assert_msg(nx_engine_run(r->engine, reqs, (size_t)n, &sink, &err) == 0, "%s", err.msg);
	free(reqs);
}

static bool find(const struct subject *s, char *model, size_t size, struct prompt *p, int32_t *n)
{
	char oracle[1024];
	nx_test_source_path(model, size, s->model);
	nx_test_source_path(oracle, sizeof(oracle), s->oracle);
	if (access(model, R_OK) != 0 &&
	    s > &subjects[1]) { /* the first two are part of the source */
		printf("skipped: %s is not there (make models)\n", s->model);
		return false;
	}
	*n = load_oracle(oracle, p, s->prompts);
	ck_assert_int_eq(*n, s->prompts);
	return true;
}

static int32_t longest_of(const struct prompt *p, int32_t n, size_t *base)
{
	int32_t longest = 0;
	size_t at = 0;
	for (int32_t i = 0; i < n; i++) {
		if (p[i].n > longest)
			longest = p[i].n;
		base[i] = at;
		at += (size_t)(p[i].n - p[i].n_prompt);
	}
	base[n] = at;
	return longest;
}

START_TEST(f32_agrees_with_transformers)
{
	struct prompt p[20];
	size_t base[21];
	char model[1024];
	int32_t n;
	struct rig r;
	if (!find(&subjects[_i], model, sizeof(model), p, &n))
		return;
	rig_open(&r, model, NX_F32, "auto", longest_of(p, n, base));
	struct judge j = {.prompts = p, .base = base};
	judge_run(&r, p, n, &j);
	printf("%s: %lld positions, %lld other choices, %lld of them with a gap of 1e-3 or more, top logit off by at most "
	       "%.2g\n",
	       subjects[_i].model, (long long)j.n, (long long)j.n_mismatch, (long long)j.n_far,
	       j.worst_logit);
	ck_assert_int_eq(j.n, N_PROMPTS * 64);
	ck_assert_int_eq(j.n_far, 0);
	ck_assert_msg(j.n_mismatch * 100 < j.n, "%lld of %lld positions differ",
	              (long long)j.n_mismatch, (long long)j.n);
	ck_assert_double_lt(j.worst_logit, 5e-3);
	rig_close(&r);
	free_oracle(p, n);
}
END_TEST

START_TEST(bf16_stays_close_to_f32)
{
	struct prompt p[20];
	size_t base[21];
	char model[1024];
	int32_t n;
	struct rig r;
	if (!find(&subjects[_i], model, sizeof(model), p, &n))
		return;
	int32_t longest = longest_of(p, n, base);
	rig_open(&r, model, NX_F32, "auto", longest);
	struct judge j = {.prompts = p, .base = base};
	j.keep = malloc(base[n] * (size_t)nx_model_shape(r.model)->vocab * sizeof(float));
	ck_assert_ptr_nonnull(j.keep);
	judge_run(&r, p, n, &j);
	rig_close(&r);
	rig_open(&r, model, NX_BF16, "auto", longest);
	struct judge k = {.prompts = p, .base = base, .other = j.keep};
	judge_run(&r, p, n, &k);
	printf("%s: mean KL of bf16 against f32 %.3g over %lld positions\n", subjects[_i].model,
	       k.kl_sum / (double)k.n, (long long)k.n);
	ck_assert_double_lt(k.kl_sum / (double)k.n, 1e-3);
	ck_assert_double_ge(k.kl_sum, 0);
	rig_close(&r);
	free(j.keep);
	free_oracle(p, n);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("oracle");
	TCase *tc = tcase_create("oracle");
	tcase_set_timeout(tc, 280);
	tcase_add_loop_test(tc, f32_agrees_with_transformers, 0, N_SUBJECTS);
	tcase_add_loop_test(tc, bf16_stays_close_to_f32, 0, N_SUBJECTS);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
