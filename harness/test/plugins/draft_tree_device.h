/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/draft_tree_device.h: the functions of draft_tree that run on the device. They alone read lengths,
 * verdicts and tokens.
 *
 * The drafter's row in slot s stands for (feature of row s - 1, token s), at position s - 1, as EAGLE's does
 * (2401.15077 section 4.1). After a step its group ends with the root of that step or the row before it.
 */
#ifndef NEXUS_TEST_PLUGINS_DRAFT_TREE_DEVICE_H
#define NEXUS_TEST_PLUGINS_DRAFT_TREE_DEVICE_H

#include <math.h>

#include "draft_tree.h"

#define TREE_FRESH_MAX 64

/* ---- arguments of enqueued calls: what hooks were handed is borrowed, so it is here by value */

struct tree_observe_call {
	struct tree *t;
	struct nx_rows rows;
	struct nx_seq_state state, group;
	const void *tap[2];
	struct nx_observed seq;
	int32_t row, segment; /* of the forward of prompts; row -1 = decodes */
};

struct tree_draft_call {
	struct tree *t;
	struct nx_draft out;
	struct nx_verdict last;
	struct nx_seq_state state, group;
	const struct nx_draft_span *spans;
	const struct nx_sampler *samplers;
	int32_t n_spans, m;
};

struct tree_forget_call {
	struct tree *t;
	int32_t n, place[TREE_FRESH_MAX]; /* given to other sequences */
};

/* ---- small things */

static void tree_row(struct tree *t, int32_t r, int32_t seq, int32_t token, int32_t slot_off,
                     int32_t slot, int32_t kind)
{
	t->seq[r] = seq;
	t->token[r] = token;
	t->slot_off[r] = slot_off;
	t->pos_off[r] = slot > 0 ? slot_off - 1 : slot_off;
	t->kind[r] = kind;
	t->scratch[r] = -1;
	t->n_anc[r] = 0;
	t->anc[r] = 0;
}

static void tree_put_feature(struct tree *t, int32_t r, const float *f)
{
	for (int32_t i = 0; i < 2 * t->d_model; i++)
		hand_put(t->fused_in, t->act, (int64_t)r * 2 * t->d_model + i, f ? f[i] : 0);
}

static void tree_get_taps(const struct tree *t, const void *const tap[2], int32_t row, float *to)
{
	for (int32_t k = 0; k < 2; k++)
		for (int32_t i = 0; i < t->d_model; i++) {
			float v = hand_get(tap[k], t->act, (int64_t)row * t->d_model + i);
			to[k * t->d_model + i] = v;
			*t->bad += v != v;
		}
}

static int32_t *tree_next(const struct tree *t, int32_t place)
{
	return t->next + (int64_t)place * t->vocab;
}

/* ---- observe: taps are kept by place; rows of prompts go into the group at once */

