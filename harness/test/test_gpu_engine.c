/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu_engine.c: the engine on a device of this machine, cuda:0 or NEXUS_TEST_DEVICE, as it is used: work runs
 * ahead, steps are captured. In invariant mode each stack has the tokens and logits of its numerics run one
 * sequence at a time, bit for bit; and a model has the CPU's tokens but for near ties, which are counted.
 */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine_fixture.h"
#include "tiny_model.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static const char *device(void)
{
	const char *d = getenv("NEXUS_TEST_DEVICE");
	return d && *d ? d : "cuda:0";
}

/* A stack, and those of its techniques that decide what a row's numbers are. */
static const struct {
	const char *stack, *numerics;
} stacks[] = {
	{"", ""},
	{"no_cache", ""},
	{"kv_cache:reserve=exact,flash_attention:kv_chunk=16", "flash_attention:kv_chunk=16"},
	{"paged_attention:block_size=16,flash_attention", "flash_attention"},
	{"continuous_batching,paged_attention:block_size=5:num_blocks=44", ""},
	{"continuous_batching,paged_attention:block_size=1:num_blocks=220:preempt=swap,flash_attention:kv_chunk=32",
         "flash_attention:kv_chunk=32"},
	{"continuous_batching:policy=priority,paged_attention:block_size=7:num_blocks=32:preempt=swap:"
         "swap_blocks=12,flash_attention:kv_chunk=16",
         "flash_attention:kv_chunk=16"},
	{"continuous_batching,paged_attention:block_size=8,prompt_lookup:num_tokens=4:ngram_max=3,flash_attention",
         "flash_attention"},
	{"prompt_lookup:num_tokens=9:ngram_min=1:ngram_max=1", ""},
};

static void same(const struct fixture *f, int i, int32_t batch, int32_t samples, float temperature,
                 bool logits, bool ahead, bool graphs)
{
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome want, got;
	const struct run_options one = {.batch_size = 1, .invariant = true};
	const struct run_options many = {
		.batch_size = batch, .invariant = true, .plan_ahead = ahead};
	int32_t n = batch + 5;
	char spec[512];
	snprintf(spec, sizeof(spec), "%s%s%s", stacks[i].stack,
	         graphs && *stacks[i].stack ? "," : "",
	         graphs ? "cuda_graph:max_graphs=6:key_bucket=16" : "");
	requests_make(&reqs, f, n, 1, 60, 1, 30, samples, temperature, 17 + (uint64_t)i);
	requests_share(&reqs, 24);
	outcome_init(&want, f, n, samples, 30, logits);
	outcome_init(&got, f, n, samples, 30, logits);
	ck_assert_msg(run_stack(f, stacks[i].numerics, &reqs, &one, &want, &err) == 0, "%s: %s",
	              stacks[i].numerics, err.msg);
	ck_assert_msg(run_stack(f, spec, &reqs, &many, &got, &err) == 0, "%s: %s", spec, err.msg);
	size_t m = (size_t)n * (size_t)samples;
	ck_assert_int_eq(got.n_finished, (int32_t)m);
	for (size_t k = 0; k < m * 30; k++)
		ck_assert_msg(want.tokens[k] == got.tokens[k],
		              "%s (ahead %d): sequence %zu differs at token %zu: %d, alone %d",
		              spec, ahead, k / 30, k % 30, got.tokens[k], want.tokens[k]);
	if (logits)
		ck_assert_msg(memcmp(want.logits, got.logits,
		                     m * 30 * (size_t)want.vocab * sizeof(float)) == 0,
		              "%s: logits differ", spec);
	outcome_release(&want);
	outcome_release(&got);
	requests_release(&reqs);
}

START_TEST(a_stack_has_the_tokens_of_one_sequence_at_a_time)
{
	struct fixture f;
	int i = _i % COUNT(stacks);
	fixture_open_on(&f, device(), _i < COUNT(stacks) ? NX_F32 : NX_BF16, "auto", true, 2);
	for (int k = 0; k < 4; k++) {
		bool ahead = k & 1, graphs = k & 2;
		same(&f, i, 8, 1, 0, !ahead, ahead, graphs);
		same(&f, i, 3, 4, 0.8f, false, ahead, graphs);
	}
	fixture_close(&f);
}
END_TEST

