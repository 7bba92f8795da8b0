/* SPDX-License-Identifier: Apache-2.0
 *
 * instruments_counters.cpp: hardware counters by range, through CUPTI's range profiler: user ranges, user replay, and
 * one pass, so that nothing is run twice and no kernel is taken apart from its neighbours. A batch of ranges is counted
 * into one image of CUPTI, which is evaluated when it is full or read; the next range_begin starts the next batch.
 *
 * Inside CUPTI ranges are called by their number, so that two of one name stay two.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/instruments.cuh"

#if CU_HAVE_CUPTI
#define MAX_BATCH 512 /* CUPTI refuses images of some thousand ranges */

struct nx_counters {
	const struct cupti *cupti;
	struct metric_set set;
	char (*names)[NX_METRIC_NAME]; /* [n_metrics]: metrics holds pointers to them */
	const char **metrics;
	int32_t n_metrics, max_ranges, batch; /* batch: ranges of an image */
	CUpti_RangeProfiler_Object *profiler; /* NULL: not enabled */
	uint8_t *image;
	size_t image_bytes;
	struct nx_range *ranges; /* [max_ranges] */
	double *values;          /* [max_ranges, n_metrics] */
	int32_t n_ranges;        /* begun and ended */
	int32_t n_read;          /* of them evaluated: the others are in the image */
	bool started, open;
};

static int alloc_counters(struct nx_counters *c, const char *const *metrics, struct nx_err *err)
{
	size_t n = (size_t)c->n_metrics, r = (size_t)c->max_ranges;
	c->names = (char(*)[NX_METRIC_NAME])calloc(n, sizeof(*c->names));
	c->metrics = (const char **)calloc(n, sizeof(*c->metrics));
	c->ranges = (struct nx_range *)calloc(r, sizeof(*c->ranges));
	c->values = (double *)calloc(r * n, sizeof(*c->values));
	if (!c->names || !c->metrics || !c->ranges || !c->values)
		return nx_fail(err, NX_ENOMEM, "no memory for %d ranges of %d metrics",
		               c->max_ranges, c->n_metrics);
	for (size_t i = 0; i < n; i++) {
		snprintf(c->names[i], sizeof(c->names[i]), "%s", metrics[i]);
		c->metrics[i] = c->names[i];
	}
	for (size_t i = 0; i < r; i++)
		c->ranges[i].values = c->values + i * n;
	for (size_t i = 0; i < r * n; i++)
		c->values[i] = NAN;
	return 0;
}

int cupti_check_support(const struct cupti *cupti, const struct cuda_dev *d, CUpti_Profiler_API api,
                        struct nx_err *err)
{
	CUPTI_PARAMS(CUpti_Profiler_DeviceSupported, p);
	p.cuDevice = d->index;
	p.api = api;
	CUPTI(ProfilerDeviceSupported(&p));
	if (p.isSupported == CUPTI_PROFILER_CONFIGURATION_SUPPORTED)
		return 0;
	const struct {
		CUpti_Profiler_Support_Level level;
		const char *what;
	} causes[] = {{p.architecture, "its architecture"},
	              {p.sli, "SLI"},
	              {p.vGpu, "its being a virtual GPU, whose host has not allowed it"},
	              {p.confidentialCompute, "confidential computing"},
	              {p.cmp, "its being a mining card"},
	              {p.wsl, "WSL"}};
	for (auto &x : causes)
		if (x.level != CUPTI_PROFILER_CONFIGURATION_SUPPORTED)
			return nx_fail(err, NX_ENOTSUP,
			               "cuda:%d has no counters for us: %s forbids it", d->index,
			               x.what);
	return nx_fail(err, NX_ENOTSUP, "cuda:%d has no counters for us", d->index);
}

/* The context of the thread: the device's, since the thread drives it. The driver is not linked, but asked for. */
static int current_context(CUcontext *out, struct nx_err *err)
{
	void *fn = NULL;
	cudaDriverEntryPointQueryResult found;
	CU(cudaGetDriverEntryPointByVersion("cuCtxGetCurrent", &fn, 12000, cudaEnableDefault,
	                                    &found));
	if (!fn || ((CUresult(*)(CUcontext *))fn)(out) != CUDA_SUCCESS || !*out)
		return nx_fail(err, NX_EENV, "cuda: this thread has no CUDA context to count in");
	return 0;
}

static int enable(struct nx_counters *c, struct nx_err *err)
{
	const struct cupti *cupti = c->cupti;
	CUPTI_PARAMS(CUpti_RangeProfiler_Enable, p);
	int rc = current_context(&p.ctx, err);
	if (rc)
		return rc;
	CUPTI(RangeProfilerEnable(&p));
	c->profiler = p.pRangeProfilerObject;
	CUPTI_PARAMS(CUpti_RangeProfiler_GetCounterDataSize, size);
	size.pRangeProfilerObject = c->profiler;
	size.pMetricNames = c->metrics;
	size.numMetrics = (size_t)c->n_metrics;
	size.maxNumOfRanges = (size_t)c->batch;
	size.maxNumRangeTreeNodes = (uint32_t)c->batch;
	CUPTI(RangeProfilerGetCounterDataSize(&size));
	c->image_bytes = size.counterDataSize;
	c->image = (uint8_t *)calloc(1, c->image_bytes);
	return c->image ? 0
	                : nx_fail(err, NX_ENOMEM, "no memory for the counters of %d ranges",
	                          c->max_ranges);
}

