/* SPDX-License-Identifier: Apache-2.0
 *
 * wire.c: see wire.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/wire.h"

#define CALIBRATION_FIELDS(R, I)                                                                   \
	R(read_bytes_per_s)                                                                        \
	R(copy_bytes_per_s)                                                                        \
	R(cache_read_bytes_per_s)                                                                  \
	I(cache_set_bytes)                                                                         \
	I(mem_set_bytes)                                                                           \
	R(f32_flops_per_s)                                                                         \
	R(bf16_flops_per_s)                                                                        \
	R(blas_flops_per_s)

#define DEVICE_FIELDS(S, I)                                                                        \
	S(name)                                                                                    \
	S(isa)                                                                                     \
	S(blas)                                                                                    \
	I(mem_bytes)                                                                               \
	I(llc_bytes)                                                                               \
	I(free_bytes)                                                                              \
	I(n_units)                                                                                 \
	I(act_dtype)                                                                               \
	I(caps)

#define PUT_R(f) json_object_set_new(j, #f, json_real(from->f));
#define PUT_I(f) json_object_set_new(j, #f, json_integer((json_int_t)from->f));
#define PUT_S(f) json_object_set_new(j, #f, json_string_nocheck(from->f));
#define GET_R(f) out->f = json_number_value(json_object_get(j, #f));
#define GET_I(f) out->f = (__typeof__(out->f))json_integer_value(json_object_get(j, #f));
#define GET_S(f) copy_text(out->f, sizeof(out->f), json_object_get(j, #f));

static void copy_text(char *to, size_t size, const json_t *j)
{
	const char *s = json_string_value(j);
	snprintf(to, size, "%s", s ? s : "");
}

json_t *nx_wire_calibration(const struct nx_calibration *from)
{
	json_t *j = json_object();
	CALIBRATION_FIELDS(PUT_R, PUT_I)
	return j;
}

void nx_unwire_calibration(const json_t *j, struct nx_calibration *out)
{
	memset(out, 0, sizeof(*out));
	CALIBRATION_FIELDS(GET_R, GET_I)
}

json_t *nx_wire_device(const struct nx_device_info *from)
{
	json_t *j = json_object();
	DEVICE_FIELDS(PUT_S, PUT_I)
	return j;
}

void nx_unwire_device(const json_t *j, struct nx_device_info *out)
{
	memset(out, 0, sizeof(*out));
	DEVICE_FIELDS(GET_S, GET_I)
}

json_t *nx_wire_text(const char *s)
{
	json_t *j = json_string(s);
	if (j)
		return j;
	char plain[NX_ERR_MAX];
	snprintf(plain, sizeof(plain), "%s", s);
	for (char *p = plain; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return json_string(plain);
}

json_t *nx_wire_forecast(const struct nx_forecast *f)
{
	json_t *mem = json_array();
	for (size_t i = 0; i < f->n_mem; i++)
		json_array_append_new(mem,
		                      json_pack("{s:s, s:I}", "owner", f->mem[i].owner, "bytes",
		                                (json_int_t)f->mem[i].reserved_bytes));
	return json_pack("{s:o, s:I, s:i, s:i, s:i, s:f, s:f, s:o}", "mem", mem, "total",
	                 (json_int_t)f->total_bytes, "longest", f->longest, "batch", f->batch_size,
	                 "code", f->code, "mean_in", f->mean_in, "mean_out", f->mean_out, "reason",
	                 nx_wire_text(f->reason));
}

void nx_unwire_forecast(const json_t *j, struct nx_forecast *out)
{
	memset(out, 0, sizeof(*out));
	size_t i;
	const json_t *m, *mem = json_object_get(j, "mem");
	json_array_foreach(mem, i, m)
	{
		if (out->n_mem == NX_TRIAL_MEM_MAX)
			break;
		struct nx_mem_use *to = &out->mem[out->n_mem++];
		copy_text(to->owner, sizeof(to->owner), json_object_get(m, "owner"));
		to->reserved_bytes = (uint64_t)json_integer_value(json_object_get(m, "bytes"));
	}
	out->total_bytes = (uint64_t)json_integer_value(json_object_get(j, "total"));
	out->longest = (int32_t)json_integer_value(json_object_get(j, "longest"));
	out->batch_size = (int32_t)json_integer_value(json_object_get(j, "batch"));
	out->code = (int)json_integer_value(json_object_get(j, "code"));
	out->mean_in = json_number_value(json_object_get(j, "mean_in"));
	out->mean_out = json_number_value(json_object_get(j, "mean_out"));
	copy_text(out->reason, sizeof(out->reason), json_object_get(j, "reason"));
}

int nx_wire_send(int fd, json_t *msg, struct nx_err *err)
{
	char *text = msg ? json_dumps(msg, JSON_COMPACT) : NULL;
	json_decref(msg);
	if (!text)
		return nx_fail(err, NX_ENOMEM,
		               "no memory for a message between nexus and its worker");
	size_t len = strlen(text), at = 0;
	int rc = 0;
	text[len++] = '\n'; /* in place of the NUL */
	while (at < len && !rc) {
		ssize_t n = send(fd, text + at, len - at, MSG_NOSIGNAL);
		if (n > 0)
			at += (size_t)n;
		else if (errno != EINTR)
			rc = nx_fail(err, NX_EIO,
			             "the other side of the worker's socket is gone: %s",
			             strerror(errno));
	}
	free(text);
	return rc;
}
