/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_prefix.c: what a prefix cache saves, over blocks and over contiguous runs, how it makes room, and what
 * a drafter gets back after a hit. That the tokens stay the same is test_stacks.c's.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"
#include "prefix_model.h"

static struct fixture fx;

static void open_it(void)
{
	fixture_open(&fx, NX_F32, "auto", true, 2);
}

static void close_it(void)
{
	fixture_close(&fx);
}

#define SHARED 40
#define OWN 7
#define OUT 5

/* n requests of SHARED + OWN tokens; the first SHARED are everybody's. */
static void chats(struct request_set *s, int32_t n)
{
	requests_make(s, &fx, n, SHARED + OWN, SHARED + OWN, OUT, OUT, 1, 0, 9);
	for (int32_t i = 1; i < n; i++)
		memcpy((int32_t *)(uintptr_t)s->reqs[i].prompt, s->reqs[0].prompt,
		       SHARED * sizeof(int32_t));
}

static void run(const char *spec, int32_t n, int32_t batch, struct outcome *o)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct run_options opt = {.batch_size = batch, .invariant = true};
	chats(&reqs, n);
	outcome_init(o, &fx, n, 1, OUT, false);
	ck_assert_msg(run_stack(&fx, spec, &reqs, &opt, o, &err) == 0, "%s: %s", spec, err.msg);
	ck_assert_int_eq(o->n_finished, n);
	requests_release(&reqs);
}

/* Every cache over every kind of layout and codec, and the block size that it has there. */
static const struct {
	const char *spec;
	int32_t block;
} stacks[] = {
	{"paged_attention:block_size=8,prefix_donor", 8},
	{"paged_attention:block_size=5,prefix_donor", 5},
	{"kv_cache:reserve=exact,prefix_donor:block_size=8", 8},
	{"prefix_donor:block_size=8", 8},
	{"paged_attention:block_size=8,prefix_donor,codec_group:window=8", 8},
	{"paged_attention:block_size=8,prefix_donor,codec_row", 8},
	{"paged_attention:block_size=1,prefix_cache", 1},
	{"paged_attention:block_size=8,prefix_cache", 8},
	{"paged_attention:block_size=16,prefix_cache", 16},
	{"kv_cache:reserve=exact,prefix_cache:block_size=8", 8},
	{"prefix_cache", 16},
	{"paged_attention:block_size=8,prefix_cache,codec_group:window=8", 8},
	{"prefix_cache:block_size=5,codec_group:window=4", 8},
	{"paged_attention:block_size=8,prefix_cache,codec_row", 8},
	{"paged_attention:block_size=1,radix_prefix_cache", 1},
	{"paged_attention:block_size=8,radix_prefix_cache", 8},
	{"paged_attention:block_size=16,radix_prefix_cache", 16},
	{"kv_cache:reserve=exact,radix_prefix_cache", 1},
	{"radix_prefix_cache:block_size=8", 8},
	{"paged_attention:block_size=8,radix_prefix_cache,codec_group:window=4", 8},
	{"radix_prefix_cache,codec_group:window=4", 4},
	{"radix_prefix_cache,codec_row", 1},
	{"schedule_random:chunk=9,paged_attention:block_size=8,prefix_cache", 8},
	{"schedule_random:chunk=9,radix_prefix_cache", 1},
};
#define N_STACKS ((int)(sizeof(stacks) / sizeof(stacks[0])))

/* The name of the technique that has the slot, with the layout in front of it. */
static const char *const caches[] = {"prefix_donor", "prefix_cache", "radix_prefix_cache"};
#define N_CACHES ((int)(sizeof(caches) / sizeof(caches[0])))

static const char *over(const char *layout, const char *cache)
{
	static char spec[256];
	snprintf(spec, sizeof(spec), "%s,%s", layout, cache);
	return spec;
}

static double counted(const char *cache, const char *counter)
{
	char name[128];
	snprintf(name, sizeof(name), "%s.%s", cache, counter);
	return last_counter(name);
}

/* One at a time: all but the first find the shared part, to the block. */
START_TEST(a_shared_prefix_is_computed_once)
{
	struct outcome o;
	int32_t n = 6, bs = stacks[_i].block, hit = SHARED / bs * bs;
	run(stacks[_i].spec, n, 1, &o);
	int64_t all = (int64_t)n * (SHARED + OWN + OUT - 1);
	ck_assert_int_eq(o.rows[NX_ROW_COMMIT], all - (int64_t)(n - 1) * hit);
	outcome_release(&o);
}
END_TEST

