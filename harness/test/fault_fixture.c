/* SPDX-License-Identifier: Apache-2.0
 *
 * test/fault_fixture.c: see fault_fixture.h.
 */
#define _GNU_SOURCE /* unshare */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fault_fixture.h"
#include "record/schema.h"

void fault_experiment(const struct cli *c, int n_cells, int rounds, const char *more)
{
	char text[2048], list[64] = "";
	ck_assert(n_cells % 2 == 0 && n_cells <= 24);
	for (int i = 0; i < n_cells / 2; i++)
		snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%d", i ? ", " : "",
		         4 + i);
	snprintf(
		text, sizeof(text),
		"# Is anything lost?\nmodel: tiny.gguf\ndevice: cpu\nbase: plain\ndtype: f32\nthreads: 1\n"
		"workload: {prompts: prompts.jsonl, seed: 1}\ntrials: %d\ngate: false\n"
		"sweep:\n  batch_size: [1, 2]\n  seq_len: 8\n  output_len: [%s]\n  stack: [baseline]\n"
		"%s%s",
		rounds, list, strstr(more, "num_requests") ? "" : "num_requests: 2\n", more);
	cli_write(c, "t.yaml", text);
}

void fault_clear(const struct cli *c)
{
	char command[600];
	snprintf(command, sizeof(command), "cd '%s' && rm -rf o.h5 o.h5.parts .tmp-*", c->dir);
	ck_assert_int_eq(system(command), 0);
}

/* ---- ledger ----------------------------------------------------------------------------------- */

struct ledger_entry {
	char name[64], sha256[65];
	struct nx_trial_row row;
	bool seen;
};

void ledger_init(struct ledger *l, const struct cli *c, const char *out, int n_cells, int rounds)
{
	*l = (struct ledger){.c = c, .out = out, .n_cells = n_cells, .rounds = rounds};
}

void ledger_release(struct ledger *l)
{
	free(l->entries);
	*l = (struct ledger){0};
}

static const char *parts(const struct ledger *l, const char *name)
{
	char path[400];
	snprintf(path, sizeof(path), "%s.parts/%s", l->out, name);
	return cli_path(l->c, path);
}

static struct ledger_entry *find(struct ledger *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (!strcmp(l->entries[i].name, name))
			return &l->entries[i];
	return NULL;
}

static void look_at(struct ledger *l, const char *name)
{
	struct ledger_entry e = {.seen = true};
	struct nx_err err = {0};
	struct nx_trial t;
	hid_t f;
	int rc = nx_shard_read_file(parts(l, name), &t, &err);
	ck_assert_msg(!rc, "a shard was left that cannot be read: %s", err.msg);
	nx_trial_release(&t);
	ck_assert_int_eq(nx_shard_open(&f, parts(l, name), &err), 0);
	ck_assert_int_eq(nx_h5_read_one(f, "trial", nx_schema_table(NX_TABLE_TRIAL), &e.row, &err),
	                 0);
	nx_h5_close(f);
	ck_assert_int_eq(nx_sha256_file(parts(l, name), e.sha256, &err), 0);
	snprintf(e.name, sizeof(e.name), "%s", name);
	struct ledger_entry *old = find(l, name);
	if (old) {
		ck_assert_msg(!strcmp(old->sha256, e.sha256), "%s was whole and was written again",
		              name);
		old->seen = true;
		return;
	}
	if (l->n == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 64;
		l->entries = realloc(l->entries, l->cap * sizeof(*l->entries));
		ck_assert_ptr_nonnull(l->entries);
	}
	l->entries[l->n++] = e;
}

static void check_opens(const struct ledger *l)
{
	struct nx_run *r;
	struct nx_err err = {0};
	int rc = nx_run_read(&r, cli_path(l->c, l->out), &err);
	ck_assert_msg(!rc, "%s", err.msg);
	nx_run_destroy(r);
}

void ledger_look(struct ledger *l)
{
	DIR *d = opendir(parts(l, ""));
	const struct dirent *e;
	for (size_t i = 0; i < l->n; i++)
		l->entries[i].seen = false;
	while (d && (e = readdir(d))) {
		size_t n = strlen(e->d_name);
		ck_assert_msg(n < 8 || strcmp(e->d_name + n - 8, ".damaged"), "%s", e->d_name);
		if (e->d_name[0] != '.' && n > 20 && e->d_name[16] == '-')
			look_at(l, e->d_name);
	}
	if (d)
		closedir(d);
	if (cli_exists(l->c, l->out))
		check_opens(l);
	else
		for (size_t i = 0; i < l->n; i++)
			ck_assert_msg(l->entries[i].seen, "%s is lost", l->entries[i].name);
}

