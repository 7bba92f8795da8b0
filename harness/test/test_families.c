/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_families.c: each family of models against Transformers, from a Hugging Face directory and from a GGUF
 * file: logits within 1e-4 of the largest, greedy tokens equal. Data and its maker: harness/test/data/families/.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"
#include "tiny_model.h"

#define TOLERANCE 1e-4 /* of the largest logit of the position */

static const char *const families[] = {"llama", "llama31", "linear", "mistral", "qwen2", "qwen3"};
#define N_FAMILIES ((int)(sizeof(families) / sizeof(families[0])))

struct golden {
	uint8_t *data;
	int32_t vocab, n, n_out;
	struct request_set set;
	const float
		*logits[4]; /* [n_out, vocab]; unaligned is fine on x86, the header is 16 bytes */
	const int32_t *out[4];
};

static void model_path(char *buf, size_t size, const char *name, bool gguf)
{
	char rel[128];
	snprintf(rel, sizeof(rel), "harness/test/data/families/%s%s", name, gguf ? ".gguf" : "");
	nx_test_source_path(buf, size, rel);
}

static void golden_open(struct golden *g, const char *name)
{
	char rel[128], path[512];
	struct nx_err err = {0};
	size_t len;
	uint32_t head[4], pn[2];
	memset(g, 0, sizeof(*g));
	snprintf(rel, sizeof(rel), "harness/test/data/families/%s.bin", name);
	nx_test_source_path(path, sizeof(path), rel);
	ck_assert_msg(nx_test_read_file(path, &g->data, &len, &err) == 0, "%s", err.msg);
	memcpy(head, g->data, sizeof(head));
	ck_assert(memcmp(g->data, "NXFA", 4) == 0 && head[1] == 1 && head[3] <= 4);
	g->vocab = (int32_t)head[2];
	g->n = (int32_t)head[3];
	g->set.n = g->n;
	g->set.reqs = calloc((size_t)g->n, sizeof(*g->set.reqs));
	ck_assert_ptr_nonnull(g->set.reqs);
	const uint8_t *p = g->data + sizeof(head);
	for (int32_t i = 0; i < g->n; i++) {
		memcpy(pn, p, sizeof(pn));
		p += sizeof(pn);
		ck_assert(i == 0 || g->n_out == (int32_t)pn[1]);
		g->n_out = (int32_t)pn[1];
		g->set.reqs[i] = (struct nx_request){.id = (uint32_t)i,
		                                     .prompt = (const int32_t *)(const void *)p,
		                                     .n_prompt = (int32_t)pn[0],
		                                     .max_out = (int32_t)pn[1],
		                                     .samples = 1,
		                                     .ignore_eos = true,
		                                     .sampler = {.top_p = 1}};
		g->out[i] = g->set.reqs[i].prompt + pn[0];
		p += 4 * ((size_t)pn[0] + pn[1]);
		g->logits[i] = (const float *)(const void *)p;
		p += 4 * (size_t)pn[1] * (size_t)g->vocab;
	}
	ck_assert(p == g->data + len);
}

static void golden_close(struct golden *g)
{
	free(g->set.reqs);
	free(g->data);
}

/* Runs the prompts under a stack and compares. Returns the worst logit, relative to the position's largest. */
static double compare(const struct fixture *f, const char *name, const char *spec,
                      const struct golden *g)
{
	struct nx_err err = {0};
	struct outcome o;
	double worst = 0;
	struct run_options opt = {.batch_size = 2, .plan_ahead = true, .invariant = true};
	ck_assert_int_eq(nx_model_shape(f->model)->vocab, g->vocab);
	outcome_init(&o, f, g->n, 1, g->n_out, true);
	ck_assert_msg(run_stack(f, spec, &g->set, &opt, &o, &err) == 0, "%s, %s: %s", name, spec,
	              err.msg);
	for (int32_t i = 0; i < g->n; i++) {
		ck_assert_int_eq(o.n_out[i], g->n_out);
		for (int32_t k = 0; k < g->n_out; k++) {
			const size_t at = ((size_t)i * (size_t)g->n_out + (size_t)k);
			const float *got = o.logits + at * (size_t)g->vocab;
			const float *want = g->logits[i] + (size_t)k * (size_t)g->vocab;
			double top = 0, off = 0;
			for (int32_t t = 0; t < g->vocab; t++) {
				top = fmax(top, fabs((double)want[t]));
				off = fmax(off, fabs((double)want[t] - (double)got[t]));
			}
			worst = fmax(worst, off / top);
			ck_assert_msg(off <= TOLERANCE * top,
			              "%s, %s: prompt %d, output %d: a logit is %g off of %g", name,
			              spec, i, k, off, top);
			ck_assert_msg(o.tokens[at] == g->out[i][k],
			              "%s, %s: prompt %d, output %d is %d, not %d", name, spec, i,
			              k, o.tokens[at], g->out[i][k]);
		}
	}
	outcome_release(&o);
	return worst;
}

/* _i: family, source and kernels. */
START_TEST(logits_and_tokens_are_those_of_transformers)
{
	const char *name = families[_i / 4], *isa = _i % 2 ? "ref" : "auto";
	char path[512];
	struct fixture f;
	struct golden g;
	golden_open(&g, name);
	model_path(path, sizeof(path), name, _i / 2 % 2);
	fixture_open_model(&f, path, "cpu", NX_F32, isa, true, 1);
	double worst = compare(&f, name, "", &g);
	if (getenv("NEXUS_TEST_LONG"))
		fprintf(stderr, "%s, %s: %.3g\n", path, isa, worst);
	fixture_close(&f);
	golden_close(&g);
}
END_TEST

