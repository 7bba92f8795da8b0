/* SPDX-License-Identifier: Apache-2.0
 *
 * Chat formats: equality with Transformers' apply_chat_template (golden data of
 * data/tokenizer/make_chat.py). With NEXUS_CHAT_CASES another file of the same kind is read, such
 * as one made from the templates of real models.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "hf_dir.h"
#include "model/tokenizer.h"
#include "tiny_model.h"

static const char added[] =
	"[{\"id\":258,\"content\":\"<s>\",\"special\":true},{\"id\":259,\"content\":\"</s>\",\"special\":true},"
	"{\"id\":260,\"content\":\"<|im_start|>\",\"special\":true},{\"id\":261,\"content\":\"<|im_end|>\",\"special\":true},"
	"{\"id\":262,\"content\":\"<|begin_of_text|>\",\"special\":true},{\"id\":263,\"content\":\"<|eot_id|>\",\"special\":true},"
	"{\"id\":264,\"content\":\"<|start_header_id|>\",\"special\":true},"
	"{\"id\":265,\"content\":\"<|end_header_id|>\",\"special\":true},{\"id\":266,\"content\":\"<|endoftext|>\",\"special\":true}]";

/* A tokenizer with all special tokens and this template; NULL: none. */
static struct nx_tokenizer *open_template(const char *template, const char *bos, const char *eos)
{
	struct nx_tokenizer *t = NULL;
	struct nx_err err;
	json_t *config = json_pack("{s:s?,s:s?}", "bos_token", bos, "eos_token", eos);
	ck_assert_ptr_nonnull(config);
	if (template)
		json_object_set_new(config, "chat_template", json_string(template));
	char *text = json_dumps(config, 0);
	const struct nx_hf_parts parts = {.added_tokens = added, .tokenizer_config = text};
	ck_assert_msg(nx_test_hf_open(&t, &parts, &err) == 0, "%s", err.msg);
	free(text);
	json_decref(config);
	return t;
}

/* Contents put into a rendering of marks give what rendering them gives: how workloads cut prompts. */
static void check_splice(const struct nx_tokenizer *t, const char *format, size_t i,
                         const struct nx_turn *turns, size_t n, const char *want)
{
	struct nx_turn marked[16];
	char marks[16][8], *got = NULL, *out, *end;
	struct nx_err err;
	size_t room = strlen(want) + 1;
	for (size_t k = 0; k < n; k++) {
		if (strncmp(turns[k].content, "<tool_response>", 15) == 0)
			return; /* the template looks at these */
		snprintf(marks[k], sizeof(marks[k]), "\x01%zu\x02", k);
		marked[k] = (struct nx_turn){turns[k].role, marks[k]};
		room += strlen(turns[k].content);
	}
	ck_assert_msg(!nx_chat_render(t, marked, n, true, &got, &err), "%s", err.msg);
	out = calloc(1, room);
	end = out;
	ck_assert_ptr_nonnull(out);
	for (const char *s = got; *s;) {
		const char *content = s;
		size_t len = 1, k = n;
		if (*s == '\x01') {
			k = strtoul(s + 1, (char **)(uintptr_t)&s, 10);
			ck_assert_uint_lt(k, n);
			nx_chat_content(t, &turns[k], &content, &len);
		}
		s++;
		ck_assert_uint_lt((size_t)(end - out) + len, room);
		memcpy(end, content, len);
		end += len;
	}
	ck_assert_msg(strcmp(out, want) == 0, "%s, turns %zu, spliced\n got: %s\nwant: %s", format,
	              i, out, want);
	free(out);
	free(got);
}

