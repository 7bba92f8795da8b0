/* SPDX-License-Identifier: Apache-2.0
 *
 * test/stack_axes.c: see stack_axes.h.
 */
#include "stack_axes.h"

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parameters force joins, sharing, preemption, chunks, groups that end in the middle of drafts. */
static const char *const schedules[] = {
	"",
	"continuous_batching",
	"continuous_batching:policy=priority",
	"continuous_batching:policy=shortest:max_batch_size=3",
	"continuous_batching:policy=longest_prefix:max_batch_size=3:max_skips=2",
	"schedule_random:chunk=9:skip=0.2",
	"schedule_random:seed=7:chunk=40:victim=any",
	NULL,
};
static const char *const layouts[] = {
	"",
	"no_cache",
	"kv_cache:reserve=exact",
	"paged_attention:block_size=16",
	"paged_attention:block_size=8:num_blocks=40",
	"paged_attention:block_size=4:num_blocks=60:preempt=swap",
	"paged_attention:block_size=1:num_blocks=240:preempt=swap",
	"paged_attention:block_size=7:num_blocks=34:preempt=swap:swap_blocks=12",
	"kv_sinks:sinks=5:window=13",
	NULL,
};
static const char *const numerics[] = {
	"",
	"flash_attention:kv_chunk=16",
	"flash_attention",
	"codec_row",
	"codec_group:window=4",
	"codec_group:window=8:bits=4",
	"quantized_kv",
	"quantized_kv:type=int4,flash_attention:kv_chunk=16",
	"quantized_kv:type=kivi2:residual_length=16,flash_attention",
	NULL,
};
static const char *const prefixes[] = {
	"",
	"prefix_donor",
	"prefix_donor:block_size=4:max_entries=9",
	"prefix_cache",
	"prefix_cache:block_size=4:max_entries=9:eviction_policy=lfu",
	"radix_prefix_cache",
	"radix_prefix_cache:block_size=3:max_tokens=40:eviction_policy=lfu",
	NULL,
};
static const char *const drafts[] = {"",
                                     "prompt_lookup:num_tokens=4:ngram_max=3",
                                     "prompt_lookup:num_tokens=9:ngram_min=1:ngram_max=1",
                                     "draft_tree",
                                     "draft_tree:width=2:probes=0:pause=0:quit=6",
                                     "draft_noise:sampled=true:reduced=true",
                                     "draft_noise:sampled=true:shape=tree:rows=7",
                                     "draft_noise:sampled=false:shape=siblings",
                                     "draft_oracle:hit=0.8:pause=0.1",
                                     "draft_oracle:shape=tree:rows=9:quit=12",
                                     NULL};
static const char *const weights[] = {"",
                                      "weight_int8",
                                      "weight_quant",
                                      "weight_quant:type=int4:group_size=16:lm_head=true",
                                      "weight_quant:type=fp8:down=false",
                                      "weight_quant:type=int4:activations=int8",
                                      NULL};

static const char *const *const axes[] = {
	[AXIS_SCHEDULE] = schedules, [AXIS_LAYOUT] = layouts, [AXIS_NUMERICS] = numerics,
	[AXIS_PREFIX] = prefixes,    [AXIS_DRAFT] = drafts,   [AXIS_WEIGHTS] = weights};

const char *axis_entry(enum axis a, int i)
{
	int n = 0;
	while (axes[a][n])
		n++;
	return i < n ? axes[a][i] : NULL;
}

static int size_of(int a)
{
	int n = 0;
	while (axes[a][n])
		n++;
	return n;
}

static bool next(struct stack_choice *c)
{
	for (int a = 0; a < AXIS_COUNT; a++) {
		if (++c->at[a] < size_of(a))
			return true;
		c->at[a] = 0;
	}
	return false;
}

static bool same_technique(const char *a, const char *b)
{
	size_t n = strcspn(a, ":");
	return n == strcspn(b, ":") && strncmp(a, b, n) == 0;
}

