/* SPDX-License-Identifier: Apache-2.0
 *
 * test_truth.c: do verdicts keep their promises? The shipped statistics (pairing by round, intervals, Holm,
 * min_effect, the stopping rule, the order of visits) judge thousands of made-up sweeps whose truth is known.
 *
 * The noise is that of run files of a virtual machine of two cores, nano at batch 4: trials of half a second
 * scatter by 2 % (quiet) to 12 % (busy), skewed towards slow (-0.6 to -1.4), with slow trials of up to
 * 30 % and little correlation from one trial to the next (0 to 0.4). Every generator is seeded: the counts
 * are the same on every machine. NEXUS_TEST_LONG runs ten times as many; NEXUS_TRUTH_PRINT prints a table.
 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "cli/sweep.h"
#include "measure/stats.h"
#include "record/schema.h"

enum { ROUNDS_MAX = 40, CELLS_MAX = 128 };

/* X(ID, text, jitter, t's degrees of freedom (0: normal), AR(1) coefficient and sd, random walk a visit,
 * share and mean size of slow trials, share and size of the slow mode); all of the logarithm. */
#define NOISES(X)                                                                                  \
	X(QUIET, "normal, 1 %", 0.01, 0, 0, 0, 0, 0, 0, 0, 0)                                      \
	X(USUAL, "normal, 2 %", 0.02, 0, 0, 0, 0, 0, 0, 0, 0)                                      \
	X(BUSY, "normal, 10 %", 0.10, 0, 0, 0, 0, 0, 0, 0, 0)                                      \
	X(TAILS, "Student's t, 3 degrees", 0.02, 3, 0, 0, 0, 0, 0, 0, 0)                           \
	X(SLOW, "a tenth 20 % slow", 0.02, 0, 0, 0, 0, 0.1, 0.2, 0, 0)                             \
	X(DRIFT, "random walk", 0.01, 0, 0, 0, 0.01, 0, 0, 0, 0)                                   \
	X(WAVES, "autocorrelated, 0.9", 0.01, 0, 0.9, 0.03, 0, 0, 0, 0, 0)                         \
	X(MODES, "two modes, 5 % apart", 0.002, 0, 0, 0, 0, 0, 0, 0.5, 0.05)                       \
	X(ALL, "all of it", 0.01, 4, 0.8, 0.02, 0.003, 0.05, 0.2, 0.3, 0.03)

enum {
#define X(id, ...) NOISE_##id,
	NOISES(X)
#undef X
		NOISE_COUNT
};
static const struct noise {
	const char *text;
	double jitter, df, ar, ar_sd, walk, p_slow, slow, p_mode, mode;
} noises[] = {
#define X(id, ...) {__VA_ARGS__},
	NOISES(X)
#undef X
};

/* What is swept: settings (batch sizes, lengths) of stacks each, stack 0 being the reference. */
struct design {
	int rounds, settings, stacks;
	bool sorted;
	double slope;              /* what the machine loses from one visit to the next */
	struct nx_stop_rule stop;  /* max 0: all rounds */
	double effect, min_effect; /* effect: of every stack but the reference */
	int n_boot; /* of the pairs' intervals; 0: the t interval, which is no wider */
};

struct rates {
	double family;  /* sweeps with a false alarm, of all sweeps */
	double found;   /* pairs with the verdict that is right, of all pairs */
	double covered; /* pairs whose interval holds the truth */
	double rounds;  /* mean, in common */
	double se;      /* standard error of family */
};

static double exponential(struct nx_rng *r)
{
	return -log(((double)(nx_rng_next(r) >> 11) + 1) * 0x1p-53);
}

static double uniform(struct nx_rng *r)
{
	return (double)(nx_rng_next(r) >> 11) * 0x1p-53;
}