static void check_case(const struct nx_tokenizer *t, const char *format, size_t i,
                       const json_t *list, bool prompt, const char *want)
{
	struct nx_turn turns[16];
	struct nx_err err;
	char *got = NULL;
	const size_t n = json_array_size(list);
	ck_assert_uint_le(n, 16);
	for (size_t k = 0; k < n; k++) {
		const json_t *turn = json_array_get(list, k);
		turns[k].role = json_string_value(json_object_get(turn, "role"));
		turns[k].content = json_string_value(json_object_get(turn, "content"));
	}
	const int rc = nx_chat_render(t, turns, n, prompt, &got, &err);
	if (!want) {
		ck_assert_msg(rc == NX_EINVAL, "%s, turns %zu: not refused", format, i);
		ck_assert_ptr_nonnull(strstr(err.msg, "legal in the chat format"));
		return;
	}
	ck_assert_msg(rc == 0, "%s, turns %zu: %s", format, i, err.msg);
	ck_assert_msg(strcmp(got, want) == 0, "%s, turns %zu\n got: %s\nwant: %s", format, i, got,
	              want);
	free(got);
	if (prompt && n && strcmp(turns[n - 1].role, "user") == 0)
		check_splice(t, format, i, turns, n, want);
}

START_TEST(renders_equal_transformers)
{
	char full[512];
	json_error_t why;
	size_t i, k, n_cases = 0;
	json_t *entry, *pair;
	const char *other = getenv("NEXUS_CHAT_CASES");
	nx_test_source_path(full, sizeof(full), "harness/test/data/tokenizer/chat.json");
	json_t *all = json_load_file(other ? other : full, 0, &why);
	ck_assert_msg(all != NULL, "%s", why.text);
	const json_t *turns = json_object_get(all, "turns");
	json_array_foreach(json_object_get(all, "formats"), i, entry)
	{
		const char *format = json_string_value(json_object_get(entry, "format"));
		struct nx_tokenizer *t =
			open_template(json_string_value(json_object_get(entry, "template")),
		                      json_string_value(json_object_get(entry, "bos")),
		                      json_string_value(json_object_get(entry, "eos")));
		ck_assert_msg(strcmp(nx_chat_format(t), format) == 0, "entry %zu is %s, not %s", i,
		              nx_chat_format(t), format);
		json_array_foreach(json_object_get(entry, "expected"), k, pair)
		{
			for (size_t without = 0; without < 2; without++, n_cases++)
				check_case(t, format, k, json_array_get(turns, k), !without,
				           json_string_value(json_array_get(pair, without)));
		}
		nx_tokenizer_destroy(t);
	}
	ck_assert_uint_gt(n_cases, other ? 0 : 400);
	json_decref(all);
}
END_TEST

START_TEST(formats_need_their_tokens)
{
	static const char chatml[] =
		"{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>'}}"
		"{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
	struct nx_tokenizer *t = open_template(chatml, NULL, NULL);
	struct nx_err err;
	ck_assert_str_eq(nx_chat_format(t), "chatml");
	nx_tokenizer_destroy(t);
	ck_assert_int_eq(nx_test_hf_open(&t, &(struct nx_hf_parts){.template = chatml}, &err), 0);
	ck_assert_str_eq(nx_tokenizer_chat_template(t), chatml);
	ck_assert_str_eq(nx_chat_format(t), "plain");
	nx_tokenizer_destroy(t);
	t = open_template(NULL, NULL, NULL);
	ck_assert_str_eq(nx_chat_format(t), "chatml"); /* no template, but the tokens */
	nx_tokenizer_destroy(t);
}
END_TEST

START_TEST(the_default_template_of_a_list_is_taken)
{
	struct nx_tokenizer *t;
	struct nx_err err;
	const struct nx_hf_parts parts = {
		.tokenizer_config =
			"{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"a\"},{\"name\":\"default\",\"template\":\"b\"}]}"};
	ck_assert_msg(nx_test_hf_open(&t, &parts, &err) == 0, "%s", err.msg);
	ck_assert_str_eq(nx_tokenizer_chat_template(t), "b");
	nx_tokenizer_destroy(t);
}
END_TEST

static Suite *suite_chat(void)
{
	Suite *s = suite_create("chat");
	TCase *tc = tcase_create("chat");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, renders_equal_transformers);
	tcase_add_test(tc, formats_need_their_tokens);
	tcase_add_test(tc, the_default_template_of_a_list_is_taken);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(suite_chat());
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
