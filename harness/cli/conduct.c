/* SPDX-License-Identifier: Apache-2.0
 *
 * conduct.c: see conduct.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/conduct.h"
#include "model/preset.h"
#include "record/schema.h"
#include "record/shards.h"

int nx_conduct_check_environment(struct nx_err *err)
{
	static const char *const numbers[] = {"NEXUS_CALIBRATE", "NEXUS_MAX_OTHER_LOAD"};
	const char *limit = getenv("NEXUS_MEMORY_LIMIT");
	uint64_t bytes;
	if (limit && (nx_parse_size(limit, &bytes) || !bytes))
		return nx_fail(err, NX_EINVAL,
		               "NEXUS_MEMORY_LIMIT is \"%s\"; legal: a size such as 512MiB", limit);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		const char *text = getenv(numbers[i]);
		char *end = NULL;
		double v = text ? strtod(text, &end) : 0;
		if (text && (end == text || *end || !(v >= 0 && v < 1e6)))
			return nx_fail(err, NX_EINVAL, "%s is \"%s\"; legal: a number from 0",
			               numbers[i], text);
	}
	return 0;
}

double nx_conduct_calibrate_s(double otherwise)
{
	const char *seconds = getenv("NEXUS_CALIBRATE");
	return seconds ? strtod(seconds, NULL) : otherwise;
}

/* What is said of the order of cells beside the facts of the machine. */
static int add_fact(struct nx_run_head *head, const char *key, const char *value,
                    struct nx_err *err)
{
	struct nx_fact *f = realloc(head->facts, (head->n_facts + 1) * sizeof(*f));
	if (!f)
		return nx_fail(err, NX_ENOMEM, "no memory for the run's facts");
	head->facts = f;
	snprintf(f[head->n_facts].key, sizeof(f->key), "%s", key);
	snprintf(f[head->n_facts].value, sizeof(f->value), "%s", value);
	head->n_facts++;
	return 0;
}

/* What the table of the shape does not say. */
static int add_model_facts(struct nx_run_head *head, const struct nx_model *m, struct nx_err *err)
{
	const struct nx_shape *s = nx_model_shape(m);
	char text[128];
	int rc = add_fact(head, "architecture", nx_model_arch(m), err);
	snprintf(text, sizeof(text),
	         nx_model_is_random(m) ? "random, seed %u" : "of the model's file", NX_PRESET_SEED);
	if (!rc)
		rc = add_fact(head, "weights", text, err);
	snprintf(text, sizeof(text), "%d tokens: the context ends there", s->window);
	return rc || !s->window ? rc : add_fact(head, "sliding_window", text, err);
}

static int make_head(const struct nx_conduct *c, struct nx_run_head *head, struct nx_err *err)
{
	const struct nx_experiment *x = c->crew->x;
	*head = (struct nx_run_head){
		.name = x->name,
		.question = x->question,
		.config_text = x->text,
		.shape = *nx_model_shape(c->model),
		.min_effect = x->min_effect,
		.reference = x->reference,
	};
	char order[128];
	if (x->order == NX_ORDER_SORTED)
		snprintf(order, sizeof(order), "sorted: each round as the sweep lists them");
	else
		snprintf(
			order, sizeof(order),
			"each round: settings, and stacks within each, by Fisher-Yates, SplitMix64, seed %llu ^ golden x "
			"(round + 1)",
			(unsigned long long)x->workload.seed);
	int rc = nx_facts_collect(&head->facts, &head->n_facts, x, c->argc, c->argv, err);
	if (!rc)
		rc = add_fact(head, "cell_order", order, err);
	return rc ? rc : add_model_facts(head, c->model, err);
}

