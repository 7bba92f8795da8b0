/* SPDX-License-Identifier: Apache-2.0
 *
 * test_counted.c: counted work of a step in which a drafter with layers of its own drafts, against what the shapes say
 * by hand; exactly on the CPU, and on a device whose host does not know lengths (the late device, blind, or
 * NEXUS_TEST_DEVICE) as near as the plan's bounds are.
 *
 * One request, greedy, without pauses: all that draft_tree and the target see is known from the length alone.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"
#include "plugins/draft_tree.h"
#include "tiny_model.h"

enum { PROMPT = 96, OUT = 100, WIDTH = 3, PROBES = 1, DRAFTED = 2 * WIDTH + PROBES, N_LAYERS = 2 };

struct work {
	double kv, products, attention;
};

struct watch {
	const struct nx_device *dev;
	double tolerance; /* 0 = exact */
	int32_t len;      /* of the target's rows, before the step at hand */
	int32_t group;    /* of the drafter's */
	int32_t n_drafting, n_accepted;
	struct nx_counted last;
};

static double product(double m, double n, double k)
{
	return 2 * m * n * k;
}

/* read: keys, once a segment; written: rows; pairs: of row and key. */
static void attend(struct work *w, double layers, double heads, double kv_heads, double dim,
                   double read, double written, double pairs)
{
	w->kv += layers * (read + written) * 2 * kv_heads * dim * sizeof(float);
	w->attention += layers * 4 * pairs * heads * dim;
}

static void target(struct work *w, double rows, double logits, double read, double written,
                   double pairs)
{
	w->products += N_LAYERS * (product(rows, 128, 64) + product(rows, 64, 64) +
	                           product(rows, 192, 64) + product(rows, 64, 96));
	w->products += product(logits, 320, 64);
	attend(w, N_LAYERS, 4, 2, 16, read, written, pairs);
}

/* The drafter's layer over some rows. */
static void own(struct work *w, double rows, double read, double written, double pairs)
{
	w->products += product(rows, TREE_HIDDEN, 64 + TREE_HIDDEN) +
	               product(rows, (TREE_HEADS + 2 * TREE_KV_HEADS) * TREE_DIM, TREE_HIDDEN) +
	               product(rows, TREE_HIDDEN, TREE_HEADS * TREE_DIM);
	attend(w, 1, TREE_HEADS, TREE_KV_HEADS, TREE_DIM, read, written, pairs);
}

static double triangle(double n)
{
	return n * (n + 1) / 2;
}

static struct work of_prompt(void)
{
	struct work w = {0};
	target(&w, PROMPT, 1, PROMPT, PROMPT, triangle(PROMPT));
	w.products += product(PROMPT, TREE_HIDDEN, 2 * 64);
	own(&w, PROMPT, PROMPT, PROMPT, triangle(PROMPT));
	return w;
}

static struct work of_round(const struct watch *s, int32_t accepted)
{
	struct work w = {0};
	double L = s->len, have = s->group, each = DRAFTED + 2, real = L - have + 1;
	/* What became known since, then rows that see what is there and write nothing. */
	w.products += product(each, TREE_HIDDEN, 2 * 64);
	own(&w, each, L + 1, real, triangle(have + real) - triangle(have) + (each - real) * have);
	/* Children of the root; logits of it and of them. */
	own(&w, WIDTH, L + 1 + WIDTH, WIDTH, WIDTH * (L + 2));
	w.products += product(1 + WIDTH, 320, TREE_HIDDEN);
	/* Drafted rows see the root's keys and their ancestors: depths 1, 2, and 3 for the probe. */
	target(&w, 1 + DRAFTED, 1 + DRAFTED, L + 1 + DRAFTED, 1 + DRAFTED,
	       (1 + DRAFTED) * (L + 1) + WIDTH * 1 + WIDTH * 2 + PROBES * 3);
	/* The accepted rows move: K and V, read and written. */
	w.kv += N_LAYERS * accepted * 4.0 * 2 * 16 * sizeof(float);
	return w;
}

