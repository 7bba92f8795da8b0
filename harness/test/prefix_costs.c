/* SPDX-License-Identifier: Apache-2.0
 *
 * test/prefix_costs.c: what a prefix cache costs the host, for whoever wants to know (NEXUS_TEST_COST): the hooks alone,
 * over a host that holds whatever it is asked to; see prefix_model.h.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/clock.h"
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
