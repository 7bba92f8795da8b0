/* SPDX-License-Identifier: Apache-2.0
 *
 * instruments.cuh: what the files of the instruments share. CUPTI and NVML are opened when they are first wanted, so
 * that the backend needs neither; built without CUPTI's headers (CU_HAVE_CUPTI 0), its parts say so and serve nothing.
 */
#ifndef NX_CUDA_INSTRUMENTS_CUH
#define NX_CUDA_INSTRUMENTS_CUH

#include "cuda/dev.cuh"

#include "nexus/instruments.h"

#ifndef CU_HAVE_CUPTI
#if __has_include(<cupti_range_profiler.h>) && __has_include(<cupti_profiler_host.h>) &&                 \
	__has_include(<cupti_pmsampling.h>)
#define CU_HAVE_CUPTI 1
#else
#define CU_HAVE_CUPTI 0
#endif
#endif

#define CUPTI_MISSING                                                                              \
	"cuda: this backend was built without CUPTI's headers; install CUPTI's development package and build again"

/* CUPTI measures or traces for a whole process, so there is one of each at a time, and not both: who has it.
 * Owned by the thread that drives the device. */
enum cupti_use { CUPTI_FREE, CUPTI_COUNTS, CUPTI_TRACES, CUPTI_SAMPLES };
extern enum cupti_use cupti_use;
/* NX_ECONFLICT with a sentence, unless it is free. */
int cupti_take(enum cupti_use use, struct nx_err *err);

#if CU_HAVE_CUPTI
#include <cupti.h>
#include <cupti_pmsampling.h>
#include <cupti_profiler_host.h>
#include <cupti_profiler_target.h>
#include <cupti_range_profiler.h>
#include <cupti_target.h>

/* Every function of CUPTI that is called, without its prefix. */
#define CUPTI_FUNCTIONS(X)                                                                         \
	X(GetVersion)                                                                              \
	X(GetResultString)                                                                         \
	X(DeviceGetChipName)                                                                       \
	X(ProfilerInitialize)                                                                      \
	X(ProfilerDeviceSupported)                                                                 \
	X(ProfilerGetCounterAvailability)                                                          \
	X(ProfilerHostInitialize)                                                                  \
	X(ProfilerHostDeinitialize)                                                                \
	X(ProfilerHostGetSupportedChips)                                                           \
	X(ProfilerHostGetBaseMetrics)                                                              \
	X(ProfilerHostGetSubMetrics)                                                               \
	X(ProfilerHostGetMetricProperties)                                                         \
	X(ProfilerHostConfigAddMetrics)                                                            \
	X(ProfilerHostGetConfigImageSize)                                                          \
	X(ProfilerHostGetConfigImage)                                                              \
	X(ProfilerHostGetNumOfPasses)                                                              \
	X(ProfilerHostEvaluateToGpuValues)                                                         \
	X(RangeProfilerEnable)                                                                     \
	X(RangeProfilerDisable)                                                                    \
	X(RangeProfilerGetCounterDataSize)                                                         \
	X(RangeProfilerCounterDataImageInitialize)                                                 \
	X(RangeProfilerSetConfig)                                                                  \
	X(RangeProfilerStart)                                                                      \
	X(RangeProfilerStop)                                                                       \
	X(RangeProfilerPushRange)                                                                  \
	X(RangeProfilerPopRange)                                                                   \
	X(RangeProfilerDecodeData)                                                                 \
	X(RangeProfilerGetCounterDataInfo)                                                         \
	X(RangeProfilerCounterDataGetRangeInfo)                                                    \
	X(PmSamplingEnable)                                                                        \
	X(PmSamplingDisable)                                                                       \
	X(PmSamplingSetConfig)                                                                     \
	X(PmSamplingStart)                                                                         \
	X(PmSamplingStop)                                                                          \
	X(PmSamplingDecodeData)                                                                    \
	X(PmSamplingGetCounterDataSize)                                                            \
	X(PmSamplingCounterDataImageInitialize)                                                    \
	X(PmSamplingGetCounterDataInfo)                                                            \
	X(PmSamplingCounterDataGetSampleInfo)                                                      \
	X(ActivityRegisterCallbacks)                                                               \
	X(ActivityEnable)                                                                          \
	X(ActivityDisable)                                                                         \
	X(ActivityFlushAll)                                                                        \
	X(ActivityGetNextRecord)                                                                   \
	X(ActivityGetNumDroppedRecords)

