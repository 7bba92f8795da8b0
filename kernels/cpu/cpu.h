/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu.h: what the files of the CPU backend share.
 *
 * backend.c checks arguments, counts work and calls one of the kernel tables below; a kernel may rely on
 * legal arguments. Activations are f32. `ref` is the oracle: every entry of its table is plain C.
 */
#ifndef NX_CPU_CPU_H
#define NX_CPU_CPU_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "cpu/pool.h"
#include "nexus/device.h"

#define PANEL 16         /* output features side by side in a packed weight */
#define ATTN_MAX_DIM 256 /* larger heads go through the reference */

/*
 * Packed weight. bf16: [n_panels][k_even / 2][PANEL][2], pairs of neighbouring inputs, which is what
 * vdpbf16ps reads; f32: [n_panels][k_even][PANEL]. Rows past n and the input past an odd k are zero.
 */
struct quant_layout {
	int32_t line_inputs; /* inputs in a line of codes: 4 of 8 bits or 8 of 4 bits for each of 16 features */
	int64_t k_pad;           /* k, rounded up to whole lines */
	int64_t group, n_groups; /* inputs of a group, the last may have fewer */
	int64_t code_bytes;      /* of a panel */
	int64_t param_bytes;     /* of a panel's group */
	int64_t panel_bytes;
};

struct nx_weight {
	int64_t n, k, k_even, n_panels;
	enum nx_dtype dtype;
	bool lookup;
	void *data;
	uint64_t bytes; /* all of it, the library's copy included */
	uint64_t panels_bytes;
	struct library_weight *library; /* NULL until a large product wants it */
	struct nx_weight_quant
		quant; /* code NONE: all of the above; else data is as weight_quant.h has it */
	struct quant_layout ql;
};

struct cpu_dev;

/* A block of rows for products with codes. x is in the order of lines: [k_pad][r] f32, or with int8_acts
 * [lines][words][r], a word being four int8 of one row. */
struct quant_block {
	const void *x;
	int64_t row0;
	int r;
	/* By group and row, [n_groups][r]: */
	const float *sum;   /* of x; int8_acts: of x as rounded */
	const float *scale; /* int8_acts */
	const int32_t
		*start; /* int8_acts: what a sum of codes starts from, to be one of centred codes */
};

struct quant_job {
	const struct nx_linear *a;
	struct quant_block *blocks;
	int n_blocks;
	float *space;         /* panels' numbers, for as many blocks as are worth it; else NULL */
	int64_t space_stride; /* floats of a thread */
};

/* Products with codes, one for each instruction set. */
struct quant_kernels {
	int rows, rows_int8; /* most rows of a block */
	int panels;          /* most panels of a tile of several blocks */
	/* Fills blocks [begin, end), whose members are all set, from the rows of x. */
	void (*pack)(const struct quant_job *job, int64_t begin, int64_t end, int thread);
	void (*pack_int8)(const struct quant_job *job, int64_t begin, int64_t end, int thread);
	/* Panels [begin, end) of all blocks. */
	void (*gemm)(const struct quant_job *job, int64_t begin, int64_t end, int thread);
	void (*gemm_int8)(const struct quant_job *job, int64_t begin, int64_t end, int thread);
};

/* Products read x through rows [row0, row0 + r) packed as [k_even][r]: see linear.c. */
struct gemm_block {
	const void *x; /* [k_even][r] f32, or [k_even / 2][r] bf16 pairs */
	int64_t row0;
	int r;
};

struct gemm_job {
	const struct nx_linear *a;
	const struct gemm_block *blocks;
	int n_blocks;
};

struct cpu_kernels {
	const char *isa;
	/* Products of the own kernel; NULL: ref_linear. Panels [begin, end) of all blocks. */
	void (*gemm_f32)(const struct gemm_job *job, int64_t begin, int64_t end);
	void (*gemm_bf16)(const struct gemm_job *job, int64_t begin, int64_t end);
	int gemm_rows;    /* most rows of a block */
	bool gemm_bf16_x; /* gemm_bf16 wants x as bf16 pairs */
	void (*rmsnorm)(float *y, const float *x, const float *w, int64_t rows, int64_t cols,
	                float eps);
	/* Q rows [begin, end) of one tile of work; NULL: ref_attention. */
	const struct attention_kernels *attention;
	/* Sum of exp((x[i] - max) * scale), in double over fixed lanes. */
	double (*sum_exp)(const float *x, int64_t n, float max, float scale);
	float (*max)(const float *x, int64_t n);
	/* y[i] = exp((x[i] - max) * scale) */
	void (*exp_to)(float *y, const float *x, int64_t n, float max, float scale);
	/* p[i] = max(p[i] - by * q[i], 0) */
	void (*subtract)(float *p, const float *q, float by, int64_t n);
	double (*sum)(const float *x, int64_t n); /* as sum_exp adds */
	float (*read)(const void *p,
	              size_t bytes); /* calibrate: reads all of it, returns a number to keep */
};

