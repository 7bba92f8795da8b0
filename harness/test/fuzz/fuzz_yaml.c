/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a YAML text: the tree, and every question that can be asked of a node. */
#include <string.h>

#include "base/yaml.h"
#include "fuzz/fuzz.h"

static const char *const names[] = {"batch_size", "seq_len", "stack", "a", "tuned", "plain"};
#define N_NAMES (sizeof(names) / sizeof(names[0]))

static void ask(const struct nx_yaml *v)
{
	struct nx_err err = {0};
	const char *text;
	int32_t i;
	uint64_t u;
	double d;
	bool b;
	int choice;
	fuzz_told(nx_yaml_text(v, "a text", &text, &err), &err);
	fuzz_told(nx_yaml_i32(v, -5, 1 << 20, &i, &err), &err);
	fuzz_told(nx_yaml_u64(v, &u, &err), &err);
	fuzz_told(nx_yaml_double(v, -1e9, 1e9, &d, &err), &err);
	fuzz_told(nx_yaml_bool(v, &b, &err), &err);
	fuzz_told(nx_yaml_size(v, &u, &err), &err);
	fuzz_told(nx_yaml_duration(v, &d, &err), &err);
	fuzz_told(nx_yaml_choice(v, names, N_NAMES, &choice, &err), &err);
	fuzz_told(nx_yaml_check_map(v, names, N_NAMES, &err), &err);
}

/* Every node is in its place, once, and n counts the children. */
static size_t walk(const struct nx_yaml *v, int depth)
{
	size_t n = 0, all = 1;
	fuzz_expect(depth <= NX_YAML_DEPTH_MAX + (v->kind == NX_YAML_SCALAR),
	            "the depth is limited");
	fuzz_expect(v->line > 0 && v->column > 0, "a node has a place");
	fuzz_touch(v->text, strlen(v->text));
	fuzz_touch(v->label, strlen(v->label));
	ask(v);
	for (const struct nx_yaml *c = v->first; c; c = c->next, n++) {
		fuzz_expect((v->kind == NX_YAML_MAP) == (c->key != NULL),
		            "the values of a mapping have keys");
		if (c->key)
			fuzz_expect(nx_yaml_get(v, c->key->text) == c,
			            "a value is found by its key");
		fuzz_expect(c->next || v->last == c, "last is the last");
		all += walk(c, depth + 1);
	}
	fuzz_expect(n == v->n, "n counts the children");
	fuzz_expect(v->kind != NX_YAML_SCALAR || n == 0, "a scalar has no children");
	return all;
}

FUZZ_TARGET(yaml)
{
	struct nx_arena a = {0};
	struct nx_err err = {0};
	struct nx_yaml *root;
	int rc = nx_yaml_parse(&a, "in.yaml", (const char *)data, size, &root, &err);
	/* Asking all of a large file is quadratic in its keys. */
	if (fuzz_told(rc, &err) && size < 20000)
		fuzz_expect(walk(root, 1) <= NX_YAML_NODES_MAX, "the nodes are limited");
	nx_arena_release(&a);
	return 0;
}