static void tree_save(void *args)
{
	struct tree_observe_call *c = args;
	struct tree *t = c->t;
	int32_t q = c->seq.seq, r = c->seq.row0, n = c->seq.n_rows, skip = c->seq.n_redo > 0;
	size_t bytes = sizeof(float) * 2 * (size_t)t->d_model;
	struct tree_place *p = &t->place[q];
	float *before = tree_before(t, q), *root = tree_feature(t, q, 0);
	if (n > 0 && !skip) {
		/* The row before the first: the last that was seen here, or none. A decoding root's was kept by
		 * tree_ingest. */
		int32_t first = c->state.len[q] + c->rows.slot_off[r];
		if (first == 0 || !p->valid) /* nothing, or rows that a prefix brought */
			memset(before, 0, bytes);
		else if (c->seq.prompt)
			memcpy(before, root, bytes);
		*t->bad += first > 0 && !c->seq.prompt && (!p->valid || p->root_slot != first - 1);
	}
	if (c->row >= 0)
		t->segments[c->segment] = (struct nx_segment){
			.seq = q, .row0 = c->row, .n_rows = n - skip, .max_keys = t->max_len};
	for (int32_t i = 0; i < n; i++, r++) {
		int32_t token = c->rows.token[r], slot = c->state.len[q] + c->rows.slot_off[r];
		if (token == NX_TOKEN_LAST)
			token = c->state.last_token[q];
		/* Of a first row that is done again only the feature counts. */
		if (c->row >= 0 && i >= skip) {
			/* Rows that a prefix brought stand. */
			bool stands = slot < c->group.len[q];
			tree_row(t, c->row + i - skip, q, token, slot - c->group.len[q], slot,
			         stands ? NX_ROW_REDO : NX_ROW_COMMIT);
			tree_put_feature(t, c->row + i - skip, i ? root : before);
		}
		if (i == n - 1 && i > 0)
			memcpy(before, root, bytes);
		tree_get_taps(t, c->tap, r, root);
		if (p->valid && i > 0)
			tree_next(t, q)[p->root_token] = token;
		p->root_slot = slot;
		p->root_token = token;
		p->valid = 1;
	}
	for (int32_t i = 0; i < c->seq.n_draft; i++, r++)
		tree_get_taps(t, c->tap, r, tree_feature(t, q, 1 + c->seq.draft0 + i));
}

static void tree_prompt_done(void *args)
{
	const struct tree_observe_call *c = args;
	struct tree *t = c->t;
	int32_t q = c->seq.seq;
	if (c->group.len[q] <= t->place[q].root_slot)
		c->group.len[q] = t->place[q].root_slot + 1;
}

static void tree_forget(void *args)
{
	const struct tree_forget_call *c = args;
	for (int32_t i = 0; i < c->n; i++) {
		c->t->place[c->place[i]].valid = 0;
		memset(tree_next(c->t, c->place[i]), 0xff, sizeof(int32_t) * (size_t)c->t->vocab);
	}
}

/* ---- draft, first forward: the rows that became known since, and the new root */

static void tree_ingest(void *args)
{
	const struct tree_draft_call *c = args;
	struct tree *t = c->t;
	int32_t each = t->cap + 2;
	for (int32_t i = 0; i < c->n_spans; i++) {
		int32_t q = c->spans[i].seq, L = c->state.len[q], have = c->group.len[q];
		int32_t a = c->last.n_accepted[q], R = t->place[q].root_slot;
		struct tree_place *p = &t->place[q];
		const int32_t *path = c->last.path + (int64_t)q * c->last.stride,
			      *token = c->last.token + (int64_t)q * c->last.stride;
		t->segments[i] = (struct nx_segment){
			.seq = q, .row0 = i * each, .n_rows = each, .max_keys = t->max_len};
		p->n_real = 0;
		if (p->valid && (R + 1 + a != L || (have != R && have != R + 1))) {
			++*t->bad;
			p->valid = 0;
		}
		for (int32_t r = 0; r < each; r++) {
			int32_t slot = have + r, at = i * each + r;
			if (!p->valid || slot > L) { /* sees what is there, writes nothing */
				tree_row(t, at, q, 0, -1, have - 1, NX_ROW_REDO);
				tree_put_feature(t, at, NULL);
				continue;
			}
			int32_t j = slot - R; /* 0: last round's root, then accepted rows, then the new root */
			tree_row(t, at, q,
			         slot == L ? c->state.last_token[q]
			         : j == 0  ? p->root_token
			                   : token[j - 1],
			         r, slot, NX_ROW_COMMIT);
			tree_put_feature(t, at,
			                 j == 0   ? tree_before(t, q)
			                 : j == 1 ? tree_feature(t, q, 0)
			                          : tree_feature(t, q, 1 + path[j - 2]));
			p->n_real++;
		}
		if (!p->valid)
			continue;
		*t->bad += a > 0 && token[a] != c->state.last_token[q];
		for (int32_t j = 0; j <= a; j++)
			tree_next(t, q)[j ? token[j - 1] : p->root_token] =
				j == a ? c->state.last_token[q] : token[j];
		p->root_token = c->state.last_token[q];
		/* What precedes the new root, and where the next round finds it. */
		const float *f = a ? tree_feature(t, q, 1 + path[a - 1]) : tree_feature(t, q, 0);
		memmove(tree_before(t, q), f, sizeof(float) * 2 * (size_t)t->d_model);
		p->root_slot = L - 1;
	}
}

