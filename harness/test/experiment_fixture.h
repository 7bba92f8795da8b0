/* SPDX-License-Identifier: Apache-2.0
 *
 * test/experiment_fixture.h: experiment files in a folder of their own, with plugins that only exist for tests
 * (plugins/fake_*.c).
 */
#ifndef NEXUS_TEST_EXPERIMENT_FIXTURE_H
#define NEXUS_TEST_EXPERIMENT_FIXTURE_H

#include <stddef.h>

#include "measure/experiment.h"

struct experiment_fixture {
	char build[4096], source[4096],
		plugins[4200]; /* NEXUS_BUILD, NEXUS_SOURCE, test-plugins/ */
	char dir[32];
	struct nx_experiment *x; /* of the last load; NULL when it failed */
	struct nx_err err;
};
extern struct experiment_fixture fx;

/* For main(): makes the folder and goes into it; leaves and removes it. */
void experiment_make_folder(void);
void experiment_remove_folder(void);
/* Of each test. */
void experiment_setup(void);
void experiment_teardown(void);

void experiment_write(const char *path, const char *text, size_t n);
/* Loads text as x.yaml with the plugins, and one --set or NULL. */
int experiment_load(const char *text, const char *set);
void experiment_load_ok(const char *text, const char *set);

/* Lines 1 to 4 of every file, so that a case's own text begins in line 5. */
#define HEAD "# Is it fast?\nmodel: m.gguf\nbase: plain\nworkload: {prompts: p.jsonl}\n"

#endif