/* Logarithm of one trial's noise; *wave and *level are the machine's, from trial to trial. */
static double draw(const struct noise *m, struct nx_rng *r, double *wave, double *level)
{
	double z = nx_rng_normal(r), v;
	if (m->df > 0) {
		double chi = 0; /* of m->df degrees: a sum of squares */
		for (int i = 0; i < (int)m->df; i++) {
			double g = nx_rng_normal(r);
			chi += g * g;
		}
		z /= sqrt(chi / m->df);
	}
	*wave = m->ar * *wave + m->ar_sd * sqrt(1 - m->ar * m->ar) * nx_rng_normal(r);
	*level += m->walk * nx_rng_normal(r);
	v = m->jitter * z + *wave + *level;
	if (m->p_slow > 0 && uniform(r) < m->p_slow)
		v -= m->slow * exponential(r);
	if (m->p_mode > 0 && uniform(r) < m->p_mode)
		v -= m->mode;
	return v;
}

/* One sweep as cli/sweep.c visits it: v[cell][round] is a throughput, NaN where the cell had enough. */
static void run_sweep(const struct design *d, const struct noise *m, struct nx_rng *rng,
                      double v[][ROUNDS_MAX])
{
	int n_cells = d->settings * d->stacks;
	size_t n_ok[CELLS_MAX] = {0};
	bool closed[CELLS_MAX] = {false};
	uint32_t order[CELLS_MAX];
	double wave = m->ar_sd * nx_rng_normal(rng), level = 0;
	size_t visit = 0;
	const struct nx_experiment x = {.workload = {.seed = nx_rng_next(rng)},
	                                .n_stacks = (size_t)d->stacks,
	                                .order = d->sorted ? NX_ORDER_SORTED : NX_ORDER_SHUFFLED};
	for (int r = 0; r < d->rounds; r++) {
		nx_sweep_order(&x, r, order, (size_t)n_cells);
		for (int k = 0; k < n_cells; k++) {
			uint32_t c = order[k];
			v[c][r] = NAN;
			if (closed[c])
				continue;
			double truth = (int)c % d->stacks ? log1p(d->effect) : 0;
			truth -= d->slope * (double)visit++;
			v[c][r] = 100 * exp(truth + draw(m, rng, &wave, &level));
			n_ok[c]++;
			closed[c] = d->stop.max && nx_stop(&d->stop, v[c], n_ok[c], n_ok[c]);
		}
	}
}

struct tally {
	int n[NX_VERDICT_COUNT];
	int covered, pairs, rounds;
};

/* Judges a sweep as record/summary.c does. */
static void judge(const struct design *d, double v[][ROUNDS_MAX], struct tally *t)
{
	struct nx_pair pair[CELLS_MAX];
	double p[CELLS_MAX];
	int n = 0;
	for (int c = 0; c < d->settings * d->stacks; c++) {
		if (c % d->stacks == 0)
			continue;
		pair[n] = nx_pair_ratio(v[c], v[c - c % d->stacks], (size_t)d->rounds, d->n_boot,
		                        (uint64_t)c);
		p[n] = pair[n].p;
		n++;
	}
	nx_holm(p, (size_t)n);
	for (int i = 0; i < n; i++) {
		t->n[nx_pair_verdict(&pair[i], p[i], d->min_effect)]++;
		t->covered += pair[i].ci.lo <= 1 + d->effect && 1 + d->effect <= pair[i].ci.hi;
		t->rounds += (int)pair[i].n;
		t->pairs++;
	}
}

static int many(int n)
{
	return getenv("NEXUS_TEST_LONG") ? 10 * n : n;
}

