/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fit.c: `batch_size: fit`: the batch that is found is the largest, it holds for all trials of its cell, and
 * stacks are compared each at its own.
 */
#include <check.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "cli_fixture.h"
#include "engine_fixture.h"
#include "measure/runner.h"
#include "record/run.h"

static struct cli c;

static void setup(void)
{
	cli_open(&c);
}

static void teardown(void)
{
	cli_close(&c);
}

/* ---- the search ------------------------------------------------------------------------------- */

static const char *const stacks[] = {
	"",
	"kv_cache:reserve=exact",
	"paged_attention:block_size=16",
	"paged_attention:block_size=7,quantized_kv:type=int4",
	"quantized_kv:type=kivi2:residual_length=32,kv_cache:reserve=exact",
	"weight_quant:type=int4:group_size=16,kv_cache:reserve=exact",
	"prefix_cache:block_size=4,kv_cache:reserve=exact",
	"draft_tree,kv_cache:reserve=exact",
};
#define N_STACKS ((int)(sizeof(stacks) / sizeof(stacks[0])))

static uint64_t kv_of(const struct nx_forecast *f)
{
	for (size_t i = 0; i < f->n_mem; i++)
		if (!strcmp(f->mem[i].owner, "kv"))
			return f->mem[i].reserved_bytes;
	return 0;
}

struct search {
	struct fixture f;
	struct test_stack stack;
	struct nx_named_stack named;
	struct nx_cell cell;
	struct nx_runner_config rc;
};

static void search_open(struct search *s, const char *spec)
{
	fixture_open_model(&s->f, "llama-tiny", "cpu", NX_F32, "auto", false, 1);
	test_stack_make(&s->stack, &s->f, spec);
	s->named = (struct nx_named_stack){.name = "s", .stack = s->stack.stack, .spec = spec};
	s->cell = (struct nx_cell){.id = "0123456789abcdef",
	                           .stack = &s->named,
	                           .fit = true,
	                           .seq_len = {.min = 20, .max = 40},
	                           .output_len = {.min = 1, .max = 24}};
	s->rc = (struct nx_runner_config){.shape = nx_model_shape(s->f.model),
	                                  .dev = &s->f.dev,
	                                  .weights = s->f.weights,
	                                  .dtype = NX_F32,
	                                  .samples = 1};
}

/* What it asks for at a batch size when nothing limits it. */
static struct nx_forecast asks(struct search *s, int32_t batch_size)
{
	struct nx_runner_config rc = s->rc;
	struct nx_cell cell = s->cell;
	struct nx_forecast f;
	rc.kv_budget_bytes = 0;
	rc.fits_bytes = 0;
	cell.batch_size = batch_size;
	nx_runner_forecast(&rc, &cell, &f);
	ck_assert_msg(!f.code, "%s", f.reason);
	return f;
}

/* _i: the stack. Limits that lie between what two batches take, and on them. */
START_TEST(what_is_found_fits_and_one_more_does_not)
{
	static const int32_t sizes[] = {1, 2, 3, 16, 21, 64, 1000};
	struct search s;
	struct nx_forecast f;
	search_open(&s, stacks[_i]);
	for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		const int32_t n = sizes[k];
		struct nx_forecast at = asks(&s, n), next = asks(&s, n + 1);
		ck_assert_uint_gt(kv_of(&next), kv_of(&at));
		ck_assert_uint_gt(next.total_bytes, at.total_bytes);
		s.rc.kv_budget_bytes = kv_of(&at);
		ck_assert_int_eq(nx_runner_fit(&s.rc, &s.cell, &f), n);
		ck_assert_int_eq(f.code, 0);
		ck_assert_int_eq(f.batch_size, n);
		s.rc.kv_budget_bytes = kv_of(&next) - 1;
		ck_assert_int_eq(nx_runner_fit(&s.rc, &s.cell, &f), n);
		s.rc.kv_budget_bytes = 0;
		s.rc.fits_bytes = at.total_bytes;
		ck_assert_int_eq(nx_runner_fit(&s.rc, &s.cell, &f), n);
		ck_assert_uint_eq(f.total_bytes, at.total_bytes);
		s.rc.fits_bytes = next.total_bytes - 1;
		ck_assert_int_eq(nx_runner_fit(&s.rc, &s.cell, &f), n);
		s.rc.fits_bytes = 0;
	}
	/* both limits: the tighter one */
	s.rc.kv_budget_bytes = 1000000000;
	s.rc.fits_bytes = asks(&s, 9).total_bytes;
	ck_assert_int_eq(nx_runner_fit(&s.rc, &s.cell, &f), 9);
	fixture_close(&s.f);
}
END_TEST

