/* SPDX-License-Identifier: Apache-2.0
 *
 * test/stack_axes.h: every slot's techniques, real and test-only, and the stacks made of them. A new technique
 * gets a line in stack_axes.c and is then tested in every stack.
 */
#ifndef NEXUS_TEST_STACK_AXES_H
#define NEXUS_TEST_STACK_AXES_H

#include <stdbool.h>
#include <stddef.h>

enum axis {
	AXIS_SCHEDULE,
	AXIS_LAYOUT,
	AXIS_NUMERICS, /* attention, or a codec that brings its own */
	AXIS_PREFIX,
	AXIS_DRAFT,
	AXIS_WEIGHTS,
	AXIS_COUNT
};

/* Entry i of an axis: "technique:key=value:..." or "" for the engine's default; NULL past the end. */
const char *axis_entry(enum axis a, int i);

struct stack_choice {
	int at[AXIS_COUNT];
};

/* Tells whether a choice can run at all (traits, geometry); ctx is the caller's. NULL: every one can. */
typedef bool (*stack_legal_fn)(void *ctx, const struct stack_choice *c);

/* All legal stacks, or a set in which each legal pair of entries of two axes occurs. *out is the caller's.
 * firsts: only the first entry of each technique, so that parameters do not multiply. */
size_t stacks_all(struct stack_choice **out, bool firsts, stack_legal_fn legal, void *ctx);
size_t stacks_pairwise(struct stack_choice **out, stack_legal_fn legal, void *ctx);

/* "a:x=1,b"; mask: bits 1 << enum axis of the axes to take. */
void stack_spec(char *buf, size_t size, const struct stack_choice *c, unsigned mask);

/* The axes that decide what a row's numbers are: the reference of a stack has them, too. */
unsigned stack_reference_mask(const struct stack_choice *c);
/* Drafted tokens are drawn, so that sampled output depends on the draft (its law does not). */
bool stack_draws_drafts(const struct stack_choice *c);

#endif
