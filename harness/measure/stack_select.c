/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/stack_select.c: which stacks are swept, in which order, and against which one ratios are taken.
 */
#include <string.h>

#include "base/text.h"
#include "measure/experiment_internal.h"

struct selection {
	struct nx_loading *l;
	size_t *picked; /* indices into l->expanded */
	size_t n;
};

/* Names that may stand in sweep.stack: stacks as written, and what their axes made of them. */
static const char **legal_names(struct nx_loading *l, size_t *n)
{
	size_t n_defs = 0;
	for (const struct nx_stack_def *d = l->defs; d; d = d->next)
		n_defs++;
	const char **names = nx_arena_array(l->arena, n_defs + l->n_expanded, sizeof(*names));
	*n = 0;
	if (!names)
		return NULL;
	names[(*n)++] = NX_BASELINE;
	for (const struct nx_stack_def *d = l->defs; d; d = d->next)
		names[(*n)++] = d->name;
	for (size_t i = 1; i < l->n_expanded; i++) {
		bool same = false;
		for (const struct nx_stack_def *d = l->defs; d && !same; d = d->next)
			same = strcmp(d->name, l->expanded[i].named.name) == 0;
		if (!same)
			names[(*n)++] = l->expanded[i].named.name;
	}
	return names;
}

static int pick(struct selection *s, size_t i, const struct nx_yaml *v, struct nx_err *err)
{
	for (size_t k = 0; k < s->n; k++)
		if (s->picked[k] == i)
			return nx_yaml_fail(v, err, NX_EINVAL,
			                    "found the stack %s a second time; legal: each once",
			                    s->l->expanded[i].named.name);
	s->picked[s->n++] = i;
	return 0;
}

/* The stacks that a name means: one that is called so, or all that a stack was multiplied out to. */
static int find_stacks(struct nx_loading *l, const char *name, size_t *first, size_t *n)
{
	for (size_t i = 0; i < l->n_expanded; i++)
		if (strcmp(l->expanded[i].named.name, name) == 0) {
			*first = i;
			*n = 1;
			return 0;
		}
	for (const struct nx_stack_def *d = l->defs; d; d = d->next)
		if (strcmp(d->name, name) == 0) {
			*first = d->first;
			*n = d->n;
			return 0;
		}
	return NX_EINVAL;
}

static int pick_named(struct selection *s, const struct nx_yaml *v, struct nx_err *err)
{
	size_t first, n;
	if (v->kind != NX_YAML_SCALAR || v->null || find_stacks(s->l, v->text, &first, &n)) {
		const char **names = legal_names(s->l, &n);
		return names ? nx_yaml_unknown(v, names, n, err) : nx_oom(err);
	}
	int rc = 0;
	for (size_t i = 0; rc == 0 && i < n; i++)
		rc = pick(s, first + i, v, err);
	return rc;
}

static int select_all(struct selection *s, struct nx_err *err)
{
	const struct nx_yaml *v = nx_yaml_get(nx_yaml_get(s->l->root, "sweep"), "stack");
	int rc = 0;
	if (!v) {
		for (size_t i = 0; i < s->l->n_expanded; i++)
			s->picked[s->n++] = i;
		return 0;
	}
	if (v->kind != NX_YAML_LIST)
		return pick_named(s, v, err);
	if (v->n == 0)
		return nx_yaml_fail(v, err, NX_EINVAL,
		                    "found an empty list for stack; legal: at least one stack");
	for (const struct nx_yaml *c = v->first; rc == 0 && c; c = c->next)
		rc = pick_named(s, c, err);
	return rc;
}

