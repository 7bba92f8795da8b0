/* SPDX-License-Identifier: Apache-2.0
 *
 * test/backends/late_queue.c: streams, events and the work on them, which runs in waits alone.
 */
#include "late.h"

#include <stdlib.h>
#include <string.h>

/* ---- work that is being put together */

struct late_work *late_begin(void *dev)
{
	struct late_work *k = late_must(calloc(1, sizeof(*k)));
	k->d = dev;
	return k;
}

void *late_keep(struct late_work *k, const void *p, size_t bytes)
{
	if (!p)
		return NULL;
	struct late_piece *piece = late_must(malloc(sizeof(*piece) + bytes));
	piece->next = k->pieces;
	piece->bytes = bytes;
	k->pieces = piece;
	memcpy(piece->data, p, bytes);
	return piece->data;
}

void late_check(struct late_work *k, const void *p, const char *what)
{
	if (p && !k->stray && !late_is_device(k->d, p))
		k->stray = what;
}

void late_reads(struct late_work *k, const void *host, size_t bytes)
{
	k->host = host;
	k->host_bytes = bytes;
}

static void work_free(struct late_work *k)
{
	while (k->pieces) {
		struct late_piece *next = k->pieces->next;
		free(k->pieces);
		k->pieces = next;
	}
	free(k);
}

static int stuck(const struct late_dev *d, struct nx_err *err)
{
	if (d->sticky.code && err)
		*err = d->sticky;
	return d->sticky.code;
}

int late_push(struct late_work *k, struct nx_stream *s, late_run_fn run, const void *args,
              size_t bytes, struct nx_err *err)
{
	struct late_dev *d = k->d;
	int rc = stuck(d, err);
	if (!rc && k->stray)
		rc = nx_fail(err, NX_EBUG, "%s does not point into device memory", k->stray);
	if (rc) {
		work_free(k);
		return rc;
	}
	s = s ? s : &d->own;
	k->run = run;
	k->args = late_keep(k, args, bytes);
	struct late_work ***end = s->capture ? &s->capture->end : &s->end;
	**end = k;
	*end = &k->next;
	return 0;
}

/* ---- running it */

static int run_graph(struct late_dev *d, void *args, struct nx_err *err);

static void pop(struct nx_stream *s)
{
	struct late_work *k = s->first;
	if (k->run == run_graph)
		(*(struct nx_graph **)k->args)->queued--;
	s->first = k->next;
	if (!s->first)
		s->end = &s->first;
	if (k->record && k->record->last == k)
		k->record->done = true;
	work_free(k);
}

void late_drop_all(struct late_dev *d)
{
	for (struct nx_stream *s = d->streams; s; s = s->next)
		while (s->first)
			pop(s);
}

static uint64_t draw(struct late_dev *d, uint64_t n)
{
	uint64_t z = d->rng += 0x9e3779b97f4a7c15u; /* splitmix64 */
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (z ^ (z >> 31)) % n;
}

static struct nx_stream *any_stream(struct late_dev *d)
{
	uint64_t n = 0;
	for (struct nx_stream *s = d->streams; s; s = s->next)
		n += s->first != NULL;
	uint64_t k = draw(d, n);
	for (struct nx_stream *s = d->streams;; s = s->next)
		if (s->first && k-- == 0)
			return s;
}

static void run_first(struct late_dev *d, struct nx_stream *s)
{
	struct late_work *k = s->first;
	int rc = k->run ? k->run(d, k->args, &d->sticky) : 0;
	if (rc) {
		d->sticky.code = rc;
		late_drop_all(d);
	} else {
		pop(s);
	}
}

/* Until the event, or else the whole stream, is done. Other streams get as far as chance lets them. */
static int wait(struct late_dev *d, struct nx_stream *s, const struct nx_event *e,
                struct nx_err *err)
{
	bool ran = false;
	if (s && s->capture)
		late_abort("a stream that is being captured was waited for");
	while (e ? !e->done : s->first != NULL) {
		if (!ran)
			late_protect(d, true);
		ran = true;
		struct nx_stream *next = any_stream(d);
		for (uint64_t n = 1 + draw(d, 8); n && next->first; n--) {
			run_first(d, next);
			if (next == s && e && e->done)
				break;
		}
	}
	if (ran)
		late_protect(d, false);
	return stuck(d, err);
}

/* What queued work was given, taken word by word, holds every pointer that it names. */
static bool names(const struct late_work *k, uintptr_t lo, size_t bytes)
{
	for (const struct late_piece *piece = k->pieces; piece; piece = piece->next)
		for (size_t i = 0; i + sizeof(uintptr_t) <= piece->bytes; i += sizeof(uintptr_t)) {
			uintptr_t word;
			memcpy(&word, piece->data + i, sizeof(word));
			if (word - lo < bytes)
				return true;
		}
	return false;
}

