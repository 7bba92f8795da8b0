/* SPDX-License-Identifier: Apache-2.0
 *
 * conduct.c: see conduct.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/conduct.h"
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

static int make_head(const struct nx_conduct *c, struct nx_run_head *head, struct nx_err *err)
{
	const struct nx_experiment *x = c->crew->x;
	*head = (struct nx_run_head){
		.name = x->name,
		.question = x->question,
		.config_text = x->text,
		.calibration = c->crew->calibration,
		.device = c->crew->device,
		.shape = *c->shape,
		.min_effect = x->min_effect,
		.reference = x->reference,
	};
	char order[128];
	snprintf(order, sizeof(order),
	         "each round: Fisher-Yates, SplitMix64, seed %llu ^ golden x (round + 1)",
	         (unsigned long long)x->workload.seed);
	int rc = nx_facts_collect(&head->facts, &head->n_facts, x, c->argc, c->argv, err);
	return rc ? rc : add_fact(head, "cell_order", order, err);
}

int nx_conduct(const struct nx_conduct *c, struct nx_sweep_result *out, bool *kept,
               struct nx_err *err)
{
	struct nx_run_head head = {0};
	struct nx_shards *shards = NULL;
	size_t n_cells;
	const struct nx_cell *cells = nx_experiment_cells(c->crew->x, &n_cells);
	*out = (struct nx_sweep_result){0};
	int rc = nx_crew_start(c->crew, err);
	if (!rc)
		rc = make_head(c, &head, err);
	if (!rc)
		rc = nx_shards_open(&shards, c->output, &head, c->resume, c->force, err);
	if (!rc)
		rc = nx_sweep_run(c->crew, shards, out, err);
	nx_crew_stop(c->crew);
	if (!rc)
		rc = nx_run_merge(shards, c->output, &head, cells, n_cells, err);
	if (rc && shards && c->discard)
		nx_shards_remove(shards);
	*kept = rc && shards && !c->discard;
	nx_shards_close(shards);
	free(head.facts);
	return rc;
}