static struct rates simulate(const struct design *d, const struct noise *m, int n_sweeps,
                             uint64_t seed)
{
	static double v[CELLS_MAX][ROUNDS_MAX];
	struct nx_rng rng = {seed};
	struct tally all = {0};
	int alarms = 0;
	for (int s = 0; s < n_sweeps; s++) {
		struct tally before = all;
		run_sweep(d, m, &rng, v);
		judge(d, v, &all);
		alarms += (d->effect <= 0 &&
		           all.n[NX_VERDICT_ID_FASTER] > before.n[NX_VERDICT_ID_FASTER]) ||
		          (d->effect >= 0 &&
		           all.n[NX_VERDICT_ID_SLOWER] > before.n[NX_VERDICT_ID_SLOWER]);
	}
	int right = d->effect < 0 ? NX_VERDICT_ID_SLOWER : NX_VERDICT_ID_FASTER;
	struct rates r = {.family = alarms / (double)n_sweeps,
	                  .found = all.n[right] / (double)all.pairs,
	                  .covered = all.covered / (double)all.pairs,
	                  .rounds = all.rounds / (double)all.pairs};
	r.se = sqrt(fmax(r.family * (1 - r.family), 1.0 / n_sweeps) / n_sweeps);
	if (getenv("NEXUS_TRUTH_PRINT"))
		printf("%-26s %2d x %-2d %s %4.1f rounds, effect %+5.1f %%, min_effect %g %%: "
		       "alarms %5.2f +- %.2f %%, found %5.1f %%, covered %.1f %%\n",
		       m->text, d->settings, d->stacks, d->sorted ? "sorted  " : "shuffled",
		       r.rounds, 100 * d->effect, 100 * d->min_effect, 100 * r.family, 200 * r.se,
		       100 * r.found, 100 * r.covered);
	return r;
}

/* At most `promised`, unless the simulation refutes that at 0.05 %: the suite asks some sixty such questions. */
static void check_at_most(double rate, double promised, double se, const char *what)
{
	ck_assert_msg(rate <= promised + 3.29 * se, "%s: %.4f, promised at most %.4f", what, rate,
	              promised);
}

/* ---- the promises ----------------------------------------------------------------------------- */

/* Nothing differs, and min_effect does not help: of all sweeps at most 5 % name anything. A single pair
 * under nothing but two modes has log ratios of three values, and the t-test's true level is up to 5.6 %. */
START_TEST(false_alarms_stay_within_five_percent_of_sweeps)
{
	static const int rounds[] = {NX_VERDICT_ROUNDS, 10};
	static const int shapes[][2] = {{1, 2}, {6, 5}};
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < 2; k++) {
			const struct design d = {.rounds = rounds[i],
			                         .settings = shapes[k][0],
			                         .stacks = shapes[k][1]};
			struct rates r = simulate(&d, &noises[_i], many(k ? 600 : 3000),
			                          100 * (uint64_t)_i + (uint64_t)i);
			check_at_most(r.family, _i == NOISE_MODES && k == 0 ? 0.056 : 0.05, r.se,
			              noises[_i].text);
			ck_assert_double_gt(r.family, 0); /* one that never fires is no test */
		}
}
END_TEST

/* With the default min_effect there is room to spare where the noise is small beside it. */
START_TEST(min_effect_makes_false_alarms_rarer)
{
	const struct design d = {.rounds = 10, .settings = 6, .stacks = 5, .min_effect = 0.01};
	struct rates r = simulate(&d, &noises[NOISE_QUIET], many(1000), 5);
	check_at_most(r.family, 0.04, r.se, "normal, 1 %, min_effect 1 %");
}
END_TEST

/* A technique that takes 5 % is called slower in nine of ten pairs, judged alone and in a sweep. */
START_TEST(five_percent_are_found)
{
	static const struct {
		int noise, rounds, settings, stacks;
	} cases[] = {
		{NOISE_QUIET, NX_VERDICT_ROUNDS, 1, 2},
		{NOISE_QUIET, NX_VERDICT_ROUNDS, 6, 5},
		{NOISE_QUIET, 10, 6, 5},
		{NOISE_USUAL, 10, 1, 2},
		{NOISE_USUAL, 15, 6, 5},
		{NOISE_TAILS, 20, 1, 2},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct design d = {.rounds = cases[i].rounds,
		                         .settings = cases[i].settings,
		                         .stacks = cases[i].stacks,
		                         .effect = -0.05,
		                         .min_effect = 0.01};
		struct rates r = simulate(&d, &noises[cases[i].noise],
		                          many(d.settings > 1 ? 100 : 1000), 9 + i);
		ck_assert_msg(r.found >= 0.9, "%s, %d rounds, %d x %d: found %.3f",
		              noises[cases[i].noise].text, d.rounds, d.settings, d.stacks, r.found);
		check_at_most(r.family, 0, 1.0 / many(100), "called faster");
	}
}
END_TEST

