/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/experiment.h: what a file means, and that each kind of mistake is named at its place with its
 * remedy. Runs in a folder of its own with plugins that only exist for tests (plugins/fake_*.c).
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "measure/experiment.h"
#include "measure/trace.h"

static char build[4096], source[4096], plugins[4200], dir[] = "/tmp/nexus-test-XXXXXX";
static struct nx_experiment *x;
static struct nx_err err;

static void write_text(const char *path, const char *text, size_t n)
{
	FILE *f = fopen(path, "w");
	if (!f || fwrite(text, 1, n, f) != n || fclose(f)) {
		perror(path); /* no ck_assert: main calls this too */
		exit(EXIT_FAILURE);
	}
}

static void setup(void)
{
	x = NULL;
	memset(&err, 0, sizeof(err));
}

static void teardown(void)
{
	nx_experiment_destroy(x);
}

/* Lines 1 to 4 of every file, so that a case's own text begins in line 5. */
#define HEAD "# Is it fast?\nmodel: m.gguf\nbase: plain\nworkload: {prompts: p.jsonl}\n"

static int load_text(const char *text, const char *set)
{
	char path_set[4300];
	snprintf(path_set, sizeof(path_set), "techniques=%s", plugins);
	const char *sets[] = {path_set, set};
	write_text("x.yaml", text, strlen(text));
	nx_experiment_destroy(x);
	x = NULL;
	return nx_experiment_load(&x, "x.yaml", sets, set ? 2 : 1, NULL, &err);
}

static void load_ok(const char *text, const char *set)
{
	int rc = load_text(text, set);
	ck_assert_msg(rc == 0, "%s", err.msg);
}

START_TEST(defaults_are_as_documented)
{
	load_ok(HEAD, NULL);
	size_t n;
	const struct nx_cell *c = nx_experiment_cells(x, &n);
	ck_assert_uint_eq(n, 1);
	ck_assert_str_eq(x->name, "x");
	ck_assert_str_eq(x->question, "Is it fast?");
	ck_assert_str_eq(x->device, "cpu");
	ck_assert_int_eq(x->dtype, NX_BF16);
	ck_assert_int_eq(x->trials.min, 10);
	ck_assert_int_eq(x->trials.max, 10);
	ck_assert_int_eq(x->order, NX_ORDER_SHUFFLED);
	ck_assert(x->gate && !x->invariant && x->workload.ignore_eos);
	ck_assert(fabs(x->min_effect - 0.01) < 1e-12 && fabs(x->timeout_s - 600) < 1e-12);
	ck_assert_int_eq(x->workload.samples, 1);
	ck_assert_str_eq(c->stack->name, "baseline");
	ck_assert(c->stack->base_only);
	ck_assert_int_eq(c->batch_size, 1);
	ck_assert_int_eq(c->num_requests, 4);
	ck_assert_int_eq(c->seq_len.min, 512);
	ck_assert_int_eq(c->output_len.max, 128);
	ck_assert_uint_eq(strlen(c->id), 16);
}
END_TEST

START_TEST(a_sweep_is_the_product_with_stacks_fastest)
{
	load_ok(HEAD
	        "sweep:\n  batch_size: [1, 4]\n  seq_len: [64, {uniform: {min: 10, max: 20}}]\n"
	        "  output_len: {lognormal: {mean: 20, sigma: 1, max: 99}}\n"
	        "num_requests: {per_slot: 3}\ntrials: {min: 2, max: 9, rel_ci: 0.05}\nthreads: 2\nkv_memory: 64MiB\n"
	        "timeout: 2min\ndtype: f32\ninvariant: true\ngate: false\ngoodput: {ttft: 200, tpot: 50.5}\n"
	        "reference: slow\norder: sorted\n"
	        "stacks:\n  fast: [fake_schedule: {policy: shortest}]\n  slow:\n    - fake_schedule\n",
	        NULL);
	size_t n;
	const struct nx_cell *c = nx_experiment_cells(x, &n);
	static const char *const order[] = {"baseline", "fast", "slow"};
	ck_assert_uint_eq(n, 2 * 2 * 3);
	for (size_t i = 0; i < n; i++) {
		ck_assert_uint_eq(c[i].index, i);
		ck_assert_str_eq(c[i].stack->name, order[i % 3]);
		ck_assert_uint_eq(c[i].seq_len_index, i / 3 % 2);
		ck_assert_int_eq(c[i].batch_size, i < 6 ? 1 : 4);
		ck_assert_int_eq(c[i].num_requests, 3 * c[i].batch_size);
		for (size_t j = 0; j < i; j++)
			ck_assert_str_ne(c[i].id, c[j].id);
	}
	ck_assert_uint_eq(x->reference, 2);
	ck_assert_int_eq(x->order, NX_ORDER_SORTED);
	ck_assert_uint_eq(x->kv_budget_bytes, 64u << 20);
	ck_assert(fabs(x->timeout_s - 120) < 1e-9 && fabs(x->slo.tpot_ms - 50.5) < 1e-9 &&
	          x->slo.e2el_ms == 0);
	ck_assert_str_eq(
		x->stacks[1].spec,
		"fake_schedule{block_size=16,policy=shortest,max_batch_size=0,ratio=0.5,eager=false}");
	ck_assert_str_eq(x->stacks[0].spec, "(engine defaults)");
	ck_assert_int_eq(x->stacks[1].stack.n_layers, 1);
	ck_assert_int_eq(x->stacks[1].stack.layers[0].values[1].i, 2);
}
END_TEST

