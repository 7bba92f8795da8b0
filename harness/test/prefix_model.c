/* SPDX-License-Identifier: Apache-2.0
 *
 * test/prefix_model.c: see prefix_model.h.
 */
#include "prefix_model.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* Check's own macros tell its parent of each assertion that holds: too slow for millions of them. */
#define must(condition, ...)                                                                       \
	do {                                                                                       \
		if (!(condition))                                                                  \
			ck_abort_msg(__VA_ARGS__);                                                 \
	} while (0)

/* ---- the host --------------------------------------------------------------------------------- */

static void *host_alloc(void *ctx, enum nx_mem kind, size_t bytes)
{
	struct pm *m = ctx;
	void *p = malloc(bytes);
	(void)kind;
	must(p, "out of memory");
	memset(p, 0xa5, bytes);
	m->live_bytes += bytes;
	return p;
}

static void host_free(void *ctx, enum nx_mem kind, void *p, size_t bytes)
{
	struct pm *m = ctx;
	(void)kind;
	must(bytes <= m->live_bytes, "more is freed than was taken");
	m->live_bytes -= bytes;
	free(p);
}

static int32_t take_block(struct pm *m)
{
	for (int32_t b = 0; b < m->n_blocks; b++)
		if (m->blocks[b].refs == 0) {
			m->blocks[b].refs = 1;
			return b;
		}
	return -1;
}

static void drop_block(struct pm *m, int32_t b)
{
	must(m->blocks[b].refs > m->blocks[b].holds, "block %d is in no table", b);
	m->blocks[b].refs--;
}

static int32_t host_hold(void *ctx, int32_t place, int32_t index)
{
	struct pm *m = ctx;
	must(place >= 0 && place < PM_PLACES && index >= 0, "block %d of place %d", index, place);
	const struct pm_seq *s = &m->seqs[place];
	int32_t end = (index + 1) * m->c.block_size, b;
	must(s->live && end <= s->len, "block %d of a sequence with %d rows", index, s->len);
	if (m->c.pool_blocks) {
		must(index < s->n_table, "block %d of %d", index, s->n_table);
		b = s->table[index];
		m->blocks[b].refs++;
	} else {
		b = take_block(m);
		if (b < 0)
			return -1;
		m->blocks[b].n = end;
		memcpy(m->blocks[b].tokens, s->tokens, (size_t)end * sizeof(int32_t));
	}
	m->blocks[b].holds++;
	return b;
}

static void host_release(void *ctx, int32_t b)
{
	struct pm *m = ctx;
	must(b >= 0 && b < m->n_blocks && m->blocks[b].holds > 0,
	     "block %d is released and not held", b);
	m->blocks[b].holds--;
	m->blocks[b].refs--;
}

static bool idle(const struct pm_block *b)
{
	return b->holds > 0 && b->refs == b->holds;
}

static bool host_idle(void *ctx, int32_t b)
{
	const struct pm *m = ctx;
	return b >= 0 && b < m->n_blocks && idle(&m->blocks[b]);
}

static int32_t free_blocks(const struct pm *m)
{
	int32_t n = 0;
	for (int32_t b = 0; b < m->n_blocks; b++)
		n += m->blocks[b].refs == 0;
	return n;
}

static int32_t idle_blocks(const struct pm *m)
{
	int32_t n = 0;
	for (int32_t b = 0; b < m->n_blocks; b++)
		n += idle(&m->blocks[b]);
	return n;
}

static int32_t below(struct pm *m, int32_t n)
{
	m->rng = m->rng * 6364136223846793005ull + 1442695040888963407ull;
	return (int32_t)((m->rng >> 33) % (uint64_t)n);
}

/* ---- the list --------------------------------------------------------------------------------- */

static bool begins(const int32_t *tokens, int32_t n, const struct pm_entry *e)
{
	return n >= e->n && !memcmp(tokens, e->tokens, (size_t)e->n * sizeof(*tokens));
}

static struct pm_entry *list_find(struct pm *m, const int32_t *tokens, int32_t n)
{
	for (int32_t i = 0; i < m->n_list; i++)
		if (m->list[i].n == n && begins(tokens, n, &m->list[i]))
			return &m->list[i];
	return NULL;
}

