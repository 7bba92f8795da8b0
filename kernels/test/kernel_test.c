/* SPDX-License-Identifier: Apache-2.0 */
#include "kernel_test.h"

#include <check.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *isa_name(int isa)
{
	static const char *const names[N_ISAS] = {"ref", "avx2", "avx512", "avx512bf16"};
	return names[isa];
}

bool rig_open(struct rig *r, int isa, int n_threads, bool invariant)
{
	static const struct nx_device_ops *ops;
	memset(r, 0, sizeof(*r));
	if (!ops) {
		char path[1024];
		const char *build = getenv("NEXUS_BUILD");
		setenv("NEXUS_POISON", "1", 1);
		snprintf(path, sizeof(path), "%s/backends/cpu.so", build ? build : "build");
		void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
		ck_assert_msg(so != NULL, "%s", so ? "" : dlerror());
		nx_backend_fn entry = NULL;
		*(void **)&entry = dlsym(so, NX_BACKEND_SYMBOL);
		ck_assert(entry != NULL);
		ops = entry();
		ck_assert_uint_eq(ops->abi, NX_DEVICE_ABI);
		ck_assert_uint_eq(ops->size, sizeof(*ops));
	}
	r->ops = ops;
	struct nx_device_config cfg = {
		.n_threads = n_threads, .invariant = invariant, .isa = isa_name(isa)};
	int rc = ops->open(&r->dev, &cfg, &r->err);
	if (rc == NX_ENOTSUP)
		return false;
	rig_ok(r, rc);
	return true;
}

void rig_close(struct rig *r)
{
	r->ops->close(r->dev);
	r->dev = NULL;
}

void rig_ok(struct rig *r, int rc)
{
	ck_assert_msg(rc == 0, "%d: %s", rc, r->err.msg);
}

float noise(uint64_t a, uint64_t b)
{
	uint64_t x = a * 0x9e3779b97f4a7c15u ^ (b + 0x632be59bd9b4e019u) * 0xd6e8feb86659fd93u;
	x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
	x = (x ^ (x >> 29)) * 0x9e3779b97f4a7c15u;
	return (float)(int32_t)(uint32_t)(x >> 32) * (1.0f / 2147483648.0f);
}

float to_bf16(float x)
{
	uint32_t u;
	memcpy(&u, &x, sizeof(u));
	u = (u + 0x7fffu + ((u >> 16) & 1)) & 0xffff0000u;
	memcpy(&x, &u, sizeof(x));
	return x;
}

struct source {
	int64_t k;
	const float *values;
};

static int source_rows(void *ctx, int64_t row0, int64_t n, float *dst, struct nx_err *err)
{
	const struct source *s = ctx;
	(void)err;
	memcpy(dst, s->values + row0 * s->k, (size_t)(n * s->k) * sizeof(float));
	return 0;
}

float *noise_array(int64_t n, uint64_t salt)
{
	float *x = malloc((size_t)n * sizeof(*x));
	ck_assert(x != NULL);
	for (int64_t i = 0; i < n; i++)
		x[i] = noise(salt, (uint64_t)i);
	return x;
}

struct nx_weight *rig_weight(struct rig *r, int64_t n, int64_t k, enum nx_dtype dtype,
                             uint64_t salt, float **out_values)
{
	struct nx_weight *w = NULL;
	float *values = noise_array(n * k, salt);
	for (int64_t i = 0; i < n * k && dtype == NX_BF16; i++)
		values[i] = to_bf16(values[i]);
	struct source s = {k, values};
	struct nx_weight_desc desc = {
		.n = n, .k = k, .dtype = dtype, .rows = source_rows, .ctx = &s, .lookup = true};
	rig_ok(r, r->ops->weight_create(r->dev, &desc, &w, &r->err));
	ck_assert_uint_ge(r->ops->weight_bytes(w), (uint64_t)(n * k) * nx_dtype_bytes(dtype));
	if (out_values)
		*out_values = values;
	else
		free(values);
	return w;
}
