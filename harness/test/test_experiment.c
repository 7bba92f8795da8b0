/* SPDX-License-Identifier: Apache-2.0 */
/* measure/experiment.h: what a file means. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "experiment_fixture.h"
#include "measure/trace.h"

START_TEST(defaults_are_as_documented)
{
	experiment_load_ok(HEAD, NULL);
	size_t n;
	const struct nx_cell *c = nx_experiment_cells(fx.x, &n);
	ck_assert_uint_eq(n, 1);
	ck_assert_str_eq(fx.x->name, "x");
	ck_assert_str_eq(fx.x->question, "Is it fast?");
	ck_assert_str_eq(fx.x->device, "cpu");
	ck_assert_int_eq(fx.x->dtype, NX_BF16);
	ck_assert_int_eq(fx.x->trials.min, 10);
	ck_assert_int_eq(fx.x->trials.max, 10);
	ck_assert_int_eq(fx.x->order, NX_ORDER_SHUFFLED);
	ck_assert(fx.x->gate && !fx.x->invariant && fx.x->workload.ignore_eos);
	ck_assert(fabs(fx.x->min_effect - 0.01) < 1e-12 && fabs(fx.x->timeout_s - 600) < 1e-12);
	ck_assert_int_eq(fx.x->workload.samples, 1);
	ck_assert_str_eq(c->stack->name, "baseline");
	ck_assert(c->stack->base_only);
	ck_assert_int_eq(c->batch_size, 1);
	ck_assert_int_eq(c->num_requests, 4);
	ck_assert_int_eq(c->seq_len.min, 512);
	ck_assert_int_eq(c->output_len.max, 128);
	ck_assert_uint_eq(strlen(c->id), 16);
}
END_TEST

START_TEST(a_sweep_is_the_product_with_stacks_fastest)
{
	experiment_load_ok(
		HEAD
		"sweep:\n  batch_size: [1, 4]\n  seq_len: [64, {uniform: {min: 10, max: 20}}]\n"
		"  output_len: {lognormal: {mean: 20, sigma: 1, max: 99}}\n"
		"num_requests: {per_slot: 3}\ntrials: {min: 2, max: 9, rel_ci: 0.05}\nthreads: 2\nkv_memory: 64MiB\n"
		"timeout: 2min\ndtype: f32\ninvariant: true\ngate: false\ngoodput: {ttft: 200, tpot: 50.5}\n"
		"reference: slow\norder: sorted\n"
		"stacks:\n  fast: [fake_schedule: {policy: shortest}]\n  slow:\n    - fake_schedule\n",
		NULL);
	size_t n;
	const struct nx_cell *c = nx_experiment_cells(fx.x, &n);
	static const char *const order[] = {"baseline", "fast", "slow"};
	ck_assert_uint_eq(n, 2 * 2 * 3);
	for (size_t i = 0; i < n; i++) {
		ck_assert_uint_eq(c[i].index, i);
		ck_assert_str_eq(c[i].stack->name, order[i % 3]);
		ck_assert_uint_eq(c[i].seq_len_index, i / 3 % 2);
		ck_assert_int_eq(c[i].batch_size, i < 6 ? 1 : 4);
		ck_assert_int_eq(c[i].num_requests, 3 * c[i].batch_size);
		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(c[i].id, c[j].id);
	}
	ck_assert_uint_eq(fx.x->reference, 2);
	ck_assert_int_eq(fx.x->order, NX_ORDER_SORTED);
	ck_assert_uint_eq(fx.x->kv_budget_bytes, 64u << 20);
	ck_assert(fabs(fx.x->timeout_s - 120) < 1e-9 && fabs(fx.x->slo.tpot_ms - 50.5) < 1e-9 &&
	          fx.x->slo.e2el_ms == 0);
	ck_assert_str_eq(
		fx.x->stacks[1].spec,
		"fake_schedule{block_size=16,policy=shortest,max_batch_size=0,ratio=0.5,eager=false}");
	ck_assert_str_eq(fx.x->stacks[0].spec, "(engine defaults)");
	ck_assert_int_eq(fx.x->stacks[1].stack.n_layers, 1);
	ck_assert_int_eq(fx.x->stacks[1].stack.layers[0].values[1].i, 2);
}
END_TEST

START_TEST(lengths_may_be_read)
{
	size_t n;
	experiment_load_ok(
		HEAD "sweep: {seq_len: [trace, {trace: {max: 100}}, 7], output_len: [trace, 50]}\n"
		     "num_requests: 2\n",
		"workload.trace=t.csv");
	const struct nx_cell *c = nx_experiment_cells(fx.x, &n);
	char text[64];
	ck_assert_uint_eq(n, 6);
	ck_assert_uint_eq(fx.x->workload.trace->n, 3);
	ck_assert_str_eq(nx_dist_text(&c[0].seq_len, text, sizeof(text)), "trace 20-300");
	ck_assert_str_eq(nx_dist_text(&c[0].output_len, text, sizeof(text)), "trace 5-40");
	ck_assert_str_eq(nx_dist_text(&c[2].seq_len, text, sizeof(text)), "trace 20-100");
	ck_assert(fabs(nx_dist_mean(&c[0].seq_len) - 140) < 1e-9);
	ck_assert(fabs(nx_dist_mean(&c[2].seq_len) - 220 / 3.0) < 1e-9);
	/* The rows that are used, together: the third is not. */
	ck_assert_int_eq(c[0].longest, 100 + 5);
	ck_assert_int_eq(c[1].longest, 100 + 50);
	ck_assert_int_eq(c[4].longest, 7 + 40);
	ck_assert_int_eq(c[5].longest, 0);
	char id[17];
	memcpy(id, c[5].id, sizeof(id));
	experiment_load_ok(HEAD "sweep: {seq_len: 7, output_len: 50}\nnum_requests: 2\n", NULL);
	ck_assert_str_ne(id, nx_experiment_cells(fx.x, &n)->id);

	experiment_load_ok(HEAD "sweep: {seq_len: dataset, output_len: {dataset: {max: 99}}}\n",
	                   "workload.turns=first");
	c = nx_experiment_cells(fx.x, &n);
	ck_assert_int_eq(fx.x->workload.turns, NX_TURNS_FIRST);
	ck_assert_str_eq(nx_dist_text(&c->seq_len, text, sizeof(text)), "dataset 4-1024");
	ck_assert_str_eq(nx_dist_text(&c->output_len, text, sizeof(text)), "dataset 4-99");
	ck_assert(isnan(nx_dist_mean(&c->seq_len)));
	experiment_load_ok(HEAD, "workload.turns=all");
	ck_assert_int_eq(nx_experiment_cells(fx.x, &n)->seq_len.kind, NX_DIST_DATASET);
	experiment_load_ok(HEAD, "workload.prompts=random");
	ck_assert_ptr_null(fx.x->workload.prompts);
}
END_TEST

