/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c: finds the verb. See verbs.h.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/guard.h"
#include "cli/cli.h"

struct verb {
	const char *name, *summary;
	int (*fn)(int argc, char **argv);
};

static const struct verb VERBS[] = {
#define X(fn, verb, summary) {verb, summary, nx_verb_##fn},
	NX_VERBS(X)
#undef X
};
#define N_VERBS (sizeof(VERBS) / sizeof(VERBS[0]))

static void usage(FILE *f)
{
	fprintf(f, "usage: nexus VERB [arguments]\n\n"
	           "Nexus measures what LLM inference optimisations buy, alone and stacked.\n\n");
	for (size_t i = 0; i < N_VERBS; i++)
		fprintf(f, "  %-14s %s\n", VERBS[i].name, VERBS[i].summary);
	fprintf(f,
	        "\n`nexus VERB --help` shows a verb's options and an example.\n\nExit status:\n");
#define X(id, value, text) fprintf(f, "  %d  %s\n", value, text);
	NX_EXITS(X)
#undef X
}

static int unknown(const char *name)
{
	const char *names[N_VERBS];
	for (size_t i = 0; i < N_VERBS; i++)
		names[i] = VERBS[i].name;
	const char *near = nx_near_name(name, names, N_VERBS);
	if (near)
		nx_say("unknown verb '%s'; did you mean '%s'? `nexus --help` lists the verbs", name,
		       near);
	else
		nx_say("unknown verb '%s'; `nexus --help` lists the verbs", name);
	return NX_EXIT_USAGE;
}

int main(int argc, char **argv)
{
	/* A closed pipe behind stdout or the worker's socket is an error to handle, not a death. */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* and so is a file that grows over `ulimit -f` */
	nx_guard_enable();
	if (argc < 2) {
		usage(stderr);
		return NX_EXIT_USAGE;
	}
	const char *name = argv[1];
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
		usage(stdout);
		return NX_EXIT_DONE;
	}
	if (!strcmp(name, "--version")) {
		printf("nexus " NX_VERSION "\n");
		return NX_EXIT_DONE;
	}
	if (!strcmp(name, "__worker"))
		return nx_verb_worker(argc - 1, argv + 1);
	int status = -1;
	for (size_t i = 0; i < N_VERBS && status < 0; i++)
		if (!strcmp(name, VERBS[i].name))
			status = VERBS[i].fn(argc - 1, argv + 1);
	if (status < 0)
		status = unknown(name);
	/* A full disk behind stdout must not look like success. */
	if ((fflush(stdout) || ferror(stdout)) && status == NX_EXIT_DONE) {
		nx_say("writing to standard output failed");
		status = NX_EXIT_ENVIRONMENT;
	}
	return status;
}
