/* SPDX-License-Identifier: Apache-2.0
 *
 * base/: places, refusals and typed getters of YAML; near names, quantities, JSON lines, hashes, draws.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/text.h"
#include "base/yaml.h"

static struct nx_arena arena;
static struct nx_err err;

static void setup(void)
{
	memset(&arena, 0, sizeof(arena));
	memset(&err, 0, sizeof(err));
}

static void teardown(void)
{
	nx_arena_release(&arena);
}

static struct nx_yaml *parse(const char *text)
{
	struct nx_yaml *root = NULL;
	int rc = nx_yaml_parse(&arena, "t.yaml", text, strlen(text), &root, &err);
	ck_assert_msg(rc == 0, "%s", err.msg);
	return root;
}

START_TEST(nodes_know_their_places)
{
	struct nx_yaml *r = parse("# q\na: 1\nb:\n  - x\n  - {c: [1, two], d: 'q'}\n");
	ck_assert_int_eq(r->kind, NX_YAML_MAP);
	struct nx_yaml *b = nx_yaml_get(r, "b");
	ck_assert_int_eq(b->key->line, 3);
	ck_assert_int_eq(b->key->column, 1);
	ck_assert_int_eq(b->line, 4);
	ck_assert_int_eq(b->column, 3);
	struct nx_yaml *m = b->first->next;
	ck_assert_int_eq(m->line, 5);
	ck_assert_int_eq(m->column, 5);
	struct nx_yaml *two = nx_yaml_get(m, "c")->last;
	ck_assert_str_eq(two->text, "two");
	ck_assert_str_eq(two->label, "c");
	ck_assert_int_eq(two->line, 5);
	ck_assert_int_eq(two->column, 13);
	ck_assert_str_eq(nx_yaml_get(m, "d")->text, "q");
	ck_assert_uint_eq(r->n, 2);
}
END_TEST

static const struct {
	const char *text, *want;
} refused[] = {
	{"a: 1\nb: 2\na: 3\n",
         "t.yaml:3:1: found the key \"a\" a second time; legal: once (first in line 1)"},
	{"a: &x 1\n", "found an anchor (&); legal: values written out"},
	{"a: 1\nb: *x\n", "t.yaml:2:4: found"},
	{"a: !!str 1\n", "found a tag (!)"},
	{"<<: {a: 1}\n", "t.yaml:1:1: found a merge key"},
	{"a: 1\n---\nb: 2\n", "found a second document; legal: one"},
	{"[1, 2]: 3\n", "t.yaml:1:1: found a list as a key; legal: a name"},
	{"a: [1, 2\nb: 3\n", "found broken YAML ("},
	{"a:\n\tb: 1\n", "t.yaml:2:"},
	{"", "t.yaml:1:1: found nothing; legal: a mapping of keys"},
	{"# only a comment\n", "t.yaml:1:1: found nothing; legal: a mapping of keys"},
	{"a: 1 # caf\xe9\nb: 2\n", "t.yaml:1:11: found the byte 0xe9; legal: UTF-8 text"},
	{"a: 1 # \xf0\x9f\x98\x80 \x01\n", "t.yaml:1:10: found the byte 0x01; legal: UTF-8 text"},
	{"a: \"\\0\"\n", "t.yaml:1:4: found a NUL character"},
};

START_TEST(what_is_no_plain_tree_is_refused)
{
	struct nx_yaml *root = NULL;
	int rc = nx_yaml_parse(&arena, "t.yaml", refused[_i].text, strlen(refused[_i].text), &root,
	                       &err);
	ck_assert_int_eq(rc, NX_EFORMAT);
	ck_assert_msg(strstr(err.msg, refused[_i].want) != NULL, "%s", err.msg);
	ck_assert_ptr_null(strchr(err.msg, '\n'));
	ck_assert_ptr_null(root);
}
END_TEST

START_TEST(size_and_depth_are_bounded)
{
	struct nx_yaml *root = NULL;
	size_t n = NX_YAML_BYTES_MAX + 1;
	char *big = malloc(n);
	memset(big, '#', n);
	ck_assert_int_eq(nx_yaml_parse(&arena, "t.yaml", big, n, &root, &err), NX_EFORMAT);
	ck_assert_str_eq(err.msg, "t.yaml: found 1048577 bytes; legal: at most 1048576");
	char deep[81] = "";
	memset(deep, '[', 40);
	memset(deep + 40, ']', 40);
	ck_assert_int_eq(nx_yaml_parse(&arena, "t.yaml", deep, strlen(deep), &root, &err),
	                 NX_EFORMAT);
	ck_assert_str_eq(err.msg, "t.yaml:1:33: found more than 32 levels; legal: fewer");
	ck_assert_int_eq(nx_yaml_parse(&arena, "t.yaml", deep + 8, 64, &root, &err),
	                 0); /* 32 levels */
	ck_assert_int_eq(nx_yaml_parse(&arena, "t.yaml", "a: 1\nb\0: 2", 10, &root, &err),
	                 NX_EFORMAT);
	ck_assert_str_eq(err.msg, "t.yaml:2:2: found the byte 0x00; legal: UTF-8 text");
	free(big);
}
END_TEST

