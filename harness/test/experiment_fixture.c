/* SPDX-License-Identifier: Apache-2.0 */
/* See experiment_fixture.h. */
#include "experiment_fixture.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A template of mkdtemp. */
struct experiment_fixture fx = {.dir = "/tmp/nexus-test-XXXXXX"};

void experiment_write(const char *path, const char *text, size_t n)
{
	FILE *f = fopen(path, "w");
	if (!f || fwrite(text, 1, n, f) != n || fclose(f)) {
		perror(path); /* no ck_assert: main calls this too */
		exit(EXIT_FAILURE);
	}
}

void experiment_setup(void)
{
	fx.x = NULL;
	memset(&fx.err, 0, sizeof(fx.err));
}

void experiment_teardown(void)
{
	nx_experiment_destroy(fx.x);
}

int experiment_load(const char *text, const char *set)
{
	char path_set[4300];
	snprintf(path_set, sizeof(path_set), "techniques=%s", fx.plugins);
	const char *sets[] = {path_set, set};
	experiment_write("x.yaml", text, strlen(text));
	nx_experiment_destroy(fx.x);
	fx.x = NULL;
	return nx_experiment_load(&fx.x, "x.yaml", sets, set ? 2 : 1, NULL, &fx.err);
}

void experiment_load_ok(const char *text, const char *set)
{
	int rc = experiment_load(text, set);
	ck_assert_msg(rc == 0, "%s", fx.err.msg);
}

void experiment_make_folder(void)
{
	const char *b = getenv("NEXUS_BUILD"), *s = getenv("NEXUS_SOURCE");
	if (!realpath(b ? b : "build", fx.build) || !realpath(s ? s : ".", fx.source) ||
	    !mkdtemp(fx.dir) || chdir(fx.dir)) {
		fprintf(stderr, "set NEXUS_BUILD and NEXUS_SOURCE\n");
		exit(EXIT_FAILURE);
	}
	snprintf(fx.plugins, sizeof(fx.plugins), "%s/test-plugins", fx.build);
	unsetenv("NEXUS_TECHNIQUE_PATH");
	static const char *const folders[] = {"models", "models/nano", "workloads"};
	static const char *const files[] = {"m.gguf", "p.jsonl", "models/nano/nano.gguf",
	                                    "workloads/stories.jsonl"};
	for (size_t i = 0; i < 3; i++)
		mkdir(folders[i], 0700);
	for (size_t i = 0; i < 4; i++)
		experiment_write(files[i], "x", 1);
	static const char trace[] =
		"timestamp,input_length,output_length\n1,20,40\n2,100,5\n3,300,30\n";
	experiment_write("t.csv", trace, strlen(trace));
}

void experiment_remove_folder(void)
{
	char command[64];
	snprintf(command, sizeof(command), "rm -rf '%s'", fx.dir);
	if (chdir("/") || system(command))
		fprintf(stderr, "%s stays\n", fx.dir);
}