static int32_t list_match(struct pm *m, const int32_t *tokens, int32_t n)
{
	int32_t rows = 0;
	while (rows + m->c.block_size < n && list_find(m, tokens, rows + m->c.block_size))
		rows += m->c.block_size;
	return rows;
}

static bool counts_in(const struct pm *m, const struct pm_seq *s, const struct pm_entry *e)
{
	return begins(s->tokens, s->depth * m->c.block_size, e);
}

static bool in_use(const struct pm *m, const struct pm_entry *e)
{
	for (int32_t p = 0; p < PM_PLACES; p++)
		if (counts_in(m, &m->seqs[p], e))
			return true;
	return counts_in(m, &m->asked, e);
}

static bool has_children(const struct pm *m, const struct pm_entry *e)
{
	for (int32_t i = 0; i < m->n_list; i++)
		if (m->list[i].n == e->n + m->c.block_size &&
		    begins(m->list[i].tokens, m->list[i].n, e))
			return true;
	return false;
}

/* The one held block of this prefix. */
static struct pm_block *block_of(struct pm *m, const struct pm_entry *e)
{
	struct pm_block *found = NULL;
	for (int32_t b = 0; b < m->n_blocks; b++) {
		struct pm_block *x = &m->blocks[b];
		if (!x->holds || x->n != e->n ||
		    memcmp(x->tokens, e->tokens, (size_t)e->n * sizeof(int32_t)) != 0)
			continue;
		must(!found && x->holds == 1, "a prefix of %d tokens is held twice", e->n);
		found = x;
	}
	must(found, "a cached prefix of %d tokens has no block", e->n);
	return found;
}

static bool goes_before(const struct pm *m, const struct pm_entry *a, const struct pm_entry *b)
{
	if (m->c.policy == PM_FIFO)
		return a->born < b->born;
	if (m->c.policy == PM_LFU && a->uses != b->uses)
		return a->uses < b->uses;
	return a->used < b->used;
}

static bool list_evict_one(struct pm *m, bool only_idle)
{
	int32_t out = -1;
	for (int32_t i = 0; i < m->n_list; i++) {
		const struct pm_entry *e = &m->list[i];
		if ((out >= 0 && !goes_before(m, e, &m->list[out])) || in_use(m, e) ||
		    has_children(m, e) || (only_idle && !idle(block_of(m, e))))
			continue;
		out = i;
	}
	if (out < 0)
		return false;
	m->list[out] = m->list[--m->n_list];
	m->n_evicted++;
	return true;
}

static void list_leave(struct pm *m, struct pm_seq *s, bool used)
{
	m->clock++;
	for (int32_t i = 0; i < m->n_list && used; i++)
		if (counts_in(m, s, &m->list[i])) {
			m->list[i].used = m->clock;
			m->list[i].uses++;
		}
	s->depth = 0;
}

static void list_publish(struct pm *m, struct pm_seq *s, int32_t n_rows)
{
	for (int32_t n; (n = (s->depth + 1) * m->c.block_size) <= n_rows; s->depth++) {
		if (list_find(m, s->tokens, n))
			continue;
		if (m->n_list == m->c.max_entries && !list_evict_one(m, false)) {
			m->n_refused++;
			return;
		}
		struct pm_entry *e = &m->list[m->n_list++];
		*e = (struct pm_entry){.n = n, .born = ++m->clock};
		memcpy(e->tokens, s->tokens, (size_t)n * sizeof(int32_t));
	}
}

/* ---- the engine ------------------------------------------------------------------------------- */

static void tell(struct pm *m, enum nx_event_kind kind, int32_t place, int32_t arg)
{
	const struct nx_seq_event e = {
		.kind = kind, .seq = place, .request = m->seqs[place].request, .arg = arg};
	m->c.t->event(m->self, &e);
}

static void publish(struct pm *m, int32_t place)
{
	struct pm_seq *s = &m->seqs[place];
	int32_t rows = s->len / m->c.block_size * m->c.block_size;
	if (!s->live || s->ended || rows <= s->n_published)
		return;
	const struct nx_prefix_rows r = {
		.seq = place, .tokens = s->tokens, .n_rows = rows, .n_before = s->n_published};
	list_publish(m, s, rows);
	m->c.t->prefix_publish(m->self, &r);
	s->n_published = rows;
}

