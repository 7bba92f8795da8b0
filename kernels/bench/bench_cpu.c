/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_cpu [--quick] [--isa NAME] [--threads N]: times the CPU kernels against the peaks of the same process.
 *
 * The machine may be shared, so a rate alone says little: own kernel and library take
 * turns (A-B-A-B ...) that are shorter than a scheduler's slice where they can be. Rates are those of the best turn,
 * as the calibrated peaks are; "x lib" is the median over turns of library time / own time.
 */
#include "bench/bench.h"

static int noise_rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct nx_weight_desc *w = ctx;
	(void)row0;
	(void)err;
	for (int64_t i = 0; i < n * w->k; i++)
		dst[i] = noise();
	return 0;
}

/* ---- linear */

struct timed {
	void *dev;
	struct nx_linear a;
};

static double time_linear(const struct timed *t, int calls)
{
	struct nx_err err;
	double begin = now();
	for (int i = 0; i < calls; i++)
		must(ops->linear(t->dev, NULL, &t->a, &err), &err);
	return (now() - begin) / calls;
}

static void bench_linear(void *own, void *library, const struct nx_calibration *peak, uint64_t llc)
{
	static const int64_t shapes[][2] = {
		{576, 576}, {1536, 576}, {49152, 576}, {4096, 4096}, {11008, 4096}};
	static const int32_t rows[] = {1, 2, 4, 8, 16, 32, 64, 256};
	printf("\nlinear, bf16 weights, f32 activations; library: oneDNN on the same pool, f32 weights where the "
	       "CPU has no bf16 product\n");
	printf("%-12s %4s %9s %8s %9s %8s %10s %6s\n", "n x k", "M", "us", "GB/s", "of read*",
	       "GFLOP/s", "of own max", "x lib");
	for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
		struct nx_weight_desc desc = {.n = shapes[s][0],
		                              .k = shapes[s][1],
		                              .dtype = NX_BF16,
		                              .rows = noise_rows,
		                              .ctx = &desc};
		struct nx_weight *w[2] = {NULL, NULL};
		struct nx_err err;
		must(ops->weight_create(own, &desc, &w[0], &err), &err);
		must(ops->weight_create(library, &desc, &w[1], &err), &err);
		double bytes = (double)ops->weight_bytes(w[0]);
		size_t nx = 256u * (size_t)desc.k, ny = 256u * (size_t)desc.n;
		float *x = noise_array(own, nx), *y = noise_array(own, ny);
		for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
			int32_t m = rows[i];
			struct timed t[2];
			double each[2][MAX_TURNS], ratio[MAX_TURNS];
			for (int j = 0; j < 2; j++)
				t[j] = (struct timed){j ? library : own,
				                      {.w = w[j], .m = m, .x = x, .y = y}};
			double once = time_linear(&t[0], 1);
			time_linear(&t[1], 1);
			once = time_linear(&t[0], 1);
			int turns = once > 0.05 ? 5
			            : quick     ? 15
			                        : 50,
			    calls = (int)(0.001 / once) + 1;
			for (int turn = 0; turn < turns; turn++) {
				for (int j = 0; j < 2; j++)
					each[j][turn] = time_linear(&t[j], calls);
				ratio[turn] = each[1][turn] / each[0][turn];
			}
			double best = best_of(each[0], turns),
			       flops = 2.0 * m * (double)(desc.n * desc.k);
			double read = bytes > (double)llc ? peak->read_bytes_per_s
			                                  : peak->cache_read_bytes_per_s;
			char name[32];
			snprintf(name, sizeof(name), "%dx%d", (int)desc.n, (int)desc.k);
			printf("%-12s %4d %9.1f %8.2f %8.0f%% %8.1f %9.0f%% %6.2f\n", name, m,
			       best * 1e6, bytes / best * 1e-9, 100 * bytes / best / read,
			       flops / best * 1e-9, 100 * flops / best / peak->bf16_flops_per_s,
			       median(ratio, turns));
		}
		ops->free(own, x, nx * sizeof(float));
		ops->free(own, y, ny * sizeof(float));
		ops->weight_destroy(own, w[0]);
		ops->weight_destroy(library, w[1]);
	}
	printf("* calibrated rate of memory for matrices larger than the last-level cache, of the cache otherwise\n");
}

