/* SPDX-License-Identifier: Apache-2.0
 *
 * test_outside.c: what a stranger has: an installed copy, a scratch folder, and no way back to the source tree.
 *
 * Installs once under a temporary folder; each test then works in a scratch folder of its own with an environment
 * that holds nothing but the installed program and its pkg-config file.
 */
#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[256]; /* <root>/stage/opt/nexus is the installed copy, <root>/scratch the folder */
static char out[1 << 16];

/* Runs a line in the scratch folder with the stranger's environment; output of both kinds in out. */
static int sh(const char *fmt, ...)
{
	char line[2048], command[8192];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	const char *asan = getenv("ASAN_OPTIONS");
	if (!asan || strlen(asan) > 1024)
		asan = "";
	snprintf(
		command, sizeof(command),
		"cd '%s/scratch' && env -i PATH='%s/stage/opt/nexus/bin':/usr/local/bin:/usr/bin:/bin "
		"HOME='%s/scratch' PKG_CONFIG_PATH='%s/stage/opt/nexus/lib/pkgconfig' ASAN_OPTIONS='%s' "
		"NEXUS_MAX_OTHER_LOAD=1000 NEXUS_CALIBRATE=0 sh -c '%s' </dev/null 2>&1",
		root, root, root, root, asan, line);
	FILE *f = popen(command, "r");
	ck_assert_ptr_nonnull(f);
	size_t n = fread(out, 1, sizeof(out) - 1, f);
	out[n] = '\0';
	while (fgetc(f) != EOF)
		;
	int w = pclose(f);
	return WIFEXITED(w) ? WEXITSTATUS(w) : 128 + WTERMSIG(w);
}

#define RUN(...)                                                                                   \
	do {                                                                                       \
		int rc_ = sh(__VA_ARGS__);                                                         \
		ck_assert_msg(rc_ == 0, "status %d: %.3000s", rc_, out);                           \
	} while (0)

static void says(const char *text)
{
	/* Check takes messages of a few kB. */
	size_t n = strlen(out);
	ck_assert_msg(strstr(out, text) != NULL, "'%s' is not in: %s", text,
	              out + (n > 3000 ? n - 3000 : 0));
}