static size_t column_bytes(const struct nx_h5_column *c)
{
	switch (c->kind) {
	case NX_COL_TEXT: return c->bytes;
	case NX_COL_I64:
	case NX_COL_U64:
	case NX_COL_F64: return 8;
	default: return 4;
	}
}

static void check_row(struct ledger *l, const struct nx_trial_row *row)
{
	const struct nx_h5_table *t = nx_schema_table(NX_TABLE_TRIAL);
	char name[64];
	snprintf(name, sizeof(name), "%s-r%d.h5", row->cell, row->round);
	struct ledger_entry *e = find(l, name);
	if (!e)
		return;
	e->seen = true;
	for (size_t i = 0; i < t->n_columns; i++) {
		size_t at = t->columns[i].offset, n = column_bytes(&t->columns[i]);
		bool text = t->columns[i].kind == NX_COL_TEXT;
		const char *a = (const char *)row + at, *b = (const char *)&e->row + at;
		ck_assert_msg(text ? !strncmp(a, b, n) : !memcmp(a, b, n),
		              "%s: %s is not what it was when the trial was whole", name,
		              t->columns[i].name);
	}
}

/* Each cell's rounds are 0, 1, ... once, up to the last or to one that is final. */
static void check_rounds(const struct ledger *l, const struct nx_trial_row *rows, size_t n)
{
	int n_last = 0;
	for (size_t i = 0; i < n; i++) {
		int same = 0, before = 0, after = 0;
		for (size_t k = 0; k < n; k++) {
			int d = rows[k].round - rows[i].round;
			if (strcmp(rows[k].cell, rows[i].cell))
				continue;
			same += d == 0;
			before += d < 0;
			after += d > 0;
		}
		ck_assert_msg(same == 1, "cell %s has round %d %d times", rows[i].cell,
		              rows[i].round, same);
		ck_assert_msg(before == rows[i].round, "cell %s lacks a round before %d",
		              rows[i].cell, rows[i].round);
		bool is_final = nx_status_final(nx_status_find(rows[i].status));
		ck_assert_msg(after == 0 || !is_final, "cell %s goes on after %s", rows[i].cell,
		              rows[i].status);
		ck_assert_msg(after > 0 || is_final || rows[i].round == l->rounds - 1,
		              "cell %s ends with round %d", rows[i].cell, rows[i].round);
		n_last += after == 0;
	}
	ck_assert_int_eq(n_last, l->n_cells);
}

static void check_litter(const struct ledger *l)
{
	char folder[300];
	snprintf(folder, sizeof(folder), "%s", l->out);
	char *slash = strrchr(folder, '/');
	*(slash ? slash : folder) = '\0';
	ck_assert_msg(!cli_exists(l->c, parts(l, "") + strlen(l->c->dir) + 1), "shards are left");
	DIR *d = opendir(cli_path(l->c, folder));
	const struct dirent *e;
	ck_assert_ptr_nonnull(d);
	while ((e = readdir(d)))
		ck_assert_msg(strncmp(e->d_name, ".tmp-", 5), "%s is left", e->d_name);
	closedir(d);
}

void ledger_finish(struct ledger *l, struct tally *t)
{
	struct nx_err err = {0};
	void *data;
	size_t n;
	hid_t f;
	*t = (struct tally){0};
	check_opens(l);
	ck_assert_int_eq(nx_shard_open(&f, cli_path(l->c, l->out), &err), 0);
	ck_assert_int_eq(nx_h5_read(f, "trials", nx_schema_table(NX_TABLE_TRIAL), &data, &n, &err),
	                 0);
	nx_h5_close(f);
	const struct nx_trial_row *rows = data;
	for (size_t i = 0; i < l->n; i++)
		l->entries[i].seen = false;
	for (size_t i = 0; i < n; i++) {
		check_row(l, &rows[i]);
		t->n_by_status[nx_status_find(rows[i].status)]++;
	}
	t->n_rows = (int)n;
	check_rounds(l, rows, n);
	for (size_t i = 0; i < l->n; i++)
		ck_assert_msg(l->entries[i].seen, "%s is lost", l->entries[i].name);
	check_litter(l);
	free(data);
}

/* ---- runs ------------------------------------------------------------------------------------- */

