/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of shards: lock, head, refusals, resume. See run.h.
 *
 *     <output>.parts/lock            held by flock while a run writes; see lock.c
 *     <output>.parts/head.h5         what nx_head_write writes
 *     <output>.parts/<cell>-r<round>.h5
 *     <output>.parts/.tmp-*          cut short; removed at the next open
 *     <output>.parts/<x>.damaged     a shard that cannot be read, set aside; its trial runs again
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "record/schema.h"
#include "record/shards.h"

/* X(fact, what to call it): a change of any of these makes old and new trials incomparable. */
#define SAME_FACTS(X)                                                                              \
	X("config_sha256", "the experiment")                                                       \
	X("binary_sha256", "the nexus binary")                                                     \
	X("backend_sha256", "the device's backend")                                                \
	X("model_sha256", "the model file")                                                        \
	X("workload_sha256", "the workload file")                                                  \
	X("trace_sha256", "the trace")                                                             \
	X("host", "the machine")                                                                   \
	X("cpu", "the processor")                                                                  \
	X("kernel", "the kernel")                                                                  \
	X("driver", "the driver")

static bool is_shard(const char *name)
{
	int i = 0;

	while (i < 16 && isxdigit((unsigned char)name[i]))
		i++;
	if (i != 16 || strncmp(name + 16, "-r", 2) != 0 || !isdigit((unsigned char)name[18]))
		return false;
	const char *end = name + 18;
	while (isdigit((unsigned char)*end))
		end++;
	return strcmp(end, ".h5") == 0 && end - name < 28;
}

/* Calls fn for every entry; stops at its first non-zero. */
static int each_entry(struct nx_shards *s,
                      int (*fn)(struct nx_shards *, const char *name, struct nx_err *),
                      struct nx_err *err)
{
	DIR *d = opendir(s->dir);
	int rc = 0;

	if (!d)
		return nx_fail(err, NX_EIO, "%s: cannot be listed (%s)", s->dir, strerror(errno));
	for (struct dirent *e; !rc && (e = readdir(d));)
		rc = fn(s, e->d_name, err);
	closedir(d);
	return rc;
}

static int tidy(struct nx_shards *s, const char *name, struct nx_err *err)
{
	char path[1400], aside[1500];
	struct nx_trial t;
	struct nx_err why;

	snprintf(path, sizeof(path), "%s/%s", s->dir, name);
	if (strncmp(name, ".tmp-", 5) == 0) {
		unlink(path);
		return 0;
	}
	if (!is_shard(name))
		return 0;
	int rc = nx_shard_read_file(path, &t, &why);
	if (rc == 0) {
		nx_trial_release(&t);
		return 0;
	}
	if (rc != NX_EFORMAT) /* no fault of the shard's */
		return nx_fail(err, rc, "%s", why.msg);
	snprintf(aside, sizeof(aside), "%s.damaged", path);
	if (rename(path, aside) == 0) {
		if (s->n_damaged++ == 0)
			nx_copy_text(s->first_damaged, sizeof(s->first_damaged), name);
		snprintf(s->note, sizeof(s->note),
		         "%s: %d damaged shard%s set aside (%s%s); %s again", s->dir, s->n_damaged,
		         s->n_damaged == 1 ? "" : "s", s->first_damaged,
		         s->n_damaged == 1 ? "" : ", ...",
		         s->n_damaged == 1 ? "its trial runs" : "their trials run");
	}
	return 0;
}

static int count(struct nx_shards *s, const char *name, struct nx_err *err)
{
	(void)err;
	s->n_counted += is_shard(name);
	return 0;
}

size_t nx_shards_count(const struct nx_shards *s)
{
	struct nx_shards scan = {.n_counted = 0};

	memcpy(scan.dir, s->dir, sizeof(scan.dir));
	return each_entry(&scan, count, NULL) ? 0 : scan.n_counted;
}

/* ---- refusals ---------------------------------------------------------------------------------
 * */

static int add_fact(struct nx_shards *s, const char *key, const char *value, struct nx_err *err)
{
	struct nx_fact *f = realloc(s->forced, (s->n_forced + 1) * sizeof(*f));

	if (!f)
		return nx_fail(err, NX_ENOMEM, "out of memory for a fact");
	s->forced = f;
	memset(&f[s->n_forced], 0, sizeof(*f));
	nx_copy_text(f[s->n_forced].key, sizeof(f->key), key);
	nx_copy_text(f[s->n_forced++].value, sizeof(f->value), value);
	return 0;
}

