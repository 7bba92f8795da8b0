/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "cpu/library.h"

#if !defined(NX_HAVE_DNNL)

void library_name(char *dst, size_t bytes)
{
	if (bytes)
		*dst = '\0';
}

int32_t library_threshold(const struct cpu_dev *d)
{
	(void)d;
	return 0;
}

int library_prepare(struct cpu_dev *d, struct nx_weight *w, struct nx_err *err)
{
	(void)d;
	(void)w;
	(void)err;
	return 0;
}

uint64_t library_forecast(struct cpu_dev *d, int64_t n, int64_t k, enum nx_dtype dtype)
{
	(void)d;
	(void)n;
	(void)k;
	(void)dtype;
	return 0;
}

int library_linear(struct cpu_dev *d, struct nx_weight *w, int64_t m, const float *x, float *y,
                   struct nx_err *err)
{
	(void)d;
	(void)w;
	(void)m;
	(void)x;
	(void)y;
	return nx_fail(err, NX_ENOTSUP, "this build has no library for products");
}

void library_weight_destroy(struct library_weight *w)
{
	(void)w;
}

#else

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- 2.6 passes memory descriptors by address, 3.x as handles */

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t md_ref;
static dnnl_status_t md_make(dnnl_memory_desc_t *md, const dnnl_dims_t dims, dnnl_data_type_t type,
                             const dnnl_dims_t strides)
{
	return strides ? dnnl_memory_desc_create_with_strides(md, 2, dims, type, strides)
	               : dnnl_memory_desc_create_with_tag(md, 2, dims, type, dnnl_format_tag_any);
}
static md_ref md_of(const dnnl_memory_desc_t *md)
{
	return *md;
}
static void md_free(dnnl_memory_desc_t *md)
{
	if (*md)
		dnnl_memory_desc_destroy(*md);
}
static dnnl_status_t matmul_pd(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, md_ref src,
                               md_ref weights, md_ref dst, const_dnnl_primitive_attr_t attr)
{
	return dnnl_matmul_primitive_desc_create(pd, engine, src, weights, NULL, dst, attr);
}
#else
typedef const dnnl_memory_desc_t *md_ref;
static dnnl_status_t md_make(dnnl_memory_desc_t *md, const dnnl_dims_t dims, dnnl_data_type_t type,
                             const dnnl_dims_t strides)
{
	return strides ? dnnl_memory_desc_init_by_strides(md, 2, dims, type, strides)
	               : dnnl_memory_desc_init_by_tag(md, 2, dims, type, dnnl_format_tag_any);
}
static md_ref md_of(const dnnl_memory_desc_t *md)
{
	return md;
}
static void md_free(dnnl_memory_desc_t *md)
{
	(void)md;
}
static dnnl_status_t matmul_pd(dnnl_primitive_desc_t *pd, dnnl_engine_t engine, md_ref src,
                               md_ref weights, md_ref dst, const_dnnl_primitive_attr_t attr)
{
	dnnl_matmul_desc_t desc;
	dnnl_status_t st = dnnl_matmul_desc_init(&desc, src, weights, NULL, dst);
	return st ? st : dnnl_primitive_desc_create(pd, &desc, attr, engine, NULL);
}
#endif

/* ---- a weight: one slice of the outputs a thread */

#define KEPT_SIZES 4    /* row counts whose primitives a slice keeps */
#define LAYOUT_ROWS 256 /* row count for which the library chose the layout */
#define SLICE_STEP 64

struct product {
	int64_t m;
	dnnl_primitive_t primitive;
	dnnl_memory_desc_t src, dst;
	size_t scratch_bytes;
};

struct slice {
	int64_t n0, n1;
	dnnl_memory_t weights;
	void *data;
	struct product kept[KEPT_SIZES];
	int next;      /* which of kept goes next */
	void *scratch; /* the library's, for the largest product */
	size_t scratch_bytes;
};

