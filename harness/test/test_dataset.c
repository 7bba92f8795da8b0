/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload.h: other people's files (ShareGPT, OpenAI), lengths as they are in the data, conversations turn by
 * turn, random tokens; and what hostile files do.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure/trace.h"
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
static struct nx_workload_spec spec;

static void setup(void)
{
	memset(&err, 0, sizeof(err));
	ck_assert_msg(nx_test_open_tokenizer("m.gguf", &gguf, &tok, &err) == 0, "%s", err.msg);
	w = NULL;
	a = b = (struct nx_request_set){0};
	spec = (struct nx_workload_spec){
		.prompts = "d.json", .samples = 1, .seed = 1, .ignore_eos = true, .top_p = 1};
}

static void teardown(void)
{
	nx_request_set_release(&a);
	nx_request_set_release(&b);
	nx_workload_close(w);
	nx_tokenizer_destroy(tok);
	nx_gguf_close(gguf);
}

static int open_bytes(const char *text, size_t n)
{
	FILE *f = fopen("d.json", "w");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fwrite(text, 1, n, f), n);
	fclose(f);
	nx_workload_close(w);
	w = NULL;
	return nx_workload_open(&w, &spec, tok, nx_tokenizer_vocab(tok), &err);
}

static void open_ok(const char *text)
{
	int rc = open_bytes(text, strlen(text));
	ck_assert_msg(rc == 0, "%s", err.msg);
}

static const struct nx_dist data = {NX_DIST_DATASET, 1, 100000, 0, 0, 0},
			    ten = {NX_DIST_FIXED, 10, 10, 0, 0, 0};

static struct nx_cell make_cell(struct nx_dist seq, struct nx_dist out, int32_t n)
{
	struct nx_cell c = {.seq_len = seq, .output_len = out, .num_requests = n, .batch_size = 1};
	return c;
}

static void requests_ok(const struct nx_cell *c, int32_t round, struct nx_request_set *s)
{
	int rc = nx_workload_requests(w, c, round, s, &err);
	ck_assert_msg(rc == 0, "%s", err.msg);
	ck_assert_uint_eq(s->n, (size_t)c->num_requests);
}

/* The prompt as text; static storage. */
static const char *text_of(const struct nx_request *q)
{
	static char text[65536];
	char *s;
	size_t n;
	ck_assert_int_eq(nx_tokenizer_decode(tok, q->prompt, (size_t)q->n_prompt, &s, &n, &err), 0);
	ck_assert_uint_lt(n, sizeof(text));
	memcpy(text, s, n);
	text[n] = '\0';
	free(s);
	return text;
}

static size_t tokens_of(const char *s)
{
	int32_t *ids;
	size_t n;
	ck_assert_int_eq(nx_tokenizer_encode(tok, s, strlen(s), 0, &ids, &n, &err), 0);
	free(ids);
	return n;
}

#define ASK(q) "<|im_start|>user\n" q "<|im_end|>\n"
#define SAY(s) "<|im_start|>assistant\n" s "<|im_end|>\n"
#define GO "<|im_start|>assistant\n"

static const char share[] =
	"[\n {\"id\": \"a_0\", \"conversations\": [{\"from\": \"human\", \"value\": \"How are you?\"},"
	" {\"from\": \"gpt\", \"value\": \"Fine, and what about yourself, dear?\"}, {\"from\": \"human\", \"value\": \"So so.\"},"
	" {\"from\": \"chatgpt\", \"value\": \"Oh.\"}, {\"from\": \"user\", \"value\": \"\"}, {\"from\": \"bing\", \"value\": \"Hm?\"}]},\n"
	" {\"id\": \"empty\", \"conversations\": []},\n"
	" {\"id\": \"mute\", \"conversations\": [{\"from\": \"human\", \"value\": \"\"}, {\"from\": \"gpt\", \"value\": \"Hello?\"}]},\n"
	" {\"id\": \"half\", \"conversations\": [{\"from\": \"human\", \"value\": \"\\ud83d\"}]}\n]\n";

