/* SPDX-License-Identifier: Apache-2.0
 *
 * verb_bench.c: `nexus bench`: how close the whole engine comes to what this device can do: decode
 * against the rate at which it reads memory, prefill against the rate of its products.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "engine/clock.h"
#include "measure/warmup.h"
#include "present/number.h"
#include "present/table.h"

#define BATCHES_MAX 16
#define CALIBRATE_S 2.0

struct bench_args {
	const char *batches;
	int64_t prompt_len, gen, repeat;
	struct nx_strings techniques;
	struct nx_session_config session;
};

/* Work and time of each phase, from the device's counts at the ends of steps. */
struct bench_watch {
	struct nx_device *dev;
	uint64_t ns[NX_PHASE_COUNT], bytes[NX_PHASE_COUNT], flops[NX_PHASE_COUNT];
	int64_t rows[NX_PHASE_COUNT];
	struct nx_counted last;
};

static void on_step(void *ctx, const struct nx_step_info *s)
{
	struct bench_watch *w = ctx;
	struct nx_counted now;
	w->dev->ops->counted(w->dev->dev, &now);
	w->ns[s->phase] += s->end_ns - s->begin_ns;
	w->rows[s->phase] += s->rows[NX_ROW_COMMIT];
	w->bytes[s->phase] += now.weight_bytes + now.kv_bytes + now.act_bytes -
	                      w->last.weight_bytes - w->last.kv_bytes - w->last.act_bytes;
	w->flops[s->phase] += now.flops - w->last.flops;
	w->last = now;
}

static void percent(struct nx_table *t, double x, double peak)
{
	if (peak > 0)
		nx_table_cell(t, "%.0f %%", 100 * x / peak);
	else
		nx_table_cell(t, "not measured");
}

struct bench_peaks {
	struct nx_calibration cal;
	struct nx_device_info info;
	double read, own;
	uint64_t weight_bytes;
	bool cached;
};

static void bench_row(struct nx_table *t, int32_t batch, const struct bench_watch *w,
                      const struct bench_peaks *p)
{
	double pre_s = 1e-9 * (double)w->ns[NX_PHASE_PREFILL],
	       dec_s = 1e-9 * (double)w->ns[NX_PHASE_DECODE];
	double flops = pre_s > 0 ? (double)w->flops[NX_PHASE_PREFILL] / pre_s : 0;
	double bytes = dec_s > 0 ? (double)w->bytes[NX_PHASE_DECODE] / dec_s : 0;
	nx_table_cell(t, "%d", batch);
	nx_table_cell(t, "%.0f", pre_s > 0 ? (double)w->rows[NX_PHASE_PREFILL] / pre_s : 0);
	nx_table_cell(t, "%.1f", flops / 1e9);
	percent(t, flops, p->own);
	percent(t, flops, p->cal.blas_flops_per_s);
	nx_table_cell(t, "%.1f", dec_s > 0 ? (double)w->rows[NX_PHASE_DECODE] / dec_s : 0);
	nx_table_cell(t, "%.2f", bytes / 1e9);
	percent(t, bytes, p->read);
}

