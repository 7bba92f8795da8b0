/* SPDX-License-Identifier: Apache-2.0
 *
 * The descent from the root of a draft, said once for the reference and the fast path (law.h): struct nx_sample has
 * the rule. At a node with a drawn child, p starts as the target's distribution and loses what each rejected
 * child stood for; `p` below is it times `total`, made only when the first child is rejected.
 *
 * What the rule leaves open
 *   A drawn child that its row of q gives no mass (a sibling's duplicate, a token outside q's vocabulary) is
 *   passed over: no coin, and p stays. Drafters that draw with replacement are served exactly by this.
 *   A PROBE sibling is no child, but a token that it drew is gone from its row of q.
 *   Where rounding leaves no mass after a rejection, p was covered by what was tried: the token is drawn from
 *   p as it was at first, and no further child is tried.
 *   An override goes before force, force before the sampler. At the last node of a path that was given, the
 *   token is the sampler's choice, be it a child's or not.
 */
#include "cpu/law.h"
#include "nexus_kernels/rng.h"

#define SLICE 4096
#define NO_CHILD (-2)

struct descent {
	const struct law_ops *ops;
	const struct nx_sample *a;
	const struct nx_emit *e;
	const int32_t *token, *parent, *kind, *q_row; /* of the sequence's draft */
	struct verify_scratch m;
	struct law law;
	int32_t position; /* of the token to be chosen */
	bool dense;       /* p is filled */
	double total;     /* of p */
};

static bool is_child(const struct descent *d, int32_t i, int32_t node)
{
	return d->parent[i] == node && d->kind[i] == NX_ROW_CANDIDATE &&
	       d->token[i] != NX_TOKEN_NONE;
}

static int32_t child_with(const struct descent *d, int32_t node, int32_t token)
{
	for (int32_t i = node + 1; i < d->e->n_draft; i++)
		if (is_child(d, i, node) && d->token[i] == token)
			return i;
	return NO_CHILD;
}

static bool has_drawn_child(const struct descent *d, int32_t node)
{
	for (int32_t i = node + 1; i < d->e->n_draft; i++)
		if (is_child(d, i, node) && d->q_row[i] != NX_Q_CERTAIN)
			return true;
	return false;
}

static double uniform(const struct descent *d, uint32_t purpose)
{
	const struct nx_sampler *s = d->law.s;
	return nx_rng_uniform(s->seed, s->request, s->sample, (uint32_t)d->position, purpose);
}

/* ---- p and q at a node with drawn children */

static int32_t column_of(const struct nx_draft *draft, int32_t token)
{
	if (!draft->q_token)
		return token < draft->q_cols ? token : -1;
	for (int32_t c = 0; c < draft->q_cols; c++)
		if (draft->q_token[c] == token)
			return c;
	return -1;
}

/* The row of q that a child was drawn from, less what siblings before it drew from it; *total is its mass. */
static const float *q_of(const struct descent *d, int32_t child, double *total)
{
	const struct nx_draft *draft = d->a->draft;
	const float *q = draft->q + (int64_t)d->q_row[child] * draft->q_cols;
	bool copied = false;
	*total = 1;
	for (int32_t i = d->parent[child] + 1; i < child; i++) {
		if (d->parent[i] != d->parent[child] || d->q_row[i] != d->q_row[child] ||
		    d->token[i] == NX_TOKEN_NONE)
			continue;
		if (!copied)
			memcpy(d->m.q, q, sizeof(*q) * (size_t)draft->q_cols);
		copied = true;
		int32_t column = column_of(draft, d->token[i]);
		if (column >= 0)
			d->m.q[column] = 0;
	}
	if (!copied)
		return q;
	*total = d->ops->sum(&d->law, d->m.q, draft->q_cols);
	return d->m.q;
}

static double p_of(const struct descent *d, int32_t token)
{
	return (d->dense ? (double)d->m.p[token] : law_mass(&d->law, token)) / d->total;
}

static void fill(struct descent *d)
{
	d->ops->masses(&d->law, d->m.p);
	d->dense = true;
	d->total = d->law.total;
}

/* p without the token of a rejected child, and without q where it was drawn. False: nothing is left. */
static bool reject(struct descent *d, int32_t token, const float *q, double q_total)
{
	const struct nx_draft *draft = d->a->draft;
	int32_t vocab = d->law.vocab;
	float *p = d->m.p;
	if (!d->dense)
		fill(d);
	p[token] = 0;
	if (q) {
		float by = (float)(d->total / q_total);
		if (!draft->q_token)
			d->ops->subtract(&d->law, p, q, by,
			                 draft->q_cols < vocab ? draft->q_cols : vocab);
		for (int32_t c = 0; draft->q_token && c < draft->q_cols; c++) {
			int32_t t = draft->q_token[c];
			if (t >= 0 && t < vocab)
				p[t] = p[t] > by * q[c] ? p[t] - by * q[c] : 0;
		}
	}
	d->total = d->ops->sum(&d->law, p, vocab);
	return d->total > 0;
}

