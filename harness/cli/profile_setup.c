/* SPDX-License-Identifier: Apache-2.0
 *
 * profile_setup.c: see profile_setup.h.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/profile_setup.h"
#include "measure/model_path.h"

#define STORIES "experiments/workloads/stories.jsonl"
#define PER_SLOT_MAX 1000

/* Requests a place of the batch needs for that many decode steps: the first token comes from the prompt. */
static int64_t per_slot(const struct nx_profile_config *c)
{
	int64_t out = c->output_len ? c->output_len : c->steps + 1;
	return (c->steps + out - 2) / (out - 1);
}

static int in_range(const char *option, int64_t v, int64_t min, int64_t max, struct nx_err *err)
{
	return v >= min && v <= max
	               ? 0
	               : nx_fail(err, NX_EINVAL, "--%s is %lld; legal are %lld to %lld", option,
	                         (long long)v, (long long)min, (long long)max);
}

static int check_choice(const char *option, const char *v, const char *const *names, size_t n,
                        struct nx_err *err)
{
	char list[128], quoted[96];
	for (size_t i = 0; i < n; i++)
		if (!strcmp(v, names[i]))
			return 0;
	const char *near = nx_near_name(v, names, n);
	return nx_fail(err, NX_EINVAL, "--%s is %s; legal are %s%s%s%s", option,
	               nx_quote(quoted, sizeof(quoted), v),
	               nx_list_text(list, sizeof(list), names, n), near ? "; did you mean " : "",
	               near ? near : "", near ? "?" : "");
}

static int check(const struct nx_profile_config *c, struct nx_err *err)
{
	static const char *const dtypes[] = {"bf16", "f32"}, *const bases[] = {"tuned", "plain"};
	uint64_t bytes;
	int rc;
	if (!c->model)
		return nx_fail(
			err, NX_EINVAL,
			"--model is missing; it takes a name such as nano, a GGUF file or a Hugging Face directory");
	if ((rc = in_range("batch-size", c->batch_size, 1, 4096, err)) ||
	    (rc = in_range("seq-len", c->seq_len, 1, 1 << 20, err)) ||
	    (rc = in_range("steps", c->steps, 1, 1 << 20, err)) ||
	    (c->output_len && (rc = in_range("output-len", c->output_len, 2, 1 << 20, err))) ||
	    (rc = in_range("threads", c->threads, 0, 4096, err)) ||
	    (rc = check_choice("dtype", c->dtype, dtypes, 2, err)) ||
	    (rc = check_choice("base", c->base, bases, 2, err)))
		return rc;
	if (c->kv_memory && nx_parse_size(c->kv_memory, &bytes))
		return nx_fail(err, NX_EINVAL, "--kv-memory is '%s'; legal: " NX_SIZE_LEGAL,
		               c->kv_memory);
	if (per_slot(c) > PER_SLOT_MAX)
		return nx_fail(
			err, NX_EINVAL,
			"--steps %lld takes %lld requests of --output-len %lld one after another; legal are up to %d",
			(long long)c->steps, (long long)per_slot(c), (long long)c->output_len,
			PER_SLOT_MAX);
	return 0;
}

/* A file given on the command line, as an absolute path: the experiment lies in another folder. */
static int absolute(const char *what, const char *path, char out[PATH_MAX], struct nx_err *err)
{
	char quoted[96];
	if (realpath(path, out) && nx_model_exists(out) && !access(out, R_OK))
		return 0;
	return nx_fail(err, NX_EINVAL, "%s %s cannot be read%s%s", what,
	               nx_quote(quoted, sizeof(quoted), path), errno ? ": " : "",
	               errno ? strerror(errno) : "; it is no file");
}

static int find_prompts(const struct nx_profile_config *c, char out[PATH_MAX], struct nx_err *err)
{
	char path[PATH_MAX];
	errno = 0;
	if (c->prompts && !strcmp(c->prompts, "random")) {
		snprintf(out, PATH_MAX, "%s", c->prompts);
		return 0;
	}
	if (c->prompts)
		return absolute("--prompts", c->prompts, out, err);
	const char *places[] = {"", "/../", "/../share/nexus/"};
	for (int i = 0; i < 3; i++) {
		int n = snprintf(path, sizeof(path), "%s%s" STORIES, i ? nx_exe_dir() : "",
		                 places[i]);
		if (n > 0 && n < (int)sizeof(path) && realpath(path, out) &&
		    nx_file_is_regular(out))
			return 0;
	}
	return nx_fail(
		err, NX_EENV,
		"the workload " STORIES
		" is not found from here or beside the program; give one with --prompts FILE.jsonl");
}

/* FILE[:NAME] into an absolute path and the name, which points into spec. */
static int split_stack(const char *spec, char file[PATH_MAX], const char **name, struct nx_err *err)
{
	char path[PATH_MAX];
	const char *colon = strrchr(spec, ':');
	*name = NULL;
	errno = 0;
	if (!nx_file_is_regular(spec) && colon && colon[1] &&
	    (size_t)(colon - spec) < sizeof(path)) {
		snprintf(path, sizeof(path), "%.*s", (int)(colon - spec), spec);
		*name = colon + 1;
		return absolute("--stack: the file", path, file, err);
	}
	return absolute("--stack: the file", spec, file, err);
}

static void put_key(struct nx_text *t, const char *key, const char *value)
{
	nx_text_printf(t, "%s: ", key);
	nx_text_json(t, value); /* which is YAML, too */
	nx_text_put(t, "\n");
}

