/* SPDX-License-Identifier: Apache-2.0
 *
 * test_record_profiled.c: what instruments saw, through a shard and the merge into the run file and back; and what
 * becomes of a file that lies about it.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "record/schema.h"
#include "record_fixture.h"

static struct fixture f;
static struct nx_err err;
static struct nx_profiled p;
static struct nx_run *run;

static void setup(void)
{
	static const struct nx_trace_record trace[] = {{0, 60, NX_TRACE_KERNEL, "gemm<bf16>"},
	                                               {60, 80, NX_TRACE_COPY, ""},
	                                               {90, 100, NX_TRACE_SET, ""}};
	fixture_init(&f);
	memset(&err, 0, sizeof(err));
	nx_profiled_init(&p);
	memcpy(p.cell, f.cells[1].id, sizeof(p.cell));
	p.n_steps = 9;
	p.n_same = 8;
	p.first_other = 4;
	p.n_trace_steps = 3;
	p.n_lost = 2;
	p.trace_phase = NX_PHASE_VERIFY;
	snprintf(p.versions, sizeof(p.versions), "CUPTI 13.0");
	snprintf(p.no_counters, sizeof(p.no_counters), "left out: x");
	nx_group_default(&p.group);
	ck_assert_int_eq(nx_profiled_add_trace(&p, trace, 3, &err), 0);
	p.ranges = calloc(2, sizeof(*p.ranges));
	ck_assert_ptr_nonnull(p.ranges);
	p.n_ranges = 2;
	for (int i = 0; i < 2; i++) {
		p.ranges[i] =
			(struct nx_ranged){.phase = i, .step = 3 * i, .rows = 7, .step_ns = 11};
		for (int k = 0; k < NX_GROUP_MAX; k++)
			p.ranges[i].values[k] = 100 * i + k;
	}
	p.ranges[1].values[1] = NAN;
	p.perturbed[NX_PHASE_DECODE] =
		(struct nx_perturbed){NX_PHASE_DECODE, 1, 2, 3, 4, 5, 6, 7, 8, 9};
}

static void teardown(void)
{
	nx_run_destroy(run);
	run = NULL;
	nx_profiled_release(&p);
	fixture_release(&f);
}

/* All trials of two cells, and what the instruments saw of the second. */
static void make(void)
{
	struct nx_shards *s = fixture_fill(&f, 2);
	ck_assert(!nx_profile_shard_has(nx_shards_dir(s), p.cell));
	ck_assert_msg(!nx_profile_shard_write(nx_shards_dir(s), &p, &err), "%s", err.msg);
	ck_assert(nx_profile_shard_has(nx_shards_dir(s), p.cell));
	ck_assert_msg(!nx_run_merge(s, f.output, &f.head, f.cells, FIXTURE_CELLS, &err), "%s",
	              err.msg);
	ck_assert_ptr_null(nx_shards_note(s));
	nx_shards_close(s);
	ck_assert_int_eq(access(f.parts, F_OK), -1);
}

START_TEST(it_comes_back_as_it_was)
{
	make();
	ck_assert_msg(!nx_run_read(&run, f.output, &err), "%s", err.msg);
	ck_assert_ptr_null(run->cells[0].profiled);
	const struct nx_profiled *q = run->cells[1].profiled;
	ck_assert_ptr_nonnull(q);
	ck_assert(q->n_steps == 9 && q->n_same == 8 && q->first_other == 4 &&
	          q->n_trace_steps == 3 && q->n_lost == 2 && q->trace_phase == NX_PHASE_VERIFY);
	ck_assert_str_eq(q->versions, "CUPTI 13.0");
	ck_assert_str_eq(q->no_counters, "left out: x");
	ck_assert_str_eq(q->no_trace, "");
	ck_assert(q->window_ns == 100 && q->busy_ns == 90 && q->n_records == 3);
	ck_assert_int_eq(q->group.n, p.group.n);
	ck_assert_str_eq(q->group.name, "default");
	for (int32_t i = 0; i < q->group.n; i++)
		ck_assert(!strcmp(q->group.m[i].name, p.group.m[i].name) &&
		          !strcmp(q->group.m[i].unit, p.group.m[i].unit) &&
		          q->group.m[i].figure == p.group.m[i].figure &&
		          q->group.m[i].times == p.group.m[i].times);
	ck_assert_uint_eq(q->n_ranges, 2);
	ck_assert(q->ranges[1].phase == 1 && q->ranges[1].step == 3 && q->ranges[1].rows == 7 &&
	          q->ranges[1].step_ns == 11 && q->ranges[1].values[0] == 100 &&
	          isnan(q->ranges[1].values[1]) && q->ranges[0].values[5] == 5);
	ck_assert_uint_eq(q->n_kernels, 3);
	ck_assert_str_eq(q->kernels[0].name, "gemm<bf16>");
	ck_assert(q->kernels[1].kind == NX_TRACE_COPY && q->kernels[2].kind == NX_TRACE_SET);
	ck_assert_mem_eq(&q->perturbed[NX_PHASE_DECODE], &p.perturbed[NX_PHASE_DECODE],
	                 sizeof(*p.perturbed));
	ck_assert_int_eq(q->perturbed[NX_PHASE_PREFILL].n_traced, 0);
	ck_assert_double_eq_tol(nx_profiled_perturbation(q, true), 3.0 / 4, 1e-12);
	ck_assert_double_eq_tol(nx_profiled_perturbation(q, false), 7.0 / 8, 1e-12);
	ck_assert_double_eq_tol(nx_profiled_figure(q, 0, NX_FIGURE_BYTES), 0 + 1, 1e-12);
	ck_assert(isnan(nx_profiled_figure(q, 1, NX_FIGURE_BYTES)));
}
END_TEST

