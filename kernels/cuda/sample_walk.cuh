/* SPDX-License-Identifier: Apache-2.0
 *
 * sample_walk.cuh: the kernels: which sequences and nodes a cluster decides on, and the way down a tree.
 */
#ifndef NX_CUDA_SAMPLE_WALK_CUH
#define NX_CUDA_SAMPLE_WALK_CUH

#include "cuda/sample_verify.cuh"

#define MAX_NODES 1024 /* that are decided on at once */
#define MAX_ROWS 2048  /* drafted rows of a sequence */

/* What is known of a node. */
struct choice {
	double log_all;
	float max;
	int32_t token, child;
};

struct sample_scratch {
	struct choice choice[MAX_NODES];
	int32_t done[MAX_NODES]; /* clusters of a sequence that have ended; 0 between launches */
};

/* struct nx_sample by value. */
struct task {
	const float *logits;
	int32_t vocab, chunks; /* of a block */
	int32_t nodes;         /* clusters a sequence; 1: goes from node to node */
	int32_t n_emit;
	bool ahead;   /* greedy_kernel is for what is greedy */
	int32_t room; /* drafted rows at most, and one */
	const struct nx_emit *emit;
	const struct nx_sampler *samplers;
	const int32_t *len;
	struct nx_draft draft;
	struct nx_verdict verdict;
	float *logprob;
	const int32_t *force;
	const struct nx_override *override;
	struct sample_scratch *scratch;
};

/* What every node of a sequence shares. */
struct sequence {
	struct nx_emit e;
	struct nx_sampler s;
	int64_t out;
	bool given;
	int32_t leaf;
};

static __device__ __forceinline__ void look_ahead(const struct task &t, const struct rows &d,
                                                  struct sequence &q)
{
	struct nx_override o = t.override[q.e.seq];
	q.given = o.kind != NX_OVERRIDE_OWN;
	if (q.given)
		q.leaf = given_leaf(d, o);
}

/* Force and override, at a node where the sampler has chosen. By a warp. */
static __device__ __forceinline__ void follow(const struct task &t, const struct rows &d,
                                              const struct sequence &q, int32_t node, int32_t depth,
                                              int32_t *token, int32_t *child)
{
	if (q.given) {
		*child = step_towards(d, node, q.leaf);
		if (*child != NO_CHILD)
			*token = d.token[*child];
	} else if (t.force && t.force[q.out + depth] >= 0) {
		*child = child_with(d, node, t.force[q.out + depth]);
	}
}

static __device__ __forceinline__ const float *logits_of(const struct task &t,
                                                         const struct sequence &q, int32_t node)
{
	return t.logits + (int64_t)(q.e.logit_row + 1 + node) * t.vocab;
}

static __device__ __forceinline__ float logprob_of(const struct task &t, const struct sequence &q,
                                                   int32_t node, int32_t token, float max,
                                                   double log_all)
{
	return (float)((double)logits_of(t, q, node)[token] - (double)max - log_all);
}

static __device__ __forceinline__ bool goes_ahead(const struct task &t, const struct nx_sampler &s)
{
	return t.ahead && s.temperature <= 0 && !t.logprob;
}

/* From node to node. GREEDY: it goes ahead. */
template <bool GREEDY>
static __device__ __forceinline__ void walk(const struct task &t, struct row &r,
                                            const struct rows &d, const struct sequence &q,
                                            int32_t position)
{
	int32_t node = NX_DRAFT_ROOT, child;
	bool first = r.rank == 0 && threadIdx.x == 0;
	for (int32_t depth = 0;; depth++, node = child) {
		units all = 0;
		r.logits = logits_of(t, q, node);
		int32_t token;
		if (GREEDY) {
			token = load(r, false);
			child = child_with(d, node, token);
		} else {
			token = choose(r, d, t.draft, q.s, node, position + depth,
			               t.logprob != NULL, &all, &child);
		}
		follow(t, d, q, node, depth, &token, &child);
		if (first) {
			t.verdict.token[q.out + depth] = token;
			if (!GREEDY && t.logprob)
				t.logprob[q.out + depth] = logprob_of(t, q, node, token, r.max,
				                                      log((double)all * UNIT));
			if (child == NO_CHILD)
				t.verdict.n_accepted[q.e.seq] = depth;
			else
				t.verdict.path[q.out + depth] = child;
		}
		if (child == NO_CHILD)
			break;
	}
}

/* Down the tree when all its nodes have been decided on; by one block. */
static __device__ __forceinline__ void walk_choices(const struct task &t, struct block &b,
                                                    const struct rows &d, const struct sequence &q,
                                                    const struct choice *choice)
{
	struct choice *c = (struct choice *)(void *)b.bins;
	int32_t *at = d.gone, depth = 0, node = NX_DRAFT_ROOT, child;
	static_assert(sizeof(b.bins) / sizeof(*c) >= 512, "room for a sequence's choices");
	for (int32_t i = (int32_t)threadIdx.x; i <= d.n; i += THREADS) {
		c[i].log_all = __ldcg(&choice[i].log_all);
		c[i].max = __ldcg(&choice[i].max);
		c[i].token = __ldcg(&choice[i].token);
		c[i].child = __ldcg(&choice[i].child);
	}
	__syncthreads();
	if (warp_of() > 0)
		return;
	for (;; depth++, node = child) {
		int32_t token = c[1 + node].token;
		child = c[1 + node].child;
		follow(t, d, q, node, depth, &token, &child);
		__syncwarp();
		if (lane_of() == 0) {
			at[depth] = node;
			c[1 + node].token = token;
			t.verdict.token[q.out + depth] = token;
			if (child != NO_CHILD)
				t.verdict.path[q.out + depth] = child;
		}
		if (child == NO_CHILD)
			break;
	}
	if (lane_of() == 0)
		t.verdict.n_accepted[q.e.seq] = depth;
	__syncwarp();
	for (int32_t i = (int32_t)lane_of(); t.logprob && i <= depth; i += 32) {
		const struct choice *n = &c[1 + at[i]];
		t.logprob[q.out + i] = logprob_of(t, q, at[i], n->token, n->max, n->log_all);
	}
}

