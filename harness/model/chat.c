/* SPDX-License-Identifier: Apache-2.0
 *
 * See nx_chat_render in tokenizer.h. Jinja is not executed; the two formats are written out here.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_internal.h"

#define IM_START "<|im_start|>"
#define IM_END "<|im_end|>"

struct text {
	char *s;
	size_t len, cap;
	bool failed;
};

static void add(struct text *t, const char *s, size_t n)
{
	if (t->failed || n > SIZE_MAX / 2 - t->len) {
		t->failed = true;
		return;
	}
	if (t->len + n + 1 > t->cap) {
		size_t cap = 2 * (t->len + n + 1);
		char *p = realloc(t->s, cap);
		if (!p) {
			t->failed = true;
			return;
		}
		t->s = p;
		t->cap = cap;
	}
	memcpy(t->s + t->len, s, n);
	t->len += n;
	t->s[t->len] = '\0';
}

static void add_str(struct text *t, const char *s)
{
	add(t, s, strlen(s));
}

/* A line break in a template: a real one, or backslash and n inside a literal. */
static size_t newline_len(const char *s)
{
	return s[0] == '\n' ? 1 : s[0] == '\\' && s[1] == 'n' ? 2 : 0;
}

/* Finds <|im_start|>system NEWLINE text <|im_end|> written out in one literal of the template: no
 * quote or brace in the text, so that it is not an expression. */
static const char *default_system(const char *tmpl, size_t *len)
{
	static const char head[] = IM_START "system";
	for (const char *p = tmpl ? strstr(tmpl, head) : NULL; p; p = strstr(p, head)) {
		p += sizeof(head) - 1;
		const size_t nl = newline_len(p);
		const char *end = strstr(p, IM_END);
		if (!nl || !end || end == p + nl)
			continue;
		*len = (size_t)(end - p) - nl;
		if (!memchr(p + nl, '\'', *len) && !memchr(p + nl, '"', *len) &&
		    !memchr(p + nl, '{', *len) && !memchr(p + nl, '\\', *len))
			return p + nl;
	}
	return NULL;
}

static void render_chatml(const struct nx_tokenizer *t, const struct nx_turn *turns, size_t n,
                          struct text *out)
{
	size_t len;
	const char *system = default_system(t->chat_template, &len);
	if (system && n && strcmp(turns[0].role, "system") != 0) {
		add_str(out, IM_START "system\n");
		add(out, system, len);
		add_str(out, IM_END "\n");
	}
	for (size_t i = 0; i < n; i++) {
		add_str(out, IM_START);
		add_str(out, turns[i].role);
		add_str(out, "\n");
		add_str(out, turns[i].content);
		add_str(out, IM_END "\n");
	}
}

static void render_plain(const struct nx_turn *turns, size_t n, struct text *out)
{
	for (size_t i = 0; i < n; i++) {
		add_str(out, turns[i].role);
		add_str(out, ": ");
		add_str(out, turns[i].content);
		add_str(out, "\n");
	}
}

int nx_chat_render(const struct nx_tokenizer *t, const struct nx_turn *turns, size_t n,
                   bool add_generation_prompt, char **out, struct nx_err *err)
{
	struct text text = {0};
	uint32_t id;
	const bool chatml = nx_strmap_get(&t->special, IM_START, sizeof(IM_START) - 1, &id) &&
	                    nx_strmap_get(&t->special, IM_END, sizeof(IM_END) - 1, &id);
	for (size_t i = 0; i < n; i++)
		if (!turns[i].role || !turns[i].content)
			return nx_fail(err, NX_EINVAL, "turn %zu has no %s", i,
			               turns[i].role ? "content" : "role");
	add(&text, "", 0);
	if (chatml)
		render_chatml(t, turns, n, &text);
	else
		render_plain(turns, n, &text);
	if (add_generation_prompt)
		add_str(&text, chatml ? IM_START "assistant\n" : "assistant:");
	if (text.failed) {
		free(text.s);
		return nx_fail(err, NX_ENOMEM, "out of memory while rendering %zu turns", n);
	}
	*out = text.s;
	return 0;
}
