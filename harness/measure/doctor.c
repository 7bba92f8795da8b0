/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor.c: the table of checks, and files under a root. See doctor.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "measure/doctor_internal.h"

#define PATH_ROOM 1024

const char *nx_check_state_name(enum nx_check_state s)
{
	static const char *const names[] = {
#define X(id, name) name,
		NX_CHECK_STATES(X)
#undef X
	};
	return (size_t)s < sizeof(names) / sizeof(names[0]) ? names[s] : "unknown";
}

bool nx_doctor_live(const struct nx_doctor *d)
{
	return !d->root || !d->root[0];
}

static bool full_path(const struct nx_doctor *d, const char *path, char *buf)
{
	int n = snprintf(buf, PATH_ROOM, "%s%s", d->root ? d->root : "", path);
	return n > 0 && n < PATH_ROOM;
}

/* Files are the system's and may hold anything: what a terminal would obey becomes a blank. */
static void clean(char *s)
{
	for (size_t left = strlen(s); left;) {
		int n = nx_text_utf8_len(s, left), step = n ? n : 1;
		if (*s != '\n' && (!n || nx_text_is_control(s)))
			memset(s, ' ', (size_t)step);
		s += step;
		left -= (size_t)step;
	}
}

bool nx_doctor_read(const struct nx_doctor *d, const char *path, char *buf, size_t size)
{
	char full[PATH_ROOM];
	buf[0] = '\0';
	FILE *f = full_path(d, path, full) ? fopen(full, "re") : NULL;
	if (!f)
		return false;
	size_t n = fread(buf, 1, size - 1, f);
	bool bad = ferror(f) != 0;
	fclose(f);
	buf[n] = '\0';
	clean(buf);
	return !bad;
}

bool nx_doctor_line(const struct nx_doctor *d, const char *path, char *buf, size_t size)
{
	if (!nx_doctor_read(d, path, buf, size))
		return false;
	buf[strcspn(buf, "\n")] = '\0';
	return true;
}

bool nx_doctor_keyed(const struct nx_doctor *d, const char *path, const char *key, char *buf,
                     size_t size)
{
	char *text = malloc(NX_DOCTOR_FILE_MAX);
	size_t n = strlen(key);
	bool found = false;
	buf[0] = '\0';
	if (text && nx_doctor_read(d, path, text, NX_DOCTOR_FILE_MAX))
		for (char *p = text; !found && *p;) {
			size_t len = strcspn(p, "\n");
			char *end = p + len, last = *end;
			*end = '\0';
			if (!strncmp(p, key, n) && p[n + strspn(p + n, " \t")] == ':') {
				p += n + strspn(p + n, " \t") + 1;
				snprintf(buf, size, "%s", p + strspn(p, " \t"));
				found = true;
			}
			p = end + (last != '\0');
		}
	free(text);
	return found;
}

bool nx_doctor_number(const struct nx_doctor *d, const char *path, double *out)
{
	char line[64], *end;
	if (!nx_doctor_line(d, path, line, sizeof(line)))
		return false;
	*out = strtod(line, &end);
	return end != line;
}

bool nx_doctor_exists(const struct nx_doctor *d, const char *path)
{
	char full[PATH_ROOM];
	return full_path(d, path, full) && !access(full, F_OK);
}

int nx_doctor_count_list(const char *list)
{
	int n = 0;
	for (const char *p = list; *p && *p != '\n';) {
		char *end;
		long first = strtol(p, &end, 10), last = first;
		if (end == p)
			return -1;
		if (*end == '-') {
			p = end + 1;
			last = strtol(p, &end, 10);
			if (end == p)
				return -1;
		}
		if (first < 0 || last < first || last > 1 << 20)
			return -1;
		n += (int)(last - first) + 1;
		p = end + (*end == ',');
		if (p == end && *end && *end != '\n')
			return -1;
	}
	return n ? n : -1;
}

/* "4:memory:/a" (v1) and "0::/a" (v2): the group's folder for the controller. */
static bool group_of(const char *groups, const char *controller, char *buf, size_t size)
{
	for (const char *p = groups; *p; p += strcspn(p, "\n"), p += *p == '\n') {
		const char *list = strchr(p, ':');
		const char *dir = list ? strchr(list + 1, ':') : NULL;
		if (!dir || dir > p + strcspn(p, "\n"))
			continue;
		for (const char *q = list + 1; q <= dir;) {
			size_t n = strcspn(q, ",:");
			if (n == strlen(controller) && !strncmp(q, controller, n)) {
				snprintf(buf, size, "%.*s", (int)strcspn(dir + 1, "\n"), dir + 1);
				return true;
			}
			q += n + 1;
		}
	}
	return false;
}

bool nx_doctor_cgroup(const struct nx_doctor *d, const char *controller, const char *v2,
                      const char *v1, char *buf, size_t size)
{
	char groups[4096], dir[400], path[640];
	if (!nx_doctor_read(d, "/proc/self/cgroup", groups, sizeof(groups)))
		return false;
	/* In a container the group's folder is often not mounted where its name says, but at the top. */
	if (group_of(groups, "", dir, sizeof(dir)) && v2) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/%s", dir, v2);
		if (nx_doctor_line(d, path, buf, size))
			return true;
		snprintf(path, sizeof(path), "/sys/fs/cgroup/%s", v2);
		if (nx_doctor_line(d, path, buf, size))
			return true;
	}
	if (!v1 || !group_of(groups, controller, dir, sizeof(dir)))
		return false;
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s%s/%s", controller, dir, v1);
	if (nx_doctor_line(d, path, buf, size))
		return true;
	snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/%s", controller, v1);
	return nx_doctor_line(d, path, buf, size);
}

size_t nx_doctor_run(const struct nx_doctor *d, struct nx_check out[NX_CHECKS_MAX])
{
	static const struct {
		const char *name;
		void (*fn)(const struct nx_doctor *d, struct nx_check *c);
	} checks[] = {
#define X(fn, name) {name, nx_check_##fn},
		NX_DOCTOR_CHECKS(X)
#undef X
	};
	size_t n = 0;
	for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]) && n < NX_CHECKS_MAX; i++) {
		struct nx_check *c = &out[n];
		*c = (struct nx_check){.name = checks[i].name};
		checks[i].fn(d, c);
		if (!c->found[0])
			NX_SET(found, "unknown: the file is empty");
		n += c->name != NULL;
	}
	return n;
}

bool nx_doctor_unfit(const struct nx_check *c, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (c[i].fatal && c[i].state == NX_CHECK_MISSING)
			return true;
	return false;
}
