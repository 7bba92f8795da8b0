/* SPDX-License-Identifier: Apache-2.0
 *
 * instruments_metrics.cpp: which metrics a chip has, and in how many passes it can count them. All of it is
 * arithmetic of the host: with a chip's name it needs neither a device nor a driver.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/instruments.cuh"

#if CU_HAVE_CUPTI
void metric_set_free(const struct cupti *cupti, struct metric_set *m)
{
	CUPTI_PARAMS(CUpti_Profiler_Host_Deinitialize, p);
	p.pHostObject = m->host;
	if (m->host)
		cupti->ProfilerHostDeinitialize(&p);
	free(m->available);
	free(m->config);
	*m = {};
}

/* What this very device can count (parts of a chip may be fused off), to be freed; NULL where it does not say: while it
 * is being profiled, or without the right to. Then the chip's name has to do. */
static uint8_t *availability(const struct cupti *cupti)
{
	CUPTI_PARAMS(CUpti_Profiler_GetCounterAvailability, p);
	if (cupti->ProfilerGetCounterAvailability(&p) != CUPTI_SUCCESS ||
	    !p.counterAvailabilityImageSize)
		return NULL;
	p.pCounterAvailabilityImage = (uint8_t *)calloc(1, p.counterAvailabilityImageSize);
	if (p.pCounterAvailabilityImage &&
	    cupti->ProfilerGetCounterAvailability(&p) != CUPTI_SUCCESS) {
		free(p.pCounterAvailabilityImage);
		return NULL;
	}
	return p.pCounterAvailabilityImage;
}

static int unknown_chip(const struct cupti *cupti, const char *chip, struct nx_err *err)
{
	char list[256] = "";
	size_t n = 0;
	CUPTI_PARAMS(CUpti_Profiler_Host_GetSupportedChips, p);
	if (cupti->ProfilerHostGetSupportedChips(&p) == CUPTI_SUCCESS)
		for (size_t i = 0; i < p.numChips && n < sizeof(list); i++)
			n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "",
			                      p.ppChipNames[i]);
	return nx_fail(err, NX_EINVAL, "cuda: CUPTI knows no chip \"%.32s\"; legal: %s", chip,
	               list);
}

static int open_host(const struct cupti *cupti, struct cuda_dev *dev, struct metric_set *m,
                     struct nx_err *err)
{
	/* What it can sample is another image, without which the chip's name has to do. */
	m->available = dev && m->use == METRICS_BY_RANGE ? availability(cupti) : NULL;
	CUPTI_PARAMS(CUpti_Profiler_Host_Initialize, p);
	p.profilerType = m->use == METRICS_BY_RANGE ? CUPTI_PROFILER_TYPE_RANGE_PROFILER
	                                            : CUPTI_PROFILER_TYPE_PM_SAMPLING;
	p.pChipName = m->chip;
	p.pCounterAvailabilityImage = m->available;
	CUptiResult rc = cupti->ProfilerHostInitialize(&p);
	if (rc == CUPTI_ERROR_INVALID_CHIP_NAME)
		return unknown_chip(cupti, m->chip, err);
	if (rc != CUPTI_SUCCESS)
		return cupti_fail(err, rc, "cuptiProfilerHostInitialize");
	m->host = p.pHostObject;
	return 0;
}

static bool is_metric(const struct cupti *cupti, const struct metric_set *m, const char *name)
{
	CUPTI_PARAMS(CUpti_Profiler_Host_GetMetricProperties, p);
	p.pHostObject = m->host;
	p.pMetricName = name;
	return cupti->ProfilerHostGetMetricProperties(&p) == CUPTI_SUCCESS;
}

/* After an error for all of them: a metric without its rollup has properties, but cannot be counted, and a device may
 * lack what its chip has. Says which it is, by trying them alone. */
static int blame(const struct cupti *cupti, struct cuda_dev *dev, const struct metric_set *m,
                 const char *const *metrics, int32_t n, CUptiResult rc, struct nx_err *err)
{
	for (int32_t i = 0; i < n; i++) {
		struct metric_set one = {};
		one.chip = m->chip;
		one.use = m->use;
		CUptiResult alone = CUPTI_SUCCESS;
		if (!open_host(cupti, dev, &one, NULL)) {
			CUPTI_PARAMS(CUpti_Profiler_Host_ConfigAddMetrics, p);
			p.pHostObject = one.host;
			p.ppMetricNames = (const char **)metrics + i;
			p.numMetrics = 1;
			alone = cupti->ProfilerHostConfigAddMetrics(&p);
		}
		metric_set_free(cupti, &one);
		if (alone == CUPTI_ERROR_INVALID_PARAMETER)
			return metric_unknown(cupti, m->host, m->chip, metrics[i], err);
		if (alone != CUPTI_SUCCESS)
			return nx_fail(err, NX_ENOTSUP,
			               "cuda: this device does not count \"%s\", though %s has it",
			               metrics[i], m->chip);
	}
	return cupti_fail(err, rc, "cuptiProfilerHostConfigAddMetrics");
}

