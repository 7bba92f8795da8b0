/* SPDX-License-Identifier: Apache-2.0
 *
 * verb_profile.c: `nexus profile`: where one load's time and memory go, phase by phase, and what bounds it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/conduct.h"
#include "cli/output.h"
#include "cli/profile_setup.h"
#include "present/profile.h"

struct profile_args {
	struct nx_profile_config config;
	const char *output;
	bool force;
};

static bool built(void *ctx, const char *technique)
{
	return nx_registry_find(ctx, technique, NULL) != NULL;
}

struct shown {
	const struct nx_experiment *x;
	enum nx_table_format format;
};

static int show(void *ctx, const char *path, int *status, struct nx_err *err)
{
	const struct shown *what = ctx;
	struct nx_run *run = NULL;
	struct nx_text text;
	/* The registry is only read. */
	const struct nx_profile_options o = {
		.built = built, .ctx = (void *)(size_t)nx_experiment_registry(what->x)};
	nx_text_init(&text);
	int rc = nx_run_read(&run, path, err);
	if (!rc)
		rc = nx_profile_write(run, &o, what->format, &text, err);
	if (!rc && text.s)
		fputs(text.s, stdout);
	if (!rc)
		*status = nx_output_verdict(run);
	nx_text_release(&text);
	nx_run_destroy(run);
	return rc;
}

/* The context is the model's: better said before a worker is started. */
static int check_context(const struct nx_experiment *x, const struct nx_shape *shape,
                         struct nx_err *err)
{
	int64_t in = x->seq_len[0].max, out = x->output_len[0].max;
	char context[96];
	if (in + out <= shape->ctx_len)
		return 0;
	return nx_fail(
		err, NX_EINVAL,
		"--seq-len %lld and %lld output tokens are over the model's context %s; legal: at most that in sum",
		(long long)in, (long long)out, nx_context_text(shape, context, sizeof(context)));
}

static int profile(const struct profile_args *a, enum nx_table_format format, int argc, char **argv)
{
	struct nx_err err = {0};
	struct nx_profile_setup s = {0};
	struct nx_model *model = NULL;
	char output[4096] = "";
	struct nx_conducted end = {0};
	int rc = nx_conduct_check_environment(&err);
	if (!rc)
		rc = nx_profile_setup(&s, &a->config, &err);
	if (!rc)
		rc = nx_model_open(&model, s.x->model, &err);
	if (!rc)
		rc = check_context(s.x, nx_model_shape(model), &err);
	if (!rc)
		rc = nx_output_path(a->output, s.x->name, false, output, sizeof(output), &err);
	if (!rc) {
		const char *set = s.set;
		struct nx_crew crew = {
			.x = s.x,
			.path = s.path,
			.sets = &set,
			.n_sets = 1,
			.calibrate_s = nx_conduct_calibrate_s(NX_CALIBRATE_S),
			.profile = true,
			.child = {.fd = -1, .err_fd = -1},
		};
		struct shown what = {s.x, format};
		const struct nx_conduct conduct = {
			.crew = &crew,
			.model = model,
			.output = output,
			.force = a->force,
			.discard = true,
			.argc = argc,
			.argv = argv,
			.show = show,
			.ctx = &what,
		};
		nx_child_catch_signals();
		rc = nx_conduct(&conduct, &end, &err);
	}
	int status = rc ? nx_say_err(&err) : end.status;
	if (!rc)
		fprintf(stderr, "run file: %s\n", output);
	nx_model_close(model);
	nx_profile_setup_release(&s);
	return status;
}

int nx_verb_profile(int argc, char **argv)
{
	struct profile_args a = {
		.config = {.device = "cpu",
	                   .dtype = "bf16",
	                   .base = "tuned",
	                   .counters = "default",
	                   .batch_size = 1,
	                   .seq_len = 512,
	                   .steps = 128},
	};
	struct nx_profile_config *c = &a.config;
	const char *format_text = "text";
	const struct nx_opt opts[] = {
		{"m,model", NX_OPT_TEXT, &c->model, "FILE",
	         "name, GGUF file or Hugging Face directory of a model"},
		{"batch-size", NX_OPT_INT, &c->batch_size, "B", "requests in flight (1)"},
		{"seq-len", NX_OPT_INT, &c->seq_len, "S", "prompt tokens (512)"},
		{"steps", NX_OPT_INT, &c->steps, "N", "decode steps after the prompts (128)"},
		{"output-len", NX_OPT_INT, &c->output_len, "L",
	         "output tokens a request; new requests come until N steps are done (N + 1)"},
		{"stack", NX_OPT_TEXT, &c->stack, "FILE[:NAME]",
	         "a stack of a file with `stacks:`, or all of them (the base alone)"},
		{"base", NX_OPT_TEXT, &c->base, "BASE",
	         "tuned: flash_attention under the stack; plain: nothing (tuned)"},
		{"prompts", NX_OPT_TEXT, &c->prompts, "FILE",
	         "texts or conversations, or random (experiments/workloads/stories.jsonl)"},
		{"kv-memory", NX_OPT_TEXT, &c->kv_memory, "SIZE",
	         "limit of the KV pool, such as 64MiB"},
		{"dtype", NX_OPT_TEXT, &c->dtype, "TYPE", "f32 or bf16 (bf16)"},
		{"counters", NX_OPT_TEXT, &c->counters, "FILE",
	         "group of metrics of the device's counters, or off (default)"},
		{"threads", NX_OPT_INT, &c->threads, "N", "0 is all (0)"},
		{"device", NX_OPT_TEXT, &c->device, "NAME", "cpu or cuda[:N] (cpu)"},
		{"o,output", NX_OPT_TEXT, &a.output, "OUT.h5",
	         "run file (results/profile-<UTC>.h5)"},
		{"force", NX_OPT_FLAG, &a.force, NULL, "replace OUT.h5"},
		{"format", NX_OPT_TEXT, &format_text, "FORMAT", "text, md, csv or json (text)"},
		{0},
	};
	const struct nx_opts o = {
		.usage = "profile --model FILE [options]",
		.summary =
			"Runs one load and says, for each phase, how near it comes to the device's measured peaks, what\n"
			"its memory and its bytes are for, what bounds it and what would help. The figures are of one\n"
			"trial, and go to a run file like any other: its /cells/<id>/phases has them.\n\n"
			"Bytes are measured (source perf) where the kernel allows perf events and memory is what is\n"
			"read; else counted: what operations had to move at least. Counts are read between steps and\n"
			"are in no step's time. A figure above its peak is marked with !.",
		.example =
			"  nexus profile --model nano --batch-size 8 --seq-len 256 --steps 64\n"
			"  nexus profile --model nano --stack experiments/quick.yaml:all --base plain --format json",
		.opts = opts,
	};
	struct nx_strings args;
	enum nx_table_format format = NX_TABLE_TEXT;
	int status = nx_opts_parse(&o, argc, argv, &args);
	if (status < 0)
		status = nx_parse_format(format_text, &format);
	if (status < 0)
		status = profile(&a, format, argc, argv);
	nx_opts_release(&o, &args);
	return status;
}
