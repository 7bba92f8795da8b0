/* SPDX-License-Identifier: Apache-2.0
 *
 * common.c: see cli.h.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "measure/model_path.h"
#include "present/number.h"

const char *nx_exe_path(void)
{
	static char path[4096];
	if (!path[0]) {
		ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
		path[n > 0 ? n : 0] = '\0';
	}
	return path;
}

const char *nx_exe_dir(void)
{
	static char dir[4096];
	if (!dir[0]) {
		snprintf(dir, sizeof(dir), "%s", nx_exe_path());
		char *slash = strrchr(dir, '/');
		if (slash)
			*slash = '\0';
		else
			snprintf(dir, sizeof(dir), ".");
	}
	return dir;
}

void nx_say(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fflush(stdout);
	fputs("nexus: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
}

int nx_exit_of(int code)
{
	switch (code) {
	case 0: return NX_EXIT_DONE;
	case NX_EINVAL:
	case NX_EFORMAT:
	case NX_ECONFLICT: return NX_EXIT_USAGE;
	case NX_ESKIP:
	case NX_EBUG: return NX_EXIT_CELL_FAILED;
	default: return NX_EXIT_ENVIRONMENT;
	}
}

int nx_say_err(const struct nx_err *err)
{
	nx_say("%s", err->msg);
	return nx_exit_of(err->code);
}

int nx_parse_ints(const char *text, int32_t *out, int max)
{
	int n = 0;
	for (const char *p = text;; p++) {
		char *end;
		long v = strtol(p, &end, 10);
		if (end == p || v < 1 || v > 1 << 24 || n == max)
			return -1;
		out[n++] = (int32_t)v;
		if (*end == '\0')
			return n;
		if (*end != ',')
			return -1;
		p = end;
	}
}

const char *nx_seconds_text(double seconds, char *buf, size_t size)
{
	if (seconds < 1)
		snprintf(buf, size, "%.0f ms", seconds * 1e3);
	else if (seconds < 90)
		snprintf(buf, size, "%.1f s", seconds);
	else if (seconds < 5400)
		snprintf(buf, size, "%d min %02d s", (int)(seconds / 60), (int)seconds % 60);
	else
		snprintf(buf, size, "%d h %02d min", (int)(seconds / 3600),
		         (int)(seconds / 60) % 60);
	return buf;
}

int nx_parse_dtype(const char *text, enum nx_dtype *out, struct nx_err *err)
{
	if (!strcmp(text, "f32"))
		*out = NX_F32;
	else if (!strcmp(text, "bf16"))
		*out = NX_BF16;
	else
		return nx_fail(err, NX_EINVAL, "--dtype is '%s'; legal are f32 and bf16", text);
	return 0;
}

int nx_parse_format(const char *text, enum nx_table_format *out)
{
	static const char *const NAMES[] = {"text", "md", "csv", "json"};
	static const enum nx_table_format FORMATS[] = {NX_TABLE_TEXT, NX_TABLE_MD, NX_TABLE_CSV,
	                                               NX_TABLE_JSON};
	for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++)
		if (!strcmp(text, NAMES[i])) {
			*out = FORMATS[i];
			return -1;
		}
	nx_say("--format is '%s'; legal are text, md, csv and json", text);
	return NX_EXIT_USAGE;
}

/* A name is quickly typed, and some stand for a hundred gigabytes. */
static int check_room(struct nx_session *s, enum nx_dtype dtype, struct nx_err *err)
{
	struct nx_weights *plan = NULL;
	struct nx_device_info info;
	char need[32], has[32];
	int rc = nx_weights_plan(&plan, s->model, &s->dev, dtype, err);
	if (rc)
		return rc;
	uint64_t bytes = nx_weights_bytes(plan);
	s->dev.ops->info(s->dev.dev, &info);
	nx_weights_destroy(plan);
	if (!info.free_bytes || bytes <= info.free_bytes)
		return 0;
	return nx_fail(err, NX_EENV, "the weights of %s take %s, and %s has %s free",
	               nx_model_name(s->model), nx_size_text((double)bytes, need, sizeof(need)),
	               info.name, nx_size_text((double)info.free_bytes, has, sizeof(has)));
}

int nx_session_init(struct nx_session *s, const struct nx_session_config *c, struct nx_err *err)
{
	memset(s, 0, sizeof(*s));
	struct nx_device_config dc = {.n_threads = (int32_t)c->threads, .invariant = c->invariant};
	const char *model = c->model;
	char found[4096];
	int rc = nx_parse_dtype(c->dtype, &dc.dtype, err);
	if (!rc && nx_model_is_name(model)) {
		rc = nx_model_find(model, NULL, nx_exe_dir(), found, sizeof(found), err);
		model = found;
	} else if (!rc && access(model, R_OK)) {
		rc = nx_fail(
			err, NX_EINVAL,
			"the model '%s' cannot be read; --model takes a name, a GGUF file or a Hugging "
			"Face directory",
			model);
	}
	if (!rc)
		rc = nx_registry_open(&s->registry, NULL, 0, nx_exe_dir(), err);
	if (!rc)
		rc = nx_model_open(&s->model, model, err);
	if (!rc)
		rc = nx_device_open(&s->dev, c->device, &dc, nx_exe_dir(), err);
	if (!rc) {
		s->open = true;
		rc = check_room(s, dc.dtype, err);
	}
	if (!rc)
		rc = nx_weights_create(&s->weights, s->model, &s->dev, dc.dtype, err);
	if (rc)
		nx_session_release(s);
	return rc;
}

void nx_session_release(struct nx_session *s)
{
	if (s->weights)
		nx_weights_destroy(s->weights);
	if (s->open)
		nx_device_close(&s->dev);
	nx_model_close(s->model);
	if (s->registry)
		nx_registry_close(s->registry);
	memset(s, 0, sizeof(*s));
}
