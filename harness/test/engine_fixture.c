/* SPDX-License-Identifier: Apache-2.0
 *
 * test/engine_fixture.c: see engine_fixture.h.
 */
#include "engine_fixture.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tiny_model.h"

static const char *build_dir(void)
{
	const char *b = getenv("NEXUS_BUILD");
	return b ? b : "build";
}

void fixture_open(struct fixture *f, enum nx_dtype dtype, const char *isa, bool invariant,
                  int32_t threads)
{
	fixture_open_on(f, "cpu", dtype, isa, invariant, threads);
}

void fixture_open_on(struct fixture *f, const char *device, enum nx_dtype dtype, const char *isa,
                     bool invariant, int32_t threads)
{
	struct nx_err err = {0};
	struct nx_shape shape = nx_test_tiny_shape();
	char path[512];
	nx_test_tmp_path(path, sizeof(path), "engine.gguf");
	ck_assert_msg(nx_test_write_model(path, &shape, NX_GGUF_F32, 7, &err) == 0, "%s", err.msg);
	fixture_open_model(f, path, device, dtype, isa, invariant, threads);
	unlink(path);
}

void fixture_open_model(struct fixture *f, const char *path, const char *device,
                        enum nx_dtype dtype, const char *isa, bool invariant, int32_t threads)
{
	struct nx_err err = {0};
	struct nx_device_config cfg = {
		.n_threads = threads, .dtype = dtype, .invariant = invariant, .isa = isa};
	memset(f, 0, sizeof(*f));
	snprintf(f->path, sizeof(f->path), "%s", path);
	ck_assert_msg(nx_model_open(&f->model, path, &err) == 0, "%s", err.msg);
	if (strcmp(device, "late") == 0) {
		char dir[512];
		snprintf(dir, sizeof(dir), "%s/test-backends", build_dir());
		setenv("NEXUS_BACKEND_PATH", dir, 1);
	}
	ck_assert_msg(nx_device_open(&f->dev, device, &cfg, build_dir(), &err) == 0, "%s", err.msg);
	ck_assert_msg(nx_weights_create(&f->weights, f->model, &f->dev, dtype, &err) == 0, "%s",
	              err.msg);
	char plugins[512]; /* the test-only techniques */
	const char *const dirs[] = {plugins};
	snprintf(plugins, sizeof(plugins), "%s/test-plugins", build_dir());
	ck_assert_msg(nx_registry_open(&f->registry, dirs, 1, build_dir(), &err) == 0, "%s",
	              err.msg);
}

void fixture_close(struct fixture *f)
{
	nx_registry_close(f->registry);
	nx_weights_destroy(f->weights);
	nx_device_close(&f->dev);
	nx_model_close(f->model);
}

/* "name:key=value:key=value" -> a layer. */
static void add_layer(struct test_stack *s, const struct fixture *f, char *text)
{
	struct nx_err err = {0};
	char *save = NULL, *name = strtok_r(text, ":", &save);
	const struct nx_plugin *p = nx_registry_find(f->registry, name, NULL);
	ck_assert_msg(p != NULL, "no technique %s", name);
	ck_assert_int_le(p->n_params, 16);
	struct nx_value *v = s->values[s->stack.n_layers];
	for (int32_t i = 0; i < p->n_params; i++)
		ck_assert_msg(nx_param_default(&p->technique->params[i], &v[i], &err) == 0, "%s",
		              err.msg);
	for (char *kv = strtok_r(NULL, ":", &save); kv; kv = strtok_r(NULL, ":", &save)) {
		char *eq = strchr(kv, '=');
		bool found = false;
		ck_assert_ptr_nonnull(eq);
		*eq = '\0';
		for (int32_t i = 0; i < p->n_params; i++) {
			if (strcmp(p->technique->params[i].key, kv) != 0)
				continue;
			ck_assert_msg(
				nx_param_parse(&p->technique->params[i], eq + 1, &v[i], &err) == 0,
				"%s", err.msg);
			found = true;
		}
		ck_assert_msg(found, "%s has no parameter %s", name, kv);
	}
	struct nx_layer l = {.plugin = p, .values = v};
	ck_assert_msg(nx_stack_put(&s->stack, &l, &err) == 0, "%s", err.msg);
}