static void install(void)
{
	const char *build = getenv("NEXUS_BUILD"), *source = getenv("NEXUS_SOURCE");
	const char *tmp = getenv("TMPDIR");
	char command[8192];
	ck_assert_msg(build && source, "NEXUS_BUILD and NEXUS_SOURCE must be set");
	snprintf(root, sizeof(root), "%s/nexus-outside-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(root));
	/* -o all: what is tested is what was built, whatever flags it was built with. */
	snprintf(
		command, sizeof(command),
		"cd '%s' && mkdir '%s/scratch' && env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s -o all install "
		"BUILD='%s' PREFIX=/opt/nexus DESTDIR='%s/stage' >'%s/install.log' 2>&1",
		source, root, build, root, root);
	ck_assert_msg(system(command) == 0, "make install failed: %s/install.log", root);
}

static void uninstall(void)
{
	char command[1024];
	snprintf(command, sizeof(command), "rm -rf '%s'", root);
	ck_assert_int_eq(system(command), 0);
}

static void setup(void)
{
	RUN("rm -rf ./* ./.[!.]*");
}

START_TEST(an_installed_copy_works_in_an_empty_folder)
{
	RUN("pkg-config --cflags nexus");
	says("/include");
	RUN("nexus list");
	says("installed");
	says("prompt_lookup");
	RUN("nexus generate -m nano -p once -n 4");
	RUN("printf \"# q\\nmodel: nano\\nworkload: {prompts: workloads/stories.jsonl}\\nsweep: {seq_len: 16, output_len: 4}\\ntrials: 1\\nnum_requests: 1\\n\" >q.yaml");
	RUN("nexus run q.yaml -o q.h5 && nexus report q.h5 && nexus plot q.h5");
	RUN("test -s q.md && test -s q.html");
}
END_TEST

START_TEST(plugins_are_searched_in_the_documented_order)
{
	RUN("nexus new-technique mine --slot attention && make -s -C mine");
	RUN("mkdir given env && cp mine/mine.so given/ && cp mine/mine.so env/");
	RUN("cp mine/mine.so \"$(pkg-config --variable=techniquedir nexus)\"");
	RUN("nexus list mine");
	says("(installed)");
	RUN("NEXUS_TECHNIQUE_PATH=nowhere:env nexus list mine");
	says("env/mine.so ($NEXUS_TECHNIQUE_PATH)");
	RUN("NEXUS_TECHNIQUE_PATH=env nexus list mine --path given");
	says("given/mine.so (given)");
	RUN("NEXUS_TECHNIQUE_PATH=env nexus list --path given");
	says("hidden: env/mine.so: given/mine.so has the same name and was found first");
	RUN("rm \"$(pkg-config --variable=techniquedir nexus)\"/mine.so");
}
END_TEST

static const char *const SLOTS[] = {"schedule", "kv_layout", "kv_codec",  "prefix",
                                    "draft",    "weights",   "attention", "launch"};
#define N_SLOTS ((int)(sizeof(SLOTS) / sizeof(SLOTS[0])))

START_TEST(a_new_technique_builds_passes_its_test_and_runs)
{
	RUN("nexus new-technique mine --slot %s", SLOTS[_i]);
	says("mine");
	RUN("make -s -C mine test CFLAGS=\"-O1 -g -Werror\" SANITIZE=address,undefined NEXUS=none");
	says(" passed, 0 failed");
	RUN("make -s -C mine clean && make -s -C mine test CFLAGS=\"-O2 -Werror\"");
	says(" passed, 0 failed");
	says(SLOTS[_i]);
	RUN("cd mine && nexus run mine.yaml --set sweep.batch_size=2 --set sweep.output_len=6 "
	    "--set trials=1 --set threads=1 -o r.h5 && nexus report r.h5 --format md");
	ck_assert_msg(!strstr(out, "| mine | failed"), "%.3000s", out);
}
END_TEST

/* The fake host must find what it is there for: one mistake in each template. */
static const struct {
	const char *slot, *sed, *says;
} MISTAKES[] = {
	{"draft", "s/q->cap < s->num_tokens ? q->cap : s->num_tokens/s->num_tokens/",
         "the cap is 1"},
	{"draft", "s/.name = .mine./.name = \\\"Mine\\\"/", "the table has a name"},
	{"draft", "s/s->n.i. = 0;/s->n[i] = 1;/", "is 0 after reset"},
	{"schedule", "s/q->samples > places/false/", "no more start than there are places"},
	{"schedule", "s/, .rows = q->pending}/, .rows = 0}/", "something is granted"},
	{"kv_layout", "s/return whole > want->rows .*/return want->n_prompt;/",
         "a sequence that needs"},
	{"kv_codec", "s/+ kv->v_offset/+ 0/", "the largest error"},
	{"kv_codec", "s/off + 1 - n_anc : 0/off + 1 : 0/", "drafted rows of layer"},
	{"kv_codec", "s/^\t\tencode_row\\|^\t\t\tencode_row/(void)v; if (j->rows.n_rows < 9) &/",
         "does not\\|do not depend on how"},
	{"prefix", "s/alike(s, tokens, n - 1)/alike(s, tokens, n)/", "one token at least"},
	{"prefix", "s/^\trelease(s, 0);//", "blocks it holds"},
	{"weights", "s/y += load/y -= load/", "epilogue 1"},
	{"weights", "s/, .a = .a, /, .a = {0}, /", "epilogue 0"},
	{"launch", "s/(l->device_caps . NX_DEV_GRAPHS) != 0/true/", "no graphs on a device"},
	/* What was borrowed, by its address. */
	{"weights",
         "s/struct nx_linear a;/const struct nx_linear *a;/; s/, .a = .a, /, .a = a, /; s/j->a[.]/j->a->/g",
         "epilogue 0"},
};
#define N_MISTAKES ((int)(sizeof(MISTAKES) / sizeof(MISTAKES[0])))

START_TEST(the_fake_host_finds_mistakes)
{
	RUN("nexus new-technique mine --slot %s", MISTAKES[_i].slot);
	RUN("cp mine/mine.c was.c && sed -i \"%s\" mine/mine.c && ! cmp -s mine/mine.c was.c",
	    MISTAKES[_i].sed);
	int rc = sh("make -s -C mine test NEXUS=none 2>&1 | grep \"failed: \" | grep \"%s\"",
	            MISTAKES[_i].says);
	ck_assert_msg(rc == 0, "'%s' was not found", MISTAKES[_i].says);
}
END_TEST

START_TEST(a_bad_name_writes_nothing)
{
	static const struct {
		const char *args, *says;
	} bad[] = {{"Bad", "legal: up to 47"},        {"9x", "legal: up to 47"},
	           {"a-b", "legal: up to 47"},        {"../x", "legal: up to 47"},
	           {"kv_cache", "already"},           {"there", "is there already"},
	           {"x --slot drft", "did you mean"}, {"x --slot zzz", "--slot is"},
	           {"x --dir nowhere", "no folder"}};
	RUN("mkdir there && touch there/mine");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int rc = sh("nexus new-technique %s", bad[i].args);
		ck_assert_msg(rc == 2, "%s: status %d: %s", bad[i].args, rc, out);
		says(bad[i].says);
		ck_assert_ptr_eq(strchr(out, '\n'), strrchr(out, '\n'));
	}
	RUN("test \"$(ls -A)\" = there && test \"$(ls there)\" = mine");
	int rc = sh(
		"NEXUS_SHARE=/nowhere nexus new-technique fine >/dev/null && "
		"mkdir half && cp -r \"$(pkg-config --variable=sharedir nexus)\"/templates half/ && "
		"rm half/templates/README.md.in && NEXUS_SHARE=half nexus new-technique cut");
	ck_assert_int_eq(rc, 3);
	RUN("test \"$(ls -A | tr \"\\n\" \" \")\" = \"fine half there \"");
}
END_TEST

