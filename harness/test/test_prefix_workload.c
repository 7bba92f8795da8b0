/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_prefix_workload.c: prompts that share their begins: how much, with whom, and what stays as it was.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "experiment_fixture.h"
#include "measure/workload.h"
#include "model/gguf.h"
#include "model/tokenizer.h"
#include "tiny_model.h"

static struct nx_gguf *gguf;
static struct nx_tokenizer *tok;
static struct nx_workload *w;
static struct nx_request_set a, b;
static struct nx_err err;

static void setup(void)
{
	experiment_setup();
	memset(&err, 0, sizeof(err));
	ck_assert_msg(nx_test_open_tokenizer("tok.gguf", &gguf, &tok, &err) == 0, "%s", err.msg);
	w = NULL;
	a = b = (struct nx_request_set){0};
}

static void teardown(void)
{
	nx_request_set_release(&a);
	nx_request_set_release(&b);
	nx_workload_close(w);
	nx_tokenizer_destroy(tok);
	nx_gguf_close(gguf);
	experiment_teardown();
}

/* 40 texts, or as many conversations, of different words. */
static void write_texts(bool chats)
{
	FILE *f = fopen("texts.jsonl", "w");
	ck_assert_ptr_nonnull(f);
	for (int i = 0; i < 40; i++) {
		fputs(chats ? "{\"turns\": [{\"role\": \"user\", \"content\": \"" : "{\"text\": \"",
		      f);
		for (int k = 0; k < 30 + i % 5 * 20; k++)
			fprintf(f, "%s%c%d", k ? " " : "", 'a' + (i * 7 + k) % 26,
			        (i * 31 + k) % 97);
		fputs(chats ? "\"}]}\n" : "\"}\n", f);
	}
	fclose(f);
}

enum source { TEXTS, CHATS, RANDOM };

static void open_it(enum source from, int32_t groups)
{
	struct nx_workload_spec spec = {.prompts = from == RANDOM ? NULL : "texts.jsonl",
	                                .groups = groups,
	                                .samples = 1,
	                                .seed = 3,
	                                .ignore_eos = true,
	                                .top_p = 1};
	if (from != RANDOM)
		write_texts(from == CHATS);
	nx_workload_close(w);
	w = NULL;
	ck_assert_msg(nx_workload_open(&w, &spec, tok, nx_tokenizer_vocab(tok), &err) == 0, "%s",
	              err.msg);
}

