/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fuzz_corpus.c: every fuzz target with every file of its corpus, and with some hundred spoilt copies of them.
 * The copies depend on target, file and number alone. What is being tried stands in the log before it is
 * tried; NEXUS_FUZZ_DUMP=<folder> keeps each input there (see fuzz/README.md).
 *
 * NEXUS_FUZZ_SEEDS=<folder> makes run_files_of_this_schema write its files there: seeds of fuzz/corpus/run_file.
 */
#include <check.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "fuzz/fuzz.h"
#include "record/schema.h"
#include "record_fixture.h"
#include "tiny_model.h"

#define FILES_MAX 2000
#define MUTANTS 400      /* of a target */
#define RUN_MUTANTS 100  /* of one that reads run files, which takes longer */
#define INPUT_MAX 100000 /* bytes of a mutant */

struct input {
	char name[256];
	uint8_t *data;
	size_t size;
};

struct corpus {
	const struct fuzz_target *target;
	struct input *files;
	int n;
};

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct input *)a)->name, ((const struct input *)b)->name);
}

static void corpus_open(struct corpus *c, const char *target)
{
	char rel[300], dir[1024], path[1400];
	*c = (struct corpus){.target = fuzz_targets()};
	while (c->target && strcmp(c->target->name, target) != 0)
		c->target = c->target->next;
	ck_assert_msg(c->target != NULL, "there is no target %s", target);
	c->files = calloc(FILES_MAX, sizeof(*c->files));
	ck_assert_ptr_nonnull(c->files);
	snprintf(rel, sizeof(rel), "harness/test/fuzz/corpus/%s", target);
	nx_test_source_path(dir, sizeof(dir), rel);
	DIR *d = opendir(dir);
	for (struct dirent *e; d && c->n < FILES_MAX && (e = readdir(d));) {
		struct input *in = &c->files[c->n];
		struct nx_err err = {0};
		if (e->d_name[0] == '.')
			continue;
		snprintf(in->name, sizeof(in->name), "%s", e->d_name);
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		ck_assert_msg(!nx_test_read_file(path, &in->data, &in->size, &err), "%s", err.msg);
		c->n++;
	}
	if (d)
		closedir(d);
	qsort(c->files, (size_t)c->n, sizeof(*c->files), by_name);
	ck_assert_msg(c->n > 0, "%s is empty", dir);
}

static void corpus_close(struct corpus *c)
{
	for (int i = 0; i < c->n; i++)
		free(c->files[i].data);
	free(c->files);
}

static const char *target_at(int i)
{
	const struct fuzz_target *t = fuzz_targets();
	while (i-- > 0)
		t = t->next;
	return t->name;
}

static void try(const struct fuzz_target *t, const char *what, const uint8_t *data, size_t size)
{
	const char *dump = getenv("NEXUS_FUZZ_DUMP");
	char path[1024];
	if (dump && *dump) {
		snprintf(path, sizeof(path), "%s/%s", dump, t->name);
		ck_assert_int_eq(nx_test_write_file(path, data, size, NULL), 0);
	}
	fprintf(stderr, "%s: %s\n", t->name, what);
	/* A copy of the exact size, so that a byte too far is seen. */
	uint8_t *copy = malloc(size ? size : 1);
	ck_assert_ptr_nonnull(copy);
	if (size)
		memcpy(copy, data, size);
	ck_assert_int_eq(t->run(copy, size), 0);
	free(copy);
}

/* A corpus that is refused as a whole would try nothing but the first check. */
START_TEST(every_file_of_a_corpus_is_survived_and_some_are_accepted)
{
	struct corpus c;
	corpus_open(&c, target_at(_i));
	for (int i = 0; i < c.n; i++)
		try(c.target, c.files[i].name, c.files[i].data, c.files[i].size);
	ck_assert_msg(fuzz_tally.accepted > 0, "no file of %s's corpus is accepted",
	              c.target->name);
	corpus_close(&c);
}
END_TEST

/* ---- mutants ---------------------------------------------------------------------------------- */

static uint64_t below(uint64_t *rng, uint64_t n)
{
	return n ? nx_test_random(rng) % n : 0;
}

static void put_number(uint8_t *data, size_t size, uint64_t *rng)
{
	static const uint64_t numbers[] = {
		0,          1,          0x7f,       0x80,       0xff,       0x7fff,     0xffff,
		0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32, 1ull << 62, 1ull << 63, UINT64_MAX,
		32,         64,         0x7ff00000, 1000000,    10,         '"',        '\n'};
	uint64_t v = numbers[below(rng, sizeof(numbers) / sizeof(numbers[0]))];
	size_t width = (size_t)1 << below(rng, 4);
	if (size < width)
		return;
	memcpy(data + below(rng, size - width + 1), &v, width);
}

/* A stretch is taken out, doubled, or filled from another file. */
static size_t move_stretch(uint8_t *data, size_t size, const struct input *other, uint64_t *rng)
{
	size_t at = below(rng, size + 1), n = below(rng, size - at + 1);
	n = n > 1 && below(rng, 2) ? n % 64 + 1 : n;
	if (n > size - at)
		n = size - at;
	switch (below(rng, 3)) {
	case 0: memmove(data + at, data + at + n, size - at - n); return size - n;
	case 1:
		if (size + n > INPUT_MAX)
			return size;
		memmove(data + at + n, data + at, size - at);
		return size + n;
	default:
		if (n > other->size)
			n = other->size;
		if (n)
			memcpy(data + at, other->data + below(rng, other->size - n + 1), n);
		return size;
	}
}