START_TEST(intervals_of_ratios_cover)
{
	static const int rounds[] = {3, NX_VERDICT_ROUNDS, 10};
	for (int i = 0; i < 3; i++) {
		const struct design d = {.rounds = rounds[i],
		                         .settings = 1,
		                         .stacks = 2,
		                         .effect = 0.05,
		                         .n_boot = 200};
		int n = many(1000);
		struct rates r = simulate(&d, &noises[_i], n, 40 + (uint64_t)_i);
		check_at_most(1 - r.covered, _i == NOISE_MODES ? 0.056 : 0.05,
		              sqrt(0.05 * 0.95 / n), noises[_i].text);
	}
}
END_TEST

/* Of one cell: its median, by the bootstrap alone and as reported. */
START_TEST(intervals_of_cells_cover)
{
	static const int rounds[] = {3, 5, NX_VERDICT_ROUNDS, 10, 20};
	const struct noise *m = &noises[_i];
	struct nx_rng rng = {70 + (uint64_t)_i};
	static double sample[20001];
	double wave = 0, level = 0;
	int n_sims = many(600);
	for (int i = 0; i < 20001; i++)
		sample[i] = exp(draw(m, &rng, &wave, &level));
	double median = nx_median(sample, 20001);
	for (int i = 0; i < 5; i++) {
		int boot = 0, cell = 0;
		for (int s = 0; s < n_sims; s++) {
			double v[20];
			for (int k = 0; k < rounds[i]; k++)
				v[k] = exp(draw(m, &rng, &wave, &level));
			struct nx_interval b =
				nx_boot_median(v, NULL, (size_t)rounds[i], 200, (uint64_t)s);
			struct nx_interval c =
				nx_cell_interval(v, (size_t)rounds[i], 200, (uint64_t)s);
			boot += b.lo <= median && median <= b.hi;
			cell += c.lo <= median && median <= c.hi;
		}
		if (getenv("NEXUS_TRUTH_PRINT"))
			printf("%-26s %2d rounds: the bootstrap covers %.1f %%, the cell's interval %.1f %%\n",
			       m->text, rounds[i], 100.0 * boot / n_sims, 100.0 * cell / n_sims);
		check_at_most(1 - cell / (double)n_sims, 0.05, sqrt(0.05 * 0.95 / n_sims), m->text);
		if (rounds[i] == 3) /* why it is not enough */
			ck_assert_double_le(boot / (double)n_sims, 0.82);
	}
}
END_TEST

/* Fewer rounds: what a t-test of three makes of noise with two modes, and why there is no verdict. */
START_TEST(two_modes_do_not_alarm)
{
	int alarms = 0, n_sweeps = many(300), verdicts = 0;
	static double v[CELLS_MAX][ROUNDS_MAX];
	struct nx_rng rng = {3};
	for (int s = 0; s < n_sweeps; s++) {
		const struct design d = {.rounds = 3, .settings = 6, .stacks = 5};
		struct tally t = {0};
		bool alarm = false;
		run_sweep(&d, &noises[NOISE_MODES], &rng, v);
		judge(&d, v, &t);
		verdicts += t.n[NX_VERDICT_ID_FASTER] + t.n[NX_VERDICT_ID_SLOWER] +
		            t.n[NX_VERDICT_ID_SAME];
		for (int c = 0; c < 30; c++) {
			struct nx_pair p = nx_pair_ratio(v[c], v[c - c % 5], 3, 0, 1);
			double half = log(p.ci.hi / p.ci.lo) / 2, t3 = nx_t_quantile(0.05, 2);
			double stat = half > 0 ? log(p.ratio) / half * t3 : 0;
			alarm |= c % 5 && nx_t_p(stat, 2) * 24 < 0.05; /* Bonferroni */
		}
		alarms += alarm;
	}
	ck_assert_int_eq(verdicts, 0);
	ck_assert_double_ge(alarms / (double)n_sweeps, 0.2);
}
END_TEST