static int add_metrics(const struct cupti *cupti, struct cuda_dev *dev, struct metric_set *m,
                       const char *const *metrics, int32_t n, struct nx_err *err)
{
	for (int32_t i = 0; i < n; i++)
		if (strlen(metrics[i]) >= NX_METRIC_NAME || !is_metric(cupti, m, metrics[i]))
			return metric_unknown(cupti, m->host, m->chip, metrics[i], err);
	CUPTI_PARAMS(CUpti_Profiler_Host_ConfigAddMetrics, p);
	p.pHostObject = m->host;
	p.ppMetricNames = (const char **)metrics;
	p.numMetrics = (size_t)n;
	CUptiResult rc = cupti->ProfilerHostConfigAddMetrics(&p);
	if (rc == CUPTI_SUCCESS)
		return 0;
	if (rc == CUPTI_ERROR_NOT_SUPPORTED)
		return nx_fail(
			err, NX_ENOTSUP,
			"cuda: %s cannot count these %d metrics over one range, in any number of passes; "
			"split them (those of PCIe and NVLink want a set of their own)",
			m->chip, n);
	return blame(cupti, dev, m, metrics, n, rc, err);
}

static int make_config(const struct cupti *cupti, struct metric_set *m, struct nx_err *err)
{
	CUPTI_PARAMS(CUpti_Profiler_Host_GetConfigImageSize, size);
	size.pHostObject = m->host;
	CUPTI(ProfilerHostGetConfigImageSize(&size));
	m->config_bytes = size.configImageSize;
	m->config = (uint8_t *)calloc(1, m->config_bytes);
	if (!m->config)
		return nx_fail(err, NX_ENOMEM, "no memory for the set-up of counters");
	CUPTI_PARAMS(CUpti_Profiler_Host_GetConfigImage, image);
	image.pHostObject = m->host;
	image.configImageSize = m->config_bytes;
	image.pConfigImage = m->config;
	CUPTI(ProfilerHostGetConfigImage(&image));
	CUPTI_PARAMS(CUpti_Profiler_Host_GetNumOfPasses, passes);
	passes.configImageSize = m->config_bytes;
	passes.pConfigImage = m->config;
	CUPTI(ProfilerHostGetNumOfPasses(&passes));
	m->passes = (int32_t)passes.numOfPasses;
	return 0;
}

static int chip_of(const struct cupti *cupti, const struct cuda_dev *dev, const char **chip,
                   struct nx_err *err)
{
	CUPTI_PARAMS(CUpti_Device_GetChipName, p);
	if (!dev)
		return nx_fail(err, NX_EINVAL, "cuda: neither a device nor a chip was named");
	p.deviceIndex = (size_t)dev->index;
	int rc = cupti_initialize(cupti, err);
	if (rc)
		return rc;
	CUPTI(DeviceGetChipName(&p));
	*chip = p.pChipName;
	return 0;
}

int metric_set_make(const struct cupti *cupti, enum metric_use use, struct cuda_dev *dev,
                    const char *chip, const char *const *metrics, int32_t n, struct metric_set *out,
                    struct nx_err *err)
{
	*out = {};
	out->use = use;
	if (n <= 0)
		return nx_fail(err, NX_EINVAL, "cuda: no metric was named");
	out->chip = chip;
	int rc = chip ? 0 : chip_of(cupti, dev, &out->chip, err);
	if (!rc)
		rc = open_host(cupti, chip ? NULL : dev, out, err);
	if (!rc)
		rc = add_metrics(cupti, chip ? NULL : dev, out, metrics, n, err);
	if (!rc)
		rc = make_config(cupti, out, err);
	if (rc)
		metric_set_free(cupti, out);
	return rc;
}

int cu_metrics_check(void *dev, const char *chip, const char *const *metrics, int32_t n,
                     int32_t *passes, struct nx_err *err)
{
	struct metric_set m;
	const struct cupti *cupti = cupti_open(err);
	if (!cupti)
		return NX_EENV;
	/* With a device, the device is meant: "or on the chip of that name where dev is NULL". */
	int rc = metric_set_make(cupti, METRICS_BY_RANGE, (struct cuda_dev *)dev, dev ? NULL : chip,
	                         metrics, n, &m, err);
	if (rc)
		return rc;
	*passes = m.passes;
	metric_set_free(cupti, &m);
	return 0;
}
#else
int cu_metrics_check(void *dev, const char *chip, const char *const *metrics, int32_t n,
                     int32_t *passes, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, CUPTI_MISSING);
}
#endif