START_TEST(parameters_given_as_lists_are_axes)
{
	experiment_load_ok(
		HEAD
		"sweep: {stack: [p, baseline]}\nstacks:\n  p:\n    - fake_schedule: {block_size: [16, 64], policy: [fcfs, priority]}\n",
		NULL);
	static const char *const names[] = {
		"p[block_size=16,policy=fcfs]", "p[block_size=16,policy=priority]",
		"p[block_size=64,policy=fcfs]", "p[block_size=64,policy=priority]", "baseline"};
	ck_assert_uint_eq(fx.x->n_stacks, 5);
	for (size_t i = 0; i < 5; i++)
		ck_assert_str_eq(fx.x->stacks[i].name, names[i]);
	ck_assert_uint_eq(fx.x->reference, 4);
	ck_assert_int_eq(fx.x->stacks[3].stack.layers[0].values[0].i, 64);
	ck_assert_str_eq(fx.x->stacks[3].stack.layers[0].values[1].s, "priority");
	/* One of them by its name; a comma in brackets does not part it. */
	experiment_load_ok(
		HEAD
		"stacks:\n  p:\n    - fake_schedule: {block_size: [16, 64], policy: [fcfs, priority]}\n",
		"sweep.stack=baseline,p[block_size=64,policy=fcfs]");
	ck_assert_uint_eq(fx.x->n_stacks, 2);
	ck_assert_str_eq(fx.x->stacks[1].name, names[2]);
}
END_TEST

START_TEST(ids_tell_what_differs)
{
	static const char *const sets[] = {
		"workload.seed=2", "sweep.batch_size=2",       "sweep.seq_len=5", "num_requests=7",
		"dtype=f32",       "workload.temperature=0.5", "kv_memory=1GB"};
	char before[17];
	size_t n;
	experiment_load_ok(HEAD, NULL);
	memcpy(before, nx_experiment_cells(fx.x, &n)->id, sizeof(before));
	experiment_load_ok(HEAD "# another comment\n", "trials=3");
	ck_assert_str_eq(nx_experiment_cells(fx.x, &n)->id, before);
	for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
		experiment_load_ok(HEAD, sets[i]);
		ck_assert_msg(strcmp(nx_experiment_cells(fx.x, &n)->id, before) != 0, "%s",
		              sets[i]);
	}
}
END_TEST

