/* SPDX-License-Identifier: Apache-2.0 */
/* measure/experiment.h: each kind of mistake is named at its place with its remedy; hostile files end in a sentence. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "experiment_fixture.h"

#define ALL_KEYS                                                                                                   \
	"model, device, base, dtype, invariant, threads, kv_memory, timeout, workload, sweep, num_requests, "      \
	"trials, min_effect, reference, goodput, gate, techniques, include, stacks, order, counters, unrecorded, " \
	"time_line"

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
         "x.yaml:5:9: found the unknown key \"bach_size\"; legal: batch_size, seq_len, shared, output_len, stack; did you mean \"batch_size\"?",
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
         "x.yaml:6:15: found \"0\" for batch_size; legal: an integer from 1 to 4096, or fit", NULL},
	{HEAD "sweep:\n  batch_size: [1, fit, fit]\n", NULL, NX_EINVAL,
         "x.yaml:6:24: found fit for batch_size a second time; legal: each value once", NULL},
	{HEAD "sweep:\n  batch_size: []\n", NULL, NX_EINVAL,
         "x.yaml:6:15: found an empty list for batch_size; legal: at least one value", NULL},
	{HEAD "sweep:\n  batch_size: [4, 4]\n", NULL, NX_EINVAL,
         "x.yaml:6:19: found 4 for batch_size a second time", NULL},
	{HEAD "trials: {min: 5, max: 3}\n", NULL, NX_EINVAL,
         "x.yaml:5:23: found \"3\" for max; legal: an integer from 5 to 10000", NULL},
	{HEAD "device: gpu\n", NULL, NX_EINVAL,
         "x.yaml:5:9: found \"gpu\" for device; legal: cpu, cuda, cuda:N", NULL},
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
	{HEAD "unrecorded: [baseline, of]\nstacks: {off: []}\n", NULL, NX_EINVAL,
         "x.yaml:5:24: found \"of\" for", "legal: baseline, off; did you mean \"off\"?"},
	{HEAD "time_line: 1ns\n", NULL, NX_EINVAL,
         "x.yaml:5:12: found \"1ns\" for time_line; legal: off, or from 10us to 1s", NULL},
	{HEAD "time_line: 1ms\ncounters: off\n", NULL, NX_EINVAL,
         "x.yaml:5:12: found a time_line beside counters: off", NULL},
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
	{HEAD
         "sweep:\n  batch_size: fit\nstacks:\n  p:\n    - fake_schedule: {max_batch_size: 16}\n",
         NULL, NX_EINVAL,
         "x.yaml:9:39: found max_batch_size 16 beside the batch size fit (x.yaml:6:15); legal: 0",
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
	int rc = experiment_load(wrong[_i].text, wrong[_i].set);
	ck_assert_msg(rc == wrong[_i].code, "%d %s", rc, fx.err.msg);
	ck_assert_msg(strncmp(fx.err.msg, wrong[_i].want, strlen(wrong[_i].want)) == 0, "%s",
	              fx.err.msg);
	ck_assert_msg(!wrong[_i].also || strstr(fx.err.msg, wrong[_i].also), "%s", fx.err.msg);
	ck_assert_msg(!strchr(fx.err.msg, '\n') && strlen(fx.err.msg) < NX_ERR_MAX - 1, "%s",
	              fx.err.msg);
	ck_assert_ptr_null(fx.x);
}
END_TEST

START_TEST(include_cycles_end)
{
	static const char a[] = "include: b.yaml\n", b[] = "# b\ninclude: [a.yaml]\n";
	experiment_write("a.yaml", a, strlen(a));
	experiment_write("b.yaml", b, strlen(b));
	ck_assert_int_eq(experiment_load(HEAD "include: a.yaml\n", NULL), NX_EINVAL);
	ck_assert_msg(strstr(fx.err.msg,
	                     "b.yaml:2:11: found \"a.yaml\", which leads back to itself") != NULL,
	              "%s", fx.err.msg);
	ck_assert_int_eq(nx_experiment_load(&fx.x, "nothing.yaml", NULL, 0, NULL, &fx.err), NX_EIO);
	ck_assert_msg(strncmp(fx.err.msg, "nothing.yaml: cannot be opened", 30) == 0, "%s",
	              fx.err.msg);
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
	snprintf(path, sizeof(path), "%s/experiments/quick.yaml", fx.source);
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
	snprintf(path_set, sizeof(path_set), "techniques=%s", fx.plugins);
	const char *sets[] = {path_set};
	static const char lib[] = "stacks: {lib: []}\n";
	experiment_write("lib.yaml", lib, strlen(lib));
	char *s = malloc(cap = n + 1024);
	struct nx_rng r = {1 + (uint64_t)_i};
	for (int i = 0; i < 3000; i++) {
		memcpy(s, text, n);
		size_t len = mutate(s, n, cap, &r);
		experiment_write("x.yaml", s, len);
		struct nx_experiment *y = NULL;
		memset(&fx.err, 0, sizeof(fx.err));
		int rc = nx_experiment_load(&y, "x.yaml", sets, 1, fx.build, &fx.err);
		if (rc == 0) {
			size_t n_cells;
			ck_assert_ptr_nonnull(nx_experiment_cells(y, &n_cells));
			n_ok++;
		} else {
			ck_assert_ptr_null(y);
			ck_assert_int_eq(rc, fx.err.code);
			ck_assert_msg(strlen(fx.err.msg) > 10 && !strchr(fx.err.msg, '\n'), "%s",
			              fx.err.msg);
		}
		nx_experiment_destroy(y);
	}
	/* Not all may be refused, else the mutations reach nothing behind the parser. */
	ck_assert_msg(_i == 0 || n_ok > 15, "%zu", n_ok);
	free(s);
}
END_TEST

int main(void)
{
	experiment_make_folder();
	Suite *s = suite_create("experiment_wrong");
	TCase *t = tcase_create("files");
	tcase_add_checked_fixture(t, experiment_setup, experiment_teardown);
	tcase_add_loop_test(t, mistakes_are_named_at_their_place, 0,
	                    (int)(sizeof(wrong) / sizeof(*wrong)));
	tcase_add_test(t, include_cycles_end);
	suite_add_tcase(s, t);
	t = tcase_create("hostile");
	tcase_add_checked_fixture(t, experiment_setup, experiment_teardown);
	tcase_set_timeout(t, 300);
	tcase_add_loop_test(t, mutated_files_give_a_sentence, 0, 2);
	suite_add_tcase(s, t);
	SRunner *run = srunner_create(s);
	srunner_run_all(run, CK_NORMAL);
	int failed = srunner_ntests_failed(run);
	srunner_free(run);
	experiment_remove_folder();
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
