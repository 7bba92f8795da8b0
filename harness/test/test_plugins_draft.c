/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_plugins_draft.c: drafts of noise are trees, drawn from the q that they show; drafts of the oracle are
 * trees, repeat the text, pause and stop as asked.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"

enum { VOCAB = 10, ROWS = 6, SEQS = 3 };

/* A round of draft_noise over all places. */
struct noise {
	struct fake_host f;
	struct nx_draft_needs needs;
	int32_t token[SEQS][ROWS], parent[SEQS][ROWS], kind[SEQS][ROWS], q_row[SEQS][ROWS];
	struct nx_draft_span spans[SEQS];
	int32_t len[SEQS], last[SEQS];
	struct nx_sampler samplers[SEQS];
};

static void noise_open(struct noise *o, const char *values)
{
	struct nx_draft_limits l = {.max_seqs = SEQS, .max_len = 64, .max_chunk_rows = 64};
	struct nx_err err = {0};
	memset(o, 0, sizeof(*o));
	fake_host_load(&o->f, "draft_noise", values, SEQS);
	o->f.host.model.vocab = VOCAB;
	fake_host_create(&o->f);
	ck_assert_int_eq(o->f.plugin.technique->draft_needs(o->f.self, &l, &o->needs, &err), 0);
	ck_assert_int_eq(o->needs.max_rows, ROWS);
	for (int32_t q = 0; q < SEQS; q++) {
		o->spans[q] = (struct nx_draft_span){.seq = SEQS - 1 - q, .n = ROWS - q};
		o->len[q] = 5 + q;
		o->last[q] = q;
		o->samplers[q] = (struct nx_sampler){.temperature = 1, .top_p = 1, .seed = 3};
	}
}

/* The round's descriptions are gone before the device gets to work. */
static void noise_round(struct noise *o)
{
	struct nx_err err = {0};
	struct nx_draft out = {.stride = ROWS,
	                       .token = o->token[0],
	                       .parent = o->parent[0],
	                       .kind = o->kind[0],
	                       .q_row = o->q_row[0],
	                       .q = o->needs.q,
	                       .q_cols = o->needs.q_cols,
	                       .q_token = o->needs.q_token};
	struct nx_seq_state state = {SEQS, o->len, o->last};
	struct nx_draft_step step = {.out = &out,
	                             .spans = o->spans,
	                             .spans_host = o->spans,
	                             .n_spans = SEQS,
	                             .state = &state,
	                             .samplers = o->samplers};
	memset(o->token, 0xee, sizeof(o->token));
	ck_assert_int_eq(o->f.plugin.technique->draft(o->f.self, NULL, &step, &err), 0);
	memset(&out, 0xee, sizeof(out));
	memset(&state, 0xee, sizeof(state));
	memset(&step, 0xee, sizeof(step));
	fake_host_run(&o->f);
}

static int32_t token_of(const struct noise *o, int32_t col)
{
	return o->needs.q_token ? o->needs.q_token[col] : col;
}

static void check_drafted(const struct noise *o, int32_t q, int32_t i)
{
	int32_t row = o->q_row[q][i], cols = o->needs.q_cols;
	ck_assert(o->token[q][i] >= 0 && o->token[q][i] < VOCAB);
	ck_assert(o->parent[q][i] >= NX_DRAFT_ROOT && o->parent[q][i] < i);
	ck_assert_int_eq(o->kind[q][i], NX_ROW_CANDIDATE);
	if (row == NX_Q_CERTAIN)
		return;
	double sum = 0, own = 0;
	for (int32_t c = 0; c < cols; c++) {
		double p = (double)o->needs.q[row * cols + c];
		sum += p;
		if (token_of(o, c) == o->token[q][i])
			own += p;
	}
	ck_assert_double_eq_tol(sum, 1, 1e-5);
	ck_assert_double_gt(own, 0);
	/* Drawn one after the other from one row: siblings, and no token twice. */
	for (int32_t j = 0; j < i; j++)
		if (o->q_row[q][j] == row) {
			ck_assert_int_eq(o->parent[q][j], o->parent[q][i]);
			ck_assert_int_ne(o->token[q][j], o->token[q][i]);
		}
}

START_TEST(noise_is_a_tree_with_its_q)
{
	static const char *const shape[] = {"chain", "siblings", "tree"};
	char values[128];
	struct noise o;
	int32_t first[SEQS][ROWS];
	bool sampled = _i & 1, reduced = _i & 2;
	snprintf(values, sizeof(values), "rows=6,shape=%s,sampled=%s,reduced=%s", shape[_i / 4],
	         sampled ? "true" : "false", reduced ? "true" : "false");
	noise_open(&o, values);
	ck_assert_int_eq(o.needs.q != NULL, sampled);
	for (int32_t round = 0; round < 20; round++) {
		int drawn = 0;
		for (int32_t q = 0; q < SEQS; q++)
			o.len[q]++;
		noise_round(&o);
		for (int32_t s = 0; s < SEQS; s++)
			for (int32_t i = 0; i < o.spans[s].n; i++) {
				int32_t q = o.spans[s].seq;
				check_drafted(&o, q, i);
				drawn += o.q_row[q][i] != NX_Q_CERTAIN;
				if (_i / 4 == 0)
					ck_assert_int_eq(o.parent[q][i], i - 1);
				if (_i / 4 == 1)
					ck_assert_int_eq(o.parent[q][i], NX_DRAFT_ROOT);
			}
		ck_assert_int_eq(drawn > 0, sampled);
		/* Nothing but the arguments decides. */
		memcpy(first, o.token, sizeof(first));
		noise_round(&o);
		ck_assert_int_eq(memcmp(first, o.token, sizeof(first)), 0);
	}
	fake_host_close(&o.f);
}
END_TEST