START_TEST(lengths_may_be_read)
{
	size_t n;
	load_ok(HEAD "sweep: {seq_len: [trace, {trace: {max: 100}}, 7], output_len: [trace, 50]}\n"
	             "num_requests: 2\n",
	        "workload.trace=t.csv");
	const struct nx_cell *c = nx_experiment_cells(x, &n);
	char text[64];
	ck_assert_uint_eq(n, 6);
	ck_assert_uint_eq(x->workload.trace->n, 3);
	ck_assert_str_eq(nx_dist_text(&c[0].seq_len, text, sizeof(text)), "trace 20-300");
	ck_assert_str_eq(nx_dist_text(&c[0].output_len, text, sizeof(text)), "trace 5-40");
	ck_assert_str_eq(nx_dist_text(&c[2].seq_len, text, sizeof(text)), "trace 20-100");
	ck_assert(fabs(nx_dist_mean(&c[0].seq_len) - 140) < 1e-9);
	ck_assert(fabs(nx_dist_mean(&c[2].seq_len) - 220 / 3.0) < 1e-9);
	/* The rows that are used, together: the third is not. */
	ck_assert_int_eq(c[0].longest, 100 + 5);
	ck_assert_int_eq(c[1].longest, 100 + 50);
	ck_assert_int_eq(c[4].longest, 7 + 40);
	ck_assert_int_eq(c[5].longest, 0);
	char id[17];
	memcpy(id, c[5].id, sizeof(id));
	load_ok(HEAD "sweep: {seq_len: 7, output_len: 50}\nnum_requests: 2\n", NULL);
	ck_assert_str_ne(id, nx_experiment_cells(x, &n)->id);

	load_ok(HEAD "sweep: {seq_len: dataset, output_len: {dataset: {max: 99}}}\n",
	        "workload.turns=first");
	c = nx_experiment_cells(x, &n);
	ck_assert_int_eq(x->workload.turns, NX_TURNS_FIRST);
	ck_assert_str_eq(nx_dist_text(&c->seq_len, text, sizeof(text)), "dataset 4-1024");
	ck_assert_str_eq(nx_dist_text(&c->output_len, text, sizeof(text)), "dataset 4-99");
	ck_assert(isnan(nx_dist_mean(&c->seq_len)));
	load_ok(HEAD, "workload.turns=all");
	ck_assert_int_eq(nx_experiment_cells(x, &n)->seq_len.kind, NX_DIST_DATASET);
	load_ok(HEAD, "workload.prompts=random");
	ck_assert_ptr_null(x->workload.prompts);
}
END_TEST

START_TEST(parameters_given_as_lists_are_axes)
{
	load_ok(HEAD
	        "sweep: {stack: [p, baseline]}\nstacks:\n  p:\n    - fake_schedule: {block_size: [16, 64], policy: [fcfs, priority]}\n",
	        NULL);
	static const char *const names[] = {
		"p[block_size=16,policy=fcfs]", "p[block_size=16,policy=priority]",
		"p[block_size=64,policy=fcfs]", "p[block_size=64,policy=priority]", "baseline"};
	ck_assert_uint_eq(x->n_stacks, 5);
	for (size_t i = 0; i < 5; i++)
		ck_assert_str_eq(x->stacks[i].name, names[i]);
	ck_assert_uint_eq(x->reference, 4);
	ck_assert_int_eq(x->stacks[3].stack.layers[0].values[0].i, 64);
	ck_assert_str_eq(x->stacks[3].stack.layers[0].values[1].s, "priority");
	/* One of them by its name; a comma in brackets does not part it. */
	load_ok(HEAD
	        "stacks:\n  p:\n    - fake_schedule: {block_size: [16, 64], policy: [fcfs, priority]}\n",
	        "sweep.stack=baseline,p[block_size=64,policy=fcfs]");
	ck_assert_uint_eq(x->n_stacks, 2);
	ck_assert_str_eq(x->stacks[1].name, names[2]);
}
END_TEST