/* Real ones, as an outsider keeps them. */
static const struct {
	const char *folder, *name, *stack;
} OUTSIDE[] = {
	{"drafter", "bigram_drafter", "bigram_drafter: {num_tokens: 3}"},
	{"scheduler", "shortest_prompt", "shortest_prompt: {budget: 16}"},
	{"codec", "int8_kv", "int8_kv"},
};
#define N_OUTSIDE ((int)(sizeof(OUTSIDE) / sizeof(OUTSIDE[0])))

START_TEST(techniques_from_elsewhere_build_and_keep_their_word)
{
	const char *name = OUTSIDE[_i].name;
	char command[2048];
	snprintf(command, sizeof(command), "cp -r '%s/harness/test/outside/%s' '%s/scratch/its'",
	         getenv("NEXUS_SOURCE"), OUTSIDE[_i].folder, root);
	ck_assert_int_eq(system(command), 0);
	RUN("make -s -C its test CFLAGS=\"-O1 -g -Werror\" SANITIZE=address,undefined NEXUS=none");
	says(" passed, 0 failed");
	RUN("make -s -C its clean && make -s -C its test CFLAGS=\"-O2 -Werror\"");
	says(" passed, 0 failed");
	FILE *f;
	snprintf(command, sizeof(command), "%s/scratch/e.yaml", root);
	f = fopen(command, "w");
	ck_assert_ptr_nonnull(f);
	fprintf(f,
	        "# Does it keep its word?\nmodel: nano\ntechniques: its\nthreads: 1\ninvariant: %s\n"
	        "workload: {prompts: workloads/stories.jsonl, seed: 3}\n"
	        "sweep: {batch_size: 3, seq_len: 40, output_len: 24, stack: [baseline, mine]}\n"
	        "num_requests: 5\ntrials: 1\nstacks:\n  mine:\n    - %s\n",
	        strcmp(name, "int8_kv") ? "true" : "false", OUTSIDE[_i].stack);
	ck_assert_int_eq(fclose(f), 0);
	RUN("nexus run e.yaml -o e.h5 && nexus report e.h5 --format md");
	if (strcmp(name, "int8_kv")) /* it claims nothing, so the gate has nothing to hold it to */
		says("| mine | exact |");
	RUN("nexus list %s --path its", name);
	says(strcmp(name, "int8_kv") ? "the gate checks it" : "not claimed");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("outside");
	TCase *t = tcase_create("outside");
	tcase_add_unchecked_fixture(t, install, uninstall);
	tcase_add_checked_fixture(t, setup, NULL);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, an_installed_copy_works_in_an_empty_folder);
	tcase_add_test(t, plugins_are_searched_in_the_documented_order);
	tcase_add_loop_test(t, a_new_technique_builds_passes_its_test_and_runs, 0, N_SLOTS);
	tcase_add_loop_test(t, the_fake_host_finds_mistakes, 0, N_MISTAKES);
	tcase_add_test(t, a_bad_name_writes_nothing);
	tcase_add_loop_test(t, techniques_from_elsewhere_build_and_keep_their_word, 0, N_OUTSIDE);
	suite_add_tcase(s, t);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
