/* SPDX-License-Identifier: Apache-2.0 */
/* Provenance: which program, plugins, model, workload and machine made a run. See run.h. */
#include <hdf5.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "measure/system.h"
#include "model/hf.h"
#include "model/preset.h"
#include "measure/trace.h"
#include "record/schema.h"

#ifdef NX_HAVE_DNNL
#include <oneapi/dnnl/dnnl_version.h>
#endif

#ifndef NX_VERSION
#define NX_VERSION "unknown"
#endif
#ifndef NX_COMMIT
#define NX_COMMIT "unknown"
#endif
#ifndef NX_DIRTY
#define NX_DIRTY "unknown"
#endif
#ifndef NX_CFLAGS
#define NX_CFLAGS "unknown"
#endif

struct facts {
	struct nx_fact *f;
	size_t n, cap;
	bool failed; /* out of memory; said once at the end */
};

static void add(struct facts *s, const char *key, const char *value)
{
	if (s->n == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 64;
		struct nx_fact *f = realloc(s->f, cap * sizeof(*f));
		s->failed |= !f;
		if (!f)
			return;
		s->f = f;
		s->cap = cap;
	}
	nx_copy_text(s->f[s->n].key, sizeof(s->f->key), key);
	nx_copy_text(s->f[s->n].value, sizeof(s->f->value), value);
	s->n++;
}

static void add_hash(struct facts *s, const char *key, const char *path)
{
	char hex[65];
	add(s, key, nx_sha256_file(path, hex, NULL) ? "unknown" : hex);
}

const char *nx_fact_get(const struct nx_fact *f, size_t n, const char *key)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(f[i].key, key) == 0)
			return f[i].value;
	return NULL;
}

/* A preset is its name and the program; a directory is all files that fix what the model computes. */
static void add_model_hash(struct facts *s, const char *path)
{
	char hex[65], line[PATH_MAX + 80];
	struct nx_hf *h = NULL;
	if (nx_preset_find(path)) {
		add(s, "model_sha256", "none: random weights of a shape preset");
		return;
	}
	if (!nx_hf_is_dir(path)) {
		add_hash(s, "model_sha256", path);
		return;
	}
	size_t n = 0, cap = 0;
	char *text = NULL;
	bool ok = !nx_hf_open(&h, path, NULL);
	for (size_t i = 0; ok && i < nx_hf_n_files(h); i++) {
		ok = !nx_sha256_file(nx_hf_file(h, i), hex, NULL);
		if (!ok)
			break;
		int k = snprintf(line, sizeof(line), "%s  %s\n", hex,
		                 nx_path_base(nx_hf_file(h, i)));
		if (n + (size_t)k >= cap) {
			char *more = realloc(text, cap = 2 * cap + sizeof(line));
			ok = ok && more;
			text = more ? more : text;
		}
		if (ok) {
			memcpy(text + n, line, (size_t)k);
			n += (size_t)k;
		}
	}
	if (ok)
		nx_sha256(text, n, hex);
	add(s, "model_sha256", ok ? hex : "unknown");
	free(text);
	nx_hf_close(h);
}

static void add_program(struct facts *s)
{
	unsigned major = 0, minor = 0, release = 0;
	char text[64];

	add(s, "version", NX_VERSION);
	add(s, "commit", NX_COMMIT);
	add(s, "dirty", NX_DIRTY);
	add(s, "compiler", __VERSION__);
	add(s, "cflags", NX_CFLAGS);
	add_hash(s, "binary_sha256", "/proc/self/exe");
	H5get_libversion(&major, &minor, &release);
	snprintf(text, sizeof(text), "%u.%u.%u", major, minor, release);
	add(s, "hdf5", text);
#ifdef DNNL_VERSION_MAJOR
	snprintf(text, sizeof(text), "%d.%d.%d", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR,
	         DNNL_VERSION_PATCH);
	add(s, "onednn", text);
#endif
}

static void add_call(struct facts *s, int argc, char **argv)
{
	char line[sizeof(s->f->value)] = "", when[32];
	size_t n = 0;
	time_t now = time(NULL);
	struct tm utc;

	if (gmtime_r(&now, &utc) && strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &utc))
		add(s, "started", when);
	for (int i = 0; i < argc && n < sizeof(line); i++) {
		bool plain = argv[i][0] && !strpbrk(argv[i], " \t\n'\"\\$*?&;|<>()");
		int k = snprintf(line + n, sizeof(line) - n, "%s%s%s%s", i ? " " : "",
		                 plain ? "" : "'", argv[i], plain ? "" : "'");
		n += k > 0 ? (size_t)k : 0;
	}
	if (n >= sizeof(line))
		memcpy(line + sizeof(line) - 5, " ...", 5);
	add(s, "argv", line);
}