START_TEST(ids_tell_what_differs)
{
	static const char *const sets[] = {
		"workload.seed=2", "sweep.batch_size=2",       "sweep.seq_len=5", "num_requests=7",
		"dtype=f32",       "workload.temperature=0.5", "kv_memory=1GB"};
	char before[17];
	size_t n;
	load_ok(HEAD, NULL);
	memcpy(before, nx_experiment_cells(x, &n)->id, sizeof(before));
	load_ok(HEAD "# another comment\n", "trials=3");
	ck_assert_str_eq(nx_experiment_cells(x, &n)->id, before);
	for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++) {
		load_ok(HEAD, sets[i]);
		ck_assert_msg(strcmp(nx_experiment_cells(x, &n)->id, before) != 0, "%s", sets[i]);
	}
}
END_TEST

START_TEST(set_lies_over_the_file)
{
	static const char text[] =
		HEAD "sweep: {batch_size: [1, 2]}\nnum_requests: 8\n"
		     "stacks:\n  a: [fake_schedule]\n  b: [fake_schedule: {block_size: 32}]\n";
	load_ok(text, "sweep.batch_size=1,4,16");
	ck_assert_uint_eq(x->n_batch_size, 3);
	ck_assert_int_eq(x->batch_size[2], 16);
	ck_assert_ptr_nonnull(strstr(x->text, "\n# --set sweep.batch_size=1,4,16\n"));
	load_ok(text, "num_requests.per_slot=5");
	ck_assert_int_eq(x->num_requests, 0);
	ck_assert_int_eq(x->requests_per_slot, 5);
	load_ok(text, "sweep.output_len={uniform: {min: 3, max: 9}}");
	ck_assert_int_eq(x->output_len[0].max, 9);
	load_ok(text, "stacks.a.fake_schedule.block_size=64");
	ck_assert_int_eq(x->stacks[1].stack.layers[0].values[0].i, 64);
	load_ok(text, "stacks.b.fake_schedule.policy=shortest");
	ck_assert_int_eq(x->stacks[2].stack.layers[0].values[0].i, 32);
	ck_assert_int_eq(x->stacks[2].stack.layers[0].values[1].i, 2);
	load_ok(text, "stacks.b.fake_schedule.block_size=8,16");
	ck_assert_uint_eq(x->n_stacks, 4);
	load_ok(text, "goodput.ttft=100");
	ck_assert(fabs(x->slo.ttft_ms - 100) < 1e-9);
}
END_TEST

START_TEST(included_stacks_come_first)
{
	static const char lib[] = "stacks:\n  one: [fake_schedule]\ninclude: sub/deep.yaml\n";
	static const char deep[] = "# q\nmodel: whatever\nstacks: {zero: []}\n";
	write_text("lib.yaml", lib, strlen(lib));
	mkdir("sub", 0700);
	write_text("sub/deep.yaml", deep, strlen(deep));
	load_ok(HEAD "include: [lib.yaml, sub/deep.yaml]\nstacks:\n  two: [fake_schedule]\n", NULL);
	ck_assert_uint_eq(x->n_stacks, 4);
	ck_assert_str_eq(x->stacks[1].name, "zero");
	ck_assert_str_eq(x->stacks[2].name, "one");
	ck_assert_str_eq(x->stacks[3].name, "two");
	ck_assert_ptr_nonnull(strstr(x->text, "# stacks: {zero: []}\n"));
}
END_TEST

/* ---- mistakes --------------------------------------------------------------------------------- */

#define ALL_KEYS                                                                                              \
	"model, device, base, dtype, invariant, threads, kv_memory, timeout, workload, sweep, num_requests, " \
	"trials, min_effect, reference, goodput, gate, techniques, include, stacks, order"

