/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/reconcile.c: what a step gave, once the host may know it: tokens, what of the drafts was accepted, and who
 * ended; see impl.h.
 */
#include <string.h>

#include "engine/clock.h"
#include "engine/impl.h"

static void finish(struct nx_engine *e, int32_t i, enum nx_finish why, uint64_t now)
{
	struct nx_seq *s = &e->seqs[i];
	const struct nx_sink *k = e->sink;
	size_t r = (size_t)(s->req - e->reqs);
	if (k->finish)
		k->finish(k->ctx, s->req->id, s->sample, why, s->n_preempted, now);
	/* Where it still has its place, retire() sends RETIRE; where it was preempted, PREEMPT was its last event. */
	s->ended = true;
	s->n_seen = s->n_out; /* what is still in flight will be dropped by its gen */
	s->gen++;
	if (s->place < 0) {
		/* It ended while it waited to be computed again, or its place was given back ahead. */
		for (int32_t j = 0; j < e->n_wait; j++) {
			if (e->wait[j] != i)
				continue;
			memmove(e->wait + j, e->wait + j + 1,
			        (size_t)(e->n_wait - j - 1) * sizeof(*e->wait));
			e->n_wait--;
			break;
		}
		nx_store_swap_drop(&e->store, &s->swapped);
		s->live = false;
	}
	if (--e->left[r] == 0) {
		e->in_flight--;
		e->n_done_reqs++;
	}
}

/* Logits that output k of a flight was drawn from: of its root, then of the accepted rows. */
static int send_logits(struct nx_engine *e, const struct nx_step *st, int32_t flight, int32_t k,
                       int32_t index, struct nx_err *err)
{
	const struct nx_flight *f = &st->flights[flight];
	const struct nx_emit *em =
		(const struct nx_emit *)(const void *)(st->host + e->lay.emits) + flight;
	const struct nx_seq *s = &e->seqs[f->seq];
	int32_t vocab = e->w->shape.vocab, row = em->logit_row;
	if (k > 0)
		row += 1 + st->path[(size_t)f->place * (size_t)e->verdict.stride + (size_t)k - 1];
	int rc = e->dev->ops->copy(e->dev->dev, e->stream, e->logits_host,
	                           e->logits + (size_t)row * (size_t)vocab,
	                           (size_t)vocab * sizeof(float), NX_D2H, err);
	if (!rc)
		rc = e->dev->ops->stream_sync(e->dev->dev, e->stream, err);
	if (!rc)
		e->sink->logits(e->sink->ctx, s->req->id, s->sample, index, e->logits_host, vocab);
	return rc;
}

/* What drafts were not accepted is taken back from the counts that were planned. */
static void settle(struct nx_engine *e, struct nx_seq *s, const struct nx_flight *f,
                   int32_t accepted)
{
	int32_t rejected = f->n_draft - accepted;
	s->n_out -= rejected;
	if (s->lives != f->lives)
		return; /* its rows went with a preemption */
	s->slack -= f->n_draft;
	s->len -= rejected;
	if (f->n_draft) {
		s->last_drafted = f->n_draft;
		s->last_accepted = accepted;
	}
	if (rejected && s->place >= 0 && e->store.geo.blocks)
		nx_store_trim(&e->store, s->place, nx_kv_rows(e, s, s->len));
}

/* The outputs of one sequence in a step that is done. */
static int take_outputs(struct nx_engine *e, struct nx_step *st, int32_t flight, uint64_t now,
                        struct nx_err *err)
{
	const struct nx_sink *k = e->sink;
	const struct nx_flight *f = &st->flights[flight];
	struct nx_seq *s = &e->seqs[f->seq];
	int32_t accepted = f->n_draft ? st->accepted[f->place] : 0;
	const int32_t *tokens = st->tokens + (size_t)f->place * (size_t)e->verdict.stride;
	if (s->gen != f->gen)
		return 0; /* ended one step ago */
	if (accepted < 0 || accepted > f->n_draft)
		return nx_fail(err, NX_EBUG, "%d of %d drafted rows were accepted", accepted,
		               f->n_draft);
	settle(e, s, f, accepted);
	st->info.n_accepted += accepted;
	st->info.n_emit += accepted;
	for (int32_t i = 0; i <= accepted; i++) {
		int32_t token = tokens[i], index = s->n_seen++;
		int rc = k->logits ? send_logits(e, st, flight, i, index, err) : 0;
		if (rc)
			return rc;
		if (!s->req->force)
			s->tokens[s->n_tokens++] = token;
		else if (i > 0) /* the first was put there when it was planned */
			s->tokens[s->n_tokens++] = s->req->force[index];
		if (k->token)
			k->token(k->ctx, s->req->id, s->sample, index, token, now);
		bool eog = !s->req->ignore_eos && e->w->tokenizer &&
		           nx_tokenizer_is_eog(e->w->tokenizer, token);
		if (!eog && s->n_seen < s->max_out)
			continue;
		finish(e, f->seq,
		       eog                            ? NX_FINISH_EOS
		       : s->max_out < s->req->max_out ? NX_FINISH_CONTEXT
		                                      : NX_FINISH_LENGTH,
		       now);
		break; /* what was accepted beyond its end is dropped */
	}
	return 0;
}

int nx_reconcile(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	const struct nx_sink *k = e->sink;
	int rc = e->dev->ops->event_wait(e->dev->dev, st->done, err);
	if (rc)
		return rc;
	uint64_t now = nx_now_ns();
	st->in_flight = false;
	st->info.end_ns = now;
	for (int32_t j = 0; j < st->n_flights && !rc; j++)
		rc = take_outputs(e, st, j, now, err);
	if (!rc && e->late_err.code)
		rc = nx_fail(err, e->late_err.code, "%s", e->late_err.msg);
	if (k->step)
		k->step(k->ctx, &st->info);
	return rc;
}
