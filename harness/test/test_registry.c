/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_registry.c: which plugins are taken, which are refused and with what sentence; parameters; stacks.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine/registry.h"

static const char *build_dir(void)
{
	const char *b = getenv("NEXUS_BUILD");
	return b ? b : "build";
}

static struct nx_registry *open_registry(void)
{
	struct nx_registry *r = NULL;
	struct nx_err err = {0};
	ck_assert_msg(nx_registry_open(&r, NULL, 0, build_dir(), &err) == 0, "%s", err.msg);
	return r;
}

START_TEST(our_techniques_are_found_with_their_slots)
{
	static const struct {
		const char *name;
		enum nx_slot slot;
	} all[] = {{"no_cache", NX_SLOT_KV_LAYOUT},
	           {"kv_cache", NX_SLOT_KV_LAYOUT},
	           {"paged_attention", NX_SLOT_KV_LAYOUT},
	           {"continuous_batching", NX_SLOT_SCHEDULE},
	           {"flash_attention", NX_SLOT_ATTENTION}};
	struct nx_registry *r = open_registry();
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		const struct nx_plugin *p = nx_registry_find(r, all[i].name, NULL);
		ck_assert_msg(p != NULL, "%s is missing", all[i].name);
		ck_assert_uint_eq(p->slots, 1u << all[i].slot);
	}
	nx_registry_close(r);
}
END_TEST

START_TEST(a_miss_names_the_nearest)
{
	struct nx_registry *r = open_registry();
	const char *near = NULL;
	ck_assert_ptr_null(nx_registry_find(r, "paged_atention", &near));
	ck_assert_str_eq(near, "paged_attention");
	ck_assert_ptr_null(nx_registry_find(r, "zzz", &near));
	ck_assert_ptr_null(near);
	nx_registry_close(r);
}
END_TEST

START_TEST(a_bad_plugin_is_one_sentence)
{
	static const struct {
		const char *file, *says;
	} bad[] = {{"bad_magic", "magic number"},
	           {"bad_abi", "built for plugin ABI 5, this program has 4"},
	           {"bad_size", "its table has 64 bytes"},
	           {"bad_name", "lacks a name ([a-z0-9_]+)"},
	           {"bad_entry", "exports no nx_technique_entry()"},
	           {"no_such_file", "cannot be loaded"}};
	char path[1024];
	struct nx_plugin p = {0};
	struct nx_err err = {0};
	snprintf(path, sizeof(path), "%s/test-plugins/%s.so", build_dir(), bad[_i].file);
	ck_assert_int_eq(nx_plugin_load(path, &p, &err), NX_EABI);
	ck_assert_ptr_null(p.technique);
	ck_assert_msg(strstr(err.msg, bad[_i].says) != NULL, "%s", err.msg);
	ck_assert_ptr_nonnull(strstr(err.msg, bad[_i].file));
	ck_assert_ptr_null(strchr(err.msg, '\n'));
}
END_TEST

START_TEST(rejected_files_are_listed_and_do_no_harm)
{
	char dir[1024];
	const char *dirs[] = {dir};
	struct nx_registry *r = NULL;
	struct nx_err err = {0};
	int rejected = 0;
	snprintf(dir, sizeof(dir), "%s/test-plugins", build_dir());
	ck_assert_int_eq(nx_registry_open(&r, dirs, 1, build_dir(), &err), 0);
	for (size_t i = 0; i < nx_registry_count(r); i++) {
		const struct nx_plugin *p = nx_registry_at(r, i);
		ck_assert_int_eq(
			(p->technique != NULL) + (p->error != NULL) + (p->hidden_by != NULL), 1);
		rejected += p->error != NULL;
	}
	ck_assert_int_ge(rejected, 5);
	ck_assert_ptr_nonnull(nx_registry_find(r, "paged_attention", NULL));
	nx_registry_close(r);
}
END_TEST

START_TEST(values_are_checked)
{
	struct nx_param i = {"n", NX_PARAM_INT, "3", 1, 10, NULL, "rows", "x"};
	struct nx_param e = {"e", NX_PARAM_ENUM, "b", 0, 0, "a|b|cd", "", "x"};
	struct nx_value v;
	struct nx_err err = {0};
	ck_assert_int_eq(nx_param_parse(&i, "10", &v, &err), 0);
	ck_assert_int_eq(v.i, 10);
	ck_assert_int_eq(nx_param_parse(&i, "11", &v, &err), NX_EINVAL);
	ck_assert_str_eq(err.msg, "parameter \"n\" is \"11\"; legal: an integer from 1 to 10 rows");
	ck_assert_int_eq(nx_param_parse(&i, "1x", &v, &err), NX_EINVAL);
	ck_assert_int_eq(nx_param_parse(&i, "", &v, &err), NX_EINVAL);
	ck_assert_int_eq(nx_param_parse(&i, "99999999999999999999", &v, &err), NX_EINVAL);
	ck_assert_int_eq(nx_param_parse(&e, "cd", &v, &err), 0);
	ck_assert_int_eq(v.i, 2);
	ck_assert_int_eq(nx_param_parse(&e, "c", &v, &err), NX_EINVAL);
	ck_assert_str_eq(err.msg, "parameter \"e\" is \"c\"; legal: one of a, b, cd");
	ck_assert_int_eq(nx_param_parse(&e, "a|b", &v, &err), NX_EINVAL);
}
END_TEST

START_TEST(a_layer_replaces_its_slot)
{
	struct nx_registry *r = open_registry();
	struct nx_stack s = {0};
	struct nx_err err = {0};
	static const char *const order[] = {"kv_cache", "flash_attention", "paged_attention"};
	for (int i = 0; i < 3; i++) {
		struct nx_layer l = {.plugin = nx_registry_find(r, order[i], NULL)};
		ck_assert_int_eq(nx_stack_put(&s, &l, &err), 0);
	}
	ck_assert_int_eq(s.n_layers, 2);
	ck_assert_str_eq(nx_stack_slot(&s, NX_SLOT_KV_LAYOUT)->plugin->technique->name,
	                 "paged_attention");
	ck_assert_ptr_null(nx_stack_slot(&s, NX_SLOT_SCHEDULE));
	nx_registry_close(r);
}
END_TEST

START_TEST(broken_assumptions_name_both)
{
	static const struct nx_technique keeps = {.name = "keeps", .assumes = NX_TRAIT_KEPT_KV};
	static const struct nx_technique drops = {.name = "drops", .breaks = NX_TRAIT_KEPT_KV};
	struct nx_plugin a = {.technique = &keeps, .slots = 1},
			 b = {.technique = &drops, .slots = 2};
	struct nx_stack s = {.n_layers = 2, .layers = {{.plugin = &a}, {.plugin = &b}}};
	struct nx_err err = {0};
	ck_assert_int_eq(nx_stack_check(&s, &err), NX_ECONFLICT);
	ck_assert(strstr(err.msg, "\"keeps\"") && strstr(err.msg, "\"drops\""));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("registry");
	TCase *tc = tcase_create("registry");
	tcase_add_test(tc, our_techniques_are_found_with_their_slots);
	tcase_add_test(tc, a_miss_names_the_nearest);
	tcase_add_loop_test(tc, a_bad_plugin_is_one_sentence, 0, 6);
	tcase_add_test(tc, rejected_files_are_listed_and_do_no_harm);
	tcase_add_test(tc, values_are_checked);
	tcase_add_test(tc, a_layer_replaces_its_slot);
	tcase_add_test(tc, broken_assumptions_name_both);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