/* Each key is looked up among those before it: many of them would take minutes. */
START_TEST(keys_of_a_mapping_are_limited)
{
	struct nx_yaml *root = NULL;
	char text[16 * 1001], *at = text;
	for (int i = 0; i < 1001; i++)
		at += snprintf(at, (size_t)(text + sizeof(text) - at), "k%d: 1\n", i);
	ck_assert_int_eq(nx_yaml_parse(&arena, "t.yaml", text, (size_t)(at - text), &root, &err),
	                 NX_EFORMAT);
	ck_assert_str_eq(err.msg, "t.yaml:1001:1: found more than 1000 entries; legal: fewer");
	at = strrchr(text, 'k');
	ck_assert_int_eq(nx_yaml_parse(&arena, "t.yaml", text, (size_t)(at - text), &root, &err),
	                 0);
}
END_TEST

START_TEST(getters_tell_what_is_legal)
{
	struct nx_yaml *r = parse(
		"n: 12x\nlist: [1]\nbig: 99999999999\nbool: yes\nempty:\nsize: 3 parsecs\ncolour: rde\nok: 7\n");
	static const char *const colours[] = {"red", "green"};
	int32_t i;
	int k;
	bool b;
	uint64_t u;
	const char *s;
	ck_assert_int_eq(nx_yaml_i32(nx_yaml_get(r, "ok"), 1, 10, &i, &err), 0);
	ck_assert_int_eq(i, 7);
	ck_assert_int_eq(nx_yaml_i32(nx_yaml_get(r, "n"), 1, 10, &i, &err), NX_EINVAL);
	ck_assert_str_eq(err.msg,
	                 "t.yaml:1:4: found \"12x\" for n; legal: an integer from 1 to 10");
	nx_yaml_i32(nx_yaml_get(r, "list"), 1, 10, &i, &err);
	ck_assert_str_eq(err.msg,
	                 "t.yaml:2:7: found a list for list; legal: an integer from 1 to 10");
	nx_yaml_i32(nx_yaml_get(r, "big"), 1, 10, &i, &err);
	ck_assert_str_eq(
		err.msg,
		"t.yaml:3:6: found \"99999999999\" for big; legal: an integer from 1 to 10");
	nx_yaml_bool(nx_yaml_get(r, "bool"), &b, &err);
	ck_assert_str_eq(err.msg, "t.yaml:4:7: found \"yes\" for bool; legal: true, false");
	nx_yaml_text(nx_yaml_get(r, "empty"), "a path", &s, &err);
	ck_assert_msg(strstr(err.msg, "found nothing for empty; legal: a path") != NULL, "%s",
	              err.msg);
	ck_assert_msg(strncmp(err.msg, "t.yaml:5:", 9) == 0, "%s", err.msg);
	nx_yaml_size(nx_yaml_get(r, "size"), &u, &err);
	ck_assert_msg(strstr(err.msg, "t.yaml:6:7: found \"3 parsecs\" for size; legal: bytes") !=
	                      NULL,
	              "%s", err.msg);
	nx_yaml_choice(nx_yaml_get(r, "colour"), colours, 2, &k, &err);
	ck_assert_str_eq(
		err.msg,
		"t.yaml:7:9: found \"rde\" for colour; legal: red, green; did you mean \"red\"?");
}
END_TEST