static int write_file(struct nx_profile_setup *s, const struct nx_profile_config *c,
                      const char *stacks, struct nx_err *err)
{
	char model[PATH_MAX], prompts[PATH_MAX], counters[PATH_MAX];
	bool word = !strcmp(c->counters, "default") || !strcmp(c->counters, "off");
	const char *tmp = getenv("TMPDIR");
	struct nx_text t;
	int rc = find_prompts(c, prompts, err);
	errno = 0;
	if (!rc && !nx_model_is_name(c->model))
		rc = absolute("the model file", c->model, model, err);
	else if (!rc)
		snprintf(model, sizeof(model), "%s", c->model);
	errno = 0;
	if (!rc && !word)
		rc = absolute("--counters: the file", c->counters, counters, err);
	if (rc)
		return rc;
	snprintf(s->dir, sizeof(s->dir), "%s/nexus-profile-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	if (!mkdtemp(s->dir)) {
		rc = nx_fail(err, NX_EENV, "no temporary folder %.200s can be made: %s; set TMPDIR",
		             s->dir, strerror(errno));
		s->dir[0] = '\0';
		return rc;
	}
	snprintf(s->path, sizeof(s->path), "%s/profile.yaml", s->dir);
	nx_text_init(&t);
	nx_text_put(&t, "# What bounds this load on this device?\n");
	put_key(&t, "model", model);
	put_key(&t, "device", c->device);
	put_key(&t, "base", c->base);
	put_key(&t, "dtype", c->dtype);
	put_key(&t, "counters", word ? c->counters : counters);
	nx_text_printf(&t, "threads: %lld\n", (long long)c->threads);
	if (c->kv_memory)
		put_key(&t, "kv_memory", c->kv_memory);
	nx_text_put(&t, "workload: {prompts: ");
	nx_text_json(&t, prompts);
	nx_text_printf(&t,
	               "}\nsweep:\n  batch_size: %lld\n  seq_len: %lld\n  output_len: %lld\n"
	               "num_requests: {per_slot: %lld}\ntrials: 1\ngate: false\n",
	               (long long)c->batch_size, (long long)c->seq_len,
	               (long long)(c->output_len ? c->output_len : c->steps + 1),
	               (long long)per_slot(c));
	if (stacks)
		put_key(&t, "include", stacks);
	rc = nx_text_save(&t, s->path, err);
	nx_text_release(&t);
	return rc;
}

/* Does a stack of the sweep go by this name, or was it multiplied out from one that does? */
static bool goes_by(const char *stack, const char *name)
{
	size_t n = strlen(name);
	return !strncmp(stack, name, n) && (!stack[n] || stack[n] == '[');
}

/* sweep.stack: what --stack names, all of its file without a name, or the base alone. */
static int choose(struct nx_profile_setup *s, const struct nx_profile_config *c, const char *name,
                  struct nx_err *err)
{
	struct nx_text t;
	const char *names[256];
	size_t n = 0, found = 0;
	char list[256], quoted[96];
	nx_text_init(&t);
	nx_text_put(&t, "sweep.stack=[");
	for (size_t i = 0; i < s->x->n_stacks; i++) {
		const struct nx_named_stack *k = &s->x->stacks[i];
		if (n < sizeof(names) / sizeof(names[0]))
			names[n++] = k->name;
		if (c->stack && name ? !goes_by(k->name, name) : k->base_only != !c->stack)
			continue;
		nx_text_put(&t, found++ ? ", " : "");
		nx_text_json(&t, k->name);
	}
	nx_text_put(&t, "]");
	int rc = 0;
	if (!found && name) {
		const char *near = nx_near_name(name, names, n);
		rc = nx_fail(err, NX_EINVAL, "--stack %.150s has no stack %s; there are %s%s%s%s",
		             c->stack, nx_quote(quoted, sizeof(quoted), name),
		             nx_list_text(list, sizeof(list), names, n),
		             near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
	} else if (!found) {
		rc = nx_fail(err, NX_EINVAL,
		             "--stack %.200s has no stacks; it takes a file with `stacks:`",
		             c->stack);
	} else if (t.failed || !(s->set = strdup(t.s))) {
		rc = nx_fail(err, NX_ENOMEM, "no memory for %zu stacks", found);
	}
	nx_text_release(&t);
	return rc;
}

/* The file is ours and gone when its place is read: what it found stands alone. */
static int load(struct nx_profile_setup *s, const char *const *sets, size_t n, struct nx_err *err)
{
	struct nx_err why = {0};
	size_t len = strlen(s->path);
	int rc = nx_experiment_load(&s->x, s->path, sets, n, nx_exe_dir(), &why);
	const char *msg = why.msg;
	if (rc && !strncmp(msg, s->path, len) && msg[len] == ':') {
		const char *blank = strchr(msg + len, ' ');
		msg = blank ? blank + 1 : msg;
		return nx_fail(err, rc, "the options make no experiment: %s", msg);
	}
	return rc ? nx_fail(err, rc, "%s", msg) : 0;
}

int nx_profile_setup(struct nx_profile_setup *s, const struct nx_profile_config *c,
                     struct nx_err *err)
{
	char file[PATH_MAX];
	const char *name = NULL;
	int rc = check(c, err);
	if (!rc && c->stack)
		rc = split_stack(c->stack, file, &name, err);
	if (!rc)
		rc = write_file(s, c, c->stack ? file : NULL, err);
	if (!rc)
		rc = load(s, NULL, 0, err);
	if (!rc)
		rc = choose(s, c, name, err);
	if (!rc) {
		const char *set = s->set;
		nx_experiment_destroy(s->x);
		s->x = NULL;
		rc = load(s, &set, 1, err);
	}
	return rc;
}

void nx_profile_setup_release(struct nx_profile_setup *s)
{
	nx_experiment_destroy(s->x);
	free(s->set);
	if (s->path[0])
		unlink(s->path);
	if (s->dir[0])
		rmdir(s->dir);
	*s = (struct nx_profile_setup){0};
}
