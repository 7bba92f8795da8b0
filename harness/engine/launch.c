/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/launch.c: how a step's work reaches the device: operation by operation, or as a graph that an earlier step
 * of the same shape left; see nx_launch_plan in nexus/slots.h.
 *
 * A graph holds what operations were handed by value: counts of rows, offsets into the plan buffer, bounds of keys.
 * All of that is the key. What differs between steps of one key lies in device memory and is read from there.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/impl.h"

struct shape_key {
	int32_t *words;
	size_t n;
};

struct graph_entry {
	struct shape_key key;
	struct nx_graph *graph; /* NULL: the shape was seen once */
	uint64_t hash, used;
	struct nx_uncounted unseen[NX_UNSEEN_COUNT]; /* of its hooks, which are not called again */
};

struct nx_graphs {
	struct nx_launch_plan plan;
	struct graph_entry *entries; /* [plan.max_graphs] */
	struct shape_key key;        /* of the step at hand; room for the longest */
	size_t max_words;
	uint64_t clock;
};

#define KEY_FIXED 12
#define KEY_CHUNK 9
#define KEY_OBSERVED 7
#define KEY_SPAN 3

int nx_launch_create(struct nx_engine *e, struct nx_err *err)
{
	struct nx_launch_plan plan = {0};
	struct nx_device_info info;
	if (!e->launcher)
		return 0;
	const char *who = e->launcher->t->name;
	e->dev->ops->info(e->dev->dev, &info);
	const struct nx_launch_limits l = {.device_caps = info.caps,
	                                   .max_rows = e->max_rows,
	                                   .max_seqs = e->max_seqs,
	                                   .max_len = e->max_len};
	int rc = e->launcher->t->launch_plan(e->launcher->self, &l, &plan, err);
	if (rc || !plan.graphs)
		return rc;
	if (!(info.caps & NX_DEV_GRAPHS))
		return nx_fail(err, NX_ENOTSUP, "%s wants graphs, which the device %s has not", who,
		               e->dev->ops->name);
	if (plan.max_graphs < 1 || plan.key_bucket < 1)
		return nx_fail(err, NX_EINVAL, "%s asks for %d graphs and buckets of %d keys", who,
		               plan.max_graphs, plan.key_bucket);
	struct nx_graphs *g = calloc(1, sizeof(*g));
	e->graphs = g;
	if (!g)
		return nx_fail(err, NX_ENOMEM, "out of memory for graphs");
	g->plan = plan;
	g->max_words = KEY_FIXED + (size_t)e->max_chunks * KEY_CHUNK +
	               (size_t)e->max_segs * KEY_OBSERVED + (size_t)e->max_seqs * KEY_SPAN;
	g->entries = calloc((size_t)plan.max_graphs, sizeof(*g->entries));
	g->key.words = calloc(g->max_words, sizeof(*g->key.words));
	bool fits = g->entries && g->key.words;
	for (int32_t i = 0; i < plan.max_graphs && fits; i++) {
		g->entries[i].key.words = calloc(g->max_words, sizeof(*g->key.words));
		fits = g->entries[i].key.words != NULL;
	}
	return fits ? 0
	            : nx_fail(err, NX_ENOMEM, "out of memory for the keys of %d graphs",
	                      plan.max_graphs);
}

void nx_launch_destroy(struct nx_engine *e)
{
	struct nx_graphs *g = e->graphs;
	if (!g)
		return;
	for (int32_t i = 0; g->entries && i < g->plan.max_graphs; i++) {
		if (g->entries[i].graph)
			e->dev->ops->graph_destroy(e->dev->dev, g->entries[i].graph);
		free(g->entries[i].key.words);
	}
	free(g->entries);
	free(g->key.words);
	free(g);
	e->graphs = NULL;
}

/* Grids are made for at least so many keys; never more than the workspace was made for. */
static int32_t bucket_of(const struct nx_engine *e, int32_t keys)
{
	int64_t b = e->graphs->plan.key_bucket;
	while (b < keys)
		b *= 2;
	return (int32_t)(b < e->longest ? b : keys > e->longest ? keys : e->longest);
}

static void add(struct nx_graphs *g, int32_t word)
{
	g->key.words[g->key.n++] = word;
}

static void make_key(struct nx_engine *e, const struct nx_step *st)
{
	struct nx_graphs *g = e->graphs;
	const struct nx_draft_span *spans =
		(const struct nx_draft_span *)(const void *)(st->host + e->lay.spans);
	g->key.n = 0;
	add(g, e->n_rows);
	add(g, (int32_t)(e->lay.bytes_device >> 6)); /* the bucket of rows: addresses */
	add(g, e->n_before);
	add(g, e->n_commits);
	add(g, e->n_emits);
	add(g, e->n_gather);
	add(g, e->n_drafted);
	add(g, e->n_spans);
	add(g, e->n_observed);
	add(g, e->forced);
	add(g, e->overridden);
	add(g, e->n_chunks);
	for (int32_t c = 0; c < e->n_chunks; c++) {
		const struct nx_chunk *k = &e->chunks[c];
		const int32_t words[KEY_CHUNK] = {k->row0,     k->n_rows,     k->seg0,
		                                  k->n_segs,   k->max_keys,   k->gather0,
		                                  k->n_gather, k->n_observed, k->n_redo};
		for (int i = 0; i < KEY_CHUNK; i++)
			add(g, words[i]);
	}
	for (int32_t i = 0; i < e->n_observed; i++) {
		const struct nx_observed *o = &e->observed[i];
		const int32_t words[KEY_OBSERVED] = {o->seq,    o->row0,   o->n_rows, o->n_draft,
		                                     o->draft0, o->n_redo, o->prompt};
		for (int k = 0; k < KEY_OBSERVED; k++)
			add(g, words[k]);
	}
	for (int32_t i = 0; i < e->n_spans; i++) {
		add(g, spans[i].seq);
		add(g, spans[i].row0);
		add(g, spans[i].n);
	}
}

