/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/trace.h: the shapes of a trace, its dates, and bad rows named at their line.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure/trace.h"
#include "measure/trace_internal.h"
#include "tiny_model.h"

static char path[] = "/tmp/nexus-trace-XXXXXX";
static struct nx_arena arena;
static struct nx_trace *t;
static struct nx_err err;

static void setup(void)
{
	memset(&err, 0, sizeof(err));
	t = NULL;
}

static void teardown(void)
{
	nx_arena_release(&arena);
}

static int read_bytes(const char *text, size_t n)
{
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(text, 1, n, f), n);
	fclose(f);
	t = NULL;
	return nx_trace_read(&arena, path, &t, &err);
}

static void read_ok(const char *text)
{
	int rc = read_bytes(text, strlen(text));
	ck_assert_msg(rc == 0, "%s", err.msg);
}

static void row_is(size_t i, uint64_t ns, int32_t n_in, int32_t n_out)
{
	ck_assert_uint_lt(i, t->n);
	ck_assert_uint_eq(t->rows[i].arrival_ns, ns);
	ck_assert_int_eq(t->rows[i].n_in, n_in);
	ck_assert_int_eq(t->rows[i].n_out, n_out);
}

START_TEST(known_shapes_are_read)
{
	/* Azure: dates of seven digits; a byte order mark, CRLF, a blank line */
	read_ok("\xef\xbb\xbfTIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n\r\n"
	        "2023-11-16 18:15:50.9951690,396,109\r\n");
	ck_assert_uint_eq(t->n, 2);
	row_is(0, 0, 374, 44);
	row_is(1, 4314579000u, 396, 109);
	/* Azure 2024: an offset; over midnight of a leap day */
	read_ok("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-28 23:59:59.5+00:00,1,2\n2024-03-01T01:00:00+01:00,3,4\n");
	row_is(1, 86400500000000u, 3, 4);
	/* plain numbers: seconds, or what the name says; other columns, quotes, spaces */
	read_ok("id, timestamp ,\"model, name\",input_length,output_length\n1,10.5,\"a, b\",7,8\n2, 11 ,c, 9 ,10\n");
	row_is(0, 0, 7, 8);
	row_is(1, 500000000, 9, 10);
	read_ok("timestamp_ms,prompt_tokens,completion_tokens\n-3,1,1\n27000,2,3\n");
	row_is(1, 27003000000u, 2, 3);
	read_ok("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,log\n");
	row_is(0, 0, 472, 18);
	/* Mooncake */
	read_ok("{\"timestamp\": 0, \"input_length\": 6758, \"output_length\": 500, \"hash_ids\": [0, 1, 46]}\n"
	        "{\"timestamp\": 27000.5, \"input_length\": 12, \"output_length\": 1}\n");
	row_is(0, 0, 6758, 500);
	row_is(1, 27000500000u, 12, 1);
	ck_assert_uint_eq(t->rows[0].n_blocks, 3);
	ck_assert_uint_eq(t->rows[0].blocks[2], 46);
	ck_assert_ptr_null(t->rows[1].blocks);
	read_ok("[{\"timestamp\": 5, \"input_length\": 1, \"output_length\": 1}]");
	ck_assert_uint_eq(t->n, 1);
	ck_assert_uint_eq(t->n_left_out, 0);
	/* Requests that failed have no output: they keep the clock, and nothing else. */
	read_ok("timestamp,input_length,output_length\n3,7,0\n4,8,9\n5,1,0\n");
	ck_assert_uint_eq(t->n, 1);
	ck_assert_uint_eq(t->n_left_out, 2);
	row_is(0, 1000000000, 8, 9);
}
END_TEST

#define HEAD "timestamp,input_length,output_length\n"

