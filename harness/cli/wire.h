/* SPDX-License-Identifier: Apache-2.0
 *
 * cli/wire.h: what `nexus run` and its worker say to each other: JSON objects, one a line, on a socket.
 *
 *     to the worker                                    from it
 *     {"op":"start","calibrate":seconds,               {"ready":...,"instruments":bool} or {"error":code,"message":...}
 *      "profile":bool}
 *     {"op":"forecast","cell":i,"id":...}              {"forecast":...}
 *     {"op":"profile","cell":i,"id":...,"round":r,     the same; instruments of the device, no timing
 *      "dir":shards}
 *     {"op":"trial","cell":i,"id":...,"round":r,       {"phase":name}*, then {"status":...,"cause":...}
 *      "dir":shards}                                   or {"error":...} when the shard cannot be written
 *
 * start may carry "calibration" (of an earlier worker) instead of "calibrate". The worker ends when the
 * socket closes.
 */
#ifndef NEXUS_CLI_WIRE_H
#define NEXUS_CLI_WIRE_H

#include <jansson.h>

#include "measure/runner.h"

/* Each returns a new reference, or NULL when out of memory. */
json_t *nx_wire_calibration(const struct nx_calibration *c);
json_t *nx_wire_device(const struct nx_device_info *d);
json_t *nx_wire_forecast(const struct nx_forecast *f);
/* A sentence, which may hold anything a plugin or a file name holds; what is no UTF-8 becomes '?'. */
json_t *nx_wire_text(const char *s);
/* Missing members read as 0 or "". */
void nx_unwire_calibration(const json_t *j, struct nx_calibration *out);
void nx_unwire_device(const json_t *j, struct nx_device_info *out);
void nx_unwire_forecast(const json_t *j, struct nx_forecast *out);

/* Writes msg and a newline to fd; steals msg (NULL = out of memory). */
int nx_wire_send(int fd, json_t *msg, struct nx_err *err);

#endif