/* One node; the last of a sequence's clusters walks. */
static __device__ __forceinline__ void decide(const struct task &t, struct row &r,
                                              const struct rows &d, const struct sequence &q,
                                              int32_t position, int32_t emit, int32_t node)
{
	struct choice *choice = t.scratch->choice + emit * t.nodes;
	int32_t depth = node < 0 ? 0 : node < d.n ? depth_of(d, node) : 0, child, token;
	if (node < 0 || depth) {
		units all = 0;
		r.logits = logits_of(t, q, node);
		token = choose(r, d, t.draft, q.s, node, position + depth, t.logprob != NULL, &all,
		               &child);
		if (r.rank == 0 && threadIdx.x == 0)
			choice[1 + node] = (struct choice){all ? log((double)all * UNIT) : 0, r.max,
			                                   token, child};
	}
	if (r.rank > 0)
		return;
	if (threadIdx.x == 0) {
		__threadfence();
		r.b->last = atomicAdd(&t.scratch->done[emit], 1) == t.nodes - 1;
		if (r.b->last)
			t.scratch->done[emit] = 0;
		__threadfence();
	}
	__syncthreads();
	if (r.b->last)
		walk_choices(t, *r.b, d, q, choice);
}

/* Before pdl_wait(), by all threads; then meet(). Gives the cluster's number. */
static __device__ __forceinline__ int32_t begin(const struct task &t, struct block *b,
                                                struct row &r)
{
	cooperative_groups::cluster_group cluster = cooperative_groups::this_cluster();
	/* Where nobody tells, all blocks shall hear the same: they must not part ways. */
	if (threadIdx.x < 2)
		b->found[threadIdx.x] = (struct found){0, 0, 0};
	cluster.barrier_arrive();
	pdl_trigger();
	r.b = b;
	r.vocab = t.vocab;
	r.chunks = t.chunks;
	r.rank = (int32_t)cluster.block_rank();
	r.ranks = (int32_t)cluster.num_blocks();
	r.first = r.rank * t.chunks * CHUNK;
	return (int32_t)blockIdx.x / r.ranks;
}

/* All blocks of the cluster are there and may be written to, and so may memory. */
static __device__ __forceinline__ void meet(void)
{
	cooperative_groups::this_cluster().barrier_wait();
	pdl_wait();
}

/* Gives the position of the first token. */
static __device__ __forceinline__ int32_t fetch(const struct task &t, int32_t emit, struct rows &d,
                                                struct sequence &q)
{
	q.e = t.emit[emit];
	q.s = t.samplers[q.e.seq];
	q.out = (int64_t)q.e.seq * t.verdict.stride;
	q.given = false;
	q.leaf = NX_DRAFT_ROOT;
	d.n = min(q.e.n_draft, t.room - 1);
	__syncthreads(); /* of the last sequence no more is wanted */
	if (d.n > 0)
		load_rows(d, t.draft, q.e.seq, t.vocab);
	__syncthreads();
	if (t.override)
		look_ahead(t, d, q);
	return t.len[q.e.src_seq] + q.e.pos_off;
}

__global__ void __launch_bounds__(THREADS, 2) sample_kernel(const __grid_constant__ struct task t)
{
	__shared__ struct block b;
	extern __shared__ float4 memory[];
	struct row r = {};
	struct sequence q = {};
	int32_t id = begin(t, &b, r), clusters = (int32_t)gridDim.x / r.ranks;
	r.x = (float *)(void *)memory;
	struct rows d = rows_at((int32_t *)(void *)(r.x + t.chunks * CHUNK), t.room);
	meet();
	if (t.nodes > 1) {
		int32_t position = fetch(t, id / t.nodes, d, q);
		decide(t, r, d, q, position, id / t.nodes, id % t.nodes - 1);
		return;
	}
	/* What has gone ahead is left out, without a look at each. */
	for (int32_t first = id; first < t.n_emit; first += 32 * clusters) {
		int32_t i = first + (int32_t)lane_of() * clusters;
		bool mine = i < t.n_emit && (!t.ahead || !goes_ahead(t, t.samplers[t.emit[i].seq]));
		uint32_t left = __ballot_sync(~0u, mine);
		for (; left; left &= left - 1) {
			int32_t position =
				fetch(t, first + (__ffs((int)left) - 1) * clusters, d, q);
			walk<false>(t, r, d, q, position);
		}
	}
}

/* A cluster a sequence. */
__global__ void __launch_bounds__(THREADS, 2) greedy_kernel(const __grid_constant__ struct task t)
{
	__shared__ struct block b;
	extern __shared__ float4 memory[];
	struct row r = {};
	struct sequence q = {};
	int32_t id = begin(t, &b, r);
	struct rows d = rows_at((int32_t *)(void *)memory, t.room);
	meet();
	if (!goes_ahead(t, t.samplers[t.emit[id].seq]))
		return;
	int32_t position = fetch(t, id, d, q);
	walk<true>(t, r, d, q, position);
}

#endif
