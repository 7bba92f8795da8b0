/* SPDX-License-Identifier: Apache-2.0
 *
 * instruments.cpp: the table of nexus/instruments.h, and CUPTI, opened when it is wanted.
 */
#include <dlfcn.h>
#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/instruments.cuh"

enum cupti_use cupti_use = CUPTI_FREE;

int cupti_take(enum cupti_use use, struct nx_err *err)
{
	if (cupti_use == CUPTI_COUNTS)
		return nx_fail(err, NX_ECONFLICT,
		               "cuda: counters are open in this process; close them first");
	if (cupti_use == CUPTI_TRACES)
		return nx_fail(err, NX_ECONFLICT,
		               "cuda: a trace is running in this process; end it first");
	if (cupti_use == CUPTI_SAMPLES)
		return nx_fail(err, NX_ECONFLICT,
		               "cuda: this process samples the device; end that first");
	cupti_use = use;
	return 0;
}

#if CU_HAVE_CUPTI
int cupti_fail(struct nx_err *err, CUptiResult rc, const char *what)
{
	const struct cupti *cupti = cupti_open(NULL);
	const char *text = NULL;
	int code = NX_EENV;
	if (!cupti || cupti->GetResultString(rc, &text) != CUPTI_SUCCESS || !text)
		text = "unknown error";
	switch ((int)rc) {
	case CUPTI_ERROR_INSUFFICIENT_PRIVILEGES:
	case CUPTI_ERROR_VIRTUALIZED_DEVICE_INSUFFICIENT_PRIVILEGES:
		return nx_fail(
			err, NX_EENV,
			"cuda: the driver lets only administrators read counters (%s): load the module nvidia "
			"with NVreg_RestrictProfilingToAdminUsers=0, or give the process CAP_PERFMON "
			"(in a container, --cap-add=PERFMON or SYS_ADMIN)",
			text);
	case CUPTI_ERROR_HARDWARE_BUSY:
		return nx_fail(
			err, NX_EENV,
			"cuda: another profiler holds the counters of this device (%s); end it",
			text);
	case CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED:
		return nx_fail(err, NX_EENV,
		               "cuda: another tool uses CUPTI in this process (%s); run without it",
		               text);
	case CUPTI_ERROR_OUT_OF_MEMORY: code = NX_ENOMEM; break;
	case CUPTI_ERROR_NOT_SUPPORTED:
	case CUPTI_ERROR_NOT_COMPATIBLE:
	case CUPTI_ERROR_API_NOT_IMPLEMENTED:
	case CUPTI_ERROR_INVALID_DEVICE:
	case CUPTI_ERROR_LEGACY_PROFILER_NOT_SUPPORTED:
	case CUPTI_ERROR_VIRTUALIZED_DEVICE_NOT_SUPPORTED:
	case CUPTI_ERROR_CONFIDENTIAL_COMPUTING_NOT_SUPPORTED:
	case CUPTI_ERROR_CMP_DEVICE_NOT_SUPPORTED:
	case CUPTI_ERROR_MIG_DEVICE_NOT_SUPPORTED:
	case CUPTI_ERROR_SLI_DEVICE_NOT_SUPPORTED:
	case CUPTI_ERROR_WSL_DEVICE_NOT_SUPPORTED: code = NX_ENOTSUP; break;
	}
	return nx_fail(err, code, "cuda: %.*s: %s", (int)strcspn(what, "("), what, text);
}

/* The first that opens: by name, as the system finds it, then where CUDA is usually installed. */
static void *find_cupti(void)
{
	static const char *const names[] = {"libcupti.so.13", "libcupti.so.12"};
	const char *home = getenv("CUDA_HOME");
	const char *const dirs[][2] = {{"", ""},
	                               {home, "/lib64/"},
	                               {home, "/extras/CUPTI/lib64/"},
	                               {"/usr/local/cuda", "/lib64/"},
	                               {"/usr/local/cuda", "/extras/CUPTI/lib64/"}};
	for (const char *name : names) {
		for (auto &d : dirs) {
			char path[1024];
			if (!d[0] || snprintf(path, sizeof(path), "%s%s%s", d[0], d[1], name) >=
			                     (int)sizeof(path))
				continue;
			void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
			if (so)
				return so;
		}
	}
	return NULL;
}