/* No earlier entry of an axis has the same technique. */
static bool all_firsts(const struct stack_choice *c)
{
	for (int a = 0; a < AXIS_COUNT; a++)
		for (int i = 0; i < c->at[a]; i++)
			if (same_technique(axes[a][i], axes[a][c->at[a]]))
				return false;
	return true;
}

size_t stacks_all(struct stack_choice **out, bool firsts, stack_legal_fn legal, void *ctx)
{
	struct stack_choice c = {{0}};
	size_t n = 0, most = 1;
	for (int a = 0; a < AXIS_COUNT; a++)
		most *= (size_t)size_of(a);
	*out = malloc(most * sizeof(**out));
	ck_assert_ptr_nonnull(*out);
	do {
		if ((!firsts || all_firsts(&c)) && (!legal || legal(ctx, &c)))
			(*out)[n++] = c;
	} while (next(&c));
	return n;
}

#define MOST 64 /* entries of an axis */
#define N_PAIRS (AXIS_COUNT * (AXIS_COUNT - 1) / 2)
static bool covered[AXIS_COUNT][AXIS_COUNT][MOST][MOST];

static int gain(const struct stack_choice *c, bool mark)
{
	int n = 0;
	for (int a = 0; a < AXIS_COUNT; a++)
		for (int b = a + 1; b < AXIS_COUNT; b++) {
			bool *done = &covered[a][b][c->at[a]][c->at[b]];
			n += !*done;
			if (mark)
				*done = true;
		}
	return n;
}

/* Greedy: the stack that covers most new pairs comes next, until none is left that a legal stack has. What a stack
 * would cover only shrinks, so one pass for each number of pairs finds them all. Only a stack that is about to be
 * taken is asked whether it is legal: there are thousands. */
size_t stacks_pairwise(struct stack_choice **out, stack_legal_fn legal, void *ctx)
{
	struct stack_choice *all;
	size_t n_all = stacks_all(&all, false, NULL, NULL), n = 0;
	/* What a stack covered when it was last looked at: never less than what it covers now. */
	int8_t *seen = malloc(n_all);
	memset(covered, 0, sizeof(covered));
	*out = malloc(n_all * sizeof(**out));
	ck_assert(*out && seen);
	memset(seen, INT8_MAX, n_all);
	for (int most = N_PAIRS; most > 0; most--)
		for (size_t i = 0; i < n_all; i++) {
			if (seen[i] < most)
				continue;
			seen[i] = (int8_t)gain(&all[i], false);
			if (seen[i] < most)
				continue;
			seen[i] = 0;
			if (legal(ctx, &all[i])) {
				gain(&all[i], true);
				(*out)[n++] = all[i];
			}
		}
	free(seen);
	free(all);
	return n;
}

void stack_spec(char *buf, size_t size, const struct stack_choice *c, unsigned mask)
{
	buf[0] = '\0';
	for (int a = 0; a < AXIS_COUNT; a++) {
		const char *e = axes[a][c->at[a]];
		size_t at = strlen(buf);
		if ((mask & 1u << a) && *e)
			snprintf(buf + at, size - at, "%s%s", at ? "," : "", e);
	}
}

unsigned stack_reference_mask(const struct stack_choice *c)
{
	unsigned mask = 1u << AXIS_NUMERICS | 1u << AXIS_WEIGHTS;
	/* A layout that drops rows changes what a row sees. */
	if (strncmp(layouts[c->at[AXIS_LAYOUT]], "kv_sinks", 8) == 0)
		mask |= 1u << AXIS_LAYOUT;
	return mask;
}

bool stack_draws_drafts(const struct stack_choice *c)
{
	const char *d = drafts[c->at[AXIS_DRAFT]];
	return strncmp(d, "draft_tree", 10) == 0 ||
	       (strncmp(d, "draft_noise", 11) == 0 && strstr(d, "sampled=true"));
}
