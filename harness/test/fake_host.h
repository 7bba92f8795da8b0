/* SPDX-License-Identifier: Apache-2.0
 *
 * test/fake_host.h: drives a technique without a harness: loads its shared object, makes values from text,
 * and gives it a host whose memory is counted.
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
	size_t live_bytes; /* allocated and not freed */
};

/* Loads $NEXUS_BUILD/techniques/<name>.so and creates it with "key=value,key=value"; fails the test on
 * error. batch_size places of one sequence each. */
void fake_host_open(struct fake_host *f, const char *name, const char *values, int32_t batch_size);
/* Destroys it and asserts that nothing is left allocated. */
void fake_host_close(struct fake_host *f);
double fake_host_counter(const struct fake_host *f, const char *name);

#endif