/* When each cell stops by itself, its pairs have the rounds that both have, and the rate still holds. */
START_TEST(adaptive_trials_keep_the_rate)
{
	static const int kinds[] = {NOISE_QUIET, NOISE_USUAL};
	const struct design d = {
		.rounds = 30, .settings = 1, .stacks = 2, .stop = {NX_VERDICT_ROUNDS, 30, 0.01}};
	struct rates r = simulate(&d, &noises[kinds[_i]], many(150), 21);
	check_at_most(r.family, 0.06, r.se, "adaptive trials");
	ck_assert_double_lt(r.rounds, 30);
}
END_TEST

/* The order of cells: both answer alike, shuffled or sorted, while the machine's noise has no direction.
 * Where it does (a machine that warms up), sorted order puts the loss on the later stack of each pair. */
START_TEST(the_order_of_cells_does_not_matter)
{
	static const int kinds[] = {NOISE_USUAL, NOISE_DRIFT, NOISE_WAVES, NOISE_ALL};
	struct design d = {.rounds = 10, .settings = 4, .stacks = 4, .effect = -0.05};
	int n = many(400);
	struct rates shuffled = simulate(&d, &noises[kinds[_i]], n, 31);
	d.sorted = true;
	struct rates sorted = simulate(&d, &noises[kinds[_i]], n, 32);
	/* Pairs of a sweep share their reference: the error is that of the sweeps, not of the pairs. */
	double se = sqrt(0.05 * 0.95 / n);
	check_at_most(1 - shuffled.covered, 0.05, se, "shuffled, not covered");
	check_at_most(1 - sorted.covered, 0.05, se, "sorted, not covered");
	check_at_most(fabs(shuffled.covered - sorted.covered), 0, sqrt(2) * se, "difference");
}
END_TEST

START_TEST(shuffling_takes_a_machine_that_slows_down)
{
	struct design d = {.rounds = 10, .settings = 6, .stacks = 5, .slope = 0.0008};
	struct rates shuffled = simulate(&d, &noises[NOISE_QUIET], many(300), 41);
	d.sorted = true;
	struct rates sorted = simulate(&d, &noises[NOISE_QUIET], many(300), 41);
	check_at_most(shuffled.family, 0.05, shuffled.se, "shuffled");
	ck_assert_double_gt(sorted.covered, 0.5);
	ck_assert_double_lt(sorted.covered, shuffled.covered - 0.02);
}
END_TEST

/* ---- through the summary of a run file --------------------------------------------------------- */

enum { S_STACKS = 4, S_SETTINGS = 2, S_CELLS = S_STACKS * S_SETTINGS, S_ROUNDS = 10 };

static struct nx_cell s_cells[S_CELLS];
static struct nx_named_stack s_stacks[S_STACKS];

static void make_cells(void)
{
	static const char *const names[] = {"ref", "a", "b", "c"};
	for (int i = 0; i < S_STACKS; i++)
		s_stacks[i] = (struct nx_named_stack){.name = names[i], .spec = "x"};
	for (int i = 0; i < S_CELLS; i++) {
		struct nx_cell *c = &s_cells[i];
		*c = (struct nx_cell){.index = (size_t)i,
		                      .stack = &s_stacks[i % S_STACKS],
		                      .stack_index = (size_t)(i % S_STACKS),
		                      .batch_size = 1 + i / S_STACKS,
		                      .num_requests = 4};
		snprintf(c->id, sizeof(c->id), "%016x", (unsigned)i + 1);
	}
}

