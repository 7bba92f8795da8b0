/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/workload.c: builds the requests of a trial; see workload.h for the rules.
 */
#include "measure/workload.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "measure/trace.h"
#include "measure/workload_build.h"

static int oom(struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "out of memory while making requests");
}

/* ---- life ------------------------------------------------------------------------------------- */

static int open_file(struct nx_workload *w, struct nx_err *err)
{
	static const char gap[] = "\n\n";
	if (!w->tok)
		return nx_fail(
			err, NX_EINVAL,
			"%s: found a workload of text, but the model has no tokenizer (a shape preset, or "
			"a directory without tokenizer.json); legal: random prompts (prompts: random; profile: --prompts random), or another model",
			w->spec.prompts);
	int rc = nx_prompt_file_init(&w->file, w->spec.prompts, w->spec.turns, err);
	if (rc == 0)
		rc = nx_tokenizer_encode(w->tok, gap, sizeof(gap) - 1, NX_TOK_CONTINUES,
		                         &w->gap.ids, &w->gap.n, err);
	if (rc == 0) {
		w->order = calloc(w->file.n, sizeof(*w->order));
		rc = w->order ? 0 : oom(err);
	}
	return rc;
}

/* The tokens that random prompts are drawn from; without a tokenizer all are. */
static int list_allowed(struct nx_workload *w, int32_t vocab, struct nx_err *err)
{
	const struct nx_tokenizer *t = w->tok;
	if (t && nx_tokenizer_vocab(t) < vocab)
		vocab = nx_tokenizer_vocab(t);
	w->allowed = calloc((size_t)(vocab > 0 ? vocab : 1), sizeof(*w->allowed));
	if (!w->allowed)
		return oom(err);
	for (int32_t i = 0; i < vocab; i++)
		if (!t || (!nx_tokenizer_is_control(t, i) && !nx_tokenizer_is_eog(t, i)))
			w->allowed[w->n_allowed++] = i;
	if (w->n_allowed == 0)
		return nx_fail(err, NX_EINVAL,
		               "prompts: random: the vocabulary has no token but control tokens");
	return 0;
}

int nx_workload_open(struct nx_workload **out, const struct nx_workload_spec *spec,
                     const struct nx_tokenizer *tokenizer, int32_t vocab, struct nx_err *err)
{
	struct nx_workload *w = calloc(1, sizeof(*w));
	if (!w)
		return oom(err);
	w->spec = *spec;
	w->tok = tokenizer;
	int rc = spec->prompts ? open_file(w, err) : list_allowed(w, vocab, err);
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
	if (w->spec.prompts)
		nx_prompt_file_release(&w->file);
	free(w->gap.ids);
	free(w->order);
	free(w->allowed);
	free(w);
}

size_t nx_workload_count(const struct nx_workload *w)
{
	return w->file.n;
}

const char *nx_workload_note(const struct nx_workload *w, char *buf, size_t size)
{
	const struct nx_prompt_file *f = &w->file;
	buf[0] = '\0';
	if (f->n_empty + f->n_bad_text)
		snprintf(
			buf, size,
			"%lld of %lld entries of the prompts are left out: %lld without a user turn that has a text, %lld with text that is no Unicode",
			(long long)(f->n_empty + f->n_bad_text),
			(long long)f->n + f->n_empty + f->n_bad_text, (long long)f->n_empty,
			(long long)f->n_bad_text);
	return buf;
}

int32_t nx_cell_longest(const struct nx_cell *cell)
{
	/* both at most NX_LEN_MAX: no overflow */
	return cell->longest ? cell->longest : cell->seq_len.max + cell->output_len.max;
}

void nx_request_set_release(struct nx_request_set *s)
{
	free(s->reqs);
	free(s->tokens);
	*s = (struct nx_request_set){0};
}

/* ---- a set ------------------------------------------------------------------------------------ */

bool nx_seen_add(struct nx_seen *s, const int32_t *ids, size_t n)
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

int32_t *nx_build_room(struct nx_build *b, size_t n, struct nx_err *err)
{
	struct nx_request_set *s = b->set;
	if (b->cap_tokens - s->n_tokens < n || !s->tokens) {
		size_t cap = b->cap_tokens + b->cap_tokens / 2 + n + 1024;
		int32_t *more = realloc(s->tokens, cap * sizeof(*more));
		if (!more) {
			oom(err);
			return NULL;
		}
		s->tokens = more;
		b->cap_tokens = cap;
	}
	return s->tokens + s->n_tokens;
}

