/* SPDX-License-Identifier: Apache-2.0
 *
 * instruments_sampling.cpp: a few metrics of the whole device over time, through CUPTI's PM sampling, in one pass. The
 * hardware writes samples into a buffer of its own, which is decoded after the end, a batch at a time.
 *
 * It holds the device's clocks while it runs, whoever uses the device, so nothing here starts by itself. What needs the
 * host alone (the metrics, the passes, the set-up of the hardware) is tested; sampling itself has not been run on a device.
 */
#include <math.h>
#include <stdlib.h>

#include "cuda/instruments.cuh"

#if CU_HAVE_CUPTI
#define HARDWARE_BYTES ((size_t)256 << 20)
#define BATCH 4096 /* samples decoded into an image at a time */

/* In the order of struct nx_device_sample. */
static const char *const metrics[] = {
	"dram__throughput.avg.pct_of_peak_sustained_elapsed",
	"sm__cycles_active.avg.pct_of_peak_sustained_elapsed",
	"sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed"};
#define N_METRICS (sizeof(metrics) / sizeof(*metrics))

/* One at a time, as cupti_take() sees to. */
static struct sampler {
	struct metric_set set;
	CUpti_PmSampling_Object *object; /* NULL: not enabled */
	uint8_t *image;
	size_t image_bytes, max_samples;
	bool started;
} sampler;

static void close_sampler(const struct cupti *cupti)
{
	if (sampler.started) {
		CUPTI_PARAMS(CUpti_PmSampling_Stop, p);
		p.pPmSamplingObject = sampler.object;
		cupti->PmSamplingStop(&p);
	}
	if (sampler.object) {
		CUPTI_PARAMS(CUpti_PmSampling_Disable, p);
		p.pPmSamplingObject = sampler.object;
		cupti->PmSamplingDisable(&p);
	}
	metric_set_free(cupti, &sampler.set);
	free(sampler.image);
	sampler = {};
	cupti_use = CUPTI_FREE;
}

static int empty_image(const struct cupti *cupti, struct nx_err *err)
{
	CUPTI_PARAMS(CUpti_PmSampling_CounterDataImage_Initialize, p);
	p.pPmSamplingObject = sampler.object;
	p.counterDataSize = sampler.image_bytes;
	p.pCounterData = sampler.image;
	CUPTI(PmSamplingCounterDataImageInitialize(&p));
	return 0;
}

static int start(const struct cupti *cupti, struct cuda_dev *d, uint64_t interval_ns,
                 struct nx_err *err)
{
	CUPTI_PARAMS(CUpti_PmSampling_Enable, enable);
	enable.deviceIndex = (size_t)d->index;
	CUPTI(PmSamplingEnable(&enable));
	sampler.object = enable.pPmSamplingObject;
	CUPTI_PARAMS(CUpti_PmSampling_SetConfig, config);
	config.pPmSamplingObject = sampler.object;
	config.configSize = sampler.set.config_bytes;
	config.pConfig = sampler.set.config;
	config.hardwareBufferSize = HARDWARE_BYTES;
	config.samplingInterval = interval_ns;
	config.triggerMode = CUPTI_PM_SAMPLING_TRIGGER_MODE_GPU_TIME_INTERVAL;
	config.hwBufferAppendMode = CUPTI_PM_SAMPLING_HARDWARE_BUFFER_APPEND_MODE_KEEP_OLDEST;
	CUPTI(PmSamplingSetConfig(&config));
	CUPTI_PARAMS(CUpti_PmSampling_GetCounterDataSize, size);
	size.pPmSamplingObject = sampler.object;
	size.pMetricNames = (const char **)metrics;
	size.numMetrics = N_METRICS;
	size.maxSamples = BATCH;
	CUPTI(PmSamplingGetCounterDataSize(&size));
	sampler.image_bytes = size.counterDataSize;
	sampler.image = (uint8_t *)calloc(1, sampler.image_bytes);
	if (!sampler.image)
		return nx_fail(err, NX_ENOMEM, "no memory for %d samples of the device", BATCH);
	int rc = empty_image(cupti, err);
	if (rc)
		return rc;
	CUPTI_PARAMS(CUpti_PmSampling_Start, p);
	p.pPmSamplingObject = sampler.object;
	CUPTI(PmSamplingStart(&p));
	sampler.started = true;
	return 0;
}

int cu_sampling_check(void *dev, const char *chip, int32_t *passes, struct nx_err *err)
{
	struct metric_set m;
	const struct cupti *cupti = cupti_open(err);
	if (!cupti)
		return NX_EENV;
	int rc = metric_set_make(cupti, METRICS_OVER_TIME, (struct cuda_dev *)dev,
	                         dev ? NULL : chip, metrics, N_METRICS, &m, err);
	if (rc)
		return rc;
	*passes = m.passes;
	metric_set_free(cupti, &m);
	return 0;
}

