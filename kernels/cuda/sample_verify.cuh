/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_verify.cuh: the choice at one node of a draft: its token, and the child that is accepted. The rule is that of
 * struct nx_sample, and what it leaves open is settled as on the CPU (kernels/cpu/verify.c).
 *
 * All threads of the cluster run this with equal arguments and get equal results.
 */
#ifndef NX_CUDA_SAMPLE_VERIFY_CUH
#define NX_CUDA_SAMPLE_VERIFY_CUH

#include "cuda/sample_filter.cuh"

#define NO_CHILD (-2)
#define UNIT (1.0 / (double)ONE)

/* The drafted rows of a sequence, in shared memory; legal: what is not has lost its token. */
struct rows {
	int32_t n;
	int32_t *token, *parent, *kind, *q_row;
	int32_t *gone; /* tokens that siblings before the child at hand drew from its row of q */
};

static __device__ __forceinline__ struct rows rows_at(int32_t *memory, int32_t room)
{
	struct rows d = {0};
	d.token = memory;
	d.parent = d.token + room;
	d.kind = d.parent + room;
	d.q_row = d.kind + room;
	d.gone = d.q_row + room;
	return d;
}
#define ROWS_ARRAYS 5

static __device__ __forceinline__ void load_rows(const struct rows &d, const struct nx_draft &draft,
                                                 int32_t seq, int32_t vocab)
{
	for (int32_t i = (int32_t)threadIdx.x; i < d.n; i += THREADS) {
		int64_t at = (int64_t)seq * draft.stride + i;
		int32_t token = draft.token[at], parent = draft.parent[at], q = draft.q_row[at];
		bool legal = token >= 0 && token < vocab && parent >= NX_DRAFT_ROOT && parent < i;
		d.token[i] = legal ? token : NX_TOKEN_NONE;
		d.parent[i] = parent >= NX_DRAFT_ROOT && parent < i ? parent : NX_DRAFT_ROOT;
		d.kind[i] = draft.kind[at];
		d.q_row[i] = q >= 0 && draft.q ? q : NX_Q_CERTAIN;
	}
}

static __device__ __forceinline__ bool is_child(const struct rows &d, int32_t i, int32_t node)
{
	return d.parent[i] == node && d.kind[i] == NX_ROW_CANDIDATE && d.token[i] != NX_TOKEN_NONE;
}

/* By each warp. */
static __device__ __forceinline__ int32_t child_with(const struct rows &d, int32_t node,
                                                     int32_t token)
{
	for (int32_t i0 = node + 1; i0 < d.n; i0 += 32) {
		int32_t i = i0 + (int32_t)lane_of();
		uint32_t hit =
			__ballot_sync(~0u, i < d.n && is_child(d, i, node) && d.token[i] == token);
		if (hit)
			return i0 + __ffs((int)hit) - 1;
	}
	return NO_CHILD;
}

static __device__ __forceinline__ bool has_drawn_child(const struct rows &d, int32_t node)
{
	bool any = false;
	for (int32_t i = node + 1 + (int32_t)lane_of(); i < d.n; i += 32)
		any |= is_child(d, i, node) && d.q_row[i] != NX_Q_CERTAIN;
	return __any_sync(~0u, any);
}

static __device__ __forceinline__ double uniform(const struct nx_sampler &s, int32_t position,
                                                 uint32_t purpose)
{
	return nx_rng_uniform(s.seed, s.request, s.sample, (uint32_t)position, purpose);
}

/* u times the total, below the mass that there is to walk. */
static __device__ __forceinline__ units share_of(double u, units total, units there)
{
	units over = (units)(u * (double)total);
	return over < there ? over : there ? there - 1 : 0;
}

/* ---- p and q at a node with drawn children */

/* Lists what siblings before child i drew from its row of q, PROBE rows too. */
static __device__ __forceinline__ int32_t list_gone(const struct rows &d, int32_t i)
{
	int32_t n = 0;
	__syncthreads();
	for (int32_t j0 = d.parent[i] + 1; j0 < i; j0 += 32) {
		int32_t j = j0 + (int32_t)lane_of();
		bool is = j < i && d.parent[j] == d.parent[i] && d.q_row[j] == d.q_row[i] &&
		          d.token[j] != NX_TOKEN_NONE;
		uint32_t all = __ballot_sync(~0u, is);
		if (is && warp_of() == 0)
			d.gone[n + __popc(all & ((1u << lane_of()) - 1))] = d.token[j];
		n += __popc(all);
	}
	__syncthreads();
	return n;
}