/* The backend that nx_device_open will load: $NEXUS_BACKEND_PATH, then beside the program. */
static void add_backend(struct facts *s, const char *device)
{
	char exe[PATH_MAX], path[PATH_MAX + 96];
	const char *env = getenv("NEXUS_BACKEND_PATH"),
		   *dirs[] = {"backends", "../lib/nexus/backends"};
	int kind = (int)strcspn(device, ":");
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	exe[n > 0 ? n : 0] = '\0';
	if (kind > 31)
		return;
	if (env && *env) {
		snprintf(path, sizeof(path), "%.*s/%.*s.so", PATH_MAX, env, kind, device);
		if (access(path, R_OK) == 0) {
			add_hash(s, "backend_sha256", path);
			return;
		}
	}
	const char *dir = dirname(exe);
	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++) {
		snprintf(path, sizeof(path), "%s/%s/%.*s.so", dir, dirs[i], kind, device);
		if (access(path, R_OK) == 0) {
			add_hash(s, "backend_sha256", path);
			return;
		}
	}
	add(s, "backend_sha256", "unknown");
}

/* Every plugin that a stack of the sweep uses, once. */
static void add_plugins(struct facts *s, const struct nx_experiment *x)
{
	for (size_t i = 0; i < x->n_stacks; i++) {
		const struct nx_stack *stack = &x->stacks[i].stack;
		for (int32_t k = 0; k < stack->n_layers; k++) {
			const struct nx_plugin *p = stack->layers[k].plugin;
			char key[48];
			if (!p || !p->technique)
				continue;
			snprintf(key, sizeof(key), "plugin.%.28s.sha256", p->technique->name);
			if (nx_fact_get(s->f, s->n, key))
				continue;
			if (p->path)
				add_hash(s, key, p->path);
			else
				add(s, key, "built in");
			snprintf(key, sizeof(key), "plugin.%.28s.version", p->technique->name);
			add(s, key, p->technique->version ? p->technique->version : "unknown");
		}
	}
}

int nx_facts_collect(struct nx_fact **out, size_t *n, const struct nx_experiment *x, int argc,
                     char **argv, struct nx_err *err)
{
	struct facts s = {0};
	char text[sizeof(s.f->value)];

	add_call(&s, argc, argv);
	add_program(&s);
	if (x) {
		add(&s, "experiment", x->path ? x->path : "");
		add(&s, "model", x->model ? x->model : "");
		add(&s, "device", x->device ? x->device : "");
		add(&s, "dtype", x->dtype == NX_F32 ? "f32" : "bf16");
		add(&s, "base", x->base ? x->base : "");
		snprintf(text, sizeof(text), x->threads ? "%d" : "all", x->threads);
		add(&s, "threads", text);
		snprintf(text, sizeof(text), "%llu", (unsigned long long)x->workload.seed);
		add(&s, "seed", text);
		if (x->model)
			add_model_hash(&s, x->model);
		add(&s, "workload", x->workload.prompts ? x->workload.prompts : "random");
		if (x->workload.prompts)
			add_hash(&s, "workload_sha256", x->workload.prompts);
		if (x->workload.trace) {
			add(&s, "trace", x->workload.trace->path);
			add_hash(&s, "trace_sha256", x->workload.trace->path);
		}
		nx_sha256(x->text ? x->text : "", x->text ? strlen(x->text) : 0, text);
		add(&s, "config_sha256", text);
		if (x->device)
			add_backend(&s, x->device);
		add_plugins(&s, x);
	}
	for (int i = 0; i < NX_SYSTEM_COUNT; i++)
		add(&s, nx_system_key((enum nx_system_fact)i),
		    nx_system_fact((enum nx_system_fact)i, text, sizeof(text)));
	if (s.failed) {
		free(s.f);
		return nx_fail(err, NX_ENOMEM, "out of memory for the provenance of the run");
	}
	*out = s.f;
	*n = s.n;
	return 0;
}