static int32_t draw_rest(const struct descent *d)
{
	double u = uniform(d, NX_RNG_RESIDUAL), mass = 0;
	int32_t last = 0;
	if (!d->dense)
		return d->ops->draw(&d->law, u);
	u *= d->total;
	for (int32_t begin = 0; begin < d->law.vocab; begin += SLICE) {
		int32_t n = d->law.vocab - begin < SLICE ? d->law.vocab - begin : SLICE;
		double slice = d->ops->sum(&d->law, d->m.p + begin, n);
		if (mass + slice <= u) {
			mass += slice;
			continue;
		}
		for (int32_t i = begin; i < begin + n; i++) {
			mass += d->m.p[i];
			if (mass > u)
				return i;
			if (d->m.p[i] > 0)
				last = i;
		}
	}
	return last; /* rounding ate the end of the mass */
}

static int32_t try_children(struct descent *d, int32_t node, int32_t *child)
{
	uint32_t number = 0;
	d->total = d->law.total;
	d->dense = false;
	for (int32_t i = node + 1; i < d->e->n_draft; i++) {
		if (!is_child(d, i, node))
			continue;
		double u = uniform(d, NX_RNG_SIBLING(NX_RNG_ACCEPT, number++));
		double p = p_of(d, d->token[i]), q_x = 1, q_total = 1;
		const float *q = NULL;
		if (d->q_row[i] != NX_Q_CERTAIN) {
			q = q_of(d, i, &q_total);
			int32_t column = column_of(d->a->draft, d->token[i]);
			q_x = column < 0 ? 0 : q[column] / q_total;
		}
		if (!(q_x > 0))
			continue;
		if (u * q_x < p) {
			*child = i;
			return d->token[i];
		}
		if (!reject(d, d->token[i], q, q_total)) {
			fill(d);
			break;
		}
	}
	return draw_rest(d);
}

/* The sampler's choice at a node, and the child that it accepts. */
static int32_t choose(struct descent *d, int32_t node, int32_t *child)
{
	int32_t token;
	d->law.logits =
		d->a->logits + (int64_t)(d->e->logit_row + 1 + node) * (int64_t)d->law.vocab;
	*child = NO_CHILD;
	if (d->law.s->temperature <= 0) {
		token = d->ops->best(&d->law);
	} else {
		d->ops->open(&d->law);
		if (has_drawn_child(d, node))
			return try_children(d, node, child);
		token = d->ops->draw(&d->law, uniform(d, NX_RNG_SAMPLE));
	}
	*child = child_with(d, node, token);
	return token;
}

/* ---- paths that are given */

int32_t verify_depth(const struct nx_draft *d, int32_t seq, int32_t row)
{
	int64_t first = (int64_t)seq * d->stride;
	int32_t depth = 0;
	for (; row != NX_DRAFT_ROOT; row = d->parent[first + row], depth++)
		if (d->kind[first + row] != NX_ROW_CANDIDATE ||
		    d->token[first + row] == NX_TOKEN_NONE)
			return 0;
	return depth;
}

/* The row that is to be accepted with its ancestors; NX_DRAFT_ROOT = none. */
static int32_t given_leaf(const struct descent *d, const struct nx_override *o)
{
	int32_t leaf = NX_DRAFT_ROOT, deepest = 0;
	if (o->kind == NX_OVERRIDE_LEAF)
		return o->value;
	for (int32_t i = 0; i < d->e->n_draft && deepest < o->value; i++) {
		int32_t depth = verify_depth(d->a->draft, d->e->seq, i);
		if (depth > deepest && depth <= o->value) {
			leaf = i;
			deepest = depth;
		}
	}
	return leaf;
}

/* The child of a node on the way to a row below it. */
static int32_t step_towards(const struct descent *d, int32_t node, int32_t leaf)
{
	if (leaf == node)
		return NO_CHILD;
	while (d->parent[leaf] != node)
		leaf = d->parent[leaf];
	return leaf;
}

/* ---- the whole */

void verify(const struct law_ops *ops, const struct cpu_kernels *k, const struct nx_sample *a,
            const struct nx_emit *e, const struct verify_scratch *scratch)
{
	const struct nx_verdict *v = a->verdict;
	const struct nx_override *o = a->override ? &a->override[e->seq] : NULL;
	int64_t out = (int64_t)e->seq * v->stride;
	struct descent d = {.ops = ops, .a = a, .e = e, .m = *scratch};
	d.law = (struct law){
		.k = k, .s = &a->samplers[e->seq], .vocab = a->vocab, .kept = scratch->kept};
	d.position = a->state->len[e->src_seq] + e->pos_off;
	if (e->n_draft > 0) {
		int64_t first = (int64_t)e->seq * a->draft->stride;
		d.token = a->draft->token + first;
		d.parent = a->draft->parent + first;
		d.kind = a->draft->kind + first;
		d.q_row = a->draft->q_row + first;
	}
	bool given = o && o->kind != NX_OVERRIDE_OWN;
	int32_t leaf = given && e->n_draft > 0 ? given_leaf(&d, o) : NX_DRAFT_ROOT;
	int32_t node = NX_DRAFT_ROOT, depth = 0, child;
	for (;; depth++, d.position++, node = child) {
		int32_t token = choose(&d, node, &child);
		if (given) {
			child = step_towards(&d, node, leaf);
			token = child == NO_CHILD ? token : d.token[child];
		} else if (a->force && a->force[out + depth] >= 0) {
			child = child_with(&d, node, a->force[out + depth]);
		}
		v->token[out + depth] = token;
		if (a->logprob)
			a->logprob[out + depth] = ops->logprob(&d.law, token);
		if (child == NO_CHILD)
			break;
		v->path[out + depth] = child;
	}
	v->n_accepted[e->seq] = depth;
}