START_TEST(what_cannot_fit_says_why)
{
	struct search s;
	struct nx_forecast f;
	search_open(&s, "kv_cache:reserve=exact");
	s.rc.kv_budget_bytes = 1000;
	ck_assert_int_eq(nx_runner_fit(&s.rc, &s.cell, &f), 0);
	ck_assert_int_eq(f.code, NX_ESKIP);
	ck_assert_msg(strstr(f.reason, "one request takes ") && strstr(f.reason, "kv_memory is "),
	              "%s", f.reason);
	s.rc.kv_budget_bytes = 0;
	s.rc.fits_bytes = 1000;
	ck_assert_int_eq(nx_runner_fit(&s.rc, &s.cell, &f), 0);
	ck_assert_msg(strstr(f.reason, "device has"), "%s", f.reason);
	/* without a limit: what an engine takes */
	s.rc.fits_bytes = 0;
	ck_assert_int_eq(nx_runner_fit(&s.rc, &s.cell, &f), NX_BATCH_MAX);
	fixture_close(&s.f);
	/* a pool of one size */
	search_open(&s, "paged_attention:block_size=16:num_blocks=200");
	ck_assert_int_eq(nx_runner_fit(&s.rc, &s.cell, &f), 0);
	ck_assert_msg(strstr(f.reason, "one size for every batch size") &&
	                      strstr(f.reason, "legal: "),
	              "%s", f.reason);
	fixture_close(&s.f);
}
END_TEST

static uint64_t kv_used(const struct nx_forecast *f)
{
	for (size_t i = 0; i < f->n_mem; i++)
		if (!strcmp(f->mem[i].owner, "kv"))
			return f->mem[i].peak_used_bytes;
	return 0;
}

/* Eight requests of 40 + 24 tokens, the last of which is never fed: 63 rows each, of 4 layers, K and V, 4 heads of 32
 * values in f32. */
START_TEST(what_requests_use_at_most_is_all_but_their_last_tokens)
{
	static const char *const specs[] = {"kv_cache:reserve=max", "kv_cache:reserve=exact",
	                                    "paged_attention:block_size=16",
	                                    "paged_attention:block_size=16,prefix_cache"};
	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
		struct search s;
		search_open(&s, specs[i]);
		struct nx_forecast f = asks(&s, 8);
		ck_assert_msg(kv_used(&f) == 8ull * 63 * 4 * 2 * 4 * 32 * 4, "%s: %llu bytes",
		              specs[i], (unsigned long long)kv_used(&f));
		ck_assert_uint_lt(kv_used(&f), kv_of(&f));
		fixture_close(&s.f);
	}
}
END_TEST

/* ---- through the program ---------------------------------------------------------------------- */

#define STACKS                                                                                     \
	"  exact:\n    - kv_cache: {reserve: exact}\n"                                             \
	"  int8:\n    - kv_cache: {reserve: exact}\n    - quantized_kv\n"

static struct nx_run *read_run(void)
{
	struct nx_run *r = NULL;
	struct nx_err err = {0};
	int rc = nx_run_read(&r, cli_path(&c, "o.h5"), &err);
	ck_assert_msg(!rc, "%s", err.msg);
	return r;
}

static const struct nx_cell_row *fit_of(const struct nx_run *r, const char *stack)
{
	for (size_t i = 0; i < r->n_cells; i++)
		if (!strcmp(r->cells[i].stack, stack) && r->cells[i].fit == 1)
			return &r->cells[i];
	ck_abort_msg("%s has no cell of the largest batch", stack);
	return NULL;
}

START_TEST(stacks_are_compared_each_at_its_largest)
{
	char text[128];
	cli_experiment(&c, "exact, int8", STACKS,
	               "trials: 6\nkv_memory: 40KiB\nreference: exact\ncounters: off\n");
	ck_assert_msg(cli_run(&c, "",
	                      "run t.yaml -o o.h5 --set sweep.batch_size=1,fit --set "
	                      "num_requests.per_slot=2") == 0,
	              "%s", c.err);
	struct nx_run *r = read_run();
	ck_assert_uint_eq(r->n_cells, 4);
	const struct nx_cell_row *exact = fit_of(r, "exact"), *int8 = fit_of(r, "int8");
	ck_assert_int_gt(exact->batch_size, 1);
	ck_assert_int_gt(int8->batch_size, exact->batch_size);
	ck_assert_int_eq(exact->num_requests, 2 * exact->batch_size);
	ck_assert_int_eq(int8->n_ok, 6);
	/* what is used at most is what is really used: all but the last token of each request */
	for (size_t k = 0; k < exact->n_mem; k++)
		if (!strcmp(exact->mem[k].owner, "kv"))
			ck_assert_uint_eq(exact->mem[k].peak_used_bytes * 24,
			                  exact->mem[k].reserved_bytes * 23);
	snprintf(text, sizeof(text), "the largest batches: %d against %d", int8->batch_size,
	         exact->batch_size);
	ck_assert_msg(strstr(int8->speedup_note, text), "%s", int8->speedup_note);
	ck_assert(isfinite(int8->speedup.value) && isfinite(int8->p_value));
	/* the cells of batch size 1 have each other */
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *row = &r->cells[i];
		ck_assert_msg(row->status == NX_STATUS_OK, "%s", row->cause);
		if (!row->fit) {
			ck_assert_int_eq(row->batch_size, 1);
			ck_assert_msg(!strstr(row->speedup_note, "largest"), "%s",
			              row->speedup_note);
		}
	}
	nx_run_destroy(r);
	ck_assert_msg(cli_run(&c, "", "report o.h5") == 0, "%s", c.err);
	ck_assert_msg(cli_run(&c, "", "plot o.h5 -o p") == 0, "%s", c.err);
}
END_TEST

