/* SPDX-License-Identifier: Apache-2.0
 *
 * calibrate.cu: peak rates of this device.
 */
#include "cuda/dev.cuh"

int cu_calibrate(void *dev, double seconds, struct nx_calibration *out, struct nx_err *err)
{
	return nx_fail(err, NX_ENOTSUP, "cuda: not there yet");
}

