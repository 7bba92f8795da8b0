/* SPDX-License-Identifier: Apache-2.0
 *
 * Sampled verification keeps the law: the first two tokens of a sequence, over both its rounds where the first one
 * gave but one, are distributed as p(a) p(b | a). The same chi-square finds each classic bug.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify_test.h"

enum { VOCAB = 50, BATCH = 500 };

/* A child that was chosen, drawn, drawn for a PROBE row, drawn with replacement. */
#define CHOSEN(parent, rank)                                                                       \
	{                                                                                          \
		parent, NX_Q_CERTAIN, rank, false, false                                           \
	}
#define DRAWN(parent, row)                                                                         \
	{                                                                                          \
		parent, row, 0, false, false                                                       \
	}
#define PROBE(parent, row)                                                                         \
	{                                                                                          \
		parent, row, 0, true, false                                                        \
	}
#define AGAIN(parent, row)                                                                         \
	{                                                                                          \
		parent, row, 0, false, true                                                        \
	}

static const struct {
	const char *name;
	int32_t n;
	struct node node[MAX_NODES];
} shapes[] = {
	{"chain of one", 1, {DRAWN(-1, 0)}},
	{"chain of three", 3, {DRAWN(-1, 0), DRAWN(0, 0), DRAWN(1, 0)}},
	{"siblings of one row", 3, {DRAWN(-1, 0), DRAWN(-1, 0), DRAWN(-1, 0)}},
	{"siblings of two rows", 3, {DRAWN(-1, 0), DRAWN(-1, 1), DRAWN(-1, 0)}},
	{"chosen", 5, {CHOSEN(-1, 0), CHOSEN(-1, 1), CHOSEN(0, 0), CHOSEN(0, 2), CHOSEN(1, 0)}},
	{"mixed", 5, {CHOSEN(-1, 1), DRAWN(-1, 0), CHOSEN(-1, 0), DRAWN(-1, 1), DRAWN(-1, 0)}},
	{"a probe among siblings", 3, {DRAWN(-1, 0), PROBE(-1, 0), DRAWN(-1, 0)}},
	{"siblings with replacement", 3, {DRAWN(-1, 0), AGAIN(-1, 0), AGAIN(-1, 0)}},
	{"tree",
         8,
         {DRAWN(-1, 0), DRAWN(-1, 0), DRAWN(0, 0), DRAWN(1, 1), DRAWN(0, 0), CHOSEN(1, 0),
          DRAWN(-1, 1), CHOSEN(6, 0)}},
};
#define N_SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

static const struct nx_sampler samplers[] = {
	{.temperature = 1, .top_p = 1, .seed = 1},
	{.temperature = 0.6f, .top_p = 1, .seed = 2},
	{.temperature = 1, .top_p = 1, .top_k = 7, .seed = 3},
	{.temperature = 1, .top_p = 0.8f, .seed = 4},
	{.temperature = 1.2f, .top_p = 1, .min_p = 0.1f, .seed = 5},
	{.temperature = 0.8f, .top_p = 0.9f, .min_p = 0.02f, .top_k = 20, .seed = 6, .sample = 3},
};
#define N_SAMPLERS ((int)(sizeof(samplers) / sizeof(samplers[0])))

/* What q is like: near p, one token too sure (where siblings and their coins matter most), a reduced vocabulary. */
static const struct {
	const char *name;
	float distance, spike;
	int32_t cols;
} worlds[] = {{"near", 1.5f, 0, 0}, {"spike", 1.5f, 4, 0}, {"reduced", 1.5f, 3, 44}};
#define N_WORLDS ((int)(sizeof(worlds) / sizeof(worlds[0])))

/* Test _i: all samplers in each world. */
static const char *open_case(struct world *w, int i)
{
	int kind = i / N_SAMPLERS;
	world_open(w, VOCAB, &samplers[i % N_SAMPLERS], worlds[kind].distance, worlds[kind].spike);
	if (worlds[kind].cols)
		world_reduce(w, worlds[kind].cols);
	return worlds[kind].name;
}

static int32_t draws(void)
{
	return getenv("NEXUS_TEST_LONG") ? 200000 : 5000;
}

struct counts {
	int64_t pair[VOCAB][VOCAB], n, accepted;
};

