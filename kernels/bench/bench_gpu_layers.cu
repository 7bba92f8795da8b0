/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu_layers.cu: a model of llama-7b's shape as the engine runs it, in one graph: decoding after a prompt of 512.
 */
#include <math.h>

#include "bench/bench_gpu_world.cuh"
#include "nexus_kernels/weight_quant.h"

enum { D = 4096, FF = 11008, HEADS = 32, LAYERS = 32, VOCAB = 32000, PROMPT = 512 };
enum { QKV, O, GATE_UP, DOWN, N_MATRICES };

static const struct {
	int64_t n, k;
	enum nx_epilogue epilogue;
} matrices[N_MATRICES] = {
	{3 * D, D, NX_EPI_STORE},
	{D, D, NX_EPI_ADD},
	{2 * FF, D, NX_EPI_SWIGLU},
	{D, FF, NX_EPI_ADD},
};

struct llama {
	struct nx_weight *w[LAYERS][N_MATRICES], *table, *head;
	struct nx_err err;
	int rc;
};

static void make(struct bench *b, struct llama *m, int32_t max_rows,
                 const struct nx_weight_quant &quant)
{
	for (int l = 0; l < LAYERS; l++)
		for (int i = 0; i < N_MATRICES && !m->rc; i++)
			m->rc = random_codes(b, matrices[i].n, matrices[i].k,
			                     (uint64_t)(l * N_MATRICES + i + 1), max_rows, quant,
			                     &m->w[l][i], &m->err);
	if (!m->rc)
		m->rc = random_codes(b, VOCAB, D, 999, max_rows, quant, &m->head, &m->err);
}

static void unmake(struct bench *b, struct llama *m)
{
	for (int l = 0; l < LAYERS; l++)
		for (int i = 0; i < N_MATRICES; i++)
			if (m->w[l][i])
				b->ops->weight_destroy(b->dev, m->w[l][i]);
	if (m->head)
		b->ops->weight_destroy(b->dev, m->head);
}

/* The buffers of a step. */
struct step {
	struct bench *b;
	struct llama *m;
	struct world *w;
	void *x, *norm, *qkv, *attn, *ff; /* [rows, D], .., [rows, 3 D], [rows, D], [rows, FF] */
	float *scale, *inv_freq, *logits;
	struct nx_emit *emit;
	struct nx_sampler *samplers;
	struct nx_verdict verdict;
};

static int product(const struct step *s, const struct nx_weight *w, const void *x, void *y,
                   enum nx_epilogue epilogue, bool f32, struct nx_err *err)
{
	struct nx_linear a = {};
	a.w = w;
	a.m = s->w->n_rows;
	a.x = x;
	a.y = y;
	a.epilogue = epilogue;
	a.y_f32 = f32;
	return s->b->ops->linear(s->b->dev, s->b->stream, &a, err);
}

static int norm(const struct step *s, struct nx_err *err)
{
	return s->b->ops->rmsnorm(s->b->dev, s->b->stream, s->norm, s->x, s->scale, s->w->n_rows, D,
	                          1e-5f, err);
}

static int layer(const struct step *s, struct attention *at, int l, struct nx_err *err)
{
	struct nx_rope_store r = {};
	r.rows = &s->w->rows;
	r.state = &s->w->state;
	r.kv = &s->w->kv;
	r.layer = l;
	r.n_heads = HEADS;
	r.rope_dim = HEAD_DIM;
	r.inv_freq = s->inv_freq;
	r.qkv = s->qkv;
	int rc = norm(s, err);
	if (!rc)
		rc = product(s, s->m->w[l][QKV], s->norm, s->qkv, NX_EPI_STORE, false, err);
	if (!rc)
		rc = s->b->ops->rope_store(s->b->dev, s->b->stream, &r, err);
	if (!rc)
		rc = at->run(s->b, l, err);
	if (!rc)
		rc = product(s, s->m->w[l][O], s->attn, s->x, NX_EPI_ADD, false, err);
	if (!rc)
		rc = norm(s, err);
	if (!rc)
		rc = product(s, s->m->w[l][GATE_UP], s->norm, s->ff, NX_EPI_SWIGLU, false, err);
	return rc ? rc : product(s, s->m->w[l][DOWN], s->ff, s->x, NX_EPI_ADD, false, err);
}

static int head(const struct step *s, struct nx_err *err)
{
	struct nx_sample a = {};
	a.logits = s->logits;
	a.n_emit = s->w->n_rows;
	a.vocab = VOCAB;
	a.emit = s->emit;
	a.samplers = s->samplers;
	a.state = &s->w->state;
	a.verdict = &s->verdict;
	int rc = norm(s, err);
	if (!rc)
		rc = product(s, s->m->head, s->norm, s->logits, NX_EPI_STORE, true, err);
	return rc ? rc : s->b->ops->sample(s->b->dev, s->b->stream, &a, err);
}