/* CUPTI calls into this library until the process ends, so neither may be unloaded. */
static void stay(void)
{
	Dl_info self;
	if (dladdr((void *)&cu_instruments, &self) && self.dli_fname)
		(void)dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

static bool load_cupti(struct cupti *c, struct nx_err *err)
{
	void *so = find_cupti();
	if (!so) {
		nx_fail(err, NX_EENV,
		        "cuda: libcupti.so.13 or .12 was found neither by the loader nor under $CUDA_HOME or "
		        "/usr/local/cuda; install CUPTI or set LD_LIBRARY_PATH");
		return false;
	}
	stay();
#define X(name)                                                                                    \
	*(void **)&c->name = dlsym(so, "cupti" #name);                                             \
	if (!c->name) {                                                                            \
		nx_fail(err, NX_EENV,                                                              \
		        "cuda: this libcupti has no cupti" #name                                   \
		        "; CUPTI 12.8 or later is wanted");                                        \
		return false;                                                                      \
	}
	CUPTI_FUNCTIONS(X)
#undef X
	if (c->GetVersion(&c->version) != CUPTI_SUCCESS)
		c->version = 0;
	return true;
}

const struct cupti *cupti_open(struct nx_err *err)
{
	static std::once_flag once;
	static struct cupti cupti;
	static struct nx_err why;
	static bool there;
	std::call_once(once, [] { there = load_cupti(&cupti, &why); });
	if (there)
		return &cupti;
	nx_fail(err, why.code, "%s", why.msg);
	return NULL;
}

int cupti_initialize(const struct cupti *cupti, struct nx_err *err)
{
	CUPTI_PARAMS(CUpti_Profiler_Initialize, p);
	CUPTI(ProfilerInitialize(
		&p)); /* counts no users: again is nothing, and nobody takes it back */
	return 0;
}
#endif

static void versions(void *dev, char *dst, size_t size)
{
	char cupti[64] = "no CUPTI";
	const char *driver = nvml_driver_version();
	(void)dev;
#if CU_HAVE_CUPTI
	const struct cupti *c = cupti_open(NULL);
	uint32_t v = c ? c->version : 0;
	if (v >= 130000) /* 130001: of CUDA 13.0, release 1; earlier ones were plain counts */
		snprintf(cupti, sizeof(cupti), "CUPTI %u.%u.%u", v / 10000, v / 100 % 100, v % 100);
	else if (c)
		snprintf(cupti, sizeof(cupti), "CUPTI of API %u", v);
#endif
	snprintf(dst, size, "%s, %s%s", cupti, *driver ? "driver " : "no NVML", driver);
}

static constexpr struct nx_instrument_ops make_ops(void)
{
	struct nx_instrument_ops o = {};
	o.size = sizeof(o);
	o.metrics_check = cu_metrics_check;
	o.counters_open = cu_counters_open;
	o.range_begin = cu_range_begin;
	o.range_end = cu_range_end;
	o.counters_read = cu_counters_read;
	o.counters_close = cu_counters_close;
	o.trace_begin = cu_trace_begin;
	o.trace_end = cu_trace_end;
	o.trace_free = cu_trace_free;
	o.telemetry = cu_telemetry;
	o.energy = cu_energy;
	o.sampling_check = cu_sampling_check;
	o.sampling_begin = cu_sampling_begin;
	o.sampling_end = cu_sampling_end;
	o.sampling_free = cu_sampling_free;
	o.versions = versions;
	return o;
}

extern const struct nx_instrument_ops cu_instruments = make_ops();