static const struct {
	const char *text, *want; /* want follows "path:" */
} wrong[] = {
	{"", "1: found no request with output; legal: at least one"},
	{HEAD, "1: found no request with output"},
	{HEAD "1,2,0\n", "1: found no request with output"},
	{HEAD "1,2,-1\n", "2: found \"-1\" as output length; legal: an integer from 0 to 1048576"},
	{"time,in,out\n1,2,3\n",
         "1: found the header \"time,in,out\", without a column for the time; legal: timestamp, timestamp_ms"},
	{"timestamp,input_length\n",
         "1: found the header \"timestamp,input_length\", without a column for output lengths; legal: GeneratedTokens, output_length"},
	{"timestamp,arrival,input_length,output_length\n",
         "1: found two columns (1 and 2) for the time"},
	{HEAD "1,2,3\n\n0.5,2,3\n",
         "4: found a time 0.5 s before that of the row above; legal: times that never go back"},
	{HEAD "1,2\n", "2: found 2 fields; legal: as many as the header has, 3 or more"},
	{HEAD "1,0,3\n", "2: found \"0\" as prompt length; legal: an integer from 1 to 1048576"},
	{HEAD "1,2,3.5\n", "2: found \"3.5\" as output length"},
	{HEAD "1,2,1048577\n", "2: found \"1048577\" as output length"},
	{HEAD "1,2,99999999999999999999\n", "2: found \"99999999999999999999\" as output length"},
	{HEAD "1,-2,3\n", "2: found \"-2\" as prompt length"},
	{HEAD "soon,2,3\n", "2: found \"soon\" as time; legal: a number, or a date"},
	{HEAD "1e300,2,3\n", "2: found \"1e300\" as time"},
	{HEAD "2023-02-29 00:00:00,2,3\n", "2: found \"2023-02-29 00:00:00\" as time"},
	{HEAD "2023-12-01 24:00:00,2,3\n", "2: found \"2023-12-01 24:00:00\" as time"},
	{HEAD "2023-12-01 20:00:00 x,2,3\n", "2: found \"2023-12-01 20:00:00 x\" as time"},
	{"{\"timestamp\": 1, \"input_length\": 2}\n",
         "1: found no output_length; legal: {\"timestamp\""},
	{"{\"timestamp\": \"1\", \"input_length\": 2, \"output_length\": 3}\n",
         "1: found a string for timestamp; legal: milliseconds"},
	{"{\"timestamp\": 1, \"input_length\": 2.0, \"output_length\": 3}\n",
         "1: found a number for input_length; legal: an integer from 1 to 1048576"},
	{"{\"timestamp\": 1, \"input_length\": 2, \"output_length\": -1}\n",
         "1: found a number out of range for output_length"},
	{"{\"timestamp\": 2, \"input_length\": 2, \"output_length\": 1}\n{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 1}\n",
         "2: found a time 0.001 s before"},
	{"{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 1, \"hash_ids\": [\"a\"]}\n",
         "1: found a string in hash_ids; legal: a list of integers"},
};

START_TEST(bad_rows_are_named)
{
	char want[512];
	snprintf(want, sizeof(want), "%s:%s", path, wrong[_i].want);
	ck_assert_int_eq(read_bytes(wrong[_i].text, strlen(wrong[_i].text)), NX_EFORMAT);
	ck_assert_msg(strncmp(err.msg, want, strlen(want)) == 0, "%s", err.msg);
	ck_assert_ptr_null(t);
}
END_TEST

START_TEST(broken_files_end_in_a_sentence)
{
	static const char csv
		[] = HEAD "1.5,20,30\n2023-11-16 18:15:46.68,\"7\",8\n",
	     json[] =
		     "{\"timestamp\": 1, \"input_length\": 2, \"output_length\": 3, \"hash_ids\": [1, 2]}\n",
	     dirt[] = ",\"\n\0\xff-0.eE:{[ ]}9";
	char text[sizeof(csv) + sizeof(json)];
	uint64_t seed = 3;
	int good = 0;
	for (int k = 0; k < 1500; k++) {
		size_t n = k % 2 ? sizeof(csv) - 1 : sizeof(json) - 1;
		memcpy(text, k % 2 ? csv : json, n);
		for (uint64_t i = nx_test_random(&seed) % 3 + 1; i > 0; i--)
			text[nx_test_random(&seed) % n] =
				dirt[nx_test_random(&seed) % (sizeof(dirt) - 1)];
		err = (struct nx_err){0};
		if (read_bytes(text, n) == 0)
			good++;
		else
			ck_assert(err.code && strncmp(err.msg, path, strlen(path)) == 0 &&
			          !strchr(err.msg, '\n'));
	}
	ck_assert_int_gt(good, 10);
	ck_assert_int_eq(read_bytes(HEAD "1,2,\0003\n", sizeof(HEAD "1,2,\0003\n") - 1),
	                 NX_EFORMAT);
	ck_assert_msg(strstr(err.msg, ":2: found a NUL byte; legal: CSV text") != NULL, "%s",
	              err.msg);
}
END_TEST

int main(void)
{
	int fd = mkstemp(path);
	if (fd < 0 || close(fd))
		return EXIT_FAILURE;
	Suite *s = suite_create("trace");
	TCase *c = tcase_create("files");
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, known_shapes_are_read);
	tcase_add_loop_test(c, bad_rows_are_named, 0, (int)(sizeof(wrong) / sizeof(*wrong)));
	tcase_add_test(c, broken_files_end_in_a_sentence);
	suite_add_tcase(s, c);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	unlink(path);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