static void make(double shared, int32_t len, int32_t n, int32_t round, struct nx_request_set *s)
{
	const struct nx_dist out = {.kind = NX_DIST_FIXED, .min = 4, .max = 4};
	struct nx_cell c = {.num_requests = n, .batch_size = 1, .output_len = out};
	c.seq_len = (struct nx_dist){
		.kind = NX_DIST_UNIFORM, .min = len / 2, .max = len, .shared = shared};
	ck_assert_msg(nx_workload_requests(w, &c, round, s, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(s->n, (size_t)n);
}

/* Tokens that two prompts have in common from their begins on. */
static int32_t common(const struct nx_request *p, const struct nx_request *q)
{
	int32_t n = 0;
	while (n < p->n_prompt && n < q->n_prompt && p->prompt[n] == q->prompt[n])
		n++;
	return n;
}

/* What they must have in common: their share, but for a token of their own and the template's tail. */
static int32_t least(const struct nx_request *p, const struct nx_request *q, double shared,
                     int32_t tail)
{
	int32_t n = p->n_prompt < q->n_prompt ? p->n_prompt : q->n_prompt;
	int32_t share = (int32_t)(shared * n + 1e-6);
	return share < n - tail - 1 ? share : n - tail - 1;
}

#define TAIL "<|im_end|>\n<|im_start|>assistant\n"

START_TEST(prompts_share_their_begins_by_groups)
{
	static const double shares[] = {0.3, 0.5, 0.9};
	double shared = shares[_i % 3];
	enum source from = (enum source)(_i / 3);
	int32_t *ids;
	size_t n_tail;
	ck_assert_int_eq(nx_tokenizer_encode(tok, TAIL, sizeof(TAIL) - 1, NX_TOK_PARSE_SPECIAL,
	                                     &ids, &n_tail, &err),
	                 0);
	int32_t tail = (int32_t)n_tail;
	free(ids);
	for (int32_t groups = 1; groups <= 3; groups += 2) {
		open_it(from, groups);
		make(shared, 200, 24, 0, &a);
		for (size_t i = 0; i < a.n; i++)
			for (size_t j = 0; j < i; j++) {
				const struct nx_request *p = &a.reqs[i], *q = &a.reqs[j];
				bool same = i % (size_t)groups == j % (size_t)groups;
				int32_t n = common(p, q);
				if (same)
					ck_assert_int_ge(
						n, least(p, q, shared, from == CHATS ? tail : 0));
				else /* a template begins all of them alike */
					ck_assert_int_lt(n, 40);
				ck_assert(n < p->n_prompt || n < q->n_prompt);
			}
	}
	/* The same again, another one in another round; fewer are the first of more. */
	make(shared, 200, 7, 0, &b);
	for (size_t i = 0; i < b.n; i++)
		ck_assert_int_eq(common(&a.reqs[i], &b.reqs[i]), a.reqs[i].n_prompt);
	make(shared, 200, 7, 1, &b);
	ck_assert_int_lt(common(&a.reqs[0], &b.reqs[0]), 40);
}
END_TEST

/* What is not shared is what it would be if nothing were: shares are compared on the same prompts. */
START_TEST(the_rest_of_a_prompt_stays)
{
	open_it((enum source)_i, 1);
	make(0, 200, 12, 0, &a);
	make(0.5, 200, 12, 0, &b);
	for (size_t i = 0; i < a.n; i++) {
		const struct nx_request *p = &a.reqs[i], *q = &b.reqs[i];
		int32_t from = q->n_prompt / 2;
		ck_assert_int_eq(p->n_prompt, q->n_prompt);
		ck_assert_mem_eq(p->prompt + from, q->prompt + from,
		                 (size_t)(q->n_prompt - from) * sizeof(int32_t));
		ck_assert_int_lt(common(p, q), 40);
	}
}
END_TEST

START_TEST(the_templates_tail_stays_whatever_is_shared)
{
	open_it(CHATS, 2);
	make(0.95, 150, 10, 0, &a);
	for (size_t i = 0; i < a.n; i++) {
		char *text;
		size_t len;
		ck_assert_int_eq(nx_tokenizer_decode(tok, a.reqs[i].prompt,
		                                     (size_t)a.reqs[i].n_prompt, &text, &len, &err),
		                 0);
		ck_assert_str_eq(text + len - (sizeof(TAIL) - 1), TAIL);
		ck_assert_int_eq(strncmp(text, "<|im_start|>user\n", 17), 0);
		free(text);
	}
}
END_TEST

/* Each output of a session is what the next prompt goes on with; the last one is the model's. */
START_TEST(answers_of_the_file_are_fed_where_the_next_turn_repeats_them)
{
	struct nx_workload_spec spec = {.prompts = "chats.jsonl",
	                                .turns = NX_TURNS_ALL,
	                                .answers = NX_ANSWERS_FILE,
	                                .samples = 1,
	                                .seed = 1,
	                                .top_p = 1};
	const struct nx_dist any = {.kind = NX_DIST_DATASET, .min = 1, .max = 4000};
	struct nx_cell c = {.num_requests = 12, .batch_size = 2, .seq_len = any, .output_len = any};
	int n_fed = 0;
	FILE *f = fopen("chats.jsonl", "w");
	ck_assert_ptr_nonnull(f);
	for (int i = 0; i < 5; i++) {
		fputs("{\"turns\": [", f);
		for (int k = 0; k < 6; k++)
			fprintf(f, "%s{\"role\": \"%s\", \"content\": \"%c says %d and %d\"}",
			        k ? ", " : "", k % 2 ? "assistant" : "user", 'a' + i, 10 * i + k,
			        k * k);
		fputs("]}\n", f);
	}
	fclose(f);
	ck_assert_int_eq(nx_workload_open(&w, &spec, tok, nx_tokenizer_vocab(tok), &err), 0);
	ck_assert_msg(nx_workload_requests(w, &c, 0, &a, &err) == 0, "%s", err.msg);
	for (size_t i = 0; i < a.n; i++) {
		const struct nx_request *q = &a.reqs[i];
		bool last = i + 1 == a.n || a.reqs[i + 1].after != i + 1;
		ck_assert(last == (q->force == NULL));
		ck_assert(last || q->ignore_eos);
		if (last)
			continue;
		char *text;
		size_t len;
		ck_assert_int_eq(
			nx_tokenizer_decode(tok, q->force, (size_t)q->max_out, &text, &len, &err),
			0);
		ck_assert_msg(strstr(text, " says ") != NULL && !strchr(text, '<'), "%s", text);
		free(text);
		n_fed++;
	}
	ck_assert_int_ge(n_fed, 7);
}
END_TEST

START_TEST(shares_multiply_prompt_lengths)
{
	size_t n;
	char text[64], id[17];
	experiment_load_ok(HEAD "sweep: {seq_len: [100, 200], shared: [0, 0.25, 0.9]}\n",
	                   "workload.groups=4");
	const struct nx_cell *c = nx_experiment_cells(fx.x, &n);
	static const char *const want[] = {"100", "25% shared of 100", "90% shared of 100",
	                                   "200", "25% shared of 200", "90% shared of 200"};
	ck_assert_uint_eq(n, 6);
	ck_assert_int_eq(fx.x->workload.groups, 4);
	for (size_t i = 0; i < n; i++) {
		ck_assert_str_eq(nx_dist_text(&c[i].seq_len, text, sizeof(text)), want[i]);
		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(c[i].id, c[j].id);
	}
	/* Other groups are another cell; a share of nothing is no other cell. */
	memcpy(id, c[1].id, sizeof(id));
	experiment_load_ok(HEAD "sweep: {seq_len: [100, 200], shared: [0, 0.25, 0.9]}\n", NULL);
	ck_assert_str_ne(nx_experiment_cells(fx.x, &n)[1].id, id);
	memcpy(id, nx_experiment_cells(fx.x, &n)[0].id, sizeof(id));
	experiment_load_ok(HEAD "sweep: {seq_len: 100}\n", NULL);
	ck_assert_str_eq(nx_experiment_cells(fx.x, &n)[0].id, id);
	experiment_load_ok(HEAD, "sweep.shared=0.1,0.2");
	nx_experiment_cells(fx.x, &n);
	ck_assert_uint_eq(n, 2);
}
END_TEST

static const struct {
	const char *text, *set, *want;
} wrong[] = {
	{HEAD "sweep: {shared: 1}\n", NULL,
         "x.yaml:5:17: found \"1\" for shared; legal: a number from 0 to 0.999"},
	{HEAD "sweep: {shared: [0.5, half]}\n", NULL,
         "x.yaml:5:23: found \"half\" for shared; legal: a number from 0 to 0.999"},
	{HEAD "sweep: {shared: [0.5, 0.5]}\n", NULL,
         "x.yaml:5:23: found 0.5 for shared a second time; legal: each value once"},
	{HEAD "sweep: {shared: []}\n", NULL,
         "x.yaml:5:17: found an empty list for shared; legal: at least one value"},
	{HEAD "sweep: {seq_len: dataset, shared: 0.5}\n", NULL,
         "x.yaml:5:35: found shared beside dataset for seq_len; legal: a length that is drawn"},
	{HEAD "sweep: {shared: 0.5}\n", "workload.turns=all",
         "x.yaml:5:17: found shared beside dataset for seq_len (turns: all); legal: "},
	{HEAD "sweep: {shared: 0.5}\n", "workload.trace=t.csv",
         "x.yaml:5:17: found shared beside a trace; legal: one of them"},
	{"model: m.gguf\nworkload: {prompts: p.jsonl, groups: 3}\n", NULL,
         "x.yaml:2:38: found groups and no share of prompts that they have in common; legal: groups beside sweep: {shared: 0.9}"},
	{"model: m.gguf\nworkload: {prompts: p.jsonl, answers: file}\n", NULL,
         "x.yaml:2:39: found answers: file without turns: all; legal: both"},
	{"model: m.gguf\nworkload: {prompts: p.jsonl, answers: file, turns: all}\nsweep: {output_len: 9}\n",
         NULL,
         "x.yaml:3:21: found an output_len of its own beside answers: file; legal: output_len: dataset"},
	{HEAD "sweep: {shared: 0.5}\n", "workload.groups=0",
         "--set workload.groups=0: found \"0\" for groups; legal: an integer from 1 to 1000000"},
};

START_TEST(mistakes_are_named_at_their_place)
{
	ck_assert_int_eq(experiment_load(wrong[_i].text, wrong[_i].set), NX_EINVAL);
	ck_assert_msg(!strncmp(fx.err.msg, wrong[_i].want, strlen(wrong[_i].want)), "%s",
	              fx.err.msg);
}
END_TEST

START_TEST(a_prompt_too_short_for_its_template_is_told)
{
	struct nx_cell c = {.num_requests = 3, .batch_size = 1};
	open_it(CHATS, 1);
	c.output_len = (struct nx_dist){.kind = NX_DIST_FIXED, .min = 4, .max = 4};
	c.seq_len = (struct nx_dist){.kind = NX_DIST_FIXED, .min = 10, .max = 10, .shared = 0.5};
	ck_assert_int_eq(nx_workload_requests(w, &c, 0, &a, &err), NX_EINVAL);
	ck_assert_msg(strstr(err.msg, "found a prompt length of 10, but the chat template") != NULL,
	              "%s", err.msg);
}
END_TEST

int main(void)
{
	experiment_make_folder();
	Suite *s = suite_create("prefix_workload");
	TCase *t = tcase_create("shared");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, prompts_share_their_begins_by_groups, 0, 9);
	tcase_add_loop_test(t, the_rest_of_a_prompt_stays, 0, 3);
	tcase_add_test(t, the_templates_tail_stays_whatever_is_shared);
	tcase_add_test(t, a_prompt_too_short_for_its_template_is_told);
	tcase_add_test(t, answers_of_the_file_are_fed_where_the_next_turn_repeats_them);
	tcase_add_test(t, shares_multiply_prompt_lengths);
	tcase_add_loop_test(t, mistakes_are_named_at_their_place, 0,
	                    (int)(sizeof(wrong) / sizeof(wrong[0])));
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	experiment_remove_folder();
	return failed != 0;
}
