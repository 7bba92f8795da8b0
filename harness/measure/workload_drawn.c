/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload_drawn.c: prompts of exact lengths, cut from texts; see workload.h.
 */
#include <string.h>

#include "base/rng.h"
#include "measure/workload_build.h"

static void append(int32_t *dst, size_t want, size_t *n, const int32_t *ids, size_t n_ids)
{
	size_t take = n_ids < want - *n ? n_ids : want - *n;
	if (take)
		memcpy(dst + *n, ids, take * sizeof(*ids));
	*n += take;
}

/* The frame of a prompt of want tokens: the whole conversation, or the short one where that does not fit. */
static int choose_head(struct nx_workload *w, struct nx_prompt_text *t, size_t want,
                       const struct nx_tokens **head, struct nx_err *err)
{
	int rc = nx_prompt_frame(t, w->tok, err);
	if (rc)
		return rc;
	*head = &t->head;
	if ((*head)->n + t->tail.n < want)
		return 0;
	if (!t->text) {
		if ((rc = nx_prompt_short_head(t, w->tok, err)) != 0)
			return rc;
		*head = &t->short_head;
		if ((*head)->n + t->tail.n < want)
			return 0;
	}
	size_t frame = (*head)->n + t->tail.n;
	return nx_fail(
		err, NX_EINVAL,
		"%s:%d: found a prompt length of %zu, but %s takes %zu tokens; legal: seq_len of at least %zu, or another file of prompts",
		w->file.path, t->line, want,
		t->text ? "BOS alone" : "the chat template around the text", frame, frame + 1);
}

/* The short frame: where prompts share their begins, earlier turns would be cut in the middle. */
static int short_head(struct nx_workload *w, struct nx_prompt_text *t,
                      const struct nx_tokens **head, struct nx_err *err)
{
	int rc = nx_prompt_frame(t, w->tok, err);
	if (!rc && !t->text)
		rc = nx_prompt_short_head(t, w->tok, err);
	*head = t->text ? &t->head : &t->short_head;
	return rc;
}

/* Goes on with the next texts of the order, round and round, to `end` tokens. */
static int go_on(struct nx_workload *w, size_t at, int32_t *dst, size_t end, size_t *n,
                 struct nx_err *err)
{
	while (*n < end) {
		at = (at + 1) % w->file.n;
		struct nx_prompt_text *more = &w->file.texts[w->order[at]];
		int rc = nx_prompt_fits(more, w->tok, err);
		if (rc < 0)
			return rc;
		if (rc == 0)
			continue; /* the text that it began with fits, so this ends */
		append(dst, end, n, w->gap.ids, w->gap.n); /* "\n\n" is never no token: this ends */
		append(dst, end, n, more->body.ids, more->body.n);
	}
	return 0;
}

/* What the prompts of group g share: a text from the end of the order, where requests come to last. */
static int make_common(struct nx_build *b, size_t g, struct nx_err *err)
{
	struct nx_workload *w = b->w;
	size_t want = (size_t)b->cell->seq_len.max, n = 0, at = w->file.n - 1 - g % w->file.n;
	const struct nx_tokens *head;
	struct nx_prompt_text *t;
	int rc = 0;
	for (size_t k = 0; k < w->file.n; k++, at = (at + w->file.n - 1) % w->file.n) {
		rc = nx_prompt_fits(&w->file.texts[w->order[at]], w->tok, err);
		if (rc)
			break;
	}
	if (rc <= 0) /* none fits: nx_build_drawn has the sentence */
		return rc;
	t = &w->file.texts[w->order[at]];
	if ((rc = short_head(w, t, &head, err)) != 0)
		return rc;
	struct nx_rng r = {nx_rng_key(b->set->order_seed, NX_DRAW_GROUP, g)};
	size_t start = g < w->file.n ? 0 : (size_t)nx_rng_below(&r, t->body.n ? t->body.n : 1);
	int32_t *dst = b->common + g * want;
	append(dst, want, &n, head->ids, head->n);
	b->common_head[g] = n;
	append(dst, want, &n, t->body.ids + start, t->body.n - start);
	return go_on(w, at, dst, want, &n, err);
}

