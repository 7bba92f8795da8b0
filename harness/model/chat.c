/* SPDX-License-Identifier: Apache-2.0
 *
 * See nx_chat_render in tokenizer.h and the formats in chat.h.
 */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "model/tokenizer_internal.h"

#define IM_START "<|im_start|>"
#define IM_END "<|im_end|>"

struct text {
	char *s;
	size_t len, cap;
	bool failed;
};

struct chat {
	const struct nx_tokenizer *t;
	const struct nx_turn *turns;
	size_t n;
	bool prompt;
	struct text out;
	struct nx_err *err;
};

static void add(struct text *t, const char *s, size_t n)
{
	if (t->failed || n > SIZE_MAX / 4 - t->len) {
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

static void add_token(struct chat *c, int32_t id)
{
	size_t n;
	const char *s = nx_tokenizer_piece(c->t, id, &n);
	if (s)
		add(&c->out, s, n);
}

static bool is_role(const struct nx_turn *t, const char *role)
{
	return strcmp(t->role, role) == 0;
}

/* --- Python's strings: strip() takes Unicode's white space and U+001C to U+001F */

static bool strips(const char *s, size_t n)
{
	if (nx_utf8_len(s, n) != n)
		return false;
	const uint32_t cp = nx_utf8_code(s, n);
	return nx_is_space(cp) || (cp >= 0x1c && cp <= 0x1f);
}

static struct nx_span strip(const char *s, size_t len)
{
	while (len) {
		const size_t n = nx_utf8_len(s, len);
		if (!n || !strips(s, n))
			break;
		s += n;
		len -= n;
	}
	while (len) {
		const size_t n = nx_utf8_last(s, len);
		if (!strips(s + len - n, n))
			break;
		len -= n;
	}
	return (struct nx_span){s, len};
}

static void add_stripped(struct text *t, const char *s)
{
	const struct nx_span v = strip(s, strlen(s));
	add(t, v.s, v.len);
}

/* strip("\n") */
static struct nx_span strip_newlines(struct nx_span v)
{
	while (v.len && v.s[0] == '\n') {
		v.s++;
		v.len--;
	}
	while (v.len && v.s[v.len - 1] == '\n')
		v.len--;
	return v;
}

/* --- Formats */

static int render_plain(struct chat *c)
{
	for (size_t i = 0; i < c->n; i++) {
		add_str(&c->out, c->turns[i].role);
		add_str(&c->out, ": ");
		add_str(&c->out, c->turns[i].content);
		add_str(&c->out, "\n");
	}
	if (c->prompt)
		add_str(&c->out, "assistant:");
	return 0;
}

static void chatml_turn(struct chat *c, const char *role, const char *content)
{
	add_str(&c->out, IM_START);
	add_str(&c->out, role);
	add_str(&c->out, "\n");
	add_str(&c->out, content);
	add_str(&c->out, IM_END "\n");
}

static int render_chatml(struct chat *c)
{
	const char *system = c->t->chat.system;
	if (c->t->chat.bos)
		add_token(c, c->t->bos);
	if (system && c->n && !is_role(&c->turns[0], "system"))
		chatml_turn(c, "system", system);
	for (size_t i = 0; i < c->n; i++)
		chatml_turn(c, c->turns[i].role, c->turns[i].content);
	if (c->prompt)
		add_str(&c->out, IM_START "assistant\n");
	return 0;
}

static bool is_tool_response(const char *s)
{
	static const char head[] = "<tool_response>", tail[] = "</tool_response>";
	const size_t n = strlen(s);
	return strncmp(s, head, sizeof(head) - 1) == 0 && n >= sizeof(tail) - 1 &&
	       strcmp(s + n - (sizeof(tail) - 1), tail) == 0;
}

/* Cuts an answer at </think>, as the template does. *thought has len 0 if there is none. */
static void split_thought(const char *s, struct nx_span *thought, const char **content)
{
	static const char open[] = "<think>", close[] = "</think>";
	const char *end = strstr(s, close), *last = end;
	*thought = (struct nx_span){s, 0};
	*content = s;
	if (!end)
		return;
	for (const char *p = end; p; p = strstr(p + 1, close))
		last = p;
	*content = last + sizeof(close) - 1;
	*content += strspn(*content, "\n");
	thought->len = (size_t)(end - s);
	for (const char *p = strstr(s, open); p && p < end; p = strstr(p + 1, open)) {
		thought->s = p + sizeof(open) - 1;
		thought->len = (size_t)(end - thought->s);
	}
	*thought = strip_newlines(*thought);
}

static int render_qwen3(struct chat *c)
{
	size_t last_query = c->n ? c->n - 1 : 0;
	for (size_t i = c->n; i-- > 0;) {
		if (!is_role(&c->turns[i], "user") || is_tool_response(c->turns[i].content))
			continue;
		last_query = i;
		break;
	}
	for (size_t i = 0; i < c->n; i++) {
		const struct nx_turn *u = &c->turns[i];
		struct nx_span thought;
		const char *content;
		if (is_role(u, "user") || is_role(u, "system")) {
			chatml_turn(c, u->role, u->content);
			continue;
		}
		if (!is_role(u, "assistant"))
			return nx_fail(
				c->err, NX_EINVAL,
				"turn %zu has another role; legal in the chat format qwen3: system, user, assistant",
				i);
		split_thought(u->content, &thought, &content);
		add_str(&c->out, IM_START "assistant\n");
		if (i > last_query && (i + 1 == c->n || thought.len)) {
			add_str(&c->out, "<think>\n");
			add(&c->out, thought.s, thought.len);
			add_str(&c->out, "\n</think>\n\n");
			content += strspn(content, "\n");
		}
		add_str(&c->out, content);
		add_str(&c->out, IM_END "\n");
	}
	if (c->prompt)
		add_str(&c->out, IM_START "assistant\n");
	return 0;
}

static void llama3_head(struct chat *c, const char *role)
{
	add_str(&c->out, "<|start_header_id|>");
	add_str(&c->out, role);
	add_str(&c->out, "<|end_header_id|>\n\n");
}

static int render_llama3(struct chat *c)
{
	const bool dated = c->t->chat.id == NX_CHAT_LLAMA31;
	size_t i = 0;
	if (dated || c->n)
		add_token(c, c->t->bos);
	if (dated) {
		llama3_head(c, "system");
		add_str(&c->out, "Cutting Knowledge Date: December 2023\nToday Date: ");
		add_str(&c->out, c->t->chat.date);
		add_str(&c->out, "\n\n");
		if (c->n && is_role(&c->turns[0], "system"))
			add_stripped(&c->out, c->turns[i++].content);
		add_str(&c->out, "<|eot_id|>");
	}
	for (; i < c->n; i++) {
		llama3_head(c, c->turns[i].role);
		add_stripped(&c->out, c->turns[i].content);
		add_str(&c->out, "<|eot_id|>");
	}
	if (c->prompt || c->t->chat.always_prompt)
		llama3_head(c, "assistant");
	return 0;
}

/* After an optional system turn, user and assistant take turns. */
static int check_alternation(const struct chat *c, size_t first)
{
	const char *name = nx_chat_format(c->t);
	char shown[96];
	for (size_t i = first; i < c->n; i++) {
		const char *want = (i - first) % 2 ? "assistant" : "user";
		if (!is_role(&c->turns[i], want))
			return nx_fail(c->err, NX_EINVAL,
			               "turn %zu has the role %s; legal in the chat format %s: %s",
			               i, nx_quote(shown, sizeof(shown), c->turns[i].role), name,
			               want);
	}
	return 0;
}

static int render_llama2(struct chat *c)
{
	const char *system = NULL;
	size_t i = 0;
	if (c->n && is_role(&c->turns[0], "system"))
		system = c->turns[i++].content;
	int rc = check_alternation(c, i);
	if (rc)
		return rc;
	for (const size_t first = i; i < c->n; i++) {
		struct text body = {0};
		if (is_role(&c->turns[i], "assistant")) {
			add_str(&c->out, " ");
			add_stripped(&c->out, c->turns[i].content);
			add_str(&c->out, " ");
			add_token(c, c->t->eos);
			continue;
		}
		if (i == first && system) {
			add_str(&body, "<<SYS>>\n");
			add_str(&body, system);
			add_str(&body, "\n<</SYS>>\n\n");
		}
		add_str(&body, c->turns[i].content);
		add_token(c, c->t->bos);
		add_str(&c->out, "[INST] ");
		if (body.s)
			add_stripped(&c->out, body.s);
		add_str(&c->out, " [/INST]");
		c->out.failed |= body.failed;
		free(body.s);
	}
	return 0;
}

void nx_chat_content(const struct nx_tokenizer *t, const struct nx_turn *turn, const char **s,
                     size_t *len)
{
	const bool answer = is_role(turn, "assistant");
	struct nx_span v = {turn->content, strlen(turn->content)}, thought;
	switch (t->chat.id) {
	case NX_CHAT_LLAMA3:
	case NX_CHAT_LLAMA31: v = strip(v.s, v.len); break;
	case NX_CHAT_LLAMA2:
		if (!is_role(turn, "system"))
			v = strip(v.s, v.len);
		break;
	case NX_CHAT_MISTRAL_V3:
		if (answer)
			v = strip(v.s, v.len);
		break;
	case NX_CHAT_QWEN3:
		if (answer) {
			split_thought(turn->content, &thought, &v.s);
			v.len = strlen(v.s);
		}
		break;
	default: break;
	}
	*s = v.s;
	*len = v.len;
}

static int render_mistral(struct chat *c)
{
	static const struct {
		enum nx_chat_id id;
		const char *open, *close, *answer;
		bool strip;
	} spaces[] = {
		{NX_CHAT_MISTRAL, "[INST] ", " [/INST]", "", false},
		{NX_CHAT_MISTRAL_V1, " [INST] ", " [/INST]", " ", false},
		{NX_CHAT_MISTRAL_V3, "[INST] ", "[/INST]", " ", true},
		{NX_CHAT_MISTRAL_TEKKEN, "[INST]", "[/INST]", "", false},
	};
	const struct nx_chat *chat = &c->t->chat;
	const char *system = NULL;
	size_t i = 0, k = 0;
	while (spaces[k].id != chat->id)
		k++;
	if (c->n && is_role(&c->turns[0], "system") && chat->id != NX_CHAT_MISTRAL)
		system = c->turns[i++].content;
	int rc = check_alternation(c, i);
	if (rc)
		return rc;
	add_token(c, c->t->bos);
	for (const size_t first = i; i < c->n; i++) {
		if (is_role(&c->turns[i], "assistant")) {
			add_str(&c->out, spaces[k].answer);
			if (spaces[k].strip)
				add_stripped(&c->out, c->turns[i].content);
			else
				add_str(&c->out, c->turns[i].content);
			add_token(c, c->t->eos);
			add_str(&c->out, chat->space_after ? " " : "");
			continue;
		}
		add_str(&c->out, spaces[k].open);
		if (system && (chat->system_last ? i + 1 == c->n : i == first)) {
			add_str(&c->out, system);
			add_str(&c->out, "\n\n");
		}
		add_str(&c->out, c->turns[i].content);
		add_str(&c->out, spaces[k].close);
	}
	return 0;
}

static const struct {
	const char *name;
	int (*render)(struct chat *c);
} formats[] = {
#define X(id, name, render) [NX_CHAT_##id] = {name, render_##render},
	NX_CHAT_FORMATS(X)
#undef X
};

const char *nx_chat_format(const struct nx_tokenizer *t)
{
	return formats[t->chat.id].name;
}

int nx_chat_render(const struct nx_tokenizer *t, const struct nx_turn *turns, size_t n,
                   bool add_generation_prompt, char **out, struct nx_err *err)
{
	struct chat c = {
		.t = t, .turns = turns, .n = n, .prompt = add_generation_prompt, .err = err};
	for (size_t i = 0; i < n; i++)
		if (!turns[i].role || !turns[i].content)
			return nx_fail(err, NX_EINVAL, "turn %zu has no %s", i,
			               turns[i].role ? "content" : "role");
	add(&c.out, "", 0);
	int rc = formats[t->chat.id].render(&c);
	if (!rc && c.out.failed)
		rc = nx_fail(err, NX_ENOMEM, "out of memory while rendering %zu turns", n);
	if (rc) {
		free(c.out.s);
		return rc;
	}
	*out = c.out.s;
	return 0;
}
