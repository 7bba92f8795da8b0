/* SPDX-License-Identifier: Apache-2.0
 *
 * cuda_scene.h: random logits, samplers, drafts and given paths for both backends, and the comparison of what they draw.
 *
 * Both draw the same random numbers, so only where the sums of both sides round to different sides of one may tokens
 * differ: such a difference is looked into and has to lie within 1e-6.
 */
#ifndef NX_CUDA_SCENE_H
#define NX_CUDA_SCENE_H

#include "cuda_test.h"

enum { MAX_SEQS = 80, MAX_DRAFT = 40, MAX_STRIDE = MAX_DRAFT + 1, Q_ROWS = 6 };

struct scene {
	struct both b;
	int64_t room; /* logits */
	float *logits, *q;
	int32_t *q_token;
	struct nx_emit *emit;
	struct nx_sampler *samplers;
	struct nx_override *override;
	int32_t *len, *force;
	struct nx_seq_state state;
	struct nx_draft draft;
	struct nx_verdict gpu, cpu;
	float *logprob[2];
	struct nx_sample a;
	int64_t tokens, drafted, accepted, close; /* what has been compared */
};

/* Room for so many logits; q for a vocabulary of most_vocab. */
void scene_open(struct scene *s, int64_t room, int32_t most_vocab);
/* n_emit sequences with n_draft rows each, some with fewer; shape of the logits: 0 to 6. sort of the children: 0
 * chosen, 1 drawn, 2 mixed. */
void scene_make(struct scene *s, uint64_t salt, int32_t vocab, int32_t n_emit, int32_t n_draft,
                uint32_t shape, uint32_t sort);
/* The same made and compared: on its own, forced, and with given verdicts. */
void scene_compare(struct scene *s, uint64_t salt, int32_t vocab, int32_t n_emit, int32_t n_draft,
                   uint32_t shape, uint32_t sort);
/* What has been compared; few enough tokens were close. */
void scene_say(const struct scene *s, const char *what);
/* In [0, n). */
uint32_t scene_pick(uint64_t a, uint64_t b, uint32_t n);

#endif
