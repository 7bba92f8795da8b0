/* SPDX-License-Identifier: Apache-2.0
 *
 * test/fake_host.h: drives a technique without a harness: loads its shared object, makes values from text,
 * and gives it a host whose memory is counted and a device that runs enqueued work late.
 */
#ifndef NEXUS_TEST_FAKE_HOST_H
#define NEXUS_TEST_FAKE_HOST_H

#include "engine/registry.h"

struct fake_host {
	struct nx_host host;
	struct nx_plugin plugin;
	char path[512];
	struct nx_value values[16];
	void *self;
	size_t live_bytes;      /* allocated and not freed */
	struct fake_work *work; /* enqueued, not yet run */
	int32_t n_work, cap_work;
};

/* Loads $NEXUS_BUILD/techniques/<name>.so, or test-plugins/<name>.so, and makes values from
 * "key=value,key=value"; fails the test on error. batch_size places of one sequence each. The host's device
 * knows memory, streams, enqueue and copy alone; device memory begins as NaN. */
void fake_host_load(struct fake_host *f, const char *name, const char *values, int32_t batch_size);
/* Creates it, with what the test has changed in host. */
void fake_host_create(struct fake_host *f);
/* Both. */
void fake_host_open(struct fake_host *f, const char *name, const char *values, int32_t batch_size);
/* Destroys it and asserts that nothing is left allocated. */
void fake_host_close(struct fake_host *f);
/* Runs what was enqueued; so does stream_sync. */
void fake_host_run(struct fake_host *f);
double fake_host_counter(const struct fake_host *f, const char *name);

#endif
