/* SPDX-License-Identifier: Apache-2.0 */
/* Run files that were made to hurt: every one is refused with one sentence. */
#include <check.h>
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "record/schema.h"
#include "record_fixture.h"

static struct fixture f;
static struct nx_err err;

static void setup(void)
{
	fixture_init(&f);
}

static void teardown(void)
{
	fixture_release(&f);
}

static void refuses(const char *word)
{
	struct nx_run *r;

	memset(&err, 0, sizeof(err));
	ck_assert_msg(nx_run_read(&r, f.output, &err) != 0, "read a file without %s", word);
	ck_assert_msg(strstr(err.msg, word) && strstr(err.msg, f.output), "wanted '%s', got '%s'",
	              word, err.msg);
}

static hid_t reopen(void)
{
	hid_t file = H5Fopen(f.output, H5F_ACC_RDWR, H5P_DEFAULT);
	ck_assert(file >= 0);
	return file;
}

START_TEST(a_file_that_is_none_is_refused)
{
	refuses("No such file");
	fixture_put_file(f.dir, "run.h5", "text", 4);
	refuses("HDF5");
	nx_h5_close(H5Fcreate(f.output, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
	refuses("schema_version");
}
END_TEST

START_TEST(another_schema_is_refused)
{
	fixture_run(&f);
	hid_t file = reopen();
	H5Adelete(file, "schema_version");
	nx_h5_write_int(file, "schema_version", 99, NULL);
	nx_h5_close(file);
	refuses("schema version is 99");
}
END_TEST

/* Whatever is taken out, one sentence names it. */
START_TEST(missing_parts_are_named)
{
	static const char *const parts[] = {"summary",
	                                    "trials",
	                                    "calibration",
	                                    "config",
	                                    "provenance",
	                                    "cells",
	                                    "config/text",
	                                    "config/stack_names",
	                                    "provenance/facts",
	                                    "provenance/device",
	                                    "cells/00000000000000a1",
	                                    "cells/00000000000000a1/requests",
	                                    "cells/00000000000000a1/counters"};
	struct nx_arena arena = {0};
	char *whole;
	size_t size;
	fixture_run(&f);
	ck_assert_msg(!nx_file_read(&arena, f.output, 1 << 26, &whole, &size, &err), "%s", err.msg);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		const char *name = strrchr(parts[i], '/');
		fixture_put_file(f.dir, "run.h5", whole, size);
		hid_t file = reopen();
		ck_assert(H5Ldelete(file, parts[i], H5P_DEFAULT) >= 0);
		nx_h5_close(file);
		refuses(name ? name + 1 : parts[i]);
	}
	nx_arena_release(&arena);
}
END_TEST

/* Replaces /summary by an array of ints with the given extent and chunks. */
static void fake_summary(hid_t type, hsize_t n, hsize_t chunk)
{
	hid_t file = reopen(), space = H5Screate_simple(1, &n, NULL),
	      plist = H5Pcreate(H5P_DATASET_CREATE);

	H5Ldelete(file, "summary", H5P_DEFAULT);
	if (chunk)
		H5Pset_chunk(plist, 1, &chunk);
	hid_t d = H5Dcreate2(file, "summary", type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
	ck_assert(d >= 0);
	if (n <= 16) { /* stored, so that the types are what is wrong */
		static const char zeros[1024];
		ck_assert(H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros) >= 0);
	}
	H5Dclose(d);
	H5Pclose(plist);
	H5Sclose(space);
	nx_h5_close(file);
}

START_TEST(wrong_types_and_sizes_are_refused)
{
	fixture_run(&f);
	fake_summary(H5T_NATIVE_INT, 4, 0);
	refuses("named columns");
	fake_summary(H5T_NATIVE_INT, (hsize_t)1 << 40,
	             1 << 20); /* four terabytes, none of them stored */
	refuses("rows");
	fake_summary(H5T_NATIVE_INT, (hsize_t)1 << 31, (hsize_t)1 << 29);
	refuses("chunks");

	hid_t t = H5Tcreate(H5T_COMPOUND, 8), s = H5Tcopy(H5T_C_S1);
	H5Tset_size(s, H5T_VARIABLE);
	H5Tinsert(t, "cell", 0, s); /* a pointer where fixed text belongs */
	fake_summary(t, 4, 0);
	refuses("no column cell");
	H5Tclose(s);
	H5Tclose(t);
}
END_TEST

START_TEST(links_out_of_the_file_are_not_followed)
{
	fixture_run(&f);
	hid_t file = reopen();
	H5Ldelete(file, "summary", H5P_DEFAULT);
	H5Lcreate_external("/etc/passwd", "/x", file, "summary", H5P_DEFAULT, H5P_DEFAULT);
	nx_h5_close(file);
	refuses("link");
}
END_TEST

START_TEST(a_file_cut_anywhere_is_refused)
{
	struct stat st;

	fixture_run(&f);
	ck_assert_int_eq(stat(f.output, &st), 0);
	for (int i = 19; i >= 0; i--) {
		ck_assert_int_eq(truncate(f.output, st.st_size * i / 20), 0);
		refuses("HDF5");
	}
}
END_TEST

START_TEST(counts_of_any_size_are_added)
{
	struct nx_shards *s;
	struct nx_trial t;
	struct nx_run *r = NULL;

	ck_assert_int_eq(nx_shards_open(&s, f.output, &f.head, true, false, &err), 0);
	for (int round = 0; round < 2; round++) {
		fixture_trial(&f, 0, round, &t);
		t.phases[NX_PHASE_DECODE].n_steps = INT64_MAX;
		t.phases[NX_PHASE_DECODE].n_preempted = INT32_MAX;
		ck_assert_int_eq(nx_shards_write(s, &t, &err), 0);
		nx_trial_release(&t);
	}
	ck_assert_int_eq(nx_run_merge(s, f.output, &f.head, f.cells, 1, &err), 0);
	nx_shards_close(s);
	ck_assert_msg(nx_run_read(&r, f.output, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(r->cells[0].phases[NX_PHASE_DECODE].n_steps, INT64_MAX);
	ck_assert_int_eq(r->cells[0].phases[NX_PHASE_DECODE].n_preempted, INT32_MAX);
	nx_run_destroy(r);
}
END_TEST

/* Half a minute, were all trials searched for each round. */
START_TEST(a_far_round_costs_no_time)
{
	enum { N = 20000 };
	struct nx_trial_row *rows = calloc(N, sizeof(*rows));
	struct nx_run *r = NULL;

	ck_assert_ptr_nonnull(rows);
	fixture_run(&f);
	hid_t file = reopen();
	for (int i = 0; i < N; i++) {
		snprintf(rows[i].cell, sizeof(rows[i].cell), "%s", f.cells[0].id);
		snprintf(rows[i].status, sizeof(rows[i].status), "ok");
		rows[i].round = 1000000 - i;
	}
	ck_assert(H5Ldelete(file, "trials", H5P_DEFAULT) >= 0);
	ck_assert_int_eq(
		nx_h5_append(file, "trials", nx_schema_table(NX_TABLE_TRIAL), rows, N, &err), 0);
	nx_h5_close(file);
	free(rows);
	clock_t began = clock();
	ck_assert_msg(nx_run_read(&r, f.output, &err) == 0, "%s", err.msg);
	ck_assert_int_lt((clock() - began) / CLOCKS_PER_SEC, 5);
	nx_run_destroy(r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("record_hostile");
	TCase *tc = tcase_create("record_hostile");

	tcase_set_timeout(tc, 240);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_file_that_is_none_is_refused);
	tcase_add_test(tc, another_schema_is_refused);
	tcase_add_test(tc, missing_parts_are_named);
	tcase_add_test(tc, wrong_types_and_sizes_are_refused);
	tcase_add_test(tc, links_out_of_the_file_are_not_followed);
	tcase_add_test(tc, a_file_cut_anywhere_is_refused);
	tcase_add_test(tc, counts_of_any_size_are_added);
	tcase_add_test(tc, a_far_round_costs_no_time);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