void test_stack_make(struct test_stack *s, const struct fixture *f, const char *spec)
{
	memset(s, 0, sizeof(*s));
	snprintf(s->text, sizeof(s->text), "%s", spec);
	char *save = NULL;
	for (char *l = strtok_r(s->text, ",", &save); l; l = strtok_r(NULL, ",", &save))
		add_layer(s, f, l);
}

void outcome_init(struct outcome *o, const struct fixture *f, int32_t n_requests, int32_t samples,
                  int32_t max_out, bool logits)
{
	size_t n = (size_t)n_requests * (size_t)samples, m = n * (size_t)max_out;
	*o = (struct outcome){.n_requests = n_requests, .samples = samples, .max_out = max_out};
	o->vocab = nx_model_shape(f->model)->vocab;
	o->tokens = malloc(m * sizeof(*o->tokens));
	o->n_out = calloc(n, sizeof(*o->n_out));
	if (logits)
		o->logits = calloc(m * (size_t)o->vocab, sizeof(*o->logits));
	ck_assert(o->tokens && o->n_out && (o->logits || !logits));
	for (size_t i = 0; i < m; i++)
		o->tokens[i] = -1;
}

void outcome_release(struct outcome *o)
{
	free(o->tokens);
	free(o->n_out);
	free(o->logits);
	memset(o, 0, sizeof(*o));
}

static size_t place_of(const struct outcome *o, uint32_t request, uint32_t sample, int32_t index)
{
	ck_assert_int_lt((int32_t)request, o->n_requests);
	ck_assert_int_lt((int32_t)sample, o->samples);
	ck_assert_int_lt(index, o->max_out);
	return ((size_t)request * (size_t)o->samples + sample) * (size_t)o->max_out + (size_t)index;
}

static void on_token(void *ctx, uint32_t request, uint32_t sample, int32_t index, int32_t token,
                     uint64_t t_ns)
{
	struct outcome *o = ctx;
	size_t at = place_of(o, request, sample, index);
	(void)t_ns;
	ck_assert_msg(o->tokens[at] == -1, "token %d of request %u sample %u came twice", index,
	              request, sample);
	o->tokens[at] = token;
	o->n_out[request * (uint32_t)o->samples + sample]++;
}

static void on_logits(void *ctx, uint32_t request, uint32_t sample, int32_t index,
                      const float *logits, int32_t vocab)
{
	struct outcome *o = ctx;
	memcpy(o->logits + place_of(o, request, sample, index) * (size_t)vocab, logits,
	       (size_t)vocab * sizeof(float));
}

static void on_finish(void *ctx, uint32_t request, uint32_t sample, enum nx_finish why,
                      int32_t n_preempted, uint64_t t)
{
	struct outcome *o = ctx;
	(void)request;
	(void)sample;
	(void)why;
	(void)n_preempted;
	(void)t;
	o->n_finished++;
}

static void on_step(void *ctx, const struct nx_step_info *s)
{
	struct outcome *o = ctx;
	for (int k = 0; k < NX_ROW_KIND_COUNT; k++)
		o->rows[k] += s->rows[k];
	o->n_steps++;
	o->n_preempted += s->n_preempted;
	o->n_accepted += s->n_accepted;
	o->n_drafting += s->rows[NX_ROW_CANDIDATE] > 0;
	o->n_replayed += s->replayed && s->rows[NX_ROW_CANDIDATE] > 0;
	if (s->kv_held > o->kv_held_peak)
		o->kv_held_peak = s->kv_held;
	ck_assert_int_le(s->kv_used, s->kv_held);
	ck_assert_int_ge(s->kv_used, 0);
	ck_assert_int_le(s->kv_held, s->kv_total);
	ck_assert_uint_ge(s->end_ns, s->begin_ns);
}