static void near(const char *what, double got, double want, double tolerance)
{
	ck_assert_msg(fabs(got - want) <= tolerance * want, "%s: %.0f counted, %.0f by hand", what,
	              got, want);
}

static void on_step(void *ctx, const struct nx_step_info *s)
{
	struct watch *w = ctx;
	struct nx_counted now;
	int32_t accepted = s->n_accepted;
	w->dev->ops->counted(w->dev->dev, &now);
	double kv = (double)(now.kv_bytes - w->last.kv_bytes),
	       flops = (double)(now.flops - w->last.flops);
	w->last = now;
	bool prompt = s->phase == NX_PHASE_PREFILL;
	if (prompt || s->rows[NX_ROW_CANDIDATE] == DRAFTED) {
		struct work hand = prompt ? of_prompt() : of_round(w, accepted);
		near("KV", kv, hand.kv, w->tolerance);
		/* Products are known on any host: all that is off is attention's. */
		near("attention", flops - hand.products, hand.attention, 2 * w->tolerance);
		w->n_drafting += !prompt;
	}
	w->n_accepted += accepted;
	w->len = prompt ? PROMPT : w->len + 1 + accepted;
	/* It ends with the last root. */
	w->group = prompt ? PROMPT : w->len - accepted;
}

static void run(const char *device, const char *spec, double tolerance)
{
	struct nx_err err = {0};
	struct fixture f;
	struct test_stack st;
	struct request_set reqs;
	struct nx_engine *e = NULL;
	fixture_open_on(&f, device, NX_F32, "auto", true, 1);
	requests_make(&reqs, &f, 1, PROMPT, PROMPT, OUT, OUT, 1, 0, 5);
	test_stack_make(&st, &f, spec);
	struct nx_engine_config cfg = {.weights = f.weights,
	                               .stack = &st.stack,
	                               .batch_size = 1,
	                               .samples = 1,
	                               .longest_request = PROMPT + OUT,
	                               .invariant = true,
	                               .check = true};
	ck_assert_msg(!nx_engine_create(&e, &cfg, &err), "%s: %s", spec, err.msg);
	struct watch w = {.dev = &f.dev, .tolerance = tolerance};
	f.dev.ops->counted(f.dev.dev, &w.last);
	const struct nx_sink sink = {.ctx = &w, .step = on_step};
	ck_assert_msg(!nx_engine_run(e, reqs.reqs, 1, &sink, &err), "%s: %s", spec, err.msg);
	ck_assert_int_gt(w.n_drafting, 8);
	ck_assert_int_gt(w.n_accepted, 0);
	nx_engine_destroy(e);
	requests_release(&reqs);
	fixture_close(&f);
}

#define TREE "draft_tree:width=3:probes=1:pause=0"

START_TEST(a_host_that_knows_lengths_counts_exactly)
{
	run("cpu", TREE, 0);
	run("cpu", TREE ",flash_attention", 0);
	run("cpu", TREE ",paged_attention:block_size=16,continuous_batching", 0);
}
END_TEST

/* Without the drafter's share a fifth would be missing. */
START_TEST(one_that_does_not_counts_nearly_so)
{
	const char *device = getenv("NEXUS_TEST_DEVICE");
	bool late = !device || !*device;
	setenv("NEXUS_LATE_BLIND", "1", 1);
	device = late ? "late" : device;
	run(device, TREE, 0.02);
	run(device, TREE ",flash_attention", 0.02);
	run(device, TREE ",paged_attention:block_size=16,continuous_batching", 0.02);
	if (late) /* replayed graphs, whose hooks are not called */
		run(device, TREE ",cuda_graph:max_graphs=4:key_bucket=16", 0.02);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("counted");
	TCase *t = tcase_create("counted");
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_host_that_knows_lengths_counts_exactly);
	tcase_add_test(t, one_that_does_not_counts_nearly_so);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