static __device__ __forceinline__ bool is_gone(const struct rows &d, int32_t n, int32_t token)
{
	for (int32_t i = 0; i < n; i++)
		if (d.gone[i] == token)
			return true;
	return false;
}

/* Probability of a token in a row of q less what is gone from it; *total is the row's mass. */
static __device__ __forceinline__ double look_up(struct row &r, const struct rows &d,
                                                 int32_t n_gone, const struct nx_draft &draft,
                                                 const float *q, int32_t token, double *total)
{
	units sum = 0, hit = 0, before;
	*total = 1;
	if (!n_gone && !draft.q_token)
		return token < draft.q_cols ? (double)q[token] : 0;
	for (int32_t c = r.rank * THREADS + (int32_t)threadIdx.x; c < draft.q_cols;
	     c += r.ranks * THREADS) {
		int32_t t = draft.q_token ? draft.q_token[c] : c;
		if (is_gone(d, n_gone, t))
			continue;
		sum += units_of((double)q[c]);
		if (t == token)
			hit = (units)__float_as_uint(q[c]);
	}
	sum = cluster_sum(r, warp_sum(sum), 0, &before);
	hit = cluster_max(r, warp_max(hit));
	if (n_gone)
		*total = (double)sum * UNIT;
	return (double)__uint_as_float((uint32_t)hit) / *total;
}

/* Logits to masses. */
static __device__ __forceinline__ void fill(const struct row &r)
{
	double by = per_logit(r.temperature);
	for (int32_t i = (int32_t)threadIdx.x; i < r.chunks * CHUNK; i += THREADS) {
		float x = r.x[i], p = 0;
		if (r.first + i < r.vocab && kept(r, x, r.first + i))
			p = (float)power(((double)x - (double)r.max) * by);
		r.x[i] = p;
	}
}

static __device__ __forceinline__ void take_from(float *p, float by, float q)
{
	float less = __fmul_rn(by, q);
	*p = *p > less ? __fsub_rn(*p, less) : 0;
}

/* p without the token of a rejected child, and without q where it was drawn; returns what is left. */
static __device__ __forceinline__ units reject(struct row &r, const struct rows &d, int32_t n_gone,
                                               const struct nx_draft &draft, const float *q,
                                               float by, int32_t token)
{
	int32_t n = r.chunks * CHUNK;
	__syncthreads();
	if (threadIdx.x == 0 && token >= r.first && token < r.first + n)
		r.x[token - r.first] = 0;
	__syncthreads();
	if (q && !draft.q_token)
		for (int32_t i = (int32_t)threadIdx.x; i < n && r.first + i < draft.q_cols;
		     i += THREADS)
			if (r.x[i] > 0 && !is_gone(d, n_gone, r.first + i))
				take_from(&r.x[i], by, q[r.first + i]);
	for (int32_t c = (int32_t)threadIdx.x; q && draft.q_token && c < draft.q_cols;
	     c += THREADS) {
		int32_t t = draft.q_token[c], i = t - r.first;
		if (i >= 0 && i < n && t < r.vocab && !is_gone(d, n_gone, t))
			take_from(&r.x[i], by, q[c]);
	}
	r = add_up(r, OF_MASSES, 0);
	return r.total;
}

