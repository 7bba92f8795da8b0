/* SPDX-License-Identifier: Apache-2.0
 *
 * present/gnuplot.h: a temporary folder, and gnuplot run in it.
 */
#ifndef NEXUS_PRESENT_GNUPLOT_H
#define NEXUS_PRESENT_GNUPLOT_H

#include "present/text.h"

struct nx_tempdir {
	char path[512]; /* "" = none */
};

/* Under $TMPDIR or /tmp; release removes it with the files in it (it has no folders). */
int nx_tempdir_init(struct nx_tempdir *t, struct nx_err *err);
void nx_tempdir_release(struct nx_tempdir *t);

/* Writes text as file `name` of the folder. */
int nx_tempdir_put(const struct nx_tempdir *t, const char *name, const struct nx_text *text,
                   struct nx_err *err);
int nx_tempdir_get(const struct nx_tempdir *t, const char *name, struct nx_text *text,
                   struct nx_err *err);

/* Makes the folder `target` reachable as `name`, so that no path has to be quoted in a script. */
int nx_tempdir_link(const struct nx_tempdir *t, const char *name, const char *target,
                    struct nx_err *err);

/* Runs `gnuplot script` in the folder ($NEXUS_GNUPLOT names another program). What it says is added
 * to notes. NX_EENV when there is none. */
int nx_gnuplot_run(const struct nx_tempdir *t, const char *script, struct nx_text *notes,
                   struct nx_err *err);

#endif