START_TEST(a_prompt_that_is_cached_whole_still_computes_one_token)
{
	struct nx_err err = {0};
	struct outcome o;
	struct request_set reqs;
	struct run_options opt = {.batch_size = 1, .invariant = true};
	chats(&reqs, 2);
	reqs.reqs[1].prompt = reqs.reqs[0].prompt;
	reqs.reqs[0].n_prompt = reqs.reqs[1].n_prompt = 40; /* five blocks, no rest */
	outcome_init(&o, &fx, 2, 1, OUT, false);
	ck_assert_msg(run_stack(&fx, over("paged_attention:block_size=8", caches[_i]), &reqs, &opt,
	                        &o, &err) == 0,
	              "%s", err.msg);
	ck_assert_int_eq(o.rows[NX_ROW_COMMIT], 2 * (40 + OUT - 1) - 32);
	ck_assert_int_eq(memcmp(o.tokens, o.tokens + OUT, OUT * sizeof(int32_t)), 0);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

/* The numerics of a stack without its cache: what every row has to be. */
static void reference_of(const char *spec, char *out, size_t size)
{
	const char *codec = strstr(spec, "codec_");
	snprintf(out, size, "%s", codec ? codec : "");
}

/* Rows that were found are those that would have been computed: so are all that are computed behind them. */
START_TEST(a_hit_and_a_miss_have_the_same_bits)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome want, got;
	char alone[128];
	int32_t n = 8;
	reference_of(stacks[_i].spec, alone, sizeof(alone));
	chats(&reqs, n);
	outcome_init(&want, &fx, n, 1, OUT, true);
	outcome_init(&got, &fx, n, 1, OUT, true);
	struct run_options one = {.batch_size = 1, .invariant = true},
			   few = {.batch_size = 3, .invariant = true};
	ck_assert_msg(run_stack(&fx, alone, &reqs, &one, &want, &err) == 0, "%s", err.msg);
	ck_assert_msg(run_stack(&fx, stacks[_i].spec, &reqs, &few, &got, &err) == 0, "%s: %s",
	              stacks[_i].spec, err.msg);
	ck_assert_int_lt(got.rows[NX_ROW_COMMIT], want.rows[NX_ROW_COMMIT]);
	ck_assert_int_eq(memcmp(want.tokens, got.tokens, (size_t)n * OUT * sizeof(int32_t)), 0);
	ck_assert_msg(memcmp(want.logits, got.logits,
	                     (size_t)n * OUT * (size_t)want.vocab * sizeof(float)) == 0,
	              "%s: logits of a hit are not those of a miss", stacks[_i].spec);
	outcome_release(&want);
	outcome_release(&got);
	requests_release(&reqs);
}
END_TEST

#define TURNS 4
#define ANSWER 20
#define QUESTION 9

/* Turn after turn, each prompt is the one before it, its answer and a new question: all but what is new is found, the
 * answer included, to the block. The answers are known from a run without a cache. */
