/* SPDX-License-Identifier: Apache-2.0
 *
 * nexus/fake_host.h: tests a technique without Nexus: loads its shared object, checks its table as the program would,
 * makes values from text, and gives it a host whose memory is counted. Header-only; for test programs alone.
 *
 *     int main(int argc, char **argv)
 *     {
 *         struct nx_fake f;
 *         nx_fake_life(argv[1], "");                     what every technique must survive
 *         if (!nx_fake_open(&f, argv[1], "k=3", 4)) {    four places
 *             NX_CHECK(nx_fake_counter(&f, "steps") == 0, "nothing has been counted yet");
 *             nx_fake_close(&f);                         destroys it; nothing may be left allocated
 *         }
 *         return nx_fake_done();                         prints `N passed, N failed`
 *     }
 *
 * Enqueued work waits until nx_fake_sync(), with a copy of its arguments: pointers in them to what a hook was lent,
 * or to its stack, are found out (best with -fsanitize=address). fake_device.h has checks of hooks that compute
 * (kv_codec, weights).
 *
 * What the fake leaves out: operations of the device other than alloc, free, copy, fill, enqueue and info are NULL.
 */
#ifndef NEXUS_FAKE_HOST_H
#define NEXUS_FAKE_HOST_H

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "nexus/technique.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NX_FAKE_MAX 64 /* parameters, counters, sequences, waiting work */

struct nx_fake {
	struct nx_host host;
	struct nx_device_ops ops;
	const struct nx_technique *t;
	void *self;
	int32_t n_params, n_counters;
	struct nx_value values[NX_FAKE_MAX];
	char texts[NX_FAKE_MAX][64]; /* of ENUM values */
	size_t live_bytes;           /* allocated and not freed */
	int allocs_left;             /* allocations that succeed from now on; -1 = all */
	int32_t n_held, next_block;  /* blocks that a prefix cache holds */
	int n_work;
	struct {
		nx_enqueue_fn fn;
		void *args; /* a copy */
	} work[NX_FAKE_MAX];
};

/* ---- counting ----------------------------------------------------------------------------------- */

struct nx_fake_sum {
	int passed, failed;
};

static inline struct nx_fake_sum *nx_fake_sum(void)
{
	static struct nx_fake_sum sum;
	return &sum;
}

NX_PRINTF(4, 5)
static inline bool nx_fake_check(bool ok, const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	if (ok) {
		nx_fake_sum()->passed++;
		return true;
	}
	nx_fake_sum()->failed++;
	fprintf(stderr, "%s:%d: failed: ", file, line);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return false;
}

/* NX_CHECK(condition, "what must hold, %d", value): true when it does. */
#define NX_CHECK(cond, ...) nx_fake_check((cond) ? true : false, __FILE__, __LINE__, __VA_ARGS__)

