/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload_text.c: texts to tokens; see workload_text.h.
 *
 * Contents of a conversation are tokenised as plain text, each apart: control tokens written in them are text. What
 * the template puts around them is tokenised with its control tokens.
 */
#include "measure/workload_text.h"

#include <stdlib.h>
#include <string.h>

static int oom(struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while making prompts");
}

static int encode(const struct nx_tokenizer *tok, const char *s, size_t n, unsigned flags,
                  struct nx_tokens *out, struct nx_err *err)
{
	return nx_tokenizer_encode(tok, s, n, flags, &out->ids, &out->n, err);
}

int nx_prompt_body(struct nx_prompt_text *t, const struct nx_tokenizer *tok, struct nx_err *err)
{
	if (t->body.ids)
		return 0;
	const char *s = t->text;
	size_t n = t->text ? strlen(t->text) : 0;
	if (!t->text)
		nx_chat_content(tok, &t->turns[t->n_turns - 1], &s, &n);
	return encode(tok, s, n, t->text ? 0 : NX_TOK_CONTINUES, &t->body, err);
}

/* ---- conversations ---------------------------------------------------------------------------- */

bool nx_prompt_asks(const struct nx_prompt_text *t, size_t i)
{
	return i < t->n_all && t->turns[i].content[0] && strcmp(t->turns[i].role, "user") == 0;
}

static int content(struct nx_prompt_text *t, size_t i, const struct nx_tokenizer *tok,
                   const struct nx_tokens **out, struct nx_err *err)
{
	if (!t->contents)
		t->contents = calloc(t->n_all, sizeof(*t->contents));
	if (!t->contents)
		return oom(err);
	*out = &t->contents[i];
	if (t->contents[i].ids)
		return 0;
	const char *s;
	size_t n;
	nx_chat_content(tok, &t->turns[i], &s, &n);
	return encode(tok, s, n, NX_TOK_CONTINUES, &t->contents[i], err);
}

int nx_prompt_answer(struct nx_prompt_text *t, size_t i, const struct nx_tokenizer *tok, size_t *n,
                     struct nx_err *err)
{
	const struct nx_tokens *c;
	*n = 0;
	if (t->text || i >= t->n_all || strcmp(t->turns[i].role, "assistant") != 0)
		return 0;
	int rc = content(t, i, tok, &c, err);
	if (rc == 0)
		*n = c->n;
	return rc;
}

static int put(struct nx_tokens *to, const struct nx_tokens *from, struct nx_err *err)
{
	/* Few pieces a prompt: no capacity is kept. */
	int32_t *ids = realloc(to->ids, (to->n + from->n + 1) * sizeof(*ids));
	if (!ids)
		return oom(err);
	to->ids = ids;
	if (from->n)
		memcpy(to->ids + to->n, from->ids, from->n * sizeof(*from->ids));
	to->n += from->n;
	return 0;
}

/* A mark stands for a content while the template is rendered: \x01, a number, \x02. */
#define MARK_BYTES 24

/* The next mark of n at or behind s, *which its number, *end behind it; NULL when there is none. */
static char *find_mark(char *s, size_t n, size_t *which, char **end)
{
	for (char *p = s; (p = strchr(p, '\x01')) != NULL; p++) {
		unsigned long v = strtoul(p + 1, end, 10);
		if (*end == p + 1 || **end != '\x02' || v >= n)
			continue;
		*which = v;
		(*end)++;
		return p;
	}
	return NULL;
}

/* The template's text around marks, for turns which[0 .. n). */
static int render(const struct nx_prompt_text *t, const size_t *which, size_t n,
                  const struct nx_tokenizer *tok, char **text, struct nx_err *err)
{
	struct nx_turn *turns = calloc(n, sizeof(*turns));
	char *marks = calloc(n, MARK_BYTES);
	int rc = turns && marks ? 0 : oom(err);
	for (size_t k = 0; rc == 0 && k < n; k++) {
		char *mark = marks + k * MARK_BYTES;
		snprintf(mark, MARK_BYTES, "\x01%zu\x02", k);
		turns[k] = (struct nx_turn){t->turns[which[k]].role, mark};
	}
	if (rc == 0)
		rc = nx_chat_render(tok, turns, n, true, text, err);
	free(marks);
	free(turns);
	return rc;
}