/* A length of request i that is drawn, or a trace's. */
static int32_t draw(const struct nx_build *b, const struct nx_dist *d, bool output, size_t i)
{
	if (d->kind != NX_DIST_TRACE)
		return nx_dist_draw(d,
		                    nx_rng_key(b->set->length_seed,
		                               output ? NX_DRAW_OUTPUT_LEN : NX_DRAW_PROMPT_LEN, 0),
		                    i);
	const struct nx_trace *t = b->w->spec.trace;
	const struct nx_trace_row *row = &t->rows[i % t->n];
	int32_t n = output ? row->n_out : row->n_in;
	return n < d->min ? d->min : n > d->max ? d->max : n;
}

int32_t nx_build_prompt_len(const struct nx_build *b, size_t i)
{
	return draw(b, &b->cell->seq_len, false, i);
}

int32_t nx_build_output_len(const struct nx_build *b, size_t i)
{
	return draw(b, &b->cell->output_len, true, i);
}

static int64_t arrival(const struct nx_trace *t, size_t i)
{
	if (!t)
		return -1;
	uint64_t span = t->rows[t->n - 1].arrival_ns, gap = t->n > 1 ? span / (t->n - 1) : 0;
	uint64_t again = (uint64_t)(i / t->n);
	/* A trace of many years, many times: the end of what 63 bits hold. */
	if (again && span + gap > (uint64_t)INT64_MAX / (again + 1))
		return INT64_MAX;
	return (int64_t)(t->rows[i % t->n].arrival_ns + again * (span + gap));
}

struct nx_request *nx_build_add(struct nx_build *b, size_t n_prompt, int32_t max_out)
{
	struct nx_request_set *s = b->set;
	size_t i = s->n++;
	struct nx_request *q = &s->reqs[i];
	*q = (struct nx_request){
		.id = (uint32_t)i,
		.n_prompt = (int32_t)n_prompt,
		.max_out = max_out,
		.samples = b->w->spec.samples,
		.ignore_eos = b->w->spec.ignore_eos,
		.session = (uint32_t)i,
		.arrival_ns = arrival(b->w->spec.trace, i),
		.sampler =
			{
				.temperature = b->w->spec.temperature,
				.top_p = b->w->spec.top_p,
				.min_p = b->w->spec.min_p,
				.top_k = b->w->spec.top_k,
				.seed = s->sampler_seed,
			},
	};
	s->n_tokens += (uint64_t)n_prompt;
	if (q->n_prompt + q->max_out > s->longest)
		s->longest = q->n_prompt + q->max_out;
	return q;
}

/* ---- shared begins ---------------------------------------------------------------------------- */

size_t nx_build_shared(const struct nx_build *b, size_t n)
{
	/* 0.7 of 10 is 7, whatever the last bit of 0.7 */
	size_t s = (size_t)(b->cell->seq_len.shared * (double)n + 1e-6);
	return s < n ? s : n - 1;
}

const int32_t *nx_build_common(const struct nx_build *b, size_t i)
{
	return b->common + i % b->n_groups * (size_t)b->cell->seq_len.max;
}

static int make_groups(struct nx_build *b, struct nx_err *err)
{
	size_t n = b->w->spec.groups > 1 ? (size_t)b->w->spec.groups : 1;
	if (!(b->cell->seq_len.shared > 0))
		return 0;
	b->n_groups = n < b->want ? n : b->want;
	b->common = calloc(b->n_groups * (size_t)b->cell->seq_len.max, sizeof(*b->common));
	b->common_head = calloc(b->n_groups, sizeof(*b->common_head));
	return b->common && b->common_head ? 0 : oom(err);
}

/* ---- random tokens ---------------------------------------------------------------------------- */

static void random_tokens(const struct nx_workload *w, uint64_t key, int32_t *dst, size_t n)
{
	struct nx_rng r = {key};
	for (size_t k = 0; k < n; k++)
		dst[k] = w->allowed[nx_rng_below(&r, w->n_allowed)];
}

/* Blocks that the trace names are equal wherever they are named. */
static void shared_blocks(const struct nx_build *b, const struct nx_trace_row *row, int32_t *dst,
                          size_t n)
{
	for (size_t k = 0; k < row->n_blocks && k * NX_TRACE_BLOCK < n; k++) {
		size_t at = k * NX_TRACE_BLOCK, left = n - at;
		random_tokens(b->w, nx_rng_key(b->set->order_seed, NX_DRAW_BLOCK, row->blocks[k]),
		              dst + at, left < NX_TRACE_BLOCK ? left : NX_TRACE_BLOCK);
	}
}