int cu_counters_open(void *dev, const char *const *metrics, int32_t n, int32_t max_ranges,
                     struct nx_counters **out, struct nx_err *err)
{
	struct cuda_dev *d = (struct cuda_dev *)dev;
	const struct cupti *cupti = cupti_open(err);
	if (!cupti)
		return NX_EENV;
	if (max_ranges <= 0)
		return nx_fail(err, NX_EINVAL, "cuda: room for %d ranges; legal: 1 or more",
		               max_ranges);
	int rc = cupti_initialize(cupti, err);
	if (!rc)
		rc = cupti_check_support(cupti, d, CUPTI_PROFILER_RANGE_PROFILING, err);
	if (!rc)
		rc = cupti_take(CUPTI_COUNTS, err);
	if (rc)
		return rc;
	struct nx_counters *c = (struct nx_counters *)calloc(1, sizeof(*c));
	if (!c) {
		cupti_use = CUPTI_FREE;
		return nx_fail(err, NX_ENOMEM, "no memory for counters");
	}
	c->cupti = cupti;
	c->max_ranges = max_ranges;
	c->batch = max_ranges < MAX_BATCH ? max_ranges : MAX_BATCH;
	rc = metric_set_make(cupti, METRICS_BY_RANGE, d, NULL, metrics, n, &c->set, err);
	if (!rc && c->set.passes != 1)
		rc = nx_fail(
			err, NX_ENOTSUP,
			"cuda: these %d metrics want %d passes, and work is run once: 1 is legal; "
			"split them into sets",
			n, c->set.passes);
	if (!rc) {
		c->n_metrics = n;
		rc = alloc_counters(c, metrics, err);
	}
	if (!rc)
		rc = enable(c, err);
	if (rc) {
		cu_counters_close(dev, c);
		return rc;
	}
	*out = c;
	return 0;
}

/* Starts a batch: an empty image, and the profiler waiting for ranges. */
static int start(struct nx_counters *c, struct nx_err *err)
{
	const struct cupti *cupti = c->cupti;
	CUPTI_PARAMS(CUpti_RangeProfiler_CounterDataImage_Initialize, image);
	image.pRangeProfilerObject = c->profiler;
	image.counterDataSize = c->image_bytes;
	image.pCounterData = c->image;
	CUPTI(RangeProfilerCounterDataImageInitialize(&image));
	CUPTI_PARAMS(CUpti_RangeProfiler_SetConfig, p);
	p.pRangeProfilerObject = c->profiler;
	p.configSize = c->set.config_bytes;
	p.pConfig = c->set.config;
	p.counterDataImageSize = c->image_bytes;
	p.pCounterDataImage = c->image;
	p.range = CUPTI_UserRange;
	p.replayMode = CUPTI_UserReplay;
	p.maxRangesPerPass = (size_t)c->batch;
	p.numNestingLevels = 1;
	p.minNestingLevel = 1;
	p.passIndex = 0;
	p.targetNestingLevel = 1;
	CUPTI(RangeProfilerSetConfig(&p));
	CUPTI_PARAMS(CUpti_RangeProfiler_Start, s);
	s.pRangeProfilerObject = c->profiler;
	CUPTI(RangeProfilerStart(&s));
	c->started = true;
	return 0;
}

static int stop(struct nx_counters *c, struct nx_err *err)
{
	const struct cupti *cupti = c->cupti;
	c->started = false;
	CUPTI_PARAMS(CUpti_RangeProfiler_Stop, p);
	p.pRangeProfilerObject = c->profiler;
	CUPTI(RangeProfilerStop(&p));
	return p.isAllPassSubmitted ? 0 : nx_fail(err, NX_EBUG, "cuda: CUPTI wants another pass");
}

/* Evaluates the range that is the i-th of the image. */
static int evaluate(struct nx_counters *c, size_t i, struct nx_err *err)
{
	const struct cupti *cupti = c->cupti;
	CUPTI_PARAMS(CUpti_RangeProfiler_CounterData_GetRangeInfo, info);
	info.pCounterDataImage = c->image;
	info.counterDataImageSize = c->image_bytes;
	info.rangeIndex = i;
	info.rangeDelimiter = "/";
	CUPTI(RangeProfilerCounterDataGetRangeInfo(&info));
	long at = info.rangeName ? strtol(info.rangeName, NULL, 10) : -1;
	if (at < c->n_read || at >= c->n_ranges)
		return nx_fail(err, NX_EBUG,
		               "cuda: CUPTI counted a range \"%.32s\" that nobody began",
		               info.rangeName ? info.rangeName : "");
	CUPTI_PARAMS(CUpti_Profiler_Host_EvaluateToGpuValues, p);
	p.pHostObject = c->set.host;
	p.pCounterDataImage = c->image;
	p.counterDataImageSize = c->image_bytes;
	p.rangeIndex = i;
	p.ppMetricNames = c->metrics;
	p.numMetrics = (size_t)c->n_metrics;
	p.pMetricValues = c->ranges[at].values;
	CUPTI(ProfilerHostEvaluateToGpuValues(&p));
	return 0;
}

