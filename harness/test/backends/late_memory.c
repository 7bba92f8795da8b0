/* SPDX-License-Identifier: Apache-2.0
 *
 * test/backends/late_memory.c: device memory that only queued work can reach. An allocation is pages of
 * its own, pushed to their end as far as 64-byte alignment allows; the page behind is never readable.
 */
#define _GNU_SOURCE
#include "late.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HOST_POISON 0xA5

/* NaN in f32 and in bf16, and no index of anything. */
static const uint8_t pattern[2] = {0xc0, 0x7f};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

/* The first allocation that begins above p. */
static size_t above(const struct late_dev *d, const void *p)
{
	size_t lo = 0, hi = d->n_allocs;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if ((uintptr_t)d->allocs[mid].p > (uintptr_t)p)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

bool late_is_device(const struct late_dev *d, const void *p)
{
	size_t i = above(d, p);
	return i && (uintptr_t)p <= (uintptr_t)d->allocs[i - 1].p + d->allocs[i - 1].bytes;
}

static void reach(const struct late_alloc *a, bool open)
{
	if (mprotect(a->map, a->map_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE))
		late_abort("mprotect of %zu bytes failed", a->map_bytes);
}

void late_protect(struct late_dev *d, bool open)
{
	for (size_t i = 0; i < d->n_allocs; i++)
		reach(&d->allocs[i], open);
}

void *late_alloc(void *dev, size_t bytes)
{
	struct late_dev *d = dev;
	if (bytes > SIZE_MAX / 2)
		return NULL;
	size_t used = round_up(bytes ? bytes : 1, 64), page = page_bytes();
	struct late_alloc a = {.map_bytes = round_up(used, page), .bytes = bytes};
	a.map = mmap(NULL, a.map_bytes + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (a.map == MAP_FAILED)
		return NULL;
	reach(&a, true);
	for (size_t i = 0; i < a.map_bytes; i++)
		a.map[i] = pattern[i % 2];
	reach(&a, false);
	a.p = a.map + a.map_bytes - used;

	if (d->n_allocs == d->max_allocs) {
		d->max_allocs = 2 * d->max_allocs + 64;
		d->allocs = late_must(realloc(d->allocs, d->max_allocs * sizeof(*d->allocs)));
	}
	size_t i = above(d, a.p);
	memmove(d->allocs + i + 1, d->allocs + i, (d->n_allocs - i) * sizeof(*d->allocs));
	d->allocs[i] = a;
	d->n_allocs++;
	return a.p;
}

static void whole(const struct late_alloc *a)
{
	const uint8_t *end = a->map + a->map_bytes;
	for (const uint8_t *p = a->map; p < end; p++)
		if ((p < a->p || p >= a->p + a->bytes) && *p != pattern[(size_t)(p - a->map) % 2])
			late_abort("device memory was written %td bytes %s an allocation of %zu",
			           p < a->p ? a->p - p : p - a->p - (ptrdiff_t)a->bytes + 1,
			           p < a->p ? "before" : "behind", a->bytes);
}

void late_free(void *dev, void *p, size_t bytes)
{
	struct late_dev *d = dev;
	if (!p)
		return;
	size_t i = above(d, p);
	if (!i || d->allocs[i - 1].p != p)
		late_abort("free of %p, which alloc has not given", p);
	struct late_alloc a = d->allocs[--i];
	if (a.bytes != bytes)
		late_abort("free of %zu bytes that alloc gave as %zu", bytes, a.bytes);
	late_unnamed(d, p, bytes, "free");
	reach(&a, true);
	whole(&a);
	munmap(a.map, a.map_bytes + page_bytes());
	d->n_allocs--;
	memmove(d->allocs + i, d->allocs + i + 1, (d->n_allocs - i) * sizeof(*d->allocs));
}

void *late_host_alloc(void *dev, size_t bytes)
{
	struct late_dev *d = dev;
	void *p = late_inner->host_alloc(d->inner, bytes);
	if (p && d->poison)
		memset(p, HOST_POISON, bytes);
	return p;
}

void late_host_free(void *dev, void *p, size_t bytes)
{
	struct late_dev *d = dev;
	if (p)
		late_unnamed(d, p, bytes, "host_free");
	late_inner->host_free(d->inner, p, bytes);
}

void late_weight_destroy(void *dev, struct nx_weight *w)
{
	struct late_dev *d = dev;
	if (w)
		late_unnamed(d, w, 1, "weight_destroy");
	late_inner->weight_destroy(d->inner, w);
}

/* Not where queued work has still to read: its stream may allow the memory to be used again. */
void late_poison(struct late_dev *d, void *host, size_t bytes)
{
	const uint8_t *h = host;
	if (!d->poison || !bytes)
		return;
	for (const struct nx_stream *s = d->streams; s; s = s->next)
		for (const struct late_work *k = s->first; k; k = k->next)
			if (k->host_bytes && k->host < h + bytes && h < k->host + k->host_bytes)
				return;
	memset(host, HOST_POISON, bytes);
}
