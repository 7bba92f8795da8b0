/* SPDX-License-Identifier: Apache-2.0 */
/* The input is an experiment file and, each behind a byte 0x1e, up to eight texts of --set. Beside the file lie
 * m.gguf, p.jsonl and more.yaml (stacks to include); techniques are those that were built. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "measure/experiment.h"

#define SETS_MAX 8
#define SEPARATOR 0x1e

static const char more[] = "stacks:\n"
			   "  paged:\n"
			   "    - paged_attention: {block_size: [16, 32]}\n"
			   "  all:\n"
			   "    - paged_attention\n"
			   "    - continuous_batching: {policy: fcfs}\n";

static void write_neighbours(void)
{
	static const char *written_in;
	if (written_in == fuzz_dir())
		return;
	fuzz_file("m.gguf", "", 0);
	fuzz_file("p.jsonl", "{\"text\": \"a\"}\n", 14);
	fuzz_file("more.yaml", more, sizeof(more) - 1);
	written_in = fuzz_dir();
}

static void use_cell(const struct nx_experiment *x, const struct nx_cell *c)
{
	char text[128];
	fuzz_expect(strlen(c->id) == 16, "a cell's id has 16 digits");
	fuzz_expect(c->stack_index < x->n_stacks && c->stack == &x->stacks[c->stack_index],
	            "a cell's stack is one of the experiment");
	fuzz_expect(c->batch_size >= 1 && c->num_requests >= 1, "a cell has work to do");
	for (uint64_t i = 0; i < 4; i++) {
		int32_t in = nx_dist_draw(&c->seq_len, 1, i),
			out = nx_dist_draw(&c->output_len, 2, i);
		fuzz_expect(in >= c->seq_len.min && in <= c->seq_len.max,
		            "a prompt's length is in its range");
		fuzz_expect(out >= c->output_len.min && out <= c->output_len.max,
		            "an output's length is in its range");
	}
	fuzz_expect(nx_dist_mean(&c->seq_len) > 0, "a mean length is positive");
	fuzz_touch(nx_dist_text(&c->seq_len, text, sizeof(text)), strlen(text));
}

FUZZ_TARGET(experiment)
{
	const uint8_t *end = size ? memchr(data, SEPARATOR, size) : NULL;
	size_t head = end ? (size_t)(end - data) : size;
	char *sets[SETS_MAX];
	size_t n_sets = 0, n_cells;
	struct nx_err err = {0};
	struct nx_experiment *x = NULL;

	write_neighbours();
	const char *path = fuzz_file("x.yaml", data, head);
	for (const uint8_t *at = end; at && n_sets < SETS_MAX; at = end) {
		size_t left = size - (size_t)(at + 1 - data);
		end = left ? memchr(at + 1, SEPARATOR, left) : NULL;
		struct fuzz_bytes b = {at + 1, end ? end : data + size};
		sets[n_sets++] = fuzz_text(&b);
	}
	int rc = nx_experiment_load(&x, path, (const char *const *)sets, n_sets, fuzz_exe_dir(),
	                            &err);
	if (fuzz_told(rc, &err)) {
		const struct nx_cell *cells = nx_experiment_cells(x, &n_cells);
		fuzz_expect(n_cells >= 1, "an experiment has a cell");
		fuzz_expect(x->reference < x->n_stacks, "the reference is one of the stacks");
		for (size_t i = 0; i < n_cells && i < 1000; i++)
			use_cell(x, &cells[i]);
		for (size_t i = 0; i < x->n_stacks; i++)
			fuzz_touch(x->stacks[i].spec, strlen(x->stacks[i].spec));
		fuzz_touch(x->text, strlen(x->text));
		fuzz_touch(x->question, strlen(x->question));
		nx_experiment_destroy(x);
	}
	for (size_t i = 0; i < n_sets; i++)
		free(sets[i]);
	return 0;
}
