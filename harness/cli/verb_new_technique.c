/* SPDX-License-Identifier: Apache-2.0
 *
 * verb_new_technique.c: `nexus new-technique NAME`: a folder outside the tree that builds and passes its test against the
 * installed headers.
 *
 * Templates are files (share/nexus/templates, or harness/cli/templates of a checkout), so that what a newcomer gets
 * can be read and mended without a build. The folder is written under another name and renamed when whole.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"

#define TEMPLATE_MAX (64 << 10)

/* X(template, what it becomes): "%" stands for the technique's name, "@" for the slot's. */
#define FILES(X)                                                                                   \
	X("@.c", "%.c")                                                                            \
	X("test_@.c", "test_%.c")                                                                  \
	X("Makefile", "Makefile")                                                                  \
	X("README.md", "README.md")                                                                \
	X("experiment.yaml", "%.yaml")                                                             \
	X("gitignore", ".gitignore")

static const struct {
	const char *from, *to;
} files[] = {
#define X(from, to) {from, to},
	FILES(X)
#undef X
};
#define N_FILES (sizeof(files) / sizeof(files[0]))

struct names {
	const char *name, *slot;
	char templates[4096]; /* folder */
};

static bool find_templates(struct names *n)
{
	const char *env = getenv("NEXUS_SHARE");
	const struct {
		const char *base, *below;
	} places[] = {{env, "templates"},
	              {nx_exe_dir(), "../harness/cli/templates"},
	              {nx_exe_dir(), "../share/nexus/templates"}};
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		char probe[sizeof(n->templates) + 32];
		if (!places[i].base || !*places[i].base)
			continue;
		snprintf(n->templates, sizeof(n->templates), "%s/%s", places[i].base,
		         places[i].below);
		snprintf(probe, sizeof(probe), "%s/Makefile.in", n->templates);
		if (!access(probe, R_OK))
			return true;
	}
	return false;
}

/* "%.c" -> "my_draft.c" */
static void expand(char *buf, size_t size, const char *pattern, const struct names *n)
{
	size_t at = 0;
	for (; *pattern && at + 1 < size; pattern++) {
		if (*pattern == '%' || *pattern == '@')
			at += (size_t)snprintf(buf + at, size - at, "%s",
			                       *pattern == '%' ? n->name : n->slot);
		else
			buf[at++] = *pattern;
		if (at >= size)
			at = size - 1;
	}
	buf[at] = '\0';
}

/* Copies text to f with @NAME@ and @SLOT@ replaced. */
static void fill(FILE *f, const char *text, const struct names *n)
{
	while (*text) {
		const char *at = strchr(text, '@');
		fwrite(text, 1, at ? (size_t)(at - text) : strlen(text), f);
		if (!at)
			return;
		bool name = !strncmp(at, "@NAME@", 6), slot = !strncmp(at, "@SLOT@", 6);
		if (name || slot)
			fputs(name ? n->name : n->slot, f);
		else
			fputc('@', f);
		text = at + (name || slot ? 6 : 1);
	}
}

static int write_one(const struct names *n, const char *dir, size_t i, struct nx_err *err)
{
	char pattern[64], from[sizeof(n->templates) + 128], to[4400], base[128];
	char *text = calloc(1, TEMPLATE_MAX + 1);
	if (!text)
		return nx_fail(err, NX_ENOMEM, "out of memory");
	expand(pattern, sizeof(pattern), files[i].from, n);
	expand(base, sizeof(base), files[i].to, n);
	snprintf(from, sizeof(from), "%s/%s.in", n->templates, pattern);
	snprintf(to, sizeof(to), "%s/%s", dir, base);
	FILE *in = fopen(from, "r");
	size_t len = in ? fread(text, 1, TEMPLATE_MAX, in) : 0;
	if (!in || ferror(in) || !feof(in)) {
		if (in)
			fclose(in);
		free(text);
		return nx_fail(err, NX_EENV, "the template %s cannot be read", from);
	}
	fclose(in);
	text[len] = '\0';
	FILE *out = fopen(to, "wx");
	if (out)
		fill(out, text, n);
	free(text);
	bool ok = out && !ferror(out);
	if (out && fclose(out))
		ok = false;
	return ok ? 0 : nx_fail(err, NX_EIO, "%s cannot be written: %s", to, strerror(errno));
}

static void remove_all(const struct names *n, const char *dir)
{
	char path[4400], base[128];
	for (size_t i = 0; i < N_FILES; i++) {
		expand(base, sizeof(base), files[i].to, n);
		snprintf(path, sizeof(path), "%s/%s", dir, base);
		unlink(path);
	}
	rmdir(dir);
}

static int write_all(const struct names *n, const char *parent, const char *target,
                     struct nx_err *err)
{
	char dir[4200];
	snprintf(dir, sizeof(dir), "%s/.%s-XXXXXX", parent, n->name);
	if (!mkdtemp(dir))
		return nx_fail(err, NX_EIO, "nothing can be written in %s: %s", parent,
		               strerror(errno));
	int rc = 0;
	for (size_t i = 0; i < N_FILES && !rc; i++)
		rc = write_one(n, dir, i, err);
	mode_t mask = umask(0);
	umask(mask);
	if (!rc && (chmod(dir, 0777 & ~mask) || rename(dir, target)))
		rc = nx_fail(err, NX_EIO, "%s cannot be made: %s", target, strerror(errno));
	if (rc)
		remove_all(n, dir);
	return rc;
}

