/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu_quant.cu: products by quantized weights beside ours and the peers' by the same weights in bf16. The floor is
 * that of the codes, in the others' rows, too: their x is what the codes gain.
 */
#include <stdlib.h>

#include "bench/bench_gpu.cuh"
#include "nexus_kernels/weight_quant.h"

static const struct {
	struct nx_weight_quant f;
	const char *name;
} formats[] = {
	{{NX_WEIGHT_CODE_INT4, 128, false, false}, " int4/128"},
	{{NX_WEIGHT_CODE_INT4, 32, true, false}, " int4z/32"},
	{{NX_WEIGHT_CODE_INT8, 0, false, false}, " int8"},
	{{NX_WEIGHT_CODE_E4M3, 0, false, false}, " e4m3"},
};

static const struct shape {
	int64_t n, k;
	enum nx_epilogue epilogue;
	bool y_f32;
	const char *kind;
} shapes[] = {
	{12288, 4096, NX_EPI_STORE, false, ""},         {4096, 4096, NX_EPI_STORE, false, ""},
	{22016, 4096, NX_EPI_SWIGLU, false, " swiglu"}, {4096, 11008, NX_EPI_STORE, false, ""},
	{32000, 4096, NX_EPI_STORE, true, " f32"},
};

typedef std::vector<struct nx_weight *> matrices;

static int make(struct bench *b, const struct shape *s, int n, const struct nx_weight_quant &f,
                matrices *m, struct nx_err *err)
{
	int rc = 0;
	for (int i = 0; i < n && !rc; i++) {
		struct nx_weight *w = NULL;
		rc = random_codes(b, s->n, s->k, (uint64_t)(s - shapes) * 1000u + (uint64_t)i, 2048,
		                  f, &w, err);
		if (!rc)
			m->push_back(w);
	}
	return rc;
}

static void unmake(struct bench *b, matrices *m)
{
	for (auto w : *m)
		b->ops->weight_destroy(b->dev, w);
	m->clear();
}

struct operands {
	matrices own;
	const block *x, *y;
	int32_t rows;
	int rc;
	struct nx_err err;
};

static struct contender contender_of(struct bench *b, const struct shape *s, struct operands *o,
                                     const char *by)
{
	struct contender c = {};
	c.by = by;
	c.result = o->y->p;
	c.n_result = (size_t)(o->rows * (s->epilogue == NX_EPI_SWIGLU ? s->n / 2 : s->n));
	c.result_f32 = s->y_f32;
	c.call = [b, s, o](int i, struct nx_err *err) {
		if (o->rc) {
			*err = o->err;
			return o->rc;
		}
		struct nx_linear a = {};
		a.w = o->own[(size_t)i % o->own.size()];
		a.m = o->rows;
		a.x = o->x->p;
		a.y = o->y->p;
		a.epilogue = s->epilogue;
		a.y_f32 = s->y_f32;
		return b->ops->linear(b->dev, b->stream, &a, err);
	};
	return c;
}

static double y_bytes(const struct shape *s, double rows)
{
	return rows * (double)s->n * (s->y_f32 ? 4 : s->epilogue == NX_EPI_SWIGLU ? 1 : 2);
}

static void one_shape(struct bench *b, const struct shape *s)
{
	enum { MOST = 2048 };
	double plain_bytes = 2.0 * (double)(s->n * s->k);
	int n_plain = rotations(b, plain_bytes / 4, 40);
	struct operands plain = {};
	block x((size_t)(MOST * s->k * 2)), y((size_t)(MOST * s->n * 4)),
		rows((size_t)n_plain * (size_t)plain_bytes);
	std::vector<const void *> row_at;
	plain.x = &x;
	plain.y = &y;
	fill_bf16(x.p, (size_t)(MOST * s->k), 7, 1.0f);
	plain.rc = make(b, s, n_plain, {}, &plain.own, &plain.err);
	for (int i = 0; i < n_plain; i++) {
		row_at.push_back(rows.at((size_t)i * (size_t)plain_bytes));
		plain_matrix(rows.at((size_t)i * (size_t)plain_bytes), s->n, s->k,
		             (uint64_t)(s - shapes) * 1000u + (uint64_t)i);
	}
	for (auto &f : formats) {
		bool first = &f == formats;
		struct operands coded = plain;
		coded.own.clear();
		coded.rc = make(b, s, n_plain, f.f, &coded.own, &coded.err);
		double base = 0;
		for (int32_t m : {1, 8, 16, 32, 64, 128, (int)MOST}) {
			if (m != 1 && (first ? b->quick && m != 16 && m != 64 && m != MOST
			                     : b->quick || m != 16))
				continue;
			struct work w = {};
			struct nx_peer_shape ps = {};
			w.part = "quant";
			w.name = format("%dx%d%s M %d%s", (int)s->n, (int)s->k, s->kind, m, f.name);
			w.operands = m == MOST ? 3 : n_plain;
			w.bytes = (double)nx_weight_quant_bytes(&f.f, s->n, s->k) +
			          2.0 * m * (double)s->k + y_bytes(s, m);
			if (m == MOST) {
				w.bytes = 0;
				w.flops = 2.0 * m * (double)(s->n * s->k);
			}
			w.base = base;
			w.base_name = "M 1";
			coded.rows = plain.rows = m;
			ps.work = NX_PEER_LINEAR;
			ps.n_operands = w.operands;
			ps.linear = {s->n, s->k, m, s->epilogue, s->y_f32, row_at.data(), x.p, y.p};
			std::vector<contender> who = {contender_of(b, s, &coded, "nexus"),
			                              contender_of(b, s, &plain, "nexus bf16")};
			auto peers = peers_init(b, &w, &ps, &who);
			double us = measure(b, &w, who);
			peers_done(&peers);
			base = m == 1 ? us : base;
		}
		unmake(b, &coded.own);
	}
	unmake(b, &plain.own);
}

void bench_quant(struct bench *b)
{
	for (const struct shape &s : shapes)
		one_shape(b, &s);
	for (int i : {0, 2})
		if (!getenv("NEXUS_NO_MODEL"))
			bench_layers_in(b, formats[i].f, formats[i].name);
}