START_TEST(near_names_need_to_be_near)
{
	static const char *const names[] = {"batch_size", "seq_len", "output_len",
	                                    "flash_attention"};
	ck_assert_str_eq(nx_near_name("bach_size", names, 4), "batch_size");
	ck_assert_str_eq(nx_near_name("Batch-Size", names, 4), "batch_size");
	ck_assert_str_eq(nx_near_name("sqe_len", names, 4), "seq_len");
	ck_assert_str_eq(nx_near_name("flash", names, 4), "flash_attention");
	ck_assert_ptr_null(nx_near_name("zzz", names, 4));
	ck_assert_ptr_null(nx_near_name("", names, 4));
	ck_assert_ptr_null(nx_near_name("fl", names, 4));
	char buf[24];
	ck_assert_str_eq(nx_list_text(buf, sizeof(buf), names, 4), "batch_size, ...");
	ck_assert_str_eq(nx_quote(buf, sizeof(buf), "a\x1b\xff"), "\"a\\x1b\\xff\"");
	char wide[100];
	nx_quote(wide, sizeof(wide),
	         "0123456789012345678901234567890123456789012345678901234567890123456789");
	ck_assert_uint_lt(strlen(wide), 70);
	ck_assert_ptr_nonnull(strstr(wide, "...\""));
}
END_TEST

START_TEST(quantities_have_units)
{
	uint64_t b;
	double s;
	int64_t i;
	ck_assert_int_eq(nx_parse_size("64MiB", &b), 0);
	ck_assert_uint_eq(b, 64u << 20);
	ck_assert_int_eq(nx_parse_size("2 GB", &b), 0);
	ck_assert_uint_eq(b, 2000000000);
	ck_assert_int_eq(nx_parse_size("1.5KiB", &b), 0);
	ck_assert_uint_eq(b, 1536);
	ck_assert_int_eq(nx_parse_size("512", &b), 0);
	ck_assert_int_lt(nx_parse_size("-1", &b), 0);
	ck_assert_int_lt(nx_parse_size("1e400TB", &b), 0);
	ck_assert_int_lt(nx_parse_size("99999999999TiB", &b), 0);
	ck_assert_int_lt(nx_parse_size("5 mb", &b), 0);
	ck_assert_int_eq(nx_parse_duration("250ms", &s), 0);
	ck_assert(fabs(s - 0.25) < 1e-12);
	ck_assert_int_eq(nx_parse_duration("2min", &s), 0);
	ck_assert(fabs(s - 120) < 1e-9);
	ck_assert_int_lt(nx_parse_duration("soon", &s), 0);
	ck_assert_int_lt(nx_parse_double("nan", &s), 0);
	ck_assert_int_lt(nx_parse_double("0x10", &s), 0);
	ck_assert_int_lt(nx_parse_i64(" 1", &i), 0);
	ck_assert_int_lt(nx_parse_i64("9999999999999999999", &i), 0);
}
END_TEST

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

START_TEST(json_lines_know_their_lines)
{
	char dir[] = "/tmp/nexus-test-XXXXXX";
	ck_assert_ptr_nonnull(mkdtemp(dir));
	char path[64];
	snprintf(path, sizeof(path), "%s/a.jsonl", dir);
	static const struct {
		const char *text, *want;
		int n;
	} cases[] = {
		{"{\"a\": 1}\n\n  \r\n{\"a\": 2}", NULL, 2},
		{"{\"a\": 1}\n[1]\n", ":2: found a list; legal: one JSON object a line", 1},
		{"{\"a\": 1}\n{\"a\": }\n", ":2:7: found broken JSON (", 1},
		{"{\"a\": 1, \"a\": 2}\n", ":1:", 0},
		{"{\"a\": \"\xff\"}\n", ":1:", 0},
		{"{} x\n", ":1:", 0},
		/* one list */
		{"[]", NULL, 0},
		{" \n[{\"a\": 1},\n{\"b\": \"]}\\\"{\"} ]\n", NULL, 2},
		{"\xef\xbb\xbf[{}]", NULL, 1},
		{"[{}, {},]", ":1: entry 3: found \"]\"; legal: a list of JSON objects with commas",
	         2},
		{"[{}\n{}]", ":2: entry 2: found \"{\"; legal: a list", 1},
		{"[{},\n 7]", ":2: entry 2: found \"7\"; legal: a list", 1},
		{"[{}] x", ":1: entry 1: found \"x\" after the list; legal: nothing", 1},
		{"[{}, {\"a\": [1, 2}", ":1: entry 2: found the end of the file inside an object",
	         1},
		{"[{},\n{\"a\":\n tru}]", ":3: entry 2: found broken JSON (", 1},
		{"[{}", ":1: entry 2: found the end of the file; legal: a list", 1},
		{"[{\"a\": \"\\", ":1: entry 1: found the end of the file inside", 0},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct nx_jsonl r;
		json_t *v;
		int n = 0, rc;
		write_text(path, cases[i].text);
		ck_assert_int_eq(nx_jsonl_init(&r, path, &err), 0);
		while ((rc = nx_jsonl_next(&r, &v, &err)) == 1) {
			json_decref(v);
			n++;
		}
		ck_assert_int_eq(rc, cases[i].want ? NX_EFORMAT : 0);
		ck_assert_int_eq(n, cases[i].n);
		if (cases[i].want)
			ck_assert_msg(strstr(err.msg, cases[i].want) != NULL, "%s", err.msg);
		nx_jsonl_release(&r);
	}
	struct nx_jsonl r;
	ck_assert_int_eq(nx_jsonl_init(&r, dir, &err), NX_EIO);
	ck_assert_msg(strstr(err.msg, "found no regular file") != NULL, "%s", err.msg);
	nx_jsonl_release(&r);
	unlink(path);
	rmdir(dir);
}
END_TEST