static const struct {
	const char *text, *set;
	int code;
	const char *want; /* the sentence's beginning */
	const char *also; /* and somewhere in it, or NULL */
} wrong[] = {
	/* keys */
	{HEAD "trails: 3\n", NULL, NX_EINVAL,
         "x.yaml:5:1: found the unknown key \"trails\"; legal: " ALL_KEYS
         "; did you mean \"trials\"?",
         NULL},
	{HEAD "sweep: {bach_size: 3}\n", NULL, NX_EINVAL,
         "x.yaml:5:9: found the unknown key \"bach_size\"; legal: batch_size, seq_len, output_len, stack; did you mean \"batch_size\"?",
         NULL},
	{"workload: {prompts: p.jsonl, temprature: 1}\n", NULL, NX_EINVAL,
         "x.yaml:1:30: found the unknown key \"temprature\"", "did you mean \"temperature\"?"},
	{"base: plain\nworkload: {prompts: p.jsonl}\n", NULL, NX_EINVAL,
         "x.yaml:1:1: found no key model; legal: model: nano", NULL},
	{"model: m.gguf\nbase: plain\n", NULL, NX_EINVAL,
         "x.yaml:1:1: found no key workload; legal: ", NULL},
	{"model: m.gguf\nworkload: {seed: 1}\n", NULL, NX_EINVAL,
         "x.yaml:2:11: found no key prompts in workload", NULL},
	{"[1, 2]\n", NULL, NX_EINVAL,
         "x.yaml:1:1: found a list for the file; legal: a mapping with model, ", NULL},
	/* types and ranges */
	{HEAD "sweep:\n  batch_size: [1, x]\n", NULL, NX_EINVAL,
         "x.yaml:6:19: found \"x\" for batch_size; legal: an integer from 1 to 4096", NULL},
	{HEAD "sweep:\n  batch_size: 0\n", NULL, NX_EINVAL,
         "x.yaml:6:15: found \"0\" for batch_size; legal: an integer from 1", NULL},
	{HEAD "sweep:\n  batch_size: []\n", NULL, NX_EINVAL,
         "x.yaml:6:15: found an empty list for batch_size; legal: at least one value", NULL},
	{HEAD "sweep:\n  batch_size: [4, 4]\n", NULL, NX_EINVAL,
         "x.yaml:6:19: found 4 for batch_size a second time", NULL},
	{HEAD "trials: {min: 5, max: 3}\n", NULL, NX_EINVAL,
         "x.yaml:5:23: found \"3\" for max; legal: an integer from 5 to 10000", NULL},
	{HEAD "device: gpu\n", NULL, NX_EINVAL, "x.yaml:5:9: found \"gpu\" for device; legal: cpu",
         NULL},
	{HEAD "dtype: fp32\n", NULL, NX_EINVAL,
         "x.yaml:5:8: found \"fp32\" for dtype; legal: bf16, f32; did you mean \"f32\"?", NULL},
	{HEAD "kv_memory: lots\n", NULL, NX_EINVAL,
         "x.yaml:5:12: found \"lots\" for kv_memory; legal: bytes", NULL},
	{HEAD "timeout: 0\n", NULL, NX_EINVAL,
         "x.yaml:5:10: found \"0\" for timeout; legal: from 1ms to 168h", NULL},
	{HEAD "goodput: {ttft: 0}\n", NULL, NX_EINVAL,
         "x.yaml:5:17: found \"0\" for ttft; legal: milliseconds above 0", NULL},
	{HEAD "order: random\n", NULL, NX_EINVAL,
         "x.yaml:5:8: found \"random\" for order; legal: shuffled, sorted", NULL},
	{HEAD "gate: yes\n", NULL, NX_EINVAL,
         "x.yaml:5:7: found \"yes\" for gate; legal: true, false", NULL},
	{HEAD "sweep: {seq_len: {unifrom: {min: 1, max: 2}}}\n", NULL, NX_EINVAL,
         "x.yaml:5:19: found the unknown key \"unifrom\"", "did you mean \"uniform\"?"},
	{HEAD "sweep: {seq_len: {uniform: {min: 9, max: 2}}}\n", NULL, NX_EINVAL,
         "x.yaml:5:42: found \"2\" for max; legal: an integer from 9", NULL},
	{HEAD "sweep: {seq_len: {lognormal: {mean: 9, max: 20}}}\n", NULL, NX_EINVAL,
         "x.yaml:5:30: found lognormal without sigma", NULL},
	{HEAD "sweep: {seq_len: {lognormal: {mean: 99, sigma: 1, max: 20}}}\n", NULL, NX_EINVAL,
         "x.yaml:5:37: found \"99\" for mean; legal: a number from 1 to 20", NULL},
	/* workloads, and lengths that are read from them */
	{HEAD, "workload.turns=some", NX_EINVAL,
         "--set workload.turns=some: found \"some\" for turns; legal: last, first, all", NULL},
	{"model: m.gguf\nworkload: {prompts: random, turns: all}\n", NULL, NX_EINVAL,
         "x.yaml:2:36: found turns beside prompts: random; legal: a file of conversations", NULL},
	{HEAD, "workload.trace=no.csv", NX_EINVAL,
         "--set workload.trace=no.csv: found \"no.csv\" for trace; legal: the path of a CSV or JSON",
         NULL},
	{HEAD, "workload.trace=p.jsonl", NX_EFORMAT,
         "p.jsonl:1: found the header \"x\", without a column for the time", NULL},
	{HEAD "sweep: {seq_len: [64, trace]}\n", NULL, NX_EINVAL,
         "x.yaml:5:23: found trace for seq_len and no workload.trace; legal: workload: {trace: FILE}",
         NULL},
	{HEAD "sweep: {output_len: dataset}\n", "workload.prompts=random", NX_EINVAL,
         "x.yaml:5:21: found dataset for output_len beside prompts: random; legal: a file", NULL},
	{HEAD "sweep: {seq_len: 64}\n", "workload.turns=all", NX_EINVAL,
         "x.yaml:5:18: found a drawn length for seq_len beside turns: all; legal: dataset", NULL},
	{"model: m.gguf\nworkload: {prompts: p.jsonl, turns: all, trace: t.csv}\n", NULL, NX_EINVAL,
         "x.yaml:2:49: found a trace beside turns: all; legal: one of them", NULL},
	{HEAD "sweep: {seq_len: {dataset: {min: 9, max: 2}}}\n", NULL, NX_EINVAL,
         "x.yaml:5:42: found \"2\" for max; legal: an integer from 9", NULL},
	{HEAD "sweep: {seq_len: {trace: {mean: 9}}}\n", "workload.trace=t.csv", NX_EINVAL,
         "x.yaml:5:27: found the unknown key \"mean\"", NULL},
	{HEAD "sweep: {seq_len: [trace, {trace: {max: 500}}]}\n", "workload.trace=t.csv", NX_EINVAL,
         "x.yaml:5:26: found trace 20-300 for seq_len a second time", NULL},
	/* files */
	{"model: no.gguf\nworkload: {prompts: p.jsonl}\n", NULL, NX_EINVAL,
         "x.yaml:1:8: found no model \"no.gguf\"; legal: ", NULL},
	{"model: smollm2\nworkload: {prompts: p.jsonl}\n", NULL, NX_EENV,
         "x.yaml:1:8: the model \"smollm2\" is missing", "run `make models`"},
	{"model: nanno\nworkload: {prompts: p.jsonl}\n", NULL, NX_EINVAL,
         "x.yaml:1:8: found no model \"nanno\"; legal: nano, nano-mtp, smollm2",
         "did you mean \"nano\"?"},
	{"model: m.gguf\nworkload: {prompts: q.jsonl}\n", NULL, NX_EINVAL,
         "x.yaml:2:21: found \"q.jsonl\" for prompts; legal: random, or the path of a JSON file",
         NULL},
	{HEAD, "techniques=nowhere", NX_EINVAL,
         "--set techniques=nowhere: found \"nowhere\" for techniques; legal: a folder", NULL},
	{HEAD "include: no.yaml\n", NULL, NX_EINVAL,
         "x.yaml:5:10: found \"no.yaml\" for include; legal: the path", NULL},
	{HEAD "include: x.yaml\n", NULL, NX_EINVAL,
         "x.yaml:5:10: found \"x.yaml\", which leads back to itself", NULL},
	/* stacks */
	{HEAD "stacks:\n  baseline: []\n", NULL, NX_EINVAL,
         "x.yaml:6:3: found a stack called \"baseline\"", "reserved"},
	{HEAD "stacks:\n  a b: []\n", NULL, NX_EINVAL,
         "x.yaml:6:3: found \"a b\" as a stack's name; legal: ", NULL},
	{HEAD "stacks:\n  p: fake_schedule\n", NULL, NX_EINVAL,
         "x.yaml:6:6: found \"fake_schedule\" for p; legal: a list of techniques", NULL},
	{HEAD "stacks:\n  p:\n    - fake_shedule\n", NULL, NX_EINVAL,
         "x.yaml:7:7: found the unknown technique \"fake_shedule\"; legal: ",
         "did you mean \"fake_schedule\"?"},
	{HEAD "stacks:\n  p:\n    - fake_schedule: {bloc_size: 1}\n", NULL, NX_EINVAL,
         "x.yaml:7:23: found the unknown key \"bloc_size\"; legal: block_size, policy, max_batch_size, ratio, eager; did you mean \"block_size\"?",
         NULL},
	{HEAD "stacks:\n  p:\n    - fake_schedule: {block_size: 9999}\n", NULL, NX_EINVAL,
         "x.yaml:7:35: found \"9999\" for block_size; legal: an integer from 1 to 4096 tokens",
         NULL},
	{HEAD "stacks:\n  p:\n    - fake_schedule: {policy: priorty}\n", NULL, NX_EINVAL,
         "x.yaml:7:31: found \"priorty\" for policy; legal: one of fcfs, priority, shortest; did you mean \"priority\"?",
         NULL},
	{HEAD "stacks:\n  p:\n    - fake_schedule: {block_size: [1, 2, 1]}\n", NULL, NX_EINVAL,
         "x.yaml:7:42: found 1 for block_size a second time", NULL},
	{HEAD "stacks:\n  p:\n    - fake_layout\n", NULL, NX_EINVAL,
         "x.yaml:7:7: found fake_layout without its parameter reserve; legal: reserve: one of max, exact",
         NULL},
	{HEAD "stacks:\n  p:\n    - fake_schedule\n    - fake_schedule: {block_size: 2}\n", NULL,
         NX_ECONFLICT,
         "x.yaml:8:7: found \"fake_schedule\" beside \"fake_schedule\" (line 7) in the stack p: both take the slot schedule; legal: one technique a slot",
         NULL},
	{HEAD "stacks:\n  p:\n    - fake_schedule\n    - fake_layout: {reserve: max}\n", NULL,
         NX_ECONFLICT,
         "x.yaml:6:3: in the stack p, \"fake_schedule\" cannot be stacked with \"fake_layout\"",
         NULL},
	{HEAD "stacks:\n  p:\n    - {fake_schedule: {}, fake_layout: {}}\n", NULL, NX_EINVAL,
         "x.yaml:7:7: found a mapping for p; legal: the name of a technique", NULL},
	{HEAD
         "sweep:\n  batch_size: [1, 32]\nstacks:\n  p:\n    - fake_schedule: {max_batch_size: 16}\n",
         NULL, NX_EINVAL,
         "x.yaml:9:39: found max_batch_size 16 below the batch size 32 (x.yaml:6:15); legal: at least 32",
         NULL},
	{HEAD "sweep: {stack: [baseline, prodction]}\nstacks: {production: []}\n", NULL, NX_EINVAL,
         "x.yaml:5:27: found \"prodction\" for stack; legal: baseline, production; did you mean \"production\"?",
         NULL},
	{HEAD "sweep: {stack: [baseline, baseline]}\n", NULL, NX_EINVAL,
         "x.yaml:5:27: found the stack baseline a second time", NULL},
	{HEAD "sweep: {stack: [baseline]}\nreference: p\nstacks: {p: []}\n", NULL, NX_EINVAL,
         "x.yaml:6:12: found \"p\" for reference; legal: baseline", NULL},
	{HEAD, "base=tuned", NX_EENV,
         "--set base=tuned: the base \"tuned\" needs the technique flash_attention",
         "legal: base: plain"},
	/* --set */
	{HEAD, "sweep.bach_size=1", NX_EINVAL,
         "--set sweep.bach_size=1: found the unknown key \"bach_size\"",
         "did you mean \"batch_size\"?"},
	{HEAD, "sweep.batch_size=1,x", NX_EINVAL,
         "--set sweep.batch_size=1,x: found \"x\" for batch_size; legal: an integer", NULL},
	{HEAD, "sweep.batch_size", NX_EINVAL,
         "--set sweep.batch_size: found no key=value; legal: ", NULL},
	{HEAD, "sweep..x=1", NX_EINVAL, "--set sweep..x=1: found an empty name; legal: ", NULL},
	{HEAD, "sweep.seq_len={uniform: [", NX_EFORMAT, "--set sweep.seq_len={uniform: [",
         "found broken YAML"},
	{HEAD "stacks: {p: [fake_schedule]}\n", "stacks.p.fake_layout.reserve=max", NX_EINVAL,
         "--set stacks.p.fake_layout.reserve=max: found no entry \"fake_layout\" in p", NULL},
	/* limits */
	{HEAD
         "stacks:\n  p:\n    - fake_schedule: {block_size: [1,2,3,4,5,6,7,8,9,10,11], max_batch_size: [1,2,3,4,5,6,7,8,9,10], ratio: [0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9]}\n",
         NULL, NX_EINVAL,
         "x.yaml:7:5: found more than 1000 combinations of parameters in the stack p", NULL},
	{HEAD
         "stacks:\n  a23456789012345678901234567890123456789012345678901234567890:\n    - fake_schedule: {block_size: [1]}\n",
         NULL, NX_EINVAL, "x.yaml:6:3: found the stack name a2345678901", "legal: at most 63"},
};