static void leave_place(struct pm *m, struct pm_seq *s)
{
	while (s->n_table > 0)
		drop_block(m, s->table[--s->n_table]);
	s->live = s->ended = false;
}

/* Sequences that have ended and keep their places: the engine takes those before it is short of anything. */
static bool held_places(const struct pm *m)
{
	for (int32_t p = 0; p < PM_PLACES; p++)
		if (m->seqs[p].live && m->seqs[p].ended)
			return true;
	return false;
}

/* The pool is short of a block: what can go does, in the list's order, and nothing that cannot. */
static bool make_room(struct pm *m)
{
	int32_t lacks = 1 + below(m, 3), before = free_blocks(m), n = 0;
	if (idle_blocks(m) == 0)
		return false;
	if (m->asked.depth) { /* dropped when its blocks are nobody's */
		const struct pm_entry *e =
			list_find(m, m->asked.tokens, m->asked.depth * m->c.block_size);
		if (idle(block_of(m, e)))
			m->asked.depth = 0;
	}
	while (n < lacks && list_evict_one(m, true))
		n++;
	int64_t given = m->c.t->prefix_evict(m->self, (int64_t)lacks * m->c.block_size);
	must(given == (int64_t)(free_blocks(m) - before) * m->c.block_size,
	     "%d rows are said to be given", (int)given);
	must(given >= (int64_t)n * m->c.block_size, "%d blocks could go, %d rows did", n,
	     (int)given);
	if (given < (int64_t)lacks * m->c.block_size)
		must(idle_blocks(m) == 0 || held_places(m), "%d blocks are pinned that nobody has",
		     idle_blocks(m));
	m->n_taken_over += given / m->c.block_size - n;
	return given > 0;
}

/* Room for n rows in the sequence's own blocks. */
static bool reserve(struct pm *m, struct pm_seq *s, int32_t n)
{
	while (m->c.pool_blocks && s->n_table * m->c.block_size < n) {
		int32_t b = take_block(m);
		if (b >= 0)
			s->table[s->n_table++] = b;
		else if (!make_room(m))
			return false;
	}
	return true;
}

/* Rows [len, n) are computed: their blocks now stand for these tokens. */
static void compute(struct pm *m, struct pm_seq *s, int32_t n)
{
	int32_t bs = m->c.block_size;
	for (int32_t i = s->len / bs; m->c.pool_blocks && i * bs < n; i++) {
		struct pm_block *b = &m->blocks[s->table[i]];
		int32_t end = (i + 1) * bs < n ? (i + 1) * bs : n;
		must(b->refs == 1, "rows are written to a block that others see");
		b->n = end;
		memcpy(b->tokens, s->tokens, (size_t)end * sizeof(int32_t));
	}
	s->len = n;
}

static int32_t free_place(const struct pm *m)
{
	for (int32_t p = 0; p < PM_PLACES; p++)
		if (!m->seqs[p].live)
			return p;
	return -1;
}

/* Asks, and holds what is found against the list and against the rows themselves. */
static int32_t match(struct pm *m, const struct pm_seq *s, int32_t *blocks)
{
	int32_t want = list_match(m, s->tokens, s->n_tokens);
	int32_t got = m->c.t->prefix_match(m->self, s->tokens, s->n_tokens, blocks);
	must(got == want, "%d of %d tokens match, the list has %d", got, s->n_tokens, want);
	for (int32_t i = 0; blocks && i < got / m->c.block_size; i++) {
		const struct pm_block *b = &m->blocks[blocks[i]];
		int32_t end = (i + 1) * m->c.block_size;
		must(b->holds > 0 && b->n == end &&
		             !memcmp(b->tokens, s->tokens, (size_t)end * sizeof(int32_t)),
		     "block %d serves what it was not computed for", blocks[i]);
	}
	return got;
}

