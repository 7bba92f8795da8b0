/* SPDX-License-Identifier: Apache-2.0
 *
 * doctor_gpu.c: is there a GPU, can it be driven, and may its counters be read?
 */
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "measure/doctor_internal.h"

#define NVIDIA_VENDOR "0x10de"
#define DISPLAY_CLASS "0x03"
#define PCI_MAX 4096 /* devices looked at */

bool nx_doctor_wants_gpu(const struct nx_doctor *d)
{
	return d->device && !strncmp(d->device, "cuda", 4);
}

/* GPUs on the bus, with or without a driver. */
static int on_the_bus(const struct nx_doctor *d)
{
	char path[512], text[32];
	int n = 0, seen = 0;
	if ((size_t)snprintf(path, sizeof(path), "%s/sys/bus/pci/devices",
	                     d->root ? d->root : "") >= sizeof(path))
		return 0;
	DIR *dir = opendir(path);
	for (struct dirent *e; dir && seen < PCI_MAX && (e = readdir(dir)); seen++) {
		if (e->d_name[0] == '.' || strlen(e->d_name) > 64)
			continue;
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.64s/vendor", e->d_name);
		if (!nx_doctor_line(d, path, text, sizeof(text)) || strcmp(text, NVIDIA_VENDOR))
			continue;
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.64s/class", e->d_name);
		n += nx_doctor_line(d, path, text, sizeof(text)) &&
		     !strncmp(text, DISPLAY_CLASS, strlen(DISPLAY_CLASS));
	}
	if (dir)
		closedir(dir);
	return n;
}

static bool driver_there(const struct nx_doctor *d)
{
	return nx_doctor_exists(d, "/proc/driver/nvidia/version");
}

bool nx_doctor_has_gpu(const struct nx_doctor *d)
{
	return driver_there(d) || nx_doctor_exists(d, "/dev/nvidia0") || on_the_bus(d) > 0;
}

void nx_check_gpu(const struct nx_doctor *d, struct nx_check *c)
{
	c->fatal = nx_doctor_wants_gpu(d);
	if (!nx_doctor_has_gpu(d)) {
		NX_SET(found, "none: no NVIDIA device on the bus, no driver");
		if (!c->fatal)
			return;
		c->state = NX_CHECK_MISSING;
		NX_SET(lacks, "the device that --device %s asks for", d->device);
		NX_SET(costs, "there are no figures of a GPU");
		NX_SET(remedy, "--device cpu, or in a container: docker run --gpus all");
		return;
	}
	int n = on_the_bus(d);
	if (n > 0)
		NX_SET(found, "%d NVIDIA GPU%s on the bus", n, n == 1 ? "" : "s");
	else
		NX_SET(found, "an NVIDIA GPU (the bus is not visible)");
}

void nx_check_driver(const struct nx_doctor *d, struct nx_check *c)
{
	char text[256];
	if (!nx_doctor_has_gpu(d)) {
		c->name = NULL;
		return;
	}
	c->fatal = nx_doctor_wants_gpu(d);
	if (nx_doctor_line(d, "/proc/driver/nvidia/version", text, sizeof(text))) {
		NX_SET(found, "%s", text);
		return;
	}
	c->state = NX_CHECK_MISSING;
	NX_SET(found, "/proc/driver/nvidia/version is not there");
	NX_SET(lacks, "a loaded driver");
	NX_SET(costs, "the GPU cannot be used");
	NX_SET(remedy, "sudo modprobe nvidia; or install the driver of your distribution");
}

/* Only looked for: NULL stands for "not tried". */
static const char *load(const struct nx_doctor *d, const char *const *names)
{
	for (; nx_doctor_live(d) && *names; names++) {
		void *so = dlopen(*names, RTLD_LAZY | RTLD_LOCAL);
		if (so) {
			dlclose(so);
			return *names;
		}
	}
	return NULL;
}

static void library(const struct nx_doctor *d, struct nx_check *c, const char *const *names)
{
	const char *name = load(d, names);
	if (name) {
		NX_SET(found, "%s", name);
		return;
	}
	if (!nx_doctor_live(d)) {
		NX_SET(found, "not tried");
		return;
	}
	c->state = NX_CHECK_MISSING;
	NX_SET(found, "%s cannot be loaded", names[0]);
	NX_SET(lacks, "%s", names[0]);
}

void nx_check_nvml(const struct nx_doctor *d, struct nx_check *c)
{
	static const char *const names[] = {"libnvidia-ml.so.1", NULL};
	if (!nx_doctor_has_gpu(d)) {
		c->name = NULL;
		return;
	}
	library(d, c, names);
	if (c->state == NX_CHECK_OK)
		return;
	NX_SET(costs,
	       "no clocks, power and temperature: throttled trials are not told from slow ones");
	NX_SET(remedy,
	       "install the driver's user libraries; in a container add `utility` to NVIDIA_DRIVER_CAPABILITIES");
}

void nx_check_cupti(const struct nx_doctor *d, struct nx_check *c)
{
	static const char *const names[] = {"libcupti.so", "libcupti.so.13", "libcupti.so.12",
	                                    NULL};
	if (!nx_doctor_has_gpu(d)) {
		c->name = NULL;
		return;
	}
	library(d, c, names);
	if (c->state == NX_CHECK_OK)
		return;
	NX_SET(costs, "utilisation is counted, not measured");
	NX_SET(remedy, "install cuda-cupti, and add its folder to LD_LIBRARY_PATH");
}

void nx_check_counters(const struct nx_doctor *d, struct nx_check *c)
{
	char text[64];
	if (!nx_doctor_has_gpu(d)) {
		c->name = NULL;
		return;
	}
	if (!nx_doctor_keyed(d, "/proc/driver/nvidia/params", "RmProfilingAdminOnly", text,
	                     sizeof(text))) {
		c->state = NX_CHECK_WARN;
		NX_SET(found, "unknown: no RmProfilingAdminOnly in /proc/driver/nvidia/params");
		NX_SET(costs, "whether utilisation can be measured shows only when it is tried");
		return;
	}
	bool root = nx_doctor_live(d) && geteuid() == 0;
	NX_SET(found, "%s%s", strcmp(text, "0") ? "for administrators only" : "for all users",
	       strcmp(text, "0") && root ? ", which this process is" : "");
	if (!strcmp(text, "0") || root)
		return;
	c->state = NX_CHECK_MISSING;
	NX_SET(lacks, "permission to read the GPU's counters");
	NX_SET(costs, "utilisation is counted, not measured");
	NX_SET(remedy, "echo 'options nvidia NVreg_RestrictProfilingToAdminUsers=0' | sudo tee "
	               "/etc/modprobe.d/nvidia-profiling.conf, then load the driver again");
}