START_TEST(mistakes_are_named_at_their_place)
{
	int rc = load_text(wrong[_i].text, wrong[_i].set);
	ck_assert_msg(rc == wrong[_i].code, "%d %s", rc, err.msg);
	ck_assert_msg(strncmp(err.msg, wrong[_i].want, strlen(wrong[_i].want)) == 0, "%s", err.msg);
	ck_assert_msg(!wrong[_i].also || strstr(err.msg, wrong[_i].also), "%s", err.msg);
	ck_assert_msg(!strchr(err.msg, '\n') && strlen(err.msg) < NX_ERR_MAX - 1, "%s", err.msg);
	ck_assert_ptr_null(x);
}
END_TEST

START_TEST(include_cycles_end)
{
	static const char a[] = "include: b.yaml\n", b[] = "# b\ninclude: [a.yaml]\n";
	write_text("a.yaml", a, strlen(a));
	write_text("b.yaml", b, strlen(b));
	ck_assert_int_eq(load_text(HEAD "include: a.yaml\n", NULL), NX_EINVAL);
	ck_assert_msg(strstr(err.msg,
	                     "b.yaml:2:11: found \"a.yaml\", which leads back to itself") != NULL,
	              "%s", err.msg);
	ck_assert_int_eq(nx_experiment_load(&x, "nothing.yaml", NULL, 0, NULL, &err), NX_EIO);
	ck_assert_msg(strncmp(err.msg, "nothing.yaml: cannot be opened", 30) == 0, "%s", err.msg);
}
END_TEST