START_TEST(one_that_is_damaged_costs_nothing_else)
{
	char path[1400];
	struct nx_shards *s = fixture_fill(&f, 2);
	nx_profile_shard_path(path, sizeof(path), nx_shards_dir(s), p.cell);
	FILE *out = fopen(path, "wb");
	ck_assert(out && fputs("no HDF5 at all", out) > 0 && !fclose(out));
	ck_assert_msg(!nx_run_merge(s, f.output, &f.head, f.cells, FIXTURE_CELLS, &err), "%s",
	              err.msg);
	ck_assert_ptr_nonnull(strstr(nx_shards_note(s), "what the instruments saw is lost"));
	nx_shards_close(s);
	ck_assert_msg(!nx_run_read(&run, f.output, &err), "%s", err.msg);
	ck_assert_ptr_null(run->cells[1].profiled);
	ck_assert_int_eq(run->cells[1].n_ok, 2);
}
END_TEST

/* Opens the cell's group of the run file for writing. */
static hid_t open_cell(hid_t *file)
{
	char name[64];
	make();
	*file = H5Fopen(f.output, H5F_ACC_RDWR, H5P_DEFAULT);
	ck_assert(*file >= 0);
	snprintf(name, sizeof(name), "cells/%s", p.cell);
	hid_t g = H5Gopen2(*file, name, H5P_DEFAULT);
	ck_assert(g >= 0);
	return g;
}

static void refuses(hid_t file, hid_t g, const char *says)
{
	H5Gclose(g);
	H5Fclose(file);
	ck_assert_int_eq(nx_run_read(&run, f.output, &err), NX_EFORMAT);
	ck_assert_msg(strstr(err.msg, says) != NULL, "%s", err.msg);
}

START_TEST(a_metric_without_its_column_is_refused)
{
	hid_t file, g = open_cell(&file);
	struct nx_metric_row row = {.name = "no column has this name", .times = 1};
	ck_assert_int_eq(
		nx_h5_append(g, "metrics", nx_schema_table(NX_TABLE_METRIC), &row, 1, &err), 0);
	refuses(file, g, "ranges has no column no column has this name");
}
END_TEST

START_TEST(a_metric_twice_is_refused)
{
	hid_t file, g = open_cell(&file);
	struct nx_metric_row row = {.times = 1};
	memcpy(row.name, p.group.m[0].name, sizeof(row.name));
	ck_assert_int_eq(
		nx_h5_append(g, "metrics", nx_schema_table(NX_TABLE_METRIC), &row, 1, &err), 0);
	refuses(file, g, "a name twice");
}
END_TEST

START_TEST(too_many_metrics_are_refused)
{
	hid_t file, g = open_cell(&file);
	struct nx_metric_row rows[NX_GROUP_MAX] = {0};
	for (int i = 0; i < NX_GROUP_MAX; i++)
		snprintf(rows[i].name, sizeof(rows[i].name), "m%d", i);
	ck_assert_int_eq(nx_h5_append(g, "metrics", nx_schema_table(NX_TABLE_METRIC), rows,
	                              NX_GROUP_MAX, &err),
	                 0);
	refuses(file, g, "are the most");
}
END_TEST

START_TEST(a_table_that_is_missing_is_refused)
{
	hid_t file, g = open_cell(&file);
	ck_assert(H5Ldelete(g, "kernels", H5P_DEFAULT) >= 0);
	refuses(file, g, "kernels is missing");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("record_profiled");
	TCase *t = tcase_create("profiled");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, it_comes_back_as_it_was);
	tcase_add_test(t, one_that_is_damaged_costs_nothing_else);
	tcase_add_test(t, a_metric_without_its_column_is_refused);
	tcase_add_test(t, a_metric_twice_is_refused);
	tcase_add_test(t, too_many_metrics_are_refused);
	tcase_add_test(t, a_table_that_is_missing_is_refused);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
