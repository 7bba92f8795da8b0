/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/draft_tree.h: what the host half (draft_tree.c) and the device half (draft_tree_device.h) of the
 * random tree drafter share. All pointers but `host` and `ops` are device memory.
 */
#ifndef NEXUS_TEST_PLUGINS_DRAFT_TREE_H
#define NEXUS_TEST_PLUGINS_DRAFT_TREE_H

#include "hand.h"

#define TREE_HEADS 2
#define TREE_KV_HEADS 1
#define TREE_DIM 8
#define TREE_HIDDEN 32
#define TREE_SEGMENTS 512

/* What is known of a place after the last step in which it was seen: a COMMIT row (the root), and its drafts. */
struct tree_place {
	int32_t valid;
	int32_t root_slot, root_token;
	int32_t n_real; /* rows that the round in work ingests */
};

struct tree {
	const struct nx_host *host;
	enum nx_dtype act;
	int32_t width, n_probes, cap, d_model, vocab, max_seqs, max_len, max_m;
	float temperature; /* of q beside the sampler's own */
	uint64_t seed;

	struct nx_weight *fuse, *input, *qkv, *out, *head;
	float *ones, *inv_freq;

	struct tree_place *place; /* [max_seqs] */
	float *before;            /* [max_seqs, 2 d_model] feature of the row before the root */
	float *feature;           /* [max_seqs, 1 + cap, 2 d_model] of the root and its drafts */
	int32_t *next;            /* [max_seqs, vocab] what followed each token; -1 = nothing yet */
	int64_t *bad;             /* violations seen */

	/* One forward of the drafter's layer. */
	int32_t *seq, *token, *slot_off, *pos_off, *kind, *scratch, *n_anc, *anc;
	struct nx_segment *segments;
	void *fused_in, *emb, *g, *x_in, *h, *hn, *qkv_out, *attn, *root_h, *root_n;
	float *logits, *q;
	void *workspace;
	size_t workspace_bytes;
};

static inline float *tree_before(const struct tree *t, int32_t place)
{
	return t->before + (int64_t)place * 2 * t->d_model;
}

static inline float *tree_feature(const struct tree *t, int32_t place, int32_t i)
{
	return t->feature + ((int64_t)place * (1 + t->cap) + i) * 2 * t->d_model;
}

#endif