/* A scheduler that never fills the batch would be measured at another batch size than the cell's name. */
static int check_max_batch(struct nx_loading *l, const struct nx_expanded *e, struct nx_err *err)
{
	const struct nx_experiment *x = &l->full->x;
	char place[256] = "the default of sweep.batch_size";
	for (size_t i = 0; e->max_batch_size > 0 && i < x->n_batch_size; i++) {
		if (x->batch_size[i] != NX_BATCH_FIT && e->max_batch_size >= x->batch_size[i])
			continue;
		if (l->batch_where)
			nx_yaml_place(l->batch_where, place, sizeof(place));
		if (x->batch_size[i] == NX_BATCH_FIT)
			return nx_yaml_fail(
				e->max_batch_where, err, NX_EINVAL,
				"found max_batch_size %lld beside the batch size fit (%s); legal: 0, the cell's batch size",
				(long long)e->max_batch_size, place);
		return nx_yaml_fail(
			e->max_batch_where, err, NX_EINVAL,
			"found max_batch_size %lld below the batch size %d (%s); legal: at least %d, or smaller batch sizes",
			(long long)e->max_batch_size, x->batch_size[i], place, x->batch_size[i]);
	}
	return 0;
}

/* `baseline` unless the file says otherwise; the first stack of a sweep that does without a baseline. */
static int load_reference(struct nx_loading *l, const struct selection *s, struct nx_err *err)
{
	struct nx_experiment *x = &l->full->x;
	const struct nx_yaml *v = nx_yaml_get(l->root, "reference");
	x->reference = 0;
	if (!v) {
		for (size_t i = 0; i < s->n; i++)
			if (s->picked[i] == 0)
				x->reference = i;
		return 0;
	}
	size_t first, n;
	const char **names = nx_arena_array(l->arena, x->n_stacks, sizeof(*names));
	if (!names)
		return nx_oom(err);
	for (size_t i = 0; i < x->n_stacks; i++)
		names[i] = x->stacks[i].name;
	if (v->kind == NX_YAML_SCALAR && !v->null && find_stacks(l, v->text, &first, &n) == 0 &&
	    n == 1)
		for (size_t i = 0; i < s->n; i++)
			if (s->picked[i] == first) {
				x->reference = i;
				return 0;
			}
	return nx_yaml_unknown(v, names, x->n_stacks,
	                       err); /* also one that is not swept, or is several */
}

static int mark_unrecorded(struct nx_loading *l, const struct selection *s, const struct nx_yaml *v,
                           struct nx_err *err)
{
	struct nx_experiment *x = &l->full->x;
	size_t first = 0, n = 0;
	bool swept = false;
	if (v->kind == NX_YAML_SCALAR && !v->null)
		(void)find_stacks(l, v->text, &first, &n);
	for (size_t i = 0; i < s->n; i++)
		if (s->picked[i] >= first && s->picked[i] < first + n)
			x->stacks[i].unrecorded = swept = true;
	if (swept)
		return 0;
	const char **names = nx_arena_array(l->arena, x->n_stacks, sizeof(*names));
	for (size_t i = 0; names && i < x->n_stacks; i++)
		names[i] = x->stacks[i].name;
	return names ? nx_yaml_unknown(v, names, x->n_stacks, err) : nx_oom(err);
}

/* One name or a list of them. */
static int load_unrecorded(struct nx_loading *l, const struct selection *s, struct nx_err *err)
{
	const struct nx_yaml *v = nx_yaml_get(l->root, "unrecorded");
	int rc = 0;
	if (!v || v->kind != NX_YAML_LIST)
		return v ? mark_unrecorded(l, s, v, err) : 0;
	for (const struct nx_yaml *c = v->first; rc == 0 && c; c = c->next)
		rc = mark_unrecorded(l, s, c, err);
	return rc;
}

int nx_select_stacks(struct nx_loading *l, struct nx_err *err)
{
	struct nx_experiment *x = &l->full->x;
	struct selection s = {.l = l,
	                      .picked = nx_arena_array(l->arena, l->n_expanded, sizeof(*s.picked))};
	int rc = s.picked ? select_all(&s, err) : nx_oom(err);
	if (rc)
		return rc;
	x->stacks = nx_arena_array(l->arena, s.n, sizeof(*x->stacks));
	if (!x->stacks)
		return nx_oom(err);
	for (size_t i = 0; rc == 0 && i < s.n; i++) {
		x->stacks[i] = l->expanded[s.picked[i]].named;
		rc = check_max_batch(l, &l->expanded[s.picked[i]], err);
	}
	x->n_stacks = s.n;
	if (!rc)
		rc = load_reference(l, &s, err);
	return rc ? rc : load_unrecorded(l, &s, err);
}
