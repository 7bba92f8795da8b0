/* SPDX-License-Identifier: Apache-2.0 */
/* See progress.h. */
#include "present/progress.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void nx_progress_init(struct nx_progress *p, FILE *out, const char *what, uint64_t total)
{
	const char *term = getenv("TERM");
	*p = (struct nx_progress){
		.out = out, .what = what, .total = total, .start_s = now_s(), .shown_s = -1};
	p->terminal = isatty(fileno(out)) && term && strcmp(term, "dumb") != 0;
}

static const char *duration_text(double s, char *buf, size_t size)
{
	long n = (long)(s + 0.5);
	if (n < 120)
		snprintf(buf, size, "%ld s", n);
	else if (n < 7200)
		snprintf(buf, size, "%ld min", (n + 30) / 60);
	else
		snprintf(buf, size, "%ld h %ld min", n / 3600, n % 3600 / 60);
	return buf;
}

const char *nx_progress_text(const struct nx_progress *p, double elapsed_s, const char *note,
                             char *buf, size_t size)
{
	char tail[160] = "", took[32];
	double rate = elapsed_s > 0 ? (double)p->done / elapsed_s : 0;
	if (p->total && p->done >= p->total)
		snprintf(tail, sizeof(tail), ", took %s",
		         duration_text(elapsed_s, took, sizeof(took)));
	else if (p->done && rate > 0 && p->total)
		snprintf(tail, sizeof(tail), ", %.3g%s, %s left", rate >= 0.1 ? rate : rate * 3600,
		         rate >= 0.1 ? "/s" : "/h",
		         duration_text((double)(p->total - p->done) / rate, took, sizeof(took)));
	double percent = p->total ? 100.0 * (double)p->done / (double)p->total : 100;
	snprintf(buf, size, "%llu/%llu %s (%.0f %%)%s%s%s", (unsigned long long)p->done,
	         (unsigned long long)p->total, p->what, percent, tail, note && note[0] ? ", " : "",
	         note ? note : "");
	return buf;
}

static size_t terminal_columns(FILE *out)
{
	struct winsize w;
	return ioctl(fileno(out), TIOCGWINSZ, &w) == 0 && w.ws_col > 10 ? w.ws_col : 80;
}

static void show(struct nx_progress *p, double now, const char *note)
{
	char line[512];
	nx_progress_text(p, now - p->start_s, note, line, sizeof(line));
	if (p->terminal) {
		/* A line that wraps could not be rewritten. */
		size_t most = terminal_columns(p->out) - 1;
		fprintf(p->out, "\r\033[K%.*s", (int)most, line);
	} else {
		fprintf(p->out, "%s\n", line);
	}
	fflush(p->out);
	p->shown_s = now;
	p->ended = p->total && p->done >= p->total;
}

void nx_progress_update(struct nx_progress *p, uint64_t done, const char *note)
{
	double now = now_s();
	p->done = done;
	if (p->shown_s < 0 || now - p->shown_s >= (p->terminal ? 0.1 : 5.0))
		show(p, now, note);
}

void nx_progress_finish(struct nx_progress *p)
{
	if (p->terminal || !p->ended) /* where lines cannot be rewritten: not twice */
		show(p, now_s(), NULL);
	if (p->terminal)
		fputc('\n', p->out);
	fflush(p->out);
}

void nx_progress_clear(struct nx_progress *p)
{
	if (p->terminal && p->shown_s >= 0)
		fputs("\r\033[K", p->out);
	fflush(p->out);
	p->shown_s = p->terminal ? -1 : p->shown_s;
}
