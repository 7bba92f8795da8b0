/* SPDX-License-Identifier: Apache-2.0
 *
 * engine/device.c: finds and opens a backend; see engine.h.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine.h"

static int find_backend(char *path, size_t size, const char *kind, const char *exe_dir,
                        struct nx_err *err)
{
	const char *env = getenv("NEXUS_BACKEND_PATH");
	if (env && *env) {
		snprintf(path, size, "%s/%s.so", env, kind);
		if (access(path, R_OK) == 0)
			return 0;
	}
	if (exe_dir) {
		static const char *const places[] = {"backends", "../lib/nexus/backends"};
		for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
			snprintf(path, size, "%s/%s/%s.so", exe_dir, places[i], kind);
			if (access(path, R_OK) == 0)
				return 0;
		}
	}
	return nx_fail(
		err, NX_EENV,
		"device \"%s\": no backend %s.so beside the program or in $NEXUS_BACKEND_PATH; "
		"build it with `make`",
		kind, kind);
}

bool nx_device_name_is_legal(const char *name)
{
	if (!strcmp(name, "cpu") || !strcmp(name, "cuda"))
		return true;
	return !strncmp(name, "cuda:", 5) && name[5] && strlen(name) < 10 &&
	       name[5 + strspn(name + 5, "0123456789")] == '\0';
}

int nx_device_open(struct nx_device *out, const char *name, const struct nx_device_config *cfg,
                   const char *exe_dir, struct nx_err *err)
{
	char kind[32];
	struct nx_device d = {0};
	struct nx_device_config c = *cfg;
	const char *colon = strchr(name, ':');
	size_t n = colon ? (size_t)(colon - name) : strlen(name);
	if (n == 0 || n >= sizeof(kind) ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") < n)
		return nx_fail(err, NX_EINVAL,
		               "device \"%s\" is no device name; legal: " NX_DEVICE_NAMES, name);
	memcpy(kind, name, n);
	kind[n] = '\0';
	if (colon) {
		char *end;
		long i = strtol(colon + 1, &end, 10);
		if (*end || end == colon + 1 || i < 0 || i > 1023)
			return nx_fail(err, NX_EINVAL,
			               "device \"%s\": the index after ':' is no number", name);
		c.index = (int32_t)i;
	}
	int rc = find_backend(d.backend_path, sizeof(d.backend_path), kind, exe_dir, err);
	if (rc)
		return rc;

	void *so = dlopen(d.backend_path, RTLD_NOW | RTLD_LOCAL);
	if (!so)
		return nx_fail(err, NX_EENV, "backend %s cannot be loaded: %s", d.backend_path,
		               dlerror());
	nx_backend_fn entry;
	*(void **)&entry = dlsym(so, NX_BACKEND_SYMBOL);
	/* Never closed: a backend owns threads. */
	if (!entry)
		return nx_fail(err, NX_EABI, "backend %s exports no %s()", d.backend_path,
		               NX_BACKEND_SYMBOL);
	d.ops = entry();
	if (!d.ops || d.ops->abi != NX_DEVICE_ABI || d.ops->size < sizeof(struct nx_device_ops))
		return nx_fail(
			err, NX_EABI,
			"backend %s speaks device ABI %u (%u bytes), this program %u (%zu bytes)",
			d.backend_path, d.ops ? d.ops->abi : 0, d.ops ? d.ops->size : 0,
			NX_DEVICE_ABI, sizeof(struct nx_device_ops));
	rc = d.ops->open(&d.dev, &c, err);
	if (rc)
		return rc;
	*out = d;
	return 0;
}

void nx_device_close(struct nx_device *d)
{
	if (d->ops)
		d->ops->close(d->dev);
	memset(d, 0, sizeof(*d));
}
