/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/trace.c: rows, and the JSON shape; CSV is in trace_csv.c. See trace.h.
 */
#include "measure/trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "measure/trace_internal.h"

int nx_trace_add(struct nx_trace_rows *t, const struct nx_trace_raw *raw, struct nx_err *why)
{
	if (t->n == NX_TRACE_ROWS_MAX)
		return nx_fail(why, NX_EFORMAT, "found more than %zu rows; legal: fewer",
		               NX_TRACE_ROWS_MAX);
	if (!t->begun)
		t->first_ns = raw->time_ns;
	else if (raw->time_ns < t->last_ns)
		return nx_fail(
			why, NX_EFORMAT,
			"found a time %.9g s before that of the row above; legal: times that never go back",
			(double)(t->last_ns - raw->time_ns) / 1e9);
	t->begun = true;
	t->last_ns = raw->time_ns;
	if (raw->n_out == 0) {
		t->n_left_out++;
		return 0;
	}
	if (t->n == t->cap) {
		size_t cap = t->cap ? 2 * t->cap : 1024;
		struct nx_trace_row *more = realloc(t->rows, cap * sizeof(*more));
		if (!more)
			return nx_fail(why, NX_ENOMEM, "out of memory for %zu rows", cap);
		t->rows = more;
		t->cap = cap;
	}
	/* Both lie within +- NX_TRACE_TIME_MAX_S: no overflow. */
	t->rows[t->n++] =
		(struct nx_trace_row){.arrival_ns = (uint64_t)(raw->time_ns - t->first_ns),
	                              .n_in = raw->n_in,
	                              .n_out = raw->n_out,
	                              .blocks = raw->blocks,
	                              .n_blocks = raw->n_blocks};
	return 0;
}

/* ---- JSON ------------------------------------------------------------------------------------- */

static int length_of(const struct nx_jsonl *r, const json_t *v, const char *key, int32_t least,
                     int32_t *out, struct nx_err *err)
{
	const json_t *n = json_object_get(v, key);
	json_int_t i = json_integer_value(n);
	if (!n)
		return nx_jsonl_fail(
			r, err,
			"found no %s; legal: {\"timestamp\": ms, \"input_length\": n, \"output_length\": n}",
			key);
	if (!json_is_integer(n) || i < least || i > NX_TRACE_LEN_MAX)
		return nx_jsonl_fail(r, err, "found %s for %s; legal: an integer from %d to %d",
		                     json_is_integer(n) ? "a number out of range" : nx_json_kind(n),
		                     key, least, NX_TRACE_LEN_MAX);
	*out = (int32_t)i;
	return 0;
}

static int time_of(const struct nx_jsonl *r, const json_t *v, int64_t *ns, struct nx_err *err)
{
	const json_t *t = json_object_get(v, "timestamp");
	double ms = json_number_value(t);
	if (!t || !json_is_number(t) || !(fabs(ms) <= NX_TRACE_TIME_MAX_S * 1e3))
		return nx_jsonl_fail(r, err, "found %s for timestamp; legal: milliseconds",
		                     !t                  ? "nothing"
		                     : json_is_number(t) ? "a number out of range"
		                                         : nx_json_kind(t));
	*ns = llround(ms * 1e6);
	return 0;
}

static int blocks_of(struct nx_arena *a, const struct nx_jsonl *r, const json_t *v,
                     struct nx_trace_raw *raw, struct nx_err *err)
{
	const json_t *ids = json_object_get(v, "hash_ids");
	size_t n = json_array_size(ids);
	if (!ids || json_is_null(ids))
		return 0;
	if (!json_is_array(ids) || n > NX_TRACE_LEN_MAX)
		return nx_jsonl_fail(r, err, "found %s for hash_ids; legal: a list of integers",
		                     json_is_array(ids) ? "too many entries" : nx_json_kind(ids));
	uint64_t *out = nx_arena_array(a, n, sizeof(*out));
	if (!out)
		return nx_fail(err, NX_ENOMEM, "out of memory for a trace");
	for (size_t i = 0; i < n; i++) {
		const json_t *id = json_array_get(ids, i);
		if (!json_is_integer(id))
			return nx_jsonl_fail(r, err,
			                     "found %s in hash_ids; legal: a list of integers",
			                     nx_json_kind(id));
		out[i] = (uint64_t)json_integer_value(id);
	}
	raw->blocks = out;
	raw->n_blocks = (uint32_t)n;
	return 0;
}

static int read_json(struct nx_arena *a, const char *path, struct nx_trace_rows *t,
                     struct nx_err *err)
{
	struct nx_jsonl r;
	int rc = nx_jsonl_init(&r, path, err);
	while (rc == 0) {
		json_t *v = NULL;
		struct nx_trace_raw raw = {0};
		struct nx_err why = {0};
		int got = nx_jsonl_next(&r, &v, err);
		if (got <= 0) {
			rc = got;
			break;
		}
		if ((rc = time_of(&r, v, &raw.time_ns, err)) == 0 &&
		    (rc = length_of(&r, v, "input_length", 1, &raw.n_in, err)) == 0 &&
		    (rc = length_of(&r, v, "output_length", 0, &raw.n_out, err)) == 0 &&
		    (rc = blocks_of(a, &r, v, &raw, err)) == 0 &&
		    (rc = nx_trace_add(t, &raw, &why)) != 0)
			rc = nx_jsonl_fail(&r, err, "%s", why.msg);
		json_decref(v);
	}
	nx_jsonl_release(&r);
	return rc;
}

/* ---- either ----------------------------------------------------------------------------------- */

int nx_trace_read(struct nx_arena *a, const char *path, struct nx_trace **out, struct nx_err *err)
{
	struct nx_trace_rows t = {0};
	char c;
	int rc = nx_file_first_byte(path, &c, err);
	if (rc == 0)
		rc = c == '{' || c == '[' ? read_json(a, path, &t, err)
		                          : nx_trace_read_csv(path, &t, err);
	if (rc == 0 && t.n == 0)
		rc = nx_fail(err, NX_EFORMAT,
		             "%s:1: found no request with output; legal: at least one", path);
	struct nx_trace *trace = rc ? NULL : nx_arena_alloc(a, sizeof(*trace));
	struct nx_trace_row *rows = trace ? nx_arena_array(a, t.n, sizeof(*rows)) : NULL;
	if (rc == 0 && !rows)
		rc = nx_fail(err, NX_ENOMEM, "%s: out of memory for %zu rows", path, t.n);
	if (rc == 0) {
		memcpy(rows, t.rows, t.n * sizeof(*rows));
		*trace = (struct nx_trace){
			.path = path, .rows = rows, .n = t.n, .n_left_out = t.n_left_out};
		*out = trace;
	}
	free(t.rows);
	return rc;
}