START_TEST(a_conversation_finds_its_last_answer)
{
	static int32_t text[TURNS * (ANSWER + QUESTION)];
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	int32_t n_text = 0, bs = 4;
	int64_t computed = 0;
	struct run_options one = {.batch_size = 2, .invariant = true, .plan_ahead = true};
	requests_make(&reqs, &fx, TURNS, QUESTION, QUESTION, ANSWER, ANSWER, 1, 0, 77);
	for (int32_t i = 0; i < TURNS; i++) {
		struct nx_request *r = &reqs.reqs[i];
		memcpy(text + n_text, r->prompt, QUESTION * sizeof(*text));
		n_text += QUESTION;
		r->prompt = text;
		r->n_prompt = n_text;
		r->after = (uint32_t)i; /* request i - 1; 0 = none */
		int32_t n_reqs = reqs.n;
		reqs.n = i + 1;
		outcome_init(&o, &fx, TURNS, 1, ANSWER, false);
		ck_assert_msg(run_stack(&fx, "", &reqs, &one, &o, &err) == 0, "%s", err.msg);
		memcpy(text + n_text, o.tokens + (size_t)i * ANSWER, ANSWER * sizeof(*text));
		/* The last token of an answer is never computed: its row is the next prompt's. */
		int32_t had = i ? (n_text - QUESTION - 1) / bs * bs : 0;
		computed += n_text - had + ANSWER - 1;
		n_text += ANSWER;
		outcome_release(&o);
		reqs.n = n_reqs;
	}
	outcome_init(&o, &fx, TURNS, 1, ANSWER, false);
	ck_assert_msg(run_stack(&fx, over("paged_attention:block_size=4", caches[_i]), &reqs, &one,
	                        &o, &err) == 0,
	              "%s", err.msg);
	ck_assert_int_eq(o.rows[NX_ROW_COMMIT], computed);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

START_TEST(samples_of_one_prompt_leave_nothing_locked)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	struct run_options opt = {.batch_size = 3, .invariant = true};
	requests_make(&reqs, &fx, 9, 20, 60, 5, 20, 3, 0.9f, 5);
	requests_share(&reqs, 24);
	outcome_init(&o, &fx, 9, 3, 20, false);
	ck_assert_msg(run_stack(&fx,
	                        over("continuous_batching,paged_attention:block_size=4:num_blocks="
	                             "60:preempt=swap",
	                             caches[_i]),
	                        &reqs, &opt, &o, &err) == 0,
	              "%s", err.msg);
	ck_assert_int_eq(o.n_finished, 27);
	ck_assert_double_gt(counted(caches[_i], "hits"), 0);
	if (_i == 1)
		ck_assert_double_eq(counted(caches[_i], "in_use"), 0);
	if (_i == 2) {
		ck_assert_double_eq(counted(caches[_i], "locked_nodes"), 0);
		ck_assert_double_eq(counted(caches[_i], "protected_rows"), 0);
		ck_assert_double_eq(counted(caches[_i], "evictable_rows"),
		                    counted(caches[_i], "rows"));
	}
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

/* Two begin together with one text, and one ends at once: the other alone needs nearly all of the pool, and what the
 * first has left in it, which hangs above the other's own blocks, must not be in its way. */
START_TEST(blocks_that_were_computed_twice_are_not_kept_twice)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	struct run_options opt = {.batch_size = 2, .invariant = true};
	if (_i == 0)
		return; /* the tests' own cache falls into this one */
	requests_make(&reqs, &fx, 2, 40, 40, 40, 40, 1, 0, 31);
	reqs.reqs[1].prompt = reqs.reqs[0].prompt;
	reqs.reqs[0].max_out = 2;
	outcome_init(&o, &fx, 2, 1, 40, false);
	ck_assert_msg(run_stack(&fx,
	                        over("continuous_batching,paged_attention:block_size=4:num_blocks="
	                             "22",
	                             caches[_i]),
	                        &reqs, &opt, &o, &err) == 0,
	              "%s", err.msg);
	ck_assert_int_eq(o.n_preempted, 0);
	ck_assert_double_gt(counted(caches[_i], "taken_over"), 0);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

/* Two kinds of prompts in turn, a pool that keeps the prefix of one kind, one place and three that wait: in order of
 * arrival each finds what the other kind has left of its prefix; with the longest prefix first, nearly all of it. */
START_TEST(longest_prefix_first_finds_more)
{
	static const char *const policies[] = {"fcfs", "longest_prefix"};
	double rows[2];
	for (int k = 0; k < 2; k++) {
		struct nx_err err = {0};
		struct request_set reqs;
		struct outcome o;
		char spec[256];
		struct run_options opt = {.batch_size = 4, .invariant = true};
		requests_make(&reqs, &fx, 16, SHARED + OWN, SHARED + OWN, OUT, OUT, 1, 0, 9);
		for (int32_t i = 2; i < 16; i++)
			memcpy((int32_t *)(uintptr_t)reqs.reqs[i].prompt, reqs.reqs[i % 2].prompt,
			       SHARED * sizeof(int32_t));
		outcome_init(&o, &fx, 16, 1, OUT, false);
		snprintf(
			spec, sizeof(spec),
			"continuous_batching:policy=%s:max_batch_size=1,paged_attention:block_size="
			"4:num_blocks=16,%s",
			policies[k], caches[_i]);
		ck_assert_msg(run_stack(&fx, spec, &reqs, &opt, &o, &err) == 0, "%s", err.msg);
		ck_assert_int_eq(o.n_finished, 16);
		rows[k] = counted(caches[_i], "hit_rows");
		if (k)
			ck_assert_double_gt(last_counter("continuous_batching.overtaking"), 0);
		outcome_release(&o);
		requests_release(&reqs);
	}
	ck_assert_msg(rows[1] > 1.5 * rows[0], "%g rows, %g in order of arrival", rows[1], rows[0]);
}
END_TEST

/* The pool holds little more than one request: the cache has to give way, and everything still ends. */
START_TEST(a_cache_makes_room_under_pressure)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	struct run_options opt = {.batch_size = 4, .invariant = true};
	requests_make(&reqs, &fx, 12, 30, 60, 5, 20, 1, 0, 31);
	outcome_init(&o, &fx, 12, 1, 20, false);
	ck_assert_msg(run_stack(&fx,
	                        over("continuous_batching,paged_attention:block_size=4:num_blocks="
	                             "24",
	                             caches[_i]),
	                        &reqs, &opt, &o, &err) == 0,
	              "%s", err.msg);
	ck_assert_int_eq(o.n_finished, 12);
	ck_assert_double_gt(counted(caches[_i], "evicted"), 0);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

/* After a hit the drafter lacks the feature of the last row that was found: it is done again. */
START_TEST(a_drafter_gets_its_feature_back_after_a_hit)
{
	struct outcome o;
	run(over("draft_tree:pause=0,paged_attention:block_size=8", caches[_i]), 6, 1, &o);
	ck_assert_int_eq(o.rows[NX_ROW_REDO], 5);
	/* The drafter's own rows may trail: fewer blocks were shared than without it, but some were. */
	ck_assert_int_lt(o.rows[NX_ROW_COMMIT], 6 * (SHARED + OWN) + 1);
	outcome_release(&o);
}
END_TEST

/* A reset forgets everything: the start state of a trial. */
START_TEST(a_reset_engine_is_cold)
{
	struct test_stack st;
	struct nx_engine *e = NULL;
	struct nx_err err = {0};
	struct request_set reqs;
	test_stack_make(&st, &fx, over("paged_attention:block_size=8", caches[_i]));
	chats(&reqs, 3);
	struct nx_engine_config cfg = {.weights = fx.weights,
	                               .stack = &st.stack,
	                               .batch_size = 1,
	                               .samples = 1,
	                               .longest_request = SHARED + OWN + OUT,
	                               .check = true};
	ck_assert_msg(nx_engine_create(&e, &cfg, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(nx_engine_cold_check(e, &err), 0);
	ck_assert_msg(nx_engine_run(e, reqs.reqs, 3, NULL, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(nx_engine_idle_check(e, &err), 0);
	ck_assert_int_ne(nx_engine_cold_check(e, &err), 0);
	ck_assert_msg(strstr(err.msg, caches[_i]) != NULL, "%s", err.msg);
	nx_engine_reset(e);
	ck_assert_msg(nx_engine_cold_check(e, &err) == 0, "%s", err.msg);
	nx_engine_destroy(e);
	requests_release(&reqs);
}
END_TEST

/* Rows that a layout drops are gone from memory, and the output goes on. */
START_TEST(a_layout_that_drops_rows_holds_no_more_than_it_says)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome o;
	struct run_options opt = {.batch_size = 1, .invariant = true};
	requests_make(&reqs, &fx, 1, 20, 20, 120, 120, 1, 0, 8);
	outcome_init(&o, &fx, 1, 1, 120, false);
	ck_assert_msg(run_stack(&fx, "kv_sinks:sinks=4:window=16", &reqs, &opt, &o, &err) == 0,
	              "%s", err.msg);
	ck_assert_int_eq(o.n_out[0], 120);
	ck_assert_int_lt(o.kv_held_peak, 64);
	outcome_release(&o);
	requests_release(&reqs);
}
END_TEST

/* NEXUS_TEST_COST=1: for the READMEs of the caches. */
START_TEST(costs_are_told)
{
	pm_engine_costs();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("prefix");
	TCase *t = tcase_create("prefix");
	tcase_add_checked_fixture(t, open_it, close_it);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, a_shared_prefix_is_computed_once, 0, N_STACKS);
	tcase_add_loop_test(t, a_hit_and_a_miss_have_the_same_bits, 0, N_STACKS);
	tcase_add_loop_test(t, a_conversation_finds_its_last_answer, 0, N_CACHES);
	tcase_add_loop_test(t, longest_prefix_first_finds_more, 0, N_CACHES);
	tcase_add_loop_test(t, samples_of_one_prompt_leave_nothing_locked, 0, N_CACHES);
	tcase_add_loop_test(t, blocks_that_were_computed_twice_are_not_kept_twice, 0, N_CACHES);
	tcase_add_loop_test(t, a_prompt_that_is_cached_whole_still_computes_one_token, 0, N_CACHES);
	tcase_add_loop_test(t, a_cache_makes_room_under_pressure, 0, N_CACHES);
	tcase_add_loop_test(t, a_drafter_gets_its_feature_back_after_a_hit, 0, N_CACHES);
	tcase_add_loop_test(t, a_reset_engine_is_cold, 0, N_CACHES);
	tcase_add_test(t, a_layout_that_drops_rows_holds_no_more_than_it_says);
	if (getenv("NEXUS_TEST_COST")) {
		TCase *costs = tcase_create("costs");
		tcase_set_timeout(costs, 900);
		tcase_add_test(costs, costs_are_told);
		suite_add_tcase(s, costs);
	}
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
