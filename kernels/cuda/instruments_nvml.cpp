/* SPDX-License-Identifier: Apache-2.0
 *
 * instruments_nvml.cpp: telemetry, through NVML: it comes with the driver, and its header with no package that the build
 * asks for, so what is called is declared here. Everything may be called from any thread.
 */
#include <dlfcn.h>
#include <math.h>
#include <mutex>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cuda/instruments.cuh"

typedef void *nvml_device;
struct nvml_memory {
	unsigned long long total, free, used;
};
struct nvml_utilisation {
	unsigned gpu, memory; /* per cent */
};
struct nvml_process {
	unsigned pid;
	unsigned long long memory;
	unsigned gpu_instance, compute_instance;
};
enum { NVML_SUCCESS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2, NVML_TEMPERATURE_GPU = 0 };

/* X(result, field, name, parameters): an int is 0 or an error. All may be missing but the first three. */
#define NVML_FUNCTIONS(X)                                                                          \
	X(int, init, "nvmlInit_v2", (void))                                                        \
	X(int, by_bus, "nvmlDeviceGetHandleByPciBusId_v2", (const char *, nvml_device *))          \
	X(const char *, text, "nvmlErrorString", (int))                                            \
	X(int, driver, "nvmlSystemGetDriverVersion", (char *, unsigned))                           \
	X(int, clock, "nvmlDeviceGetClockInfo", (nvml_device, int, unsigned *))                    \
	X(int, power, "nvmlDeviceGetPowerUsage", (nvml_device, unsigned *))                        \
	X(int, temperature, "nvmlDeviceGetTemperature", (nvml_device, int, unsigned *))            \
	X(int, energy, "nvmlDeviceGetTotalEnergyConsumption", (nvml_device, unsigned long long *)) \
	X(int, reasons, "nvmlDeviceGetCurrentClocksEventReasons",                                  \
	  (nvml_device, unsigned long long *))                                                     \
	X(int, old_reasons, "nvmlDeviceGetCurrentClocksThrottleReasons",                           \
	  (nvml_device, unsigned long long *))                                                     \
	X(int, memory, "nvmlDeviceGetMemoryInfo", (nvml_device, struct nvml_memory *))             \
	X(int, utilisation, "nvmlDeviceGetUtilizationRates",                                       \
	  (nvml_device, struct nvml_utilisation *))                                                \
	X(int, processes, "nvmlDeviceGetComputeRunningProcesses_v3",                               \
	  (nvml_device, unsigned *, struct nvml_process *))

struct nvml {
#define X(result, field, name, parameters) result(*field) parameters;
	NVML_FUNCTIONS(X)
#undef X
};

static const struct nvml *nvml_open(struct nx_err *err)
{
	static std::once_flag once;
	static struct nvml nvml;
	static char why[160];
	std::call_once(once, [] {
		void *so = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
		if (!so) {
			snprintf(why, sizeof(why),
			         "libnvidia-ml.so.1, a part of the driver, is not there");
			return;
		}
#define X(result, field, name, parameters) *(void **)&nvml.field = dlsym(so, name);
		NVML_FUNCTIONS(X)
#undef X
		int rc = nvml.init && nvml.by_bus && nvml.text ? nvml.init() : -1;
		if (rc)
			snprintf(why, sizeof(why), "nvmlInit: %s",
			         rc < 0 ? "not in this library" : nvml.text(rc));
	});
	if (!*why)
		return &nvml;
	nx_fail(err, NX_EENV, "cuda: no telemetry: %s", why);
	return NULL;
}

const char *nvml_driver_version(void)
{
	static std::once_flag once;
	static char version[81];
	std::call_once(once, [] {
		const struct nvml *n = nvml_open(NULL);
		if (!n || !n->driver || n->driver(version, sizeof(version)))
			version[0] = '\0';
	});
	return version;
}

