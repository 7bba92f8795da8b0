/* SPDX-License-Identifier: Apache-2.0
 *
 * test/prefix_costs.c: what a prefix cache costs and saves, for whoever wants to know (NEXUS_TEST_COST): the hooks alone,
 * over a host that holds whatever it is asked to, and the whole engine on nano; see prefix_model.h.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/clock.h"
#include "engine_fixture.h"
#include "prefix_model.h"

#define TOKENS 2048
#define PROMPTS 30
#define TURNS 30

static int32_t any_hold(void *ctx, int32_t place, int32_t index)
{
	int32_t *next = ctx;
	(void)place;
	(void)index;
	return (*next)++;
}

static void any_release(void *ctx, int32_t block)
{
	(void)ctx;
	(void)block;
}

static bool any_idle(void *ctx, int32_t block)
{
	(void)ctx;
	(void)block;
	return true;
}

static void *any_alloc(void *ctx, enum nx_mem kind, size_t bytes)
{
	(void)ctx;
	(void)kind;
	return malloc(bytes);
}

static void any_free(void *ctx, enum nx_mem kind, void *p, size_t bytes)
{
	(void)ctx;
	(void)kind;
	(void)bytes;
	free(p);
}

static void keep_least(double *least, uint64_t since_ns)
{
	double ns = (double)(nx_now_ns() - since_ns);
	if (*least == 0 || ns < *least)
		*least = ns;
}

static void tell(const struct nx_technique *t, void *self, enum nx_event_kind kind, int32_t arg)
{
	const struct nx_seq_event e = {.kind = kind, .arg = arg};
	t->event(self, &e);
}

void pm_costs(const struct nx_technique *t, int32_t block_size)
{
	static int32_t tokens[PROMPTS][TOKENS + 1], blocks[TOKENS + 1];
	int32_t next = 0;
	void *self = NULL;
	struct nx_err err = {0};
	struct nx_value values[16] = {{0}};
	struct nx_prefix_geometry g;
	double hit = 0, miss = 0, publish = 0, retire = 0, evict = 0;
	uint32_t r = 1;
	const struct nx_host host = {.ctx = &next,
	                             .max_seqs = 4,
	                             .alloc = any_alloc,
	                             .free = any_free,
	                             .kv_hold = any_hold,
	                             .kv_release = any_release,
	                             .kv_idle = any_idle};
	const struct nx_prefix_limits l = {
		.block_size = block_size, .align = 1, .max_len = TOKENS + 1, .pool_rows = 1 << 16};
	for (int32_t i = 0; i < PROMPTS; i++)
		for (int32_t k = 0; k <= TOKENS; k++) {
			r = r * 1664525u + 1013904223u;
			tokens[i][k] = (int32_t)(r >> 8) % 32000;
		}
	for (int32_t i = 0; t->params[i].key; i++)
		ck_assert_int_eq(nx_param_default(&t->params[i], &values[i], &err), 0);
	ck_assert_int_eq(t->create(&self, &host, values, &err), 0);
	ck_assert_int_eq(t->prefix_geometry(self, &l, &g, &err), 0);
	for (int turn = 0; turn < TURNS; turn++) {
		t->reset(self);
		next = 0;
		for (int32_t i = 0; i < PROMPTS; i++) {
			const struct nx_prefix_rows rows = {.tokens = tokens[i], .n_rows = TOKENS};
			uint64_t at = nx_now_ns();
			int32_t n = t->prefix_match(self, tokens[i], TOKENS + 1, blocks);
			keep_least(&miss, at);
			ck_assert_int_eq(n, 0);
			tell(t, self, NX_EVENT_ADMIT, 0);
			at = nx_now_ns();
			t->prefix_publish(self, &rows);
			keep_least(&publish, at);
			at = nx_now_ns();
			tell(t, self, NX_EVENT_RETIRE, 0);
			keep_least(&retire, at);
		}
		for (int32_t i = 0; i < PROMPTS; i++) {
			uint64_t at = nx_now_ns();
			int32_t n = t->prefix_match(self, tokens[i], TOKENS + 1, blocks);
			keep_least(&hit, at);
			ck_assert_int_eq(n, TOKENS);
			tell(t, self, NX_EVENT_ADMIT, n);
			tell(t, self, NX_EVENT_RETIRE, 0);
		}
		uint64_t at = nx_now_ns();
		int64_t given = t->prefix_evict(self, 10 * TOKENS);
		keep_least(&evict, at);
		ck_assert_int_eq(given, 10 * TOKENS);
	}
	t->destroy(self);
	printf("%s, blocks of %d: a hit of %d tokens %.2f us, a miss %.2f us, publishing them %.2f us, "
	       "retirement %.2f us, eviction %.0f ns a block\n",
	       t->name, block_size, TOKENS, hit / 1e3, miss / 1e3, publish / 1e3, retire / 1e3,
	       evict / (10.0 * TOKENS / block_size));
}

/* ---- through the engine ------------------------------------------------------------------------- */

#define ROUNDS 15 /* odd */

/* Processor seconds of one run of the requests, from a cold start. One thread works, so other load on the machine
 * changes these less than it does the time of day. */