/* One field, then and now. Unknown on either side says nothing. */
static int same(struct nx_shards *s, const char *key, const char *what, const char *then,
                const char *now, bool force, struct nx_err *err)
{
	char text[200];

	if (!then || !now || !*then || !*now || !strcmp(then, now) || !strcmp(then, "unknown") ||
	    !strcmp(now, "unknown"))
		return 0;
	snprintf(text, sizeof(text), "%s (%s) was %.64s and is now %.64s", what, key, then, now);
	if (!force)
		return nx_fail(
			err, NX_ECONFLICT,
			"%s: %s; run with --force to mix both, or choose another -o, or remove the "
			"directory",
			s->dir, text);
	char forced[48];
	snprintf(forced, sizeof(forced), "forced.%.40s", key);
	return add_fact(s, forced, text, err);
}

static int same_run(struct nx_shards *s, const struct nx_run_head *then,
                    const struct nx_run_head *now, bool force, struct nx_err *err)
{
	static const struct {
		const char *key, *what;
	} fields[] = {
#define X(key, what) {key, what},
		SAME_FACTS(X)
#undef X
	};
	char a[16], b[16];
	int rc = 0;

	for (size_t i = 0; !rc && i < sizeof(fields) / sizeof(*fields); i++)
		rc = same(s, fields[i].key, fields[i].what,
		          nx_fact_get(then->facts, then->n_facts, fields[i].key),
		          nx_fact_get(now->facts, now->n_facts, fields[i].key), force, err);
	for (size_t i = 0; !rc && i < then->n_facts; i++)
		if (strncmp(then->facts[i].key, "plugin.", 7) == 0)
			rc = same(s, then->facts[i].key, "a plugin", then->facts[i].value,
			          nx_fact_get(now->facts, now->n_facts, then->facts[i].key), force,
			          err);
	if (!rc)
		rc = same(s, "name", "the experiment's name", then->name, now->name, force, err);
	if (rc || !then->device.name[0] || !now->device.name[0])
		return rc;
	snprintf(a, sizeof(a), "%d", then->device.n_units);
	snprintf(b, sizeof(b), "%d", now->device.n_units);
	if (!(rc = same(s, "device", "the device", then->device.name, now->device.name, force,
	                err)) &&
	    !(rc = same(s, "isa", "the kernel path", then->device.isa, now->device.isa, force,
	                err)))
		rc = same(s, "n_units", "the number of threads or SMs", a, b, force, err);
	return rc;
}

/* ---- head.h5 ----------------------------------------------------------------------------------
 * */

/* head with the facts of forced changes behind its own; release facts with free(). */
static int with_forced(const struct nx_shards *s, const struct nx_run_head *head,
                       struct nx_run_head *out, struct nx_err *err)
{
	*out = *head;
	out->facts = calloc(head->n_facts + s->n_forced + 1, sizeof(*out->facts));
	if (!out->facts)
		return nx_fail(err, NX_ENOMEM, "out of memory for the facts of the run");
	for (size_t i = 0; i < head->n_facts + s->n_forced; i++)
		out->facts[i] = i < head->n_facts ? head->facts[i] : s->forced[i - head->n_facts];
	out->n_facts = head->n_facts + s->n_forced;
	return 0;
}

int nx_shards_head(const struct nx_shards *s, const struct nx_run_head *head,
                   struct nx_run_head *out, struct nx_err *err)
{
	return with_forced(s, head, out, err);
}

static int read_head(const char *path, struct nx_run_head *head, struct nx_err *err)
{
	struct nx_err inner = {0};
	hid_t f = H5I_INVALID_HID;
	int rc = nx_shard_open(&f, path, err);

	if (rc)
		return rc;
	if ((rc = nx_head_read(f, head, &inner)))
		nx_fail(err, rc, "%.300s: %.180s", path, inner.msg);
	nx_h5_close(f);
	return rc;
}

static int store_head(const struct nx_shards *s, const struct nx_run_head *head, struct nx_err *err)
{
	char path[1400];
	struct nx_run_head all;
	hid_t f = H5I_INVALID_HID;
	int rc = with_forced(s, head, &all, err);

	if (rc)
		return rc;
	snprintf(path, sizeof(path), "%s/head.h5", s->dir);
	if (!(rc = nx_h5_create(&f, err))) {
		if ((rc = nx_schema_write(f, "head of a run", err)) ||
		    (rc = nx_head_write(f, &all, err)))
			nx_h5_close(f);
		else
			rc = nx_h5_save(f, path, NULL, err);
	}
	free(all.facts);
	return rc;
}