extern const struct quant_kernels quant_avx2, quant_avx512, quant_avx512vnni;
extern const struct cpu_kernels kernels_ref, kernels_avx2, kernels_avx512, kernels_avx512bf16;

struct cpu_dev {
	struct nx_device_config cfg;
	const struct cpu_kernels *k;
	struct quant_kernels quant; /* empty: ref_linear */
	struct pool *pool;
	struct nx_counted counted;
	uint64_t allocated;
	bool poison;
	void *scratch; /* grows; packed activations of a product */
	size_t scratch_bytes;
	void *attn_scratch;    /* fixed; one part a thread */
	int32_t library_min_m; /* products of at least so many rows go to the library; 0 = never */
};

/* ---- memory (backend.c) */
uint64_t cpu_free_bytes(void);
void *cpu_alloc(void *dev, size_t bytes);
void cpu_free(void *dev, void *p, size_t bytes);
/* Scratch of at least `bytes`; what it held is lost. NULL: no memory. */
void *cpu_scratch(struct cpu_dev *d, size_t bytes);

/* ---- weights (weight.c) */
/* Huge pages where it pays; freed by free(). */
void *cpu_plain_alloc(size_t bytes);
int cpu_weight_create(void *dev, const struct nx_weight_desc *desc, struct nx_weight **out,
                      struct nx_err *err);
void cpu_weight_destroy(void *dev, struct nx_weight *w);
uint64_t cpu_weight_bytes(const struct nx_weight *w);
uint64_t cpu_weight_forecast(void *dev, const struct nx_weight_desc *desc, int32_t max_rows);
int cpu_weight_prepare(void *dev, struct nx_weight *w, int32_t max_rows, uint64_t *bytes,
                       struct nx_err *err);
/* weight_quant.c: a weight of codes: checks it, and fills in all but data. */
int quant_weight_plan(struct nx_weight *w, const struct nx_weight_desc *desc, struct nx_err *err);
/* Packs data, which is there. */
int quant_weight_fill(struct cpu_dev *d, struct nx_weight *w, const struct nx_weight_desc *desc,
                      struct nx_err *err);
/* dst [k]: a decoded row. */
void quant_row(const struct nx_weight *w, int64_t row, float *dst);
/* to [k] = x as products with int8_acts see it. */
void quant_round_acts(const struct nx_weight *w, const float *x, float *to);
/* Bytes of `rows` rows that a product or a lookup has to read. */
uint64_t weight_read_bytes(const struct nx_weight *w, int64_t rows);
/* Fills dst [k] with row `row` of W, out of the panels. */
void weight_row(const struct nx_weight *w, int64_t row, float *dst);

/* ---- operations: the plain form of each, one a file */
/* space: [2 k] floats for a weight of codes, else NULL. */
void ref_linear(const struct nx_linear *a, float *space);
void ref_rmsnorm(float *y, const float *x, const float *w, int64_t rows, int64_t cols, float eps);
void ref_embed(const struct nx_rows *rows, const struct nx_seq_state *state,
               const struct nx_weight *w, float *x, int64_t begin, int64_t end);
int ref_attention(struct cpu_dev *d, const struct nx_attention *a, struct nx_err *err);

/* ---- the fast forms */
int fast_linear(struct cpu_dev *d, const struct nx_linear *a, struct nx_err *err);
int quant_linear(struct cpu_dev *d, const struct nx_linear *a, struct nx_err *err);
/* Do products of that many rows go to the library? */
bool linear_is_borrowed(const struct cpu_dev *d, int32_t rows);
int fast_attention(struct cpu_dev *d, const struct nx_attention *a, struct nx_err *err);
/* Scratch of all threads; freed by free(). */
void *attention_scratch_create(struct cpu_dev *d, int n_threads);
size_t attention_workspace_bytes(enum nx_attn_kernel kernel, int32_t kv_chunk, int32_t n_heads,
                                 int32_t head_dim, int64_t rows, int64_t keys);

int cpu_calibrate(void *dev, double seconds, struct nx_calibration *out, struct nx_err *err);

/* ---- small things */
static inline float bf16_to_f32(uint16_t h)
{
	uint32_t u = (uint32_t)h << 16;
	float f;
	memcpy(&f, &u, sizeof(f));
	return f;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t f32_to_bf16(float f)
{
	uint32_t u;
	memcpy(&u, &f, sizeof(u));
	if ((u & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)((u >> 16) | 0x40);
	return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

static inline int64_t round_up(int64_t n, int64_t to)
{
	return (n + to - 1) / to * to;
}

#endif
