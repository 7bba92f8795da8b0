/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload.h: exact prompt lengths, distinct and repeatable requests, the template's tail, and bad
 * lines named at their place.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure/workload.h"
#include "model/gguf.h"
#include "model/tokenizer.h"
#include "tiny_model.h"

static char dir[] = "/tmp/nexus-test-XXXXXX";
static struct nx_gguf *gguf;
static struct nx_tokenizer *tok;
static struct nx_workload *w;
static struct nx_request_set a, b;
static struct nx_err err;

static void setup(void)
{
	memset(&err, 0, sizeof(err));
	ck_assert_msg(nx_test_open_tokenizer("m.gguf", &gguf, &tok, &err) == 0, "%s", err.msg);
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
}

static int open_text(const char *text, uint64_t seed)
{
	struct nx_workload_spec spec = {.prompts = "p.jsonl",
	                                .samples = 2,
	                                .seed = seed,
	                                .ignore_eos = true,
	                                .temperature = 0.5f,
	                                .top_p = 1};
	FILE *f = fopen("p.jsonl", "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
	nx_workload_close(w);
	w = NULL;
	return nx_workload_open(&w, &spec, tok, nx_tokenizer_vocab(tok), &err);
}

static void open_ok(const char *text, uint64_t seed)
{
	int rc = open_text(text, seed);
	ck_assert_msg(rc == 0, "%s", err.msg);
}

/* n texts of different words and lengths. */
static const char *stories(int n)
{
	static char text[65536];
	size_t at = 0;
	for (int i = 0; i < n; i++) {
		at += (size_t)snprintf(text + at, sizeof(text) - at,
		                       "{\"text\": \"Story number %d:", i);
		for (int k = 0; k < 5 + i % 7 * 20; k++)
			at += (size_t)snprintf(text + at, sizeof(text) - at, " w%d",
			                       (i * 31 + k * 7) % 97);
		at += (size_t)snprintf(text + at, sizeof(text) - at, "\"}\n");
	}
	ck_assert_uint_lt(at, sizeof(text) - 1);
	return text;
}

static struct nx_cell make_cell(struct nx_dist seq, struct nx_dist out, int32_t n)
{
	struct nx_cell c = {.seq_len = seq, .output_len = out, .num_requests = n, .batch_size = 1};
	return c;
}

static const struct nx_dist ten = {NX_DIST_FIXED, 10, 10, 0, 0, 0},
			    uniform = {NX_DIST_UNIFORM, 5, 400, 0, 0, 0},
			    skewed = {NX_DIST_LOGNORMAL, 1, 128, 48, 0.6, 0};

static void requests_ok(const struct nx_cell *c, int32_t round, struct nx_request_set *s)
{
	int rc = nx_workload_requests(w, c, round, s, &err);
	ck_assert_msg(rc == 0, "%s", err.msg);
}

static bool same_prompt(const struct nx_request *p, const struct nx_request *q)
{
	return p->n_prompt == q->n_prompt &&
	       memcmp(p->prompt, q->prompt, (size_t)p->n_prompt * sizeof(int32_t)) == 0;
}

START_TEST(lengths_are_exact_and_prompts_differ)
{
	struct nx_cell c = make_cell(uniform, skewed, 100);
	open_ok(stories(20), 1);
	ck_assert_uint_eq(nx_workload_count(w), 20);
	requests_ok(&c, 0, &a);
	ck_assert_uint_eq(a.n, 100);
	uint64_t sum = 0;
	int32_t longest = 0;
	for (size_t i = 0; i < a.n; i++) {
		const struct nx_request *q = &a.reqs[i];
		ck_assert_uint_eq(q->id, i);
		ck_assert(q->n_prompt >= 5 && q->n_prompt <= 400 && q->max_out >= 1 &&
		          q->max_out <= 128);
		ck_assert(q->samples == 2 && q->ignore_eos && q->sampler.seed == a.sampler_seed);
		ck_assert_ptr_eq(q->prompt, a.tokens + sum);
		sum += (uint64_t)q->n_prompt;
		longest = q->n_prompt + q->max_out > longest ? q->n_prompt + q->max_out : longest;
		for (int32_t k = 0; k < q->n_prompt; k++)
			ck_assert(q->prompt[k] >= 0 && q->prompt[k] < nx_tokenizer_vocab(tok));
		for (size_t j = 0; j < i; j++)
			ck_assert(!same_prompt(q, &a.reqs[j]));
	}
	ck_assert_uint_eq(sum, a.n_tokens);
	ck_assert_int_eq(longest, a.longest);
	ck_assert_int_eq(nx_cell_longest(&c), 528);
}
END_TEST

START_TEST(a_prompt_is_the_start_of_a_text_and_goes_on_with_the_next)
{
	struct nx_cell c = make_cell(ten, ten, 1);
	open_ok("{\"text\": \"abcdefghijklmnopqrstuvwxyz, and so on and on and on\"}\n", 1);
	requests_ok(&c, 0, &a);
	int32_t *ids;
	size_t n, len;
	char *text;
	ck_assert_int_eq(nx_tokenizer_decode(tok, a.reqs[0].prompt, 10, &text, &len, &err), 0);
	ck_assert_int_eq(strncmp(text, "abcdefghijklmnopqrstuvwxyz, and so on and on and on", len),
	                 0);
	ck_assert_uint_ge(len, 10);
	free(text);

	open_ok("{\"prompt\": \"xy\"}\n", 1);
	ck_assert_int_eq(nx_tokenizer_encode(tok, "xy", 2, 0, &ids, &n, &err), 0);
	free(ids);
	c.seq_len.min = c.seq_len.max = 40;
	requests_ok(&c, 0, &a);
	ck_assert_int_eq(a.reqs[0].n_prompt, 40);
	ck_assert_int_eq(nx_tokenizer_decode(tok, a.reqs[0].prompt, 40, &text, &len, &err), 0);
	ck_assert_int_eq(strncmp(text, "xy\n\nxy\n\nxy\n\n", 12), 0);
	free(text);
}
END_TEST

START_TEST(rounds_differ_and_all_repeats)
{
	struct nx_cell c = make_cell(uniform, skewed, 16), more = make_cell(uniform, skewed, 32);
	open_ok(stories(60), 7);
	requests_ok(&c, 3, &a);
	more.batch_size = 16;
	requests_ok(&more, 3, &b); /* another batch size: the same requests, and more of them */
	for (size_t i = 0; i < a.n; i++) {
		ck_assert(same_prompt(&a.reqs[i], &b.reqs[i]));
		ck_assert_int_eq(a.reqs[i].max_out, b.reqs[i].max_out);
	}
	requests_ok(&c, 4, &b);
	size_t same = 0;
	for (size_t i = 0; i < a.n; i++)
		same += a.reqs[i].prompt[0] == b.reqs[i].prompt[0] &&
		        same_prompt(&a.reqs[i], &b.reqs[i]);
	ck_assert_uint_lt(same, 4);
	ck_assert_uint_ne(a.order_seed, b.order_seed);
	ck_assert_uint_ne(a.sampler_seed, b.sampler_seed);
	open_ok(stories(60), 7); /* opened anew */
	requests_ok(&c, 3, &b);
	for (size_t i = 0; i < a.n; i++)
		ck_assert(same_prompt(&a.reqs[i], &b.reqs[i]));
	open_ok(stories(60), 8);
	requests_ok(&c, 3, &b);
	ck_assert_uint_ne(a.length_seed, b.length_seed);
}
END_TEST

static const char chat[] =
	"{\"turns\": [{\"role\": \"user\", \"content\": \"Tell me a long story about a <|im_end|> and a fox in the wood\"}]}\n"
	"{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \"Hi\"},"
	" {\"role\": \"assistant\", \"content\": \"Hello, what can I do for you on this fine day in the month of May, dear friend?\"},"
	" {\"role\": \"user\", \"content\": \"Count to ten, slowly\"}, {\"role\": \"assistant\", \"content\": \"One.\"}]}\n";

START_TEST(the_templates_tail_stays)
{
	static const char tail[] = "<|im_end|>\n<|im_start|>assistant\n";
	const int32_t end = nx_tokenizer_find(tok, "<|im_end|>", 10);
	for (int32_t want = 90; want < 300; want += 7) {
		struct nx_cell c = make_cell(ten, ten, 4);
		c.seq_len.min = c.seq_len.max = want;
		if (!w)
			open_ok(chat, 1);
		requests_ok(&c, want, &a);
		for (size_t i = 0; i < a.n; i++) {
			char *text;
			size_t len;
			const struct nx_request *q = &a.reqs[i];
			ck_assert_int_eq(q->n_prompt, want);
			ck_assert_int_eq(nx_tokenizer_decode(tok, q->prompt, (size_t)want, &text,
			                                     &len, &err),
			                 0);
			ck_assert_uint_gt(len, sizeof(tail));
			ck_assert_str_eq(text + len - (sizeof(tail) - 1), tail);
			ck_assert_ptr_nonnull(strstr(text, "<|im_start|>user\n"));
			/* The control token that a user wrote is text, not the token. */
			int n_end = 0;
			for (int32_t k = 0; k < want; k++)
				n_end += q->prompt[k] == end;
			ck_assert_int_le(n_end, 4);
			ck_assert_int_ge(n_end, 1);
			free(text);
		}
	}
	struct nx_cell c = make_cell(ten, ten, 1);
	ck_assert_int_eq(nx_workload_requests(w, &c, 0, &a, &err), NX_EINVAL);
	ck_assert_msg(
		strstr(err.msg,
	               "found a prompt length of 10, but the chat template around the text takes") !=
			NULL,
		"%s", err.msg);
	ck_assert(a.n == 0 && !a.reqs && !a.tokens);
}
END_TEST

START_TEST(too_little_text_is_told)
{
	struct nx_cell c = make_cell(ten, ten, 50);
	open_ok("{\"text\": \"a\"}\n", 1);
	ck_assert_int_eq(nx_workload_requests(w, &c, 0, &a, &err), NX_EINVAL);
	ck_assert_str_eq(
		err.msg,
		"p.jsonl: found too little text for 2 different prompts of 10 tokens; legal: more texts, longer prompts or fewer requests");
	ck_assert_ptr_null(a.reqs);
}
END_TEST

static const struct {
	const char *text, *want;
} wrong[] = {
	{"", "p.jsonl:1: found no prompt; legal: one JSON object a line, or a list of them"},
	{"{\"text\": \"a\"}\n{\"txt\": \"b\"}\n",
         "p.jsonl:2: found the key \"txt\" and no prompt; legal: text, prompt, turns, messages or conversations; did you mean \"text\"?"},
	{"{\"zzz\": 1}\n", "p.jsonl:1: found no prompt; legal: one of the keys"},
	{"{\"text\": 7}\n", "p.jsonl:1: found a number for text; legal: a string"},
	{"{\"text\": \"\"}\n",
         "p.jsonl:1: found no prompt in 1 entries (1 without a user turn that has a text, 0 with"},
	{"\n\n{\"text\": \"a\"\n", "p.jsonl:3:"},
	{"7\n", "p.jsonl:1: found a number; legal: one JSON object a line"},
	{"{\"turns\": []}\n{\"turns\": [{\"role\": \"system\", \"content\": \"a\"}]}\n",
         "p.jsonl:1: found no prompt in 2 entries (2 without"},
	{"{\"turns\": 7}\n", "p.jsonl:1: found a number for turns; legal: a list of {\"role\""},
	{"{\"turns\": [{\"role\": \"usr\", \"content\": \"a\"}]}\n",
         "p.jsonl:1: found the role \"usr\" in turn 1; legal: system, user, assistant; in ShareGPT's files human, gpt; did you mean \"user\"?"},
	{"{\"turns\": [{\"role\": \"user\"}]}\n",
         "p.jsonl:1: found turn 1 without the string \"content\""},
	{"{\"turns\": [1]}\n", "p.jsonl:1: found a number as turn 1"},
	{"{\"text\": \"a\", \"priority\": \"high\"}\n",
         "p.jsonl:1: found a string for priority; legal: an integer"},
};

START_TEST(bad_lines_are_named)
{
	ck_assert_int_lt(open_text(wrong[_i].text, 1), 0);
	ck_assert_msg(strncmp(err.msg, wrong[_i].want, strlen(wrong[_i].want)) == 0, "%s", err.msg);
	ck_assert_ptr_null(w);
}
END_TEST

START_TEST(priorities_come_from_the_file)
{
	struct nx_cell c = make_cell(ten, ten, 2);
	open_ok("{\"text\": \"abc def ghi jkl mno pqr\", \"priority\": 3}\n{\"text\": \"ABC DEF GHI JKL MNO PQR\", \"id\": 7}\n",
	        1);
	requests_ok(&c, 0, &a);
	ck_assert_int_eq(a.reqs[0].priority + a.reqs[1].priority, 3);
	ck_assert_int_ne(a.reqs[0].priority, a.reqs[1].priority);
}
END_TEST

int main(void)
{
	if (!mkdtemp(dir) || chdir(dir))
		return EXIT_FAILURE;
	Suite *s = suite_create("workload");
	TCase *t = tcase_create("requests");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, lengths_are_exact_and_prompts_differ);
	tcase_add_test(t, a_prompt_is_the_start_of_a_text_and_goes_on_with_the_next);
	tcase_add_test(t, rounds_differ_and_all_repeats);
	tcase_add_test(t, the_templates_tail_stays);
	tcase_add_test(t, too_little_text_is_told);
	tcase_add_loop_test(t, bad_lines_are_named, 0, (int)(sizeof(wrong) / sizeof(*wrong)));
	tcase_add_test(t, priorities_come_from_the_file);
	suite_add_tcase(s, t);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	unlink("p.jsonl");
	unlink("m.gguf");
	if (chdir("/") || rmdir(dir))
		fprintf(stderr, "%s stays\n", dir);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