/* [embedding; fused feature] of each row. */
static void tree_concat(void *args)
{
	const struct tree_draft_call *c = args;
	struct tree *t = c->t;
	int64_t w = t->d_model + TREE_HIDDEN;
	for (int64_t r = 0; r < c->m; r++) {
		for (int64_t i = 0; i < t->d_model; i++)
			hand_put(t->x_in, t->act, r * w + i,
			         hand_get(t->emb, t->act, r * t->d_model + i));
		for (int64_t i = 0; i < TREE_HIDDEN; i++)
			hand_put(t->x_in, t->act, r * w + t->d_model + i,
			         hand_get(t->g, t->act, r * TREE_HIDDEN + i));
	}
}

/* The roots' outputs are gathered; the group now ends with them. */
static void tree_roots(void *args)
{
	const struct tree_draft_call *c = args;
	struct tree *t = c->t;
	for (int32_t i = 0; i < c->n_spans; i++) {
		int32_t q = c->spans[i].seq, n = t->place[q].n_real;
		int64_t from = (int64_t)i * (t->cap + 2) + (n ? n - 1 : 0);
		for (int32_t k = 0; k < TREE_HIDDEN; k++) {
			float v = hand_get(t->h, t->act, from * TREE_HIDDEN + k);
			hand_put(t->root_h, t->act, (int64_t)i * TREE_HIDDEN + k, v);
			*t->bad += n && v != v;
		}
		if (t->place[q].valid)
			c->group.len[q] = c->state.len[q] + 1;
	}
}

/* Highest logit that is not among the n taken. */
static int32_t tree_best(const float *x, int32_t n, const int32_t *taken, int32_t n_taken)
{
	int32_t best = -1;
	for (int32_t i = 0; i < n; i++) {
		bool gone = false;
		for (int32_t k = 0; k < n_taken; k++)
			gone |= taken[k] == i;
		if (!gone && (best < 0 || x[i] > x[best]))
			best = i;
	}
	return best;
}

/* One more token of the row of q, those taken left out. */
static int32_t tree_draw(const float *q, int32_t n, const int32_t *taken, int32_t n_taken, double u)
{
	double left = 1, sum = 0;
	int32_t last = 0;
	for (int32_t k = 0; k < n_taken; k++)
		left -= q[taken[k]];
	for (int32_t i = 0; i < n; i++) {
		bool gone = false;
		for (int32_t k = 0; k < n_taken; k++)
			gone |= taken[k] == i;
		if (gone || q[i] <= 0)
			continue;
		last = i;
		sum += q[i];
		if (sum > u * left)
			break;
	}
	return last;
}

static void tree_write(const struct tree_draft_call *c, int32_t q, int32_t i, int32_t token,
                       int32_t parent, int32_t kind, int32_t q_row)
{
	int64_t at = (int64_t)q * c->out.stride + i;
	c->out.token[at] = token;
	c->out.parent[at] = parent;
	c->out.kind[at] = kind;
	c->out.q_row[at] = q_row;
}

/* Children of the root: drawn without replacement where the sampler draws, else the best. Their rows make the
 * second forward. */
