/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload_dataset.c: prompts and answers as long as they are in the file, and conversations turn by turn; see
 * workload.h.
 */
#include <stdlib.h>
#include <string.h>

#include "measure/workload_build.h"

/* What became of the entries of one set, for the sentence when too few were left. */
struct tally {
	size_t prompt, answer, again,
		unfit; /* requests left out for their prompt's length, their answer, as
	                                        copies, as text that tokenizer or template do not take */
};

static bool within(const struct nx_dist *d, size_t n)
{
	return n >= (size_t)d->min && n <= (size_t)d->max;
}

int nx_build_answer(struct nx_build *b, struct nx_prompt_text *t, size_t question, int32_t *out,
                    struct nx_err *err)
{
	const struct nx_dist *d = &b->cell->output_len;
	size_t n = 0;
	if (d->kind != NX_DIST_DATASET) {
		*out = nx_build_output_len(b, b->set->n);
		return 0;
	}
	struct nx_err why = {0};
	int rc = nx_prompt_answer(t, question + 1, b->w->tok, &n, &why);
	*out = rc == 0 && within(d, n) ? (int32_t)n : 0;
	/* An answer that cannot be tokenised counts as none. */
	return rc == 0 || rc == NX_EINVAL ? 0 : nx_fail(err, rc, "%s", why.msg);
}

/* The whole prompt of a text, or of a conversation up to turn `question`; ids is the caller's. */
static int whole(struct nx_build *b, struct nx_prompt_text *t, size_t question,
                 struct nx_tokens *out, struct nx_err *err)
{
	const struct nx_tokenizer *tok = b->w->tok;
	if (t->text)
		return nx_tokenizer_encode(tok, t->text, strlen(t->text), NX_TOK_ADD_BOS, &out->ids,
		                           &out->n, err);
	return nx_prompt_until(t, question, tok, out, err);
}

/* 1 when a request was made of the prompt, 0 when it is left out, 2 when none after it can be made (it is too long,
 * or it is no prompt for this model), or negative. */
static int take(struct nx_build *b, struct nx_prompt_text *t, size_t question, struct tally *tally,
                struct nx_err *err)
{
	struct nx_tokens p = {0};
	struct nx_err why = {0};
	int32_t out = 0;
	int rc = nx_build_answer(b, t, question, &out, &why);
	if (rc == 0 && !out)
		tally->answer++;
	/* An answer that does not count saves the prompt's tokens, unless the session might end here. */
	if (rc == 0 && !out && b->w->spec.turns != NX_TURNS_ALL)
		return 0;
	if (rc == 0)
		rc = whole(b, t, question, &p, &why);
	if (rc == NX_EINVAL) { /* a byte that the vocabulary lacks, a template that refuses */
		tally->unfit++;
		return 2;
	}
	if (rc)
		return nx_fail(err, rc, "%s", why.msg);
	if (!within(&b->cell->seq_len, p.n)) {
		tally->prompt += out != 0;
		rc = p.n > (size_t)b->cell->seq_len.max ? 2 : 0;
	} else if (out && !nx_seen_add(&b->seen, p.ids, p.n)) {
		tally->again++;
	} else if (out) {
		int32_t *dst = nx_build_room(b, p.n, err);
		rc = dst ? 1 : NX_ENOMEM;
		if (dst) {
			memcpy(dst, p.ids, p.n * sizeof(*dst));
			nx_build_add(b, p.n, out)->priority = t->priority;
		}
	}
	free(p.ids);
	return rc;
}

/* The user turns of one conversation, each after the one before it. */
static int take_session(struct nx_build *b, struct nx_prompt_text *t, uint32_t session,
                        struct tally *tally, struct nx_err *err)
{
	uint32_t turn = 0, before = 0;
	for (size_t i = 0; i < t->n_turns && b->set->n < b->want; i++) {
		if (!nx_prompt_asks(t, i))
			continue;
		size_t copies = tally->again;
		int rc = take(b, t, i, tally, err);
		if (rc < 0)
			return rc;
		/* What begins as another session did would be that session once more. */
		if (rc == 2 || (tally->again > copies && !before))
			break;
		if (rc == 1) {
			struct nx_request *q = &b->set->reqs[b->set->n - 1];
			q->after = before;
			q->session = session;
			q->turn = turn;
			before = (uint32_t)b->set->n;
		}
		turn++;
	}
	return 0;
}

int nx_build_dataset(struct nx_build *b, struct nx_err *err)
{
	struct nx_workload *w = b->w;
	const struct nx_dist *in = &b->cell->seq_len;
	struct tally tally = {0};
	uint32_t session = 0;
	for (size_t k = 0; k < w->file.n && b->set->n < b->want; k++) {
		struct nx_prompt_text *t = &w->file.texts[w->order[k]];
		size_t n = b->set->n;
		int rc = w->spec.turns == NX_TURNS_ALL && !t->text
		                 ? take_session(b, t, session, &tally, err)
		                 : take(b, t, t->n_turns - 1, &tally, err);
		if (rc < 0)
			return rc;
		if (w->spec.turns == NX_TURNS_ALL) {
			for (size_t i = n; t->text && i < b->set->n; i++)
				b->set->reqs[i].session = session;
			session += b->set->n > n;
		}
	}
	if (b->set->n == b->want)
		return 0;
	return nx_fail(
		err, NX_EINVAL,
		"%s: found %zu requests with prompts of %d to %d tokens and usable answers, and %zu are asked for (left out: %zu for their prompt's length, %zu for their answer, %zu that came already, %zu that the model's tokenizer or template do not take); legal: fewer requests, wider limits or a larger file",
		w->file.path, b->set->n, in->min, in->max, b->want, tally.prompt, tally.answer,
		tally.again, tally.unfit);
}
