/* SPDX-License-Identifier: Apache-2.0
 *
 * verb_report.c: `nexus report RUN.h5`: tables and verdicts of a run file.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "present/plot.h"
#include "present/report.h"

static int html(const struct nx_run *run, struct nx_text *out, struct nx_err *err)
{
	char share[4096];
	struct nx_err why;
	struct nx_report_options o = {.share = share};
	if (nx_plot_share(share, sizeof(share), nx_exe_dir(), &why)) {
		nx_say("the page gets no plots: %s", why.msg);
		o = (struct nx_report_options){.no_plots = why.msg};
	}
	return nx_report_html(run, &o, out, err);
}

static const struct format {
	const char *name;
	int (*write)(const struct nx_run *run, struct nx_text *out, struct nx_err *err);
} FORMATS[] = {
	{"md", nx_report_md},
	{"html", html},
	{"csv", nx_report_csv},
	{"json", nx_report_json},
};
#define N_FORMATS (sizeof(FORMATS) / sizeof(FORMATS[0]))

static const struct format *find_format(const char *name)
{
	for (size_t i = 0; i < N_FORMATS; i++)
		if (!strcmp(FORMATS[i].name, name))
			return &FORMATS[i];
	return NULL;
}

/* DIR/NAME.md beside the run or in the folder of -o. */
static int save(const struct nx_run *run, const struct format *f, const char *path, const char *dir,
                struct nx_err *err)
{
	char to[4096];
	struct nx_text text;
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	size_t stem = strlen(name), before = (size_t)(name - path);
	if (stem > 3 && !strcmp(name + stem - 3, ".h5"))
		stem -= 3;
	int n = dir ? snprintf(to, sizeof(to), "%s/%.*s.%s", dir, (int)stem, name, f->name)
	            : snprintf(to, sizeof(to), "%.*s%.*s.%s", (int)before, path, (int)stem, name,
	                       f->name);
	if (n < 0 || (size_t)n >= sizeof(to))
		return nx_fail(err, NX_EINVAL, "%s: this path is too long", path);
	nx_text_init(&text);
	int rc = f->write(run, &text, err);
	rc = rc ? rc : nx_text_save(&text, to, err);
	if (!rc)
		fprintf(stderr, "wrote %s\n", to);
	nx_text_release(&text);
	return rc;
}

static int print(const struct nx_run *run, const struct format *f, struct nx_err *err)
{
	struct nx_text text;
	nx_text_init(&text);
	int rc = f->write(run, &text, err);
	if (!rc && text.len && fwrite(text.s, 1, text.len, stdout) != text.len)
		rc = nx_fail(err, NX_EIO, "writing to standard output failed");
	nx_text_release(&text);
	return rc;
}

static int report(const char *path, const char *dir, const struct format *f)
{
	struct nx_run *run = NULL;
	struct nx_err err;
	int rc = nx_run_read(&run, path, &err);
	if (rc) {
		nx_say("%s", err.msg);
		return NX_EXIT_USAGE;
	}
	if (f) {
		rc = print(run, f, &err);
	} else {
		rc = save(run, find_format("md"), path, dir, &err);
		rc = rc ? rc : save(run, find_format("html"), path, dir, &err);
	}
	nx_run_destroy(run);
	return rc ? nx_say_err(&err) : NX_EXIT_DONE;
}

int nx_verb_report(int argc, char **argv)
{
	const char *dir = NULL, *format = NULL;
	const struct nx_opt opts[] = {
		{"o,output", NX_OPT_TEXT, &dir, "DIR",
	         "folder for the reports; beside the run file by default"},
		{"format", NX_OPT_TEXT, &format, "FORMAT",
	         "print md, html, csv or json to stdout instead"},
		{NULL, NX_OPT_FLAG, NULL, NULL, NULL},
	};
	const struct nx_opts o = {
		.usage = "report RUN.h5 [-o DIR] [--format md|html|csv|json]",
		.summary =
			"Writes RUN.md and RUN.html: the verdict, what ran where, all figures with intervals,\n"
			"what failed and why.",
		.example = "  nexus report results/quick.h5\n"
			   "  nexus report results/quick.h5 --format csv > quick.csv",
		.opts = opts,
		.min_args = 1,
		.max_args = 1,
	};
	struct nx_strings args;
	int status = nx_opts_parse(&o, argc, argv, &args);
	const struct format *f = NULL;
	if (status < 0 && format && !(f = find_format(format))) {
		nx_say("--format is '%s'; legal are md, html, csv and json", format);
		status = NX_EXIT_USAGE;
	}
	if (status < 0 && f && dir) {
		nx_say("--format prints to stdout and -o writes files; give one of them");
		status = NX_EXIT_USAGE;
	}
	if (status < 0)
		status = report(args.v[0], dir, f);
	nx_opts_release(&o, &args);
	return status;
}