START_TEST(set_lies_over_the_file)
{
	static const char text[] =
		HEAD "sweep: {batch_size: [1, 2]}\nnum_requests: 8\n"
		     "stacks:\n  a: [fake_schedule]\n  b: [fake_schedule: {block_size: 32}]\n";
	experiment_load_ok(text, "sweep.batch_size=1,4,16");
	ck_assert_uint_eq(fx.x->n_batch_size, 3);
	ck_assert_int_eq(fx.x->batch_size[2], 16);
	ck_assert_ptr_nonnull(strstr(fx.x->text, "\n# --set sweep.batch_size=1,4,16\n"));
	experiment_load_ok(text, "num_requests.per_slot=5");
	ck_assert_int_eq(fx.x->num_requests, 0);
	ck_assert_int_eq(fx.x->requests_per_slot, 5);
	experiment_load_ok(text, "sweep.output_len={uniform: {min: 3, max: 9}}");
	ck_assert_int_eq(fx.x->output_len[0].max, 9);
	experiment_load_ok(text, "stacks.a.fake_schedule.block_size=64");
	ck_assert_int_eq(fx.x->stacks[1].stack.layers[0].values[0].i, 64);
	experiment_load_ok(text, "stacks.b.fake_schedule.policy=shortest");
	ck_assert_int_eq(fx.x->stacks[2].stack.layers[0].values[0].i, 32);
	ck_assert_int_eq(fx.x->stacks[2].stack.layers[0].values[1].i, 2);
	experiment_load_ok(text, "stacks.b.fake_schedule.block_size=8,16");
	ck_assert_uint_eq(fx.x->n_stacks, 4);
	experiment_load_ok(text, "goodput.ttft=100");
	ck_assert(fabs(fx.x->slo.ttft_ms - 100) < 1e-9);
}
END_TEST

START_TEST(included_stacks_come_first)
{
	static const char lib[] = "stacks:\n  one: [fake_schedule]\ninclude: sub/deep.yaml\n";
	static const char deep[] = "# q\nmodel: whatever\nstacks: {zero: []}\n";
	experiment_write("lib.yaml", lib, strlen(lib));
	mkdir("sub", 0700);
	experiment_write("sub/deep.yaml", deep, strlen(deep));
	experiment_load_ok(
		HEAD "include: [lib.yaml, sub/deep.yaml]\nstacks:\n  two: [fake_schedule]\n", NULL);
	ck_assert_uint_eq(fx.x->n_stacks, 4);
	ck_assert_str_eq(fx.x->stacks[1].name, "zero");
	ck_assert_str_eq(fx.x->stacks[2].name, "one");
	ck_assert_str_eq(fx.x->stacks[3].name, "two");
	ck_assert_ptr_nonnull(strstr(fx.x->text, "# stacks: {zero: []}\n"));
}
END_TEST

/* The experiments that come with the source load with what was built; only where it was all built. */
START_TEST(our_own_experiments_load)
{
	static const char *const names[] = {"quick", "smollm2", "baselines",
	                                    "seed",  "prefix",  "prefix_chat"};
	char path[4300];
	snprintf(path, sizeof(path), "%s/experiments/%s.yaml", fx.source, names[_i]);
	int rc = nx_experiment_load(&fx.x, path, NULL, 0, fx.build, &fx.err);
	if (rc == NX_EENV && _i == 1)
		return; /* SmolLM2 is not fetched */
	snprintf(path, sizeof(path), "%s/techniques/continuous_batching.so", fx.build);
	if (rc && !nx_file_is_regular(path))
		return;
	ck_assert_msg(rc == 0, "%s", fx.err.msg);
	ck_assert_msg(strchr(fx.x->question, '?') != NULL, "%s", fx.x->question);
}
END_TEST

int main(void)
{
	experiment_make_folder();
	Suite *s = suite_create("experiment");
	TCase *t = tcase_create("files");
	tcase_add_checked_fixture(t, experiment_setup, experiment_teardown);
	tcase_add_test(t, defaults_are_as_documented);
	tcase_add_test(t, a_sweep_is_the_product_with_stacks_fastest);
	tcase_add_test(t, lengths_may_be_read);
	tcase_add_test(t, parameters_given_as_lists_are_axes);
	tcase_add_test(t, ids_tell_what_differs);
	tcase_add_test(t, set_lies_over_the_file);
	tcase_add_test(t, included_stacks_come_first);
	tcase_add_loop_test(t, our_own_experiments_load, 0, 6);
	suite_add_tcase(s, t);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	experiment_remove_folder();
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
