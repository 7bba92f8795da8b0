/* SPDX-License-Identifier: Apache-2.0
 *
 * test/plugins/null_draft.c: takes the draft slot and never drafts. It is a device drafter: one on the host would
 * need every token there, and so keep the engine from planning ahead, which costs more than nothing.
 */
#include "nexus/technique.h"

static int create(void **self, const struct nx_host *host, const struct nx_value *values,
                  struct nx_err *err)
{
	static int nothing;
	(void)host;
	(void)values;
	(void)err;
	*self = &nothing;
	return 0;
}

static void destroy(void *self)
{
	(void)self;
}

static void event(void *self, const struct nx_seq_event *e)
{
	(void)self;
	(void)e;
}

static int draft_needs(void *self, const struct nx_draft_limits *l, struct nx_draft_needs *out,
                       struct nx_err *err)
{
	(void)self;
	(void)l;
	(void)err;
	*out = (struct nx_draft_needs){.max_rows = 1};
	return 0;
}

static int32_t propose(void *self, const struct nx_draft_seq *s, struct nx_draft_row *rows)
{
	(void)self;
	(void)s;
	(void)rows;
	return 0;
}

static int draft(void *self, struct nx_stream *s, const struct nx_draft_step *d, struct nx_err *err)
{
	(void)self;
	(void)s;
	(void)d;
	(void)err;
	return 0;
}

static const struct nx_technique null_draft = {
	NX_TECHNIQUE_HEAD,  .name = "null_draft",
	.version = "1",     .summary = "for tests: a drafter that never drafts",
	.source = "none",   .flags = NX_TECH_EXACT,
	.create = create,   .destroy = destroy,
	.event = event,     .draft_needs = draft_needs,
	.propose = propose, .draft = draft,
};

NX_TECHNIQUE(&null_draft);