int fault_resume(struct cli *c, const char *out)
{
	char args[400], dir[300];
	snprintf(dir, sizeof(dir), "%s.parts", out);
	bool begun = cli_exists(c, dir);
	if (!begun && cli_exists(c, out))
		return 0;
	snprintf(args, sizeof(args), "run t.yaml -o %s%s", out, begun ? " --resume" : "");
	return cli_run(c, "", args);
}

int fault_sentences(const struct cli *c)
{
	int n = 0;
	for (const char *at = c->err; (at = strstr(at, "nexus: ")); at++)
		n += at == c->err || at[-1] == '\n';
	return n;
}

pid_t fault_worker(pid_t pid)
{
	DIR *d = opendir("/proc");
	const struct dirent *e;
	pid_t found = 0;
	while (d && !found && (e = readdir(d))) {
		char path[300], name[32] = "", state;
		int parent = 0;
		if (e->d_name[0] < '1' || e->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/stat", e->d_name);
		FILE *f = fopen(path, "r");
		/* A child that still has the parent's name reads a file for it (base/guard.h), or is no worker yet. */
		if (f && fscanf(f, "%*d (%31[^)]) %c %d", name, &state, &parent) == 3 &&
		    parent == pid && strcmp(name, "nexus") != 0)
			found = (pid_t)strtol(e->d_name, NULL, 10);
		if (f)
			fclose(f);
	}
	if (d)
		closedir(d);
	return found;
}

void fault_sleep(double seconds)
{
	struct timespec t = {.tv_sec = (time_t)seconds,
	                     .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))};
	nanosleep(&t, NULL);
}

double fault_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

bool fault_long(void)
{
	return getenv("NEXUS_TEST_LONG") != NULL;
}

/* ---- disks ------------------------------------------------------------------------------------ */

bool fault_disk(const struct cli *c, const char *name, int kib)
{
	char options[64];
	const char *at = cli_path(c, name);
	snprintf(options, sizeof(options), "size=%dk", kib);
	if (mkdir(at, 0700) && errno != EEXIST)
		ck_abort_msg("%s: %s", at, strerror(errno));
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", at, "tmpfs", 0, options)) {
		printf("not tested: no tmpfs can be mounted here (%s)\n", strerror(errno));
		return false;
	}
	return true;
}

void fault_disk_gone(const struct cli *c, const char *name)
{
	(void)umount2(cli_path(c, name), MNT_DETACH);
}

void fault_disk_resize(const struct cli *c, const char *name, int kib, bool readonly)
{
	char options[64];
	snprintf(options, sizeof(options), "size=%dk", kib);
	int rc = mount("tmpfs", cli_path(c, name), "tmpfs", MS_REMOUNT | (readonly ? MS_RDONLY : 0),
	               options);
	ck_assert_msg(!rc, "%s", strerror(errno));
}

/* ---- faulty calls ----------------------------------------------------------------------------- */

static const char *preload(void)
{
	static char text[1600];
	const char *asan = getenv("ASAN_OPTIONS");
	/* A sanitizer wants to come first, and is told that it need not. */
	snprintf(
		text, sizeof(text),
		"LD_PRELOAD=%s/test-plugins/faulty_libc.so ASAN_OPTIONS=%s:verify_asan_link_order=0",
		getenv("NEXUS_BUILD"), asan ? asan : "");
	return text;
}

const char *fault_env(const struct cli *c, const char *path, int k, const char *how, bool sticky)
{
	static char text[3000];
	FILE *f = fopen(cli_path(c, "count"), "w");
	ck_assert_ptr_nonnull(f);
	for (int i = 0; i < 64; i++)
		fputc(0, f);
	ck_assert_int_eq(fclose(f), 0);
	snprintf(text, sizeof(text),
	         "%s 'NX_FAULT_PATH=%s' NX_FAULT_COUNT=%s NX_FAULT_AT=%d NX_FAULT_HOW=%s %s",
	         preload(), path, cli_path(c, "count"), k, how, sticky ? "NX_FAULT_STICKY=1" : "");
	return text;
}

const char *fault_env_clock(const struct cli *c, long seconds)
{
	static char text[2000];
	(void)c;
	snprintf(text, sizeof(text), "%s NX_FAULT_CLOCK=%ld", preload(), seconds);
	return text;
}

long fault_count(const struct cli *c)
{
	long n = 0;
	FILE *f = fopen(cli_path(c, "count"), "r");
	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fread(&n, sizeof(n), 1, f), 1);
	fclose(f);
	return n;
}
