/* SPDX-License-Identifier: Apache-2.0
 *
 * test_prompt_lookup.c: what is drafted, against a search of the whole sequence; and that an index never outlives
 * its sequence.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"

#define PLACES 4
#define LONGEST 256 /* the fake host's max_len */
#define MAX_ROWS 64

static uint32_t next(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

struct text {
	int32_t tokens[LONGEST];
	int32_t n;
};

static void append(struct text *t, int32_t token)
{
	ck_assert_int_lt(t->n, LONGEST);
	t->tokens[t->n++] = token;
}

static struct nx_draft_seq seq_of(const struct text *t, int32_t place, uint32_t request,
                                  uint32_t sample, int32_t cap)
{
	return (struct nx_draft_seq){.seq = place,
	                             .request = request,
	                             .sample = sample,
	                             .cap = cap,
	                             .tokens = t->tokens,
	                             .n_tokens = t->n,
	                             .n_prompt = 1,
	                             .max_out = 10000,
	                             .last_drafted = -1,
	                             .last_accepted = -1};
}

static int32_t propose(struct fake_host *f, const struct nx_draft_seq *s, struct nx_draft_row *rows)
{
	return f->plugin.technique->propose(f->self, s, rows);
}

/* The rule, by looking everywhere: longest suffix first, latest or first earlier occurrence, copied on. */
static int32_t oracle(const int32_t *t, int32_t n, int32_t lo, int32_t hi, bool recent, int32_t cap,
                      int32_t *out)
{
	for (int32_t len = hi < n - 1 ? hi : n - 1; len >= lo; len--) {
		int32_t from = -1;
		for (int32_t end = len; end < n; end++)
			if ((recent || from < 0) &&
			    !memcmp(t + end - len, t + n - len, (size_t)len * sizeof(*t)))
				from = end;
		if (from < 0)
			continue;
		for (int32_t i = 0; i < cap; i++)
			out[i] = from + i < n ? t[from + i] : out[from + i - n];
		return cap;
	}
	return 0;
}

static void agree(struct fake_host *f, const struct nx_draft_seq *s, int32_t num, int32_t lo,
                  int32_t hi, bool recent)
{
	struct nx_draft_row rows[MAX_ROWS];
	int32_t want[MAX_ROWS];
	int32_t n = propose(f, s, rows);
	int32_t m =
		oracle(s->tokens, s->n_tokens, lo, hi, recent, s->cap < num ? s->cap : num, want);
	ck_assert_msg(n == m, "%d rows, not %d, after %d tokens", n, m, s->n_tokens);
	for (int32_t i = 0; i < n; i++) {
		ck_assert_msg(rows[i].token == want[i], "row %d after %d tokens is %d, not %d", i,
		              s->n_tokens, rows[i].token, want[i]);
		ck_assert_int_eq(rows[i].parent, i - 1);
		ck_assert_int_eq(rows[i].kind, NX_ROW_CANDIDATE);
	}
}

static const struct {
	int32_t num, lo, hi, letters;
	const char *match;
} CASES[] = {
	{5, 2, 4, 3, "recent"},  {1, 1, 1, 2, "recent"},   {10, 1, 3, 5, "recent"},
	{8, 3, 3, 2, "first"},   {64, 1, 16, 1, "recent"}, {64, 1, 2, 1, "first"},
	{5, 2, 4, 20, "recent"}, {10, 5, 5, 2, "first"},   {6, 2, 16, 2, "recent"},
	{7, 1, 4, 300, "first"}, {3, 15, 16, 2, "recent"},
};

/* Four places live through appends of any length, new sequences, forks and preemptions to another place, with and
 * without events, and resets. */
START_TEST(drafts_are_those_of_a_full_search)
{
	char values[128];
	struct fake_host f;
	struct text t[PLACES];
	uint32_t request[PLACES], sample[PLACES], fresh = 1, r = (uint32_t)_i + 77u;
	bool recent = !strcmp(CASES[_i].match, "recent");
	snprintf(values, sizeof(values), "num_tokens=%d,ngram_min=%d,ngram_max=%d,match=%s",
	         CASES[_i].num, CASES[_i].lo, CASES[_i].hi, CASES[_i].match);
	fake_host_open(&f, "prompt_lookup", values, PLACES);
	const struct nx_technique *tech = f.plugin.technique;
	memset(t, 0, sizeof(t));
	for (int32_t i = 0; i < PLACES; i++) {
		request[i] = fresh++;
		sample[i] = 0;
		append(&t[i], 0);
	}
	for (int step = 0; step < 1500; step++) {
		int32_t p = (int32_t)(next(&r) % PLACES);
		uint32_t what = next(&r) % 100;
		int32_t grow = 1 + (int32_t)(next(&r) % (what < 10 ? 60 : 6));
		if (what < 2) {
			tech->reset(f.self);
			ck_assert_int_eq(tech->warm(f.self), 0);
		} else if (t[p].n + grow > LONGEST ||
		           what < 4) { /* the place gets another sequence */
			struct nx_seq_event e = {NX_EVENT_ADMIT, p, fresh, 0, 0};
			if (what & 1) /* the index must notice even without being told */
				tech->event(f.self, &e);
			request[p] = fresh++;
			sample[p] = 0;
			t[p].n = 0;
			append(&t[p], (int32_t)(next(&r) % (uint32_t)CASES[_i].letters));
			continue;
		} else if (what < 7) { /* a fork */
			int32_t from = (p + 1) % PLACES;
			struct nx_seq_event e = {NX_EVENT_FORK, p, request[from], fresh, from};
			tech->event(f.self, &e);
			t[p] = t[from];
			request[p] = request[from];
			sample[p] = fresh++;
		} else if (what < 9) { /* two sequences change places */
			int32_t q = (p + 2) % PLACES;
			struct text keep = t[p];
			uint32_t kr = request[p], ks = sample[p];
			t[p] = t[q];
			request[p] = request[q];
			sample[p] = sample[q];
			t[q] = keep;
			request[q] = kr;
			sample[q] = ks;
			continue;
		}
		for (int32_t i = 0; i < grow && t[p].n < LONGEST; i++)
			append(&t[p], (int32_t)(next(&r) % (uint32_t)CASES[_i].letters));
		struct nx_draft_seq s =
			seq_of(&t[p], p, request[p], sample[p], 1 + (int32_t)(next(&r) % MAX_ROWS));
		agree(&f, &s, CASES[_i].num, CASES[_i].lo, CASES[_i].hi, recent);
	}
	fake_host_close(&f);
}
END_TEST

START_TEST(a_sequence_that_got_shorter_is_another_one)
{
	struct text t = {.n = 0};
	struct nx_draft_row rows[MAX_ROWS];
	struct fake_host f;
	fake_host_open(&f, "prompt_lookup", "num_tokens=4,ngram_min=1", 1);
	for (int32_t i = 0; i < 50; i++)
		append(&t, i % 10);
	struct nx_draft_seq s = seq_of(&t, 0, 1, 0, 4);
	ck_assert_int_eq(propose(&f, &s, rows), 4);
	for (t.n = 0; t.n < 20;)
		append(&t, 100 + t.n);
	s = seq_of(&t, 0, 1, 0, 4);
	ck_assert_int_eq(propose(&f, &s, rows), 0);
	agree(&f, &s, 4, 1, 4, true);
	fake_host_close(&f);
}
END_TEST

START_TEST(the_longest_suffix_wins_then_the_latest_occurrence)
{
	static const int32_t text[] = {1, 2, 3, 90, 7, 2, 3, 91, 1, 2, 3, 92, 7, 2, 3};
	struct text t = {.n = sizeof(text) / sizeof(text[0])};
	struct nx_draft_row rows[MAX_ROWS];
	struct fake_host f;
	memcpy(t.tokens, text, sizeof(text));
	static const struct {
		const char *values;
		int32_t token;
	} cases[] = {{"ngram_min=1,ngram_max=3", 91},
	             {"ngram_min=1,ngram_max=2", 92},
	             {"ngram_min=1,ngram_max=2,match=first", 90}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		fake_host_open(&f, "prompt_lookup", cases[i].values, 1);
		struct nx_draft_seq s = seq_of(&t, 0, 1, 0, 1);
		ck_assert_int_eq(propose(&f, &s, rows), 1);
		ck_assert_int_eq(rows[0].token, cases[i].token);
		fake_host_close(&f);
	}
}
END_TEST

START_TEST(a_loop_is_drafted_to_the_full)
{
	struct text t = {.n = 0};
	struct nx_draft_row rows[MAX_ROWS];
	struct fake_host f;
	fake_host_open(&f, "prompt_lookup", "num_tokens=9,ngram_min=2,ngram_max=2", 1);
	for (int32_t i = 0; i < 5; i++)
		append(&t, 40 + i % 3);
	struct nx_draft_seq s = seq_of(&t, 0, 1, 0, 9);
	ck_assert_int_eq(propose(&f, &s, rows), 9);
	for (int32_t i = 0; i < 9; i++)
		ck_assert_int_eq(rows[i].token, 40 + (5 + i) % 3);
	fake_host_close(&f);
}
END_TEST

START_TEST(nothing_is_drafted_that_the_request_cannot_use)
{
	struct text t = {.n = 0};
	struct nx_draft_row rows[MAX_ROWS];
	struct fake_host f;
	fake_host_open(&f, "prompt_lookup", "num_tokens=8", 1);
	for (int32_t i = 0; i < 20; i++)
		append(&t, 1);
	struct nx_draft_seq s = seq_of(&t, 0, 1, 0, 8);
	s.max_out = 10;
	s.n_out = 7; /* three to come: two drafted, one of the target's */
	ck_assert_int_eq(propose(&f, &s, rows), 2);
	s.n_out = 9;
	ck_assert_int_eq(propose(&f, &s, rows), 0);
	s.n_out = 0;
	s.cap = 0;
	ck_assert_int_eq(propose(&f, &s, rows), 0);
	fake_host_close(&f);
}
END_TEST

START_TEST(counters_take_the_verdicts_once)
{
	struct text t = {.n = 0};
	struct nx_draft_row rows[MAX_ROWS];
	struct fake_host f;
	fake_host_open(&f, "prompt_lookup", "num_tokens=4", 2);
	for (int32_t i = 0; i < 10; i++)
		append(&t, 1);
	struct nx_draft_seq s = seq_of(&t, 0, 1, 0, 4);
	ck_assert_int_eq(propose(&f, &s, rows), 4);
	append(&t, 1);
	append(&t, 1);
	append(&t, 77);
	s = seq_of(&t, 0, 1, 0, 4);
	s.last_drafted = 4;
	s.last_accepted = 2;
	ck_assert_int_eq(propose(&f, &s, rows), 0); /* 77 is new */
	append(&t, 78);
	s = seq_of(&t, 0, 1, 0, 4);
	s.last_drafted = 4; /* still of the round before: counted already */
	s.last_accepted = 2;
	ck_assert_int_eq(propose(&f, &s, rows), 0);
	ck_assert_double_eq(fake_host_counter(&f, "rounds"), 3);
	ck_assert_double_eq(fake_host_counter(&f, "no_match"), 2);
	ck_assert_double_eq(fake_host_counter(&f, "proposed"), 4);
	ck_assert_double_eq(fake_host_counter(&f, "judged"), 4);
	ck_assert_double_eq(fake_host_counter(&f, "accepted"), 2);
	ck_assert_double_eq(fake_host_counter(&f, "indexed"), 13);
	ck_assert_int_eq(f.plugin.technique->warm(f.self), 1);
	f.plugin.technique->reset(f.self);
	ck_assert_double_eq(fake_host_counter(&f, "accepted"), 0);
	fake_host_close(&f);
}
END_TEST

START_TEST(a_resumed_sequence_is_not_indexed_again)
{
	struct text t = {.n = 0};
	struct nx_draft_row rows[MAX_ROWS];
	struct fake_host f;
	struct nx_seq_event out = {NX_EVENT_PREEMPT, 0, 1, 0, NX_PREEMPT_RECOMPUTE};
	struct nx_seq_event in = {NX_EVENT_RESUME, 0, 1, 0, 0};
	fake_host_open(&f, "prompt_lookup", "", 1);
	for (int32_t i = 0; i < 100; i++)
		append(&t, i % 7);
	struct nx_draft_seq s = seq_of(&t, 0, 1, 0, 4);
	propose(&f, &s, rows);
	f.plugin.technique->event(f.self, &out);
	f.plugin.technique->event(f.self, &in);
	append(&t, 3);
	s = seq_of(&t, 0, 1, 0, 4);
	propose(&f, &s, rows);
	ck_assert_double_eq(fake_host_counter(&f, "indexed"), 100);
	fake_host_close(&f);
}
END_TEST

START_TEST(its_limits_and_its_memory_are_told_before)
{
	struct fake_host f;
	struct nx_err err = {0};
	struct nx_draft_limits l = {.max_seqs = 3, .max_len = LONGEST};
	struct nx_draft_needs needs = {0};
	fake_host_open(&f, "prompt_lookup", "num_tokens=7", 3);
	ck_assert_int_eq(f.plugin.technique->draft_needs(f.self, &l, &needs, &err), 0);
	ck_assert_int_eq(needs.max_rows, 7);
	ck_assert_int_eq(needs.n_layers, 0);
	struct nx_probe p = {.max_seqs = 3, .max_len = LONGEST, .values = f.values};
	ck_assert_int_eq(f.plugin.technique->probe(&p, &err), 0);
	ck_assert_uint_eq(p.host_bytes, f.live_bytes);
	ck_assert_uint_eq(p.device_bytes, 0);
	f.values[1].i = 9; /* ngram_min > ngram_max */
	ck_assert_int_eq(f.plugin.technique->probe(&p, &err), NX_EINVAL);
	ck_assert_ptr_nonnull(strstr(err.msg, "ngram_min is 9"));
	fake_host_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("prompt_lookup");
	TCase *tc = tcase_create("prompt_lookup");
	tcase_add_loop_test(tc, drafts_are_those_of_a_full_search, 0,
	                    sizeof(CASES) / sizeof(CASES[0]));
	tcase_add_test(tc, a_sequence_that_got_shorter_is_another_one);
	tcase_add_test(tc, the_longest_suffix_wins_then_the_latest_occurrence);
	tcase_add_test(tc, a_loop_is_drafted_to_the_full);
	tcase_add_test(tc, nothing_is_drafted_that_the_request_cannot_use);
	tcase_add_test(tc, counters_take_the_verdicts_once);
	tcase_add_test(tc, a_resumed_sequence_is_not_indexed_again);
	tcase_add_test(tc, its_limits_and_its_memory_are_told_before);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