/* Prints the sum; the exit status of the test program. */
static inline int nx_fake_done(void)
{
	printf("%d passed, %d failed\n", nx_fake_sum()->passed, nx_fake_sum()->failed);
	return nx_fake_sum()->failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* ---- the host ----------------------------------------------------------------------------------- */

static inline void *nx_fake_take(struct nx_fake *f, size_t bytes)
{
	if (f->allocs_left == 0)
		return NULL;
	if (f->allocs_left > 0)
		f->allocs_left--;
	void *p = malloc(bytes ? bytes : 1);
	if (p) {
		memset(p, 0xa5, bytes); /* contents are undefined: nobody may rely on zeroes */
		f->live_bytes += bytes;
	}
	return p;
}

static inline void nx_fake_give(struct nx_fake *f, void *p, size_t bytes)
{
	if (!p)
		return;
	NX_CHECK(bytes <= f->live_bytes, "free() was told %zu bytes, only %zu are allocated", bytes,
	         f->live_bytes);
	f->live_bytes -= bytes;
	free(p);
}

static inline void *nx_fake_host_alloc(void *ctx, enum nx_mem kind, size_t bytes)
{
	(void)kind;
	return nx_fake_take((struct nx_fake *)ctx, bytes);
}

static inline void nx_fake_host_free(void *ctx, enum nx_mem kind, void *p, size_t bytes)
{
	(void)kind;
	nx_fake_give((struct nx_fake *)ctx, p, bytes);
}

static inline void *nx_fake_dev_alloc(void *dev, size_t bytes)
{
	return nx_fake_take((struct nx_fake *)dev, bytes);
}

static inline void nx_fake_dev_free(void *dev, void *p, size_t bytes)
{
	nx_fake_give((struct nx_fake *)dev, p, bytes);
}

static inline int32_t nx_fake_hold(void *ctx, int32_t place, int32_t index)
{
	struct nx_fake *f = (struct nx_fake *)ctx;
	NX_CHECK(place >= 0 && place < f->host.max_seqs && index >= 0,
	         "kv_hold of block %d at place %d", index, place);
	f->n_held++;
	return f->next_block++;
}

static inline void nx_fake_release(void *ctx, int32_t block)
{
	struct nx_fake *f = (struct nx_fake *)ctx;
	NX_CHECK(block >= 0 && block < f->next_block && f->n_held > 0,
	         "kv_release of block %d, which is not held", block);
	f->n_held--;
}

static inline bool nx_fake_idle(void *ctx, int32_t block)
{
	const struct nx_fake *f = (const struct nx_fake *)ctx;
	return block >= 0 && block < f->next_block;
}

static inline void nx_fake_sync(struct nx_fake *f)
{
	for (int i = 0; i < f->n_work; i++) {
		f->work[i].fn(f->work[i].args);
		free(f->work[i].args);
	}
	f->n_work = 0;
}

static inline int nx_fake_enqueue(void *dev, struct nx_stream *s, nx_enqueue_fn fn,
                                  const void *args, size_t bytes, struct nx_err *err)
{
	struct nx_fake *f = (struct nx_fake *)dev;
	int rc = nx_enqueue_check(bytes, err);
	(void)s;
	if (rc)
		return rc;
	if (f->n_work == NX_FAKE_MAX)
		nx_fake_sync(f);
	/* No more than was given, so that what reads on is found out. */
	void *copy = malloc(bytes ? bytes : 1);
	if (!copy)
		return nx_fail(err, NX_ENOMEM, "the fake host is out of memory");
	if (bytes)
		memcpy(copy, args, bytes);
	f->work[f->n_work].fn = fn;
	f->work[f->n_work++].args = copy;
	return 0;
}

static inline int nx_fake_copy(void *dev, struct nx_stream *s, void *dst, const void *src,
                               size_t bytes, enum nx_copy_dir dir, struct nx_err *err)
{
	(void)s;
	(void)dir;
	(void)err;
	nx_fake_sync((struct nx_fake *)dev);
	memcpy(dst, src, bytes);
	return 0;
}

static inline int nx_fake_fill(void *dev, struct nx_stream *s, void *dst, int byte, size_t bytes,
                               struct nx_err *err)
{
	(void)s;
	(void)err;
	nx_fake_sync((struct nx_fake *)dev);
	memset(dst, byte, bytes);
	return 0;
}

static inline void nx_fake_info(void *dev, struct nx_device_info *out)
{
	(void)dev;
	memset(out, 0, sizeof(*out));
	snprintf(out->name, sizeof(out->name), "fake");
	out->n_units = 1;
	out->act_dtype = NX_F32;
	out->caps = NX_DEV_HOST_MEMORY | NX_DEV_ASYNC;
}

/* A small model: 2 layers, 4 heads over 2, 16 wide; vocabulary 1000, context 256. */
static inline void nx_fake_fill_host(struct nx_fake *f, int32_t places)
{
	struct nx_host *h = &f->host;
	f->ops.abi = NX_DEVICE_ABI;
	f->ops.size = sizeof(f->ops);
	f->ops.name = "fake";
	f->ops.info = nx_fake_info;
	f->ops.alloc = f->ops.host_alloc = nx_fake_dev_alloc;
	f->ops.free = f->ops.host_free = nx_fake_dev_free;
	f->ops.enqueue = nx_fake_enqueue;
	f->ops.copy = nx_fake_copy;
	f->ops.fill = nx_fake_fill;
	f->allocs_left = -1;
	h->abi = NX_TECHNIQUE_ABI;
	h->size = sizeof(*h);
	h->ctx = f;
	h->ops = &f->ops;
	h->dev = f;
	h->model.n_layers = 2;
	h->model.d_model = 64;
	h->model.n_heads = 4;
	h->model.n_kv_heads = 2;
	h->model.head_dim = 16;
	h->model.d_ff = 128;
	h->model.vocab = 1000;
	h->model.max_len = 256;
	h->batch_size = h->max_seqs = places;
	h->max_rows = places * 256;
	h->max_len = 256;
	h->alloc = nx_fake_host_alloc;
	h->free = nx_fake_host_free;
	h->kv_hold = nx_fake_hold;
	h->kv_release = nx_fake_release;
	h->kv_idle = nx_fake_idle;
}

/* ---- the table ---------------------------------------------------------------------------------- */

static inline bool nx_fake_is_name(const char *s)
{
	return s && s[0] >= 'a' && s[0] <= 'z' && strlen(s) < 48 &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(s);
}

/* Parses text as a value of p; keep (64 bytes) holds the text of an ENUM. False = not legal. */
static inline bool nx_fake_parse(const struct nx_param *p, const char *text, struct nx_value *v,
                                 char *keep)
{
	char *end = NULL;
	memset(v, 0, sizeof(*v));
	switch (p->type) {
	case NX_PARAM_INT:
		v->i = strtoll(text, &end, 10);
		v->f = (double)v->i;
		return end != text && !*end && v->f >= p->min && v->f <= p->max;
	case NX_PARAM_FLOAT:
		v->f = strtod(text, &end);
		return end != text && !*end && v->f >= p->min && v->f <= p->max;
	case NX_PARAM_BOOL: v->b = !strcmp(text, "true"); return v->b || !strcmp(text, "false");
	case NX_PARAM_ENUM:
		for (const char *c = p->choices; c && *c; v->i++) {
			size_t n = strcspn(c, "|");
			if (n == strlen(text) && !strncmp(c, text, n)) {
				snprintf(keep, 64, "%s", text);
				v->s = keep;
				return true;
			}
			c += n + (c[n] == '|');
		}
		return false;
	}
	return false;
}

static inline bool nx_fake_together(int have, int all, const char *names)
{
	if (have && have != all)
		NX_CHECK(false, "hooks %s come together or not at all", names);
	return have == all;
}

/* Slots whose hooks are there; counts what is wrong. */
static inline int nx_fake_slots(const struct nx_technique *t)
{
	int draft = (t->flags & NX_TECH_NEEDS_TOKENS) ? 2 : 3;
	return nx_fake_together(!!t->schedule, 1, "schedule") +
	       nx_fake_together(!!t->kv_geometry + !!t->kv_target, 2, "kv_geometry, kv_target") +
	       nx_fake_together(!!t->codec_layout + !!t->codec_attend, 2,
	                        "codec_layout, codec_attend") +
	       nx_fake_together(!!t->prefix_geometry + !!t->prefix_match + !!t->prefix_publish +
	                                !!t->prefix_evict,
	                        4, "prefix_geometry, prefix_match, prefix_publish, prefix_evict") +
	       nx_fake_together(!!t->draft_needs + !!t->propose + (draft == 3 && t->draft), draft,
	                        "draft_needs, propose and draft (or flag NX_TECH_NEEDS_TOKENS)") +
	       nx_fake_together(!!t->weight_pack + !!t->weight_drop + !!t->weight_bytes +
	                                !!t->weight_linear,
	                        4, "weight_pack, weight_drop, weight_bytes, weight_linear") +
	       nx_fake_together(!!t->attention_plan, 1, "attention_plan");
}

/* True when the program would take it. */
static inline bool nx_fake_check_table(const struct nx_technique *t)
{
	struct nx_value v;
	char keep[64];
	int n = 0, before = nx_fake_sum()->failed;
	if (!NX_CHECK(t->magic == NX_TECHNIQUE_MAGIC && t->abi == NX_TECHNIQUE_ABI &&
	                      t->size >= NX_TECHNIQUE_SIZE_MIN,
	              "the table begins with NX_TECHNIQUE_HEAD"))
		return false;
	NX_CHECK(nx_fake_is_name(t->name) && t->version && t->summary && t->source && t->create &&
	                 t->destroy,
	         "the table has a name ([a-z0-9_]+), version, summary, source, create, destroy");
	for (const struct nx_param *p = t->params; p && p->key && n < NX_FAKE_MAX; p++, n++) {
		NX_CHECK(nx_fake_is_name(p->key) && p->unit && p->help &&
		                 (p->type != NX_PARAM_ENUM || p->choices),
		         "parameter row %d has a name, unit, help and, for ENUM, choices", n);
		if (p->def)
			NX_CHECK(nx_fake_parse(p, p->def, &v, keep), "the default of %s is legal",
			         p->key);
	}
	NX_CHECK(n < NX_FAKE_MAX, "the parameter table ends with {0}");
	n = 0;
	for (const struct nx_counter *c = t->counters; c && c->name && n < NX_FAKE_MAX; c++, n++)
		NX_CHECK(nx_fake_is_name(c->name) && c->unit && c->help,
		         "counter row %d has a name, unit and help", n);
	NX_CHECK(n < NX_FAKE_MAX, "the counter table ends with {0}");
	NX_CHECK(!n || t->read_counters, "with counters comes read_counters");
	NX_CHECK(nx_fake_slots(t) > 0, "the hooks of at least one slot are there");
	return nx_fake_sum()->failed == before;
}

/* ---- life --------------------------------------------------------------------------------------- */

/* The table, widened with NULL hooks to this header's size, or NULL. Plugins are never unloaded. */
static inline const struct nx_technique *nx_fake_load(const char *path)
{
	static struct nx_technique wide;
	nx_technique_fn entry;
	char beside[1024];
	snprintf(beside, sizeof(beside), "%s%s", path && strchr(path, '/') ? "" : "./",
	         path ? path : "");
	void *so = path ? dlopen(beside, RTLD_NOW | RTLD_LOCAL) : NULL;
	if (!NX_CHECK(so != NULL, "the plugin loads: %s",
	              path ? dlerror() : "give its path as first argument"))
		return NULL;
	*(void **)&entry = dlsym(so, NX_TECHNIQUE_SYMBOL);
	const struct nx_technique *t = entry ? entry() : NULL;
	if (!NX_CHECK(t != NULL, "it exports %s(): NX_TECHNIQUE(&table); stands at its end",
	              NX_TECHNIQUE_SYMBOL))
		return NULL;
	if (t->magic == NX_TECHNIQUE_MAGIC && t->size < sizeof(wide)) {
		memset(&wide, 0, sizeof(wide));
		memcpy(&wide, t, t->size);
		t = &wide;
	}
	return nx_fake_check_table(t) ? t : NULL;
}

static inline bool nx_fake_set(struct nx_fake *f, const char *key, const char *text)
{
	for (int32_t i = 0; i < f->n_params; i++)
		if (!strcmp(f->t->params[i].key, key))
			return NX_CHECK(
				nx_fake_parse(&f->t->params[i], text, &f->values[i], f->texts[i]),
				"%s=%s is legal", key, text);
	return NX_CHECK(false, "%s is a parameter of %s", key, f->t->name);
}

/* Everything but create: loads it and sets values, "key=value,key=value" over the defaults. 0 or -1. */
static inline int nx_fake_prepare(struct nx_fake *f, const char *path, const char *values,
                                  int32_t places)
{
	memset(f, 0, sizeof(*f));
	nx_fake_fill_host(f, places);
	f->t = nx_fake_load(path);
	if (!f->t)
		return -1;
	while (f->t->counters && f->t->counters[f->n_counters].name)
		f->n_counters++;
	for (; f->t->params && f->t->params[f->n_params].key; f->n_params++) {
		const struct nx_param *p = &f->t->params[f->n_params];
		if (p->def)
			nx_fake_parse(p, p->def, &f->values[f->n_params], f->texts[f->n_params]);
	}
	while (values && *values) {
		char pair[128];
		size_t n = strcspn(values, ",");
		snprintf(pair, sizeof(pair), "%.*s", (int)n, values);
		values += n + (values[n] == ',');
		char *eq = strchr(pair, '=');
		if (!NX_CHECK(eq != NULL, "'%s' is key=value", pair))
			return -1;
		*eq = '\0';
		if (!nx_fake_set(f, pair, eq + 1))
			return -1;
	}
	return 0;
}

/* Asks probe, if there is one, about a device of that kind. What it said. */
static inline int nx_fake_probe(struct nx_fake *f, const char *kind, uint32_t caps,
                                struct nx_err *err)
{
	struct nx_probe p;
	memset(&p, 0, sizeof(p));
	p.model = f->host.model;
	p.batch_size = f->host.batch_size;
	p.max_seqs = f->host.max_seqs;
	p.max_len = f->host.max_len;
	p.values = f->values;
	p.device_caps = caps;
	snprintf(p.device_kind, sizeof(p.device_kind), "%s", kind);
	return f->t->probe ? f->t->probe(&p, err) : 0;
}

/* Probes and creates it. The code of the hook that refused; nothing is counted. */
static inline int nx_fake_create(struct nx_fake *f, struct nx_err *err)
{
	int rc = nx_fake_probe(f, "cpu", NX_DEV_HOST_MEMORY | NX_DEV_ASYNC, err);
	return rc ? rc : f->t->create(&f->self, &f->host, f->values, err);
}

/* Loads, sets values, probes, creates. 0, or -1 with the reason counted as failed. */
static inline int nx_fake_open(struct nx_fake *f, const char *path, const char *values,
                               int32_t places)
{
	struct nx_err err;
	memset(&err, 0, sizeof(err));
	if (nx_fake_prepare(f, path, values, places))
		return -1;
	int rc = nx_fake_create(f, &err);
	return NX_CHECK(rc == 0, "it is created with '%s': %s", values ? values : "", err.msg) ? 0
	                                                                                       : -1;
}

static inline void nx_fake_close(struct nx_fake *f)
{
	nx_fake_sync(f);
	f->t->destroy(f->self);
	f->self = NULL;
	NX_CHECK(f->live_bytes == 0, "destroy frees all that it took: %zu bytes are left",
	         f->live_bytes);
	NX_CHECK(f->n_held == 0, "destroy releases all blocks it holds: %d are left", f->n_held);
}

static inline double nx_fake_counter(const struct nx_fake *f, const char *name)
{
	double v[NX_FAKE_MAX];
	memset(v, 0, sizeof(v));
	if (f->t->read_counters)
		f->t->read_counters(f->self, v);
	for (int32_t i = 0; i < f->n_counters; i++)
		if (!strcmp(f->t->counters[i].name, name))
			return v[i];
	NX_CHECK(false, "%s is a counter of %s", name, f->t->name);
	return 0;
}

/* What every technique must survive: twice to life, reset to nothing, and no memory at any allocation. */
static inline void nx_fake_life(const char *path, const char *values)
{
	struct nx_fake f;
	struct nx_err err;
	for (int turn = 0; turn < 2; turn++) {
		if (nx_fake_open(&f, path, values, 2))
			return;
		if (f.t->reset)
			f.t->reset(f.self);
		NX_CHECK(!f.t->warm || f.t->warm(f.self) == 0, "nothing is warm after reset");
		for (int32_t i = 0; i < f.n_counters; i++)
			NX_CHECK(nx_fake_counter(&f, f.t->counters[i].name) == 0,
			         "%s is 0 after reset", f.t->counters[i].name);
		nx_fake_close(&f);
	}
	for (int allowed = 0; allowed < 32; allowed++) {
		memset(&err, 0, sizeof(err));
		if (nx_fake_prepare(&f, path, values, 2))
			return;
		f.allocs_left = allowed;
		int rc = nx_fake_create(&f, &err);
		if (!rc) { /* it needs no more than that */
			nx_fake_close(&f);
			return;
		}
		NX_CHECK(rc < 0 && err.msg[0] && !strchr(err.msg, '\n'),
		         "without memory create returns a negative code and one sentence");
		NX_CHECK(!f.self && f.live_bytes == 0,
		         "a failed create leaves *self alone and frees what it took");
	}
}

/* ---- draft -------------------------------------------------------------------------------------- */

/* Asks a host drafter for the sequence `request` at place 0, all of whose tokens are given. Returns what it returned,
 * after checking the rows. */
static inline int32_t nx_fake_propose(struct nx_fake *f, uint32_t request, const int32_t *tokens,
                                      int32_t n_tokens, int32_t cap, struct nx_draft_row *rows)
{
	struct nx_draft_seq s;
	memset(&s, 0, sizeof(s));
	s.request = request;
	s.cap = cap;
	s.tokens = tokens;
	s.n_tokens = n_tokens;
	s.n_prompt = 1;
	s.n_out = n_tokens - 1;
	s.max_out = 1 << 20;
	s.last_drafted = s.last_accepted = -1;
	int32_t n = f->t->propose(f->self, &s, rows);
	NX_CHECK(n == NX_UNDRAFTABLE || (n >= 0 && n <= cap), "%d rows are proposed, the cap is %d",
	         n, cap);
	for (int32_t i = 0; i < n && i < cap; i++) {
		NX_CHECK(rows[i].token >= 0 && rows[i].token < f->host.model.vocab,
		         "row %d has a token of the vocabulary: %d", i, rows[i].token);
		NX_CHECK(rows[i].parent >= NX_DRAFT_ROOT && rows[i].parent < i,
		         "row %d hangs from an earlier one: %d", i, rows[i].parent);
		NX_CHECK(rows[i].kind == NX_ROW_CANDIDATE || rows[i].kind == NX_ROW_PROBE,
		         "row %d is a candidate or a probe", i);
	}
	return n;
}

/* ---- schedule ----------------------------------------------------------------------------------- */

/* Sequences that run and wait, as a scheduler sees them. */
struct nx_fake_scene {
	struct nx_sched_seq running[NX_FAKE_MAX], waiting[NX_FAKE_MAX];
	struct nx_grant grants[2 * NX_FAKE_MAX];
	struct nx_sched_view view;
	struct nx_schedule out;
	uint32_t n_requests, n_finished,
		finished[NX_FAKE_MAX]; /* requests in the order they ended */
};

static inline void nx_fake_scene_init(struct nx_fake_scene *s, int32_t places, int32_t max_rows,
                                      int64_t kv_rows)
{
	memset(s, 0, sizeof(*s));
	s->view.running = s->running;
	s->view.waiting = s->waiting;
	s->view.batch_size = s->view.free_seqs = places;
	s->view.max_rows = max_rows;
	s->view.kv_free = s->view.kv_total = kv_rows;
	s->view.split_prompt = true;
}

/* A request arrives. Its number counts from 0. */
static inline void nx_fake_arrive(struct nx_fake_scene *s, int32_t n_prompt, int32_t max_out,
                                  int32_t matched)
{
	struct nx_sched_seq *q = &s->waiting[s->view.n_waiting++];
	memset(q, 0, sizeof(*q));
	q->request = s->n_requests++;
	q->phase = NX_SEQ_WAITING;
	q->samples = 1;
	q->arrival_ns = q->request;
	q->n_prompt = n_prompt;
	q->max_out = max_out;
	q->matched = matched;
	q->pending = n_prompt - matched;
	q->kv_need = n_prompt + max_out;
}

/* Calls the hook and checks what it granted. */
static inline int nx_fake_schedule(struct nx_fake *f, struct nx_fake_scene *s)
{
	struct nx_err err;
	bool seen[2][NX_FAKE_MAX];
	int64_t rows = 0, kv = s->view.kv_free;
	int32_t seats = s->view.free_seqs, bad = 0;
	memset(&err, 0, sizeof(err));
	memset(seen, 0, sizeof(seen));
	memset(&s->out, 0, sizeof(s->out));
	memset(s->grants, 0, sizeof(s->grants));
	s->out.grants = s->grants;
	int rc = f->t->schedule(f->self, &s->view, &s->out, &err);
	if (!NX_CHECK(rc == 0, "schedule: %s", err.msg))
		return rc;
	for (int32_t i = 0; i < s->out.n_grants; i++) {
		const struct nx_grant *g = &s->grants[i];
		int32_t n = g->waiting ? s->view.n_waiting : s->view.n_running;
		if (!NX_CHECK(g->index >= 0 && g->index < n && !seen[g->waiting][g->index],
		              "grant %d is of a sequence that is there, and of each once", i))
			return NX_EBUG;
		const struct nx_sched_seq *q =
			g->waiting ? &s->waiting[g->index] : &s->running[g->index];
		seen[g->waiting][g->index] = true;
		bad += g->rows < 0 || g->rows > q->pending || g->draft < 0 || g->draft > q->draft;
		bad += g->rows < q->pending && !s->view.split_prompt;
		rows += g->rows + g->pad + g->draft;
		seats -= g->waiting;
		kv -= g->waiting ? q->kv_need : 0;
	}
	NX_CHECK(bad == 0, "each grant is of at most the rows that are pending (%d are not)", bad);
	NX_CHECK(rows <= s->view.max_rows, "%d rows are granted, %d fit a step", (int)rows,
	         s->view.max_rows);
	NX_CHECK(seats >= 0, "no more start than there are places");
	NX_CHECK(kv >= 0, "no more start than there is KV room");
	NX_CHECK(rows > 0 || s->out.release_held || s->view.n_running + s->view.n_waiting == 0,
	         "something is granted while something runs or waits");
	return 0;
}

/* Does what was granted: a prompt that is complete gives a token, as does each later row. */
static inline void nx_fake_apply(struct nx_fake_scene *s)
{
	struct nx_sched_seq run[2 * NX_FAKE_MAX], wait[NX_FAKE_MAX];
	int32_t n_run = 0, n_wait = 0, got_run[NX_FAKE_MAX], got_wait[NX_FAKE_MAX];
	memset(got_run, 0xff, sizeof(got_run));
	memset(got_wait, 0xff, sizeof(got_wait));
	for (int32_t i = 0; i < s->out.n_grants; i++)
		(s->grants[i].waiting ? got_wait : got_run)[s->grants[i].index] = s->grants[i].rows;
	for (int32_t i = 0; i < s->view.n_running + s->view.n_waiting; i++) {
		bool waits = i >= s->view.n_running;
		int32_t at = waits ? i - s->view.n_running : i;
		struct nx_sched_seq q = waits ? s->waiting[at] : s->running[at];
		int32_t got = waits ? got_wait[at] : got_run[at];
		if (waits && got < 0) {
			wait[n_wait++] = q;
			continue;
		}
		if (waits) {
			s->view.free_seqs--;
			s->view.kv_free -= q.kv_need;
			q.phase = NX_SEQ_PREFILL;
		}
		q.pending -= got > 0 ? got : 0;
		if (got > 0 && q.pending == 0) {
			q.n_out++;
			q.pending = 1;
			q.phase = NX_SEQ_DECODE;
		}
		if (q.n_out == q.max_out) {
			s->view.free_seqs++;
			s->view.kv_free += q.kv_need;
			s->finished[s->n_finished++] = q.request;
		} else {
			run[n_run++] = q;
		}
	}
	memcpy(s->running, run, (size_t)n_run * sizeof(*run));
	memcpy(s->waiting, wait, (size_t)n_wait * sizeof(*wait));
	s->view.n_running = n_run;
	s->view.n_waiting = n_wait;
}

/* Runs the scene until nobody runs or waits; the number of steps. More than max_steps is a failure. */
static inline int nx_fake_serve(struct nx_fake *f, struct nx_fake_scene *s, int max_steps)
{
	int n = 0;
	for (; s->view.n_running + s->view.n_waiting > 0 && n < max_steps; n++) {
		if (nx_fake_schedule(f, s))
			return n;
		nx_fake_apply(s);
	}
	NX_CHECK(s->view.n_running + s->view.n_waiting == 0, "all end within %d steps", max_steps);
	return n;
}

/* ---- kv_layout ---------------------------------------------------------------------------------- */

/* The geometry for that demand, and targets of every length. */
static inline void nx_fake_layout(struct nx_fake *f, int32_t longest, struct nx_kv_geometry *out)
{
	struct nx_err err;
	struct nx_kv_demand d;
	struct nx_kv_want w;
	memset(&err, 0, sizeof(err));
	memset(&d, 0, sizeof(d));
	memset(&w, 0, sizeof(w));
	memset(out, 0, sizeof(*out));
	d.max_seqs = f->host.max_seqs;
	d.max_len = w.max_len = f->host.max_len;
	d.budget_rows = INT64_MAX;
	d.longest_request = longest;
	int rc = f->t->kv_geometry(f->self, &d, out, &err);
	if (!NX_CHECK(rc == 0, "kv_geometry: %s", err.msg))
		return;
	NX_CHECK(out->block_size >= 1 && out->n_rows >= longest,
	         "the pool has blocks, and room for the longest request");
	NX_CHECK(!out->blocks || out->n_rows % out->block_size == 0,
	         "a pool of blocks is a whole number of them");
	for (w.rows = 1; w.rows <= longest; w.rows++) {
		w.n_prompt = w.rows / 2 + 1;
		w.max_out = longest - w.n_prompt;
		int32_t n = f->t->kv_target(f->self, &w);
		if (!NX_CHECK(n >= w.rows && n <= out->n_rows,
		              "a sequence that needs %d rows gets %d", w.rows, n))
			return;
	}
}

#ifdef __cplusplus
}
#endif
#endif
