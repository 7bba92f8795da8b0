/* SPDX-License-Identifier: Apache-2.0 */
/* See reports.h. */
#include "fuzz/reports.h"

#include <hdf5.h>

#include "fuzz/fuzz.h"
#include "present/report.h"

void fuzz_keep_hdf5_buffers(void)
{
	static bool done;
	if (!done)
		H5set_free_list_limits(-1, -1, -1, -1, -1, -1);
	done = true;
}

static int html(const struct nx_run *run, struct nx_text *out, struct nx_err *err)
{
	static const struct nx_report_options no_plots = {.no_plots = "none here"};
	return nx_report_html(run, &no_plots, out, err);
}

void fuzz_reports(const struct nx_run *run)
{
	int (*const formats[])(const struct nx_run *, struct nx_text *, struct nx_err *) = {
		nx_report_md, nx_report_csv, nx_report_json, html};
	struct nx_err err = {0};
	struct nx_text text;
	nx_text_init(&text);
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (fuzz_told(formats[i](run, &text, &err), &err) && text.len)
			fuzz_touch(text.s, text.len);
		nx_text_reset(&text);
	}
	nx_text_release(&text);
}
