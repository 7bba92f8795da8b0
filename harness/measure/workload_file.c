/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload_file.c: the entries of a workload file; see workload.h for what they may hold.
 */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "measure/workload_text.h"

#define TEXTS_MAX 1000000
#define TURNS_MAX 10000 /* of a conversation */
#define PRIORITY_MAX 1000000

#define TURN_LEGAL                                                                                 \
	"{\"role\": ..., \"content\": ...}, or {\"from\": ..., \"value\": ...} as in ShareGPT"

/* The roles of a template, and their names in other people's files. */
static const struct {
	const char *name, *role;
} role_names[] = {
	{"system", "system"},  {"user", "user"},      {"assistant", "assistant"},
	{"human", "user"},     {"gpt", "assistant"},  {"chatgpt", "assistant"},
	{"bing", "assistant"}, {"bard", "assistant"},
};
static const char *const roles[] = {"system", "user", "assistant", "human", "gpt"};
#define N_ROLES (sizeof(roles) / sizeof(*roles))

static int oom(struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while reading prompts");
}

/* A string under one of two names, or NULL. */
static const char *string_of(const json_t *v, const char *name, const char *other)
{
	const char *s = json_string_value(json_object_get(v, name));
	return s ? s : json_string_value(json_object_get(v, other));
}