/* ---- distributions ---------------------------------------------------------------------------- */

START_TEST(draws_have_the_mean_that_is_told)
{
	static const struct nx_dist dists[] = {
		{NX_DIST_FIXED, 7, 7, 0, 0},
		{NX_DIST_UNIFORM, 10, 50, 0, 0},
		{NX_DIST_LOGNORMAL, 1, 1000000, 200, 0.5},
		{NX_DIST_LOGNORMAL, 1, 128, 48, 0.6},
		{NX_DIST_LOGNORMAL, 20, 300, 200, 1.5},
		{NX_DIST_LOGNORMAL, 1, 300, 200, 0},
	};
	for (size_t k = 0; k < sizeof(dists) / sizeof(*dists); k++) {
		enum { N = 40000 };
		const struct nx_dist *d = &dists[k];
		double sum = 0, sum2 = 0;
		for (int i = 0; i < N; i++) {
			int32_t v = nx_dist_draw(d, 3, (uint64_t)i);
			ck_assert(v >= d->min && v <= d->max);
			ck_assert_int_eq(v, nx_dist_draw(d, 3, (uint64_t)i));
			sum += v;
			sum2 += (double)v * v;
		}
		double mean = sum / N, sd = sqrt(fmax(sum2 / N - mean * mean, 0));
		/* 4 standard errors, and what rounding to whole tokens may shift */
		ck_assert_msg(fabs(mean - nx_dist_mean(d)) < 4 * sd / sqrt(N) + 0.05,
		              "%zu: %g, told %g", k, mean, nx_dist_mean(d));
	}
	char buf[64];
	ck_assert_str_eq(nx_dist_text(&dists[0], buf, sizeof(buf)), "7");
	ck_assert_str_eq(nx_dist_text(&dists[1], buf, sizeof(buf)), "uniform 10-50");
	ck_assert_str_eq(nx_dist_text(&dists[3], buf, sizeof(buf)),
	                 "lognormal mean 48 sigma 0.6 max 128");
}
END_TEST