/* All of a stack of matrices larger than the cache, M = 1, against a read of as many bytes, in turns. */
static void bench_decode(void *dev, uint64_t llc)
{
	struct nx_weight_desc desc = {
		.n = 4096, .k = 4096, .dtype = NX_BF16, .rows = noise_rows, .ctx = &desc};
	struct nx_err err;
	struct nx_calibration c;
	uint64_t want = quick ? llc + llc / 2 : 4 * llc;
	int n = (int)(want / (2 * 4096 * 4096)) + 1, turns = quick ? 4 : 12;
	struct nx_weight **w = calloc((size_t)n, sizeof(*w));
	float *x = noise_array(dev, 4096), *y = noise_array(dev, 4096);
	double rate[MAX_TURNS], read[MAX_TURNS], bytes = 0;
	for (int i = 0; i < n; i++) {
		must(ops->weight_create(dev, &desc, &w[i], &err), &err);
		bytes += (double)ops->weight_bytes(w[i]);
	}
	for (int turn = 0; turn < turns; turn++) {
		double best = 0;
		must(ops->calibrate(dev, 0.4, &c, &err), &err);
		for (int pass = 0; pass < 3; pass++) { /* best of three, as the calibration does */
			double t = now();
			for (int i = 0; i < n; i++) {
				struct nx_linear a = {.w = w[i], .m = 1, .x = x, .y = y};
				must(ops->linear(dev, NULL, &a, &err), &err);
			}
			t = now() - t;
			best = best == 0 || t < best ? t : best;
		}
		rate[turn] = bytes / best;
		read[turn] = c.read_bytes_per_s;
	}
	qsort(rate, (size_t)turns, sizeof(*rate), compare);
	qsort(read, (size_t)turns, sizeof(*read), compare);
	printf("\ndecode, M = 1: %d matrices of 4096 x 4096 bf16, %.0f MB, in turns with a plain read: best %.2f of "
	       "%.2f GB/s = %.2f, median %.2f of %.2f = %.2f (%d turns)\n",
	       n, bytes * 1e-6, rate[turns - 1] * 1e-9, read[turns - 1] * 1e-9,
	       rate[turns - 1] / read[turns - 1], rate[turns / 2] * 1e-9, read[turns / 2] * 1e-9,
	       rate[turns / 2] / read[turns / 2], turns);
	for (int i = 0; i < n; i++)
		ops->weight_destroy(dev, w[i]);
	free(w);
	ops->free(dev, x, 4096 * sizeof(float));
	ops->free(dev, y, 4096 * sizeof(float));
}

/* ---- attention */

