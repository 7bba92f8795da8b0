/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/propose.c: how many rows a sequence drafts in a step; see impl.h. A host drafter's rows are written
 * into the plan here; a device drafter writes its own when the step runs.
 */
#include "engine/clock.h"
#include "engine/impl.h"

/* Most rows that may be drafted for a sequence now: never past its last output. */
int32_t nx_draft_cap(const struct nx_engine *e, const struct nx_seq *s)
{
	/* In a step that does rows again the drafter does not have their features yet. */
	if (!e->draft.stride || s->undraftable || s->phase != NX_SEQ_DECODE || s->redo)
		return 0;
	int32_t left = s->max_out - s->n_out - 1;
	return left < 0 ? 0 : left < e->draft.stride ? left : e->draft.stride;
}

static void write_rows(struct nx_engine *e, struct nx_step *st, const struct nx_seq *s, int32_t n)
{
	int32_t *token = (int32_t *)(void *)(st->host + e->lay.d_token),
		*parent = (int32_t *)(void *)(st->host + e->lay.d_parent),
		*kind = (int32_t *)(void *)(st->host + e->lay.d_kind),
		*q_row = (int32_t *)(void *)(st->host + e->lay.d_q_row);
	size_t at = (size_t)s->place * (size_t)e->draft.stride;
	for (int32_t i = 0; i < n; i++) {
		token[at + (size_t)i] = e->proposed[i].token;
		parent[at + (size_t)i] = e->proposed[i].parent;
		kind[at + (size_t)i] = e->proposed[i].kind;
		q_row[at + (size_t)i] = NX_Q_CERTAIN;
	}
}

int32_t nx_propose(struct nx_engine *e, struct nx_step *st, struct nx_seq *s, int32_t cap)
{
	const struct nx_technique *t = e->drafter->t;
	const struct nx_replay *replay = e->cfg.replay;
	bool host = !t->draft;
	uint64_t begin = nx_now_ns();
	struct nx_override *override =
		(struct nx_override *)(void *)(st->host + e->lay.override) + s->place;
	*override = (struct nx_override){.kind = NX_OVERRIDE_OWN};
	if (replay && replay->n_rounds > 0) {
		const struct nx_replay_round *r =
			&replay->rounds[(s->req->id + (uint32_t)s->n_rounds) %
		                        (uint32_t)replay->n_rounds];
		cap = r->drafted < cap ? r->drafted : cap;
		*override = r->verdict;
		e->overridden = true;
	}
	s->n_rounds++;
	if (cap <= 0) {
		*override = (struct nx_override){.kind = NX_OVERRIDE_OWN};
		return 0;
	}
	struct nx_draft_seq seq = {
		.seq = s->place,
		.request = s->req->id,
		.sample = s->sample,
		.cap = cap,
		.tokens = t->flags & NX_TECH_NEEDS_TOKENS ? s->tokens : NULL,
		.n_tokens = s->n_tokens,
		.n_prompt = s->req->n_prompt,
		.n_out = s->n_out,
		.max_out = s->max_out,
		.temperature = s->req->sampler.temperature,
		.last_drafted = s->last_drafted,
		.last_accepted = s->last_accepted,
	};
	int32_t n = t->propose(e->drafter->self, &seq, host ? e->proposed : NULL);
	if (n == NX_UNDRAFTABLE)
		s->undraftable = true;
	n = n < 0 ? 0 : n > cap ? cap : n;
	/* Near its end a sequence drafts less than the trace did: as deep as there is. */
	if (override->kind == NX_OVERRIDE_LEAF && override->value >= n)
		*override = (struct nx_override){.kind = NX_OVERRIDE_DEPTH, .value = n};
	if (host)
		write_rows(e, st, s, n);
	st->info.draft_ns += nx_now_ns() - begin;
	return n;
}