/* The first part of prompt i becomes its group's; a template's head is whole, whosever it is. */
static int share(const struct nx_build *b, size_t i, const struct nx_prompt_text *t, int32_t *dst,
                 size_t want, size_t head, struct nx_err *err)
{
	size_t n = nx_build_shared(b, want), theirs = b->common_head[i % b->n_groups];
	n = n < theirs ? theirs : n;
	n = n < head ? head : n;
	if (n + t->tail.n >= want)
		n = want - t->tail.n - 1;
	if (n < theirs || n < head)
		return nx_fail(
			err, NX_EINVAL,
			"%s:%d: found a prompt length of %zu, but the chat template around the text and what prompts share takes %zu tokens; legal: longer prompts, or a smaller share",
			b->w->file.path, t->line, want,
			(theirs > head ? theirs : head) + t->tail.n + 1);
	memcpy(dst, nx_build_common(b, i), n * sizeof(*dst));
	return 0;
}

/* Fills dst with exactly want tokens: text `at` of the order from token `start` of its body, and what
 * follows it where that is too short. */
static int make_prompt(struct nx_build *b, size_t i, size_t at, size_t start, int32_t *dst,
                       size_t want, struct nx_err *err)
{
	struct nx_workload *w = b->w;
	struct nx_prompt_text *t = &w->file.texts[w->order[at]];
	const struct nx_tokens *head;
	size_t n = 0;
	int rc = choose_head(w, t, want, &head, err);
	if (!rc && b->n_groups)
		rc = short_head(w, t, &head, err);
	if (rc)
		return rc;
	size_t body_end = want - t->tail.n;
	append(dst, body_end, &n, head->ids, head->n);
	append(dst, body_end, &n, t->body.ids + start, t->body.n - start);
	rc = go_on(w, at, dst, body_end, &n, err);
	if (rc)
		return rc;
	append(dst, want, &n, t->tail.ids, t->tail.n);
	return b->n_groups ? share(b, i, t, dst, want, head->n, err) : 0;
}

/* Request i from the text at `at`: from its begin, or, when texts come again, from another start; other than all
 * before it. */
static int make_distinct(struct nx_build *b, size_t i, size_t at, bool again, int32_t *dst,
                         size_t want, struct nx_err *err)
{
	struct nx_workload *w = b->w;
	size_t start = 0;
	struct nx_rng r = {nx_rng_key(b->set->order_seed, NX_DRAW_START, i)};
	struct nx_prompt_text *t = &w->file.texts[w->order[at]];
	int rc = 0;
	for (int k = 0; rc == 0 && k < NX_START_TRIES; k++) {
		if (again || k > 0)
			start = (size_t)nx_rng_below(&r, t->body.n ? t->body.n : 1);
		rc = make_prompt(b, i, at, start, dst, want, err);
		if (rc == 0 && nx_seen_add(&b->seen, dst, want))
			return 0;
	}
	return rc ? rc
	          : nx_fail(err, NX_EINVAL,
	                    "%s: found too little text for %zu different prompts of %zu tokens; legal: more texts, longer prompts or fewer requests",
	                    w->file.path, i + 1, want);
}

int nx_build_drawn(struct nx_build *b, struct nx_err *err)
{
	struct nx_workload *w = b->w;
	size_t unused = 0; /* texts in a row that do not fit, or whose answer does not count */
	for (size_t g = 0; g < b->n_groups; g++) {
		int rc = make_common(b, g, err);
		if (rc)
			return rc;
	}
	for (size_t k = 0; b->set->n < b->want; k++) {
		size_t i = b->set->n, at = k % w->file.n;
		struct nx_prompt_text *t = &w->file.texts[w->order[at]];
		int32_t out = 0;
		int rc = nx_prompt_fits(t, w->tok, err), fits = rc;
		if (rc > 0)
			rc = nx_build_answer(b, t, t->n_turns - 1, &out, err);
		if (rc < 0)
			return rc;
		if (!fits || !out) {
			if (++unused == w->file.n)
				return nx_fail(
					err, NX_EINVAL,
					fits ? "%s: found no answer of %d to %d tokens; legal: conversations with an assistant's turn behind the user's, or another output_len"
					     : "%s: found no text that this model's tokenizer and template take (outputs of %d to %d tokens); legal: another file of prompts",
					w->file.path, b->cell->output_len.min,
					b->cell->output_len.max);
			continue;
		}
		unused = 0;
		size_t want = (size_t)nx_build_prompt_len(b, i);
		int32_t *dst = nx_build_room(b, want, err);
		if (!dst)
			return NX_ENOMEM;
		rc = make_distinct(b, i, at, k >= w->file.n, dst, want, err);
		if (rc)
			return rc;
		nx_build_add(b, want, out)->priority = t->priority;
	}
	return 0;
}