/* NVML counts devices as the machine has them, CUDA as the process may see them: the bus tells which is which. */
static int find_device(const struct nvml *n, const struct cuda_dev *d, nvml_device *out,
                       struct nx_err *err)
{
	static std::mutex lock;
	static nvml_device known[64];
	std::lock_guard<std::mutex> guard(lock);
	char bus[32];
	bool fits = d->index < (int)(sizeof(known) / sizeof(*known));
	if (fits && known[d->index]) {
		*out = known[d->index];
		return 0;
	}
	CU(cudaDeviceGetPCIBusId(bus, sizeof(bus), d->index));
	int rc = n->by_bus(bus, out);
	if (rc)
		return nx_fail(err, NX_EENV, "cuda: NVML does not find the device at %s: %s", bus,
		               n->text(rc));
	if (fits)
		known[d->index] = *out;
	return 0;
}

/* Bits of nvmlClocksEventReasons. What slows the hardware of heat or power says so with two bits. */
static int64_t throttle_of(unsigned long long reasons)
{
	static const struct {
		unsigned long long reason;
		int64_t bit;
	} map[] = {{0x001, NX_THROTTLE_IDLE},  {0x002, NX_THROTTLE_SET},
	           {0x004, NX_THROTTLE_POWER}, {0x008, NX_THROTTLE_HARDWARE},
	           {0x010, NX_THROTTLE_SYNC},  {0x020, NX_THROTTLE_HEAT},
	           {0x040, NX_THROTTLE_HEAT},  {0x080, NX_THROTTLE_POWER},
	           {0x100, NX_THROTTLE_SET}};
	int64_t bits = 0;
	for (auto &m : map)
		if (reasons & m.reason)
			bits |= m.bit;
	return bits;
}

/* We hold a context, so one of those listed is this process, even where a container hides its number; where not one is
 * listed, the list cannot be seen from here. */
static int32_t other_processes(const struct nvml *n, nvml_device dev)
{
	struct nvml_process list[128];
	unsigned count = sizeof(list) / sizeof(*list);
	if (!n->processes || n->processes(dev, &count, list) || !count)
		return -1;
	return (int32_t)count - 1;
}

int cu_energy(void *dev, double *joules, struct nx_err *err)
{
	const struct nvml *n = nvml_open(err);
	nvml_device d = NULL;
	unsigned long long mj = 0;
	int rc = n ? find_device(n, (const struct cuda_dev *)dev, &d, err) : NX_EENV;
	if (rc)
		return rc;
	rc = n->energy ? n->energy(d, &mj) : -1;
	if (rc)
		return nx_fail(err, NX_ENOTSUP, "cuda: NVML does not tell this device's energy: %s",
		               rc < 0 ? "not in this library" : n->text(rc));
	*joules = (double)mj * 1e-3;
	return 0;
}

int cu_telemetry(void *dev, struct nx_telemetry *out, struct nx_err *err)
{
	const struct nvml *n = nvml_open(err);
	nvml_device d = NULL;
	unsigned u = 0;
	unsigned long long ull = 0;
	struct nvml_memory memory = {};
	struct nvml_utilisation use = {};
	int rc = n ? find_device(n, (const struct cuda_dev *)dev, &d, err) : NX_EENV;
	if (rc)
		return rc;
#define READ(field, ...) (n->field && n->field(d, __VA_ARGS__) == NVML_SUCCESS)
	out->sm_clock_hz = READ(clock, NVML_CLOCK_SM, &u) ? u * 1e6 : NAN;
	out->mem_clock_hz = READ(clock, NVML_CLOCK_MEM, &u) ? u * 1e6 : NAN;
	out->power_w = READ(power, &u) ? u * 1e-3 : NAN;
	out->temperature_c = READ(temperature, NVML_TEMPERATURE_GPU, &u) ? (double)u : NAN;
	out->mem_used_bytes = READ(memory, &memory) ? (int64_t)memory.used : -1;
	out->throttle = READ(reasons, &ull) || READ(old_reasons, &ull) ? throttle_of(ull) : -1;
	out->utilisation = READ(utilisation, &use) ? use.gpu / 100.0 : NAN;
#undef READ
	out->n_other_processes = other_processes(n, d);
	return 0;
}
