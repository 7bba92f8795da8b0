/* SPDX-License-Identifier: Apache-2.0
 *
 * sample.cu: draws and verdicts. A cluster of blocks holds a row of logits (sample_mass.cuh), so a choice is one kernel
 * without a scratch. The choice at a node of a draft depends on no other node, so with few sequences all nodes are
 * decided on at once, each by a cluster, and the last of a sequence walks down its tree; with many, a cluster a
 * sequence goes from node to node and leaves out what is not reached. With more sequences than clusters run at a time
 * a kernel of its own goes ahead for the greedy ones: they need no room, so few blocks read a row, and all SMs are busy.
 */
#include "cuda/sample_walk.cuh"
#include "nexus_kernels/work.h"

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
