/* SPDX-License-Identifier: Apache-2.0
 *
 * See chat.h: which format a template is.
 */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_internal.h"

#define IM_START "<|im_start|>"
#define IM_END "<|im_end|>"

static int oom(struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while reading the chat template");
}

/* A line break in a template: a real one, or backslash and n inside a literal. */
static size_t newline_len(const char *s)
{
	return s[0] == '\n' ? 1 : s[0] == '\\' && s[1] == 'n' ? 2 : 0;
}

/* The template without white space, quotes and line breaks; the caller's. */
static char *squeeze(const char *tmpl)
{
	char *out = malloc(strlen(tmpl) + 1);
	size_t n = 0;
	if (!out)
		return NULL;
	for (const char *s = tmpl; *s; s++) {
		if (newline_len(s) == 2)
			s++;
		else if (!strchr(" \t\r\n'\"", *s))
			out[n++] = *s;
	}
	out[n] = '\0';
	return out;
}

/* Where text is in the template, one kind of quote being as good as the other; NULL if nowhere. */
static const char *find_spaced(const char *tmpl, const char *text)
{
	for (; *tmpl; tmpl++) {
		size_t i = 0;
		while (text[i] && (tmpl[i] == text[i] || (text[i] == '\'' && tmpl[i] == '"')))
			i++;
		if (!text[i])
			return tmpl;
	}
	return NULL;
}

static bool has_spaced(const char *tmpl, const char *text)
{
	return find_spaced(tmpl, text) != NULL;
}

static bool has(const char *squeezed, const char *text)
{
	return strstr(squeezed, text) != NULL;
}

static bool has_token(const struct nx_tokenizer *t, const char *text)
{
	uint32_t id;
	return nx_strmap_get(&t->special, text, strlen(text), &id);
}

/* Finds <|im_start|>system NEWLINE text <|im_end|> written out in one literal of the template: no
 * quote or brace in the text, so that it is not an expression. */
static int default_system(struct nx_chat *c, const char *tmpl, struct nx_err *err)
{
	static const char head[] = IM_START "system";
	for (const char *p = strstr(tmpl, head); p; p = strstr(p, head)) {
		p += sizeof(head) - 1;
		const size_t nl = newline_len(p);
		const char *end = strstr(p, IM_END);
		if (!end)
			break;
		if (!nl || end == p + nl)
			continue;
		const size_t len = (size_t)(end - p) - nl;
		p += nl;
		if (memchr(p, '\'', len) || memchr(p, '"', len) || memchr(p, '{', len) ||
		    memchr(p, '\\', len))
			continue;
		c->system = strndup(p, len);
		return c->system ? 0 : oom(err);
	}
	return 0;
}

/* Whatever a known template does not hold makes it one of the others. */
static enum nx_chat_id which_chatml(const char *q)
{
	static const char *const more[] = {"<think>", "strftime_now", "|trim",
	                                   ".strip(", "eos_token",    "##Metadata"};
	if (has(q, "last_query_index") && has(q, "loop.lastor(notloop.lastandreasoning_content)") &&
	    has(q, "enable_thinkingisdefinedandenable_thinkingisfalse"))
		return NX_CHAT_QWEN3;
	for (size_t i = 0; i < sizeof(more) / sizeof(more[0]); i++)
		if (has(q, more[i]))
			return NX_CHAT_CHATML_LIKE;
	if (!has(q, IM_START "+message[role]++message[content]+" IM_END) &&
	    !has(q, IM_START "+message.role++message.content+" IM_END))
		return NX_CHAT_CHATML_LIKE;
	return has(q, "add_generation_prompt") ? NX_CHAT_CHATML : NX_CHAT_CHATML_LIKE;
}

static int detect_chatml(struct nx_tokenizer *t, const char *q, struct nx_err *err)
{
	struct nx_chat *c = &t->chat;
	if (!has_token(t, IM_START) || !has_token(t, IM_END) || has(q, "<|im_sep|>") ||
	    has(q, "<end_of_utterance>"))
		return 0;
	c->id = which_chatml(q);
	if (c->id == NX_CHAT_QWEN3)
		return 0;
	c->bos = strncmp(q, "{{bos_token}}", 13) == 0 || strncmp(q, "{{-bos_token}}", 14) == 0;
	if (!c->bos && has(q, "bos_token"))
		c->id = NX_CHAT_CHATML_LIKE;
	return default_system(c, t->chat_template, err);
}

