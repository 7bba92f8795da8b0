/* SPDX-License-Identifier: Apache-2.0
 *
 * test/cli_fixture.h: runs the real binary in a folder of its own, with a tiny model, prompts and an
 * experiment file. Aborts the test on failure.
 */
#ifndef NEXUS_TEST_CLI_FIXTURE_H
#define NEXUS_TEST_CLI_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct cli {
	char dir[256];
	char *out, *err; /* of the last command; NUL-terminated */
	int status;      /* exit status, or 128 + signal */
};

/* A temporary folder with tiny.gguf, prompts.jsonl. NEXUS_BUILD must be set. */
void cli_open(struct cli *c);
void cli_close(struct cli *c); /* removes the folder */
void cli_write(const struct cli *c, const char *name, const char *text);
/* t.yaml: stacks is YAML of `stacks:`, list the sweep's stacks, more what else the file says. */
void cli_experiment(const struct cli *c, const char *list, const char *stacks, const char *more);

/* args are words for the shell, after `nexus`. env: "A=1 B=2" or "". */
int cli_run(struct cli *c, const char *env, const char *args);
/* Starts it in a process group of its own and returns. */
pid_t cli_start(const struct cli *c, const char *const *argv);
/* True when no process of the group is left; waits up to seconds. */
bool cli_group_gone(pid_t group, double seconds);

/* Finished shards in <out>.parts; -1 when the folder is not there. */
int cli_shards(const struct cli *c, const char *out);
bool cli_exists(const struct cli *c, const char *name);
/* Path of a file in the folder; static storage, a few are kept. */
const char *cli_path(const struct cli *c, const char *name);

#endif
