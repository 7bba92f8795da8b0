/* SPDX-License-Identifier: Apache-2.0
 *
 * verb_plot.c: `nexus plot RUN.h5`: pictures of a run file.
 */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "cli/cli.h"
#include "present/plot.h"

/* RUN.plots beside RUN.h5. */
static int default_dir(const char *path, char *buf, size_t size, struct nx_err *err)
{
	size_t n = strlen(path);
	if (n > 3 && !strcmp(path + n - 3, ".h5"))
		n -= 3;
	int k = snprintf(buf, size, "%.*s.plots", (int)n, path);
	return k > 0 && (size_t)k < size
	               ? 0
	               : nx_fail(err, NX_EINVAL, "%s: this path is too long", path);
}

static int draw_all(const struct nx_run *run, const char *share, const char *dir, const char *only,
                    struct nx_err *err)
{
	size_t n;
	const struct nx_plot_desc *p = nx_plot_list(&n);
	int rc = 0;
	for (size_t i = 0; i < n && !rc; i++) {
		if (only && strcmp(only, p[i].name) != 0)
			continue;
		struct nx_text notes;
		nx_text_init(&notes);
		rc = nx_plot_write(run, p[i].name, share, dir, &notes, err);
		if (!rc && notes.len)
			nx_say("gnuplot on %s: %s", p[i].name, notes.s);
		if (!rc)
			fprintf(stderr, "wrote %s/%s.png and .svg\n", dir, p[i].name);
		nx_text_release(&notes);
	}
	return rc;
}

static int plot(const char *path, const char *dir, const char *only)
{
	char share[4096], beside[4096];
	struct nx_run *run = NULL;
	struct nx_err err;
	if (nx_run_read(&run, path, &err)) {
		nx_say("%s", err.msg);
		return NX_EXIT_USAGE;
	}
	int rc = nx_plot_share(share, sizeof(share), nx_exe_dir(), &err);
	if (!rc && !dir) {
		rc = default_dir(path, beside, sizeof(beside), &err);
		dir = beside;
	}
	rc = rc ? rc : draw_all(run, share, dir, only, &err);
	nx_run_destroy(run);
	return rc ? nx_say_err(&err) : NX_EXIT_DONE;
}

static int unknown(const char *name)
{
	const char *names[32];
	size_t n;
	const struct nx_plot_desc *p = nx_plot_list(&n);
	for (size_t i = 0; i < n && i < 32; i++)
		names[i] = p[i].name;
	const char *near = nx_near_name(name, names, n);
	char legal[512];
	nx_list_text(legal, sizeof(legal), names, n);
	nx_say("there is no plot '%s'%s%s%s legal are %s", name, near ? "; did you mean '" : "",
	       near ? near : "", near ? "'?" : ";", legal);
	return NX_EXIT_USAGE;
}

int nx_verb_plot(int argc, char **argv)
{
	const char *dir = NULL, *only = NULL;
	const struct nx_opt opts[] = {
		{"o,output", NX_OPT_TEXT, &dir, "DIR",
	         "folder for the pictures; RUN.plots by default"},
		{"only", NX_OPT_TEXT, &only, "NAME",
	         "draw this plot alone, such as throughput_latency"},
		{NULL, NX_OPT_FLAG, NULL, NULL, NULL},
	};
	const struct nx_opts o = {
		.usage = "plot RUN.h5 [-o DIR] [--only NAME]",
		.summary =
			"Draws PNG and SVG pictures with gnuplot: throughput over latency, memory by owner,\n"
			"latency and throughput over batch size and prompt length, utilisation, distributions.",
		.example = "  nexus plot results/quick.h5\n"
			   "  nexus plot results/quick.h5 --only throughput_latency -o pictures",
		.opts = opts,
		.min_args = 1,
		.max_args = 1,
	};
	struct nx_strings args;
	int status = nx_opts_parse(&o, argc, argv, &args);
	if (status < 0 && only && !nx_plot_find(only))
		status = unknown(only);
	if (status < 0)
		status = plot(args.v[0], dir, only);
	nx_opts_release(&o, &args);
	return status;
}