START_TEST(noise_is_drawn_from_its_q)
{
	enum { N = 20000 };
	static int seen[VOCAB][VOCAB];
	struct noise o;
	noise_open(&o, _i ? "rows=6,shape=siblings,reduced=true" : "rows=6,shape=siblings");
	memset(seen, 0, sizeof(seen));
	for (uint32_t r = 0; r < N; r++) {
		o.samplers[0].request = r;
		noise_round(&o);
		seen[o.token[0][0]][o.token[0][1]]++;
	}
	/* First x with q(x), then y with q(y) / (1 - q(x)): within five deviations. */
	double sum = 0;
	const float *q = o.needs.q + (int64_t)o.q_row[0][0] * o.needs.q_cols;
	ck_assert_int_eq(o.q_row[0][0], o.q_row[0][1]);
	for (int32_t x = 0; x < o.needs.q_cols; x++)
		for (int32_t y = 0; y < o.needs.q_cols; y++) {
			double p = x == y ? 0 : (double)q[x] * (double)q[y] / (1 - (double)q[x]);
			int n = seen[token_of(&o, x)][token_of(&o, y)];
			ck_assert_double_le(fabs(n - N * p), 5 * sqrt(N * p * (1 - p)) + 1e-9);
			sum += n;
		}
	ck_assert_double_eq(sum, N);
	fake_host_close(&o.f);
}
END_TEST

/* ---- draft_oracle ---- */

static int32_t propose(struct fake_host *f, const int32_t *text, int32_t n, int32_t cap,
                       struct nx_draft_row *rows)
{
	struct nx_draft_seq s = {.seq = 1,
	                         .request = 4,
	                         .cap = cap,
	                         .tokens = text,
	                         .n_tokens = n,
	                         .n_prompt = 2,
	                         .last_drafted = -1,
	                         .last_accepted = -1};
	return f->plugin.technique->propose(f->self, &s, rows);
}

START_TEST(the_oracle_repeats_the_text)
{
	static const int32_t text[] = {9, 1, 2, 3, 4, 5, 6, 7, 1, 2};
	struct nx_draft_row rows[8];
	struct fake_host f;
	fake_host_open(&f, "draft_oracle", "hit=1,rows=5", SEQS);
	ck_assert_int_eq(propose(&f, text, 10, 8, rows), 5);
	for (int32_t i = 0; i < 5; i++) {
		ck_assert_int_eq(rows[i].token, 3 + i);
		ck_assert_int_eq(rows[i].parent, i - 1);
		ck_assert_int_eq(rows[i].kind, NX_ROW_CANDIDATE);
	}
	ck_assert_int_eq(propose(&f, text, 10, 2, rows), 2);
	/* The text ends before the draft does. */
	ck_assert_int_eq(propose(&f, text, 2, 5, rows), 5);
	fake_host_close(&f);
}
END_TEST

START_TEST(the_oracle_branches)
{
	int32_t text[40], twice = 0, probes = 0, branches = 0;
	struct nx_draft_row rows[9];
	struct fake_host f;
	fake_host_open(&f, "draft_oracle", "hit=0.5,rows=9,shape=tree", SEQS);
	for (int32_t i = 0; i < 40; i++)
		text[i] = i % 7;
	for (int32_t n = 1; n < 40; n++) {
		int32_t got = propose(&f, text, n, 1 + n % 9, rows);
		ck_assert_int_eq(got, 1 + n % 9);
		for (int32_t i = 0; i < got; i++) {
			ck_assert(rows[i].token >= 0 && rows[i].token < 320);
			ck_assert(rows[i].parent >= NX_DRAFT_ROOT && rows[i].parent < i);
			probes += rows[i].kind == NX_ROW_PROBE;
			for (int32_t j = 0; j < i; j++) {
				bool mates = rows[i].parent == rows[j].parent;
				branches += mates;
				twice += mates && rows[i].token == rows[j].token;
			}
		}
	}
	ck_assert(branches > 10 && twice > 5 && probes > 5);
	fake_host_close(&f);
}
END_TEST

START_TEST(the_oracle_pauses_and_stops)
{
	static const int32_t text[400];
	struct nx_draft_row rows[8];
	struct fake_host f;
	int paused = 0;
	fake_host_open(&f, "draft_oracle", "pause=0.25,quit=300", SEQS);
	for (int32_t n = 1; n <= 300; n++) {
		int32_t got = propose(&f, text, n, 5, rows);
		ck_assert_int_ne(got, NX_UNDRAFTABLE);
		paused += got == 0;
	}
	ck_assert(paused > 45 && paused < 105);
	ck_assert_int_eq(propose(&f, text, 301, 5, rows), NX_UNDRAFTABLE);
	struct nx_seq_event e = {.kind = NX_EVENT_ADMIT, .seq = 1};
	f.plugin.technique->event(f.self, &e);
	ck_assert_int_ne(propose(&f, text, 301, 5, rows), NX_UNDRAFTABLE);
	fake_host_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("plugins_draft");
	TCase *tc = tcase_create("draft");
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, noise_is_a_tree_with_its_q, 0, 12);
	tcase_add_loop_test(tc, noise_is_drawn_from_its_q, 0, 2);
	tcase_add_test(tc, the_oracle_repeats_the_text);
	tcase_add_test(tc, the_oracle_branches);
	tcase_add_test(tc, the_oracle_pauses_and_stops);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
