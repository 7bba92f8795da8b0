/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cuda_backend.c: life cycle of the CUDA backend.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_test.h"

START_TEST(a_device_that_is_not_there_is_refused_with_a_sentence)
{
	struct both b;
	struct nx_err err = {0};
	struct nx_device_config cfg = {.index = 99};
	void *dev = NULL;
	both_open(&b, NX_F32, false);
	ck_assert_int_eq(b.gpu.ops->open(&dev, &cfg, &err), NX_EINVAL);
	ck_assert_ptr_nonnull(strstr(err.msg, "cuda:99"));
	ck_assert_ptr_null(dev);
	both_close(&b);
}
END_TEST

int main(void)
{
	both_need_gpu();
	Suite *s = suite_create("cuda backend");
	TCase *tc = tcase_create("life");
	tcase_add_test(tc, a_device_that_is_not_there_is_refused_with_a_sentence);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	/* A context does not live through fork(). */
	srunner_set_fork_status(r, CK_NOFORK);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