struct library_weight {
	dnnl_engine_t engine;
	dnnl_stream_t *streams; /* [n_slices] */
	dnnl_data_type_t type;
	int n_slices;
	struct slice *slices;
	uint64_t bytes;
};

/* OpenMP's number of threads is a setting of each thread; ours want one, so that none are started. */
static int serial_openmp(int threads)
{
	static int (*get)(void);
	static void (*set)(int);
	if (!set) {
		*(void **)&get = dlsym(RTLD_DEFAULT, "omp_get_max_threads");
		*(void **)&set = dlsym(RTLD_DEFAULT, "omp_set_num_threads");
	}
	if (!set || !get)
		return 0;
	int before = get();
	set(threads);
	return before;
}

static void product_release(struct product *p)
{
	if (p->primitive)
		dnnl_primitive_destroy(p->primitive);
	if (p->m) {
		md_free(&p->src);
		md_free(&p->dst);
	}
	*p = (struct product){0};
}

/* All but the primitive: the library's choice of layouts is known then. */
static dnnl_status_t product_desc(struct product *p, const struct library_weight *l, int64_t m,
                                  int64_t n, int64_t stride, int64_t k, md_ref weights,
                                  dnnl_primitive_desc_t *pd)
{
	dnnl_primitive_attr_t attr = NULL;
	dnnl_dims_t src_dims = {m, k}, dst_dims = {m, n}, src_strides = {k, 1},
		    dst_strides = {stride, 1};
	dnnl_status_t st = md_make(&p->src, src_dims, l->type, src_strides);
	if (!st)
		st = md_make(&p->dst, dst_dims, dnnl_f32, dst_strides);
	if (!st)
		st = dnnl_primitive_attr_create(&attr);
	if (!st) /* the library's own scratchpad belongs to the thread that made the primitive */
		st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
	if (!st)
		st = matmul_pd(pd, l->engine, md_of(&p->src), weights, md_of(&p->dst), attr);
	if (!st)
		p->scratch_bytes = dnnl_memory_desc_get_size(
			dnnl_primitive_desc_query_md(*pd, dnnl_query_scratchpad_md, 0));
	if (attr)
		dnnl_primitive_attr_destroy(attr);
	p->m = m;
	return st;
}

static dnnl_status_t product_init(struct product *p, const struct library_weight *l, int64_t m,
                                  int64_t n, int64_t stride, int64_t k, md_ref weights,
                                  dnnl_primitive_desc_t *pd)
{
	dnnl_status_t st = product_desc(p, l, m, n, stride, k, weights, pd);
	return st ? st : dnnl_primitive_create(&p->primitive, *pd);
}

/* Unpacks rows of W and lets the library reorder them into its layout. */
static dnnl_status_t fill_slice(struct library_weight *l, struct slice *s, dnnl_stream_t stream,
                                const struct nx_weight *w, md_ref layout)
{
	int64_t n = s->n1 - s->n0;
	dnnl_dims_t dims = {w->k, n}, strides = {1, w->k};
	dnnl_memory_desc_t plain_md;
	dnnl_memory_t plain = NULL;
	dnnl_primitive_desc_t pd = NULL;
	dnnl_primitive_t reorder = NULL;
	size_t bytes = dnnl_memory_desc_get_size(layout);
	float *rows = aligned_alloc(64, (size_t)round_up(n * w->k * 4, 64));
	s->data = cpu_plain_alloc(bytes);
	dnnl_status_t st = md_make(&plain_md, dims, dnnl_f32, strides);
	if (!st && (!rows || !s->data))
		st = dnnl_out_of_memory;
	for (int64_t i = 0; !st && i < n; i++)
		weight_row(w, s->n0 + i, rows + i * w->k);
	if (!st)
		st = dnnl_memory_create(&s->weights, layout, l->engine, s->data);
	if (!st)
		st = dnnl_memory_create(&plain, md_of(&plain_md), l->engine, rows);
	if (!st)
		st = dnnl_reorder_primitive_desc_create(&pd, md_of(&plain_md), l->engine, layout,
		                                        l->engine, NULL);
	if (!st)
		st = dnnl_primitive_create(&reorder, pd);
	if (!st) {
		dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, plain}, {DNNL_ARG_TO, s->weights}};
		st = dnnl_primitive_execute(reorder, stream, 2, args);
	}
	if (!st)
		st = dnnl_stream_wait(stream);
	l->bytes += bytes;
	if (reorder)
		dnnl_primitive_destroy(reorder);
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	if (plain)
		dnnl_memory_destroy(plain);
	md_free(&plain_md);
	free(rows);
	return st;
}