static int detect_llama3(struct nx_tokenizer *t, const char *q, struct nx_err *err)
{
	static const char turn[] = "<|start_header_id|>+message[role]+<|end_header_id|>+"
				   "message[content]|trim+<|eot_id|>";
	static const char date[] = "set date_string = '";
	struct nx_chat *c = &t->chat;
	if (!has_token(t, "<|start_header_id|>") || !has_token(t, "<|end_header_id|>") ||
	    !has_token(t, "<|eot_id|>") || !has(q, turn))
		return 0;
	if (has(q, "CuttingKnowledgeDate:December2023") && has(q, "TodayDate:+date_string+") &&
	    has(q, "{{-system_message}}")) {
		/* A literal, not a call: the one for when nobody gives a date and there is no clock. */
		const char *at = find_spaced(t->chat_template, date);
		if (!at)
			return 0;
		at += sizeof(date) - 1;
		c->date = strndup(at, strcspn(at, "'\""));
		if (!c->date)
			return oom(err);
		c->id = NX_CHAT_LLAMA31;
		return 0;
	}
	if (has(q, "setloop_messages=messages%}") && has(q, "setcontent=bos_token+content") &&
	    !has(q, "system_message")) {
		c->id = NX_CHAT_LLAMA3;
		c->always_prompt = !has(q, "ifadd_generation_prompt");
	}
	return 0;
}

static void detect_inst(struct nx_tokenizer *t, const char *q)
{
	const char *tmpl = t->chat_template;
	struct nx_chat *c = &t->chat;
	if (t->bos < 0 || t->eos < 0 || !has(q, "raise_exception"))
		return;
	const bool first = has(q, "loop.firstandsystem_messageisdefined");
	c->system_last = has(q, "loop.lastandsystem_messageisdefined");
	if (has(q, "<<SYS>>")) {
		if (has(q, "{{bos_token+[INST]+content.strip()+[/INST]}}") &&
		    has(q, "{{+content.strip()++eos_token}}") && !has(q, "eliftrue==true"))
			c->id = NX_CHAT_LLAMA2;
	} else if (first != c->system_last && has_spaced(tmpl, "' [INST] ' + system_message") &&
	           has_spaced(tmpl, "' [/INST]'") && has(q, "{{-+message[content]+eos_token}}")) {
		c->id = NX_CHAT_MISTRAL_V1;
	} else if (first != c->system_last && has_spaced(tmpl, "'[INST] ' + system_message") &&
	           has_spaced(tmpl, "'[/INST]'") &&
	           has(q, "{{-+message[content]|trim+eos_token}}")) {
		c->id = NX_CHAT_MISTRAL_V3;
	} else if (first != c->system_last && has_spaced(tmpl, "'[INST]' + system_message") &&
	           has_spaced(tmpl, "'[/INST]'") && has(q, "{{-message[content]+eos_token}}")) {
		c->id = NX_CHAT_MISTRAL_TEKKEN;
	} else if (has_spaced(tmpl, "'[INST] ' + message['content'] + ' [/INST]'") &&
	           has(q, "{{message[content]+eos_token") && !has(q, "system")) {
		c->id = NX_CHAT_MISTRAL;
		c->space_after =
			has_spaced(tmpl, "eos_token + ' '") || has_spaced(tmpl, "eos_token+' '");
	}
}

int nx_chat_detect(struct nx_tokenizer *t, struct nx_err *err)
{
	int rc = 0;
	t->chat.id = NX_CHAT_PLAIN;
	if (!t->chat_template) {
		if (has_token(t, IM_START) && has_token(t, IM_END))
			t->chat.id = NX_CHAT_CHATML;
		return 0;
	}
	char *q = squeeze(t->chat_template);
	if (!q)
		return oom(err);
	if (has(q, IM_START) && has(q, IM_END))
		rc = detect_chatml(t, q, err);
	else if (has(q, "<|start_header_id|>"))
		rc = detect_llama3(t, q, err);
	else if (has(q, "[INST]"))
		detect_inst(t, q);
	free(q);
	return rc;
}

void nx_chat_release(struct nx_chat *c)
{
	free(c->system);
	free(c->date);
	memset(c, 0, sizeof(*c));
}
