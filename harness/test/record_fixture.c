/* SPDX-License-Identifier: Apache-2.0 */
/* See record_fixture.h. */
#include "base/rng.h"
#include "record_fixture.h"

#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure/stats.h"

static void fact(struct nx_fact *f, const char *key, const char *value)
{
	memset(f, 0, sizeof(*f));
	snprintf(f->key, sizeof(f->key), "%s", key);
	snprintf(f->value, sizeof(f->value), "%s", value);
}

void fixture_init(struct fixture *f)
{
	static const char *const ids[FIXTURE_CELLS] = {"00000000000000a0", "00000000000000a1",
	                                               "00000000000000b0", "00000000000000b1"};
	memset(f, 0, sizeof(*f));
	snprintf(f->dir, sizeof(f->dir), "/tmp/nexus-record-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(f->dir));
	snprintf(f->output, sizeof(f->output), "%s/run.h5", f->dir);
	snprintf(f->parts, sizeof(f->parts), "%s.parts", f->output);
	fact(&f->facts[0], "binary_sha256", "aaaa");
	fact(&f->facts[1], "model", "nano.gguf");
	fact(&f->facts[2], "host", "h\xc3\xb6st");
	fact(&f->facts[3], "plugin.fast.sha256", "bbbb");
	f->stacks[0] = (struct nx_named_stack){
		.name = "base", .base_only = true, .spec = "flash_attention{}"};
	f->stacks[1] = (struct nx_named_stack){.name = "fast[block_size=16]",
	                                       .spec = "paged{block_size=16}"};
	for (int i = 0; i < FIXTURE_CELLS; i++) {
		struct nx_cell *c = &f->cells[i];
		snprintf(c->id, sizeof(c->id), "%s", ids[i]);
		c->index = (size_t)i;
		c->stack_index = (size_t)i % 2;
		c->stack = &f->stacks[i % 2];
		c->batch_size = i < 2 ? 1 : 8;
		c->num_requests = 3;
		c->seq_len = (struct nx_dist){
			.kind = NX_DIST_FIXED, .min = 512, .max = 512, .mean = 512};
		c->output_len =
			(struct nx_dist){.kind = NX_DIST_FIXED, .min = 64, .max = 64, .mean = 64};
	}
	f->head = (struct nx_run_head){.name = "quick",
	                               .question = "Which is faster?",
	                               .config_text = "# Which is faster?\nmodel: nano\n",
	                               .facts = f->facts,
	                               .n_facts = 4,
	                               .min_effect = 0.01,
	                               .calibration = {.read_bytes_per_s = 1e10,
	                                               .cache_set_bytes = 1 << 20,
	                                               .f32_flops_per_s = 1e11},
	                               .device = {.name = "CPU of tests",
	                                          .isa = "avx2",
	                                          .mem_bytes = 1u << 30,
	                                          .n_units = 2},
	                               .shape = {.n_layers = 2,
	                                         .d_model = 64,
	                                         .rope_theta = 10000,
	                                         .norm_eps = 1e-5f,
	                                         .tied = true}};
}

static void remove_tree(const char *dir)
{
	char path[600];
	DIR *d = opendir(dir);

	for (struct dirent *e; d && (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (unlink(path))
			remove_tree(path);
	}
	if (d)
		closedir(d);
	rmdir(dir);
}

void fixture_release(struct fixture *f)
{
	remove_tree(f->dir);
}

void fixture_trial(const struct fixture *f, int cell, int round, struct nx_trial *t)
{
	static const double tok_per_s[FIXTURE_CELLS] = {100, 120, 0, 300};
	struct nx_rng rng = {(uint64_t)(cell * 1000 + round)};

	nx_trial_init(t);
	memcpy(t->cell, f->cells[cell].id, sizeof(t->cell));
	t->cell_index = cell;
	t->round = round;
	t->started_unix_ns = 1700000000000000000 + round;
	t->load_other = 0.25;
	if (tok_per_s[cell] == 0) {
		t->status = NX_STATUS_OUT_OF_MEMORY;
		snprintf(t->cause, sizeof(t->cause), "needs 91 GB, device has 78 GB");
		return;
	}
	t->duration_ns = 1000000 + (uint64_t)round;
	t->perf_cycles = 123456789;
	t->counted = (struct nx_counted){1, 2, 3, 4};
	t->util_source = NX_UTIL_COUNTED;
	t->n_requests = 3;
	t->requests = calloc(t->n_requests, sizeof(*t->requests));
	t->n_tokens = 500;
	t->tokens = calloc(t->n_tokens, sizeof(*t->tokens));
	t->n_steps = 2;
	t->steps = calloc(t->n_steps, sizeof(*t->steps));
	ck_assert(t->requests && t->tokens && t->steps);
	for (uint32_t i = 0; i < 3; i++)
		t->requests[i] = (struct nx_request_rec){i,
		                                         0,
		                                         512,
		                                         i == 0 ? 1 : 11,
		                                         (int32_t)(i % 3),
		                                         0,
		                                         i * 1000,
		                                         i * 1001,
		                                         i * 1000 + 5000000,
		                                         i * 1000 + 25000000,
		                                         i + 7,
		                                         i,
		                                         (int64_t)i * 77 - 1};
	for (uint32_t i = 0; i < 500; i++)
		t->tokens[i] = (struct nx_token_rec){i % 3, 0, (int32_t)(i / 3), (int32_t)(i * 7),
		                                     i * 1000003ull};
	for (uint64_t i = 0; i < 2; i++)
		t->steps[i] = (struct nx_step_info){.begin_ns = i,
		                                    .end_ns = i + 9,
		                                    .plan_ns = 1,
		                                    .phase = (int32_t)i,
		                                    .rows = {1, 2, 3, 4, 5},
		                                    .n_seqs = 6,
		                                    .n_emit = 7,
		                                    .n_waiting = 8,
		                                    .n_preempted = 9,
		                                    .kv_used = 10,
		                                    .kv_held = 11,
		                                    .kv_total = 12};
	t->phases[NX_PHASE_DECODE] = (struct nx_phase_use){.phase = NX_PHASE_DECODE,
	                                                   .n_preempted = 1,
	                                                   .n_steps = 2,
	                                                   .rows = 30,
	                                                   .rows_pad = 8,
	                                                   .n_seqs = 12,
	                                                   .n_waiting = 16,
	                                                   .n_emit = 14,
	                                                   .kv_held = 11,
	                                                   .kv_total = 12,
	                                                   .time_ns = 18,
	                                                   .plan_ns = 2,
	                                                   .counted = {5, 6, 7, 8},
	                                                   .perf_cycles = 99,
	                                                   .perf_instructions = NAN,
	                                                   .perf_llc_misses = 3};
	t->n_mem = 2;
	t->mem[0] = (struct nx_mem_use){"weights", 1000, 999};
	t->mem[1] = (struct nx_mem_use){"kv", 2000u + (uint32_t)round, 1500};
	t->n_counters = 1;
	t->counters[0] = (struct nx_counter_value){"paged.blocks", "blocks", 10 + round};
	for (int m = 0; m < NX_METRIC_COUNT; m++)
		t->metrics[m] = m + 0.5;
	t->metrics[NX_METRIC_GOODPUT] = NAN;
	t->metrics[NX_METRIC_OUTPUT_THROUGHPUT] =
		tok_per_s[cell] * (1 + 0.002 * nx_rng_normal(&rng));
	if (cell == 1)
		t->gate = (struct nx_gate){1, 100, 98, 2, 0, 0.125, 1, -1, -1, 0};
}

struct nx_shards *fixture_fill(const struct fixture *f, int rounds)
{
	struct nx_shards *s;
	struct nx_err err = {0};

	ck_assert_msg(nx_shards_open(&s, f->output, &f->head, true, false, &err) == 0, "%s",
	              err.msg);
	for (int round = 0; round < rounds; round++)
		for (int cell = 0; cell < FIXTURE_CELLS; cell++) {
			struct nx_trial t;
			fixture_trial(f, cell, round, &t);
			ck_assert_msg(nx_shards_write(s, &t, &err) == 0, "%s", err.msg);
			nx_trial_release(&t);
		}
	return s;
}

void fixture_run(const struct fixture *f)
{
	struct nx_err err = {0};
	struct nx_shards *s = fixture_fill(f, FIXTURE_ROUNDS);

	ck_assert_msg(nx_run_merge(s, f->output, &f->head, f->cells, FIXTURE_CELLS, &err) == 0,
	              "%s", err.msg);
	nx_shards_close(s);
}

int fixture_count_files(const char *dir, const char *prefix)
{
	DIR *d = opendir(dir);
	int n = 0;

	if (!d)
		return -1;
	for (struct dirent *e; (e = readdir(d));)
		n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..") &&
		     strncmp(e->d_name, prefix, strlen(prefix)) == 0;
	closedir(d);
	return n;
}

void fixture_put_file(const char *dir, const char *name, const char *data, size_t n)
{
	char path[400];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	FILE *out = fopen(path, "wb");
	ck_assert(out && fwrite(data, 1, n, out) == n && fclose(out) == 0);
}