int cu_sampling_begin(void *dev, uint64_t interval_ns, size_t max_samples, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	const struct cupti *cupti = cupti_open(err);
	if (!cupti)
		return NX_EENV;
	int rc = cupti_initialize(cupti, err);
	if (!rc)
		rc = cupti_check_support(cupti, d, CUPTI_PROFILER_PM_SAMPLING, err);
	if (!rc)
		rc = cupti_take(CUPTI_SAMPLES, err);
	if (rc)
		return rc;
	sampler.max_samples = max_samples;
	rc = metric_set_make(cupti, METRICS_OVER_TIME, d, NULL, metrics, N_METRICS, &sampler.set,
	                     err);
	if (!rc && sampler.set.passes != 1)
		rc = nx_fail(err, NX_ENOTSUP,
		             "cuda: %s cannot sample throughput of memory, SMs and tensor cores at "
		             "once: it wants %d passes",
		             sampler.set.chip, sampler.set.passes);
	if (!rc)
		rc = start(cupti, d, interval_ns, err);
	if (rc)
		close_sampler(cupti);
	return rc;
}

/* Sample i of the image. */
static int evaluate(const struct cupti *cupti, size_t i, struct nx_device_sample *to,
                    struct nx_err *err)
{
	double values[N_METRICS] = {NAN, NAN, NAN};
	CUPTI_PARAMS(CUpti_PmSampling_CounterData_GetSampleInfo, info);
	info.pPmSamplingObject = sampler.object;
	info.pCounterDataImage = sampler.image;
	info.counterDataImageSize = sampler.image_bytes;
	info.sampleIndex = i;
	CUPTI(PmSamplingCounterDataGetSampleInfo(&info));
	CUPTI_PARAMS(CUpti_Profiler_Host_EvaluateToGpuValues, p);
	p.pHostObject = sampler.set.host;
	p.pCounterDataImage = sampler.image;
	p.counterDataImageSize = sampler.image_bytes;
	p.rangeIndex = i;
	p.ppMetricNames = (const char **)metrics;
	p.numMetrics = N_METRICS;
	p.pMetricValues = values;
	CUPTI(ProfilerHostEvaluateToGpuValues(&p));
	to->begin_ns = info.startTimestamp;
	to->end_ns = info.endTimestamp;
	to->dram = values[0] / 100;
	to->sm = values[1] / 100;
	to->tensor = values[2] / 100;
	return 0;
}

/* What is in the hardware's buffer, batch by batch. */
static int decode(const struct cupti *cupti, struct nx_device_sample *out, size_t *n, size_t *lost,
                  struct nx_err *err)
{
	for (;;) {
		CUPTI_PARAMS(CUpti_PmSampling_DecodeData, d);
		d.pPmSamplingObject = sampler.object;
		d.pCounterDataImage = sampler.image;
		d.counterDataImageSize = sampler.image_bytes;
		CUPTI(PmSamplingDecodeData(&d));
		CUPTI_PARAMS(CUpti_PmSampling_GetCounterDataInfo, info);
		info.pCounterDataImage = sampler.image;
		info.counterDataImageSize = sampler.image_bytes;
		CUPTI(PmSamplingGetCounterDataInfo(&info));
		for (size_t i = 0; i < info.numCompletedSamples; i++) {
			if (*n == sampler.max_samples) {
				*lost += info.numCompletedSamples - i;
				break;
			}
			int rc = evaluate(cupti, i, &out[*n], err);
			if (rc)
				return rc;
			++*n;
		}
		*lost += d.overflow != 0; /* at least */
		if (d.decodeStopReason != CUPTI_PM_SAMPLING_DECODE_STOP_REASON_COUNTER_DATA_FULL ||
		    !info.numCompletedSamples)
			return 0;
		int rc = empty_image(cupti, err);
		if (rc)
			return rc;
	}
}

int cu_sampling_end(void *dev, struct nx_device_sample **out, size_t *n, size_t *lost,
                    struct nx_err *err)
{
	const struct cupti *cupti = cupti_open(err);
	*out = NULL;
	*n = *lost = 0;
	if (!cupti)
		return NX_EENV;
	if (cupti_use != CUPTI_SAMPLES)
		return nx_fail(err, NX_EINVAL, "cuda: the device is not being sampled");
	cudaError_t e = cudaDeviceSynchronize();
	CUPTI_PARAMS(CUpti_PmSampling_Stop, p);
	p.pPmSamplingObject = sampler.object;
	CUptiResult stopped = cupti->PmSamplingStop(&p);
	sampler.started = false;
	struct nx_device_sample *samples =
		(struct nx_device_sample *)calloc(sampler.max_samples + 1, sizeof(*samples));
	int rc = e != cudaSuccess           ? cu_fail(err, e, "the work that was sampled")
	         : stopped != CUPTI_SUCCESS ? cupti_fail(err, stopped, "cuptiPmSamplingStop")
	         : !samples ? nx_fail(err, NX_ENOMEM, "no memory for %zu samples of the device",
	                              sampler.max_samples)
	                    : decode(cupti, samples, n, lost, err);
	close_sampler(cupti);
	if (rc) {
		free(samples);
		*n = 0;
		return rc;
	}
	*out = samples;
	return 0;
}

void cu_sampling_free(void *dev, struct nx_device_sample *samples)
{
	free(samples);
}
#else
int cu_sampling_check(void *dev, const char *chip, int32_t *passes, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, CUPTI_MISSING);
}

int cu_sampling_begin(void *dev, uint64_t interval_ns, size_t max_samples, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, CUPTI_MISSING);
}

int cu_sampling_end(void *dev, struct nx_device_sample **out, size_t *n, size_t *lost,
                    struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, CUPTI_MISSING);
}

void cu_sampling_free(void *dev, struct nx_device_sample *samples)
{
}
#endif
