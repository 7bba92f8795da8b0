/* SPDX-License-Identifier: Apache-2.0
 *
 * test_flash_attention.c: the choice of kernel. The kernel itself is tested in kernels/test.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"

START_TEST(it_chooses_the_tiled_kernel_and_the_chunk)
{
	struct fake_host f;
	struct nx_err err = {0};
	enum nx_attn_kernel kernel = NX_ATTN_MATERIALISED;
	int32_t chunk = 0;
	struct nx_attn_limits l = {
		.n_heads = 4, .n_kv_heads = 2, .head_dim = 16, .max_rows = 100, .max_len = 256};
	fake_host_open(&f, "flash_attention", "kv_chunk=48", 2);
	ck_assert_int_eq(f.plugin.technique->attention_plan(f.self, &l, &kernel, &chunk, &err), 0);
	ck_assert_int_eq(kernel, NX_ATTN_TILED);
	ck_assert_int_eq(chunk, 48);
	fake_host_close(&f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("flash_attention");
	TCase *tc = tcase_create("flash_attention");
	tcase_add_test(tc, it_chooses_the_tiled_kernel_and_the_chunk);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
