/* SPDX-License-Identifier: Apache-2.0
 *
 * instruments.cpp: counters, traces and telemetry; see nexus/instruments.h.
 */
#include "cuda/dev.cuh"

#include "nexus/instruments.h"

extern const struct nx_instrument_ops cu_instruments = {};