START_TEST(sharegpt_is_read)
{
	struct nx_cell c = make_cell(data, data, 1);
	char note[256];
	open_ok(share);
	ck_assert_uint_eq(nx_workload_count(w), 1);
	ck_assert_str_eq(
		nx_workload_note(w, note, sizeof(note)),
		"3 of 4 entries of the prompts are left out: 2 without a user turn that has a text, 1 with text that is no Unicode");
	requests_ok(&c, 0, &a);
	ck_assert_str_eq(text_of(&a.reqs[0]),
	                 ASK("How are you?") SAY("Fine, and what about yourself, dear?")
	                         ASK("So so.") GO);
	ck_assert_int_eq(a.reqs[0].max_out, (int)tokens_of("Oh."));

	spec.turns = NX_TURNS_FIRST;
	open_ok(share);
	requests_ok(&c, 0, &a);
	ck_assert_str_eq(text_of(&a.reqs[0]), ASK("How are you?") GO);
	ck_assert_int_eq(a.reqs[0].max_out, (int)tokens_of("Fine, and what about yourself, dear?"));

	spec.turns = NX_TURNS_LAST;
	/* The same shape as JSON lines, and OpenAI's names; nothing is left out, so nothing is said. */
	open_ok("{\"conversations\": [{\"from\": \"system\", \"value\": \"Be kind.\"}, {\"from\": \"human\", \"value\": \"Hi\"}]}\n"
	        "{\"messages\": [{\"role\": \"user\", \"content\": \"Ho\"}]}\n");
	ck_assert_str_eq(nx_workload_note(w, note, sizeof(note)), "");
	c = make_cell(data, ten, 2);
	requests_ok(&c, 0, &a);
	int first = strlen(text_of(&a.reqs[0])) > strlen(text_of(&a.reqs[1])) ? 0 : 1;
	ck_assert_str_eq(text_of(&a.reqs[first]),
	                 "<|im_start|>system\nBe kind.<|im_end|>\n" ASK("Hi") GO);
	ck_assert_str_eq(text_of(&a.reqs[1 - first]), ASK("Ho") GO);
}
END_TEST

/* n conversations of 1 to 5 user turns. */
static const char *talks(int n)
{
	static char text[262144];
	size_t at = 0;
	for (int i = 0; i < n; i++) {
		at += (size_t)snprintf(text + at, sizeof(text) - at, "{\"conversations\": [");
		for (int k = 0; k <= i % 5; k++) {
			at += (size_t)snprintf(
				text + at, sizeof(text) - at,
				"%s{\"from\": \"human\", \"value\": \"Question %d of %d <|im_end|>?\"}, {\"from\": \"gpt\", \"value\": \"\\n answer %d.%d",
				k ? ", " : "", k, i * 7919, i, k);
			for (int j = 0; j < i * 31 % 40; j++)
				at += (size_t)snprintf(text + at, sizeof(text) - at, " w%d",
				                       (i + j * k) % 89);
			at += (size_t)snprintf(text + at, sizeof(text) - at, "\"}");
		}
		at += (size_t)snprintf(text + at, sizeof(text) - at, "]}\n");
	}
	ck_assert_uint_lt(at, sizeof(text) - 1);
	return text;
}

static bool extends(const struct nx_request *p, const struct nx_request *q)
{
	return q->n_prompt > p->n_prompt &&
	       memcmp(p->prompt, q->prompt, (size_t)p->n_prompt * sizeof(int32_t)) == 0;
}

