/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "cpu/pool.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/*
 * A waiting thread polls, then polls and yields, then sleeps. Sleeping costs the caller a wake-up of each sleeper:
 * with many threads those add up to more than a short wait, everybody sleeps before the next operation, and a step
 * of many small operations becomes one of wake-ups. Yielding lets others have the processor meanwhile.
 */
#define SPIN_NS 50000
#define YIELD_NS 2000000
#define MAX_THREADS 1024

struct worker {
	struct pool *pool;
	pthread_t thread;
	int index, cpu; /* cpu -1: not pinned */
};

struct pool {
	int n, n_started;
	struct worker *workers;
	pool_fn fn;
	void *ctx;
	int64_t n_items;
	/* Lines of their own: the flags are polled by everybody. */
	_Alignas(64) _Atomic uint32_t generation; /* bumped for each piece of work; futex */
	_Alignas(64) _Atomic uint32_t sleepers;
	_Alignas(64) _Atomic uint32_t pending; /* workers that have not finished; futex */
	_Alignas(64) _Atomic uint32_t waiting; /* the caller sleeps on pending */
	_Alignas(64) _Atomic uint32_t quit;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t while_value)
{
	syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, while_value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
	syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static int64_t clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Waits until *word differs from (equal = false) or equals value; false when the time is up. */
static bool spin(_Atomic uint32_t *word, uint32_t value, bool equal)
{
	int64_t began = 0, now;
	do {
		for (int i = 0; i < 64; i++) {
			if ((atomic_load_explicit(word, memory_order_acquire) == value) == equal)
				return true;
			__builtin_ia32_pause();
		}
		now = clock_ns();
		if (!began)
			began = now;
		else if (now - began > SPIN_NS)
			sched_yield();
	} while (now - began < YIELD_NS);
	return false;
}

static void run_part(struct pool *p, int thread)
{
	int64_t begin = p->n_items * thread / p->n, end = p->n_items * (thread + 1) / p->n;
	if (begin < end)
		p->fn(p->ctx, begin, end, thread);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct pool *p = w->pool;
	if (w->cpu >= 0) {
		cpu_set_t set;
		CPU_ZERO(&set);
		CPU_SET(w->cpu, &set);
		sched_setaffinity(0, sizeof(set), &set); /* a refusal costs speed alone */
	}
	for (uint32_t seen = 0;;) {
		if (!spin(&p->generation, seen, false)) {
			atomic_fetch_add(&p->sleepers, 1);
			while (atomic_load(&p->generation) == seen)
				futex_wait(&p->generation, seen);
			atomic_fetch_sub(&p->sleepers, 1);
		}
		seen++; /* the caller waits for all, so a generation is never missed */
		if (atomic_load(&p->quit))
			return NULL;
		run_part(p, w->index);
		/* No system call while the caller spins, as it does between the operations of a step. */
		if (atomic_fetch_sub(&p->pending, 1) == 1 && atomic_load(&p->waiting))
			futex_wake(&p->pending, 1);
	}
}

void pool_for(struct pool *p, int64_t n, pool_fn fn, void *ctx)
{
	if (n <= 0)
		return;
	if (p->n == 1 || n == 1) {
		fn(ctx, 0, n, 0);
		return;
	}
	p->fn = fn;
	p->ctx = ctx;
	p->n_items = n;
	atomic_store(&p->pending, (uint32_t)p->n - 1);
	atomic_fetch_add(&p->generation, 1);
	if (atomic_load(&p->sleepers))
		futex_wake(&p->generation, INT_MAX);
	run_part(p, 0);
	if (spin(&p->pending, 0, true))
		return;
	atomic_store(&p->waiting, 1);
	for (uint32_t left; (left = atomic_load(&p->pending)) != 0;)
		futex_wait(&p->pending, left);
	atomic_store(&p->waiting, 0);
}

int pool_size(const struct pool *p)
{
	return p->n;
}

/* CPU number of the i-th member of the set, wrapping round. */
static int nth_cpu(const cpu_set_t *set, int i)
{
	int n = CPU_COUNT(set);
	if (n == 0)
		return -1;
	i %= n;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, set) && i-- == 0)
			return cpu;
	return -1;
}

int pool_create(struct pool **out, int n_threads, struct nx_err *err)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	if (sched_getaffinity(0, sizeof(set), &set))
		CPU_ZERO(&set);
	if (n_threads == 0)
		n_threads = CPU_COUNT(&set) ? CPU_COUNT(&set) : 1;
	if (n_threads < 0 || n_threads > MAX_THREADS)
		return nx_fail(err, NX_EINVAL, "threads: found %d; legal: 0 (all) to %d", n_threads,
		               MAX_THREADS);
	struct pool *p = aligned_alloc(64, (sizeof(*p) + 63) / 64 * 64);
	struct worker *workers = calloc((size_t)n_threads, sizeof(*workers));
	if (!p || !workers) {
		free(p);
		free(workers);
		return nx_fail(err, NX_ENOMEM, "no memory for a pool of %d threads", n_threads);
	}
	*p = (struct pool){.n = n_threads, .n_started = 1, .workers = workers};
	for (int i = 1; i < n_threads; i++) {
		workers[i] = (struct worker){.pool = p, .index = i, .cpu = nth_cpu(&set, i)};
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i])) {
			pool_destroy(p);
			return nx_fail(err, NX_EENV, "cannot start thread %d of %d", i, n_threads);
		}
		p->n_started++;
	}
	*out = p;
	return 0;
}

void pool_destroy(struct pool *p)
{
	if (!p)
		return;
	atomic_store(&p->quit, 1);
	atomic_fetch_add(&p->generation, 1);
	futex_wake(&p->generation, INT_MAX);
	for (int i = 1; i < p->n_started; i++)
		pthread_join(p->workers[i].thread, NULL);
	free(p->workers);
	free(p);
}