/* What the template makes of the turns which[0 .. n): before the last one's content to head, behind it to tail,
 * which may be NULL. */
static int frame(struct nx_prompt_text *t, const size_t *which, size_t n,
                 const struct nx_tokenizer *tok, struct nx_tokens *head, struct nx_tokens *tail,
                 struct nx_err *err)
{
	unsigned flags = NX_TOK_PARSE_SPECIAL | NX_TOK_ADD_BOS;
	struct nx_tokens out[2] = {0};
	size_t at = 0, k;
	char *text = NULL, *end = NULL;
	int rc = render(t, which, n, tok, &text, err);
	for (char *s = text; rc == 0 && s; s = end) {
		struct nx_tokens piece = {0};
		const struct nx_tokens *c = NULL;
		char *mark = find_mark(s, n, &k, &end);
		rc = encode(tok, s, mark ? (size_t)(mark - s) : strlen(s), flags, &piece, err);
		flags = NX_TOK_PARSE_SPECIAL | NX_TOK_CONTINUES;
		if (rc == 0)
			rc = put(&out[at], &piece, err);
		free(piece.ids);
		if (!mark)
			end = NULL;
		else if (k == n - 1 && at == 0)
			at = 1;
		else if (rc == 0 && (rc = content(t, which[k], tok, &c, err)) == 0)
			rc = put(&out[at], c, err);
	}
	free(text);
	if (rc == 0 && at == 0)
		rc = nx_fail(err, NX_EBUG, "the chat template lost the user's turn");
	if (rc || !tail)
		free(out[1].ids);
	else
		*tail = out[1];
	if (rc)
		free(out[0].ids);
	else
		*head = out[0];
	return rc;
}

static int frame_until(struct nx_prompt_text *t, size_t i, const struct nx_tokenizer *tok,
                       struct nx_tokens *head, struct nx_tokens *tail, struct nx_err *err)
{
	size_t *which = calloc(i + 1, sizeof(*which));
	if (!which)
		return oom(err);
	for (size_t k = 0; k <= i; k++)
		which[k] = k;
	int rc = frame(t, which, i + 1, tok, head, tail, err);
	free(which);
	return rc;
}

int nx_prompt_frame(struct nx_prompt_text *t, const struct nx_tokenizer *tok, struct nx_err *err)
{
	if (t->head.ids)
		return 0;
	if (t->text)
		return encode(tok, "", 0, NX_TOK_ADD_BOS, &t->head, err);
	return frame_until(t, t->n_turns - 1, tok, &t->head, &t->tail, err);
}

int nx_prompt_short_head(struct nx_prompt_text *t, const struct nx_tokenizer *tok,
                         struct nx_err *err)
{
	if (t->short_head.ids)
		return 0;
	size_t which[2] = {0, t->n_turns - 1};
	bool system = t->n_turns > 1 && strcmp(t->turns[0].role, "system") == 0;
	return frame(t, system ? which : which + 1, system ? 2 : 1, tok, &t->short_head, NULL, err);
}

int nx_prompt_fits(struct nx_prompt_text *t, const struct nx_tokenizer *tok, struct nx_err *err)
{
	struct nx_err why = {0};
	if (t->unfit)
		return 0;
	int rc = nx_prompt_body(t, tok, &why);
	if (rc == 0)
		rc = nx_prompt_frame(t, tok, &why);
	t->unfit = rc == NX_EINVAL;
	if (rc == 0 || t->unfit)
		return rc == 0;
	return nx_fail(err, rc, "%s", why.msg);
}

int nx_prompt_until(struct nx_prompt_text *t, size_t i, const struct nx_tokenizer *tok,
                    struct nx_tokens *out, struct nx_err *err)
{
	struct nx_tokens tail = {0};
	const struct nx_tokens *c = NULL;
	*out = (struct nx_tokens){0};
	int rc = frame_until(t, i, tok, out, &tail, err);
	if (rc == 0)
		rc = content(t, i, tok, &c, err);
	if (rc == 0)
		rc = put(out, c, err);
	if (rc == 0)
		rc = put(out, &tail, err);
	free(tail.ids);
	if (rc) {
		free(out->ids);
		*out = (struct nx_tokens){0};
	}
	return rc;
}
