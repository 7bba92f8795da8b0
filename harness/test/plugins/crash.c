/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/crash.c: a scheduler that dies by a signal: what a wild pointer in a technique does.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "mini_schedule.h"

static const struct nx_param params[] = {
	{"after", NX_PARAM_INT, "3", 0, 1000000, NULL, "steps", "steps that go well"},
	{0},
};

struct crash {
	int64_t left;
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	struct crash *s = malloc(sizeof(*s));
	if (!s)
		return nx_fail(err, NX_ENOMEM, "no memory for crash");
	s->left = values[0].i;
	*self = s;
	return 0;
}

static void destroy(void *self)
{
	free(self);
}

static int schedule(void *self, const struct nx_sched_view *view, struct nx_schedule *out,
                    struct nx_err *err)
{
	struct crash *s = self;
	(void)err;
	if (s->left-- > 0)
		return mini_schedule(view, out);
	fprintf(stderr, "crash: about to die\n");
	signal(SIGSEGV, SIG_DFL); /* past a sanitizer's handler */
	raise(SIGSEGV);
	return 0;
}

static const struct nx_technique technique = {
	NX_TECHNIQUE_HEAD,    .name = "crash",
	.version = "1",       .summary = "for tests: dies by SIGSEGV",
	.source = "none",     .params = params,
	.create = create,     .destroy = destroy,
	.schedule = schedule,
};

NX_TECHNIQUE(&technique);