/* A sequence takes the place: with what is cached of it, or with its swapped rows. false: no room, and no event. */
static bool start(struct pm *m, int32_t place, const struct pm_seq *from, bool resumed)
{
	struct pm_seq *s = &m->seqs[place];
	int32_t blocks[PM_LEN], hit = 0, n = from->swapped ? from->len : from->n_tokens;
	*s = *from;
	s->live = true;
	s->len = s->n_published = s->depth = s->n_table = 0;
	s->swapped = false;
	if (!from->swapped) {
		hit = match(m, s, blocks);
		m->asked = *s;
		m->asked.depth = hit / m->c.block_size;
		for (int32_t i = 0; m->c.pool_blocks && i < hit / m->c.block_size; i++) {
			m->blocks[blocks[i]].refs++;
			s->table[s->n_table++] = blocks[i];
		}
		s->len = s->n_published = hit;
	}
	if (!reserve(m, s, n)) {
		leave_place(m, s);
		m->n_failed++;
		return false;
	}
	must(from->swapped || n - hit >= 1, "nothing is left to compute");
	tell(m, resumed ? NX_EVENT_RESUME : NX_EVENT_ADMIT, place, hit);
	s->depth = hit / m->c.block_size;
	m->asked.depth = 0;
	m->n_hits += hit > 0;
	/* Perhaps in chunks. */
	int32_t first = hit + 1 + below(m, n - hit > 1 ? n - hit : 1);
	compute(m, s, first < n ? first : n);
	return true;
}

static void preempt(struct pm *m, int32_t place)
{
	struct pm_seq *s = &m->seqs[place];
	int32_t w = 0;
	while (w < PM_WAITING && m->waiting[w].live)
		w++;
	tell(m, NX_EVENT_PREEMPT, place, 0);
	list_leave(m, s, true);
	if (w < PM_WAITING) { /* else it is given up: PREEMPT was its last event */
		m->waiting[w] = *s;
		m->waiting[w].swapped = below(m, 3) == 0;
	}
	leave_place(m, s);
	m->n_preempted++;
}

static void op_admit(struct pm *m)
{
	struct pm_seq s = {.request = m->n_requests++};
	int32_t place = free_place(m);
	/* From a word that is often the same, or a shifted piece of it: equal tokens at other positions. */
	int32_t shift = below(m, 4) ? 0 : 1 + below(m, 5);
	s.n_tokens = 1 + below(m, PM_LEN / 2);
	for (int32_t i = 0; i < s.n_tokens; i++)
		s.tokens[i] = below(m, 6) ? (i + shift) % 3 : below(m, m->c.letters);
	if (place >= 0)
		start(m, place, &s, false);
}

static void op_resume(struct pm *m)
{
	int32_t place = free_place(m), w = below(m, PM_WAITING);
	struct pm_seq *s = &m->waiting[w];
	if (place >= 0 && s->live && start(m, place, s, true))
		s->live = false;
}

/* The rest of its prompt, or one token more. */
static void op_step(struct pm *m, int32_t place)
{
	struct pm_seq *s = &m->seqs[place];
	if (!s->live || s->ended || s->n_tokens == PM_LEN)
		return;
	int32_t n = s->len < s->n_tokens ? s->n_tokens : s->n_tokens + 1;
	if (!reserve(m, s, n)) {
		preempt(m, place);
		return;
	}
	if (n > s->n_tokens)
		s->tokens[s->n_tokens++] = below(m, 3) ? (n - 1) % 3 : below(m, m->c.letters);
	compute(m, s, n);
}

static void op_fork(struct pm *m, int32_t from)
{
	struct pm_seq *s = &m->seqs[from];
	int32_t place = free_place(m), bs = m->c.block_size;
	if (!s->live || s->ended || s->len < s->n_tokens || place < 0)
		return;
	struct pm_seq *c = &m->seqs[place];
	int32_t whole = s->len / bs;
	*c = *s;
	c->n_table = 0;
	for (int32_t i = 0; m->c.pool_blocks && i < whole; i++) {
		m->blocks[s->table[i]].refs++;
		c->table[c->n_table++] = s->table[i];
	}
	tell(m, NX_EVENT_FORK, place, from);
	c->n_published = s->n_published;
	/* The part block is its own (copied on write): that may find no room. */
	c->len = whole * bs;
	if (reserve(m, c, s->len))
		compute(m, c, s->len);
	else
		preempt(m, place);
	m->n_forks++;
}

