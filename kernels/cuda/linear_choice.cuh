/* SPDX-License-Identifier: Apache-2.0
 *
 * linear_choice.cuh: by which of the library's proposals a product is made.
 *
 * The first is not always the fastest, so large products are timed, once for all numbers of rows that are near each
 * other, on the operands of the first such product. A choice holds for the life of the process, for all devices that
 * are opened on a card, so that a product gives the same bits each time. What is made first inside a capture is not
 * timed, then or later.
 */
#ifndef NX_CUDA_LINEAR_CHOICE_CUH
#define NX_CUDA_LINEAR_CHOICE_CUH

#include <pthread.h>

#include "cuda/linear_lt.cuh"

#define PROPOSALS 8
#define TIMINGS 4 /* of each; the first warms up */
#define MAX_CHOICES 2048
#define BETTER 0.98f /* of the first one's time, or it stays the first */
#define LARGE 2e10   /* operations; smaller ones are over before what starts them is */

struct operands {
	cudaStream_t s;
	const void *w, *x;
	void *y;
};

struct choice {
	int card;
	int64_t m, n, k; /* m: the most rows that it is for */
	cudaDataType_t in, out;
	bool add;
	cublasLtMatmulAlgo_t algo;
};

static struct choice choices[MAX_CHOICES];
static int n_choices;
static pthread_mutex_t choices_lock = PTHREAD_MUTEX_INITIALIZER;

/* Four sizes between a power of two and the next. */
static int64_t rows_like(int64_t m)
{
	int64_t step = 4;
	while (8 * step < m)
		step *= 2;
	return (m + step - 1) / step * step;
}

static const struct choice *choice_of(const struct choice *c)
{
	for (int i = 0; i < n_choices; i++) {
		const struct choice *o = &choices[i];
		if (o->card == c->card && o->m == c->m && o->n == c->n && o->k == c->k &&
		    o->in == c->in && o->out == c->out && o->add == c->add)
			return o;
	}
	return NULL;
}

/* Rows of x and y may begin anywhere: at a row of an array, at least. */
static int propose(const struct cublas_lt *lt, const struct plan *p, cudaDataType_t in,
                   cublasLtMatmulHeuristicResult_t *found, int most)
{
	size_t x_row = (size_t)p->k * (in == CUDA_R_32F ? 4 : 2),
	       y_row = (size_t)p->y_cols * (p->out == CUDA_R_32F ? 4 : 2), bytes = WORKSPACE_BYTES;
	uint32_t x_align = x_row % 16 ? 2 : 16, y_align = y_row % 16 ? 2 : 16;
	cublasLtMatmulPreference_t want = NULL;
	int n = 0, usable = 0;
	bool ok = !lt->cublasLtMatmulPreferenceCreate_(&want) &&
	          !lt->cublasLtMatmulPreferenceSetAttribute_(
			  want, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes)) &&
	          !lt->cublasLtMatmulPreferenceSetAttribute_(
			  want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &x_align,
			  sizeof(x_align)) &&
	          !lt->cublasLtMatmulPreferenceSetAttribute_(
			  want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &y_align,
			  sizeof(y_align)) &&
	          !lt->cublasLtMatmulPreferenceSetAttribute_(
			  want, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &y_align,
			  sizeof(y_align)) &&
	          !lt->cublasLtMatmulAlgoGetHeuristic_(lt->handle, p->desc, p->w, p->x, p->y, p->y,
	                                               want, most, found, &n);
	if (want)
		lt->cublasLtMatmulPreferenceDestroy_(want);
	for (int i = 0; ok && i < n; i++)
		if (found[i].state == CUBLAS_STATUS_SUCCESS)
			found[usable++] = found[i];
	return usable;
}

/* Milliseconds, or -1. What is added to stays as it is: the sums go to the gates' memory. */
static float time_of(const struct cublas_lt *lt, const struct plan *p,
                     const cublasLtMatmulAlgo_t *algo, const struct operands *o, cudaEvent_t *e)
{
	const float one = 1, beta = p->add ? 1 : 0;
	float ms = -1;
	if (cudaEventRecord(e[0], o->s) != cudaSuccess ||
	    lt->cublasLtMatmul_(lt->handle, p->desc, &one, o->w, p->w, o->x, p->x, &beta, o->y,
	                        p->y, p->add ? lt->gates : o->y, p->y, algo, lt->workspace,
	                        WORKSPACE_BYTES, o->s) != CUBLAS_STATUS_SUCCESS ||
	    cudaEventRecord(e[1], o->s) != cudaSuccess ||
	    cudaEventSynchronize(e[1]) != cudaSuccess ||
	    cudaEventElapsedTime(&ms, e[0], e[1]) != cudaSuccess)
		return -1;
	return ms;
}

/* In turns, so that a card that slows down does so for all. */
static int fastest(const struct cublas_lt *lt, const struct plan *p, const struct operands *o,
                   const cublasLtMatmulHeuristicResult_t *found, int n)
{
	cudaEvent_t e[2] = {NULL, NULL};
	float best[PROPOSALS];
	int at = 0;
	if (cudaEventCreate(&e[0]) == cudaSuccess && cudaEventCreate(&e[1]) == cudaSuccess) {
		for (int turn = 0; turn < TIMINGS; turn++)
			for (int i = 0; i < n; i++) {
				float ms = turn < 2 || best[i] > 0
				                   ? time_of(lt, p, &found[i].algo, o, e)
				                   : -1;
				best[i] = turn > 1 && ms > best[i] ? best[i] : ms;
			}
		for (int i = 1; i < n; i++)
			if (best[i] > 0 && (best[at] < 0 || best[i] < best[at]))
				at = i;
		at = best[0] > 0 && best[at] > BETTER * best[0] ? 0 : at;
	}
	for (int i = 0; i < 2; i++)
		if (e[i])
			cudaEventDestroy(e[i]);
	return at;
}

static bool can_time(const struct cuda_dev *d, const struct plan *p)
{
	size_t y_bytes = (size_t)(p->m * p->y_cols) * (p->out == CUDA_R_32F ? 4 : 2);
	return !d->capturing && !d->host_memory && n_choices < MAX_CHOICES &&
	       2.0 * (double)p->m * (double)p->n * (double)p->k >= LARGE &&
	       (!p->add || y_bytes <= GATES_BYTES);
}

/* False: the library has nothing. */
static bool choose(const struct cuda_dev *d, struct plan *p, cudaDataType_t in,
                   const struct operands *o)
{
	const struct cublas_lt *lt = d->lt;
	cublasLtMatmulHeuristicResult_t found[PROPOSALS], checked;
	struct choice c = {d->index, rows_like(p->m), p->n, p->k, in, p->out, p->add};
	(void)pthread_mutex_lock(&choices_lock);
	const struct choice *known = choice_of(&c);
	int n = 0, at = 0;
	if (known &&
	    !lt->cublasLtMatmulAlgoCheck_(lt->handle, p->desc, p->w, p->x, p->y, p->y, &known->algo,
	                                  &checked) &&
	    checked.workspaceSize <= WORKSPACE_BYTES) {
		p->algo = known->algo;
		n = 1;
	} else {
		bool time = !known && can_time(d, p);
		n = propose(lt, p, in, found, time ? PROPOSALS : 1);
		if (n > 1)
			at = fastest(lt, p, o, found, n);
		if (n)
			p->algo = found[at].algo;
		if (n && !known && n_choices < MAX_CHOICES) {
			c.algo = p->algo;
			choices[n_choices++] = c;
		}
	}
	(void)pthread_mutex_unlock(&choices_lock);
	return n > 0;
}

#endif
