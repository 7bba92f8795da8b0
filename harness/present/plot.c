/* SPDX-License-Identifier: Apache-2.0 */
/* See plot.h. */
#include "present/plot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "present/scene.h"

#define BARS "Bars: 95 % intervals. "
#define TPOT "TPOT: time per output token, median over requests. "
#define OUTPUT "Output tokens only. "

static const struct nx_plot_desc PLOTS[] = {
	{"throughput_latency", NX_PLOT_TRADE, NX_METRIC_OUTPUT_THROUGHPUT,
         "What does throughput cost in latency?", "time per output token, median [ms]",
         "throughput [tok/s]", OUTPUT "Upper left is better; numbers are batch sizes."},
	{"memory", NX_PLOT_MEMORY, NX_METRIC_MEM_TOTAL, "Who holds the memory?", "memory reserved",
         "", "Shorter is better."},
	{"tpot_batch", NX_PLOT_BATCH, NX_METRIC_TPOT_P50, "How does latency grow with the batch?",
         "batch size [requests in flight]", "TPOT p50 [ms]", TPOT BARS "Lower is better."},
	{"tpot_seqlen", NX_PLOT_SEQ, NX_METRIC_TPOT_P50, "How does latency grow with the prompt?",
         "prompt length [tokens]", "TPOT p50 [ms]", TPOT BARS "Lower is better."},
	{"throughput_batch", NX_PLOT_BATCH, NX_METRIC_OUTPUT_THROUGHPUT,
         "How does throughput grow with the batch?", "batch size [requests in flight]",
         "throughput [tok/s]", OUTPUT BARS "Higher is better."},
	{"throughput_seqlen", NX_PLOT_SEQ, NX_METRIC_OUTPUT_THROUGHPUT,
         "How does throughput change with the prompt?", "prompt length [tokens]",
         "throughput [tok/s]", OUTPUT BARS "Higher is better."},
	{"utilisation", NX_PLOT_UTIL, NX_METRIC_UTIL_COMPUTE, "How much of the device is at work?",
         "utilisation [%]", "", "Medians over trials."},
	{"roofline", NX_PLOT_ROOF, NX_METRIC_UTIL_BANDWIDTH,
         "How near is each phase to the device's roofs?", "arithmetic intensity [flop/byte]",
         "achieved [FLOP/s]", "Nearer to its roof is better. "},
	{"ttft_distribution", NX_PLOT_ECDF, NX_METRIC_TTFT_P50,
         "How long do requests wait for the first token?", "time to first token [ms]",
         "share of requests [%]", "Further left is better."},
	{"tpot_distribution", NX_PLOT_ECDF, NX_METRIC_TPOT_P50,
         "How long does each further token take?", "time per output token of a request [ms]",
         "share of requests [%]", "Further left is better."},
};

const struct nx_plot_desc *nx_plot_list(size_t *n)
{
	*n = sizeof(PLOTS) / sizeof(PLOTS[0]);
	return PLOTS;
}

const struct nx_plot_desc *nx_plot_find(const char *name)
{
	for (size_t i = 0; i < sizeof(PLOTS) / sizeof(PLOTS[0]); i++)
		if (!strcmp(PLOTS[i].name, name))
			return &PLOTS[i];
	return NULL;
}

int nx_plot_share(char *buf, size_t size, const char *exe_dir, struct nx_err *err)
{
	const char *env = getenv("NEXUS_SHARE");
	const struct {
		const char *base, *below;
	} places[] = {
		{env, "/plots"},
		{env, ""},
		{exe_dir, "/../plots"},
		{exe_dir, "/../share/nexus/plots"},
	};
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		char probe[4096];
		if (!places[i].base || !places[i].base[0])
			continue;
		snprintf(probe, sizeof(probe), "%s%s/style.gp", places[i].base, places[i].below);
		if (access(probe, R_OK) != 0)
			continue;
		/* gnuplot runs in another folder, so the path must not be relative. */
		probe[strlen(probe) - strlen("/style.gp")] = 0;
		char *real = realpath(probe, NULL);
		int n = real ? snprintf(buf, size, "%s", real) : -1;
		free(real);
		if (n > 0 && (size_t)n < size)
			return 0;
	}
	return nx_fail(
		err, NX_EENV,
		"the plot templates (style.gp) are neither in $NEXUS_SHARE/plots, %s/../plots nor "
		"%s/../share/nexus/plots; set NEXUS_SHARE to the folder that holds plots/",
		exe_dir, exe_dir);
}