int nx_shards_update(struct nx_shards *s, const struct nx_run_head *head, bool force,
                     struct nx_err *err)
{
	char path[1400];
	struct nx_run_head then;
	int rc = 0;

	snprintf(path, sizeof(path), "%s/head.h5", s->dir);
	if (access(path, F_OK) != 0)
		return store_head(s, head, err);
	if ((rc = read_head(path, &then, err)))
		return rc;
	free(s->forced);
	s->forced = NULL;
	s->n_forced = 0;
	for (size_t i = 0; !rc && i < then.n_facts; i++)
		if (strncmp(then.facts[i].key, "forced.", 7) == 0)
			rc = add_fact(s, then.facts[i].key, then.facts[i].value, err);
	if (!rc && !(rc = same_run(s, &then, head, force, err))) {
		struct nx_run_head next = *head;
		if (!next.device.name[0]) { /* not known yet: what was known stays */
			next.device = then.device;
			next.calibration = then.calibration;
			next.shape = then.shape;
		}
		rc = store_head(s, &next, err);
	}
	nx_head_release(&then);
	return rc;
}

/* ---- life -------------------------------------------------------------------------------------
 * */

/* Nothing in it that took time or is not ours? */
static bool is_bare(const struct nx_shards *s)
{
	DIR *d = opendir(s->dir);
	bool bare = d != NULL;

	for (struct dirent *e; bare && (e = readdir(d));)
		bare = e->d_name[0] == '.' || !strcmp(e->d_name, "lock") ||
		       !strcmp(e->d_name, "head.h5");
	if (d)
		closedir(d);
	return bare;
}

/* Was the run file made from these shards? Its facts are those of their head then, the time when the
 * run was started and its command among them. */
static bool is_merged(const struct nx_shards *s, const char *output)
{
	char path[1400];
	struct nx_run_head a, b;

	snprintf(path, sizeof(path), "%s/head.h5", s->dir);
	if (read_head(path, &a, NULL))
		return false;
	if (read_head(output, &b, NULL)) {
		nx_head_release(&a);
		return false;
	}
	bool same = a.n_facts == b.n_facts && strcmp(a.config_text, b.config_text) == 0;
	for (size_t i = 0; same && i < a.n_facts; i++)
		same = strcmp(a.facts[i].key, b.facts[i].key) == 0 &&
		       strcmp(a.facts[i].value, b.facts[i].value) == 0;
	nx_head_release(&a);
	nx_head_release(&b);
	return same;
}

/* Was even the head removed? */
static bool is_empty(const struct nx_shards *s)
{
	char path[1400];

	snprintf(path, sizeof(path), "%s/head.h5", s->dir);
	return access(path, F_OK) != 0 && is_bare(s);
}

static int refuse_existing(const char *output, struct nx_err *err)
{
	return nx_fail(err, NX_ECONFLICT,
	               "%s: exists already; choose another -o, remove it, or run with --force to "
	               "replace it",
	               output);
}

