/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/prefix.c: between the engine and a prefix cache; see impl.h and the prefix hooks of technique.h.
 *
 * Only committed, full blocks whose tokens the host knows are offered, and only as far as every layer group
 * has them: a drafter's group may trail by its `lag`.
 */
#include "engine/impl.h"

static int32_t block_size(const struct nx_engine *e)
{
	return e->prefix_geo.block_size;
}

/* Tokens that stand before the next output: what a fresh or recomputed sequence has to compute. */
static int32_t text_len(const struct nx_seq *s)
{
	return s->n_tokens;
}

int32_t nx_prefix_hint(struct nx_engine *e, const struct nx_seq *s)
{
	if (!e->prefix || s->swapped.rows || s->len)
		return 0;
	int32_t n = text_len(s),
		m = e->prefix->t->prefix_match(e->prefix->self, s->tokens, n, NULL);
	return m < 0 || m >= n ? 0
	                       : m / block_size(e) *
	                                 block_size(e); /* a wrong answer is refused at the start */
}

int nx_prefix_start(struct nx_engine *e, struct nx_seq *s, struct nx_err *err)
{
	int32_t bs = block_size(e), n = text_len(s);
	int32_t m = e->prefix->t->prefix_match(e->prefix->self, s->tokens, n, e->matched);
	if (m < 0 || m >= n || m % bs)
		return nx_fail(err, NX_EBUG,
		               "%s matched %d of %d tokens; legal: a multiple of %d below %d",
		               e->prefix->t->name, m, n, bs, n);
	if (!m)
		return 0;
	int rc = nx_store_share(&e->store, s->place, e->matched, m / bs, err);
	if (rc)
		return rc;
	/* A drafter that needs the last row's feature gets it by a REDO row. With a grouped codec that row's group is
	 * no longer there in full precision: then the last block is computed again for the target, and the drafter's
	 * rows of it, which cannot be without the feature before them, stand. */
	s->ahead = e->needs.wants_feature && e->codec_layout.window > 1 ? bs : 0;
	s->len = m - s->ahead;
	s->n_published = m;
	s->redo = e->needs.wants_feature && e->codec_layout.window == 1;
	return 0;
}

void nx_prefix_publish(struct nx_engine *e, struct nx_seq *s)
{
	if (!e->prefix || s->place < 0 || s->parent >= 0)
		return;
	int32_t bs = block_size(e), rows = s->len - s->slack;
	if (rows > s->n_tokens)
		rows = s->n_tokens;
	if (e->needs.n_layers)
		rows -= e->needs.lag;
	rows = rows < 0 ? 0 : rows / bs * bs;
	if (rows <= s->n_published)
		return;
	const struct nx_prefix_rows r = {
		.seq = s->place, .tokens = s->tokens, .n_rows = rows, .n_before = s->n_published};
	e->prefix->t->prefix_publish(e->prefix->self, &r);
	s->n_published = rows;
}

bool nx_prefix_evict(struct nx_engine *e, int64_t rows)
{
	int64_t before = e->store.pool.free_rows;
	if (!e->prefix || !nx_store_evictable(&e->store))
		return false;
	e->prefix->t->prefix_evict(e->prefix->self, rows);
	return e->store.pool.free_rows > before;
}