/* Draws into out.<terminal> of dir, for each terminal of the list that ends with NULL. */
static int draw(const struct nx_run *run, const char *name, const char *share,
                const char *const *terminals, const struct nx_tempdir *dir, struct nx_text *notes,
                struct nx_err *err)
{
	const struct nx_plot_desc *d = nx_plot_find(name);
	struct nx_grid g;
	struct nx_scene *s;
	if (!d)
		return nx_fail(err, NX_EINVAL, "there is no plot '%s'", name);
	int rc = nx_grid_init(&g, run, err);
	if (rc)
		return rc;
	s = malloc(sizeof(*s));
	if (!s) {
		rc = nx_fail(err, NX_ENOMEM, "no memory for plot %s", name);
		goto release_grid;
	}
	nx_scene_init(s, &g, d, dir);
	rc = nx_scene_panels(s, err);
	if (!rc && !s->n_panels)
		rc = nx_fail(err, NX_EINVAL,
		             "%s: the run has no cells, so there is nothing to plot", run->path);
	else if (!rc && d->kind == NX_PLOT_MEMORY)
		rc = nx_scene_memory(s, err);
	else if (!rc && d->kind == NX_PLOT_UTIL)
		rc = nx_scene_util(s, err);
	else if (!rc && d->kind == NX_PLOT_ROOF)
		rc = nx_scene_roof(s, err);
	else if (!rc && d->kind == NX_PLOT_ECDF)
		rc = nx_scene_ecdf(s, err);
	else if (!rc)
		rc = nx_scene_curves(s, err);
	rc = rc ? rc : nx_tempdir_link(dir, NX_SCENE_SHARE, share, err);
	for (; *terminals && !rc; terminals++) {
		rc = nx_scene_script(s, *terminals, err);
		rc = rc ? rc : nx_gnuplot_run(dir, "plot.gp", notes, err);
	}
	nx_scene_release(s);
	free(s);
release_grid:
	nx_grid_release(&g);
	return rc;
}

static int keep(const struct nx_tempdir *t, const char *terminal, const char *dir, const char *name,
                struct nx_err *err)
{
	char from[16], to[4096];
	struct nx_text image;
	nx_text_init(&image);
	snprintf(from, sizeof(from), "out.%s", terminal);
	int n = snprintf(to, sizeof(to), "%s/%s.%s", dir, name, terminal);
	int rc = n > 0 && (size_t)n < sizeof(to)
	                 ? 0
	                 : nx_fail(err, NX_EINVAL, "%s: this path is too long", dir);
	rc = rc ? rc : nx_tempdir_get(t, from, &image, err);
	rc = rc ? rc : nx_text_save(&image, to, err);
	nx_text_release(&image);
	return rc;
}

int nx_plot_write(const struct nx_run *run, const char *name, const char *share, const char *dir,
                  struct nx_text *notes, struct nx_err *err)
{
	static const char *const terminals[] = {"png", "svg", NULL};
	struct nx_tempdir t;
	if (mkdir(dir, 0777) != 0 && errno != EEXIST)
		return nx_fail(err, NX_EIO,
		               "%s: this folder cannot be made: %s; choose another with -o", dir,
		               strerror(errno));
	int rc = nx_tempdir_init(&t, err);
	if (rc)
		return rc;
	rc = draw(run, name, share, terminals, &t, notes, err);
	for (size_t i = 0; terminals[i] && !rc; i++)
		rc = keep(&t, terminals[i], dir, name, err);
	nx_tempdir_release(&t);
	return rc;
}

int nx_plot_svg(const struct nx_run *run, const char *name, const char *share, struct nx_text *svg,
                struct nx_text *notes, struct nx_err *err)
{
	static const char *const terminals[] = {"svg", NULL};
	struct nx_tempdir t;
	int rc = nx_tempdir_init(&t, err);
	if (rc)
		return rc;
	rc = draw(run, name, share, terminals, &t, notes, err);
	rc = rc ? rc : nx_tempdir_get(&t, "out.svg", svg, err);
	nx_tempdir_release(&t);
	return rc;
}
