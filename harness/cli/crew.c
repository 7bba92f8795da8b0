/* SPDX-License-Identifier: Apache-2.0
 *
 * crew.c: starts workers and asks them for forecasts. See sweep.h.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/sweep.h"
#include "cli/wire.h"

/* Loading a large model from a cold disk is no hang. */
#define START_TIMEOUT_S 1800.0

static int fail_of(const json_t *j, struct nx_err *err)
{
	const char *text = json_string_value(json_object_get(j, "message"));
	int code = (int)json_integer_value(json_object_get(j, "error"));
	return nx_fail(err, code < 0 ? code : NX_EBUG, "%s",
	               text ? text : "the worker gave no reason");
}

static int greet(struct nx_crew *c, struct nx_err *err)
{
	json_t *msg = json_pack("{s:s, s:b, s:b}", "op", "start", "profile", (int)c->profile, "dry",
	                        (int)c->dry);
	if (c->calibrated)
		json_object_set_new(msg, "calibration", nx_wire_calibration(&c->calibration));
	else
		json_object_set_new(msg, "calibrate", json_real(c->calibrate_s));
	/* A worker that is already dead says why when it is heard. */
	(void)nx_child_say(&c->child, msg, NULL);
	json_t *reply = NULL;
	char death[NX_ERR_MAX];
	int rc = 0;
	switch (nx_child_hear(&c->child, START_TIMEOUT_S, &reply)) {
	case NX_HEARD_MESSAGE: break;
	case NX_HEARD_SIGNAL: return nx_fail(err, NX_ESKIP, "interrupted");
	case NX_HEARD_TIMEOUT:
		return nx_fail(err, NX_EENV, "the worker was not ready after %.0f s",
		               START_TIMEOUT_S);
	default:
		nx_child_stop(&c->child);
		return nx_fail(err, NX_EENV, "the worker was %s while it loaded model and device",
		               nx_child_death(&c->child, death, sizeof(death)));
	}
	if (json_object_get(reply, "ready")) {
		nx_unwire_device(json_object_get(reply, "device"), &c->device);
		nx_unwire_calibration(json_object_get(reply, "calibration"), &c->calibration);
		c->fits_bytes = (uint64_t)json_integer_value(json_object_get(reply, "fits"));
		c->calibrated = true;
		c->instruments = json_is_true(json_object_get(reply, "instruments"));
		const char *note = json_string_value(json_object_get(reply, "note"));
		snprintf(c->note, sizeof(c->note), "%s", note ? note : "");
		if (c->note[0] && c->n_starts == 1)
			nx_say("%s", c->note);
	} else {
		rc = fail_of(reply, err);
	}
	json_decref(reply);
	return rc;
}

static int start(struct nx_crew *c, struct nx_err *err)
{
	int rc = nx_child_start(&c->child, c->path, c->sets, c->n_sets, err);
	if (rc)
		return rc;
	c->n_starts++;
	rc = greet(c, err);
	if (rc)
		nx_child_stop(&c->child);
	return rc;
}

int nx_crew_start(struct nx_crew *c, struct nx_err *err)
{
	if (nx_child_alive(&c->child))
		return 0;
	int rc = start(c, err);
	/* A hand that killed it once may not do so again; what the machine cannot do, it cannot twice. */
	if (rc && nx_child_slain(&c->child))
		rc = start(c, err);
	return rc;
}

int nx_crew_forecast(struct nx_crew *c, const struct nx_cell *cell, struct nx_forecast *out,
                     struct nx_err *err)
{
	int rc = nx_crew_start(c, err);
	if (rc)
		return rc;
	(void)nx_child_say(&c->child,
	                   json_pack("{s:s, s:I, s:s, s:i}", "op", "forecast", "cell",
	                             (json_int_t)cell->index, "id", cell->id, "batch",
	                             cell->batch_size),
	                   NULL);
	json_t *reply = NULL;
	char death[400] = "silent for too long";
	memset(out, 0, sizeof(*out));
	enum nx_heard heard = nx_child_hear(&c->child, c->x->timeout_s, &reply);
	if (heard == NX_HEARD_SIGNAL)
		return nx_fail(err, NX_ESKIP, "interrupted");
	if (heard != NX_HEARD_MESSAGE) {
		nx_child_stop(&c->child);
		if (heard != NX_HEARD_TIMEOUT)
			nx_child_death(&c->child, death, sizeof(death));
		out->code = NX_EBUG;
		snprintf(out->reason, sizeof(out->reason), "the worker was %s during the forecast",
		         death);
		return 0;
	}
	if (json_object_get(reply, "error"))
		rc = fail_of(reply, err);
	else
		nx_unwire_forecast(json_object_get(reply, "forecast"), out);
	if (out->batch_size > 0)
		nx_experiment_settle(c->x, cell->index, out->batch_size);
	json_decref(reply);
	return rc;
}

void nx_crew_stop(struct nx_crew *c)
{
	nx_child_stop(&c->child);
}
