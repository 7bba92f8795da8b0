/* SPDX-License-Identifier: Apache-2.0
 *
 * present/progress.h: how far a long piece of work is, for a person.
 *
 * On a terminal one line is rewritten, ten times a second at most; into a log go plain lines, one
 * every five seconds at most and one at the end. Never inside a timed region. One thread.
 */
#ifndef NEXUS_PRESENT_PROGRESS_H
#define NEXUS_PRESENT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct nx_progress {
	FILE *out; /* borrowed; most often stderr */
	bool terminal;
	const char *what; /* "trials"; borrowed */
	uint64_t done, total;
	double start_s, shown_s; /* monotonic seconds; shown_s < 0 = nothing shown yet */
	bool ended;              /* the last line shown says that all is done */
};

void nx_progress_init(struct nx_progress *p, FILE *out, const char *what, uint64_t total);
/* note: what is being worked on; may be NULL. total may be changed between calls. */
void nx_progress_update(struct nx_progress *p, uint64_t done, const char *note);
/* Shows the last state and ends the line. */
void nx_progress_finish(struct nx_progress *p);
/* Takes the rewritten line off the terminal, so that a message can be printed; the next update
 * brings it back. */
void nx_progress_clear(struct nx_progress *p);
/* "12/40 trials (30 %), 1.3/s, 22 s left, note"; elapsed_s since the start. Returns buf. */
const char *nx_progress_text(const struct nx_progress *p, double elapsed_s, const char *note,
                             char *buf, size_t size);

#endif