static dnnl_status_t slice_init(struct library_weight *l, int i, const struct nx_weight *w)
{
	struct slice *s = &l->slices[i];
	dnnl_dims_t dims = {w->k, s->n1 - s->n0};
	dnnl_memory_desc_t any;
	dnnl_primitive_desc_t pd = NULL;
	struct product p = {0};
	dnnl_status_t st = dnnl_stream_create(&l->streams[i], l->engine, dnnl_stream_default_flags);
	if (st)
		return st;
	st = md_make(&any, dims, l->type, NULL);
	if (!st)
		st = product_init(&p, l, LAYOUT_ROWS, s->n1 - s->n0, w->n, w->k, md_of(&any), &pd);
	if (!st)
		st = fill_slice(l, s, l->streams[i], w,
		                dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0));
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	product_release(&p);
	md_free(&any);
	return st;
}

void library_weight_destroy(struct library_weight *l)
{
	if (!l)
		return;
	for (int i = 0; i < l->n_slices; i++) {
		struct slice *s = &l->slices[i];
		for (int j = 0; j < KEPT_SIZES; j++)
			product_release(&s->kept[j]);
		if (s->weights)
			dnnl_memory_destroy(s->weights);
		if (l->streams[i])
			dnnl_stream_destroy(l->streams[i]);
		free(s->data);
		free(s->scratch);
	}
	if (l->engine)
		dnnl_engine_destroy(l->engine);
	free(l->slices);
	free(l->streams);
	free(l);
}

static bool cpu_multiplies_bf16(void)
{
	__builtin_cpu_init();
	return __builtin_cpu_supports("avx512bf16");
}

/* Without bf16 multipliers the library converts as it goes, and f32 is faster. */
static dnnl_data_type_t library_type(enum nx_dtype dtype)
{
	return dtype == NX_BF16 && cpu_multiplies_bf16() ? dnnl_bf16 : dnnl_f32;
}

/* A slice of the outputs a thread, in whole steps. */
static int slice_count(const struct cpu_dev *d, int64_t n)
{
	int64_t steps = (n + SLICE_STEP - 1) / SLICE_STEP;
	return pool_size(d->pool) < steps ? pool_size(d->pool) : (int)steps;
}

static int64_t slice_begin(int64_t n, int i, int n_slices)
{
	int64_t steps = (n + SLICE_STEP - 1) / SLICE_STEP;
	return i == n_slices ? n : steps * i / n_slices * SLICE_STEP;
}

static uint64_t layout_bytes(const struct library_weight *l, int64_t n, int64_t stride, int64_t k)
{
	dnnl_dims_t dims = {k, n};
	dnnl_memory_desc_t any;
	dnnl_primitive_desc_t pd = NULL;
	struct product p = {0};
	uint64_t bytes = 0;
	if (md_make(&any, dims, l->type, NULL))
		return 0;
	if (!product_desc(&p, l, LAYOUT_ROWS, n, stride, k, md_of(&any), &pd))
		bytes = dnnl_memory_desc_get_size(
			dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0));
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	product_release(&p);
	md_free(&any);
	return bytes;
}