/* Only what a run wrote is replaced by one, whatever is forced: a name may have been mistyped. */
static int refuse_foreign(const char *output, struct nx_err *err)
{
	static const unsigned char hdf5[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
	unsigned char begin[8];
	int fd;
	size_t bytes;
	int rc = nx_file_open(output, SIZE_MAX, &fd, &bytes, err);
	if (rc)
		return rc;
	ssize_t n = read(fd, begin, sizeof(begin));
	close(fd);
	if (n == (ssize_t)sizeof(begin) && !memcmp(begin, hdf5, sizeof(hdf5)))
		return 0;
	return nx_fail(
		err, NX_ECONFLICT,
		"%s: found a file that is no run file, which --force does not replace; legal: another -o, or remove it",
		output);
}

/* What a run does that holds the lock. */
static int begin(struct nx_shards *s, const char *output, const struct nx_run_head *head,
                 bool resume, bool force, struct nx_err *err)
{
	size_t n = nx_shards_count(s);
	bool there = access(output, F_OK) == 0;

	if (there && resume && (is_merged(s, output) || (!force && is_empty(s)))) {
		s->merged = true;
		return 0;
	}
	if (there && !force)
		return refuse_existing(output, err);
	if (n && !resume)
		return nx_fail(
			err, NX_ECONFLICT,
			"%s: holds %zu trial%s of an unfinished run; finish it with --resume, "
			"or choose another -o, or remove the directory",
			s->dir, n, n == 1 ? "" : "s");
	int rc = n ? nx_shards_update(s, head, force, err) : store_head(s, head, err);
	return rc ? rc : each_entry(s, tidy, err); /* last: a refused run has changed nothing */
}

static int shards_new(struct nx_shards **out, const char *output, struct nx_err *err)
{
	struct nx_shards *s = calloc(1, sizeof(*s));

	*out = s;
	if (!s)
		return nx_fail(err, NX_ENOMEM, "out of memory for %s", output);
	s->lock_fd = -1;
	if (!*output || snprintf(s->dir, sizeof(s->dir), "%s.parts", output) >= (int)sizeof(s->dir))
		return nx_fail(err, NX_EINVAL,
		               "%.80s: no usable output path: it is empty or too long", output);
	return 0;
}

int nx_shards_open(struct nx_shards **out, const char *output, const struct nx_run_head *head,
                   bool resume, bool force, struct nx_err *err)
{
	struct nx_shards *s;
	int rc = shards_new(&s, output, err);

	if (rc)
		;
	else if (access(output, F_OK) == 0 && !force && (!resume || access(s->dir, F_OK) != 0))
		rc = refuse_existing(output, err); /* without so much as a lock */
	else if (access(output, F_OK) == 0 && refuse_foreign(output, err))
		rc = err ? err->code : NX_ECONFLICT;
	else if (!(rc = nx_shards_lock(s, err)))
		rc = begin(s, output, head, resume, force, err);
	if (rc)
		nx_shards_close(s);
	else
		*out = s;
	return rc;
}

int nx_shards_reopen(struct nx_shards **out, const char *output, const struct nx_run_head *now,
                     struct nx_run_head *head, struct nx_err *err)
{
	static const char key[] = "config_sha256";
	struct nx_shards *s;
	char path[1400];
	int rc = shards_new(&s, output, err);

	memset(head, 0, sizeof(*head));
	if (!rc && access(output, F_OK) == 0)
		rc = nx_fail(err, NX_ECONFLICT, "%s: exists already; legal: another -o", output);
	if (!rc && access(s->dir, F_OK) != 0)
		rc = nx_fail(err, NX_EINVAL, "%s: is not there; legal: -o of an interrupted run",
		             s->dir);
	if (!rc && !nx_shards_count(s)) /* before the lock: what is refused stays as it is */
		rc = nx_fail(err, NX_EINVAL, "%s: found no finished trial; legal: one or more",
		             s->dir);
	if (!rc)
		rc = nx_shards_lock(s, err);
	if (!rc) {
		snprintf(path, sizeof(path), "%s/head.h5", s->dir);
		rc = read_head(path, head, err);
	}
	if (!rc) {
		const char *then = nx_fact_get(head->facts, head->n_facts, key);
		const char *is = nx_fact_get(now->facts, now->n_facts, key);
		if (!then || !is || strcmp(then, is))
			rc = nx_fail(
				err, NX_ECONFLICT,
				"%s: found trials of another configuration (%s %.12s, given is %.12s); legal: the file and --set of then",
				s->dir, key, then ? then : "unknown", is ? is : "unknown");
		rc = rc ? rc : each_entry(s, tidy, err);
		if (rc)
			nx_head_release(head);
	}
	if (rc)
		nx_shards_close(s);
	else
		*out = s;
	return rc;
}

void nx_shards_close(struct nx_shards *s)
{
	if (!s)
		return;
	if (s->locked && is_bare(s))
		(void)nx_shards_remove(s, NULL);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free(s->forced);
	free(s);
}

bool nx_shards_has(const struct nx_shards *s, const char *cell, int32_t round)
{
	char path[1400];

	nx_shard_path(path, sizeof(path), s->dir, cell, round);
	return access(path, F_OK) == 0;
}

int nx_shards_write(struct nx_shards *s, const struct nx_trial *t, struct nx_err *err)
{
	return nx_shard_write_file(s->dir, t, err);
}

const char *nx_shards_dir(const struct nx_shards *s)
{
	return s->dir;
}

bool nx_shards_merged(const struct nx_shards *s)
{
	return s->merged;
}

const char *nx_shards_note(const struct nx_shards *s)
{
	return s->note[0] ? s->note : NULL;
}