static void bench_attention(void *dev, const struct nx_calibration *peak)
{
	static const struct {
		const char *name;
		int32_t heads, kv_heads, dim, len, rows;
	} cases[] = {{"decode 9/3x64", 9, 3, 64, 2048, 1},
	             {"decode 32/32x128", 32, 32, 128, 4096, 1},
	             {"decode 32/8x128", 32, 8, 128, 4096, 1},
	             {"verify 32/8x128", 32, 8, 128, 4096, 8},
	             {"prefill 9/3x64", 9, 3, 64, 0, 512},
	             {"prefill 32/8x128", 32, 8, 128, 0, 512}};
	printf("\nattention, bf16 KV, blocks of 16\n%-18s %5s %5s %10s %8s %9s %10s %8s\n", "",
	       "rows", "keys", "tiled us", "KV GB/s", "GFLOP/s", "mater. us", "mater./tiled");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int32_t heads = cases[i].heads, kvh = cases[i].kv_heads, dim = cases[i].dim,
			n = cases[i].rows;
		int32_t keys = cases[i].len + n, blocks = (keys + 15) / 16, zero = 0;
		size_t part = (size_t)kvh * (size_t)dim * 2, pool = (size_t)blocks * 16 * 2 * part;
		uint16_t *kv_data = ops->alloc(dev, pool);
		int32_t *table = malloc(sizeof(int32_t) * (size_t)blocks),
			*row = calloc((size_t)n * 5, 4);
		float *q = noise_array(dev, (size_t)n * (size_t)heads * (size_t)dim);
		float *out = noise_array(dev, (size_t)n * (size_t)heads * (size_t)dim);
		if (!kv_data || !table || !row)
			exit(EXIT_FAILURE);
		for (size_t j = 0; j < pool / 2; j++) {
			float f = noise();
			memcpy(&kv_data[j], (const char *)&f + 2, 2);
		}
		for (int32_t b = 0; b < blocks; b++)
			table[b] = (blocks - 1 - b) * 16;
		for (int32_t r = 0; r < n; r++)
			row[n + r] = r; /* the other fields are 0: sequence 0, COMMIT */
		struct nx_segment seg = {0, 0, n, keys};
		struct nx_rows rows = {.n_rows = n,
		                       .n_segments = 1,
		                       .max_keys = keys,
		                       .seq = row,
		                       .token = row,
		                       .slot_off = row + n,
		                       .pos_off = row + n,
		                       .kind = row,
		                       .scratch = row,
		                       .n_anc = row,
		                       .segments = &seg};
		int32_t len = cases[i].len;
		struct nx_seq_state st = {1, &len, &zero};
		struct nx_kv kv = {.codec = NX_KV_BF16,
		                   .n_layers = 1,
		                   .n_kv_heads = kvh,
		                   .head_dim = dim,
		                   .block_size = 16,
		                   .table_stride = blocks,
		                   .table = table,
		                   .base = (uint8_t *)kv_data,
		                   .layer_bytes = (int64_t)pool,
		                   .row_bytes = (int64_t)part * 2,
		                   .v_offset = (int64_t)part};
		double each[2][MAX_TURNS], ratio[MAX_TURNS];
		int turns = quick ? 7 : 25;
		struct nx_err err;
		for (int turn = -1; turn < turns; turn++) {
			for (int kernel = 0; kernel < 2; kernel++) {
				enum nx_attn_kernel k =
					kernel ? NX_ATTN_MATERIALISED : NX_ATTN_TILED;
				size_t bytes =
					ops->attention_workspace(dev, k, 256, heads, dim, n, keys);
				struct nx_attention a = {.rows = &rows,
				                         .state = &st,
				                         .kv = &kv,
				                         .n_heads = heads,
				                         .scale = 0.1f,
				                         .q = q,
				                         .q_stride = (int64_t)heads * dim,
				                         .out = out,
				                         .kernel = k,
				                         .kv_chunk = 256,
				                         .workspace = ops->alloc(dev, bytes),
				                         .workspace_bytes = bytes};
				must(ops->attention(dev, NULL, &a, &err),
				     &err); /* touches the workspace */
				double t = now();
				must(ops->attention(dev, NULL, &a, &err), &err);
				t = now() - t;
				if (turn >= 0)
					each[kernel][turn] = t;
				ops->free(dev, a.workspace, bytes);
			}
			if (turn >= 0)
				ratio[turn] = each[1][turn] / each[0][turn];
		}
		double t = best_of(each[0], turns), pairs = (double)n * (len + (n + 1) / 2.0);
		printf("%-18s %5d %5d %10.1f %8.2f %9.1f %10.1f %8.2f\n", cases[i].name, n, keys,
		       t * 1e6, (double)keys * 2 * (double)part / t * 1e-9,
		       4 * pairs * heads * dim / t * 1e-9, best_of(each[1], turns) * 1e6,
		       median(ratio, turns));
		ops->free(dev, kv_data, pool);
		ops->free(dev, q, (size_t)n * (size_t)heads * (size_t)dim * 4);
		ops->free(dev, out, (size_t)n * (size_t)heads * (size_t)dim * 4);
		free(table);
		free(row);
	}
	printf("cache read %.1f GB/s\n", peak->cache_read_bytes_per_s * 1e-9);
}

int main(int argc, char **argv)
{
	const char *isa;
	int threads, rc = bench_begin(argc, argv, &isa, &threads);
	if (rc)
		return rc;
	void *own = open_device(isa, threads, "0"), *library = open_device(isa, threads, "1");
	struct nx_device_info info;
	struct nx_calibration peak;
	struct nx_err err;
	ops->info(library, &info);
	must(ops->calibrate(own, quick ? 1 : 5, &peak, &err), &err);
	printf("%s, %s, %d threads, library %s\n", info.name, info.isa, info.n_units, info.blas);
	printf("read %.1f GB/s (%.0f MB), copy %.1f GB/s, cache read %.1f GB/s (%.0f MB)\n",
	       peak.read_bytes_per_s * 1e-9, (double)peak.mem_set_bytes * 1e-6,
	       peak.copy_bytes_per_s * 1e-9, peak.cache_read_bytes_per_s * 1e-9,
	       (double)peak.cache_set_bytes * 1e-6);
	printf("own f32 %.1f GFLOP/s, own bf16 %.1f, library %.1f\n", peak.f32_flops_per_s * 1e-9,
	       peak.bf16_flops_per_s * 1e-9, peak.blas_flops_per_s * 1e-9);
	bench_decode(own, info.llc_bytes);
	bench_linear(own, library, &peak, info.llc_bytes);
	bench_attention(own, &peak);
	ops->close(own);
	ops->close(library);
	return 0;
}