static int bench_batch(const struct bench_args *a, struct nx_session *s,
                       const struct nx_stack *stack, int32_t batch, struct nx_table *t,
                       const struct bench_peaks *p, struct nx_err *err)
{
	const struct nx_shape *shape = nx_model_shape(s->model);
	struct nx_engine_config ec = {
		.weights = s->weights,
		.stack = stack,
		.batch_size = batch,
		.samples = 1,
		.max_len = (int32_t)(a->prompt_len + a->gen),
		.longest_prompt = (int32_t)a->prompt_len,
		.invariant = a->session.invariant,
	};
	struct nx_engine *e = NULL;
	struct nx_request *reqs = calloc((size_t)batch, sizeof(*reqs));
	int32_t *ids = calloc((size_t)a->prompt_len, sizeof(*ids));
	if (!reqs || !ids) {
		free(reqs);
		free(ids);
		return nx_fail(err, NX_ENOMEM, "no memory for %d requests", batch);
	}
	/* Speed does not depend on the text: any tokens do. */
	for (int64_t i = 0; i < a->prompt_len; i++)
		ids[i] = (int32_t)((i * 7919 + 13) % shape->vocab);
	for (int32_t i = 0; i < batch; i++)
		reqs[i] = (struct nx_request){
			.id = (uint32_t)i,
			.prompt = ids,
			.n_prompt = (int32_t)a->prompt_len,
			.max_out = (int32_t)a->gen,
			.samples = 1,
			.ignore_eos = true,
			.sampler = {.top_p = 1},
		};
	struct nx_warmup warm = {0};
	struct bench_watch w = {.dev = &s->dev};
	const struct nx_sink sink = {.ctx = &w, .step = on_step};
	int rc = nx_engine_create(&e, &ec, err);
	if (!rc)
		rc = nx_warmup_run(e, reqs, (size_t)batch, batch, &warm, err);
	for (int64_t i = 0; i < a->repeat && !rc; i++) {
		nx_engine_reset(e);
		s->dev.ops->counted_reset(s->dev.dev);
		memset(&w.last, 0, sizeof(w.last));
		rc = nx_engine_run(e, reqs, (size_t)batch, &sink, err);
	}
	if (!rc)
		bench_row(t, batch, &w, p);
	if (e)
		nx_engine_destroy(e);
	free(reqs);
	free(ids);
	return rc;
}

static void peaks_text(const struct nx_session *s, const struct bench_args *a,
                       const struct bench_peaks *p)
{
	fprintf(stderr, "%s, %s, %.1f MB of weights, on %s (%s, %d threads)\n",
	        nx_model_name(s->model), a->session.dtype, (double)p->weight_bytes / 1e6,
	        p->info.name, p->info.isa, p->info.n_units);
	fprintf(stderr,
	        "peaks: read %.1f GB/s (%s), own products %.0f GFLOP/s, library products %.0f GFLOP/s%s%s\n",
	        p->read / 1e9, !p->cached ? "memory" : "last-level cache: the weights fit",
	        p->own / 1e9, p->cal.blas_flops_per_s / 1e9, p->info.blas[0] ? ", " : "",
	        p->info.blas);
}

static int bench(const struct bench_args *a, enum nx_table_format format)
{
	struct nx_err err = {0};
	struct nx_session s = {0};
	struct nx_cli_stack cs = {0};
	struct bench_peaks p = {0};
	char context[96];
	int32_t batch[BATCHES_MAX];
	int n = nx_parse_ints(a->batches, batch, BATCHES_MAX), rc = 0;
	struct nx_table t;
	nx_table_init(&t);
	static const char *const HEAD[] = {"batch",       "prefill tok/s",   "GFLOP/s",
	                                   "of own peak", "of library peak", "decode tok/s",
	                                   "GB/s",        "of read peak"};
	for (size_t i = 0; i < sizeof(HEAD) / sizeof(HEAD[0]); i++)
		nx_table_column(&t, HEAD[i], NX_RIGHT);
	if (!a->session.model)
		rc = nx_fail(&err, NX_EINVAL, "--model FILE is missing");
	else if (n < 1)
		rc = nx_fail(&err, NX_EINVAL,
		             "--batch-size is '%s'; it takes up to %d numbers such as 1,8",
		             a->batches, BATCHES_MAX);
	else if (a->prompt_len < 1 || a->gen < 2 || a->repeat < 1 || a->prompt_len > 1 << 20 ||
	         a->gen > 1 << 20)
		rc = nx_fail(&err, NX_EINVAL, "--prompt-len and --repeat start at 1, --gen at 2");
	if (!rc)
		rc = nx_session_init(&s, &a->session, &err);
	if (!rc && a->prompt_len + a->gen > nx_model_shape(s.model)->ctx_len)
		rc = nx_fail(&err, NX_EINVAL,
		             "prompt %lld + output %lld is over the model's context %s",
		             (long long)a->prompt_len, (long long)a->gen,
		             nx_context_text(nx_model_shape(s.model), context, sizeof(context)));
	if (!rc)
		rc = nx_cli_stack_init(&cs, s.registry, a->session.device, a->techniques.v,
		                       a->techniques.n, &err);
	if (!rc)
		rc = s.dev.ops->calibrate(s.dev.dev, CALIBRATE_S, &p.cal, &err);
	if (!rc) {
		s.dev.ops->info(s.dev.dev, &p.info);
		p.weight_bytes = nx_weights_bytes(s.weights);
		p.own = !strcmp(a->session.dtype, "f32") ? p.cal.f32_flops_per_s
		                                         : p.cal.bf16_flops_per_s;
		p.read = nx_read_peak(&p.cal, p.weight_bytes, &p.cached);
		peaks_text(&s, a, &p);
	}
	for (int i = 0; i < n && !rc; i++)
		rc = bench_batch(a, &s, &cs.stack, batch[i], &t, &p, &err);
	if (!rc) {
		struct nx_text text;
		nx_text_init(&text);
		nx_table_write(&t, format, &text);
		if (!text.failed && text.s)
			fputs(text.s, stdout);
		nx_text_release(&text);
	}
	nx_table_release(&t);
	nx_cli_stack_release(&cs);
	nx_session_release(&s);
	return rc ? nx_say_err(&err) : NX_EXIT_DONE;
}