uint64_t library_forecast(struct cpu_dev *d, int64_t n, int64_t k, enum nx_dtype dtype)
{
	struct library_weight l = {.type = library_type(dtype)};
	int n_slices = slice_count(d, n), before = serial_openmp(1);
	uint64_t bytes = 0;
	if (!dnnl_engine_create(&l.engine, dnnl_cpu, 0)) {
		for (int i = 0; i < n_slices; i++)
			bytes += layout_bytes(
				&l, slice_begin(n, i + 1, n_slices) - slice_begin(n, i, n_slices),
				n, k);
		dnnl_engine_destroy(l.engine);
	}
	serial_openmp(before);
	return bytes;
}

static struct library_weight *weight_library(struct cpu_dev *d, const struct nx_weight *w)
{
	struct library_weight *l = calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	int n = slice_count(d, w->n);
	l->type = library_type(w->dtype);
	l->slices = calloc((size_t)n, sizeof(*l->slices));
	l->streams = calloc((size_t)n, sizeof(dnnl_stream_t));
	dnnl_status_t st = l->slices && l->streams ? dnnl_engine_create(&l->engine, dnnl_cpu, 0)
	                                           : dnnl_out_of_memory;
	if (!st)
		l->n_slices = n;
	for (int i = 0; i < n && !st; i++) {
		l->slices[i].n0 = slice_begin(w->n, i, n);
		l->slices[i].n1 = slice_begin(w->n, i + 1, n);
		st = slice_init(l, i, w);
	}
	if (st) {
		library_weight_destroy(l);
		return NULL;
	}
	return l;
}

/* ---- products */

struct library_job {
	struct library_weight *l;
	const struct nx_weight *w;
	int64_t m;
	void *x;               /* in l->type */
	float *y;              /* [m, n] */
	dnnl_status_t *status; /* [n_slices] */
};

static dnnl_status_t find_product(struct library_job *j, struct slice *s, struct product **out)
{
	for (int i = 0; i < KEPT_SIZES; i++)
		if (s->kept[i].m == j->m) {
			*out = &s->kept[i];
			return dnnl_success;
		}
	struct product *p = &s->kept[s->next];
	dnnl_primitive_desc_t pd = NULL;
	md_ref layout;
	s->next = (s->next + 1) % KEPT_SIZES;
	product_release(p);
	*out = p;
	dnnl_status_t st = dnnl_memory_get_memory_desc(s->weights, &layout);
	if (!st)
		st = product_init(p, j->l, j->m, s->n1 - s->n0, j->w->n, j->w->k, layout, &pd);
	if (pd)
		dnnl_primitive_desc_destroy(pd);
	if (!st && p->scratch_bytes > s->scratch_bytes) {
		free(s->scratch);
		s->scratch = aligned_alloc(64, (size_t)round_up((int64_t)p->scratch_bytes, 64));
		s->scratch_bytes = s->scratch ? p->scratch_bytes : 0;
		if (!s->scratch)
			st = dnnl_out_of_memory;
	}
	if (st)
		product_release(p);
	return st;
}

static dnnl_status_t run_slice(struct library_job *j, int i)
{
	struct slice *s = &j->l->slices[i];
	struct product *p;
	dnnl_memory_t src = NULL, dst = NULL, scratch = NULL;
	dnnl_dims_t bytes_dims = {1, (dnnl_dim_t)s->scratch_bytes + 1},
		    bytes_strides = {bytes_dims[1], 1};
	dnnl_memory_desc_t bytes;
	dnnl_status_t st = find_product(j, s, &p);
	if (st)
		return st;
	bytes_dims[1] = bytes_strides[0] = p->scratch_bytes ? (dnnl_dim_t)p->scratch_bytes : 1;
	st = md_make(&bytes, bytes_dims, dnnl_u8, bytes_strides);
	if (st)
		return st;
	st = dnnl_memory_create(&src, md_of(&p->src), j->l->engine, j->x);
	if (!st)
		st = dnnl_memory_create(&dst, md_of(&p->dst), j->l->engine, j->y + s->n0);
	if (!st)
		st = dnnl_memory_create(&scratch, md_of(&bytes), j->l->engine, s->scratch);
	if (!st) {
		dnnl_exec_arg_t args[] = {{DNNL_ARG_SRC, src},
		                          {DNNL_ARG_WEIGHTS, s->weights},
		                          {DNNL_ARG_DST, dst},
		                          {DNNL_ARG_SCRATCHPAD, scratch}};
		st = dnnl_primitive_execute(p->primitive, j->l->streams[i],
		                            p->scratch_bytes ? 4 : 3, args);
	}
	if (!st)
		st = dnnl_stream_wait(j->l->streams[i]);
	if (src)
		dnnl_memory_destroy(src);
	if (dst)
		dnnl_memory_destroy(dst);
	if (scratch)
		dnnl_memory_destroy(scratch);
	md_free(&bytes);
	return st;
}