static int take_turn(struct nx_prompt_file *f, const struct nx_jsonl *r, const json_t *v, size_t i,
                     struct nx_turn *out, struct nx_err *err)
{
	char quoted[96];
	if (!json_is_object(v))
		return nx_jsonl_fail(r, err, "found %s as turn %zu; legal: " TURN_LEGAL,
		                     nx_json_kind(v), i + 1);
	const char *role = string_of(v, "role", "from");
	const char *content = string_of(v, "content", "value");
	if (!role || !content)
		return nx_jsonl_fail(r, err,
		                     "found turn %zu without the string \"%s\"; legal: " TURN_LEGAL,
		                     i + 1, role ? "content" : "role");
	out->role = NULL;
	for (size_t k = 0; k < sizeof(role_names) / sizeof(*role_names); k++)
		if (strcmp(role_names[k].name, role) == 0)
			out->role = role_names[k].role;
	if (!out->role) {
		const char *near = nx_near_name(role, roles, N_ROLES);
		return nx_jsonl_fail(
			r, err,
			"found the role %s in turn %zu; legal: system, user, assistant; in ShareGPT's files human, gpt%s%s%s",
			nx_quote(quoted, sizeof(quoted), role), i + 1,
			near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
	}
	out->content = nx_arena_strdup(&f->arena, content);
	return out->content ? 0 : oom(err);
}

/* Sets n_turns to what is asked; 0 where nothing is. */
static void find_question(struct nx_prompt_text *t, enum nx_turns turns)
{
	t->n_turns = 0;
	for (size_t i = 0; i < t->n_all; i++) {
		if (!nx_prompt_asks(t, i))
			continue;
		t->n_turns = i + 1;
		if (turns == NX_TURNS_FIRST)
			return;
	}
}

static int take_turns(struct nx_prompt_file *f, const struct nx_jsonl *r, const char *key,
                      const json_t *v, enum nx_turns turns, struct nx_prompt_text *t,
                      struct nx_err *err)
{
	size_t n = json_array_size(v);
	if (!json_is_array(v) || n > TURNS_MAX)
		return nx_jsonl_fail(r, err, "found %s for %s; legal: a list of " TURN_LEGAL,
		                     json_is_array(v) ? "more than 10000 turns" : nx_json_kind(v),
		                     key);
	t->turns = nx_arena_array(&f->arena, n, sizeof(*t->turns));
	if (!t->turns)
		return oom(err);
	for (size_t i = 0; i < n; i++) {
		int rc = take_turn(f, r, json_array_get(v, i), i, &t->turns[i], err);
		if (rc)
			return rc;
		t->n_all = i + 1;
	}
	find_question(t, turns);
	return 0;
}

static int take_text(struct nx_prompt_file *f, const struct nx_jsonl *r, const char *key,
                     const json_t *v, struct nx_prompt_text *t, struct nx_err *err)
{
	if (!json_is_string(v))
		return nx_jsonl_fail(r, err, "found %s for %s; legal: a string", nx_json_kind(v),
		                     key);
	if (json_string_length(v) == 0)
		return 0;
	t->text = nx_arena_strdup(&f->arena, json_string_value(v));
	return t->text ? 0 : oom(err);
}

static int take_priority(const struct nx_jsonl *r, const json_t *v, struct nx_prompt_text *t,
                         struct nx_err *err)
{
	const json_t *priority = json_object_get(v, "priority");
	json_int_t p = json_integer_value(priority);
	if (!priority)
		return 0;
	if (!json_is_integer(priority) || p < -PRIORITY_MAX || p > PRIORITY_MAX)
		return nx_jsonl_fail(r, err,
		                     "found %s for priority; legal: an integer from %d to %d",
		                     json_is_integer(priority) ? "a number out of range"
		                                               : nx_json_kind(priority),
		                     -PRIORITY_MAX, PRIORITY_MAX);
	t->priority = (int32_t)p;
	return 0;
}

/* Leaves t without text and question where there is nothing to ask. */
static int take_entry(struct nx_prompt_file *f, const struct nx_jsonl *r, const json_t *v,
                      enum nx_turns turns, struct nx_prompt_text *t, struct nx_err *err)
{
	enum { N_TURNS = 3, N = 5 };
	static const char *const keys[N] = {"turns", "messages", "conversations", "text", "prompt"};
	char quoted[96];
	*t = (struct nx_prompt_text){.line = r->line};
	int rc = take_priority(r, v, t, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < N; i++) {
		const json_t *value = json_object_get(v, keys[i]);
		if (value)
			return i < N_TURNS ? take_turns(f, r, keys[i], value, turns, t, err)
			                   : take_text(f, r, keys[i], value, t, err);
	}
	/* Not one of ours: a key of the entry that is near to one of them. */
	void *iter = json_object_iter((json_t *)(uintptr_t)v);
	const char *near = NULL, *key = "";
	for (; iter && !near; iter = json_object_iter_next((json_t *)(uintptr_t)v, iter)) {
		key = json_object_iter_key(iter);
		near = nx_near_name(key, keys, N);
	}
	if (near)
		return nx_jsonl_fail(
			r, err,
			"found the key %s and no prompt; legal: text, prompt, turns, messages or conversations; did you mean \"%s\"?",
			nx_quote(quoted, sizeof(quoted), key), near);
	return nx_jsonl_fail(
		r, err,
		"found no prompt; legal: one of the keys text, prompt, turns, messages, conversations");
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

static int add_entry(struct nx_prompt_file *f, const struct nx_jsonl *r, const json_t *v,
                     enum nx_turns turns, struct nx_err *err)
{
	if (f->n >= TEXTS_MAX)
		return nx_jsonl_fail(r, err, "found more than %d prompts; legal: fewer", TEXTS_MAX);
	struct nx_prompt_text *t = add_text(f);
	int rc = t ? take_entry(f, r, v, turns, t, err) : oom(err);
	if (rc == 0 && !t->text && !t->n_turns) {
		f->n--;
		f->n_empty++;
	}
	return rc;
}

static int nothing(const struct nx_prompt_file *f, struct nx_err *err)
{
	if (f->n_empty + f->n_bad_text == 0)
		return nx_fail(
			err, NX_EFORMAT,
			"%s:1: found no prompt; legal: one JSON object a line, or a list of them",
			f->path);
	return nx_fail(
		err, NX_EFORMAT,
		"%s:1: found no prompt in %lld entries (%lld without a user turn that has a text, %lld with text that is no Unicode); legal: at least one",
		f->path, (long long)(f->n_empty + f->n_bad_text), (long long)f->n_empty,
		(long long)f->n_bad_text);
}

int nx_prompt_file_init(struct nx_prompt_file *f, const char *path, enum nx_turns turns,
                        struct nx_err *err)
{
	*f = (struct nx_prompt_file){.path = path};
	struct nx_jsonl r;
	int rc = nx_jsonl_init(&r, path, err);
	r.skip_bad_text = true;
	while (rc == 0) {
		json_t *v;
		int got = nx_jsonl_next(&r, &v, err);
		if (got <= 0) {
			rc = got;
			break;
		}
		rc = add_entry(f, &r, v, turns, err);
		json_decref(v);
	}
	f->n_bad_text = r.n_bad_text;
	if (rc == 0 && f->n == 0)
		rc = nothing(f, err);
	nx_jsonl_release(&r);
	if (rc)
		nx_prompt_file_release(f);
	return rc;
}

void nx_prompt_file_release(struct nx_prompt_file *f)
{
	for (size_t i = 0; i < f->n; i++) {
		struct nx_prompt_text *t = &f->texts[i];
		for (size_t k = 0; t->contents && k < t->n_all; k++)
			free(t->contents[k].ids);
		free(t->contents);
		free(t->body.ids);
		free(t->head.ids);
		free(t->tail.ids);
		free(t->short_head.ids);
	}
	free(f->texts);
	nx_arena_release(&f->arena);
	*f = (struct nx_prompt_file){0};
}