/* 0 when the name may be used. */
static int check_name(const char *name, struct nx_err *err)
{
	size_t n = strlen(name);
	if (n == 0 || n >= 48 || name[0] < 'a' || name[0] > 'z' ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != n)
		return nx_fail(
			err, NX_EINVAL,
			"the name is '%.60s'; legal: up to 47 of a to z, 0 to 9 and _, a letter first",
			name);
	struct nx_registry *reg = NULL;
	int rc = nx_registry_open(&reg, NULL, 0, nx_exe_dir(), err);
	if (rc)
		return rc;
	const struct nx_plugin *p = nx_registry_find(reg, name, NULL);
	if (p)
		rc = nx_fail(
			err, NX_EINVAL,
			"there is a technique '%s' already (%s), and the first found would hide the "
			"other; take another name",
			name, p->path);
	nx_registry_close(reg);
	return rc;
}

/* The slots that have a template. */
static int check_slot(const struct names *n, struct nx_err *err)
{
	const char *slots[NX_SLOT_COUNT];
	char path[sizeof(n->templates) + 64], list[256];
	size_t n_slots = 0;
	bool known = false;
	for (int s = 0; s < NX_SLOT_COUNT; s++) {
		const char *slot = nx_slot_name((enum nx_slot)s);
		snprintf(path, sizeof(path), "%s/%s.c.in", n->templates, slot);
		if (access(path, R_OK))
			continue;
		slots[n_slots++] = slot;
		known |= !strcmp(slot, n->slot);
	}
	if (known)
		return 0;
	const char *near = nx_near_name(n->slot, slots, n_slots);
	return nx_fail(err, NX_EINVAL, "--slot is '%.40s'; legal: %s%s%s%s", n->slot,
	               nx_list_text(list, sizeof(list), slots, n_slots),
	               near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static int make(const char *name, const char *slot, const char *dir, struct nx_err *err)
{
	struct names n = {.name = name, .slot = slot};
	char target[4100];
	struct stat st;
	int rc = check_name(name, err);
	if (rc)
		return rc;
	if (!find_templates(&n))
		return nx_fail(
			err, NX_EENV,
			"the templates are neither in $NEXUS_SHARE/templates nor in "
			"%s/../share/nexus/templates; set NEXUS_SHARE to the folder that holds templates/",
			nx_exe_dir());
	rc = check_slot(&n, err);
	if (rc)
		return rc;
	if (stat(dir, &st) || !S_ISDIR(st.st_mode))
		return nx_fail(err, NX_EINVAL, "--dir is '%.200s', which is no folder", dir);
	if ((size_t)snprintf(target, sizeof(target), "%s/%s", dir, name) >= sizeof(target))
		return nx_fail(err, NX_EINVAL, "--dir is too long");
	if (!lstat(target, &st))
		return nx_fail(err, NX_EINVAL,
		               "%s is there already; remove it or take another name", target);
	rc = write_all(&n, dir, target, err);
	if (rc)
		return rc;
	printf("%s\n", target);
	char headers[4200];
	snprintf(headers, sizeof(headers), "%s/../include/nexus/technique.h", nx_exe_dir());
	if (access(headers, R_OK) == 0)
		nx_say("%s: a technique of the %s slot; next: cd %s && make test", name, slot,
		       target);
	else
		nx_say("%s: a technique of the %s slot; next, as this nexus is not installed: make install "
		       "PREFIX=$HOME/.local in its source tree, then cd %s && make test "
		       "NEXUS_INCLUDE=$HOME/.local/include",
		       name, slot, target);
	return 0;
}

int nx_verb_new_technique(int argc, char **argv)
{
	const char *slot = "draft", *dir = ".";
	struct nx_strings args;
	const struct nx_opt opts[] = {
		{"slot", NX_OPT_TEXT, &slot, "SLOT",
	         "schedule, kv_layout, kv_codec, prefix, draft, weights, attention or launch (draft)"},
		{"dir", NX_OPT_TEXT, &dir, "DIR", "make the folder there (.)"},
		{0},
	};
	const struct nx_opts o = {
		.usage = "new-technique NAME [options]",
		.summary =
			"Writes a folder NAME with a small technique that works: its source, a test that needs no\n"
			"Nexus beside the installed headers, a Makefile, an experiment. Comments that begin with\n"
			"CHANGE HERE say where yours goes. Prints the folder's path.",
		.example = "  nexus new-technique my_drafter --slot draft\n"
			   "  cd my_drafter && make test && make run",
		.opts = opts,
		.min_args = 1,
		.max_args = 1,
	};
	struct nx_err err = {0};
	int status = nx_opts_parse(&o, argc, argv, &args);
	if (status < 0)
		status = make(args.v[0], slot, dir, &err) ? nx_say_err(&err) : NX_EXIT_DONE;
	nx_opts_release(&o, &args);
	return status;
}
