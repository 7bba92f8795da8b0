/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_engine.c: what the engine does beside giving the right tokens (test_stacks.c): padding, reservation,
 * workspace, refusals.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"

static struct fixture fx;

static void open_f32(void)
{
	fixture_open(&fx, NX_F32, "auto", true, 2);
}

static void close_it(void)
{
	fixture_close(&fx);
}

START_TEST(samples_of_one_prompt_differ_from_each_other)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	requests_make(&reqs, &fx, 2, 20, 20, 16, 16, 4, 1.0f, 3);
	outcome_init(&o, &fx, 2, 4, 16, false);
	struct run_options opt = {.batch_size = 2, .invariant = true};
	ck_assert_msg(run_stack(&fx, "paged_attention", &reqs, &opt, &o, &err) == 0, "%s", err.msg);
	for (int i = 0; i < 4; i++)
		for (int j = 0; j < i; j++)
			ck_assert_int_ne(
				memcmp(o.tokens + i * 16, o.tokens + j * 16, 16 * sizeof(int32_t)),
				0);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

START_TEST(static_batching_computes_its_padding)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	int64_t real = 0;
	requests_make(&reqs, &fx, 8, 10, 50, 5, 25, 1, 0, 11);
	for (int i = 0; i < 8; i++)
		real += reqs.reqs[i].n_prompt + reqs.reqs[i].max_out - 1;
	outcome_init(&o, &fx, 8, 1, 25, false);
	struct run_options opt = {.batch_size = 4, .invariant = true};
	ck_assert_msg(run_stack(&fx, "", &reqs, &opt, &o, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(o.rows[NX_ROW_COMMIT], real);
	/* Two batches of 4: prompts padded to the longest, finished ones carried to the end. */
	int64_t pad = 0;
	for (int b = 0; b < 2; b++) {
		int32_t longest = 0, most = 0;
		for (int i = 0; i < 4; i++) {
			const struct nx_request *r = &reqs.reqs[4 * b + i];
			if (r->n_prompt > longest)
				longest = r->n_prompt;
			if (r->max_out > most)
				most = r->max_out;
		}
		for (int i = 0; i < 4; i++) {
			const struct nx_request *r = &reqs.reqs[4 * b + i];
			pad += longest - r->n_prompt + most - r->max_out;
		}
	}
	ck_assert_int_eq(o.rows[NX_ROW_PAD], pad);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

START_TEST(no_cache_computes_every_prefix_again)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	int64_t rows = 0;
	requests_make(&reqs, &fx, 3, 10, 20, 5, 9, 1, 0, 12);
	for (int i = 0; i < 3; i++)
		for (int t = 0; t < reqs.reqs[i].max_out; t++)
			rows += reqs.reqs[i].n_prompt + t;
	outcome_init(&o, &fx, 3, 1, 9, false);
	struct run_options opt = {.batch_size = 1, .invariant = true};
	ck_assert_msg(run_stack(&fx, "no_cache", &reqs, &opt, &o, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(o.rows[NX_ROW_COMMIT], rows);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

START_TEST(paging_holds_less_than_reserving)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome max, exact, paged;
	requests_make(&reqs, &fx, 12, 10, 40, 5, 25, 1, 0, 13);
	struct run_options opt = {.batch_size = 6, .invariant = true};
	outcome_init(&max, &fx, 12, 1, 25, false);
	outcome_init(&exact, &fx, 12, 1, 25, false);
	outcome_init(&paged, &fx, 12, 1, 25, false);
	ck_assert_int_eq(run_stack(&fx, "continuous_batching", &reqs, &opt, &max, &err), 0);
	ck_assert_int_eq(run_stack(&fx, "continuous_batching,kv_cache:reserve=exact", &reqs, &opt,
	                           &exact, &err),
	                 0);
	ck_assert_int_eq(run_stack(&fx, "continuous_batching,paged_attention:block_size=4", &reqs,
	                           &opt, &paged, &err),
	                 0);
	ck_assert_int_eq(max.kv_held_peak, 6 * nx_model_shape(fx.model)->ctx_len);
	ck_assert_int_lt(exact.kv_held_peak, max.kv_held_peak);
	ck_assert_int_lt(paged.kv_held_peak, exact.kv_held_peak);
	outcome_release(&max);
	outcome_release(&exact);
	outcome_release(&paged);
	requests_release(&reqs);
}
END_TEST

/* Bytes of attention workspace for one prompt of `len` tokens. */
static uint64_t workspace(const char *spec, int32_t len)
{
	struct test_stack st;
	struct nx_engine *e = NULL;
	struct nx_err err = {0};
	struct nx_mem_use mem[32];
	uint64_t bytes = 0;
	test_stack_make(&st, &fx, spec);
	struct nx_engine_config cfg = {.weights = fx.weights,
	                               .stack = &st.stack,
	                               .batch_size = 1,
	                               .samples = 1,
	                               .longest_request = len};
	ck_assert_msg(nx_engine_create(&e, &cfg, &err) == 0, "%s", err.msg);
	size_t n = nx_engine_memory(e, mem, 32);
	for (size_t i = 0; i < n; i++)
		if (strcmp(mem[i].owner, "workspace") == 0)
			bytes = mem[i].reserved_bytes;
	nx_engine_destroy(e);
	return bytes;
}

START_TEST(flash_attention_needs_workspace_linear_in_the_length)
{
	double plain = (double)workspace("", 256) / (double)workspace("", 64);
	uint64_t a = workspace("flash_attention:kv_chunk=16", 64),
		 b = workspace("flash_attention:kv_chunk=16", 256);
	ck_assert_double_ge(plain, 14); /* four times the length, sixteen times the scores */
	ck_assert_uint_gt(a, 0);
	ck_assert_double_le((double)b / (double)a, 4.5);
	ck_assert_uint_lt(b, workspace("", 256));
}
END_TEST

START_TEST(a_request_that_never_fits_is_one_sentence)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	requests_make(&reqs, &fx, 1, 100, 100, 20, 20, 1, 0, 1);
	outcome_init(&o, &fx, 1, 1, 20, false);
	struct run_options opt = {.batch_size = 1, .invariant = true};
	ck_assert_int_ne(
		run_stack(&fx, "paged_attention:block_size=16:num_blocks=3", &reqs, &opt, &o, &err),
		0);
	ck_assert_msg(strstr(err.msg, "num_blocks") || strstr(err.msg, "3 blocks"), "%s", err.msg);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

START_TEST(bad_requests_are_refused)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	requests_make(&reqs, &fx, 2, 5, 5, 3, 3, 1, 0, 1);
	outcome_init(&o, &fx, 2, 1, 3, false);
	struct run_options opt = {.batch_size = 1};
	reqs.space[2] = 100000;
	ck_assert_int_eq(run_stack(&fx, "", &reqs, &opt, &o, &err), NX_EINVAL);
	ck_assert_ptr_nonnull(strstr(err.msg, "token 100000 at 2"));
	reqs.space[2] = 1;
	reqs.reqs[1].n_prompt = 0;
	ck_assert_int_eq(run_stack(&fx, "", &reqs, &opt, &o, &err), NX_EINVAL);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

/* ---- turns of conversations ------------------------------------------------------------------- */

#define N_TURNS 12
/* Five conversations, of 3, 1, 4, 2 and 2 turns. */
static const uint32_t after[N_TURNS] = {0, 1, 2, 0, 0, 5, 6, 7, 0, 9, 0, 11};

struct turns {
	int32_t batch_size, in_flight, left[N_TURNS];
	uint64_t arrival_ns[N_TURNS], end_ns[N_TURNS];
	bool started[N_TURNS];
};

static void turn_starts(void *ctx, uint32_t r, uint64_t arrival_ns, uint64_t admitted_ns)
{
	struct turns *t = ctx;
	(void)admitted_ns;
	ck_assert(!t->started[r]);
	t->started[r] = true;
	t->arrival_ns[r] = arrival_ns;
	ck_assert_int_le(++t->in_flight, t->batch_size);
	if (after[r]) {
		ck_assert_int_eq(t->left[after[r] - 1], 0);
		ck_assert_uint_ge(arrival_ns, t->end_ns[after[r] - 1]);
	}
}

static void turn_ends(void *ctx, uint32_t r, uint32_t sample, enum nx_finish why,
                      int32_t n_preempted, uint64_t t_ns)
{
	struct turns *t = ctx;
	(void)sample, (void)why, (void)n_preempted;
	t->end_ns[r] = t_ns;
	if (--t->left[r] == 0)
		t->in_flight--;
}

static void run_turns(const char *spec, int32_t batch_size, int32_t samples, bool ahead)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct test_stack st;
	struct nx_engine *e = NULL;
	requests_make(&reqs, &fx, N_TURNS, 5, 20, 1, 12, samples, 0, 4);
	struct turns t = {.batch_size = batch_size};
	for (int i = 0; i < N_TURNS; i++) {
		reqs.reqs[i].after = after[i];
		t.left[i] = samples;
	}
	test_stack_make(&st, &fx, spec);
	struct nx_engine_config cfg = {.weights = fx.weights,
	                               .stack = &st.stack,
	                               .batch_size = batch_size,
	                               .samples = samples,
	                               .invariant = true,
	                               .plan_ahead = ahead,
	                               .check = true};
	const struct nx_sink sink = {.ctx = &t, .start = turn_starts, .finish = turn_ends};
	ck_assert_msg(nx_engine_create(&e, &cfg, &err) == 0, "%s", err.msg);
	for (int again = 0; again < 2; again++) {
		ck_assert_msg(nx_engine_run(e, reqs.reqs, N_TURNS, &sink, &err) == 0, "%s: %s",
		              spec, err.msg);
		for (int i = 0; i < N_TURNS; i++) {
			ck_assert(t.started[i] && !t.left[i]);
			/* A conversation goes on before another begins. */
			for (int k = 0; k < i; k++)
				ck_assert(t.arrival_ns[k] <= t.arrival_ns[i] ||
				          (after[k] && t.end_ns[after[k] - 1] > t.arrival_ns[i]));
		}
		for (int i = 0; i < N_TURNS; i++) {
			t.started[i] = false;
			t.left[i] = samples;
		}
		ck_assert_int_eq(t.in_flight, 0);
	}
	reqs.reqs[3].after = 4; /* itself */
	ck_assert_int_eq(nx_engine_run(e, reqs.reqs, N_TURNS, &sink, &err), NX_EINVAL);
	ck_assert_msg(strstr(err.msg, "request 3 waits for request 3 of the list") != NULL, "%s",
	              err.msg);
	nx_engine_destroy(e);
	requests_release(&reqs);
}

START_TEST(a_turn_arrives_when_the_one_before_it_is_done)
{
	for (int32_t batch = 1; batch <= 8; batch += batch < 3 ? 1 : 5) {
		run_turns("", batch, 1, false);
		run_turns("continuous_batching", batch, 1, false);
		run_turns("continuous_batching,paged_attention:block_size=4", batch, 2, false);
		run_turns("continuous_batching", batch, 1, true);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("engine");
	TCase *f32 = tcase_create("f32");
	tcase_add_checked_fixture(f32, open_f32, close_it);
	tcase_set_timeout(f32, 300);
	tcase_add_test(f32, samples_of_one_prompt_differ_from_each_other);
	tcase_add_test(f32, static_batching_computes_its_padding);
	tcase_add_test(f32, no_cache_computes_every_prefix_again);
	tcase_add_test(f32, paging_holds_less_than_reserving);
	tcase_add_test(f32, flash_attention_needs_workspace_linear_in_the_length);
	tcase_add_test(f32, a_request_that_never_fits_is_one_sentence);
	tcase_add_test(f32, bad_requests_are_refused);
	tcase_add_test(f32, a_turn_arrives_when_the_one_before_it_is_done);
	suite_add_tcase(s, f32);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