/* Biases and norms go through every layout, codec and device like anything else. */
START_TEST(families_stack_like_any_model)
{
	static const char *const stacks[] = {
		"no_cache",
		"continuous_batching,paged_attention:block_size=4,flash_attention:kv_chunk=16",
	};
	static const char *const names[] = {"qwen2", "qwen3"};
	char path[512];
	struct fixture f;
	struct golden g;
	const char *name = names[_i];
	golden_open(&g, name);
	model_path(path, sizeof(path), name, false);
	fixture_open_model(&f, path, "cpu", NX_F32, "auto", true, 2);
	for (size_t i = 0; i < sizeof(stacks) / sizeof(stacks[0]); i++)
		compare(&f, name, stacks[i], &g);
	fixture_close(&f);
	fixture_open_model(&f, path, "late", NX_F32, "auto", true, 1);
	compare(&f, name, stacks[1], &g);
	fixture_close(&f);
	golden_close(&g);
}
END_TEST

START_TEST(both_sources_give_one_model)
{
	char path[512];
	struct nx_err err = {0};
	struct nx_model *m[2];
	for (int i = 0; i < 2; i++) {
		model_path(path, sizeof(path), families[_i], i);
		ck_assert_msg(nx_model_open(&m[i], path, &err) == 0, "%s", err.msg);
	}
	const struct nx_shape *a = nx_model_shape(m[0]), *b = nx_model_shape(m[1]);
	ck_assert(a->n_layers == b->n_layers && a->d_model == b->d_model &&
	          a->n_heads == b->n_heads && a->n_kv_heads == b->n_kv_heads &&
	          a->head_dim == b->head_dim && a->d_ff == b->d_ff && a->vocab == b->vocab &&
	          a->ctx_len == b->ctx_len && a->window == b->window && a->tied == b->tied &&
	          a->qkv_bias == b->qkv_bias && a->qk_norm == b->qk_norm &&
	          a->rope_dim == b->rope_dim && a->rope_theta == b->rope_theta &&
	          a->norm_eps == b->norm_eps);
	ck_assert_int_eq(nx_model_n_params(m[0]), nx_model_n_params(m[1]));
	ck_assert_str_eq(nx_model_file_type(m[0]), nx_model_file_type(m[1]));
	for (int32_t i = 0; i < a->rope_dim / 2; i++)
		ck_assert_float_eq_tol(nx_model_inv_freq(m[0])[i], nx_model_inv_freq(m[1])[i],
		                       2e-7f * nx_model_inv_freq(m[0])[i]);
	for (int id = 0; id < NX_W_COUNT; id++) {
		const int64_t rows = nx_weight_rows(a, (enum nx_weight_id)id),
			      cols = nx_weight_cols(a, (enum nx_weight_id)id);
		const size_t n = (size_t)(rows * cols);
		float *x = malloc((n + 1) * sizeof(*x)), *y = malloc((n + 1) * sizeof(*y));
		ck_assert(x && y);
		for (int32_t l = 0;
		     rows && l < (nx_weight_is_layered((enum nx_weight_id)id) ? a->n_layers : 1);
		     l++) {
			ck_assert_int_eq(
				nx_model_rows(m[0], (enum nx_weight_id)id, l, 0, rows, x, &err), 0);
			ck_assert_int_eq(
				nx_model_rows(m[1], (enum nx_weight_id)id, l, 0, rows, y, &err), 0);
			ck_assert_msg(!memcmp(x, y, n * sizeof(*x)), "%s: weight %d, layer %d",
			              families[_i], id, l);
		}
		free(x);
		free(y);
	}
	nx_model_close(m[0]);
	nx_model_close(m[1]);
}
END_TEST

START_TEST(a_sliding_window_ends_the_context)
{
	char path[512], text[96];
	struct nx_err err = {0};
	struct fixture f;
	struct nx_engine *e = NULL;
	struct nx_stack stack = {0};
	model_path(path, sizeof(path), "mistral", false);
	fixture_open_model(&f, path, "cpu", NX_F32, "ref", true, 1);
	const struct nx_shape *s = nx_model_shape(f.model);
	ck_assert_int_eq(s->window, 25);
	ck_assert_int_eq(s->ctx_len, 25);
	ck_assert_str_eq(nx_context_text(s, text, sizeof(text)),
	                 "25 (its sliding window: attention beyond that is not computed)");
	const struct nx_engine_config ec = {.weights = f.weights,
	                                    .stack = &stack,
	                                    .batch_size = 1,
	                                    .samples = 1,
	                                    .max_len = 26};
	ck_assert_int_eq(nx_engine_create(&e, &ec, &err), NX_EINVAL);
	ck_assert_msg(strstr(err.msg, "over the model's context of 25 (its sliding window"), "%s",
	              err.msg);
	fixture_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("families");
	TCase *tc = tcase_create("families");
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, logits_and_tokens_are_those_of_transformers, 0, 4 * N_FAMILIES);
	tcase_add_loop_test(tc, families_stack_like_any_model, 0, 2);
	tcase_add_loop_test(tc, both_sources_give_one_model, 0, N_FAMILIES);
	tcase_add_test(tc, a_sliding_window_ends_the_context);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
