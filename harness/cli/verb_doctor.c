/* SPDX-License-Identifier: Apache-2.0
 *
 * verb_doctor.c: `nexus doctor`: what this machine lacks for figures that can be trusted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "engine/engine.h"
#include "measure/doctor.h"

static void text(const struct nx_check *c, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct {
			const char *label, *s;
		} more[] = {{"lacks", c[i].lacks}, {"costs", c[i].costs}, {"remedy", c[i].remedy}};
		printf("%-7s  %-12s  %s\n", nx_check_state_name(c[i].state), c[i].name, c[i].found);
		for (size_t k = 0; k < sizeof(more) / sizeof(more[0]); k++)
			if (more[k].s[0])
				printf("         %-12s  %s: %s\n", "", more[k].label, more[k].s);
	}
}

static int table(const struct nx_check *c, size_t n, enum nx_table_format format)
{
	static const char *const HEAD[] = {"check", "state", "needed", "found",
	                                   "lacks", "costs", "remedy"};
	struct nx_table t;
	struct nx_text out;
	nx_table_init(&t);
	nx_text_init(&out);
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i], NX_LEFT);
	for (size_t i = 0; i < n; i++) {
		nx_table_cell(&t, "%s", c[i].name);
		nx_table_cell(&t, "%s", nx_check_state_name(c[i].state));
		nx_table_cell(&t, "%s", c[i].fatal ? "yes" : "no");
		nx_table_cell(&t, "%s", c[i].found);
		nx_table_cell(&t, "%s", c[i].lacks);
		nx_table_cell(&t, "%s", c[i].costs);
		nx_table_cell(&t, "%s", c[i].remedy);
	}
	nx_table_write(&t, format, &out);
	bool failed = out.failed;
	if (!failed && out.s)
		fputs(out.s, stdout);
	nx_text_release(&out);
	nx_table_release(&t);
	if (failed)
		nx_say("no memory for the table of %zu checks", n);
	return failed ? NX_EXIT_ENVIRONMENT : NX_EXIT_DONE;
}

static int doctor(const char *device, enum nx_table_format format)
{
	struct nx_check checks[NX_CHECKS_MAX];
	char quoted[96];
	if (!nx_device_name_is_legal(device)) {
		nx_say("--device is %s; legal are cpu, cuda and cuda:N",
		       nx_quote(quoted, sizeof(quoted), device));
		return NX_EXIT_USAGE;
	}
	const struct nx_doctor d = {
		.root = "",
		.exe_dir = nx_exe_dir(),
		.device = device,
		.results = "results",
		.path = getenv("PATH"),
	};
	size_t n = nx_doctor_run(&d, checks), n_warn = 0, n_missing = 0;
	int status = NX_EXIT_DONE;
	if (format == NX_TABLE_TEXT)
		text(checks, n);
	else
		status = table(checks, n, format);
	for (size_t i = 0; i < n; i++) {
		n_warn += checks[i].state == NX_CHECK_WARN;
		n_missing += checks[i].state == NX_CHECK_MISSING;
	}
	bool unfit = nx_doctor_unfit(checks, n);
	fflush(stdout);
	fprintf(stderr, "%zu checks: %zu warn, %zu missing; %s\n", n, n_warn, n_missing,
	        unfit ? "nothing can be run before what is needed is there"
	              : "all that is needed to run is there");
	return unfit ? NX_EXIT_ENVIRONMENT : status;
}

int nx_verb_doctor(int argc, char **argv)
{
	const char *device = "cpu", *format_text = "text";
	const struct nx_opt opts[] = {
		{"device", NX_OPT_TEXT, &device, "NAME", "cpu or cuda[:N]: what is needed (cpu)"},
		{"format", NX_OPT_TEXT, &format_text, "FORMAT", "text, md, csv or json (text)"},
		{0},
	};
	const struct nx_opts o = {
		.usage = "doctor [options]",
		.summary =
			"Checks what figures depend on: instructions, cores and their limits, clocks, memory, counters,\n"
			"other load, the disk, programs, and the GPU if there is one. Each check says what it found, what\n"
			"is lacking, what that costs the figures, and the command that mends it.\n\n"
			"Exit status: 0 all that is needed to run is there (there may be warnings), 3 something that is\n"
			"needed is missing: the backend, the techniques, a folder for results, the device asked for.",
		.example = "  nexus doctor\n"
			   "  nexus doctor --format json | jq '.[] | select(.state != \"ok\")'",
		.opts = opts,
	};
	struct nx_strings args;
	enum nx_table_format format = NX_TABLE_TEXT;
	int status = nx_opts_parse(&o, argc, argv, &args);
	if (status < 0)
		status = nx_parse_format(format_text, &format);
	if (status < 0)
		status = doctor(device, format);
	nx_opts_release(&o, &args);
	return status;
}