static void tree_level1(void *args)
{
	const struct tree_draft_call *c = args;
	struct tree *t = c->t;
	int32_t w = t->width, taken[64];
	for (int32_t i = 0; i < c->n_spans; i++) {
		int32_t place = c->spans[i].seq, n = c->spans[i].n < w ? c->spans[i].n : w;
		int32_t L = c->state.len[place];
		const struct nx_sampler *s = &c->samplers[place];
		float *x = t->logits + (int64_t)i * t->vocab, *q = t->q + (int64_t)place * t->vocab;
		bool draws = s->temperature > 0, valid = t->place[place].valid;
		double sum = 0;
		int32_t top = tree_best(x, t->vocab, NULL, 0);
		for (int32_t v = 0; draws && v < t->vocab; v++)
			sum += q[v] = expf((x[v] - x[top]) / (s->temperature * t->temperature));
		for (int32_t v = 0; draws && v < t->vocab; v++)
			q[v] = (float)(q[v] / sum);
		t->segments[i] = (struct nx_segment){
			.seq = place, .row0 = i * w, .n_rows = w, .max_keys = t->max_len + 1};
		for (int32_t k = 0; k < w; k++) {
			double u = nx_rng_uniform(s->seed, s->request, s->sample, (uint32_t)L + 1,
			                          NX_RNG_SIBLING(NX_RNG_DRAFT, k));
			taken[k] = draws ? tree_draw(q, t->vocab, taken, k, u)
			                 : tree_best(x, t->vocab, taken, k);
			/* Random weights accept nothing: what followed the last time may be right. */
			int32_t again = tree_next(t, place)[c->state.last_token[place]];
			if (!draws && k == 0 && again >= 0)
				taken[0] = again;
			if (k < n)
				tree_write(c, place, k, valid ? taken[k] : NX_TOKEN_NONE,
				           NX_DRAFT_ROOT, NX_ROW_CANDIDATE,
				           draws ? place : NX_Q_CERTAIN);
			int32_t r = i * w + k;
			tree_row(t, r, place, taken[k], 0, 1, NX_ROW_CANDIDATE);
			t->pos_off[r] = -1;
			t->scratch[r] = t->anc[r] = k;
			t->n_anc[r] = 1;
			for (int32_t d = 0; d < TREE_HIDDEN; d++)
				hand_put(t->g, t->act, (int64_t)r * TREE_HIDDEN + d,
				         hand_get(t->root_h, t->act, (int64_t)i * TREE_HIDDEN + d));
		}
	}
}

/* The best child of the root (by its own best successor) gets children; then probes, and what is left is void. */
static void tree_level2(void *args)
{
	const struct tree_draft_call *c = args;
	struct tree *t = c->t;
	int32_t w = t->width, taken[64];
	for (int32_t i = 0; i < c->n_spans; i++) {
		int32_t place = c->spans[i].seq, n = c->spans[i].n, parent = 0;
		bool valid = t->place[place].valid;
		float most = -INFINITY;
		for (int32_t k = 0; k < w && k < n; k++) {
			const float *x = t->logits + ((int64_t)i * w + k) * t->vocab;
			float v = x[tree_best(x, t->vocab, NULL, 0)];
			if (v > most) {
				most = v;
				parent = k;
			}
		}
		const float *x = t->logits + ((int64_t)i * w + parent) * t->vocab;
		int32_t from = n ? c->out.token[(int64_t)place * c->out.stride + parent] : 0;
		int32_t again = from >= 0 ? tree_next(t, place)[from] : -1;
		for (int32_t k = 0; k < w && w + k < n; k++) {
			taken[k] = tree_best(x, t->vocab, taken, k);
			if (k == 0 && again >= 0)
				taken[0] = again;
			tree_write(c, place, w + k, valid ? taken[k] : NX_TOKEN_NONE, parent,
			           NX_ROW_CANDIDATE, NX_Q_CERTAIN);
		}
		for (int32_t k = 2 * w; k < n; k++)
			tree_write(c, place, k, valid ? (k * 7 + 1) % t->vocab : NX_TOKEN_NONE,
			           k % 2 ? NX_DRAFT_ROOT : w, NX_ROW_PROBE, NX_Q_CERTAIN);
	}
}

#endif
