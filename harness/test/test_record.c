/* SPDX-License-Identifier: Apache-2.0 */
/* The run file: round trips, crashes, refusals. */
#include <check.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record/schema.h"
#include "record_fixture.h"

static struct fixture f;
static struct nx_err err;

static void setup(void)
{
	fixture_init(&f);
	memset(&err, 0, sizeof(err));
}

static void teardown(void)
{
	fixture_release(&f);
}

/* ---- SHA-256 ----------------------------------------------------------------------------------
 * */

START_TEST(sha256_matches_the_nist_vectors)
{
	static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
	char hex[65], *million = malloc(1000000);

	nx_sha256("", 0, hex);
	ck_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	nx_sha256("abc", 3, hex);
	ck_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	nx_sha256(two, sizeof(two) - 1, hex);
	ck_assert_str_eq(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	memset(million, 'a', 1000000);
	nx_sha256(million, 1000000, hex);
	ck_assert_str_eq(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");

	char path[100], of_file[65];
	snprintf(path, sizeof(path), "%s/a", f.dir);
	FILE *out = fopen(path, "wb");
	ck_assert(out && fwrite(million, 1, 1000000, out) == 1000000 && fclose(out) == 0);
	ck_assert_int_eq(nx_sha256_file(path, of_file, &err), 0);
	ck_assert_str_eq(of_file, hex);
	ck_assert_int_eq(nx_sha256_file("/nowhere", of_file, &err), NX_EIO);
	free(million);
}
END_TEST

START_TEST(text_is_cut_between_characters)
{
	char cut[4];
	nx_copy_text(cut, sizeof(cut), "ab\xc3\xa4"); /* the last character has two bytes */
	ck_assert_str_eq(cut, "ab");
	nx_copy_text(cut, sizeof(cut), "abcdef");
	ck_assert_str_eq(cut, "abc");
}
END_TEST

/* ---- round trips ------------------------------------------------------------------------------
 * */

START_TEST(a_shard_comes_back_as_it_was)
{
	struct nx_trial a, b;
	char path[256];

	fixture_trial(&f, 1, 3, &a);
	ck_assert_msg(nx_shard_write_file(f.dir, &a, &err) == 0, "%s", err.msg);
	nx_shard_path(path, sizeof(path), f.dir, a.cell, 3);
	ck_assert_msg(nx_shard_read_file(path, &b, &err) == 0, "%s", err.msg);
	ck_assert_str_eq(b.cell, a.cell);
	ck_assert(b.round == 3 && b.status == NX_STATUS_OK && b.cell_index == 1 && !b.cause[0]);
	ck_assert(b.started_unix_ns == a.started_unix_ns && b.duration_ns == a.duration_ns);
	ck_assert(b.perf_cycles == a.perf_cycles && b.perf_instructions == -1 &&
	          b.util_source == a.util_source);
	ck_assert(memcmp(&b.counted, &a.counted, sizeof(a.counted)) == 0);
	ck_assert(b.gate.ran == 1 && b.gate.verdict == 1 && b.gate.n_near_tie == 2 &&
	          b.gate.near_tie_width == 0.125);
	ck_assert(b.n_requests == a.n_requests && b.n_tokens == a.n_tokens &&
	          b.n_steps == a.n_steps);
	ck_assert(memcmp(b.requests, a.requests, a.n_requests * sizeof(*a.requests)) == 0);
	ck_assert(memcmp(b.tokens, a.tokens, a.n_tokens * sizeof(*a.tokens)) == 0);
	ck_assert(memcmp(b.steps, a.steps, a.n_steps * sizeof(*a.steps)) == 0);
	ck_assert(b.n_mem == 2 && strcmp(b.mem[1].owner, "kv") == 0 &&
	          b.mem[1].reserved_bytes == 2003);
	ck_assert(b.n_counters == 1 && b.counters[0].value == 13);
	ck_assert_str_eq(b.counters[0].unit, "blocks");
	for (int m = 0; m < NX_METRIC_COUNT; m++)
		ck_assert(a.metrics[m] == b.metrics[m] ||
		          (isnan(a.metrics[m]) && isnan(b.metrics[m])));
	nx_trial_release(&b);
	ck_assert_int_eq(nx_shard_read_metrics(f.dir, a.cell, 3, &b, &err), 0);
	ck_assert(b.metrics[0] == a.metrics[0] && b.n_tokens == 0);
	nx_trial_release(&b);
	nx_trial_release(&a);
	ck_assert_int_eq(fixture_count_files(f.dir, ".tmp"), 0);
}
END_TEST

START_TEST(a_run_comes_back_with_its_statistics)
{
	struct nx_run *r;

	fixture_run(&f);
	ck_assert_int_eq(fixture_count_files(f.parts, ""), -1); /* the shards are gone */
	ck_assert_msg(nx_run_read(&r, f.output, &err) == 0, "%s", err.msg);
	ck_assert_str_eq(r->head.name, f.head.name);
	ck_assert_str_eq(r->head.question, f.head.question);
	ck_assert_str_eq(r->head.config_text, f.head.config_text);
	ck_assert_str_eq(nx_fact_get(r->head.facts, r->head.n_facts, "host"), "h\xc3\xb6st");
	ck_assert_str_eq(r->head.device.name, f.head.device.name);
	ck_assert(r->head.calibration.read_bytes_per_s == 1e10 && r->head.min_effect == 0.01);
	ck_assert(r->head.shape.rope_theta == 10000 && r->head.shape.tied &&
	          r->head.reference == 0);
	ck_assert(r->n_stacks == 2 && strcmp(r->stacks[1], "fast[block_size=16]") == 0);
	ck_assert_str_eq(r->stack_specs[1], "paged{block_size=16}");
	ck_assert(r->n_cells == FIXTURE_CELLS && r->n_trials == FIXTURE_CELLS * FIXTURE_ROUNDS);

	const struct nx_cell_row *base = &r->cells[0], *fast = &r->cells[1], *oom = &r->cells[2],
				 *big = &r->cells[3];
	ck_assert(fast->batch_size == 1 && fast->seq_len == 512 &&
	          strcmp(fast->seq_len_text, "512") == 0);
	ck_assert(base->speedup.value == 1 && base->verdict == NX_VERDICT_NONE &&
	          isnan(base->p_value));
	ck_assert(fast->n_ok == 6 && fast->status == NX_STATUS_OK &&
	          fast->verdict == NX_VERDICT_FASTER);
	ck_assert(fast->speedup.lo < 1.2 + 0.005 && fast->speedup.hi > 1.2 - 0.005 &&
	          fast->p_value < 0.05);
	const struct nx_estimate *thr = &fast->metrics[NX_METRIC_OUTPUT_THROUGHPUT];
	ck_assert(thr->lo <= thr->value && thr->value <= thr->hi && fabs(thr->value - 120) < 1);
	ck_assert(isnan(fast->metrics[NX_METRIC_GOODPUT].value));
	ck_assert(fast->gate.ran && fast->gate.verdict == 1 && fast->gate.n_equal == 98);
	ck_assert(fast->n_ttft == 18 &&
	          fast->n_tpot == 12); /* one request of three has one token */
	ck_assert_double_eq_tol(fast->ttft_ms[0], 5, 1e-9);
	ck_assert_double_eq_tol(fast->tpot_ms[0], 2, 1e-9);
	const struct nx_phase_use *decode = &fast->phases[NX_PHASE_DECODE];
	ck_assert(decode->n_steps == 12 && decode->time_ns == 108 && decode->kv_held == 11);
	ck_assert(decode->counted.flops == 48 && decode->perf_llc_misses == 18 &&
	          isnan(decode->perf_instructions));
	ck_assert(fast->phases[NX_PHASE_PREFILL].n_steps == 0);
	ck_assert(fast->n_mem == 2 && fast->mem[1].reserved_bytes == 2005); /* of the last trial */
	ck_assert(fast->n_counters == 1 && fast->counters[0].value == 12.5);
	ck_assert_str_eq(fast->counters[0].unit, "blocks");
	ck_assert(oom->status == NX_STATUS_OUT_OF_MEMORY && oom->n_trials == 6 && oom->n_ok == 0);
	ck_assert_str_eq(oom->cause, "needs 91 GB, device has 78 GB");
	ck_assert_ptr_nonnull(strstr(big->speedup_note, "largest batch that fits: 1"));
	ck_assert(fabs(big->speedup.value - 3) < 0.05 && big->verdict == NX_VERDICT_NONE);
	nx_run_destroy(r);
}
END_TEST

START_TEST(trials_that_do_not_count_stay_in_the_file)
{
	struct nx_run *r;
	struct nx_trial t;
	struct nx_shards *s = fixture_fill(&f, FIXTURE_ROUNDS);

	fixture_trial(&f, 1, 2, &t);
	t.status = NX_STATUS_THROTTLED;
	t.metrics[NX_METRIC_OUTPUT_THROUGHPUT] = 1;
	snprintf(t.cause, sizeof(t.cause), "cores throttled");
	ck_assert_int_eq(nx_shards_write(s, &t, &err), 0);
	nx_trial_release(&t);
	fixture_trial(&f, 3, 0, &t);
	t.status = NX_STATUS_INEXACT;
	t.gate = (struct nx_gate){1, 10, 9, 0, 1, 0.1, 3, 4, 5, 2.5};
	ck_assert_int_eq(nx_shards_write(s, &t, &err), 0);
	nx_trial_release(&t);
	ck_assert_int_eq(nx_run_merge(s, f.output, &f.head, f.cells, FIXTURE_CELLS, &err), 0);
	nx_shards_close(s);
	ck_assert_msg(nx_run_read(&r, f.output, &err) == 0, "%s", err.msg);
	ck_assert(r->cells[1].n_trials == 6 && r->cells[1].n_ok == 5 && r->cells[1].n_ttft == 15);
	ck_assert(r->cells[1].metrics[NX_METRIC_OUTPUT_THROUGHPUT].lo > 100);
	ck_assert_ptr_nonnull(
		strstr(r->cells[1].cause, "1 of 6 trials left out, the first was throttled"));
	ck_assert(r->cells[3].status == NX_STATUS_INEXACT && isnan(r->cells[3].speedup.value));
	ck_assert_str_eq(r->cells[3].speedup_note, "withheld: gate failed");
	ck_assert(r->cells[3].gate.first_request == 4 && r->cells[3].gate.verdict == 3);
	nx_run_destroy(r);
}
END_TEST

/* ---- crashes ----------------------------------------------------------------------------------
 * */

START_TEST(a_crash_loses_one_trial_at_most)
{
	char path[400];
	struct nx_run *r;
	struct nx_trial t;
	struct nx_shards *s = fixture_fill(&f, 3);

	nx_shards_close(
		s); /* killed here; half of a shard, a cut temporary and a stray file lie about */
	nx_shard_path(path, sizeof(path), f.parts, f.cells[1].id, 2);
	ck_assert_int_eq(truncate(path, 3000), 0);
	fixture_put_file(f.parts, ".tmp-123-00000000000000a0-r9.h5", "\x89HDF", 4);
	fixture_put_file(f.parts, "notes.txt", "mine", 4);
	fixture_put_file(f.parts, "00000000000000a0-r+1.h5", "x", 1);
	ck_assert_int_eq(nx_shards_open(&s, f.output, &f.head, false, false, &err), NX_ECONFLICT);
	ck_assert_ptr_nonnull(strstr(err.msg, "--resume"));
	ck_assert_msg(nx_shards_open(&s, f.output, &f.head, true, false, &err) == 0, "%s", err.msg);
	ck_assert(nx_shards_has(s, f.cells[1].id, 1) && !nx_shards_has(s, f.cells[1].id, 2));
	ck_assert_ptr_nonnull(strstr(nx_shards_note(s), "00000000000000a1-r2.h5"));
	ck_assert_uint_eq(nx_shards_count(s), 3 * FIXTURE_CELLS - 1);
	ck_assert_int_eq(fixture_count_files(f.parts, ".tmp"), 0);
	fixture_trial(&f, 1, 2, &t);
	ck_assert_int_eq(nx_shards_write(s, &t, &err), 0);
	nx_trial_release(&t);
	ck_assert_msg(nx_run_merge(s, f.output, &f.head, f.cells, FIXTURE_CELLS, &err) == 0, "%s",
	              err.msg);
	nx_shards_close(s);
	ck_assert_msg(nx_run_read(&r, f.output, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(r->n_trials, 3 * FIXTURE_CELLS);
	nx_run_destroy(r);
	ck_assert_int_eq(fixture_count_files(f.parts, "notes.txt"), 1); /* not ours to remove */
	ck_assert_int_eq(fixture_count_files(f.parts, "0000"), 0);
}
END_TEST

START_TEST(a_shard_damaged_before_the_merge_is_refused_by_name)
{
	char path[400];
	struct nx_shards *s = fixture_fill(&f, 2);

	nx_shard_path(path, sizeof(path), f.parts, f.cells[0].id, 1);
	ck_assert_int_eq(truncate(path, 2000), 0);
	ck_assert_int_ne(nx_run_merge(s, f.output, &f.head, f.cells, FIXTURE_CELLS, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.msg, "00000000000000a0-r1.h5"));
	ck_assert_int_ne(access(f.output, F_OK), 0);
	ck_assert_int_eq(fixture_count_files(f.dir, ".tmp"), 0);
	nx_shards_close(s);
}
END_TEST

START_TEST(a_full_disk_leaves_nothing_half_written)
{
	struct rlimit small = {1000, RLIM_INFINITY};
	struct nx_trial t;

	signal(SIGXFSZ, SIG_IGN);
	fixture_trial(&f, 0, 0, &t);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	int rc = nx_shard_write_file(f.dir, &t, &err);
	small.rlim_cur = RLIM_INFINITY;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	ck_assert_int_ne(rc, 0);
	ck_assert_ptr_nonnull(strstr(err.msg, t.cell));
	ck_assert_int_eq(fixture_count_files(f.dir, ""), 0);
	ck_assert_int_eq(nx_shard_write_file("/proc/self", &t, &err),
	                 NX_EIO); /* nobody may write there */
	nx_trial_release(&t);
}
END_TEST

/* ---- refusals ---------------------------------------------------------------------------------
 * */

START_TEST(two_runs_do_not_share_an_output)
{
	struct nx_shards *a, *b;

	ck_assert_int_eq(nx_shards_open(&a, f.output, &f.head, false, false, &err), 0);
	ck_assert_int_eq(nx_shards_open(&b, f.output, &f.head, true, true, &err), NX_ECONFLICT);
	ck_assert_ptr_nonnull(strstr(err.msg, "another run"));
	nx_shards_close(a);
	ck_assert_int_eq(nx_shards_open(&b, f.output, &f.head, true, false, &err), 0);
	nx_shards_close(b);
	fixture_put_file(f.dir, "run.h5", "x", 1);
	ck_assert_int_eq(nx_shards_open(&b, f.output, &f.head, false, false, &err), NX_ECONFLICT);
	ck_assert_ptr_nonnull(strstr(err.msg, "exists already"));
	ck_assert_int_eq(nx_shards_open(&b, "/proc/nowhere/x.h5", &f.head, false, false, &err),
	                 NX_EIO);
}
END_TEST

START_TEST(resuming_names_what_changed)
{
	struct nx_run *r;
	struct nx_shards *s = fixture_fill(&f, 1);

	nx_shards_close(s);
	snprintf(f.facts[3].value, sizeof(f.facts[3].value), "cccc");
	ck_assert_int_eq(nx_shards_open(&s, f.output, &f.head, true, false, &err), NX_ECONFLICT);
	ck_assert_ptr_nonnull(strstr(err.msg, "plugin.fast.sha256"));
	snprintf(f.facts[0].value, sizeof(f.facts[0].value), "dddd");
	ck_assert_int_eq(nx_shards_open(&s, f.output, &f.head, true, false, &err), NX_ECONFLICT);
	ck_assert_ptr_nonnull(strstr(err.msg, "the nexus binary"));
	ck_assert_msg(nx_shards_open(&s, f.output, &f.head, true, true, &err) == 0, "%s", err.msg);

	struct nx_run_head other = f.head;
	other.device.n_units = 64;
	ck_assert_int_eq(nx_shards_update(s, &other, false, &err), NX_ECONFLICT);
	ck_assert_ptr_nonnull(strstr(err.msg, "threads"));
	other.device.name[0] = '\0'; /* not known yet */
	ck_assert_int_eq(nx_shards_update(s, &other, false, &err), 0);
	ck_assert_int_eq(nx_run_merge(s, f.output, &f.head, f.cells, FIXTURE_CELLS, &err), 0);
	nx_shards_close(s);
	ck_assert_msg(nx_run_read(&r, f.output, &err) == 0, "%s", err.msg);
	const char *forced = nx_fact_get(r->head.facts, r->head.n_facts, "forced.binary_sha256");
	ck_assert(forced && strstr(forced, "aaaa") && strstr(forced, "dddd"));
	nx_run_destroy(r);
}
END_TEST

START_TEST(facts_of_this_process_are_collected)
{
	char *argv[] = {(char *)(uintptr_t) "nexus", (char *)(uintptr_t) "run",
	                (char *)(uintptr_t) "a b.yaml"};
	struct nx_experiment x = {
		.name = "quick", .text = "abc", .model = "/nowhere.gguf", .device = "cpu"};
	struct nx_fact *facts;
	size_t n;

	ck_assert_int_eq(nx_facts_collect(&facts, &n, &x, 3, argv, &err), 0);
	ck_assert_str_eq(nx_fact_get(facts, n, "argv"), "nexus run 'a b.yaml'");
	ck_assert_uint_eq(strlen(nx_fact_get(facts, n, "binary_sha256")), 64);
	ck_assert_str_eq(nx_fact_get(facts, n, "model_sha256"), "unknown");
	ck_assert_str_eq(nx_fact_get(facts, n, "config_sha256"),
	                 "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	ck_assert_ptr_nonnull(nx_fact_get(facts, n, "commit"));
	ck_assert_ptr_nonnull(nx_fact_get(facts, n, "cpu"));
	ck_assert_ptr_null(nx_fact_get(facts, n, "nothing"));
	free(facts);
}
END_TEST

/* ---- what others read -------------------------------------------------------------------------
 * */

START_TEST(the_schema_page_has_every_column)
{
	char path[1024], line[64], *page = calloc(1, 1 << 18);
	const char *source = getenv("NEXUS_SOURCE");

	snprintf(path, sizeof(path), "%s/results/README.md", source ? source : ".");
	FILE *in = fopen(path, "rb");
	ck_assert_msg(in && page, "%s cannot be opened; set NEXUS_SOURCE", path);
	ck_assert(fread(page, 1, (1 << 18) - 1, in) > 0);
	fclose(in);
	for (int t = 0; t < NX_TABLE_COUNT; t++) {
		const struct nx_h5_table *table = nx_schema_table((enum nx_table_id)t);
		for (size_t i = 0; i < table->n_columns; i++) {
			const char *name = table->columns[i].name;
			size_t n = strlen(name);
			if (t == NX_TABLE_SUMMARY && n > 3 &&
			    (!strcmp(name + n - 3, "_lo") || !strcmp(name + n - 3, "_hi")))
				continue; /* said once for all */
			snprintf(line, sizeof(line), "`%s`", name);
			ck_assert_msg(strstr(page, line), "results/README.md does not have %s",
			              line);
		}
	}
	free(page);
}
END_TEST

/* Runs a command; -1 when it cannot be tried. */
static int try_command(const char *command)
{
	int rc = system(command);
	return rc < 0 ? -1 : WEXITSTATUS(rc);
}

START_TEST(h5dump_and_pandas_read_it)
{
	char command[1400];
	const char *source = getenv("NEXUS_SOURCE"), *python = getenv("PYTHON");

	fixture_run(&f);
	if (try_command("command -v h5dump >/dev/null 2>&1") == 0) {
		snprintf(command, sizeof(command), "h5dump -H %s >/dev/null", f.output);
		ck_assert_int_eq(try_command(command), 0);
	} else {
		printf("skipped: h5dump is not installed\n");
	}
	python = python ? python : "python3";
	snprintf(command, sizeof(command), "%s -c 'import h5py, pandas' 2>/dev/null", python);
	if (try_command(command) != 0) {
		printf("skipped: %s with h5py and pandas is not there (set PYTHON= to one that has them)\n",
		       python);
		return;
	}
	snprintf(command, sizeof(command), "%s %s/harness/test/check_pandas.py %s", python,
	         source ? source : ".", f.output);
	ck_assert_int_eq(try_command(command), 0);
}
END_TEST

/* The rows of a table without its late columns, in place of the whole ones. */
static void take_late_columns(hid_t loc, const char *name, enum nx_table_id id)
{
	const struct nx_h5_table *t = nx_schema_table(id);
	struct nx_h5_column *old = calloc(t->n_columns, sizeof(*old));
	struct nx_h5_table before = *t;
	void *rows;
	size_t n, k = 0;
	ck_assert_ptr_nonnull(old);
	for (size_t i = 0; i < t->n_columns; i++)
		if (!t->columns[i].optional)
			old[k++] = t->columns[i];
	ck_assert_uint_lt(k, t->n_columns);
	before.columns = old;
	before.n_columns = k;
	ck_assert_msg(nx_h5_read(loc, name, t, &rows, &n, &err) == 0, "%s", err.msg);
	ck_assert(H5Ldelete(loc, name, H5P_DEFAULT) >= 0);
	ck_assert_msg(nx_h5_append(loc, name, &before, rows, n, &err) == 0, "%s", err.msg);
	free(rows);
	free(old);
}

START_TEST(files_of_the_schema_before_are_read)
{
	struct nx_run *r = NULL;
	int32_t version = 2;
	fixture_run(&f);
	hid_t file = H5Fopen(f.output, H5F_ACC_RDWR, H5P_DEFAULT);
	ck_assert(file >= 0);
	take_late_columns(file, "trials", NX_TABLE_TRIAL);
	take_late_columns(file, "summary", NX_TABLE_SUMMARY);
	ck_assert(H5Adelete(file, "schema_version") >= 0);
	ck_assert_int_eq(nx_h5_write_int(file, "schema_version", version, &err), 0);
	H5Fclose(file);
	ck_assert_msg(nx_run_read(&r, f.output, &err) == 0, "%s", err.msg);
	ck_assert_uint_eq(r->n_cells, FIXTURE_CELLS);
	ck_assert(r->cells[1].metrics[NX_METRIC_OUTPUT_THROUGHPUT].value > 100);
	ck_assert(isnan(r->cells[1].metrics[NX_METRIC_ENERGY_PER_TOKEN].value));
	ck_assert_int_eq(r->cells[1].device.throttle, -1);
	ck_assert(isnan(r->cells[1].device.temperature_c));
	ck_assert_ptr_null(r->cells[1].profiled);
	nx_run_destroy(r);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("record");
	TCase *tc = tcase_create("record");

	tcase_set_timeout(tc, 240);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, sha256_matches_the_nist_vectors);
	tcase_add_test(tc, text_is_cut_between_characters);
	tcase_add_test(tc, a_shard_comes_back_as_it_was);
	tcase_add_test(tc, a_run_comes_back_with_its_statistics);
	tcase_add_test(tc, trials_that_do_not_count_stay_in_the_file);
	tcase_add_test(tc, a_crash_loses_one_trial_at_most);
	tcase_add_test(tc, a_shard_damaged_before_the_merge_is_refused_by_name);
	tcase_add_test(tc, a_full_disk_leaves_nothing_half_written);
	tcase_add_test(tc, two_runs_do_not_share_an_output);
	tcase_add_test(tc, resuming_names_what_changed);
	tcase_add_test(tc, facts_of_this_process_are_collected);
	tcase_add_test(tc, files_of_the_schema_before_are_read);
	tcase_add_test(tc, the_schema_page_has_every_column);
	tcase_add_test(tc, h5dump_and_pandas_read_it);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
