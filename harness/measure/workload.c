/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload.c: builds the requests of a trial; see workload.h for the rules.
 */
#include "measure/workload.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "measure/workload_text.h"

/* Streams of random numbers drawn from one seed. */
enum { ORDER = 1, PROMPT_LEN, OUTPUT_LEN, SAMPLER, START };
#define START_TRIES 64

struct nx_workload {
	struct nx_workload_spec spec;
	const struct nx_tokenizer *tok;
	struct nx_prompt_file file;
	struct nx_tokens gap; /* between texts of one prompt */
	uint32_t *order;      /* [file.n], of the round that is built */
};

static int oom(struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while making requests");
}

int nx_workload_open(struct nx_workload **out, const struct nx_workload_spec *spec,
                     const struct nx_tokenizer *tokenizer, struct nx_err *err)
{
	static const char gap[] = "\n\n";
	struct nx_workload *w = calloc(1, sizeof(*w));
	if (!w)
		return oom(err);
	w->spec = *spec;
	w->tok = tokenizer;
	int rc = nx_prompt_file_init(&w->file, spec->prompts, err);
	if (rc == 0)
		rc = nx_tokenizer_encode(tokenizer, gap, sizeof(gap) - 1, NX_TOK_CONTINUES,
		                         &w->gap.ids, &w->gap.n, err);
	if (rc == 0) {
		w->order = calloc(w->file.n, sizeof(*w->order));
		rc = w->order ? 0 : oom(err);
	}
	if (rc)
		nx_workload_close(w);
	else
		*out = w;
	return rc;
}

void nx_workload_close(struct nx_workload *w)
{
	if (!w)
		return;
	nx_prompt_file_release(&w->file);
	free(w->gap.ids);
	free(w->order);
	free(w);
}

size_t nx_workload_count(const struct nx_workload *w)
{
	return w->file.n;
}

int32_t nx_cell_longest(const struct nx_cell *cell)
{
	return cell->seq_len.max + cell->output_len.max; /* both at most NX_LEN_MAX: no overflow */
}

void nx_request_set_release(struct nx_request_set *s)
{
	free(s->reqs);
	free(s->tokens);
	*s = (struct nx_request_set){0};
}

/* ---- one prompt ------------------------------------------------------------------------------- */

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

/* Fills dst with exactly want tokens: text `at` of the order from token `start` of its body, and what
 * follows it where that is too short. */
static int make_prompt(struct nx_workload *w, size_t at, size_t start, int32_t *dst, size_t want,
                       struct nx_err *err)
{
	struct nx_prompt_text *t = &w->file.texts[w->order[at]];
	const struct nx_tokens *head;
	size_t n = 0;
	int rc = choose_head(w, t, want, &head, err);
	if (rc)
		return rc;
	size_t body_end = want - t->tail.n;
	append(dst, body_end, &n, head->ids, head->n);
	append(dst, body_end, &n, t->body.ids + start, t->body.n - start);
	while (n < body_end) {
		at = (at + 1) % w->file.n;
		struct nx_prompt_text *more = &w->file.texts[w->order[at]];
		if ((rc = nx_prompt_body(more, w->tok, err)) != 0)
			return rc;
		append(dst, body_end, &n, w->gap.ids,
		       w->gap.n); /* "\n\n" is never no token: this ends */
		append(dst, body_end, &n, more->body.ids, more->body.n);
	}
	append(dst, want, &n, t->tail.ids, t->tail.n);
	return 0;
}

/* ---- a set ------------------------------------------------------------------------------------ */

/* Hashes of the prompts so far; 0 is an empty place. */
struct seen {
	uint64_t *slots;
	size_t mask;
};

static bool seen_add(struct seen *s, const int32_t *ids, size_t n)
{
	struct nx_hash h;
	nx_hash_init(&h);
	nx_hash_bytes(&h, ids, n * sizeof(*ids));
	uint64_t v = nx_hash_value(&h) | 1;
	size_t i = (size_t)(v >> 1) & s->mask;
	for (; s->slots[i]; i = (i + 1) & s->mask)
		if (s->slots[i] == v)
			return false;
	s->slots[i] = v;
	return true;
}