/* Under the lock: every visit, then the run file. */
static int measure(const struct nx_conduct *c, struct nx_shards *shards, struct nx_run_head *head,
                   struct nx_err *err)
{
	struct nx_crew *crew = c->crew;
	size_t n_cells;
	const struct nx_cell *cells = nx_experiment_cells(crew->x, &n_cells);
	int rc = nx_crew_start(crew, err);
	if (!rc) {
		head->calibration = crew->calibration;
		head->device = crew->device;
		if (crew->note[0])
			rc = add_fact(head, "workload_note", crew->note, err);
	}
	if (!rc) {
		rc = nx_shards_update(shards, head, c->force, err);
	}
	if (!rc)
		rc = nx_sweep_run(crew, shards, err);
	if (!rc)
		rc = nx_sweep_profile(crew, shards, err);
	nx_crew_stop(crew);
	return rc ? rc : nx_run_merge(shards, c->output, head, cells, n_cells, err);
}

static void say_note(const struct nx_shards *shards)
{
	const char *note = nx_shards_note(shards);
	if (note)
		nx_say("%s", note);
}

/* Every trial that is there must be of a cell that this program knows: the merge takes those alone, and then the
 * folder goes. *most: trials that a whole run may have. */
static int knows_all(const struct nx_conduct *c, const struct nx_shards *shards, size_t *most,
                     struct nx_err *err)
{
	size_t n_cells, known = 0, there = nx_shards_count(shards);
	const struct nx_cell *cells = nx_experiment_cells(c->crew->x, &n_cells);
	for (size_t i = 0; i < n_cells; i++)
		for (int32_t r = 0; r < c->crew->x->trials.max; r++)
			known += nx_shards_has(shards, cells[i].id, r);
	*most = n_cells * (size_t)c->crew->x->trials.max;
	return known == there
	               ? 0
	               : nx_fail(err, NX_ECONFLICT,
	                         "%s: found %zu trials, of which %zu are of the experiment as this program reads it; legal: "
	                         "the program and techniques of then",
	                         nx_shards_dir(shards), there, known);
}

/* What is there becomes the run file, as the run that made it said what it is. */
static int finish(const struct nx_conduct *c, const struct nx_run_head *now,
                  struct nx_shards **shards, struct nx_err *err)
{
	struct nx_run_head then;
	char text[128];
	size_t n_cells, most;
	const struct nx_cell *cells = nx_experiment_cells(c->crew->x, &n_cells);
	int rc = nx_shards_reopen(shards, c->output, now, &then, err);
	if (rc)
		return rc;
	say_note(*shards);
	rc = knows_all(c, *shards, &most, err);
	if (!rc) {
		snprintf(text, sizeof(text), "after %zu of up to %zu trials, by --finish",
		         nx_shards_count(*shards), most);
		rc = add_fact(&then, "ended_early", text, err);
	}
	if (!rc)
		rc = nx_sweep_settle(c->crew->x, *shards, err);
	if (!rc)
		rc = nx_run_merge(*shards, c->output, &then, cells, n_cells, err);
	nx_head_release(&then);
	return rc;
}

int nx_conduct(const struct nx_conduct *c, struct nx_conducted *out, struct nx_err *err)
{
	struct nx_run_head head = {0};
	struct nx_shards *shards = NULL;
	*out = (struct nx_conducted){.status = NX_EXIT_DONE};
	int rc = make_head(c, &head, err);
	/* Before a worker loads anything: one run must not disturb another to learn that it is refused. */
	if (!rc)
		rc = c->finish
		             ? finish(c, &head, &shards, err)
		             : nx_shards_open(&shards, c->output, &head, c->resume, c->force, err);
	bool merged = !rc && !c->finish && nx_shards_merged(shards);
	if (!rc && !merged && !c->finish) {
		say_note(shards);
		rc = measure(c, shards, &head, err);
		out->interrupted = rc && nx_child_signal();
		if (!rc)
			say_note(shards);
	}
	if (!rc)
		rc = c->show(c->ctx, c->output, &out->status, err);
	if (!rc && merged) {
		nx_say("%s was whole already: only its shards had to be removed", c->output);
		rc = nx_shards_remove(shards, err);
	}
	if (rc && shards && c->discard)
		(void)nx_shards_remove(shards, NULL);
	out->n_kept = rc && shards ? nx_shards_count(shards) : 0;
	nx_shards_close(shards);
	free(head.facts);
	return rc;
}