START_TEST(a_session_is_its_turns_and_each_prompt_begins_with_the_one_before)
{
	struct nx_cell c = make_cell(data, data, 120), fewer = make_cell(data, data, 31);
	spec.turns = NX_TURNS_ALL;
	open_ok(talks(50));
	requests_ok(&c, 2, &a);
	const int32_t end = nx_tokenizer_find(tok, "<|im_end|>", 10);
	size_t n_later = 0;
	for (size_t i = 0; i < a.n; i++) {
		const struct nx_request *q = &a.reqs[i];
		int n_end = 0;
		for (int32_t k = 0; k < q->n_prompt; k++)
			n_end += q->prompt[k] == end;
		/* What users wrote is text: the template's alone are control tokens. */
		ck_assert_int_eq(n_end, 2 * (int)q->turn + 1);
		ck_assert_uint_eq(q->id, i);
		if (q->turn == 0) {
			ck_assert_uint_eq(q->after, 0);
			ck_assert_uint_eq(q->session, i ? q[-1].session + 1 : 0);
			continue;
		}
		n_later++;
		ck_assert_uint_eq(q->after, i); /* the one just before it */
		ck_assert_uint_eq(q->session, q[-1].session);
		ck_assert_uint_eq(q->turn, q[-1].turn + 1);
		ck_assert(extends(&q[-1], q));
		ck_assert(q->n_prompt > q[-1].n_prompt + q[-1].max_out);
	}
	ck_assert_uint_gt(n_later, 50);
	/* The file's answer follows the prompt that asked for it. */
	for (size_t i = 1; i < a.n; i++) {
		const struct nx_request *q = &a.reqs[i];
		if (q->turn == 0)
			continue;
		char *s;
		size_t n;
		ck_assert_int_eq(nx_tokenizer_decode(tok, q->prompt + q[-1].n_prompt,
		                                     (size_t)q[-1].max_out, &s, &n, &err),
		                 0);
		ck_assert_uint_eq(strncmp(s, "\n answer ", 9), 0);
		ck_assert(n > 12 && strstr(s, "<|im_end|>") == NULL);
		free(s);
	}
	/* A smaller batch has the first of them, its last session cut short. */
	requests_ok(&fewer, 2, &b);
	for (size_t i = 0; i < b.n; i++) {
		ck_assert_int_eq(a.reqs[i].n_prompt, b.reqs[i].n_prompt);
		ck_assert_mem_eq(a.reqs[i].prompt, b.reqs[i].prompt,
		                 (size_t)a.reqs[i].n_prompt * sizeof(int32_t));
		ck_assert_uint_eq(a.reqs[i].after, b.reqs[i].after);
	}
	requests_ok(&fewer, 3, &b);
	ck_assert(a.reqs[0].n_prompt != b.reqs[0].n_prompt ||
	          memcmp(a.reqs[0].prompt, b.reqs[0].prompt,
	                 (size_t)a.reqs[0].n_prompt * sizeof(int32_t)) != 0);
}
END_TEST

START_TEST(what_is_out_of_the_limits_is_left_out)
{
	struct nx_cell c = make_cell(data, data, 40);
	open_ok(talks(50));
	c.seq_len.min = 60, c.seq_len.max = 700;
	c.output_len.min = 30, c.output_len.max = 90;
	c.num_requests = 5;
	requests_ok(&c, 0, &a);
	for (size_t i = 0; i < a.n; i++) {
		ck_assert(a.reqs[i].n_prompt >= 60 && a.reqs[i].n_prompt <= 700);
		ck_assert(a.reqs[i].max_out >= 30 && a.reqs[i].max_out <= 90);
	}
	ck_assert_int_le(a.longest, 790);
	/* Turns: left-out ones stay in the later prompts, a prompt that is too long ends its session. */
	spec.turns = NX_TURNS_ALL;
	open_ok(talks(50));
	requests_ok(&c, 0, &a);
	for (size_t i = 0; i < a.n; i++)
		ck_assert(a.reqs[i].n_prompt <= 700 && a.reqs[i].max_out >= 30 &&
		          a.reqs[i].max_out <= 90);
	/* Too few are left: the sentence counts. */
	c.num_requests = 1000;
	ck_assert_int_eq(nx_workload_requests(w, &c, 0, &a, &err), NX_EINVAL);
	ck_assert_msg(
		strstr(err.msg, "d.json: found ") &&
			strstr(err.msg,
	                       " requests with prompts of 60 to 700 tokens and usable answers, and 1000 are asked for (left out: "),
		"%s", err.msg);
	ck_assert_ptr_null(a.reqs);
}
END_TEST

START_TEST(prompts_that_came_already_are_passed_over)
{
	static const char twice[] =
		"{\"turns\": [{\"role\": \"user\", \"content\": \"same\"}, {\"role\": \"assistant\", \"content\": \"a b c\"},"
		" {\"role\": \"user\", \"content\": \"more\"}, {\"role\": \"assistant\", \"content\": \"a b c\"}]}\n"
		"{\"turns\": [{\"role\": \"user\", \"content\": \"same\"}, {\"role\": \"assistant\", \"content\": \"x y z\"},"
		" {\"role\": \"user\", \"content\": \"other\"}, {\"role\": \"assistant\", \"content\": \"a b c\"}]}\n";
	struct nx_cell c = make_cell(data, data, 2);
	open_ok(twice); /* by their last turns they differ */
	requests_ok(&c, 0, &a);
	spec.turns = NX_TURNS_FIRST;
	open_ok(twice);
	ck_assert_int_eq(nx_workload_requests(w, &c, 0, &a, &err), NX_EINVAL);
	ck_assert_msg(strstr(err.msg, "1 that came already") != NULL, "%s", err.msg);
	spec.turns = NX_TURNS_ALL; /* a session that begins as another is that session once more */
	open_ok(twice);
	requests_ok(&c, 0, &a);
	c.num_requests = 3;
	ck_assert_int_eq(nx_workload_requests(w, &c, 0, &a, &err), NX_EINVAL);
}
END_TEST