static size_t spoil(uint8_t *data, size_t size, const struct input *other, uint64_t *rng)
{
	for (uint64_t n = 1 + below(rng, 4); n; n--) {
		switch (below(rng, 6)) {
		case 0:
		case 1:
			if (size)
				data[below(rng, size)] ^= (uint8_t)(1u << below(rng, 8));
			break;
		case 2:
			if (size)
				data[below(rng, size)] = (uint8_t)below(rng, 256);
			break;
		case 3: put_number(data, size, rng); break;
		case 4: size = move_stretch(data, size, other, rng); break;
		default:
			if (below(rng, 4) == 0)
				size = below(rng, size + 1); /* cut */
		}
	}
	return size;
}

static uint64_t seed_of(const struct input *in, int i)
{
	struct nx_hash h;
	nx_hash_init(&h);
	nx_hash_bytes(&h, in->data, in->size);
	return h.h ^ (uint64_t)i;
}

START_TEST(spoilt_copies_are_survived_and_some_are_refused)
{
	struct corpus c;
	char what[400];
	uint8_t *data = malloc(INPUT_MAX);
	ck_assert_ptr_nonnull(data);
	corpus_open(&c, target_at(_i));
	const int n = strncmp(c.target->name, "run_", 4) == 0 ? RUN_MUTANTS : MUTANTS;
	for (int i = 0; i < n; i++) {
		const struct input *in = &c.files[i % c.n];
		uint64_t rng = seed_of(in, i);
		const struct input *other = &c.files[below(&rng, (uint64_t)c.n)];
		size_t size = in->size < INPUT_MAX ? in->size : INPUT_MAX;
		if (size)
			memcpy(data, in->data, size);
		size = spoil(data, size, other, &rng);
		snprintf(what, sizeof(what), "%s, mutant %d", in->name, i);
		try(c.target, what, data, size);
	}
	ck_assert_msg(fuzz_tally.refused > 0 || strcmp(c.target->name, "dequant") == 0,
	              "no mutant of %s is refused", c.target->name);
	free(data);
	corpus_close(&c);
}
END_TEST

/* ---- the machinery itself --------------------------------------------------------------------- */

START_TEST(a_refusal_of_two_lines_is_a_finding)
{
	struct nx_err err = {.code = NX_EFORMAT, .msg = "two\nlines"};
	fuzz_told(NX_EFORMAT, &err);
}
END_TEST

START_TEST(a_sentence_is_one_line_whatever_it_quotes)
{
	struct nx_err err = {0};
	ck_assert_int_eq(nx_fail(&err, NX_EINVAL, "found %s", "a\nb\tc \x1b[31m\x7f \xc3\xa9"),
	                 NX_EINVAL);
	ck_assert_str_eq(err.msg, "found a b c ?[31m? \xc3\xa9");
	fuzz_told(NX_EINVAL, &err);
}
END_TEST

START_TEST(a_refusal_without_words_is_a_finding)
{
	struct nx_err err = {.code = NX_EFORMAT};
	fuzz_told(NX_EFORMAT, &err);
}
END_TEST

static void try_run_file(const char *path, const char *name)
{
	const struct fuzz_target *t = fuzz_targets();
	const char *keep = getenv("NEXUS_FUZZ_SEEDS");
	struct nx_err err = {0};
	char to[1024];
	uint8_t *data;
	size_t size;
	uint64_t before = fuzz_tally.accepted;
	while (strcmp(t->name, "run_file") != 0)
		t = t->next;
	ck_assert_msg(!nx_test_read_file(path, &data, &size, &err), "%s", err.msg);
	try(t, name, data, size);
	ck_assert_msg(fuzz_tally.accepted > before, "%s is refused", path);
	if (keep && *keep) {
		snprintf(to, sizeof(to), "%s/%s", keep, name);
		ck_assert_int_eq(nx_test_write_file(to, data, size, NULL), 0);
	}
	free(data);
}

/* The corpus may hold run files of an older day; these are what is written now. */
START_TEST(run_files_of_this_schema_are_accepted)
{
	struct fixture f;
	struct nx_err err = {0};
	char shard[600];
	fixture_init(&f);
	struct nx_shards *s = fixture_fill(&f, 1);
	nx_shard_path(shard, sizeof(shard), f.parts, f.cells[1].id, 0);
	try_run_file(shard, "shard.h5");
	ck_assert_msg(!nx_run_merge(s, f.output, &f.head, f.cells, 2, &err), "%s", err.msg);
	nx_shards_close(s);
	try_run_file(f.output, "run.h5");
	fixture_release(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("fuzz_corpus");
	TCase *tc = tcase_create("fuzz_corpus");
	int n = 0;
	for (const struct fuzz_target *t = fuzz_targets(); t; t = t->next)
		n++;
	tcase_set_timeout(tc, 20);
	tcase_add_loop_test(tc, every_file_of_a_corpus_is_survived_and_some_are_accepted, 0, n);
	tcase_add_loop_test(tc, spoilt_copies_are_survived_and_some_are_refused, 0, n);
	tcase_add_test(tc, run_files_of_this_schema_are_accepted);
	tcase_add_test(tc, a_sentence_is_one_line_whatever_it_quotes);
	tcase_add_test_raise_signal(tc, a_refusal_of_two_lines_is_a_finding, SIGABRT);
	tcase_add_test_raise_signal(tc, a_refusal_without_words_is_a_finding, SIGABRT);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