static void op_retire(struct pm *m, int32_t place)
{
	struct pm_seq *s = &m->seqs[place];
	if (!s->live)
		return;
	if (!s->ended) {
		publish(m, place);
		tell(m, NX_EVENT_RETIRE, place, 0);
		list_leave(m, s, true);
		s->ended = true;
		if (below(m, 3) == 0)
			return; /* its place is held a while */
	}
	leave_place(m, s);
}

/* ---- checks ----------------------------------------------------------------------------------- */

/* Counts add up, and nobody lost what it runs on. */
static void check(struct pm *m)
{
	int32_t tables[PM_BLOCKS] = {0}, held = 0;
	for (int32_t p = 0; p < PM_PLACES; p++)
		for (int32_t i = 0; m->seqs[p].live && i < m->seqs[p].n_table; i++) {
			const struct pm_seq *s = &m->seqs[p];
			const struct pm_block *b = &m->blocks[s->table[i]];
			int32_t end = (i + 1) * m->c.block_size;
			tables[s->table[i]]++;
			must(end > s->len ||
			             (b->n == end &&
			              !memcmp(b->tokens, s->tokens, (size_t)end * sizeof(int32_t))),
			     "a running sequence lost block %d", i);
		}
	for (int32_t b = 0; b < m->n_blocks; b++) {
		must(m->blocks[b].refs == tables[b] + m->blocks[b].holds,
		     "block %d is counted wrongly", b);
		held += m->blocks[b].holds;
	}
	must(held == m->n_list, "%d blocks are held, the list has %d", held, m->n_list);
	must(m->c.t->warm(m->self) == m->n_list, "%d entries, the list has %d",
	     (int)m->c.t->warm(m->self), m->n_list);
}

/* As many are kept as the list has, so that both keep the same when all of the list's are found. */
static void check_list(struct pm *m)
{
	for (int32_t i = 0; i < m->n_list; i++) {
		struct pm_seq s = {.n_tokens = m->list[i].n + 1};
		block_of(m, &m->list[i]);
		if (has_children(m, &m->list[i]))
			continue;
		memcpy(s.tokens, m->list[i].tokens, (size_t)m->list[i].n * sizeof(int32_t));
		s.tokens[m->list[i].n < PM_LEN ? m->list[i].n : PM_LEN - 1] = 77;
		if (m->list[i].n < PM_LEN)
			match(m, &s, NULL);
	}
}

static void check_counters(struct pm *m)
{
	const struct nx_counter *c = m->c.t->counters;
	bool radix = false;
	int32_t used = 0, bs = m->c.block_size;
	for (int32_t i = 0; c[i].name; i++)
		radix |= !strcmp(c[i].name, "evictable_rows");
	for (int32_t i = 0; i < m->n_list; i++)
		used += in_use(m, &m->list[i]);
	if (!radix) {
		ck_assert_double_eq(pm_counter(m, "in_use"), used);
		ck_assert_double_eq(pm_counter(m, "entries"), m->n_list);
		return;
	}
	ck_assert_double_eq(pm_counter(m, "rows"), m->n_list * bs);
	ck_assert_double_eq(pm_counter(m, "protected_rows"), used * bs);
	ck_assert_double_eq(pm_counter(m, "evictable_rows"), (m->n_list - used) * bs);
	ck_assert((used == 0) == (pm_counter(m, "locked_nodes") == 0));
	ck_assert_double_le(pm_counter(m, "nodes"), m->n_list);
}

/* ---- life ------------------------------------------------------------------------------------- */

double pm_counter(const struct pm *m, const char *name)
{
	double v[64] = {0};
	m->c.t->read_counters(m->self, v);
	for (int32_t i = 0; m->c.t->counters[i].name; i++)
		if (!strcmp(m->c.t->counters[i].name, name))
			return v[i];
	ck_abort_msg("no counter %s", name);
	return 0;
}

