/* SPDX-License-Identifier: Apache-2.0
 *
 * See tokenizer_internal.h: the table of merges, as listed by the file or as it follows from
 * scores.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_internal.h"

/* Merges that follow from scores cost the square of a token's length to find. */
#define SCORED_WORK_MAX ((uint64_t)1 << 32)

static int oom(const struct nx_tok_desc *d, struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "%.200s: out of memory while loading the tokenizer",
	               d->path);
}

/* The id of a token as merges name it: by the bytes of its text, or by the text of a special token. */
static bool find_token(const struct nx_tokenizer *t, const char *bytes, size_t n,
                       struct nx_span text, uint32_t *id)
{
	return nx_strmap_get(&t->normal, bytes, n, id) ||
	       nx_strmap_get(&t->special, text.s, text.len, id);
}

static int listed_merge(struct nx_tokenizer *t, const struct nx_tok_desc *d, size_t i, char *buf,
                        char *text, struct nx_err *err)
{
	const struct nx_tok_merge *m = &d->merges[i];
	uint32_t left, right, merged;
	const size_t nl = nx_tok_to_bytes(d, m->left, buf);
	const size_t nr = nx_tok_to_bytes(d, m->right, buf + nl);
	memcpy(text, m->left.s, m->left.len);
	memcpy(text + m->left.len, m->right.s, m->right.len);
	if (!find_token(t, buf, nl, m->left, &left) ||
	    !find_token(t, buf + nl, nr, m->right, &right) ||
	    !find_token(t, buf, nl + nr, (struct nx_span){text, m->left.len + m->right.len},
	                &merged))
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: %s: merge %zu names a token that is not in the vocabulary",
		               d->path, d->merges_key, i);
	nx_bpe_add(&t->bpe, (int32_t)left, (int32_t)right, (uint32_t)i, (int32_t)merged);
	return 0;
}

static int listed_merges(struct nx_tokenizer *t, const struct nx_tok_desc *d, struct nx_err *err)
{
	size_t longest = 0;
	if (d->n_merges > NX_TOK_VOCAB_MAX)
		return nx_fail(err, NX_EFORMAT, "%.200s: %s holds %zu merges; legal: at most %d",
		               d->path, d->merges_key, d->n_merges, NX_TOK_VOCAB_MAX);
	int rc = nx_bpe_init(&t->bpe, d->n_merges, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < d->n_merges; i++) {
		const size_t n = d->merges[i].left.len + d->merges[i].right.len;
		longest = n > longest ? n : longest;
	}
	char *buf = malloc(2 * longest + 2);
	if (!buf)
		return oom(d, err);
	for (size_t i = 0; i < d->n_merges && !rc; i++)
		rc = listed_merge(t, d, i, buf, buf + longest + 1, err);
	free(buf);
	return rc;
}

struct scored {
	float score; /* of the merged token */
	int32_t left, right, merged;
};

struct scored_list {
	struct scored *v;
	size_t n, cap;
};

static int by_score(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;
	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	return x->merged != y->merged ? (x->merged > y->merged) - (x->merged < y->merged)
	                              : (x->left > y->left) - (x->left < y->left);
}

/* Every way to make token id of two others. */
static int split_token(const struct nx_tokenizer *t, const struct nx_tok_desc *d, int32_t id,
                       struct scored_list *l, struct nx_err *err)
{
	const char *s = t->bytes + t->offsets[id];
	const size_t len = t->offsets[id + 1] - t->offsets[id] - 1;
	for (size_t i = 0, n; i < len; i += n) {
		uint32_t left, right;
		n = nx_utf8_len(s + i, len - i);
		n = n ? n : 1;
		if (i == 0 || !nx_strmap_get(&t->normal, s, i, &left) ||
		    !nx_strmap_get(&t->normal, s + i, len - i, &right))
			continue;
		if (l->n == l->cap) {
			const size_t cap = 2 * l->cap + 1024;
			struct scored *v = realloc(l->v, cap * sizeof(*v));
			if (!v)
				return oom(d, err);
			l->v = v;
			l->cap = cap;
		}
		l->v[l->n++] = (struct scored){d->scores[id], (int32_t)left, (int32_t)right, id};
	}
	return 0;
}

/* SentencePiece merges the pair whose token has the highest score, and of equal ones the leftmost; so equal
 * scores get equal ranks. */
static int scored_merges(struct nx_tokenizer *t, const struct nx_tok_desc *d, struct nx_err *err)
{
	struct scored_list l = {0};
	uint64_t work = 0;
	int rc = 0;
	for (int32_t id = 0; id < t->n_vocab; id++) {
		const uint64_t len = t->offsets[id + 1] - t->offsets[id] - 1;
		work += len * len;
		if (len > UINT32_MAX || work > SCORED_WORK_MAX)
			return nx_fail(
				err, NX_EFORMAT,
				"%.200s: %s: the tokens up to %d are too long to find their merges",
				d->path, d->tokens_key, id);
		if (!isfinite(d->scores[id]))
			return nx_fail(err, NX_EFORMAT,
			               "%.200s: %s: the score of token %d is not finite", d->path,
			               d->merges_key, id);
	}
	for (int32_t id = 0; id < t->n_vocab && !rc; id++) {
		const char *s = t->bytes + t->offsets[id];
		uint32_t found;
		if (t->types[id] == NX_TOKEN_BYTE ||
		    !nx_strmap_get(&t->normal, s, t->offsets[id + 1] - t->offsets[id] - 1,
		                   &found) ||
		    found != (uint32_t)id)
			continue;
		rc = split_token(t, d, id, &l, err);
	}
	if (!rc)
		rc = nx_bpe_init(&t->bpe, l.n, err);
	if (!rc && l.n)
		qsort(l.v, l.n, sizeof(*l.v), by_score);
	for (size_t i = 0, rank = 0; i < l.n && !rc; i++) {
		rank += i && l.v[i].score != l.v[i - 1].score;
		nx_bpe_add(&t->bpe, l.v[i].left, l.v[i].right, (uint32_t)rank, l.v[i].merged);
	}
	free(l.v);
	return rc;
}

int nx_tok_load_merges(struct nx_tokenizer *t, const struct nx_tok_desc *d, struct nx_err *err)
{
	return d->scores ? scored_merges(t, d, err) : listed_merges(t, d, err);
}