static float *floats(struct world *w, const std::vector<float> &v)
{
	float *p = (float *)w->add(v.size() * sizeof(float));
	upload(*w->memory.back(), v);
	return p;
}

static void make_step(struct step *s, int32_t batch)
{
	struct world *w = s->w;
	size_t n = (size_t)batch;
	std::vector<float> inv;
	std::vector<struct nx_emit> emit;
	std::vector<struct nx_sampler> samplers(n);
	s->x = w->add(2 * n * D);
	s->norm = w->add(2 * n * D);
	s->qkv = w->add(2 * n * 3 * D);
	s->attn = w->add(2 * n * D);
	s->ff = w->add(2 * n * FF);
	s->logits = (float *)w->add(4 * n * VOCAB);
	for (int i = 0; i < HEAD_DIM / 2; i++)
		inv.push_back(powf(10000.0f, -2.0f * (float)i / HEAD_DIM));
	s->inv_freq = floats(w, inv);
	s->scale = floats(w, std::vector<float>(D, 1.0f));
	for (int32_t i = 0; i < batch; i++) {
		emit.push_back({i, i, i, 1, 0});
		samplers[(size_t)i].top_p = 1;
	}
	s->emit = (struct nx_emit *)w->add(n * sizeof(struct nx_emit));
	upload(*w->memory.back(), emit);
	s->samplers = (struct nx_sampler *)w->add(n * sizeof(struct nx_sampler));
	upload(*w->memory.back(), samplers);
	int32_t *ints = (int32_t *)w->add(3 * n * sizeof(int32_t));
	s->verdict = {1, ints, ints + n, ints + 2 * n};
	fill_bf16(s->x, n * D, 31, 1.0f);
}

/* Bytes of the weights that a step reads: of plain rows, or of codes. */
static double matrix_bytes(const struct nx_weight_quant *q, int64_t n, int64_t k)
{
	return q ? (double)nx_weight_quant_bytes(q, n, k) : 2.0 * (double)(n * k);
}

/* plain: the same in bf16, to be measured in turns; NULL where m is plain itself. */
static void one(struct bench *b, struct llama *m, int32_t batch, bool whole,
                const struct nx_weight_quant *quant, const char *name, struct llama *plain)
{
	struct world_shape shape = {};
	shape.batch = batch;
	shape.keys = PROMPT + 1;
	shape.rows = 1;
	shape.n_heads = shape.n_kv_heads = HEADS;
	shape.block_size = 16;
	shape.n_layers = LAYERS;
	shape.shuffled = true;
	world w(shape);
	struct step s = {};
	s.b = b;
	s.w = &w;
	make_step(&s, batch);
	attention at(b, &w, s.qkv, 3 * D, s.attn);
	struct work row = {};
	row.part = quant ? "quant" : "model";
	row.name = format("llama-7b %s B %d%s", whole ? "decode" : "layers", batch, name);
	row.bytes = LAYERS * w.kv_bytes + (whole ? matrix_bytes(quant, VOCAB, D) : 0);
	for (auto &x : matrices)
		row.bytes += LAYERS * matrix_bytes(quant, x.n, x.k);
	row.operands = 1;
	row.note = whole ? "with head and greedy choice" : "32 layers alone";
	auto decode = [&](struct llama *of, struct nx_err *err) {
		int rc = of->rc;
		if (rc)
			*err = of->err;
		s.m = of;
		for (int l = 0; l < LAYERS && !rc; l++)
			rc = layer(&s, &at, l, err);
		return rc || !whole ? rc : head(&s, err);
	};
	struct contender ours = {}, other = {};
	ours.by = "nexus";
	ours.call = [&](int, struct nx_err *err) { return decode(m, err); };
	std::vector<contender> who = {ours};
	other.by = "nexus bf16";
	other.call = [&](int, struct nx_err *err) { return decode(plain, err); };
	if (plain)
		who.push_back(other);
	measure(b, &row, who);
}

void bench_layers(struct bench *b)
{
	struct llama m = {};
	make(b, &m, 32, {});
	for (int32_t batch : {1, 32})
		for (bool whole : {false, true})
			one(b, &m, batch, whole, NULL, "", NULL);
	unmake(b, &m);
}

void bench_layers_in(struct bench *b, const struct nx_weight_quant &quant, const char *name)
{
	struct llama m = {}, plain = {};
	make(b, &m, 32, quant);
	make(b, &plain, 32, {});
	for (int32_t batch : {1, 32})
		for (bool whole : {false, true})
			one(b, &m, batch, whole, &quant, name, &plain);
	unmake(b, &plain);
	unmake(b, &m);
}