/* ---- hostile files ---------------------------------------------------------------------------- */

static const char *const pieces[] = {"[",    "]",  "{",     "}",  ":",           "- ",  "&a ",
                                     "*a",   "\"", "'",     "|",  ">",           "#",   "\t",
                                     "\xff", "!!", "---\n", "? ", "99999999999", "\n  "};

static size_t mutate(char *s, size_t n, size_t cap, struct nx_rng *r)
{
	for (uint64_t k = 1 + nx_rng_below(r, 3); k > 0 && n > 1; k--) {
		size_t at = (size_t)nx_rng_below(r, n);
		const char *p = pieces[nx_rng_below(r, sizeof(pieces) / sizeof(*pieces))];
		size_t len = strlen(p);
		switch (nx_rng_below(r, 4)) {
		case 0:
			s[at] = (char)(nx_rng_below(r, 8) ? 32 + nx_rng_below(r, 95)
			                                  : nx_rng_below(r, 256));
			break;
		case 1: /* leave some out */
			len = 1 + (size_t)nx_rng_below(r, 9);
			len = len < n - at ? len : n - at;
			memmove(s + at, s + at + len, n - at - len);
			n -= len;
			break;
		case 2: /* twice */
			len = (size_t)nx_rng_below(r, 40);
			len = len < n - at ? len : n - at;
			if (n + len <= cap) {
				memmove(s + at + len, s + at, n - at);
				n += len;
			}
			break;
		default:
			if (n + len <= cap) {
				memmove(s + at + len, s + at, n - at);
				memcpy(s + at, p, len);
				n += len;
			}
		}
	}
	return n;
}

/* quick.yaml, and one that reaches every part of the loader with the plugins that are always there. */
static const char *fuzz_text(int which, size_t *n)
{
	static const char own[] = HEAD
		"device: cpu\ndtype: f32\ninvariant: true\nthreads: 2\nkv_memory: 64MiB\ntimeout: 90s\n"
		"sweep:\n  batch_size: [1, 4, 16]\n  seq_len: [128, {uniform: {min: 10, max: 500}}]\n"
		"  output_len: {lognormal: {mean: 48, sigma: 0.6, max: 128}}\n  stack: [baseline, prod, two]\n"
		"num_requests: {per_slot: 2}\ntrials: {min: 3, max: 30, rel_ci: 0.02}\nmin_effect: 0.02\n"
		"reference: baseline\norder: sorted\ngoodput: {ttft: 200, tpot: 50}\ngate: true\ninclude: [lib.yaml]\nstacks:\n"
		"  prod:\n    - fake_schedule: {block_size: [16, 64], policy: fcfs, eager: true}\n  two:\n    - fake_layout: {reserve: max}\n";
	static char quick[65536];
	if (which) {
		*n = strlen(own);
		return own;
	}
	char path[4200];
	snprintf(path, sizeof(path), "%s/experiments/quick.yaml", source);
	FILE *f = fopen(path, "r");
	ck_assert_ptr_nonnull(f);
	*n = fread(quick, 1, sizeof(quick), f);
	fclose(f);
	return quick;
}