static __device__ __noinline__ struct row try_children(struct row r, const struct rows d,
                                                       const struct nx_draft &draft,
                                                       const struct nx_sampler &s, int32_t node,
                                                       int32_t position, int32_t *choice,
                                                       int32_t *child)
{
	cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
	units law = r.total, total = law;
	bool dense = false;
	uint32_t number = 0;
	int32_t token;
	for (int32_t i = node + 1; i < d.n; i++) {
		if (!is_child(d, i, node))
			continue;
		double u = uniform(s, position, NX_RNG_SIBLING(NX_RNG_ACCEPT, number++));
		double p = 0, q_x = 1, q_total = 1;
		const float *q = NULL;
		int32_t n_gone = 0;
		token = d.token[i];
		if (dense) {
			int32_t n = r.chunks * CHUNK;
			p = (double)*cluster.map_shared_rank(&r.x[token % n], token / n);
			cluster.sync(); /* read everywhere, before anybody writes masses or the next row */
		} else {
			float x = r.logits[token];
			if (kept(r, x, token))
				p = exp(((double)x - (double)r.max) / (double)r.temperature);
		}
		p /= (double)total * UNIT;
		if (d.q_row[i] != NX_Q_CERTAIN) {
			q = draft.q + (int64_t)d.q_row[i] * draft.q_cols;
			n_gone = list_gone(d, i);
			q_x = look_up(r, d, n_gone, draft, q, token, &q_total);
		}
		if (!(q_x > 0))
			continue;
		if (u * q_x < p) {
			*child = i;
			*choice = token;
			return r;
		}
		if (!dense)
			fill(r);
		dense = true;
		total = reject(r, d, n_gone, draft, q, (float)((double)total * UNIT / q_total),
		               token);
		if (!total) { /* rounding has emptied it */
			load(r, true);
			fill(r);
			r = add_up(r, OF_MASSES, 0);
			total = law;
			break;
		}
	}
	*child = NO_CHILD;
	double u = uniform(s, position, NX_RNG_RESIDUAL);
	r = find(r, dense ? OF_MASSES : OF_MASS, per_logit(r.temperature),
	         share_of(u, total, r.total), &token);
	*choice = token;
	return r;
}

/* ---- the choice */

/* The sampler's choice at a node, and the child that it accepts. *all: mass of the untempered softmax, if wanted. */
static __device__ __forceinline__ int32_t choose(struct row &r, const struct rows &d,
                                                 const struct nx_draft &draft,
                                                 const struct nx_sampler &s, int32_t node,
                                                 int32_t position, bool want_all, units *all,
                                                 int32_t *child)
{
	bool greedy = s.temperature <= 0;
	int32_t token = load(r, !greedy || want_all);
	if (want_all) {
		r = add_up(r, OF_ALL, per_logit(1));
		*all = r.total;
	}
	if (!greedy) {
		r.temperature = s.temperature;
		filter(r, s);
		if (has_drawn_child(d, node)) {
			r = try_children(r, d, draft, s, node, position, &token, child);
			token = token >= 0 && token < r.vocab ? token : 0;
			return token;
		}
		double u = uniform(s, position, NX_RNG_SAMPLE);
		r = find(r, OF_MASS, per_logit(s.temperature), share_of(u, r.total, r.total),
		         &token);
		token = token >= 0 && token < r.vocab ? token : 0; /* no number among the logits */
	}
	*child = child_with(d, node, token);
	return token;
}

/* ---- paths that are given */

/* The row is a CANDIDATE with a token, and so are its ancestors: its depth below the root; else 0. */
static __device__ __forceinline__ int32_t depth_of(const struct rows &d, int32_t row)
{
	int32_t depth = 0;
	for (; row != NX_DRAFT_ROOT; row = d.parent[row], depth++)
		if (d.kind[row] != NX_ROW_CANDIDATE || d.token[row] == NX_TOKEN_NONE)
			return 0;
	return depth;
}

/* The row that is to be accepted with its ancestors; NX_DRAFT_ROOT = none. By each warp. */
static __device__ __forceinline__ int32_t given_leaf(const struct rows &d,
                                                     const struct nx_override &o)
{
	uint32_t best = 0;
	if (o.kind == NX_OVERRIDE_LEAF)
		return o.value >= 0 && o.value < d.n && depth_of(d, o.value) ? o.value
		                                                             : NX_DRAFT_ROOT;
	for (int32_t i = (int32_t)lane_of(); i < d.n; i += 32) {
		int32_t depth = depth_of(d, i);
		if (depth && depth <= o.value)
			best = max(best, (uint32_t)depth << 16 | (uint32_t)(0xffff - i));
	}
	best = __reduce_max_sync(~0u, best);
	return best ? 0xffff - (int32_t)(best & 0xffff) : NX_DRAFT_ROOT;
}

/* The child of a node on the way to a row below it. */
static __device__ __forceinline__ int32_t step_towards(const struct rows &d, int32_t node,
                                                       int32_t leaf)
{
	if (leaf == node)
		return NO_CHILD;
	while (d.parent[leaf] != node && d.parent[leaf] >= 0)
		leaf = d.parent[leaf];
	return leaf;
}

#endif
