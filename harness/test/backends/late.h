/* SPDX-License-Identifier: Apache-2.0
 *
 * test/backends/late.h: the parts of the late device; see late.c for what it is and late_ops.c for how to
 * add an operation.
 */
#ifndef NEXUS_TEST_LATE_H
#define NEXUS_TEST_LATE_H

#include "nexus/device.h"

struct late_dev;

/* A piece of memory that a queued operation keeps of its arguments. */
struct late_piece {
	struct late_piece *next;
	size_t bytes;
	_Alignas(16) uint8_t data[];
};

typedef int (*late_run_fn)(struct late_dev *d, void *args, struct nx_err *err);

struct late_work {
	struct late_dev *d;
	struct late_work *next;
	late_run_fn run; /* NULL: a record */
	void *args;
	struct late_piece *pieces;
	struct nx_event *record;
	const uint8_t *host; /* host memory that it reads when it runs */
	size_t host_bytes;
	const char *stray; /* argument that is not device memory where it has to be */
};

struct nx_stream {
	struct nx_stream *next;
	struct late_work *first, **end;
	struct nx_graph *capture; /* work goes there instead; NULL = none */
};

/* Captured work: run as often as it is launched, with the arguments of its capture. */
struct nx_graph {
	struct late_work *first, **end;
	int32_t queued; /* launches that have not run */
};

struct nx_event {
	struct nx_stream *stream;
	const struct late_work *last; /* the latest record */
	bool done;
};

struct late_alloc {
	uint8_t *map, *p;
	size_t map_bytes; /* without the guard page */
	size_t bytes;
};

struct late_dev {
	void *inner;
	struct late_alloc *allocs; /* by address */
	size_t n_allocs, max_allocs;
	struct nx_stream *streams; /* all of them; own is the last */
	struct nx_stream own;      /* the stream called NULL */
	struct nx_err sticky;      /* code 0 = nothing has failed */
	uint64_t rng;
	bool poison;
	/* NEXUS_LATE_BLIND: attention's keys, which are left to who enqueues it */
	struct nx_counted hidden, added;
	struct nx_uncounted uncounted;
};

/* The table of the real backend, once a device has been opened. */
extern const struct nx_device_ops *late_inner;

NX_PRINTF(1, 2) _Noreturn void late_abort(const char *fmt, ...);
void *late_must(void *p); /* p, or abort where memory is out */

/* ---- memory: late_memory.c */

void *late_alloc(void *dev, size_t bytes);
void late_free(void *dev, void *p, size_t bytes);
void *late_host_alloc(void *dev, size_t bytes);
void late_host_free(void *dev, void *p, size_t bytes);
void late_weight_destroy(void *dev, struct nx_weight *w);
/* All device memory is readable and writable, or out of reach. */
void late_protect(struct late_dev *d, bool reach);
/* Whether the host may not touch p: it lies in an allocation, or right at its end. */
bool late_is_device(const struct late_dev *d, const void *p);
/* The destination of a copy to the host holds nothing until the copy has run. */
void late_poison(struct late_dev *d, void *host, size_t bytes);

/* ---- the queue: late_queue.c */

struct late_work *late_begin(void *dev);
/* A copy of bytes that lives as long as the work; NULL stays NULL. */
void *late_keep(struct late_work *k, const void *p, size_t bytes);
void late_check(struct late_work *k, const void *p, const char *what);
/* The work reads host memory when it runs. */
void late_reads(struct late_work *k, const void *host, size_t bytes);
/* Queues the work with a copy of its args; returns at once, with the error the device is stuck in. */
int late_push(struct late_work *k, struct nx_stream *s, late_run_fn run, const void *args,
              size_t bytes, struct nx_err *err);
/* Aborts when queued work names anything in [p, p + bytes). */
void late_unnamed(struct late_dev *d, const void *p, size_t bytes, const char *call);
void late_drop_all(struct late_dev *d);

int late_stream_create(void *dev, struct nx_stream **out, struct nx_err *err);
void late_stream_destroy(void *dev, struct nx_stream *s);
int late_stream_sync(void *dev, struct nx_stream *s, struct nx_err *err);
int late_event_create(void *dev, struct nx_event **out, struct nx_err *err);
void late_event_destroy(void *dev, struct nx_event *e);
int late_event_record(void *dev, struct nx_stream *s, struct nx_event *e, struct nx_err *err);
int late_event_wait(void *dev, struct nx_event *e, struct nx_err *err);
int late_graph_begin(void *dev, struct nx_stream *s, struct nx_err *err);
int late_graph_end(void *dev, struct nx_stream *s, struct nx_graph **out, struct nx_err *err);
int late_graph_launch(void *dev, struct nx_stream *s, struct nx_graph *g, struct nx_err *err);
void late_graph_destroy(void *dev, struct nx_graph *g);

/* ---- instruments: late_instruments.c */

const struct nx_instrument_ops *late_instruments(void); /* NULL = none */

/* a += b, or a -= b with sign -1. */
void late_add_counted(struct nx_counted *a, const struct nx_counted *b, int sign);
bool late_blind(void);

/* ---- operations: late_ops.c, and what the table says of them */

void late_set_ops(struct nx_device_ops *t);

#endif