START_TEST(a_dry_run_says_what_it_found)
{
	cli_experiment(&c, "exact, int8", STACKS, "kv_memory: 40KiB\nreference: exact\n");
	ck_assert_msg(cli_run(&c, "", "run t.yaml --dry-run --set sweep.batch_size=fit") == 0, "%s",
	              c.err);
	ck_assert_ptr_nonnull(strstr(c.out, "(largest)"));
	ck_assert_ptr_nonnull(strstr(c.err, "2 cells, 2 fit"));
	ck_assert_msg(cli_run(&c, "",
	                      "run t.yaml --dry-run --set sweep.batch_size=fit --set "
	                      "kv_memory=100") == 1,
	              "%s", c.err);
	ck_assert_ptr_nonnull(strstr(c.out, "none fits"));
	ck_assert_ptr_nonnull(strstr(c.out, "one request takes"));
}
END_TEST

START_TEST(a_cell_that_none_fits_is_skipped_with_its_reason)
{
	cli_experiment(&c, "exact, int8", STACKS, "trials: 2\nreference: exact\n");
	ck_assert_int_eq(
		cli_run(&c, "",
	                "run t.yaml -o o.h5 --set sweep.batch_size=fit --set kv_memory=100"),
		1);
	ck_assert_msg(strstr(c.err, "batch none fits: skipped: one request takes"), "%s", c.err);
	struct nx_run *r = read_run();
	for (size_t i = 0; i < r->n_cells; i++) {
		ck_assert_int_eq(r->cells[i].status, NX_STATUS_SKIPPED);
		ck_assert_int_eq(r->cells[i].batch_size, NX_BATCH_FIT);
	}
	nx_run_destroy(r);
	ck_assert_msg(cli_run(&c, "", "report o.h5") == 0, "%s", c.err);
}
END_TEST

/* A sweep that goes on later has the batch sizes that it had: the trials of a cell are one sample. */
START_TEST(a_sweep_goes_on_with_what_was_found)
{
	static const char *const argv[] = {"nexus",
	                                   "run",
	                                   "t.yaml",
	                                   "-o",
	                                   "o.h5",
	                                   "--set",
	                                   "sweep.batch_size=fit",
	                                   "--set",
	                                   "num_requests.per_slot=1",
	                                   NULL};
	struct timespec t = {.tv_nsec = 2000000};
	int w = 0;
	cli_experiment(&c, "exact, int8", STACKS,
	               "trials: 12\nkv_memory: 40KiB\nreference: exact\n");
	pid_t pid = cli_start(&c, argv);
	for (int i = 0; i < 20000 && cli_shards(&c, "o.h5") < 5; i++)
		nanosleep(&t, NULL);
	ck_assert_int_eq(kill(pid, SIGINT), 0);
	ck_assert_int_eq(waitpid(pid, &w, 0), pid);
	ck_assert(cli_group_gone(pid, 10));
	ck_assert_int_ge(cli_shards(&c, "o.h5"), 5);
	ck_assert_msg(cli_run(&c, "",
	                      "run t.yaml -o o.h5 --resume --set sweep.batch_size=fit --set "
	                      "num_requests.per_slot=1") == 0,
	              "%s", c.err);
	struct nx_run *r = read_run();
	ck_assert_uint_eq(r->n_trials, 24);
	for (size_t i = 0; i < r->n_cells; i++) {
		const struct nx_cell_row *row = &r->cells[i];
		ck_assert_int_gt(row->batch_size, 1);
		ck_assert_int_eq(row->n_ok, 12);
		ck_assert_uint_eq(row->n_ttft, 12 * (size_t)row->batch_size); /* of every trial */
	}
	nx_run_destroy(r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fit");
	TCase *search = tcase_create("search"), *t = tcase_create("fit");
	tcase_set_timeout(search, 60);
	tcase_add_loop_test(search, what_is_found_fits_and_one_more_does_not, 0, N_STACKS);
	tcase_add_test(search, what_cannot_fit_says_why);
	tcase_add_test(search, what_requests_use_at_most_is_all_but_their_last_tokens);
	suite_add_tcase(s, search);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, stacks_are_compared_each_at_its_largest);
	tcase_add_test(t, a_dry_run_says_what_it_found);
	tcase_add_test(t, a_cell_that_none_fits_is_skipped_with_its_reason);
	tcase_add_test(t, a_sweep_goes_on_with_what_was_found);
	suite_add_tcase(s, t);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