/* The first two tokens of n sequences; by the device, or (r NULL) naively with a bug. */
static void play(struct rig *r, const struct world *w, const struct node *shape, int32_t nodes,
                 enum bug bug, int32_t n, struct counts *c)
{
	struct trial t;
	memset(c, 0, sizeof(*c));
	trial_open(&t, VOCAB, BATCH, nodes);
	for (int32_t first = 0; first < n; first += BATCH) {
		world_draft(w, &t, shape, (uint32_t)first);
		if (r)
			rig_ok(r, r->ops->sample(r->dev, NULL, &t.a, &r->err));
		for (int32_t s = 0; s < BATCH; s++) {
			if (!r)
				world_decide(w, &t, s, bug);
			const int32_t *out = trial_out(&t, s);
			int32_t a = out[0], b = out[1];
			if (t.verdict.n_accepted[s] == 0)
				b = world_sample(w, &t.samplers[s], 1 + a, t.len[s] + 2);
			ck_assert(a >= 0 && a < VOCAB && b >= 0 && b < VOCAB);
			c->pair[a][b]++;
			c->accepted += t.verdict.n_accepted[s] > 0;
		}
		c->n += BATCH;
	}
	trial_close(&t);
}

struct fit {
	double chi, df;
};

static void add_cell(struct fit *f, double count, double want)
{
	f->chi += (count - want) * (count - want) / want;
	f->df++;
}

/* Pearson's statistic of single tokens, or of pairs; cells that expect fewer than 10 are one. What cannot be is
 * infinitely wrong. */
static struct fit fit_of(const struct world *w, const struct counts *c, bool pairs)
{
	struct fit f = {0, -1};
	double rest = 0, rest_want = 0;
	for (int32_t a = 0; a < VOCAB; a++)
		for (int32_t b = 0; b < (pairs ? VOCAB : 1); b++) {
			double want = w->p[a] * (double)c->n, count = 0;
			if (pairs)
				want *= w->p[(1 + a) * VOCAB + b];
			for (int32_t i = 0; i < VOCAB; i++)
				if (!pairs || i == b)
					count += (double)c->pair[a][i];
			if (want <= 0 && count > 0)
				return (struct fit){INFINITY, 1};
			if (want >= 10) {
				add_cell(&f, count, want);
			} else {
				rest += count;
				rest_want += want;
			}
		}
	if (rest_want >= 10)
		add_cell(&f, rest, rest_want);
	return f;
}

/* Quantile of chi-square at a normal deviate (Wilson and Hilferty). */
static double quantile(double df, double z)
{
	double t = 2 / (9 * df), x = 1 - t + z * sqrt(t);
	return df * x * x * x;
}

/* Six deviates: one fit in 1e9 is unlucky, and there are some 300. */
#define UNLUCKY 6
#define ONE_IN_1000 3.09

static void check_fits(const struct world *w, const struct counts *c, const char *what)
{
	for (int pairs = 0; pairs < 2; pairs++) {
		struct fit f = fit_of(w, c, pairs);
		if (getenv("NEXUS_TEST_SHOW"))
			printf("%-40s %s chi %.1f df %.0f (99.9 %%: %.1f) accepted %.3f\n", what,
			       pairs ? "pairs " : "tokens", f.chi, f.df,
			       quantile(f.df, ONE_IN_1000), (double)c->accepted / (double)c->n);
		ck_assert_msg(f.chi < quantile(f.df, UNLUCKY), "%s: chi-square of %s %g, df %g",
		              what, pairs ? "pairs" : "tokens", f.chi, f.df);
	}
}

static int best_isa(struct rig *r)
{
	int isa = N_ISAS - 1;
	while (!rig_open(r, isa, 1, false))
		isa--;
	return isa;
}

/* The fastest kernels and the reference take turns over the shapes. */
START_TEST(drafts_keep_the_law)
{
	struct counts *c = malloc(sizeof(*c));
	struct world w;
	const char *name = open_case(&w, _i);
	for (int i = 0; i < N_SHAPES; i++) {
		struct rig r;
		char what[96];
		if ((i + _i) % 4 == 0)
			ck_assert(rig_open(&r, 0, 1, false));
		else
			best_isa(&r);
		play(&r, &w, shapes[i].node, shapes[i].n, BUG_NONE, draws(), c);
		snprintf(what, sizeof(what), "%s %d, %s", name, _i % N_SAMPLERS, shapes[i].name);
		check_fits(&w, c, what);
		rig_close(&r);
	}
	world_close(&w);
	free(c);
}
END_TEST