/* The batch so far; what was dropped stays NaN. */
static int finish_batch(struct nx_counters *c, struct nx_err *err)
{
	const struct cupti *cupti = c->cupti;
	int rc = stop(c, err);
	if (rc)
		return rc;
	CUPTI_PARAMS(CUpti_RangeProfiler_DecodeData, d);
	d.pRangeProfilerObject = c->profiler;
	CUPTI(RangeProfilerDecodeData(&d));
	CUPTI_PARAMS(CUpti_RangeProfiler_GetCounterDataInfo, info);
	info.pCounterDataImage = c->image;
	info.counterDataImageSize = c->image_bytes;
	CUPTI(RangeProfilerGetCounterDataInfo(&info));
	for (size_t i = 0; i < info.numTotalRanges && !rc; i++)
		rc = evaluate(c, i, err);
	c->n_read = c->n_ranges;
	return rc;
}

int cu_range_begin(void *dev, struct nx_counters *c, const char *name, struct nx_err *err)
{
	const struct cupti *cupti = c->cupti;
	char number[16];
	if (c->open)
		return nx_fail(err, NX_EINVAL, "cuda: the range \"%s\" is open; end it first",
		               c->ranges[c->n_ranges].name);
	if (c->n_ranges == c->max_ranges)
		return nx_fail(err, NX_ENOSPC,
		               "cuda: all %d ranges are used; open counters for more",
		               c->max_ranges);
	CU(cudaDeviceSynchronize());
	int rc = c->started && c->n_ranges - c->n_read == c->batch ? finish_batch(c, err) : 0;
	if (!rc && !c->started)
		rc = start(c, err);
	if (rc)
		return rc;
	snprintf(number, sizeof(number), "%d", c->n_ranges);
	CUPTI_PARAMS(CUpti_RangeProfiler_PushRange, p);
	p.pRangeProfilerObject = c->profiler;
	p.pRangeName = number;
	CUPTI(RangeProfilerPushRange(&p));
	snprintf(c->ranges[c->n_ranges].name, NX_RANGE_NAME, "%s", name);
	c->open = true;
	return 0;
}

int cu_range_end(void *dev, struct nx_counters *c, struct nx_err *err)
{
	const struct cupti *cupti = c->cupti;
	if (!c->open)
		return nx_fail(err, NX_EINVAL, "cuda: no range is open");
	cudaError_t e = cudaDeviceSynchronize();
	CUPTI_PARAMS(CUpti_RangeProfiler_PopRange, p);
	p.pRangeProfilerObject = c->profiler;
	c->open = false; /* also after an error: it is then a range without values */
	c->n_ranges++;
	CUPTI(RangeProfilerPopRange(&p));
	return e == cudaSuccess ? 0 : cu_fail(err, e, "the work of a range");
}

int cu_counters_read(void *dev, struct nx_counters *c, const struct nx_range **out, int32_t *n,
                     struct nx_err *err)
{
	if (c->open)
		return nx_fail(err, NX_EINVAL, "cuda: the range \"%s\" is open; end it first",
		               c->ranges[c->n_ranges].name);
	int rc = c->started ? finish_batch(c, err) : 0;
	*out = c->ranges;
	*n = c->n_ranges;
	return rc;
}

void cu_counters_close(void *dev, struct nx_counters *c)
{
	if (!c)
		return;
	if (c->open)
		(void)cu_range_end(dev, c, NULL);
	if (c->started)
		(void)stop(c, NULL);
	if (c->profiler) {
		CUPTI_PARAMS(CUpti_RangeProfiler_Disable, p);
		p.pRangeProfilerObject = c->profiler;
		c->cupti->RangeProfilerDisable(&p);
	}
	/* cuptiProfilerDeInitialize is left out: it counts no users, and the second call would crash. */
	metric_set_free(c->cupti, &c->set);
	free(c->image);
	free(c->values);
	free(c->ranges);
	free(c->metrics);
	free(c->names);
	free(c);
	cupti_use = CUPTI_FREE;
}
#else
int cu_counters_open(void *dev, const char *const *metrics, int32_t n, int32_t max_ranges,
                     struct nx_counters **out, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, CUPTI_MISSING);
}

int cu_range_begin(void *dev, struct nx_counters *c, const char *name, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, CUPTI_MISSING);
}

int cu_range_end(void *dev, struct nx_counters *c, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, CUPTI_MISSING);
}

int cu_counters_read(void *dev, struct nx_counters *c, const struct nx_range **out, int32_t *n,
                     struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, CUPTI_MISSING);
}

void cu_counters_close(void *dev, struct nx_counters *c)
{
}
#endif
