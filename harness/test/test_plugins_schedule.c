/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_plugins_schedule.c: the random scheduler keeps the rules and uses every freedom; the row-dropping
 * layout keeps sinks and window.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fake_host.h"
#include "tiny_model.h"

#define MAX 12

struct scene {
	struct fake_host f;
	struct nx_sched_seq running[MAX], waiting[MAX];
	struct nx_grant grants[2 * MAX];
	uint64_t seed;
};

static int32_t below(struct scene *s, int32_t n)
{
	return (int32_t)(nx_test_random(&s->seed) % (uint64_t)n);
}

static void random_view(struct scene *s, struct nx_sched_view *v)
{
	*v = (struct nx_sched_view){.running = s->running,
	                            .n_running = below(s, MAX),
	                            .waiting = s->waiting,
	                            .n_waiting = below(s, MAX),
	                            .batch_size = MAX,
	                            .free_seqs = below(s, 8),
	                            .max_rows = 1 + below(s, 100),
	                            .kv_free = below(s, 400),
	                            .kv_total = 1000,
	                            .split_prompt = true};
	for (int32_t i = 0; i < MAX; i++) {
		bool decode = below(s, 2), held = below(s, 8) == 0;
		s->running[i] = (struct nx_sched_seq){.request = (uint32_t)i,
		                                      .samples = 1,
		                                      .phase = held     ? NX_SEQ_HELD
		                                               : decode ? NX_SEQ_DECODE
		                                                        : NX_SEQ_PREFILL,
		                                      .pending = held     ? 0
		                                                 : decode ? 1
		                                                          : 1 + below(s, 60),
		                                      .draft = !held && decode ? below(s, 9) : 0};
		s->waiting[i] = (struct nx_sched_seq){.request = 100u + (uint32_t)i,
		                                      .samples = 1 + below(s, 3),
		                                      .phase = NX_SEQ_WAITING,
		                                      .pending = 1 + below(s, 60),
		                                      .kv_need = 1 + below(s, 120)};
	}
}

/* What the rules are, said a second time. */
static void check_schedule(const struct nx_sched_view *v, const struct nx_schedule *out)
{
	bool seen[2][MAX] = {{false}}, live = false;
	int64_t rows = 0, need = 0;
	int32_t places = 0, last = -1;
	for (int32_t i = 0; i < v->n_running; i++)
		live |= v->running[i].phase != NX_SEQ_HELD;
	for (int32_t k = 0; k < out->n_grants; k++) {
		const struct nx_grant *g = &out->grants[k];
		ck_assert(g->index >= 0 && g->index < (g->waiting ? v->n_waiting : v->n_running));
		ck_assert(!seen[g->waiting][g->index]);
		seen[g->waiting][g->index] = true;
		const struct nx_sched_seq *s =
			g->waiting ? &v->waiting[g->index] : &v->running[g->index];
		ck_assert(g->rows >= 1 && g->rows <= s->pending && g->pad == 0);
		ck_assert(g->draft >= 0 && g->draft <= s->draft);
		ck_assert(g->draft == 0 || g->rows == s->pending);
		rows += g->rows + g->draft;
		if (g->waiting) {
			ck_assert_int_eq(g->index, last + 1); /* in order of arrival */
			last = g->index;
			need += s->kv_need;
			places += s->samples;
		}
	}
	ck_assert_int_le(rows, v->max_rows);
	ck_assert_int_le(places, v->free_seqs);
	ck_assert(need == 0 || need <= v->kv_free);
	if (live)
		ck_assert_int_gt(out->n_grants, 0);
	else if (v->n_waiting && v->waiting[0].samples <= v->free_seqs &&
	         v->waiting[0].kv_need <= v->kv_free)
		ck_assert_int_gt(out->n_grants, 0);
}

START_TEST(random_schedules_keep_the_rules)
{
	struct scene s = {.seed = 5};
	fake_host_open(&s.f, "schedule_random", "skip=0.3,chunk=7,victim=any", MAX);
	for (int i = 0; i < 3000; i++) {
		struct nx_sched_view v;
		struct nx_err err = {0};
		struct nx_schedule out = {.grants = s.grants};
		random_view(&s, &v);
		ck_assert_int_eq(s.f.plugin.technique->schedule(s.f.self, &v, &out, &err), 0);
		check_schedule(&v, &out);
		if (v.n_running) {
			int32_t at = s.f.plugin.technique->victim(s.f.self, &v);
			ck_assert(at >= 0 && at < v.n_running);
		}
	}
	static const char *const used[] = {"chunks", "skips", "joins", "mixed", "draft_rows"};
	for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++)
		ck_assert_msg(fake_host_counter(&s.f, used[i]) > 100, "%s", used[i]);
	fake_host_close(&s.f);
}
END_TEST

START_TEST(a_reset_scheduler_repeats_itself)
{
	struct scene s = {.seed = 6};
	struct nx_sched_view v;
	struct nx_err err = {0};
	struct nx_grant first[2 * MAX];
	fake_host_open(&s.f, "schedule_random", "seed=3", MAX);
	do
		random_view(&s, &v);
	while (v.n_running < 6 || v.max_rows < 50);
	struct nx_schedule a = {.grants = first}, b = {.grants = s.grants};
	memset(first, 0, sizeof(first));
	ck_assert_int_eq(s.f.plugin.technique->schedule(s.f.self, &v, &a, &err), 0);
	s.f.plugin.technique->reset(s.f.self);
	ck_assert_int_eq(s.f.plugin.technique->schedule(s.f.self, &v, &b, &err), 0);
	ck_assert_int_eq(a.n_grants, b.n_grants);
	for (int32_t i = 0; i < a.n_grants; i++)
		ck_assert(a.grants[i].index == b.grants[i].index &&
		          a.grants[i].rows == b.grants[i].rows &&
		          a.grants[i].draft == b.grants[i].draft);
	fake_host_close(&s.f);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("plugins_schedule");
	TCase *tc = tcase_create("schedule");
	tcase_add_test(tc, random_schedules_keep_the_rules);
	tcase_add_test(tc, a_reset_scheduler_repeats_itself);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
