/* SPDX-License-Identifier: Apache-2.0 */
#include "cuda_test.h"

#include <check.h>
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PIECES 512
static struct {
	void *p;
	size_t bytes;
} pieces[MAX_PIECES];
static int n_pieces;

static const struct nx_device_ops *table(struct nx_err *err)
{
	static const struct nx_device_ops *ops;
	char path[1024];
	const char *build = getenv("NEXUS_BUILD");
	if (ops)
		return ops;
	setenv("NEXUS_CUDA_HOST_MEMORY", "1", 1);
	setenv("NEXUS_POISON", "1", 1);
	snprintf(path, sizeof(path), "%s/backends/cuda.so", build ? build : "build");
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!so) {
		nx_fail(err, NX_EENV, "%s", dlerror());
		return NULL;
	}
	nx_backend_fn entry;
	*(void **)&entry = dlsym(so, NX_BACKEND_SYMBOL);
	ops = entry ? entry() : NULL;
	return ops;
}

void both_need_gpu(void)
{
	struct nx_err err = {0};
	const struct nx_device_ops *ops = table(&err);
	struct nx_device_config cfg = {.dtype = NX_F32};
	void *dev = NULL;
	if (!ops || ops->open(&dev, &cfg, &err)) {
		printf("skipped: %s\n100%%: Checks: 0, Failures: 0, Errors: 0\n", err.msg);
		exit(0);
	}
	ops->close(dev);
}

int both_run(Suite *s)
{
	SRunner *r = srunner_create(s);
	srunner_set_fork_status(r, CK_NOFORK);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

void both_open(struct both *b, enum nx_dtype dtype, bool invariant)
{
	memset(b, 0, sizeof(*b));
	b->dtype = dtype;
	b->gpu.ops = table(&b->gpu.err);
	ck_assert_msg(b->gpu.ops != NULL, "%s", b->gpu.err.msg);
	ck_assert_uint_eq(b->gpu.ops->abi, NX_DEVICE_ABI);
	struct nx_device_config cfg = {.dtype = dtype, .invariant = invariant};
	rig_ok(&b->gpu, b->gpu.ops->open(&b->gpu.dev, &cfg, &b->gpu.err));
	ck_assert(rig_open(&b->cpu, 0, 2, true));
	n_pieces = 0;
}

void both_close(struct both *b)
{
	for (int i = 0; i < n_pieces; i++)
		b->gpu.ops->free(b->gpu.dev, pieces[i].p, pieces[i].bytes);
	n_pieces = 0;
	rig_close(&b->gpu);
	rig_close(&b->cpu);
}

void *both_mem(struct both *b, size_t bytes)
{
	ck_assert_int_lt(n_pieces, MAX_PIECES);
	void *p = b->gpu.ops->alloc(b->gpu.dev, bytes);
	ck_assert_msg(p != NULL, "no %zu bytes", bytes);
	memset(p, 0xff, bytes);
	pieces[n_pieces].p = p;
	pieces[n_pieces++].bytes = bytes;
	return p;
}

struct both_act both_act(struct both *b, int64_t n, uint64_t salt, float scale)
{
	struct both_act a = {.n = n};
	a.gpu = both_mem(b, (size_t)n * nx_dtype_bytes(b->dtype));
	a.cpu = both_mem(b, (size_t)n * sizeof(float));
	for (int64_t i = 0; i < n && salt; i++) {
		float x = noise(salt, (uint64_t)i) * scale;
		if (b->dtype == NX_BF16) {
			x = to_bf16(x);
			memcpy((uint8_t *)a.gpu + i * 2, (const uint8_t *)&x + 2, 2);
		} else {
			((float *)a.gpu)[i] = x;
		}
		a.cpu[i] = x;
	}
	return a;
}

float both_get(const struct both *b, const struct both_act *a, int64_t i)
{
	float x = 0;
	if (b->dtype == NX_F32)
		return ((const float *)a->gpu)[i];
	memcpy((uint8_t *)&x + 2, (const uint8_t *)a->gpu + i * 2, 2);
	return x;
}

void both_compare(const struct both *b, const struct both_act *a, double rel, double abs,
                  const char *what)
{
	double diff = 0, norm = 0, worst = 0;
	int64_t at = -1;
	for (int64_t i = 0; i < a->n; i++) {
		double x = both_get(b, a, i), y = a->cpu[i], d = fabs(x - y);
		if (!isfinite(x)) /* an assertion an element would take longer than the work */
			ck_abort_msg("%s: element %lld is %g, want %g", what, (long long)i, x, y);
		diff += d * d;
		norm += y * y;
		if (d > worst) {
			worst = d;
			at = i;
		}
	}
	ck_assert_msg(
		sqrt(diff) <= rel * sqrt(norm) && worst <= abs,
		"%s: off by %.3g relative (limit %.3g), %.3g at most, at %lld of %lld (limit %.3g)",
		what, norm > 0 ? sqrt(diff / norm) : 0, rel, worst, (long long)at, (long long)a->n,
		abs);
}

struct both_weight both_weight(struct both *b, int64_t n, int64_t k, uint64_t salt)
{
	struct both_weight w;
	w.gpu = rig_weight(&b->gpu, n, k, b->dtype, salt, NULL);
	w.cpu = rig_weight(&b->cpu, n, k, b->dtype, salt, NULL);
	return w;
}

void both_weight_free(struct both *b, struct both_weight *w)
{
	b->gpu.ops->weight_destroy(b->gpu.dev, w->gpu);
	b->cpu.ops->weight_destroy(b->cpu.dev, w->cpu);
}
