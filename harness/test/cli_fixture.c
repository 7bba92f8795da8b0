/* SPDX-License-Identifier: Apache-2.0
 *
 * test/cli_fixture.c: see cli_fixture.h.
 */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli_fixture.h"
#include "tiny_model.h"

static const char *build(void)
{
	const char *b = getenv("NEXUS_BUILD");
	ck_assert_msg(b && *b, "NEXUS_BUILD is not set");
	return b;
}

const char *cli_path(const struct cli *c, const char *name)
{
	static char path[8][600];
	static int turn;
	turn = (turn + 1) % 8;
	snprintf(path[turn], sizeof(path[0]), "%s/%s", c->dir, name);
	return path[turn];
}

void cli_write(const struct cli *c, const char *name, const char *text)
{
	FILE *f = fopen(cli_path(c, name), "w");
	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	ck_assert_int_eq(fclose(f), 0);
}

void cli_open(struct cli *c)
{
	const char *tmp = getenv("TMPDIR");
	*c = (struct cli){0};
	snprintf(c->dir, sizeof(c->dir), "%s/nexus-cli-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(c->dir));
	struct nx_err err = {0};
	struct nx_shape shape = nx_test_tiny_shape();
	int rc = nx_test_write_model(cli_path(c, "tiny.gguf"), &shape, NX_GGUF_F32, 1, &err);
	ck_assert_msg(!rc, "%s", err.msg);
	FILE *f = fopen(cli_path(c, "prompts.jsonl"), "w");
	ck_assert_ptr_nonnull(f);
	for (unsigned i = 0; i < 40; i++)
		fprintf(f, "{\"text\": \"story %u tells of %u cats, %u dogs and a hat\"}\n", i,
		        i * 7919u, i * 104729u);
	ck_assert_int_eq(fclose(f), 0);
}

void cli_close(struct cli *c)
{
	char command[512];
	snprintf(command, sizeof(command), "rm -rf '%s'", c->dir);
	ck_assert_int_eq(system(command), 0);
	free(c->out);
	free(c->err);
	*c = (struct cli){0};
}

void cli_experiment(const struct cli *c, const char *list, const char *stacks, const char *more)
{
	char text[4096];
	snprintf(
		text, sizeof(text),
		"# Does the sweep work?\nmodel: tiny.gguf\ndevice: cpu\nbase: plain\ndtype: f32\nthreads: 1\n"
		"workload: {prompts: prompts.jsonl, seed: 1}\ntechniques: [%s/test-plugins]\n"
		"sweep:\n  batch_size: [1, 3]\n  seq_len: 16\n  output_len: 8\n  stack: [%s]\n"
		"num_requests: 4\n%sstacks:\n%s",
		build(), list, more, stacks);
	cli_write(c, "t.yaml", text);
}

static char *slurp(const char *path)
{
	FILE *f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	char *text = calloc(1, 1 << 16);
	ck_assert_ptr_nonnull(text);
	size_t n = fread(text, 1, (1 << 16) - 1, f);
	text[n] = '\0';
	fclose(f);
	return text;
}

int cli_run(struct cli *c, const char *env, const char *args)
{
	char command[4096];
	/* Other tests run at the same time: their load must not void ours. Peaks take long and are not used. */
	snprintf(
		command, sizeof(command),
		"cd '%s' && env NEXUS_MAX_OTHER_LOAD=1000 NEXUS_CALIBRATE=0 %s '%s/nexus' %s >cli.out 2>cli.err </dev/null",
		c->dir, env, build(), args);
	int w = system(command);
	c->status = WIFEXITED(w) ? WEXITSTATUS(w) : 128 + WTERMSIG(w);
	free(c->out);
	free(c->err);
	c->out = slurp(cli_path(c, "cli.out"));
	c->err = slurp(cli_path(c, "cli.err"));
	return c->status;
}

pid_t cli_start(const struct cli *c, const char *const *argv)
{
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		char exe[1024];
		setpgid(0, 0);
		snprintf(exe, sizeof(exe), "%s/nexus", build());
		int null = open("/dev/null", O_RDWR);
		if (chdir(c->dir) || null < 0)
			_exit(126);
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		setenv("NEXUS_MAX_OTHER_LOAD", "1000", 1);
		setenv("NEXUS_CALIBRATE", "0", 1);
		execv(exe, (char *const *)(void *)(size_t)argv);
		_exit(127);
	}
	setpgid(pid, pid);
	return pid;
}

bool cli_group_gone(pid_t group, double seconds)
{
	struct timespec t = {.tv_nsec = 20000000};
	for (int i = 0; i < (int)(seconds * 50) + 1; i++) {
		if (kill(-group, 0) && errno == ESRCH)
			return true;
		nanosleep(&t, NULL);
	}
	return false;
}

int cli_shards(const struct cli *c, const char *out)
{
	char name[300];
	snprintf(name, sizeof(name), "%s.parts", out);
	DIR *d = opendir(cli_path(c, name));
	const struct dirent *e;
	int n = 0;
	if (!d)
		return -1;
	/* <cell>-r<round>.h5 */
	while ((e = readdir(d)))
		n += strlen(e->d_name) > 20 && e->d_name[16] == '-' && e->d_name[17] == 'r';
	closedir(d);
	return n;
}

bool cli_exists(const struct cli *c, const char *name)
{
	struct stat st;
	return !stat(cli_path(c, name), &st);
}
