/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/verbs.h: the verbs of the command and its exit statuses.
 *
 * A verb takes the arguments from its own name on (argv[0] is the verb) and returns the exit status.
 * Machine output goes to stdout, words for people to stderr. Only main() exits.
 */
#ifndef NEXUS_CLI_VERBS_H
#define NEXUS_CLI_VERBS_H

/* X(ID, value, text): said once; usage prints them. */
#define NX_EXITS(X)                                                                                \
	X(DONE, 0, "done")                                                                         \
	X(CELL_FAILED, 1, "a cell failed, or the run was interrupted")                             \
	X(USAGE, 2, "bad usage or config (a file named there that is not found, too)")             \
	X(ENVIRONMENT, 3, "the environment lacks something (backend, memory, disk, permission)")

enum nx_exit {
#define X(id, value, text) NX_EXIT_##id = value,
	NX_EXITS(X)
#undef X
};

/* X(function's name, verb, summary): in the order of usage. */
#define NX_VERBS(X)                                                                                \
	X(run, "run", "run an experiment file and write its run file")                             \
	X(list, "list", "show techniques and their parameters")                                    \
	X(profile, "profile", "where a load's time and memory go, and what bounds it")             \
	X(report, "report", "tables of a run file")                                                \
	X(plot, "plot", "charts of a run file")                                                    \
	X(generate, "generate", "continue a prompt with a model")                                  \
	X(bench, "bench", "speed of the whole engine against this device's measured peaks")        \
	X(new_technique, "new-technique", "write a folder with a technique of your own")           \
	X(doctor, "doctor", "is this machine fit to measure on, and what would its figures lack")

#define X(fn, verb, summary) int nx_verb_##fn(int argc, char **argv);
NX_VERBS(X)
#undef X

/* Hidden: the process that holds the device for `nexus run`; see worker.c. */
int nx_verb_worker(int argc, char **argv);

#endif
