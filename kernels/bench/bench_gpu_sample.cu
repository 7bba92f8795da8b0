/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu_sample.cu: drawing tokens.
 */
#include "bench/bench_gpu.cuh"

static void one(struct bench *b, const char *name, const struct nx_sampler *how, int32_t vocab,
                int32_t batch)
{
	size_t n = (size_t)batch * (size_t)vocab;
	int operands = rotations(b, 4.0 * (double)n, 16);
	block logits(4 * n * (size_t)operands), emits((size_t)batch * sizeof(struct nx_emit)),
		samplers((size_t)batch * sizeof(*how)), ints((size_t)batch * 16);
	std::vector<struct nx_emit> emit;
	std::vector<struct nx_sampler> sampler;
	std::vector<int32_t> len((size_t)batch, 512);
	for (int32_t i = 0; i < batch; i++) {
		struct nx_sampler s = *how;
		s.request = (uint32_t)i;
		sampler.push_back(s);
		emit.push_back({i, i, i, 0, 0});
	}
	upload(emits, emit);
	upload(samplers, sampler);
	upload(ints, len);
	fill_logits((float *)logits.p, n * (size_t)operands, 23);
	int32_t *at = (int32_t *)ints.p;
	struct nx_seq_state state = {batch, at, at + batch};
	struct nx_verdict verdict = {1, at + 2 * batch, at + 3 * batch, at + batch};
	struct work w = {};
	w.part = "sample";
	w.name = format("%s V %d B %d", name, vocab, batch);
	w.bytes = 4.0 * (double)n;
	w.operands = operands;
	struct contender ours = {};
	ours.by = "nexus";
	ours.call = [&](int i, struct nx_err *err) {
		struct nx_sample a = {};
		a.logits = (const float *)logits.p + (size_t)(i % operands) * n;
		a.n_emit = batch;
		a.vocab = vocab;
		a.emit = (const struct nx_emit *)emits.p;
		a.samplers = (const struct nx_sampler *)samplers.p;
		a.state = &state;
		a.verdict = &verdict;
		return b->ops->sample(b->dev, b->stream, &a, err);
	};
	measure(b, &w, {ours});
}

void bench_sample(struct bench *b)
{
	struct nx_sampler greedy = {}, top_p = {};
	greedy.top_p = 1;
	top_p.temperature = 0.8f;
	top_p.top_p = 0.95f;
	top_p.seed = 42;
	for (int32_t vocab : {32000, 128256})
		for (int32_t batch : {1, 32, 256}) {
			one(b, "greedy", &greedy, vocab, batch);
			one(b, "top-p", &top_p, vocab, batch);
		}
}