START_TEST(mutated_files_give_a_sentence)
{
	size_t n, cap, n_ok = 0;
	const char *text = fuzz_text(_i, &n);
	char path_set[4300];
	snprintf(path_set, sizeof(path_set), "techniques=%s", plugins);
	const char *sets[] = {path_set};
	static const char lib[] = "stacks: {lib: []}\n";
	write_text("lib.yaml", lib, strlen(lib));
	char *s = malloc(cap = n + 1024);
	struct nx_rng r = {1 + (uint64_t)_i};
	for (int i = 0; i < 3000; i++) {
		memcpy(s, text, n);
		size_t len = mutate(s, n, cap, &r);
		write_text("x.yaml", s, len);
		struct nx_experiment *y = NULL;
		memset(&err, 0, sizeof(err));
		int rc = nx_experiment_load(&y, "x.yaml", sets, 1, build, &err);
		if (rc == 0) {
			size_t n_cells;
			ck_assert_ptr_nonnull(nx_experiment_cells(y, &n_cells));
			n_ok++;
		} else {
			ck_assert_ptr_null(y);
			ck_assert_int_eq(rc, err.code);
			ck_assert_msg(strlen(err.msg) > 10 && !strchr(err.msg, '\n'), "%s",
			              err.msg);
		}
		nx_experiment_destroy(y);
	}
	/* Not all may be refused, else the mutations reach nothing behind the parser. */
	ck_assert_msg(_i == 0 || n_ok > 15, "%zu", n_ok);
	free(s);
}
END_TEST

/* The experiments that come with the source load with what was built; only where it was all built. */
START_TEST(our_own_experiments_load)
{
	static const char *const names[] = {"quick", "smollm2", "baselines", "seed"};
	char path[4300];
	snprintf(path, sizeof(path), "%s/experiments/%s.yaml", source, names[_i]);
	int rc = nx_experiment_load(&x, path, NULL, 0, build, &err);
	if (rc == NX_EENV && _i == 1)
		return; /* SmolLM2 is not fetched */
	snprintf(path, sizeof(path), "%s/techniques/continuous_batching.so", build);
	if (rc && !nx_file_is_regular(path))
		return;
	ck_assert_msg(rc == 0, "%s", err.msg);
	ck_assert_msg(strchr(x->question, '?') != NULL, "%s", x->question);
}
END_TEST

static void make_folder(void)
{
	const char *b = getenv("NEXUS_BUILD"), *s = getenv("NEXUS_SOURCE");
	if (!realpath(b ? b : "build", build) || !realpath(s ? s : ".", source) || !mkdtemp(dir) ||
	    chdir(dir)) {
		fprintf(stderr, "set NEXUS_BUILD and NEXUS_SOURCE\n");
		exit(EXIT_FAILURE);
	}
	snprintf(plugins, sizeof(plugins), "%s/test-plugins", build);
	unsetenv("NEXUS_TECHNIQUE_PATH");
	static const char *const folders[] = {"models", "models/nano", "workloads"};
	static const char *const files[] = {"m.gguf", "p.jsonl", "models/nano/nano.gguf",
	                                    "workloads/stories.jsonl"};
	for (size_t i = 0; i < 3; i++)
		mkdir(folders[i], 0700);
	for (size_t i = 0; i < 4; i++)
		write_text(files[i], "x", 1);
	static const char trace[] =
		"timestamp,input_length,output_length\n1,20,40\n2,100,5\n3,300,30\n";
	write_text("t.csv", trace, strlen(trace));
}

static void remove_folder(void)
{
	char command[64];
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	if (chdir("/") || system(command))
		fprintf(stderr, "%s stays\n", dir);
}

int main(void)
{
	make_folder();
	Suite *s = suite_create("experiment");
	TCase *t = tcase_create("files");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, defaults_are_as_documented);
	tcase_add_test(t, a_sweep_is_the_product_with_stacks_fastest);
	tcase_add_test(t, lengths_may_be_read);
	tcase_add_test(t, parameters_given_as_lists_are_axes);
	tcase_add_test(t, ids_tell_what_differs);
	tcase_add_test(t, set_lies_over_the_file);
	tcase_add_test(t, included_stacks_come_first);
	tcase_add_loop_test(t, mistakes_are_named_at_their_place, 0,
	                    (int)(sizeof(wrong) / sizeof(*wrong)));
	tcase_add_test(t, include_cycles_end);
	tcase_add_test(t, draws_have_the_mean_that_is_told);
	tcase_add_loop_test(t, our_own_experiments_load, 0, 4);
	suite_add_tcase(s, t);
	t = tcase_create("hostile");
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 300);
	tcase_add_loop_test(t, mutated_files_give_a_sentence, 0, 2);
	suite_add_tcase(s, t);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	remove_folder();
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