static uint64_t hash_of(const struct shape_key *k)
{
	uint64_t h = 0xcbf29ce484222325ull; /* FNV-1a, a word at a time */
	for (size_t i = 0; i < k->n; i++)
		h = (h ^ (uint32_t)k->words[i]) * 0x100000001b3ull;
	return h;
}

/* Whether the entry is that of the key at hand. */
static bool is_known(const struct nx_graphs *g, const struct graph_entry *x, uint64_t hash)
{
	return x->used && x->hash == hash && x->key.n == g->key.n &&
	       memcmp(x->key.words, g->key.words, g->key.n * sizeof(*x->key.words)) == 0;
}

/* The entry of the key at hand, or else the one used longest ago, whose place a new one takes. */
static struct graph_entry *find(struct nx_graphs *g, uint64_t hash)
{
	struct graph_entry *oldest = &g->entries[0];
	for (int32_t i = 0; i < g->plan.max_graphs; i++) {
		struct graph_entry *x = &g->entries[i];
		if (is_known(g, x, hash))
			return x;
		if (x->used < oldest->used)
			oldest = x;
	}
	return oldest;
}

static int evict(struct nx_engine *e, struct graph_entry *x, struct nx_err *err)
{
	if (!x->graph)
		return 0;
	/* It may be under way. */
	int rc = e->dev->ops->stream_sync(e->dev->dev, e->stream, err);
	if (rc)
		return rc;
	e->dev->ops->graph_destroy(e->dev->dev, x->graph);
	x->graph = NULL;
	if (e->graphs->plan.stats)
		e->graphs->plan.stats->dropped++;
	return 0;
}

static int capture(struct nx_engine *e, struct nx_step *st, struct graph_entry *x,
                   struct nx_err *err)
{
	const struct nx_device_ops *ops = e->dev->ops;
	int rc = ops->graph_begin(e->dev->dev, e->stream, err);
	if (rc)
		return rc;
	rc = nx_forward(e, st, err);
	/* Ended in any case: the stream has to be of use again. */
	int ended = ops->graph_end(e->dev->dev, e->stream, &x->graph, rc ? NULL : err);
	if (!rc && !ended) {
		if (e->graphs->plan.stats)
			e->graphs->plan.stats->captured++;
		return 0;
	}
	if (!ended && x->graph)
		ops->graph_destroy(e->dev->dev, x->graph);
	x->graph = NULL;
	return rc ? rc : ended;
}

static int launch_graph(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	struct nx_graphs *g = e->graphs;
	for (int32_t c = 0; c < e->n_chunks; c++)
		e->chunks[c].max_keys = bucket_of(e, e->chunks[c].max_keys);
	make_key(e, st);
	uint64_t hash = hash_of(&g->key);
	struct graph_entry *x = find(g, hash);
	int rc = 0;
	if (!is_known(g, x, hash)) {
		rc = evict(e, x, err);
		memcpy(x->key.words, g->key.words, g->key.n * sizeof(*x->key.words));
		x->key.n = g->key.n;
		x->hash = hash;
	} else if (!x->graph) {
		rc = capture(e, st, x, err);
		memcpy(x->unseen, e->unseen, sizeof(x->unseen));
	}
	x->used = ++g->clock;
	if (rc)
		return rc;
	if (!x->graph) {
		if (g->plan.stats)
			g->plan.stats->eager++;
		return nx_forward(e, st, err);
	}
	if (g->plan.stats)
		g->plan.stats->replayed++;
	memcpy(e->unseen, x->unseen, sizeof(e->unseen));
	return e->dev->ops->graph_launch(e->dev->dev, e->stream, x->graph, err);
}

int nx_launch(struct nx_engine *e, struct nx_step *st, struct nx_err *err)
{
	int rc;
	memset(e->unseen, 0, sizeof(e->unseen));
	if (e->graphs && e->n_rows <= e->graphs->plan.max_rows) {
		rc = launch_graph(e, st, err);
	} else {
		if (e->graphs && e->graphs->plan.stats)
			e->graphs->plan.stats->eager++;
		rc = nx_forward(e, st, err);
	}
	if (!rc)
		nx_count_attention(e, st);
	return rc ? rc : nx_forward_end(e, st, err);
}