/* Text that is no Unicode is passed over where that is asked for; what is no JSON never is. */
START_TEST(json_with_bad_text_can_be_passed_over)
{
	char path[] = "/tmp/nexus-test-XXXXXX";
	int fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	close(fd);
	write_text(path, "[{\"a\": \"\\ud83d\"}, {\"a\": \"\xff\"}, {\"a\": \"x\\u0000y\"},\n"
	                 " {\"a\": \"\\ud83d\\ude00\"}, {\"a\": \"\\udc00 b\"}]\n");
	for (int skip = 0; skip < 2; skip++) {
		struct nx_jsonl r;
		json_t *v;
		ck_assert_int_eq(nx_jsonl_init(&r, path, &err), 0);
		r.skip_bad_text = skip;
		int rc = nx_jsonl_next(&r, &v, &err);
		ck_assert_int_eq(rc, skip ? 1 : NX_EFORMAT);
		if (!skip) {
			ck_assert_msg(strstr(err.msg, ":1: entry 1: found broken JSON (") != NULL,
			              "%s", err.msg);
		} else {
			ck_assert_str_eq(json_string_value(json_object_get(v, "a")),
			                 "\xf0\x9f\x98\x80");
			ck_assert_int_eq(r.line, 2);
			ck_assert_int_eq((int)r.entry, 4);
			json_decref(v);
			ck_assert_int_eq(nx_jsonl_next(&r, &v, &err), 0);
			ck_assert_int_eq((int)r.n_bad_text, 4);
		}
		nx_jsonl_release(&r);
	}
	write_text(path, "{\"a\": \"\t\"}\n");
	struct nx_jsonl r;
	json_t *v;
	ck_assert_int_eq(nx_jsonl_init(&r, path, &err), 0);
	r.skip_bad_text = true;
	ck_assert_int_eq(nx_jsonl_next(&r, &v, &err), NX_EFORMAT);
	nx_jsonl_release(&r);
	unlink(path);
}
END_TEST

/* Objects that are longer than what is read at a time, at every place of their brackets and quotes, and objects
 * beyond the limits. */
