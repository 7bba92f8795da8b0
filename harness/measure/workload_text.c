/* SPDX-License-Identifier: Apache-2.0
 *
 * See workload_text.h.
 */
#include "measure/workload_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"

#define TEXTS_MAX 1000000
#define PRIORITY_MAX 1000000

static const char *const roles[] = {"system", "user", "assistant"};
#define N_ROLES (sizeof(roles) / sizeof(*roles))

static int oom(struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while reading prompts");
}

/* ---- the file --------------------------------------------------------------------------------- */

static int take_turn(struct nx_prompt_file *f, const struct nx_jsonl *r, const json_t *v, size_t i,
                     struct nx_turn *out, struct nx_err *err)
{
	char quoted[96];
	if (!json_is_object(v))
		return nx_jsonl_fail(
			r, err, "found %s as turn %zu; legal: {\"role\": ..., \"content\": ...}",
			nx_json_kind(v), i + 1);
	const char *role = json_string_value(json_object_get(v, "role"));
	const char *content = json_string_value(json_object_get(v, "content"));
	if (!role || !content)
		return nx_jsonl_fail(
			r, err,
			"found turn %zu without the string \"%s\"; legal: {\"role\": ..., \"content\": ...}",
			i + 1, role ? "content" : "role");
	size_t k = 0;
	while (k < N_ROLES && strcmp(roles[k], role) != 0)
		k++;
	if (k == N_ROLES) {
		const char *near = nx_near_name(role, roles, N_ROLES);
		return nx_jsonl_fail(
			r, err,
			"found the role %s in turn %zu; legal: system, user, assistant%s%s%s",
			nx_quote(quoted, sizeof(quoted), role), i + 1,
			near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
	}
	out->role = roles[k];
	out->content = nx_arena_strdup(&f->arena, content);
	return out->content ? 0 : oom(err);
}

static int take_turns(struct nx_prompt_file *f, const struct nx_jsonl *r, const char *key,
                      const json_t *v, struct nx_prompt_text *t, struct nx_err *err)
{
	if (!json_is_array(v) || json_array_size(v) == 0)
		return nx_jsonl_fail(
			r, err,
			"found %s for %s; legal: a list of {\"role\": ..., \"content\": ...}",
			json_is_array(v) ? "an empty list" : nx_json_kind(v), key);
	t->turns = nx_arena_array(&f->arena, json_array_size(v), sizeof(*t->turns));
	if (!t->turns)
		return oom(err);
	for (size_t i = 0; i < json_array_size(v); i++) {
		int rc = take_turn(f, r, json_array_get(v, i), i, &t->turns[i], err);
		if (rc)
			return rc;
		t->n_turns = i + 1;
	}
	while (t->n_turns && strcmp(t->turns[t->n_turns - 1].role, "assistant") == 0)
		t->n_turns--;
	if (!t->n_turns || strcmp(t->turns[t->n_turns - 1].role, "user") != 0)
		return nx_jsonl_fail(
			r, err,
			"found no user turn to answer in %s; legal: a user turn at the end, or before the last assistant's",
			key);
	if (!t->turns[t->n_turns - 1].content[0])
		return nx_jsonl_fail(r, err, "found an empty last user turn in %s; legal: a text",
		                     key);
	return 0;
}

static int take_text(struct nx_prompt_file *f, const struct nx_jsonl *r, const char *key,
                     const json_t *v, struct nx_prompt_text *t, struct nx_err *err)
{
	if (!json_is_string(v) || json_string_length(v) == 0)
		return nx_jsonl_fail(r, err, "found %s for %s; legal: a string that is not empty",
		                     json_is_string(v) ? "an empty string" : nx_json_kind(v), key);
	t->text = nx_arena_strdup(&f->arena, json_string_value(v));
	return t->text ? 0 : oom(err);
}

static int take_line(struct nx_prompt_file *f, const struct nx_jsonl *r, const json_t *v,
                     struct nx_prompt_text *t, struct nx_err *err)
{
	static const char *const keys[] = {"turns", "messages", "text", "prompt"};
	char quoted[96];
	int rc = 0;
	*t = (struct nx_prompt_text){.line = r->line};
	const json_t *priority = json_object_get(v, "priority");
	if (priority) {
		json_int_t p = json_integer_value(priority);
		if (!json_is_integer(priority) || p < -PRIORITY_MAX || p > PRIORITY_MAX)
			return nx_jsonl_fail(
				r, err, "found %s for priority; legal: an integer from %d to %d",
				json_is_integer(priority) ? "a number out of range"
							  : nx_json_kind(priority),
				-PRIORITY_MAX, PRIORITY_MAX);
		t->priority = (int32_t)p;
	}
	for (size_t i = 0; i < 4; i++) {
		const json_t *value = json_object_get(v, keys[i]);
		if (!value)
			continue;
		rc = i < 2 ? take_turns(f, r, keys[i], value, t, err)
		           : take_text(f, r, keys[i], value, t, err);
		return rc;
	}
	/* Not one of ours: a key of the line that is near to one of them. */
	void *iter = json_object_iter((json_t *)(uintptr_t)v);
	const char *near = NULL, *key = "";
	for (; iter && !near; iter = json_object_iter_next((json_t *)(uintptr_t)v, iter)) {
		key = json_object_iter_key(iter);
		near = nx_near_name(key, keys, 4);
	}
	if (near)
		return nx_jsonl_fail(
			r, err,
			"found the key %s and no prompt; legal: text, prompt, turns or messages; did you mean \"%s\"?",
			nx_quote(quoted, sizeof(quoted), key), near);
	return nx_jsonl_fail(
		r, err, "found no prompt; legal: one of the keys text, prompt, turns, messages");
}

static struct nx_prompt_text *add_text(struct nx_prompt_file *f)
{
	if (f->n == f->cap) {
		size_t cap = f->cap ? 2 * f->cap : 64;
		struct nx_prompt_text *more = realloc(f->texts, cap * sizeof(*more));
		if (!more)
			return NULL;
		f->texts = more;
		f->cap = cap;
	}
	memset(&f->texts[f->n], 0, sizeof(*f->texts));
	return &f->texts[f->n++];
}

int nx_prompt_file_init(struct nx_prompt_file *f, const char *path, struct nx_err *err)
{
	*f = (struct nx_prompt_file){.path = path};
	struct nx_jsonl r;
	int rc = nx_jsonl_init(&r, path, err);
	while (rc == 0) {
		json_t *v;
		int got = nx_jsonl_next(&r, &v, err);
		if (got <= 0) {
			rc = got;
			break;
		}
		struct nx_prompt_text *t = f->n < TEXTS_MAX ? add_text(f) : NULL;
		if (f->n >= TEXTS_MAX && !t)
			rc = nx_jsonl_fail(&r, err, "found more than %d prompts; legal: fewer",
			                   TEXTS_MAX);
		else
			rc = t ? take_line(f, &r, v, t, err) : oom(err);
		json_decref(v);
	}
	if (rc == 0 && f->n == 0)
		rc = nx_fail(err, NX_EFORMAT,
		             "%s:1: found no prompt; legal: one JSON object a line", path);
	nx_jsonl_release(&r);
	if (rc)
		nx_prompt_file_release(f);
	return rc;
}

void nx_prompt_file_release(struct nx_prompt_file *f)
{
	for (size_t i = 0; i < f->n; i++) {
		free(f->texts[i].body.ids);
		free(f->texts[i].head.ids);
		free(f->texts[i].tail.ids);
		free(f->texts[i].short_head.ids);
	}
	free(f->texts);
	nx_arena_release(&f->arena);
	*f = (struct nx_prompt_file){0};
}

/* ---- tokens ----------------------------------------------------------------------------------- */

static int encode(const struct nx_tokenizer *tok, const char *s, size_t n, unsigned flags,
                  struct nx_tokens *out, struct nx_err *err)
{
	return nx_tokenizer_encode(tok, s, n, flags, &out->ids, &out->n, err);
}

int nx_prompt_body(struct nx_prompt_text *t, const struct nx_tokenizer *tok, struct nx_err *err)
{
	if (t->body.ids)
		return 0;
	const char *s = t->text ? t->text : t->turns[t->n_turns - 1].content;
	return encode(tok, s, strlen(s), t->text ? 0 : NX_TOK_CONTINUES, &t->body, err);
}

/* Renders turns with a mark for the last content and encodes what is before and after it. The content
 * itself is encoded as plain text: control tokens written in it are text. */
static int encode_frame(const struct nx_tokenizer *tok, const struct nx_turn *turns, size_t n,
                        struct nx_tokens *head, struct nx_tokens *tail, struct nx_err *err)
{
	static const char mark[] = "\x01"
				   "content"
				   "\x02";
	const unsigned flags = NX_TOK_PARSE_SPECIAL;
	struct nx_turn *copy = calloc(n, sizeof(*copy));
	char *text = NULL, *at = NULL;
	int rc;
	if (!copy)
		return oom(err);
	memcpy(copy, turns, n * sizeof(*copy));
	copy[n - 1].content = mark;
	rc = nx_chat_render(tok, copy, n, true, &text, err);
	for (char *p = rc ? NULL : strstr(text, mark); p; p = strstr(p + 1, mark))
		at = p; /* the last one, should an earlier turn hold the mark's text */
	if (rc == 0 && !at)
		rc = nx_fail(err, NX_EBUG, "the chat template lost the user's turn");
	if (rc == 0)
		rc = encode(tok, text, (size_t)(at - text), flags | NX_TOK_ADD_BOS, head, err);
	if (rc == 0 && tail) {
		const char *rest = at + sizeof(mark) - 1;
		rc = encode(tok, rest, strlen(rest), flags | NX_TOK_CONTINUES, tail, err);
	}
	free(text);
	free(copy);
	return rc;
}

int nx_prompt_frame(struct nx_prompt_text *t, const struct nx_tokenizer *tok, struct nx_err *err)
{
	if (t->head.ids)
		return 0;
	if (t->text)
		return encode(tok, "", 0, NX_TOK_ADD_BOS, &t->head, err);
	return encode_frame(tok, t->turns, t->n_turns, &t->head, &t->tail, err);
}

int nx_prompt_short_head(struct nx_prompt_text *t, const struct nx_tokenizer *tok,
                         struct nx_err *err)
{
	if (t->short_head.ids)
		return 0;
	struct nx_turn turns[2] = {t->turns[0], t->turns[t->n_turns - 1]};
	bool system = t->n_turns > 1 && strcmp(turns[0].role, "system") == 0;
	return encode_frame(tok, system ? turns : turns + 1, system ? 2 : 1, &t->short_head, NULL,
	                    err);
}