static void run_slices(void *ctx, int64_t begin, int64_t end, int thread)
{
	struct library_job *j = ctx;
	int before = serial_openmp(1);
	(void)thread;
	for (int64_t i = begin; i < end; i++)
		j->status[i] = run_slice(j, (int)i);
	serial_openmp(before);
}

struct round_job {
	const float *from;
	uint16_t *to;
	int64_t cols;
};

static void round_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
	struct round_job *j = ctx;
	(void)thread;
	for (int64_t i = begin * j->cols; i < end * j->cols; i++)
		j->to[i] = f32_to_bf16(j->from[i]);
}

int library_prepare(struct cpu_dev *d, struct nx_weight *w, struct nx_err *err)
{
	if (w->library)
		return 0;
	int before = serial_openmp(1);
	w->library = weight_library(d, w);
	serial_openmp(before);
	if (!w->library)
		return nx_fail(err, NX_ENOMEM, "oneDNN cannot take a weight of %lld x %lld",
		               (long long)w->n, (long long)w->k);
	w->bytes += w->library->bytes;
	d->allocated += w->library->bytes;
	return 0;
}

int library_linear(struct cpu_dev *d, struct nx_weight *w, int64_t m, const float *x, float *y,
                   struct nx_err *err)
{
	int rc = library_prepare(d, w, err);
	if (rc)
		return rc;
	struct library_weight *l = w->library;
	size_t head = (size_t)round_up(l->n_slices * (int64_t)sizeof(dnnl_status_t), 64);
	bool bf16 = l->type == dnnl_bf16;
	char *scratch = cpu_scratch(d, head + (bf16 ? (size_t)(m * w->k) * 2 : 0));
	if (!scratch)
		return nx_fail(err, NX_ENOMEM, "no memory for %lld rows of activations",
		               (long long)m);
	struct library_job job = {
		l, w, m, (void *)(uintptr_t)x, y, (dnnl_status_t *)(void *)scratch};
	if (bf16) {
		struct round_job r = {x, (uint16_t *)(void *)(scratch + head), w->k};
		pool_for(d->pool, m, round_rows, &r);
		job.x = scratch + head;
	}
	pool_for(d->pool, l->n_slices, run_slices, &job);
	for (int i = 0; i < l->n_slices; i++)
		if (job.status[i])
			return nx_fail(
				err, NX_EENV,
				"a oneDNN product of %lld x %lld x %lld failed with status %d",
				(long long)m, (long long)w->n, (long long)w->k, (int)job.status[i]);
	return 0;
}

void library_name(char *dst, size_t bytes)
{
	const dnnl_version_t *v = dnnl_version();
	snprintf(dst, bytes, "oneDNN %d.%d.%d", v->major, v->minor, v->patch);
}

int32_t library_threshold(const struct cpu_dev *d)
{
	const char *forced = getenv("NEXUS_LIBRARY_ROWS");
	if (!d->k->gemm_f32 || d->cfg.invariant)
		return 0;
	if (forced && *forced)
		return (int32_t)strtol(forced, NULL, 10);
	return cpu_multiplies_bf16() && d->cfg.dtype == NX_BF16 ? 33 : 0;
}

#endif