static const struct {
	enum bug bug;
	const char *name;
	int shape, at; /* at: as for open_case() */
} bugs[] = {
	{BUG_RESIDUAL_IS_P, "residual is p", 0, 0},
	{BUG_RATIO_FOR_CHOSEN, "ratio for chosen children", 4, 0},
	{BUG_ACCEPT_ALL, "accept all", 0, 0},
	{BUG_P_WITHOUT_TEMPERATURE, "p without temperature", 0, 1},
	{BUG_P_WITHOUT_TEMPERATURE, "p without filters", 0, 3},
	{BUG_Q_NOT_RENORMALISED, "q not renormalised", 2, N_SAMPLERS},
	{BUG_Q_NOT_REDUCED, "q not reduced", 2, N_SAMPLERS},
	{BUG_COIN_REUSED, "coin reused", 2, N_SAMPLERS},
	{BUG_COIN_REUSED, "coin reused, two rows", 3, N_SAMPLERS},
	{BUG_BONUS_OF_PARENT, "bonus of the parent", 0, 0},
};
#define N_CASES ((int)(sizeof(bugs) / sizeof(bugs[0])))

START_TEST(the_harness_finds_the_bug)
{
	struct counts *c = malloc(sizeof(*c));
	struct world w;
	int shape = bugs[_i].shape;
	open_case(&w, bugs[_i].at);
	play(NULL, &w, shapes[shape].node, shapes[shape].n, BUG_NONE, 10000, c);
	check_fits(&w, c, "naive");
	play(NULL, &w, shapes[shape].node, shapes[shape].n, bugs[_i].bug, 10000, c);
	struct fit tokens = fit_of(&w, c, false), pairs = fit_of(&w, c, true);
	double margin = fmax(tokens.chi / quantile(tokens.df, ONE_IN_1000),
	                     pairs.chi / quantile(pairs.df, ONE_IN_1000));
	if (getenv("NEXUS_TEST_SHOW"))
		printf("BUG %-36s tokens %.1f df %.0f, pairs %.1f df %.0f, accepted %.3f\n",
		       bugs[_i].name, tokens.chi, tokens.df, pairs.chi, pairs.df,
		       (double)c->accepted / (double)c->n);
	ck_assert_msg(margin > 4, "%s: only %g times the 99.9 %% point", bugs[_i].name, margin);
	world_close(&w);
	free(c);
}
END_TEST

/* The device decides as the naive form does, but where rounding does: row by row, on every instruction set. */
START_TEST(every_kernel_decides_as_float64_does)
{
	int32_t differ = 0, n = 0;
	struct world w;
	open_case(&w, _i);
	for (int isa = 0; isa < N_ISAS; isa++)
		for (int i = (isa + _i) % 4; i < N_SHAPES; i += 4) {
			struct rig r;
			struct trial t;
			if (!rig_open(&r, isa, 1, false))
				continue;
			trial_open(&t, VOCAB, BATCH, shapes[i].n);
			world_draft(&w, &t, shapes[i].node, 7);
			rig_ok(&r, r.ops->sample(r.dev, NULL, &t.a, &r.err));
			for (int32_t s = 0; s < BATCH; s++, n++) {
				int32_t token[MAX_NODES + 1], path[MAX_NODES + 1],
					accepted = t.verdict.n_accepted[s];
				size_t bytes = sizeof(int32_t) * (size_t)accepted;
				int32_t *p = t.verdict.path + s * t.verdict.stride;
				memcpy(token, trial_out(&t, s), bytes + sizeof(int32_t));
				memcpy(path, p, bytes);
				world_decide(&w, &t, s, BUG_NONE);
				differ +=
					accepted != t.verdict.n_accepted[s] ||
					memcmp(token, trial_out(&t, s), bytes + sizeof(int32_t)) ||
					memcmp(path, p, bytes);
			}
			trial_close(&t);
			rig_close(&r);
		}
	ck_assert_msg(differ * 2000 <= n, "%d of %d verdicts differ", differ, n);
	world_close(&w);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("cpu_law");
	TCase *tc = tcase_create("law");
	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, every_kernel_decides_as_float64_does, 0, N_WORLDS * N_SAMPLERS);
	tcase_add_loop_test(tc, drafts_keep_the_law, 0, N_WORLDS * N_SAMPLERS);
	tcase_add_loop_test(tc, the_harness_finds_the_bug, 0, N_CASES);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