static double cpu_seconds(struct nx_engine *e, const struct nx_request *reqs, size_t n)
{
	struct nx_err err = {0};
	clock_t at = clock();
	ck_assert_msg(nx_engine_run(e, reqs, n, NULL, &err) == 0, "%s", err.msg);
	return (double)(clock() - at) / CLOCKS_PER_SEC;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static struct nx_engine *engine_of(const struct fixture *f, struct test_stack *st, const char *spec,
                                   int32_t batch, int32_t longest)
{
	struct nx_engine *e = NULL;
	struct nx_err err = {0};
	test_stack_make(st, f, spec);
	const struct nx_engine_config cfg = {.weights = f->weights,
	                                     .stack = &st->stack,
	                                     .batch_size = batch,
	                                     .samples = 1,
	                                     .longest_request = longest};
	ck_assert_msg(nx_engine_create(&e, &cfg, &err) == 0, "%s: %s", spec, err.msg);
	return e;
}

/* Nothing is shared: time with a cache over time without, of runs one after the other. */
static void cost_of_nothing(const struct fixture *f, const char *layout, const char *cache)
{
	enum { N = 8, PROMPT = 256, OUT = 64 };
	char with[256];
	struct request_set reqs;
	struct test_stack st[2];
	double ratio[ROUNDS];
	snprintf(with, sizeof(with), "%s,%s", layout, cache);
	requests_make(&reqs, f, N, PROMPT, PROMPT, OUT, OUT, 1, 0, 5);
	struct nx_engine *plain = engine_of(f, &st[0], layout, 4, PROMPT + OUT);
	struct nx_engine *cached = engine_of(f, &st[1], with, 4, PROMPT + OUT);
	for (int i = -1; i < ROUNDS; i++) { /* the first warms both */
		nx_engine_reset(plain);
		nx_engine_reset(cached);
		double a = i & 1 ? cpu_seconds(plain, reqs.reqs, N) : 0;
		double b = cpu_seconds(cached, reqs.reqs, N);
		if (a == 0)
			a = cpu_seconds(plain, reqs.reqs, N);
		if (i >= 0)
			ratio[i] = b / a;
	}
	qsort(ratio, ROUNDS, sizeof(*ratio), by_value);
	printf("nothing shared, %s: throughput with the cache / without %.3f (%.3f to %.3f)\n",
	       with, 1 / ratio[ROUNDS / 2], 1 / ratio[ROUNDS - 1], 1 / ratio[0]);
	nx_engine_destroy(plain);
	nx_engine_destroy(cached);
	requests_release(&reqs);
}

/* A prompt of 2,048 tokens, and a second one that begins with nine tenths of it: time to its first token over that of
 * the first. */
static void gain_of_a_hit(const struct fixture *f, const char *spec)
{
	struct request_set reqs;
	struct test_stack st;
	double ratio[ROUNDS];
	requests_make(&reqs, f, 2, TOKENS, TOKENS, 1, 1, 1, 0, 5);
	memcpy((int32_t *)(uintptr_t)reqs.reqs[1].prompt, reqs.reqs[0].prompt,
	       TOKENS * 9 / 10 * sizeof(int32_t));
	struct nx_engine *e = engine_of(f, &st, spec, 1, TOKENS + 1);
	for (int i = -1; i < ROUNDS; i++) {
		nx_engine_reset(e);
		double cold = cpu_seconds(e, &reqs.reqs[0], 1);
		double hit = cpu_seconds(e, &reqs.reqs[1], 1);
		if (i >= 0)
			ratio[i] = hit / cold;
	}
	qsort(ratio, ROUNDS, sizeof(*ratio), by_value);
	printf("90 %% of 2,048 tokens cached, %s: first token %.3f of the time (%.3f to %.3f)\n",
	       spec, ratio[ROUNDS / 2], ratio[0], ratio[ROUNDS - 1]);
	nx_engine_destroy(e);
	requests_release(&reqs);
}

void pm_engine_costs(void)
{
	static const char
		*const paged = "flash_attention,continuous_batching,paged_attention",
		       *const runs = "flash_attention,continuous_batching,kv_cache:reserve=exact";
	static const char *const hits[] = {
		"flash_attention,paged_attention,prefix_cache",
		"flash_attention,paged_attention,radix_prefix_cache",
		"flash_attention,paged_attention:block_size=1,radix_prefix_cache",
		"flash_attention,kv_cache:reserve=exact,prefix_cache",
		"flash_attention,kv_cache:reserve=exact,radix_prefix_cache"};
	struct fixture f;
	char path[512];
	const char *source = getenv("NEXUS_SOURCE");
	snprintf(path, sizeof(path), "%s/experiments/models/nano/nano.gguf", source ? source : ".");
	fixture_open_model(&f, path, "cpu", NX_BF16, "auto", false, 1);
	for (size_t i = 0; i < sizeof(hits) / sizeof(hits[0]); i++)
		gain_of_a_hit(&f, hits[i]);
	cost_of_nothing(&f, paged, "prefix_cache");
	cost_of_nothing(&f, paged, "radix_prefix_cache");
	cost_of_nothing(&f, runs, "prefix_cache");
	cost_of_nothing(&f, runs, "radix_prefix_cache");
	fixture_close(&f);
}
