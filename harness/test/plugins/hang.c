/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/hang.c: a scheduler that never comes back.
 */
#include <stdlib.h>
#include <unistd.h>

#include "mini_schedule.h"

static const struct nx_param params[] = {
	{"after", NX_PARAM_INT, "3", 0, 1000000, NULL, "steps", "steps that go well"},
	{0},
};

struct hang {
	int64_t left;
};

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	(void)host;
	struct hang *s = malloc(sizeof(*s));
	if (!s)
		return nx_fail(err, NX_ENOMEM, "no memory for hang");
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
	struct hang *s = self;
	(void)err;
	if (s->left-- > 0)
		return mini_schedule(view, out);
	for (;;)
		pause();
}

static const struct nx_technique technique = {
	NX_TECHNIQUE_HEAD,    .name = "hang",
	.version = "1",       .summary = "for tests: never returns",
	.source = "none",     .params = params,
	.create = create,     .destroy = destroy,
	.schedule = schedule,
};

NX_TECHNIQUE(&technique);