struct cupti {
	uint32_t version; /* of the library: 130001 */
#define X(name) __typeof__(&cupti##name) name;
	CUPTI_FUNCTIONS(X)
#undef X
};

/* The library, or NULL and NX_EENV: where it was looked for. It is never closed: it calls back. */
const struct cupti *cupti_open(struct nx_err *err);
/* Before counters, but not before what needs the host alone: a process that only asks is not to be slowed. */
int cupti_initialize(const struct cupti *cupti, struct nx_err *err);
/* A code and a sentence, with what to change where that is known. */
int cupti_fail(struct nx_err *err, CUptiResult rc, const char *what);

/* Says which of the things that keep CUPTI from a device it is. */
int cupti_check_support(const struct cupti *cupti, const struct cuda_dev *d, CUpti_Profiler_API api,
                        struct nx_err *err);

/* A parameter block of CUPTI: zeros, and its size. */
#define CUPTI_PARAMS(type, name)                                                                   \
	type##_Params name = {};                                                                   \
	name.structSize = type##_Params_STRUCT_SIZE

#define CUPTI(call)                                                                                \
	do {                                                                                       \
		CUptiResult cupti_rc_ = cupti->call;                                               \
		if (cupti_rc_ != CUPTI_SUCCESS)                                                    \
			return cupti_fail(err, cupti_rc_, #call);                                  \
	} while (0)

/* instruments_metrics.cpp: metrics by name, and how the hardware is to be set to count them. */
enum metric_use { METRICS_BY_RANGE, METRICS_OVER_TIME };
struct metric_set {
	CUpti_Profiler_Host_Object *host;
	uint8_t *available; /* counters of this device; host looks at it as long as it lives */
	const char *chip;
	enum metric_use use;
	uint8_t *config;
	size_t config_bytes;
	int32_t passes;
};
/* dev may be NULL; chip NULL: the device's. After an error there is nothing to free. */
int metric_set_make(const struct cupti *cupti, enum metric_use use, struct cuda_dev *dev,
                    const char *chip, const char *const *metrics, int32_t n, struct metric_set *out,
                    struct nx_err *err);
void metric_set_free(const struct cupti *cupti, struct metric_set *m);
/* instruments_names.cpp: NX_EINVAL, with the nearest metric that there is. */
int metric_unknown(const struct cupti *cupti, CUpti_Profiler_Host_Object *host, const char *chip,
                   const char *name, struct nx_err *err);
#endif

/* ---- the operations of the table, by file; see nexus/instruments.h for what they do */

/* instruments_metrics.cpp */
int cu_metrics_check(void *dev, const char *chip, const char *const *metrics, int32_t n,
                     int32_t *passes, struct nx_err *err);

/* instruments_counters.cpp */
int cu_counters_open(void *dev, const char *const *metrics, int32_t n, int32_t max_ranges,
                     struct nx_counters **out, struct nx_err *err);
int cu_range_begin(void *dev, struct nx_counters *c, const char *name, struct nx_err *err);
int cu_range_end(void *dev, struct nx_counters *c, struct nx_err *err);
int cu_counters_read(void *dev, struct nx_counters *c, const struct nx_range **out, int32_t *n,
                     struct nx_err *err);
void cu_counters_close(void *dev, struct nx_counters *c);

/* instruments_trace.cpp */
int cu_trace_begin(void *dev, size_t max_records, struct nx_err *err);
int cu_trace_end(void *dev, struct nx_trace_record **out, size_t *n, size_t *lost,
                 struct nx_err *err);
void cu_trace_free(void *dev, struct nx_trace_record *records);

/* instruments_sampling.cpp */
int cu_sampling_check(void *dev, const char *chip, int32_t *passes, struct nx_err *err);
int cu_sampling_begin(void *dev, uint64_t interval_ns, size_t max_samples, struct nx_err *err);
int cu_sampling_end(void *dev, struct nx_device_sample **out, size_t *n, size_t *lost,
                    struct nx_err *err);
void cu_sampling_free(void *dev, struct nx_device_sample *samples);

/* instruments_names.cpp: "void a::k<T, (anonymous namespace)::U>(int)" -> "a::k". `mangled` may be plain, too. */
void kernel_name(const char *mangled, char *dst, size_t size);

/* instruments_nvml.cpp */
int cu_telemetry(void *dev, struct nx_telemetry *out, struct nx_err *err);
int cu_energy(void *dev, double *joules, struct nx_err *err);
const char *nvml_driver_version(void); /* "580.159.03", or "" */

#endif
