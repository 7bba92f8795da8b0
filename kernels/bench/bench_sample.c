/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_sample [--quick] [--isa NAME] [--threads N]: times drawing tokens and verifying drafts.
 */
#include "bench/bench.h"

/* ---- sampling */

static void bench_sample(void *dev)
{
	static const struct {
		const char *name;
		struct nx_sampler s;
	} cases[] = {{"greedy", {.top_p = 1}},
	             {"temperature 0.8", {.temperature = 0.8f, .top_p = 1}},
	             {"top_k 40", {.temperature = 0.8f, .top_p = 1, .top_k = 40}},
	             {"top_p 0.95", {.temperature = 0.8f, .top_p = 0.95f}},
	             {"min_p 0.05", {.temperature = 0.8f, .top_p = 1, .min_p = 0.05f}}};
	enum { VOCAB = 128256 };
	float *logits = noise_array(dev, VOCAB), logprob;
	int32_t len = 0, last = 0, token, accepted;
	struct nx_seq_state st = {1, &len, &last};
	struct nx_verdict v = {.stride = 1, .token = &token, .n_accepted = &accepted};
	printf("\nsampling one row of %d logits, with its log-probability\n", VOCAB);
	for (int i = 0; i < VOCAB; i++) /* about as peaked as a language model's */
		logits[i] = 5 * (logits[i] + noise() + noise());
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nx_emit e = {.logit_row = 0};
		double each[MAX_TURNS];
		int turns = quick ? 5 : 25;
		for (int turn = 0; turn < turns; turn++) {
			struct nx_sample a = {.logits = logits,
			                      .n_emit = 1,
			                      .vocab = VOCAB,
			                      .emit = &e,
			                      .samplers = &cases[i].s,
			                      .state = &st,
			                      .verdict = &v,
			                      .logprob = &logprob};
			struct nx_err err;
			double t = now();
			e.pos_off = turn;
			must(ops->sample(dev, NULL, &a, &err), &err);
			each[turn] = now() - t;
		}
		printf("%-18s %9.1f us\n", cases[i].name, best_of(each, turns) * 1e6);
	}
	ops->free(dev, logits, VOCAB * sizeof(float));
}

/* ---- verification */

enum { VERIFY_VOCAB = 49152, VERIFY_K = 7 };

/* A chain of drafted rows, against as many draws and one without a draft. q is a row of the chain's tokens alone. */
static void time_verify(void *dev, struct nx_sample *a, struct nx_draft *draft, float *q, int turn,
                        double *plain, double *drafted)
{
	struct nx_emit e = {.pos_off = turn};
	struct nx_err err;
	int32_t *token = draft->token;
	a->emit = &e;
	a->draft = NULL;
	double t = now();
	for (int i = 0; i <= VERIFY_K; i++, e.pos_off++, e.logit_row++) {
		must(ops->sample(dev, NULL, a, &err), &err);
		if (i < VERIFY_K)
			token[i] = a->verdict->token[0];
	}
	*plain = now() - t;
	for (int i = 0; i < VERIFY_VOCAB; i++)
		q[i] = 0;
	for (int i = 0; i < VERIFY_K; i++)
		q[token[i]] = 1e-9f; /* less than p */
	if (draft->q_row[0] == 1) {
		token[0] = 0;
		q[VERIFY_VOCAB] = 1; /* far more than p */
	}
	a->draft = draft;
	e = (struct nx_emit){.pos_off = turn, .n_draft = VERIFY_K};
	t = now();
	must(ops->sample(dev, NULL, a, &err), &err);
	*drafted = now() - t;
}

static void bench_verify(void *dev)
{
	static const struct {
		const char *name;
		struct nx_sampler s;
		int32_t q_row;
	} cases[] = {{"greedy", {.top_p = 1}, NX_Q_CERTAIN},
	             {"chosen, temperature 0.8", {.temperature = 0.8f, .top_p = 1}, NX_Q_CERTAIN},
	             {"drawn, temperature 0.8", {.temperature = 0.8f, .top_p = 1}, 0},
	             {"the first rejected", {.temperature = 0.8f, .top_p = 1}, 1},
	             {"drawn, top_k 40", {.temperature = 0.8f, .top_p = 1, .top_k = 40}, 0}};
	size_t n = (size_t)(VERIFY_K + 1) * VERIFY_VOCAB, n_q = 2u * VERIFY_VOCAB;
	float *logits = noise_array(dev, n), *q = noise_array(dev, n_q);
	int32_t len = 0, last = 0, token[VERIFY_K + 1], path[VERIFY_K + 1], accepted,
		rows[4][VERIFY_K];
	struct nx_seq_state st = {1, &len, &last};
	struct nx_verdict v = {VERIFY_K + 1, token, &accepted, path};
	struct nx_draft draft = {VERIFY_K, rows[0], rows[1],      rows[2],
	                         rows[3],  q,       VERIFY_VOCAB, NULL};
	printf("\nverification of %d drafted rows of %d logits, one thread\n%-26s %9s %9s %9s %9s\n",
	       VERIFY_K, VERIFY_VOCAB, "", "us", "accepted", "undrafted", "ratio");
	for (size_t i = 0; i < n; i++)
		logits[i] = 5 * (logits[i] + noise() + noise());
	memset(q, 0, n_q * sizeof(*q));
	for (size_t c = 0; c < sizeof(cases) / sizeof(cases[0]); c++) {
		double drafted[MAX_TURNS], plain[MAX_TURNS], ratio[MAX_TURNS], mean = 0;
		int turns = quick ? 7 : 25;
		struct nx_sample a = {.logits = logits,
		                      .n_emit = 1,
		                      .vocab = VERIFY_VOCAB,
		                      .samplers = &cases[c].s,
		                      .state = &st,
		                      .verdict = &v};
		for (int i = 0; i < VERIFY_K; i++) {
			rows[1][i] = i - 1;
			rows[2][i] = NX_ROW_CANDIDATE;
			rows[3][i] = cases[c].q_row;
		}
		for (int turn = 0; turn < turns; turn++) {
			time_verify(dev, &a, &draft, q, turn, &plain[turn], &drafted[turn]);
			ratio[turn] = drafted[turn] / plain[turn];
			mean += (double)accepted / turns;
		}
		printf("%-26s %9.1f %9.2f %9.1f %9.2f\n", cases[c].name,
		       best_of(drafted, turns) * 1e6, mean, best_of(plain, turns) * 1e6,
		       median(ratio, turns));
	}
	ops->free(dev, logits, n * sizeof(float));
	ops->free(dev, q, n_q * sizeof(float));
}

int main(int argc, char **argv)
{
	const char *isa;
	int threads, rc = bench_begin(argc, argv, &isa, &threads);
	if (rc)
		return rc;
	void *dev = open_device(isa, threads, "0");
	struct nx_device_info info;
	ops->info(dev, &info);
	printf("%s, %s, %d threads\n", info.name, info.isa, info.n_units);
	bench_sample(dev);
	bench_verify(dev);
	ops->close(dev);
	return 0;
}