static int build_random(struct nx_build *b, struct nx_err *err)
{
	const struct nx_trace *t = b->w->spec.trace;
	for (size_t g = 0; g < b->n_groups; g++)
		random_tokens(b->w, nx_rng_key(b->set->order_seed, NX_DRAW_GROUP, g),
		              b->common + g * (size_t)b->cell->seq_len.max,
		              (size_t)b->cell->seq_len.max);
	for (size_t i = 0; i < b->want; i++) {
		size_t n = (size_t)nx_build_prompt_len(b, i);
		const struct nx_trace_row *row = t ? &t->rows[i % t->n] : NULL;
		int32_t *dst = nx_build_room(b, n, err);
		if (!dst)
			return NX_ENOMEM;
		bool distinct = false;
		for (uint64_t k = 0; k < NX_START_TRIES && !distinct; k++) {
			uint64_t key = nx_rng_key(b->set->order_seed, NX_DRAW_TOKENS, i);
			random_tokens(b->w, nx_rng_key(key, k, 0), dst, n);
			if (row && row->n_blocks)
				shared_blocks(b, row, dst, n);
			if (b->n_groups)
				memcpy(dst, nx_build_common(b, i),
				       nx_build_shared(b, n) * sizeof(*dst));
			distinct = (row && row->n_blocks) || nx_seen_add(&b->seen, dst, n);
		}
		if (!distinct)
			return nx_fail(
				err, NX_EINVAL,
				"prompts: random: found too few tokens (%zu) for %zu different prompts of %zu; legal: longer prompts or fewer requests",
				b->w->n_allowed, i + 1, n);
		nx_build_add(b, n, nx_build_output_len(b, i));
	}
	return 0;
}

/* ---- all -------------------------------------------------------------------------------------- */

static void shuffle(struct nx_workload *w, uint64_t seed)
{
	struct nx_rng r = {seed};
	for (size_t i = 0; i < w->file.n; i++)
		w->order[i] = (uint32_t)i;
	nx_rng_shuffle(&r, w->order, w->file.n);
}

/* Outputs that the next turn's prompt repeats are fed from there: its tokens behind the prompt that it begins with. A
 * session's last one is drawn, and so is one that the template writes otherwise later on. */
static void feed_answers(struct nx_request_set *s)
{
	for (size_t i = 0; i + 1 < s->n; i++) {
		struct nx_request *q = &s->reqs[i];
		const struct nx_request *next = q + 1;
		if (next->after != i + 1 || next->n_prompt - q->n_prompt < q->max_out ||
		    memcmp(q->prompt, next->prompt, (size_t)q->n_prompt * sizeof(*q->prompt)) != 0)
			continue;
		q->force = next->prompt + q->n_prompt;
		q->ignore_eos = true;
	}
}

static int build(struct nx_build *b, int32_t round, struct nx_err *err)
{
	struct nx_request_set *s = b->set;
	const uint64_t seed = b->w->spec.seed;
	size_t slots = 16;
	s->order_seed = nx_rng_key(seed, NX_DRAW_ORDER, (uint64_t)round);
	s->length_seed = nx_rng_key(seed, NX_DRAW_PROMPT_LEN, (uint64_t)round);
	s->sampler_seed = nx_rng_key(seed, NX_DRAW_SAMPLER, (uint64_t)round);
	while (slots < 2 * b->want)
		slots *= 2;
	b->seen.mask = slots - 1;
	b->seen.slots = calloc(slots, sizeof(*b->seen.slots));
	s->reqs = calloc(b->want, sizeof(*s->reqs));
	if (!b->seen.slots || !s->reqs)
		return oom(err);
	shuffle(b->w, s->order_seed);
	int rc = make_groups(b, err);
	if (rc)
		return rc;
	rc = !b->w->spec.prompts                        ? build_random(b, err)
	     : b->cell->seq_len.kind == NX_DIST_DATASET ? nx_build_dataset(b, err)
	                                                : nx_build_drawn(b, err);
	/* Only now do the tokens stay where they are. */
	int32_t *at = s->tokens;
	for (size_t i = 0; rc == 0 && i < s->n; i++) {
		s->reqs[i].prompt = at;
		at += s->reqs[i].n_prompt;
	}
	if (rc == 0 && b->w->spec.answers == NX_ANSWERS_FILE)
		feed_answers(s);
	return rc;
}

int nx_workload_requests(struct nx_workload *w, const struct nx_cell *cell, int32_t round,
                         struct nx_request_set *out, struct nx_err *err)
{
	struct nx_build b = {.w = w, .cell = cell, .set = out, .want = (size_t)cell->num_requests};
	nx_request_set_release(out);
	int rc = build(&b, round, err);
	free(b.seen.slots);
	free(b.common);
	free(b.common_head);
	if (rc)
		nx_request_set_release(out);
	return rc;
}