/* Request i: a text of its own, or one that comes again from another start; other than all before it. */
static int make_distinct(struct nx_workload *w, size_t i, uint64_t order_seed, struct seen *seen,
                         int32_t *dst, size_t want, struct nx_err *err)
{
	size_t at = i % w->file.n, start = 0;
	struct nx_rng r = {nx_rng_key(order_seed, START, i)};
	struct nx_prompt_text *t = &w->file.texts[w->order[at]];
	int rc = nx_prompt_body(t, w->tok, err);
	for (int k = 0; rc == 0 && k < START_TRIES; k++) {
		if (i >= w->file.n || k > 0)
			start = (size_t)nx_rng_below(&r, t->body.n ? t->body.n : 1);
		rc = make_prompt(w, at, start, dst, want, err);
		if (rc == 0 && seen_add(seen, dst, want))
			return 0;
	}
	return rc ? rc
	          : nx_fail(err, NX_EINVAL,
	                    "%s: found too little text for %zu different prompts of %zu tokens; legal: more texts, longer prompts or fewer requests",
	                    w->file.path, i + 1, want);
}

static void fill_request(const struct nx_workload *w, const struct nx_cell *cell, size_t i,
                         struct nx_request_set *s)
{
	struct nx_request *q = &s->reqs[i];
	q->id = (uint32_t)i;
	q->n_prompt = nx_dist_draw(&cell->seq_len, nx_rng_key(s->length_seed, PROMPT_LEN, 0), i);
	q->max_out = nx_dist_draw(&cell->output_len, nx_rng_key(s->length_seed, OUTPUT_LEN, 0), i);
	q->samples = w->spec.samples;
	q->ignore_eos = w->spec.ignore_eos;
	q->sampler = (struct nx_sampler){
		.temperature = w->spec.temperature,
		.top_p = w->spec.top_p,
		.min_p = w->spec.min_p,
		.top_k = w->spec.top_k,
		.seed = s->sampler_seed,
	};
	q->priority = w->file.texts[w->order[i % w->file.n]].priority;
	s->n_tokens += (uint64_t)q->n_prompt;
	if (q->n_prompt + q->max_out > s->longest)
		s->longest = q->n_prompt + q->max_out;
}

static void shuffle(struct nx_workload *w, uint64_t seed)
{
	struct nx_rng r = {seed};
	for (size_t i = 0; i < w->file.n; i++)
		w->order[i] = (uint32_t)i;
	nx_rng_shuffle(&r, w->order, w->file.n);
}

static int build(struct nx_workload *w, const struct nx_cell *cell, int32_t round,
                 struct nx_request_set *s, struct seen *seen, struct nx_err *err)
{
	size_t n = (size_t)cell->num_requests, slots = 16;
	s->n = n;
	s->order_seed = nx_rng_key(w->spec.seed, ORDER, (uint64_t)round);
	s->length_seed = nx_rng_key(w->spec.seed, PROMPT_LEN, (uint64_t)round);
	s->sampler_seed = nx_rng_key(w->spec.seed, SAMPLER, (uint64_t)round);
	shuffle(w, s->order_seed);
	s->reqs = calloc(n, sizeof(*s->reqs));
	if (!s->reqs)
		return oom(err);
	for (size_t i = 0; i < n; i++)
		fill_request(w, cell, i, s);
	while (slots < 2 * n)
		slots *= 2;
	seen->mask = slots - 1;
	seen->slots = calloc(slots, sizeof(*seen->slots));
	s->tokens = calloc(s->n_tokens, sizeof(*s->tokens));
	if (!seen->slots || !s->tokens)
		return oom(err);
	int32_t *dst = s->tokens;
	for (size_t i = 0; i < n; i++) {
		int rc = make_distinct(w, i, s->order_seed, seen, dst, (size_t)s->reqs[i].n_prompt,
		                       err);
		if (rc)
			return rc;
		s->reqs[i].prompt = dst;
		dst += s->reqs[i].n_prompt;
	}
	return 0;
}

int nx_workload_requests(struct nx_workload *w, const struct nx_cell *cell, int32_t round,
                         struct nx_request_set *out, struct nx_err *err)
{
	struct seen seen = {0};
	nx_request_set_release(out);
	int rc = build(w, cell, round, out, &seen, err);
	free(seen.slots);
	if (rc)
		nx_request_set_release(out);
	return rc;
}
