/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quantized_kv.c: what the technique chooses, and what it refuses. Codes and attention over them are tested in
 * kernels/test/test_cpu_coded.c and test_cuda_coded.c, stacks in harness/test/test_stacks.c.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"

static const struct {
	const char *values;
	int32_t head_dim;
	struct nx_codec_layout want;
} choices[] = {
	{"", 128, {.codec = NX_KV_INT8, .group_size = 128, .window = 1}},
	{"type=int4,group_size=32", 128, {.codec = NX_KV_INT4, .group_size = 32, .window = 1}},
	{"type=fp8_e4m3", 80, {.codec = NX_KV_E4M3, .group_size = 80, .window = 1}},
	{"type=fp8_e5m2,residual_length=64",
         64,
         {.codec = NX_KV_E5M2, .group_size = 64, .window = 1}},
	{"type=kivi4", 128, {.codec = NX_KV_KIVI4, .group_size = 32, .window = 128}},
	{"type=kivi2,group_size=16,residual_length=48",
         64,
         {.codec = NX_KV_KIVI2, .group_size = 16, .window = 48}},
	{"type=kivi2,residual_length=80",
         80,
         {.codec = NX_KV_KIVI2, .group_size = 80, .window = 80}},
};

START_TEST(it_chooses_codec_group_and_window)
{
	struct fake_host f;
	struct nx_err err = {0};
	struct nx_codec_layout got = {0};
	struct nx_codec_limits l = {.head_dim = choices[_i].head_dim};
	fake_host_load(&f, "quantized_kv", choices[_i].values, 2);
	f.host.model.head_dim = choices[_i].head_dim;
	fake_host_create(&f);
	ck_assert_int_eq(f.plugin.technique->codec_layout(f.self, &l, &got, &err), 0);
	ck_assert_int_eq(got.codec, choices[_i].want.codec);
	ck_assert_int_eq(got.group_size, choices[_i].want.group_size);
	ck_assert_int_eq(got.window, choices[_i].want.window);
	fake_host_close(&f);
}
END_TEST

static const struct {
	const char *values;
	int32_t head_dim;
	const char *says;
} wrongs[] = {
	{"group_size=48", 128, "divides the head size"},
	{"group_size=8", 128, "multiple of 16"},
	{"", 72, "no multiple of 16"},
	{"type=kivi4,residual_length=40", 128, "window must be a multiple of group_size"},
	{"type=kivi2,group_size=64,residual_length=32", 128,
         "window must be a multiple of group_size"},
};

START_TEST(what_does_not_fit_is_one_sentence)
{
	struct fake_host f;
	struct nx_err err = {0};
	fake_host_load(&f, "quantized_kv", wrongs[_i].values, 2);
	f.host.model.head_dim = wrongs[_i].head_dim;
	void *self = NULL;
	int rc = f.plugin.technique->create(&self, &f.host, f.values, &err);
	ck_assert_int_eq(rc, NX_ENOTSUP);
	ck_assert_ptr_null(self);
	ck_assert_msg(strstr(err.msg, wrongs[_i].says) != NULL, "%s", err.msg);
	ck_assert_msg(strstr(err.msg, "quantized_kv: type") == err.msg, "%s", err.msg);
}
END_TEST

/* The slot of attention stays free: kernel and chunk are another technique's. */
START_TEST(it_takes_one_slot)
{
	struct fake_host f;
	fake_host_load(&f, "quantized_kv", "", 2);
	ck_assert_uint_eq(f.plugin.slots, 1u << NX_SLOT_KV_CODEC);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("quantized_kv");
	TCase *tc = tcase_create("quantized_kv");
	tcase_add_loop_test(tc, it_chooses_codec_group_and_window, 0,
	                    (int)(sizeof(choices) / sizeof(choices[0])));
	tcase_add_loop_test(tc, what_does_not_fit_is_one_sentence, 0,
	                    (int)(sizeof(wrongs) / sizeof(wrongs[0])));
	tcase_add_test(tc, it_takes_one_slot);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