void late_unnamed(struct late_dev *d, const void *p, size_t bytes, const char *call)
{
	for (const struct nx_stream *s = d->streams; s; s = s->next)
		for (const struct late_work *k = s->first; k; k = k->next)
			if (names(k, (uintptr_t)p, bytes))
				late_abort("%s of %zu bytes that queued work still names", call,
				           bytes);
}

/* ---- streams */

int late_stream_create(void *dev, struct nx_stream **out, struct nx_err *err)
{
	struct late_dev *d = dev;
	struct nx_stream *s = late_must(calloc(1, sizeof(*s)));
	(void)err;
	s->end = &s->first;
	s->next = d->streams;
	d->streams = s;
	*out = s;
	return 0;
}

/* As on a GPU, the work of a destroyed stream is still done. */
void late_stream_destroy(void *dev, struct nx_stream *s)
{
	struct late_dev *d = dev;
	if (!s)
		return;
	wait(d, s, NULL, NULL);
	for (struct nx_stream **at = &d->streams; *at; at = &(*at)->next)
		if (*at == s) {
			*at = s->next;
			break;
		}
	free(s);
}

int late_stream_sync(void *dev, struct nx_stream *s, struct nx_err *err)
{
	struct late_dev *d = dev;
	return wait(d, s ? s : &d->own, NULL, err);
}

/* ---- events */

int late_event_create(void *dev, struct nx_event **out, struct nx_err *err)
{
	(void)dev;
	(void)err;
	*out = late_must(calloc(1, sizeof(**out)));
	(*out)->done = true;
	return 0;
}

void late_event_destroy(void *dev, struct nx_event *e)
{
	struct late_dev *d = dev;
	for (struct nx_stream *s = d->streams; s; s = s->next)
		for (struct late_work *k = s->first; k; k = k->next)
			if (k->record == e)
				k->record = NULL;
	free(e);
}

int late_event_record(void *dev, struct nx_stream *s, struct nx_event *e, struct nx_err *err)
{
	struct late_dev *d = dev;
	struct late_work *k = late_begin(dev);
	k->record = e;
	int rc = late_push(k, s, NULL, NULL, 0, err);
	if (rc)
		return rc;
	e->stream = s ? s : &d->own;
	e->last = k;
	e->done = false;
	return 0;
}

int late_event_wait(void *dev, struct nx_event *e, struct nx_err *err)
{
	return wait(dev, e->stream, e, err);
}

/* ---- graphs */

int late_graph_begin(void *dev, struct nx_stream *s, struct nx_err *err)
{
	struct late_dev *d = dev;
	s = s ? s : &d->own;
	if (s && s->capture)
		return nx_fail(err, NX_EBUG, "the stream is being captured already");
	s->capture = late_must(calloc(1, sizeof(*s->capture)));
	s->capture->end = &s->capture->first;
	return 0;
}

int late_graph_end(void *dev, struct nx_stream *s, struct nx_graph **out, struct nx_err *err)
{
	struct late_dev *d = dev;
	s = s ? s : &d->own;
	if (!s->capture)
		return nx_fail(err, NX_EBUG, "the stream is not being captured");
	*out = s->capture;
	s->capture = NULL;
	return 0;
}

/* Copies of all pieces, in the same order. */
static struct late_piece *keep_pieces(const struct late_work *k)
{
	struct late_piece *first = NULL, **end = &first;
	for (const struct late_piece *p = k->pieces; p; p = p->next) {
		*end = late_must(malloc(sizeof(*p) + p->bytes));
		memcpy(*end, p, sizeof(*p) + p->bytes);
		end = &(*end)->next;
	}
	*end = NULL;
	return first;
}

static void restore_pieces(struct late_work *k, struct late_piece *from)
{
	for (struct late_piece *p = k->pieces; p; p = p->next) {
		struct late_piece *next = from->next;
		memcpy(p->data, from->data, p->bytes);
		free(from);
		from = next;
	}
}

static int run_graph(struct late_dev *d, void *args, struct nx_err *err)
{
	struct nx_graph *g = *(struct nx_graph **)args;
	int rc = 0;
	for (struct late_work *k = g->first; k && !rc; k = k->next) {
		if (k->record)
			late_abort("an event was recorded in a captured graph");
		/* A function may write into its arguments; the next launch wants them as they were. */
		struct late_piece *as_they_were = keep_pieces(k);
		rc = k->run ? k->run(d, k->args, err) : 0;
		restore_pieces(k, as_they_were);
	}
	return rc;
}

int late_graph_launch(void *dev, struct nx_stream *s, struct nx_graph *g, struct nx_err *err)
{
	struct late_work *k = late_begin(dev);
	int rc = late_push(k, s, run_graph, &g, sizeof(g), err);
	if (!rc)
		g->queued++;
	return rc;
}

void late_graph_destroy(void *dev, struct nx_graph *g)
{
	(void)dev;
	if (!g)
		return;
	if (g->queued)
		late_abort("a graph was destroyed while %d launches of it were queued", g->queued);
	while (g->first) {
		struct late_work *next = g->first->next;
		work_free(g->first);
		g->first = next;
	}
	free(g);
}