START_TEST(a_drawn_prompt_may_have_the_datas_output)
{
	struct nx_cell c = make_cell((struct nx_dist){NX_DIST_FIXED, 120, 120, 0, 0, 0}, data, 60);
	c.output_len.min = 4, c.output_len.max = 60;
	open_ok(talks(50));
	requests_ok(&c, 0, &a);
	int different = 0;
	for (size_t i = 0; i < a.n; i++) {
		ck_assert_int_eq(a.reqs[i].n_prompt, 120);
		ck_assert(a.reqs[i].max_out >= 4 && a.reqs[i].max_out <= 60);
		different += a.reqs[i].max_out != a.reqs[0].max_out;
	}
	ck_assert_int_gt(different, 5);
	open_ok("{\"text\": \"no answer here\"}\n");
	ck_assert_int_eq(nx_workload_requests(w, &c, 0, &a, &err), NX_EINVAL);
	ck_assert_msg(strstr(err.msg, "d.json: found no answer of 4 to 60 tokens") != NULL, "%s",
	              err.msg);
}
END_TEST

START_TEST(plain_texts_can_be_taken_as_they_are)
{
	struct nx_cell c = make_cell(data, ten, 2);
	open_ok("{\"text\": \"one two three\"}\n{\"prompt\": \"four\"}\n");
	requests_ok(&c, 0, &a);
	for (size_t i = 0; i < 2; i++)
		ck_assert(!strcmp(text_of(&a.reqs[i]), "one two three") ||
		          !strcmp(text_of(&a.reqs[i]), "four"));
	spec.turns = NX_TURNS_ALL; /* a session of one turn each */
	open_ok("{\"text\": \"one two three\"}\n{\"prompt\": \"four\"}\n");
	requests_ok(&c, 0, &a);
	ck_assert(a.reqs[0].session == 0 && a.reqs[1].session == 1 && a.reqs[1].after == 0);
}
END_TEST

/* ---- random tokens ---------------------------------------------------------------------------- */

static void open_random(const struct nx_tokenizer *t, int32_t vocab)
{
	spec.prompts = NULL;
	nx_workload_close(w);
	w = NULL;
	ck_assert_msg(nx_workload_open(&w, &spec, t, vocab, &err) == 0, "%s", err.msg);
}