/* One run file's rows. A trial that others disturbed is 40 % slow and marked, as the runner would. */
static void make_rows(struct nx_trial_row *rows, double effect, double disturbed,
                      struct nx_rng *rng)
{
	double wave = 0, level = 0;
	for (int k = 0; k < S_CELLS * S_ROUNDS; k++) {
		struct nx_trial t;
		int c = k % S_CELLS;
		bool busy = uniform(rng) < disturbed;
		nx_trial_init(&t);
		snprintf(t.cell, sizeof(t.cell), "%s", s_cells[c].id);
		t.cell_index = c;
		t.round = k / S_CELLS;
		t.status = busy ? NX_STATUS_THROTTLED : NX_STATUS_OK;
		for (int m = 0; m < NX_METRIC_COUNT; m++)
			t.metrics[m] = NAN;
		t.metrics[NX_METRIC_OUTPUT_THROUGHPUT] =
			100 * exp(draw(&noises[NOISE_USUAL], rng, &wave, &level)) *
			(c % S_STACKS == S_STACKS - 1 ? 1 + effect : 1) * (busy ? 0.6 : 1);
		nx_trial_to_row(&t, &rows[k]);
	}
}

/* The verdicts as a reader of the run file gets them: the last stack differs by `effect`. */
START_TEST(a_run_files_verdicts_keep_the_promises)
{
	static const double effects[] = {0, -0.05};
	static struct nx_trial_row rows[S_CELLS * S_ROUNDS];
	struct nx_cell_row out[S_CELLS];
	const struct nx_run_head head = {.min_effect = 0.01};
	struct nx_rng rng = {51};
	int alarms = 0, found = 0, n_runs = many(40);
	struct nx_err err = {0};
	make_cells();
	for (int s = 0; s < n_runs; s++) {
		bool alarm = false;
		make_rows(rows, effects[_i], 0.05, &rng);
		ck_assert_int_eq(
			nx_summarise(s_cells, S_CELLS, rows, S_CELLS * S_ROUNDS, &head, out, &err),
			0);
		for (int c = 0; c < S_CELLS; c++) {
			int v = out[c].verdict;
			bool differs = c % S_STACKS == S_STACKS - 1 && effects[_i] != 0;
			alarm |= v == NX_VERDICT_FASTER || (v == NX_VERDICT_SLOWER && !differs);
			found += v == NX_VERDICT_SLOWER && differs;
		}
		alarms += alarm;
	}
	check_at_most(alarms / (double)n_runs, 0.05, sqrt(0.05 * 0.95 / n_runs), "run files");
	if (effects[_i] != 0)
		ck_assert_double_ge(found / (double)(n_runs * S_SETTINGS), 0.9);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("truth");
	TCase *t = tcase_create("simulated");
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, false_alarms_stay_within_five_percent_of_sweeps, 0, NOISE_COUNT);
	tcase_add_test(t, min_effect_makes_false_alarms_rarer);
	tcase_add_test(t, five_percent_are_found);
	tcase_add_loop_test(t, intervals_of_ratios_cover, 0, NOISE_COUNT);
	tcase_add_loop_test(t, intervals_of_cells_cover, 0, NOISE_TAILS + 1);
	tcase_add_test(t, two_modes_do_not_alarm);
	tcase_add_loop_test(t, adaptive_trials_keep_the_rate, 0, 2);
	tcase_add_loop_test(t, the_order_of_cells_does_not_matter, 0, 4);
	tcase_add_test(t, shuffling_takes_a_machine_that_slows_down);
	tcase_add_loop_test(t, a_run_files_verdicts_keep_the_promises, 0, 2);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