void requests_make(struct request_set *s, const struct fixture *f, int32_t n, int32_t min_prompt,
                   int32_t max_prompt, int32_t min_out, int32_t max_out, int32_t samples,
                   float temperature, uint64_t seed)
{
	int32_t vocab = nx_model_shape(f->model)->vocab;
	s->n = n;
	s->reqs = calloc((size_t)n, sizeof(*s->reqs));
	s->space = calloc((size_t)n * (size_t)max_prompt, sizeof(*s->space));
	ck_assert(s->reqs && s->space);
	for (int32_t i = 0; i < n; i++) {
		int32_t *p = s->space + (size_t)i * (size_t)max_prompt;
		int32_t len = min_prompt + (int32_t)(nx_test_random(&seed) %
		                                     (uint64_t)(max_prompt - min_prompt + 1));
		int32_t out = min_out +
		              (int32_t)(nx_test_random(&seed) % (uint64_t)(max_out - min_out + 1));
		for (int32_t t = 0; t < len; t++)
			p[t] = (int32_t)(nx_test_random(&seed) % (uint64_t)vocab);
		s->reqs[i] = (struct nx_request){
			.id = (uint32_t)i,
			.prompt = p,
			.n_prompt = len,
			.max_out = out,
			.samples = samples,
			.priority = (int32_t)(nx_test_random(&seed) % 5),
			.ignore_eos = true,
			.sampler = {.temperature = temperature, .top_p = 1, .seed = 99},
		};
	}
}

void requests_share(struct request_set *s, int32_t n)
{
	for (int32_t i = 1; i < s->n; i++) {
		struct nx_request *r = &s->reqs[i];
		int32_t *p = (int32_t *)(uintptr_t)r->prompt;
		int32_t m = r->n_prompt < s->reqs[0].n_prompt ? r->n_prompt : s->reqs[0].n_prompt;
		if (i % 2 == 0)
			memcpy(p, s->reqs[0].prompt, (size_t)(m < n ? m : n) * sizeof(*p));
		if (i % 3 == 0)
			for (int32_t t = 5; t < r->n_prompt; t++)
				p[t] = p[t - 5];
	}
}

void requests_release(struct request_set *s)
{
	free(s->reqs);
	free(s->space);
	memset(s, 0, sizeof(*s));
}

static struct nx_counter_value counters[64];
static size_t n_counters;

double last_counter(const char *name)
{
	for (size_t i = 0; i < n_counters; i++)
		if (strcmp(counters[i].name, name) == 0)
			return counters[i].value;
	ck_abort_msg("no counter %s", name);
	return 0;
}

static void check_counters(const struct nx_engine *e, const char *spec)
{
	n_counters = nx_engine_counters(e, counters, 64);
	for (size_t i = 0; i < n_counters; i++) {
		const char *dot = strrchr(counters[i].name, '.');
		ck_assert_msg(!dot || strcmp(dot, ".bad") != 0 || counters[i].value == 0,
		              "%s: %s is %g", spec, counters[i].name, counters[i].value);
	}
}

int run_stack(const struct fixture *f, const char *spec, const struct request_set *reqs,
              const struct run_options *o, struct outcome *out, struct nx_err *err)
{
	struct test_stack st;
	struct nx_engine *e = NULL;
	int32_t longest = 0, samples = 1;
	test_stack_make(&st, f, spec);
	for (int32_t i = 0; i < reqs->n; i++) {
		const struct nx_request *r = &reqs->reqs[i];
		if (r->n_prompt + r->max_out > longest)
			longest = r->n_prompt + r->max_out;
		if (r->samples > samples)
			samples = r->samples;
	}
	struct nx_engine_config cfg = {.weights = f->weights,
	                               .stack = &st.stack,
	                               .batch_size = o->batch_size,
	                               .samples = samples,
	                               .max_len = o->max_len,
	                               .longest_request = longest,
	                               .invariant = o->invariant,
	                               .plan_ahead = o->plan_ahead,
	                               .check = true,
	                               .replay = o->replay};
	int rc = nx_engine_create(&e, &cfg, err);
	if (rc)
		return rc;
	struct nx_sink sink = {.ctx = out, .token = on_token, .finish = on_finish, .step = on_step};
	if (out->logits)
		sink.logits = on_logits;
	rc = nx_engine_run(e, reqs->reqs, (size_t)reqs->n, &sink, err);
	if (!rc) {
		struct nx_err idle = {0};
		ck_assert_msg(nx_engine_idle_check(e, &idle) == 0, "%s: %s", spec, idle.msg);
		check_counters(e, spec);
	}
	nx_engine_destroy(e);
	return rc;
}