START_TEST(random_tokens_are_drawn_from_all_but_control_tokens)
{
	struct nx_cell c = make_cell((struct nx_dist){NX_DIST_UNIFORM, 5, 200, 0, 0, 0}, ten, 100),
		       fewer = c;
	const int32_t vocab = nx_tokenizer_vocab(tok);
	int seen[1024] = {0}, kinds = 0;
	open_random(tok, vocab);
	requests_ok(&c, 0, &a);
	for (uint64_t i = 0; i < a.n_tokens; i++) {
		ck_assert(a.tokens[i] >= 0 && a.tokens[i] < vocab);
		ck_assert(!nx_tokenizer_is_control(tok, a.tokens[i]) &&
		          !nx_tokenizer_is_eog(tok, a.tokens[i]));
		kinds += !seen[a.tokens[i]]++;
	}
	ck_assert_int_eq(kinds, vocab - 3); /* of about 10,000 draws */
	fewer.num_requests = 7;
	requests_ok(&fewer, 0, &b);
	for (size_t i = 0; i < b.n; i++)
		ck_assert_mem_eq(a.reqs[i].prompt, b.reqs[i].prompt,
		                 (size_t)a.reqs[i].n_prompt * sizeof(int32_t));
	requests_ok(&fewer, 1, &b);
	ck_assert(a.reqs[0].n_prompt != b.reqs[0].n_prompt ||
	          a.reqs[0].prompt[0] != b.reqs[0].prompt[0] ||
	          a.reqs[0].prompt[1] != b.reqs[0].prompt[1]);
	/* A shape has no tokenizer: all of the vocabulary. */
	open_random(NULL, 12);
	requests_ok(&c, 0, &a);
	memset(seen, 0, sizeof(seen));
	for (uint64_t i = 0; i < a.n_tokens; i++)
		seen[a.tokens[i]] = 1;
	for (int i = 0; i < 12; i++)
		ck_assert_int_eq(seen[i], 1);
	c = make_cell((struct nx_dist){NX_DIST_FIXED, 1, 1, 0, 0, 0}, ten, 13);
	ck_assert_int_eq(nx_workload_requests(w, &c, 0, &a, &err), NX_EINVAL);
	ck_assert_msg(strstr(err.msg, "prompts: random: found too few tokens (12)") != NULL, "%s",
	              err.msg);
	spec.prompts = "d.json";
	nx_workload_close(w);
	w = NULL;
	ck_assert_int_eq(nx_workload_open(&w, &spec, NULL, 12, &err), NX_EINVAL);
	ck_assert_str_eq(
		err.msg,
		"d.json: found a workload of text, but the model has no tokenizer (a shape preset, or a directory "
		"without tokenizer.json); legal: random prompts (prompts: random; profile: --prompts random), or another model");
}
END_TEST

START_TEST(a_trace_gives_lengths_times_and_shared_blocks)
{
	static const uint64_t one[] = {7, 8, 9}, two[] = {7, 8, 10};
	const struct nx_trace_row rows[] = {
		{0, 1100, 5, one, 3}, {2000, 1300, 6, two, 3}, {3000, 40, 900, NULL, 0}};
	const struct nx_trace trace = {.path = "t.csv", .rows = rows, .n = 3};
	struct nx_cell c = make_cell((struct nx_dist){NX_DIST_TRACE, 1, 1200, 0, 0, 0},
	                             (struct nx_dist){NX_DIST_TRACE, 1, 100, 0, 0, 0}, 7);
	static const int32_t in[] = {1100, 1200, 40, 1100, 1200, 40, 1100},
			     out[] = {5, 6, 100, 5, 6, 100, 5};
	static const int64_t at[] = {0, 2000, 3000, 4500, 6500, 7500, 9000};
	spec.trace = &trace;
	open_random(tok, nx_tokenizer_vocab(tok));
	requests_ok(&c, 0, &a);
	for (size_t i = 0; i < 7; i++) {
		ck_assert_int_eq(a.reqs[i].n_prompt, in[i]);
		ck_assert_int_eq(a.reqs[i].max_out, out[i]);
		ck_assert_int_eq(a.reqs[i].arrival_ns, at[i]);
	}
	/* Two blocks of 512 are shared, the third is not; the same ids are the same prompt. */
	ck_assert_mem_eq(a.reqs[0].prompt, a.reqs[1].prompt, 1024 * sizeof(int32_t));
	ck_assert(memcmp(a.reqs[0].prompt + 1024, a.reqs[1].prompt + 1024, 76 * sizeof(int32_t)));
	ck_assert(memcmp(a.reqs[0].prompt, a.reqs[0].prompt + 512, 512 * sizeof(int32_t)));
	ck_assert_mem_eq(a.reqs[0].prompt, a.reqs[3].prompt, 1100 * sizeof(int32_t));
	ck_assert(memcmp(a.reqs[2].prompt, a.reqs[5].prompt, 40 * sizeof(int32_t)));
	requests_ok(&c, 1, &b);
	ck_assert(memcmp(a.reqs[0].prompt, b.reqs[0].prompt, 1024 * sizeof(int32_t)));
	/* Texts take the lengths, too. */
	spec.prompts = "d.json";
	open_ok("{\"text\": \"abc def ghi jkl mno pqr stu\"}\n");
	requests_ok(&c, 0, &a);
	for (size_t i = 0; i < 7; i++)
		ck_assert_int_eq(a.reqs[i].n_prompt, in[i]);
}
END_TEST

/* ---- wrong and hostile files ------------------------------------------------------------------ */