int nx_verb_bench(int argc, char **argv)
{
	struct bench_args a = {
		.batches = "1,8",
		.prompt_len = 256,
		.gen = 64,
		.repeat = 3,
		.session = {.device = "cpu", .dtype = "bf16"},
	};
	struct nx_strings args;
	const char *format_text = "text";
	const struct nx_opt opts[] = {
		{"m,model", NX_OPT_TEXT, &a.session.model, "FILE",
	         "name, GGUF file or Hugging Face directory of a model"},
		{"batch-size", NX_OPT_TEXT, &a.batches, "N,N", "requests in flight (1,8)"},
		{"prompt-len", NX_OPT_INT, &a.prompt_len, "N", "prompt tokens (256)"},
		{"gen", NX_OPT_INT, &a.gen, "N", "output tokens (64)"},
		{"repeat", NX_OPT_INT, &a.repeat, "N",
	         "runs that are added up, after the warm-up (3)"},
		{"technique", NX_OPT_MANY, &a.techniques, "SPEC",
	         "name:key=value,... over the base tuned; repeatable"},
		{"dtype", NX_OPT_TEXT, &a.session.dtype, "TYPE", "f32 or bf16 (bf16)"},
		{"threads", NX_OPT_INT, &a.session.threads, "N", "0 is all (0)"},
		{"device", NX_OPT_TEXT, &a.session.device, "NAME", "cpu or cuda[:N] (cpu)"},
		{"invariant", NX_OPT_FLAG, &a.session.invariant, NULL,
	         "the exactness mode: own products only"},
		{"format", NX_OPT_TEXT, &format_text, "FORMAT", "text, md, csv or json (text)"},
		{0},
	};
	const struct nx_opts o = {
		.usage = "bench --model FILE [options]",
		.summary =
			"Times prefill and decode of the whole engine and sets them against this device's peaks, which\n"
			"are measured first. Bytes and operations are counted, not measured.",
		.example =
			"  nexus bench --model experiments/models/nano/nano.gguf --batch-size 1,8",
		.opts = opts,
	};
	enum nx_table_format format = NX_TABLE_TEXT;
	int status = nx_opts_parse(&o, argc, argv, &args);
	if (status < 0)
		status = nx_parse_format(format_text, &format);
	if (status < 0)
		status = bench(&a, format);
	nx_opts_release(&o, &args);
	return status;
}
