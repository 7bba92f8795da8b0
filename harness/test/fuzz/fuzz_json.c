/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a file of JSON lines. */
#include <string.h>

#include "base/json.h"
#include "fuzz/fuzz.h"

FUZZ_TARGET(json)
{
	const char *path = fuzz_file("in.jsonl", data, size);
	struct nx_jsonl r;
	struct nx_err err = {0};
	json_t *v;
	int line = 0, rc = nx_jsonl_init(&r, path, &err);
	if (!fuzz_told(rc, &err))
		return 0;
	while ((rc = nx_jsonl_next(&r, &v, &err)) > 0) {
		fuzz_expect(json_is_object(v), "a line is an object");
		fuzz_expect(r.line >= line,
		            "lines are counted"); /* entries of a list may share one */
		line = r.line;
		const char *key;
		json_t *child;
		json_object_foreach(v, key, child)
		{
			fuzz_touch(key, strlen(key));
			(void)nx_json_kind(child);
		}
		int failed = nx_jsonl_fail(&r, &err, "found %s", nx_json_kind(v));
		fuzz_expect(failed == NX_EFORMAT, "a failure has a code");
		json_decref(v);
	}
	fuzz_told(rc, &err);
	nx_jsonl_release(&r);
	return 0;
}
