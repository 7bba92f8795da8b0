/* SPDX-License-Identifier: Apache-2.0
 *
 * sample.cu: draws and verdicts. A cluster of blocks holds a row of logits (sample_mass.cuh), so a choice is one kernel
 * without a scratch. The choice at a node of a draft depends on no other node, so with few sequences all nodes are
 * decided on at once, each by a cluster, and the last of a sequence walks down its tree; with many, a cluster a
 * sequence goes from node to node and leaves out what is not reached. With more sequences than clusters run at a time
 * a kernel of its own goes ahead for the greedy ones: they need no room, so few blocks read a row, and all SMs are busy.
 */
#include "cuda/sample_verify.cuh"
#include "nexus_kernels/work.h"

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

/* ---- the host */

static size_t memory_of(int32_t chunks, int32_t room)
{
	return (size_t)chunks * CHUNK * sizeof(float) +
	       (size_t)room * ROWS_ARRAYS * sizeof(int32_t);
}

/* Blocks of a cluster: many for few rows, as few as hold a slice for many. 0: none holds it. */
static int32_t cluster_of(const struct cuda_dev *d, int32_t vocab, int32_t clusters, int32_t room)
{
	int32_t chunks = (vocab + CHUNK - 1) / CHUNK, n = clusters * 16 <= d->n_sms ? 16 : 8;
	size_t most = (size_t)d->max_smem - sizeof(struct block) - 1024;
	while (n > 1 && chunks <= n / 2 * (clusters * n > 2 * d->n_sms ? 32 : 4))
		n /= 2;
	while (n < 16 &&
	       (memory_of((chunks + n - 1) / n, room) > most || (chunks + n - 1) / n > MAX_CHUNKS))
		n *= 2;
	chunks = (chunks + n - 1) / n;
	return chunks > MAX_CHUNKS || memory_of(chunks, room) > most ? 0 : n;
}

/* A grid of clusters. */
struct grid {
	cudaLaunchConfig_t c;
	cudaLaunchAttribute a[2];
};

static void grid_of(struct grid *g, cudaStream_t s, int32_t clusters, int32_t blocks, size_t memory)
{
	cudaLaunchAttribute *a = g->a;
	g->c = cudaLaunchConfig_t();
	a[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
	a[0].val.programmaticStreamSerializationAllowed = 1;
	a[1].id = cudaLaunchAttributeClusterDimension;
	a[1].val.clusterDim.x = (unsigned)blocks;
	a[1].val.clusterDim.y = 1;
	a[1].val.clusterDim.z = 1;
	g->c.gridDim = dim3((unsigned)(clusters * blocks));
	g->c.blockDim = dim3(THREADS);
	g->c.dynamicSmemBytes = memory;
	g->c.stream = s;
	g->c.attrs = a;
	g->c.numAttrs = 2;
}

/* Clusters of sample_kernel that run at a time; asked once for each kind. */
static int32_t at_a_time(const struct cuda_dev *d, int32_t blocks, size_t memory)
{
	static __thread struct {
		int card;
		int32_t blocks, clusters;
		size_t memory;
	} last;
	if (last.clusters && last.card == d->index && last.blocks == blocks &&
	    last.memory == memory)
		return last.clusters;
	struct grid g;
	int n = 0;
	grid_of(&g, NULL, d->n_sms, blocks, memory);
	if (cudaOccupancyMaxActiveClusters(&n, sample_kernel, &g.c) != cudaSuccess || n < 1)
		n = d->n_sms / blocks;
	last.card = d->index;
	last.blocks = blocks;
	last.memory = memory;
	last.clusters = n > 0 ? n : 1;
	return last.clusters;
}

static int launch(const struct cuda_dev *d, cudaStream_t s, struct task *t, int32_t blocks,
                  struct nx_err *err)
{
	int32_t clusters = t->n_emit * t->nodes, chunks = (t->vocab + CHUNK - 1) / CHUNK;
	size_t memory;
	struct grid g;
	t->chunks = (chunks + blocks - 1) / blocks;
	memory = memory_of(t->chunks, t->room);
	if (t->nodes == 1 && clusters * blocks > d->n_sms) {
		int32_t most = at_a_time(d, blocks, memory);
		t->ahead = clusters > most && !t->logprob;
		clusters = clusters < most ? clusters : most;
	}
	if (t->ahead) {
		struct task ahead = *t;
		int32_t pair = t->n_emit <= d->n_sms ? 2 : 1;
		ahead.chunks = (chunks + pair - 1) / pair;
		grid_of(&g, s, t->n_emit, pair, memory_of(0, t->room));
		CU(cudaLaunchKernelEx(&g.c, greedy_kernel, ahead));
	}
	grid_of(&g, s, clusters, blocks, memory);
	CU(cudaLaunchKernelEx(&g.c, sample_kernel, *t));
	return 0;
}

static int check(const struct nx_sample *a, struct nx_err *err)
{
	int rc = nx_check_sample(a, err);
	if (rc)
		return rc;
	if (a->verdict->stride < 1)
		return nx_fail(err, NX_EBUG, "the verdict has room for %d tokens",
		               a->verdict->stride);
	return a->draft ? nx_check_drafted(a->draft, MAX_ROWS, err) : 0;
}

int cu_sample(void *dev, struct nx_stream *s, const struct nx_sample *a, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	struct task t = {};
	if (a->n_emit < 1)
		return 0;
	int rc = check(a, err);
	if (rc)
		return rc;
	t.logits = a->logits;
	t.vocab = a->vocab;
	t.room = 1;
	t.emit = a->emit;
	t.samplers = a->samplers;
	t.len = a->state->len;
	if (a->draft) {
		t.draft = *a->draft;
		t.room += a->draft->stride < a->verdict->stride - 1 ? a->draft->stride
		                                                    : a->verdict->stride - 1;
	}
	t.verdict = *a->verdict;
	t.logprob = a->logprob;
	t.force = a->force;
	t.override = a->override;
	t.scratch = (struct sample_scratch *)d->sample_scratch;
	t.nodes = t.room <= 512 && (int64_t)a->n_emit * t.room <= d->n_sms ? t.room : 1;
	t.n_emit = a->n_emit;
	int32_t blocks = cluster_of(d, a->vocab, a->n_emit * t.nodes, t.room);
	if (!blocks)
		return nx_fail(err, NX_ENOTSUP, "cuda: a vocabulary of %d tokens is too large",
		               a->vocab);
	rc = launch(d, cu_stream(d, s), &t, blocks, err);
	if (rc)
		return rc;
	nx_count_sample(&d->counted, a->n_emit, a->vocab);
	return cu_done(d, cu_stream(d, s), err);
}

int sample_open(struct cuda_dev *d, struct nx_err *err)
{
	int most = d->max_smem - (int)sizeof(struct block) - 1024;
	CU(cudaFuncSetAttribute((const void *)sample_kernel,
	                        cudaFuncAttributeMaxDynamicSharedMemorySize, most));
	CU(cudaFuncSetAttribute((const void *)sample_kernel,
	                        cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
	CU(cudaFuncSetAttribute((const void *)greedy_kernel,
	                        cudaFuncAttributeMaxDynamicSharedMemorySize,
	                        (int)memory_of(0, MAX_ROWS + 1)));
	CU(cudaMalloc(&d->sample_scratch, sizeof(struct sample_scratch)));
	CU(cudaMemset(d->sample_scratch, 0, sizeof(struct sample_scratch)));
	return 0;
}