static void parse(struct pm *m)
{
	const struct nx_param *p = m->c.t->params;
	struct nx_err err = {0};
	char text[256], *save = NULL;
	for (int32_t i = 0; p[i].key; i++)
		ck_assert_int_eq(nx_param_default(&p[i], &m->values[i], &err), 0);
	snprintf(text, sizeof(text), "%s", m->c.values);
	for (char *kv = strtok_r(text, ",", &save); kv; kv = strtok_r(NULL, ",", &save)) {
		char *eq = strchr(kv, '=');
		int32_t i = 0;
		ck_assert_ptr_nonnull(eq);
		*eq = '\0';
		while (p[i].key && strcmp(p[i].key, kv) != 0)
			i++;
		ck_assert_msg(p[i].key != NULL, "no parameter %s", kv);
		ck_assert_msg(nx_param_parse(&p[i], eq + 1, &m->values[i], &err) == 0, "%s",
		              err.msg);
	}
}

void pm_open(struct pm *m, const struct pm_config *c)
{
	struct nx_err err = {0};
	struct nx_prefix_geometry g = {0};
	const struct nx_prefix_limits l = {
		.block_size = c->pool_blocks ? c->block_size : 0,
		.align = 1,
		.max_len = PM_LEN,
		.budget_rows = INT64_MAX,
		.key = 42,
		.pool_rows = (c->pool_blocks ? c->pool_blocks : 100) * (int64_t)c->block_size,
	};
	memset(m, 0, sizeof(*m));
	m->c = *c;
	m->rng = c->seed;
	m->n_requests = 1;
	m->host = (struct nx_host){.abi = NX_TECHNIQUE_ABI,
	                           .size = sizeof(struct nx_host),
	                           .ctx = m,
	                           .batch_size = PM_PLACES,
	                           .max_seqs = PM_PLACES,
	                           .max_len = PM_LEN,
	                           .alloc = host_alloc,
	                           .free = host_free,
	                           .kv_hold = host_hold,
	                           .kv_release = host_release,
	                           .kv_idle = host_idle};
	parse(m);
	ck_assert_int_eq(c->t->create(&m->self, &m->host, m->values, &err), 0);
	ck_assert_msg(c->t->prefix_geometry(m->self, &l, &g, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(g.block_size, c->block_size);
	m->n_blocks = c->pool_blocks ? c->pool_blocks : (int32_t)(g.n_rows / g.block_size);
	ck_assert_int_le(m->n_blocks, PM_BLOCKS);
	if (!c->pool_blocks)
		ck_assert_int_eq(m->n_blocks, c->max_entries);
}

void pm_run(struct pm *m, int32_t n)
{
	for (int32_t i = 0; i < n; i++) {
		int32_t what = below(m, 100), place = below(m, PM_PLACES);
		if (what < 15)
			op_admit(m);
		else if (what < 20)
			op_resume(m);
		else if (what < 70)
			op_step(m, place);
		else if (what < 75)
			op_fork(m, place);
		else if (what < 78 && m->seqs[place].live && !m->seqs[place].ended)
			preempt(m, place);
		else if (what < 93)
			op_retire(m, place);
		for (int32_t p = 0; p < PM_PLACES && what >= 20; p++)
			publish(m, p);
		check(m);
		if (i % 16 == 0) {
			check_list(m);
			check_counters(m);
		}
	}
}

void pm_close(struct pm *m)
{
	for (int32_t p = 0; p < PM_PLACES; p++)
		while (m->seqs[p].live)
			op_retire(m, p);
	if (m->asked.depth) { /* the next match that finds nothing lets go of it */
		const int32_t other[2] = {99, 99};
		int32_t none[2];
		ck_assert_int_eq(m->c.t->prefix_match(m->self, other, 2, none), 0);
		m->asked.depth = 0;
	}
	check(m);
	check_list(m);
	check_counters(m);
	int64_t all = (int64_t)m->n_list * m->c.block_size;
	ck_assert_int_eq(m->c.t->prefix_evict(m->self, INT64_MAX), all);
	ck_assert_int_eq(m->c.t->warm(m->self), 0);
	ck_assert_int_eq(free_blocks(m), m->n_blocks);
	m->c.t->reset(m->self);
	for (int32_t i = 0; m->c.t->counters[i].name; i++)
		ck_assert_double_eq(pm_counter(m, m->c.t->counters[i].name), 0);
	m->c.t->destroy(m->self);
	ck_assert_uint_eq(m->live_bytes, 0);
}