static const struct {
	const char *text, *want;
} wrong[] = {
	{"[{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}]},\n {\"conversation\": []}]",
         "d.json:2: entry 2: found the key \"conversation\" and no prompt; legal: text, prompt, turns, messages or conversations; did you mean \"conversations\"?"},
	{"[{\"conversations\": [{\"from\": \"humn\", \"value\": \"a\"}]}]",
         "d.json:1: entry 1: found the role \"humn\" in turn 1; legal: system, user, assistant; in ShareGPT's files human, gpt; did you mean \"human\"?"},
	{"[{\"conversations\": {\"from\": \"human\"}}]",
         "d.json:1: entry 1: found an object for conversations; legal: a list of"},
	{"[{\"conversations\": [{\"from\": \"human\", \"value\": 7}]}]",
         "d.json:1: entry 1: found turn 1 without the string \"content\""},
	{"[[]]", "d.json:1: entry 1: found \"[\"; legal: a list of JSON objects"},
	{"[]", "d.json:1: found no prompt; legal: one JSON object a line, or a list of them"},
	{"{\"messages\": [{\"role\": \"user\", \"content\": null}]}",
         "d.json:1: found turn 1 without the string \"content\""},
	{"{\"text\": \"a\", \"priority\": 99999999999999999999}", "d.json:1:"},
};

START_TEST(bad_entries_are_named)
{
	ck_assert_int_lt(open_bytes(wrong[_i].text, strlen(wrong[_i].text)), 0);
	ck_assert_msg(strncmp(err.msg, wrong[_i].want, strlen(wrong[_i].want)) == 0, "%s", err.msg);
	ck_assert_ptr_null(w);
}
END_TEST

/* Whatever bytes are there: requests, or one sentence. */
START_TEST(broken_files_end_in_a_sentence)
{
	static const char dirt[] = "{}[]\",:\\\n\0\xff\x80u0dDeE9 ";
	char text[sizeof(share) + 8];
	uint64_t seed = 5;
	int opened = 0;
	for (int k = 0; k < 1000; k++) {
		size_t n = sizeof(share) - 1;
		memcpy(text, share, n);
		for (uint64_t i = nx_test_random(&seed) % 4 + 1; i > 0; i--)
			text[nx_test_random(&seed) % n] =
				dirt[nx_test_random(&seed) % (sizeof(dirt) - 1)];
		if (nx_test_random(&seed) % 4 == 0)
			n = nx_test_random(&seed) % n;
		spec.turns = (enum nx_turns)(nx_test_random(&seed) % 3);
		err = (struct nx_err){0};
		if (open_bytes(text, n) != 0) {
			ck_assert(err.code && strncmp(err.msg, "d.json:", 7) == 0 &&
			          !strchr(err.msg, '\n'));
			continue;
		}
		opened++;
		struct nx_cell c = make_cell(data, k % 2 ? data : ten, 1 + k % 3);
		if (nx_workload_requests(w, &c, 0, &a, &err) != 0)
			ck_assert(err.code && err.msg[0] && !a.reqs);
	}
	ck_assert_int_gt(opened, 30); /* not all may be refused by the parser */
}
END_TEST

int main(void)
{
	if (!mkdtemp(dir) || chdir(dir))
		return EXIT_FAILURE;
	Suite *s = suite_create("dataset");
	TCase *t = tcase_create("requests");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, sharegpt_is_read);
	tcase_add_test(t, a_session_is_its_turns_and_each_prompt_begins_with_the_one_before);
	tcase_add_test(t, what_is_out_of_the_limits_is_left_out);
	tcase_add_test(t, prompts_that_came_already_are_passed_over);
	tcase_add_test(t, a_drawn_prompt_may_have_the_datas_output);
	tcase_add_test(t, plain_texts_can_be_taken_as_they_are);
	tcase_add_test(t, random_tokens_are_drawn_from_all_but_control_tokens);
	tcase_add_test(t, a_trace_gives_lengths_times_and_shared_blocks);
	tcase_add_loop_test(t, bad_entries_are_named, 0, (int)(sizeof(wrong) / sizeof(*wrong)));
	tcase_add_test(t, broken_files_end_in_a_sentence);
	suite_add_tcase(s, t);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	unlink("d.json");
	unlink("m.gguf");
	if (chdir("/") || rmdir(dir))
		fprintf(stderr, "%s stays\n", dir);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
