/* SPDX-License-Identifier: Apache-2.0
 *
 * telemetry.c: what the device says of itself while a trial runs. See instrument.h.
 *
 * Readings are made by a thread of its own, NX_READ_EVERY_NS apart. That of the energy takes five times as long as all
 * others, and is a sum: it is read before the trial and after it. Reasons of throttling that come and go between two
 * readings are not seen.
 */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "measure/instrument.h"

#define NX_READ_EVERY_NS 250000000ll

struct nx_telemetry_watch {
	const struct nx_device *dev;
	pthread_t thread;
	bool running; /* the thread was made */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool end;
	double begin_j;
	struct nx_device_state sum; /* means still added up */
	double n_clock, n_mem_clock, n_use;
};

/* Adds to a sum unless it is not known. */
static void add(double *sum, double *n, double v)
{
	if (!isfinite(v))
		return;
	*sum = (isfinite(*sum) ? *sum : 0) + v;
	++*n;
}

static void most(double *to, double v)
{
	if (isfinite(v) && !(*to >= v))
		*to = v;
}

static bool take(struct nx_telemetry_watch *w)
{
	struct nx_telemetry t;
	struct nx_device_state *s = &w->sum;
	if (w->dev->ops->instruments->telemetry(w->dev->dev, &t, NULL))
		return false;
	s->n_samples++;
	add(&s->sm_clock_hz, &w->n_clock, t.sm_clock_hz);
	add(&s->mem_clock_hz, &w->n_mem_clock, t.mem_clock_hz);
	add(&s->utilisation, &w->n_use, t.utilisation);
	if (isfinite(t.sm_clock_hz) && !(s->sm_clock_low_hz <= t.sm_clock_hz))
		s->sm_clock_low_hz = t.sm_clock_hz;
	most(&s->power_w, t.power_w);
	most(&s->temperature_c, t.temperature_c);
	most(&s->mem_used_bytes, t.mem_used_bytes < 0 ? NAN : (double)t.mem_used_bytes);
	most(&s->other_processes, t.n_other_processes < 0 ? NAN : t.n_other_processes);
	if (t.throttle >= 0)
		s->throttle = (s->throttle < 0 ? 0 : s->throttle) |
		              (t.throttle & ~(int64_t)NX_THROTTLE_IDLE);
	return true;
}

static double energy(const struct nx_device *dev)
{
	const struct nx_instrument_ops *ops = dev->ops->instruments;
	double j = NAN;
	return ops->energy && !ops->energy(dev->dev, &j, NULL) ? j : NAN;
}

static void *watch(void *arg)
{
	struct nx_telemetry_watch *w = arg;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	pthread_mutex_lock(&w->lock);
	while (!w->end) {
		until.tv_nsec += NX_READ_EVERY_NS;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		while (!w->end && !pthread_cond_timedwait(&w->wake, &w->lock, &until))
			;
		if (!w->end)
			(void)take(w);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

struct nx_telemetry_watch *nx_telemetry_begin(const struct nx_device *dev)
{
	struct nx_trial none;
	pthread_condattr_t attr;
	if (!dev->ops->instruments || !dev->ops->instruments->telemetry)
		return NULL;
	struct nx_telemetry_watch *w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	nx_trial_init(&none);
	w->dev = dev;
	w->sum = none.device;
	if (!take(w)) {
		free(w);
		return NULL;
	}
	/* The first reading shows that there is something to read: an idle device has other clocks. */
	w->sum = none.device;
	w->n_clock = w->n_mem_clock = w->n_use = 0;
	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->wake, &attr);
	pthread_condattr_destroy(&attr);
	w->begin_j = energy(dev);
	w->running = !pthread_create(&w->thread, NULL, watch, w);
	return w;
}

void nx_telemetry_end(struct nx_telemetry_watch *w, struct nx_device_state *out)
{
	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->end = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	if (w->running)
		pthread_join(w->thread, NULL);
	double j = energy(w->dev) - w->begin_j;
	if (take(w)) {
		*out = w->sum;
		out->sm_clock_hz /= w->n_clock; /* 0 / 0 and NaN: not known */
		out->mem_clock_hz /= w->n_mem_clock;
		out->utilisation /= w->n_use;
		out->energy_j = j >= 0 ? j : NAN;
	}
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

const char *nx_throttle_text(int64_t bits, char *buf, size_t size)
{
	static const struct {
		int64_t bit;
		const char *text;
	} reasons[] = {
#define X(name, bit, text) {NX_THROTTLE_##name, text},
		NX_THROTTLES(X)
#undef X
	};
	size_t at = 0;
	buf[0] = '\0';
	for (size_t i = 0; bits > 0 && i < sizeof(reasons) / sizeof(reasons[0]); i++)
		if ((bits & reasons[i].bit) && at < size)
			at += (size_t)snprintf(buf + at, size - at, "%s%s", at ? ", " : "",
			                       reasons[i].text);
	return buf;
}
