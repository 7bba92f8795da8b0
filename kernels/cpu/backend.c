/* SPDX-License-Identifier: Apache-2.0
 *
 * The device table of the CPU: life cycle, memory, streams and events. Work runs when it is enqueued, so
 * streams and events carry nothing. Operations are in ops.c and move.c.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "cpu/cpu.h"
#include "cpu/library.h"
#include "cpu/ops.h"

struct nx_stream {
	int unused;
};

struct nx_event {
	int unused;
};

#define HUGE_PAGE ((size_t)2 << 20)

/* ---- life cycle */

/* The best kernels of this CPU first. */
static const struct {
	const struct cpu_kernels *k;
	const char *name;
} variants[] = {
	{&kernels_avx512bf16, "avx512bf16"},
	{&kernels_avx512, "avx512"},
	{&kernels_avx2, "avx2"},
	{&kernels_ref, "ref"},
};

static bool cpu_has(const struct cpu_kernels *k)
{
	__builtin_cpu_init();
	bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
	            __builtin_cpu_supports("f16c");
	bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
	              __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	              __builtin_cpu_supports("avx512dq");
	if (k == &kernels_avx512bf16)
		return avx512 && __builtin_cpu_supports("avx512bf16");
	if (k == &kernels_avx512)
		return avx512;
	return k == &kernels_ref || avx2;
}

static int choose_kernels(const struct cpu_kernels **out, const char *isa, struct nx_err *err)
{
	bool any = !isa || !*isa || !strcmp(isa, "auto");
	for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++) {
		if (!any && strcmp(isa, variants[i].name))
			continue;
		if (cpu_has(variants[i].k)) {
			*out = variants[i].k;
			return 0;
		}
		if (!any)
			return nx_fail(err, NX_ENOTSUP,
			               "this CPU lacks the instructions of isa '%s'", isa);
	}
	return nx_fail(err, NX_EINVAL,
	               "isa must be auto, ref, avx2, avx512 or avx512bf16, got '%s'", isa);
}

/* Integer products go by what the CPU has beside the instructions of `isa`. */
static void choose_quant(struct cpu_dev *d)
{
	if (!d->k->gemm_f32)
		return;
	d->quant = quant_avx2;
	if (d->k == &kernels_avx2)
		return;
	d->quant.rows = quant_avx512.rows;
	d->quant.panels = quant_avx512.panels;
	d->quant.pack = quant_avx512.pack;
	d->quant.gemm = quant_avx512.gemm;
	if (__builtin_cpu_supports("avx512vnni")) {
		d->quant.rows_int8 = quant_avx512vnni.rows_int8;
		d->quant.pack_int8 = quant_avx512vnni.pack_int8;
		d->quant.gemm_int8 = quant_avx512vnni.gemm_int8;
	}
}

static void dev_close(void *dev)
{
	struct cpu_dev *d = dev;
	if (!d)
		return;
	cpu_free(d, d->scratch, d->scratch_bytes);
	free(d->attn_scratch);
	pool_destroy(d->pool);
	free(d);
}

static int dev_open(void **dev, const struct nx_device_config *cfg, struct nx_err *err)
{
	struct cpu_dev *d = calloc(1, sizeof(*d));
	if (!d)
		return nx_fail(err, NX_ENOMEM, "no memory for a device");
	d->cfg = *cfg;
	d->cfg.isa = NULL; /* the caller's string */
	const char *poison = getenv("NEXUS_POISON");
	d->poison = poison && *poison && strcmp(poison, "0");
	int rc = choose_kernels(&d->k, cfg->isa, err);
	if (!rc)
		choose_quant(d);
	if (!rc)
		rc = pool_create(&d->pool, cfg->n_threads, err);
	if (!rc && d->k->attention) {
		d->attn_scratch = attention_scratch_create(d, pool_size(d->pool));
		if (!d->attn_scratch)
			rc = nx_fail(err, NX_ENOMEM, "no memory for the scratch of %d threads",
			             pool_size(d->pool));
	}
	if (rc) {
		dev_close(d);
		return rc;
	}
	d->library_min_m = library_threshold(d);
	*dev = d;
	return 0;
}

static void cpu_brand(char *dst, size_t bytes)
{
	unsigned r[12] = {0};
	for (unsigned i = 0; i < 3; i++)
		if (!__get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2],
		                 &r[4 * i + 3])) {
			snprintf(dst, bytes, "x86-64 processor");
			return;
		}
	char text[sizeof(r) + 1];
	memcpy(text, r, sizeof(r));
	text[sizeof(r)] = '\0';
	const char *p = text + strspn(text, " ");
	snprintf(dst, bytes, "%s", p);
	for (size_t n = strlen(dst); n > 0 && dst[n - 1] == ' '; n--)
		dst[n - 1] = '\0';
}

static void dev_info(void *dev, struct nx_device_info *out)
{
	const struct cpu_dev *d = dev;
	struct sysinfo si = {0};
	*out = (struct nx_device_info){.n_units = pool_size(d->pool), .act_dtype = NX_F32};
	cpu_brand(out->name, sizeof(out->name));
	snprintf(out->isa, sizeof(out->isa), "%s", d->k->isa);
	library_name(out->blas, sizeof(out->blas));
	if (!d->library_min_m)
		out->blas[0] = '\0';
	if (!sysinfo(&si)) {
		out->mem_bytes = (uint64_t)si.totalram * si.mem_unit;
		out->free_bytes = cpu_free_bytes();
	}
	long llc = sysconf(_SC_LEVEL3_CACHE_SIZE);
	if (llc <= 0)
		llc = sysconf(_SC_LEVEL2_CACHE_SIZE);
	out->llc_bytes = llc > 0 ? (uint64_t)llc : 0;
	out->caps = NX_DEV_HOST_MEMORY;
	out->kv_codecs = ((1u << NX_KV_CODEC_COUNT) - 1) & ~(1u << NX_KV_OWN);
	out->weight_codes = 1u << NX_WEIGHT_CODE_NONE | 1u << NX_WEIGHT_CODE_INT8 |
	                    1u << NX_WEIGHT_CODE_INT4 | 1u << NX_WEIGHT_CODE_E4M3;
}