/* The CPU's tokens are fed; at each position the device's choice must be the CPU's or nearly tie with it. */
static void compare_with_cpu(const char *path, int32_t n, int32_t n_out)
{
	struct fixture cpu, gpu;
	struct nx_err err = {0};
	struct request_set reqs;
	struct outcome want, got;
	struct run_options o = {.batch_size = 4, .invariant = true};
	int differ = 0, far = 0;
	double worst = 0;
	fixture_open_model(&cpu, path, "cpu", NX_BF16, "auto", true, 2);
	fixture_open_model(&gpu, path, device(), NX_BF16, "auto", true, 2);
	requests_make(&reqs, &cpu, n, 8, 200, n_out, n_out, 1, 0, 5);
	outcome_init(&want, &cpu, n, 1, n_out, true);
	outcome_init(&got, &gpu, n, 1, n_out, true);
	ck_assert_msg(run_stack(&cpu, "flash_attention", &reqs, &o, &want, &err) == 0, "%s",
	              err.msg);
	for (int32_t i = 0; i < n; i++)
		reqs.reqs[i].force = want.tokens + (size_t)i * (size_t)n_out;
	ck_assert_msg(run_stack(&gpu, "flash_attention,paged_attention", &reqs, &o, &got, &err) ==
	                      0,
	              "%s", err.msg);
	for (size_t k = 0; k < (size_t)n * (size_t)n_out; k++) {
		const float *a = want.logits + k * (size_t)want.vocab,
			    *b = got.logits + k * (size_t)want.vocab;
		float top = 0;
		for (int32_t v = 0; v < want.vocab; v++) {
			top = fmaxf(top, fabsf(a[v]));
			worst = fmax(worst, fabs((double)a[v] - (double)b[v]));
		}
		if (want.tokens[k] == got.tokens[k])
			continue;
		differ++;
		far += a[want.tokens[k]] - a[got.tokens[k]] > 2 * 0x1p-7f * top;
	}
	printf("%s: %d of %d positions differ from the CPU, %d of them by more than a near tie; largest change of a "
	       "logit %.3g\n",
	       path, differ, n * n_out, far, worst);
	ck_assert_int_eq(far, 0);
	ck_assert_int_le(differ * 50, n * n_out);
	outcome_release(&want);
	outcome_release(&got);
	requests_release(&reqs);
	fixture_close(&gpu);
	fixture_close(&cpu);
}

START_TEST(nano_has_the_cpus_tokens)
{
	char path[1024];
	nx_test_source_path(path, sizeof(path), "experiments/models/nano/nano.gguf");
	compare_with_cpu(path, 12, 48);
}
END_TEST

START_TEST(smollm2_has_the_cpus_tokens)
{
	char path[1024];
	nx_test_source_path(path, sizeof(path),
	                    "experiments/models/smollm2-135m-instruct-q4_1.gguf");
	FILE *f = fopen(path, "rb");
	if (!f) {
		printf("%s is not there (make models): not compared\n", path);
		return;
	}
	fclose(f);
	compare_with_cpu(path, 6, 32);
}
END_TEST

int main(void)
{
	struct nx_device d = {0};
	struct nx_err err = {0};
	const struct nx_device_config cfg = {.dtype = NX_F32};
	const char *build = getenv("NEXUS_BUILD");
	if (strncmp(device(), "cuda", 4) == 0) {
		if (nx_device_open(&d, device(), &cfg, build ? build : "build", &err)) {
			printf("skipped: %s\n100%%: Checks: 0, Failures: 0, Errors: 0\n", err.msg);
			return 0;
		}
		nx_device_close(&d);
	}
	Suite *s = suite_create("gpu_engine");
	TCase *tc = tcase_create("stacks"), *cpu = tcase_create("cpu");
	tcase_set_timeout(tc, 300);
	tcase_set_timeout(cpu, 300);
	tcase_add_loop_test(tc, a_stack_has_the_tokens_of_one_sequence_at_a_time, 0,
	                    2 * COUNT(stacks));
	tcase_add_test(cpu, nano_has_the_cpus_tokens);
	tcase_add_test(cpu, smollm2_has_the_cpus_tokens);
	suite_add_tcase(s, tc);
	suite_add_tcase(s, cpu);
	SRunner *r = srunner_create(s);
	/* A context does not live through fork(). */
	srunner_set_fork_status(r, CK_NOFORK);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