START_TEST(json_lists_are_streams)
{
	char path[] = "/tmp/nexus-test-XXXXXX";
	int fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	FILE *f = fdopen(fd, "w");
	ck_assert_ptr_nonnull(f);
	fputc('[', f);
	size_t sizes[40];
	for (int i = 0; i < 40; i++) {
		sizes[i] = ((size_t)1 << 18) - 30 + (size_t)i * 2;
		fprintf(f, "%s{\"a\": \"", i ? ", " : "");
		for (size_t k = 0; k < sizes[i]; k++)
			fputs("\\\"", f); /* an escaped quote */
		fputs("\"}", f);
	}
	fputs("]", f);
	ck_assert_int_eq(fclose(f), 0);
	struct nx_jsonl r;
	json_t *v;
	ck_assert_int_eq(nx_jsonl_init(&r, path, &err), 0);
	for (int i = 0; i < 40; i++) {
		ck_assert_msg(nx_jsonl_next(&r, &v, &err) == 1, "%s", err.msg);
		ck_assert_uint_eq(json_string_length(json_object_get(v, "a")), sizes[i]);
		json_decref(v);
	}
	ck_assert_int_eq(nx_jsonl_next(&r, &v, &err), 0);
	ck_assert_uint_lt(r.cap, (size_t)4 << 20); /* of 21 MB */
	nx_jsonl_release(&r);

	f = fopen(path, "w");
	ck_assert_ptr_nonnull(f);
	fputs("[{\"a\": ", f);
	for (int i = 0; i < 100; i++)
		fputc('[', f);
	fclose(f);
	ck_assert_int_eq(nx_jsonl_init(&r, path, &err), 0);
	ck_assert_int_eq(nx_jsonl_next(&r, &v, &err), NX_EFORMAT);
	ck_assert_msg(strstr(err.msg, "entry 1: found more than 64 levels") != NULL, "%s", err.msg);
	nx_jsonl_release(&r);

	for (int list = 0; list < 2; list++) {
		f = fopen(path, "w");
		ck_assert_ptr_nonnull(f);
		fputs(list ? "[{\"a\": \"" : "{\"a\": \"", f);
		for (int i = 0; i < (16 << 20) + 9; i++)
			fputc('x', f);
		fputs("\"}]", f);
		fclose(f);
		ck_assert_int_eq(nx_jsonl_init(&r, path, &err), 0);
		ck_assert_int_eq(nx_jsonl_next(&r, &v, &err), NX_EFORMAT);
		ck_assert_msg(strstr(err.msg, "of more than 16777216 bytes") != NULL, "%s",
		              err.msg);
		nx_jsonl_release(&r);
	}
	unlink(path);
}
END_TEST

START_TEST(hashes_and_draws_are_fixed)
{
	struct nx_hash a, b;
	nx_hash_init(&a);
	nx_hash_str(&a, "ab");
	nx_hash_str(&a, "c");
	nx_hash_init(&b);
	nx_hash_str(&b, "a");
	nx_hash_str(&b, "bc");
	ck_assert_uint_ne(nx_hash_value(&a), nx_hash_value(&b));
	/* FNV-1a of "a" is af63dc4c8601ec8c (published test vector). */
	nx_hash_init(&a);
	nx_hash_bytes(&a, "a", 1);
	ck_assert_uint_eq(a.h, 0xaf63dc4c8601ec8cu);
	/* splitmix64 from 0: published first value. */
	struct nx_rng r = {0};
	ck_assert_uint_eq(nx_rng_next(&r), 0xe220a8397b1dcdafu);
	uint32_t p[64];
	int seen[64] = {0};
	for (uint32_t i = 0; i < 64; i++)
		p[i] = i;
	nx_rng_shuffle(&r, p, 64);
	for (int i = 0; i < 64; i++)
		seen[p[i]]++;
	for (int i = 0; i < 64; i++)
		ck_assert_int_eq(seen[i], 1);
	double sum = 0;
	for (int i = 0; i < 20000; i++)
		sum += (double)nx_rng_below(&r, 7);
	ck_assert(fabs(sum / 20000 - 3) < 0.06); /* 4 sigma of the mean: 4 * 2 / sqrt(20000) */
}
END_TEST

int main(void)
{
	Suite *s = suite_create("yaml");
	TCase *t = tcase_create("base");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, nodes_know_their_places);
	tcase_add_loop_test(t, what_is_no_plain_tree_is_refused, 0,
	                    (int)(sizeof(refused) / sizeof(*refused)));
	tcase_add_test(t, size_and_depth_are_bounded);
	tcase_add_test(t, keys_of_a_mapping_are_limited);
	tcase_add_test(t, getters_tell_what_is_legal);
	tcase_add_test(t, near_names_need_to_be_near);
	tcase_add_test(t, quantities_have_units);
	tcase_add_test(t, json_lines_know_their_lines);
	tcase_add_test(t, json_with_bad_text_can_be_passed_over);
	tcase_add_test(t, json_lists_are_streams);
	tcase_add_test(t, hashes_and_draws_are_fixed);
	suite_add_tcase(s, t);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