/* What can be had without pushing others out; sysinfo's free memory leaves the page cache out. */
uint64_t cpu_free_bytes(void)
{
	char line[128];
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/meminfo", "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			break;
	fclose(f);
	return kib << 10;
}

static void dev_counted(void *dev, struct nx_counted *out)
{
	*out = ((struct cpu_dev *)dev)->counted;
}

static void dev_counted_reset(void *dev)
{
	((struct cpu_dev *)dev)->counted = (struct nx_counted){0};
}

/* ---- memory */

void *cpu_alloc(void *dev, size_t bytes)
{
	struct cpu_dev *d = dev;
	size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : 64;
	if (bytes > SIZE_MAX - align)
		return NULL;
	void *p = aligned_alloc(align, (bytes + align - 1) / align * align + (bytes ? 0 : align));
	if (!p)
		return NULL;
	if (align == HUGE_PAGE)
		madvise(p, bytes, MADV_HUGEPAGE); /* refused: the same, slower */
	if (d->poison)
		memset(p, 0xff, bytes); /* NaN in every float type */
	d->allocated += bytes;
	return p;
}

void cpu_free(void *dev, void *p, size_t bytes)
{
	struct cpu_dev *d = dev;
	if (!p)
		return;
	d->allocated -= bytes;
	free(p);
}

void *cpu_scratch(struct cpu_dev *d, size_t bytes)
{
	if (bytes <= d->scratch_bytes)
		return d->scratch;
	cpu_free(d, d->scratch, d->scratch_bytes);
	d->scratch_bytes = 0;
	d->scratch = cpu_alloc(d, bytes + bytes / 2);
	if (d->scratch)
		d->scratch_bytes = bytes + bytes / 2;
	return d->scratch;
}

/* ---- streams, events */

static int stream_create(void *dev, struct nx_stream **out, struct nx_err *err)
{
	(void)dev;
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : nx_fail(err, NX_ENOMEM, "no memory for a stream");
}

static void stream_destroy(void *dev, struct nx_stream *s)
{
	(void)dev;
	free(s);
}

static int stream_sync(void *dev, struct nx_stream *s, struct nx_err *err)
{
	(void)dev;
	(void)s;
	(void)err;
	return 0;
}

static int event_create(void *dev, struct nx_event **out, struct nx_err *err)
{
	(void)dev;
	*out = calloc(1, sizeof(**out));
	return *out ? 0 : nx_fail(err, NX_ENOMEM, "no memory for an event");
}

static void event_destroy(void *dev, struct nx_event *e)
{
	(void)dev;
	free(e);
}

static int event_record(void *dev, struct nx_stream *s, struct nx_event *e, struct nx_err *err)
{
	(void)dev;
	(void)s;
	(void)e;
	(void)err;
	return 0;
}

static int event_wait(void *dev, struct nx_event *e, struct nx_err *err)
{
	(void)dev;
	(void)e;
	(void)err;
	return 0;
}

static int enqueue(void *dev, struct nx_stream *s, nx_enqueue_fn fn, const void *args, size_t bytes,
                   struct nx_err *err)
{
	_Alignas(16) uint8_t copy[NX_ENQUEUE_MAX];
	int rc = nx_enqueue_check(bytes, err);
	(void)dev;
	(void)s;
	if (rc)
		return rc;
	if (bytes)
		memcpy(copy, args, bytes);
	fn(copy);
	return 0;
}

static const struct nx_device_ops ops = {
	.abi = NX_DEVICE_ABI,
	.size = sizeof(struct nx_device_ops),
	.name = "cpu",
	.open = dev_open,
	.close = dev_close,
	.info = dev_info,
	.calibrate = cpu_calibrate,
	.counted = dev_counted,
	.counted_reset = dev_counted_reset,
	.alloc = cpu_alloc,
	.free = cpu_free,
	.host_alloc = cpu_alloc,
	.host_free = cpu_free,
	.stream_create = stream_create,
	.stream_destroy = stream_destroy,
	.stream_sync = stream_sync,
	.event_create = event_create,
	.event_destroy = event_destroy,
	.event_record = event_record,
	.event_wait = event_wait,
	.enqueue = enqueue,
	.copy = op_copy,
	.fill = op_fill,
	.weight_create = cpu_weight_create,
	.weight_destroy = cpu_weight_destroy,
	.weight_bytes = cpu_weight_bytes,
	.weight_forecast = cpu_weight_forecast,
	.weight_prepare = cpu_weight_prepare,
	.embed = op_embed,
	.rmsnorm = op_rmsnorm,
	.linear = op_linear,
	.rope_store = op_rope_store,
	.attention_workspace = op_attention_workspace,
	.attention = op_attention,
	.gather = op_gather,
	.sample = op_sample,
	.commit = op_commit,
	.draft_rows = op_draft_rows,
	.kv_copy = op_kv_copy,
	.kv_swap = op_kv_swap,
	.kv_compact = op_kv_compact,
};

__attribute__((visibility("default"))) const struct nx_device_ops *nx_backend(void);

const struct nx_device_ops *nx_backend(void)
{
	return &ops;
}
