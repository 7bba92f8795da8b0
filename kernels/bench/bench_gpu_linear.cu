/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu_linear.cu: products with few rows, bound by memory, and with many, bound by the tensor cores.
 */
#include "bench/bench_gpu.cuh"

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

/* The matrices of one shape, for us and, where there are peers, in plain form. */
struct matrices {
	std::vector<struct nx_weight *> own;
	block *plain;
	std::vector<const void *> rows;
	struct nx_err err;
	int rc;
};

static void make(struct bench *b, const struct shape *s, int n, int32_t max_rows,
                 struct matrices *m)
{
	size_t bytes = (size_t)(2 * s->n * s->k);
	m->plain = b->n_peers ? new block((size_t)n * bytes) : NULL;
	m->rc = 0;
	for (int i = 0; i < n; i++) {
		struct nx_weight *w = NULL;
		uint64_t seed = (uint64_t)(s - shapes) * 1000u + (uint64_t)i;
		if (!m->rc)
			m->rc = random_weight(b, s->n, s->k, seed, max_rows, &w, &m->err);
		if (w)
			m->own.push_back(w);
		if (!m->plain)
			continue;
		plain_matrix(m->plain->at((size_t)i * bytes), s->n, s->k, seed);
		m->rows.push_back(m->plain->at((size_t)i * bytes));
	}
}

static void unmake(struct bench *b, struct matrices *m)
{
	for (auto w : m->own)
		b->ops->weight_destroy(b->dev, w);
	delete m->plain;
}

static double one(struct bench *b, const struct shape *s, struct matrices *m, int operands,
                  struct work *w, int32_t rows, const block *x, const block *y)
{
	struct nx_peer_shape ps = {};
	ps.work = NX_PEER_LINEAR;
	ps.n_operands = operands;
	ps.linear = {s->n, s->k, rows, s->epilogue, s->y_f32, m->rows.data(), x->p, y->p};
	struct contender ours = {};
	ours.by = "nexus";
	ours.result = y->p;
	ours.n_result = (size_t)(rows * (s->epilogue == NX_EPI_SWIGLU ? s->n / 2 : s->n));
	ours.result_f32 = s->y_f32;
	ours.call = [&](int i, struct nx_err *err) {
		if (m->rc) {
			*err = m->err;
			return m->rc;
		}
		struct nx_linear a = {};
		a.w = m->own[(size_t)(i % operands)];
		a.m = rows;
		a.x = x->p;
		a.y = y->p;
		a.epilogue = s->epilogue;
		a.y_f32 = s->y_f32;
		return b->ops->linear(b->dev, b->stream, &a, err);
	};
	std::vector<contender> who = {ours};
	auto peers = peers_init(b, w, &ps, &who);
	double us = measure(b, w, who);
	peers_done(&peers);
	return us;
}

static double y_bytes(const struct shape *s, double rows)
{
	return rows * (double)s->n * (s->y_f32 ? 4 : s->epilogue == NX_EPI_SWIGLU ? 1 : 2);
}

void bench_linear(struct bench *b)
{
	static const int32_t ms[] = {1, 8, 16, 32, 64};
	for (const struct shape &s : shapes) {
		double bytes = 2.0 * (double)(s.n * s.k), base = 0;
		int operands = rotations(b, bytes, 64);
		struct matrices m = {};
		block x((size_t)(64 * s.k * 2)), y((size_t)(64 * s.n * 4));
		fill_bf16(x.p, (size_t)(64 * s.k), 7, 1.0f);
		make(b, &s, operands, 64, &m);
		for (int32_t rows : ms) {
			struct work w = {};
			w.part = "linear";
			w.name = format("%dx%d%s M %d", (int)s.n, (int)s.k, s.kind, rows);
			w.bytes = bytes + 2.0 * rows * (double)s.k + y_bytes(&s, rows);
			w.operands = operands;
			w.base = base;
			w.base_name = "M 1";
			double us = one(b, &s, &m, operands, &w, rows, &x, &y);
			base = rows == 1 ? us : base;
		}
		unmake(b, &m);
	}
}

void bench_products(struct bench *b)
{
	enum { ROWS = 2048, OPERANDS = 3 };
	for (const struct shape &s : shapes) {
		struct matrices m = {};
		struct work w = {};
		block x((size_t)(ROWS * s.k * 2)), y((size_t)(ROWS * s.n * 4));
		fill_bf16(x.p, (size_t)(ROWS * s.k), 7, 1.0f);
		make(b, &s, OPERANDS, ROWS, &m);
		w.part = "prefill";
		w.name = format("%dx%d%s M %d", (int)s.n, (int)s.k, s.kind, ROWS);
		w.flops = 2.0 * ROWS * (double)(s.n * s.k);
		w.operands = OPERANDS;
		one(b, &s, &m, OPERANDS, &w, ROWS, &x, &y);
		unmake(b, &m);
	}
}

double product_rate(struct bench *b, const char **by)
{
	enum { SIDE = 8192 };
	size_t bytes = (size_t)SIDE * SIDE * 2;
	double best = 0;
	for (int i = 0; i < b->n_peers; i++) {
		const struct nx_peer *p = b->peers[i];
		struct nx_peer_shape s = {};
		struct nx_err err;
		void *self;
		block w(bytes), x(bytes), y(bytes);
		const void *operand = w.p;
		s.work = NX_PEER_LINEAR;
		s.n_operands = 1;
		s.linear = {SIDE, SIDE, SIDE, NX_EPI_STORE, false, &operand, x.p, y.p};
		plain_matrix(w.p, SIDE, SIDE, 3);
		fill_bf16(x.p, bytes / 2, 7, 1.0f);
		if (!(p->works & 1u << NX_PEER_LINEAR) || p->init(&self, &s, &err))
			continue;
		double rate = best_rate(b, 2.0 * SIDE * SIDE * SIDE, [&](cudaStream_t stream) {
			if (p->run(self, 0, stream, &err))
				fprintf(stderr, "bench_gpu: %s: %s\n", p->name, err.msg);
		});
		p->done(self);
		*by = rate > best ? p->name : *by;
		best = rate > best ? rate : best;
	}
	return best;
}
