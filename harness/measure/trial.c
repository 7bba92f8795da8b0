/* SPDX-License-Identifier: Apache-2.0 */
/* See trial.h. */
#include "measure/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool nx_status_final(int status)
{
	return status != NX_STATUS_OK && status != NX_STATUS_INVALID &&
	       status != NX_STATUS_THROTTLED;
}

const char *nx_status_name(int status)
{
	static const char *const names[] = {
#define X(id, name) name,
		NX_STATUSES(X)
#undef X
	};
	return status >= 0 && status < NX_STATUS_COUNT ? names[status] : "unknown";
}

const char *nx_phase_name(int phase)
{
	static const char *const names[] = {
#define X(id, name) name,
		NX_PHASES(X)
#undef X
	};
	return phase >= 0 && phase < NX_PHASE_COUNT ? names[phase] : "unknown";
}

static const struct nx_metric_desc descs[] = {
#define X(id, name, unit, better, text) {name, unit, better, text},
	NX_METRICS(X)
#undef X
};

const struct nx_metric_desc *nx_metric_desc(enum nx_metric m)
{
	return (int)m >= 0 && m < NX_METRIC_COUNT ? &descs[m] : NULL;
}

int nx_metric_find(const char *name)
{
	for (int m = 0; m < NX_METRIC_COUNT; m++)
		if (strcmp(descs[m].name, name) == 0)
			return m;
	return -1;
}

void nx_trial_init(struct nx_trial *t)
{
	*t = (struct nx_trial){.perf_cycles = -1, .perf_instructions = -1, .perf_llc_misses = -1};
	t->gate.first_request = t->gate.first_index = -1;
	t->device = (struct nx_device_state){NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0, -1};
	for (int p = 0; p < NX_PHASE_COUNT; p++)
		t->phases[p] = (struct nx_phase_use){.phase = p,
		                                     .perf_cycles = NAN,
		                                     .perf_instructions = NAN,
		                                     .perf_llc_misses = NAN};
	for (int m = 0; m < NX_METRIC_COUNT; m++)
		t->metrics[m] = NAN;
}

void nx_trial_release(struct nx_trial *t)
{
	free(t->requests);
	free(t->tokens);
	free(t->steps);
	free(t->texts);
	nx_trial_init(t);
}
