/* SPDX-License-Identifier: Apache-2.0
 *
 * See gguf.h: the getters.
 */
#include <math.h>
#include <string.h>

#include "model/gguf_internal.h"

static const struct {
	const char *name;
	size_t bytes;
} value_types[] = {
	[NX_GGUF_V_U8] = {"u8", 1},         [NX_GGUF_V_I8] = {"i8", 1},
	[NX_GGUF_V_U16] = {"u16", 2},       [NX_GGUF_V_I16] = {"i16", 2},
	[NX_GGUF_V_U32] = {"u32", 4},       [NX_GGUF_V_I32] = {"i32", 4},
	[NX_GGUF_V_F32] = {"f32", 4},       [NX_GGUF_V_BOOL] = {"bool", 1},
	[NX_GGUF_V_STRING] = {"string", 0}, [NX_GGUF_V_ARRAY] = {"array", 0},
	[NX_GGUF_V_U64] = {"u64", 8},       [NX_GGUF_V_I64] = {"i64", 8},
	[NX_GGUF_V_F64] = {"f64", 8},
};

#define N_VALUE_TYPES (sizeof(value_types) / sizeof(value_types[0]))

const char *nx_gguf_value_type_name(uint32_t type)
{
	return type < N_VALUE_TYPES ? value_types[type].name : "unknown";
}

size_t nx_gguf_value_bytes(uint32_t type)
{
	return type < N_VALUE_TYPES ? value_types[type].bytes : 0;
}

const char *nx_gguf_type_name(int type)
{
	switch (type) {
#define X(name, value, elems, bytes)                                                               \
	case value: return #name;
		NX_GGUF_TYPES(X)
#undef X
	}
	return NULL;
}

int nx_gguf_block_elems(enum nx_gguf_type type)
{
	switch (type) {
#define X(name, value, elems, bytes)                                                               \
	case NX_GGUF_##name: return elems;
		NX_GGUF_TYPES(X)
#undef X
	}
	return 0;
}

int nx_gguf_block_bytes(enum nx_gguf_type type)
{
	switch (type) {
#define X(name, value, elems, bytes)                                                               \
	case NX_GGUF_##name: return bytes;
		NX_GGUF_TYPES(X)
#undef X
	}
	return 0;
}

const char *nx_gguf_path(const struct nx_gguf *g)
{
	return g->path;
}

uint32_t nx_gguf_version(const struct nx_gguf *g)
{
	return g->version;
}

uint64_t nx_gguf_file_bytes(const struct nx_gguf *g)
{
	return g->size;
}

int64_t nx_gguf_n_tensors(const struct nx_gguf *g)
{
	return (int64_t)g->n_tensors;
}

const struct nx_tensor *nx_gguf_tensor_at(const struct nx_gguf *g, int64_t i)
{
	return i >= 0 && (uint64_t)i < g->n_tensors ? &g->tensors[i] : NULL;
}

const struct nx_tensor *nx_gguf_tensor(const struct nx_gguf *g, const char *name)
{
	uint32_t i;
	return nx_strmap_get(&g->tensor_by_name, name, strlen(name), &i) ? &g->tensors[i] : NULL;
}

const struct nx_gguf_kv *nx_gguf_find_kv(const struct nx_gguf *g, const char *key)
{
	uint32_t i;
	return nx_strmap_get(&g->kv_by_name, key, strlen(key), &i) ? &g->kvs[i] : NULL;
}

static int wrong_type(const struct nx_gguf *g, const struct nx_gguf_kv *kv, const char *legal,
                      struct nx_err *err)
{
	return nx_fail(err, NX_EFORMAT, "%.200s: key %s at byte %llu has type %s; legal: %s",
	               g->path, kv->name, (unsigned long long)kv->at,
	               nx_gguf_value_type_name(kv->type), legal);
}

/* The integer of kv, whatever its width; *negative tells a signed value below zero. */
static bool as_u64(const struct nx_gguf_kv *kv, uint64_t *out, bool *negative)
{
	int64_t s = 0;
	*negative = false;
	switch (kv->type) {
	case NX_GGUF_V_U8: *out = *kv->scalar; return true;
	case NX_GGUF_V_U16: {
		uint16_t v;
		memcpy(&v, kv->scalar, 2);
		*out = v;
		return true;
	}
	case NX_GGUF_V_U32: {
		uint32_t v;
		memcpy(&v, kv->scalar, 4);
		*out = v;
		return true;
	}
	case NX_GGUF_V_U64: memcpy(out, kv->scalar, 8); return true;
	case NX_GGUF_V_I8: {
		int8_t v;
		memcpy(&v, kv->scalar, 1);
		s = v;
		break;
	}
	case NX_GGUF_V_I16: {
		int16_t v;
		memcpy(&v, kv->scalar, 2);
		s = v;
		break;
	}
	case NX_GGUF_V_I32: {
		int32_t v;
		memcpy(&v, kv->scalar, 4);
		s = v;
		break;
	}
	case NX_GGUF_V_I64: memcpy(&s, kv->scalar, 8); break;
	default: return false;
	}
	*negative = s < 0;
	*out = (uint64_t)s;
	return true;
}

int nx_gguf_get_u32(const struct nx_gguf *g, const char *key, uint32_t *out, struct nx_err *err)
{
	const struct nx_gguf_kv *kv = nx_gguf_find_kv(g, key);
	uint64_t v;
	bool negative;
	if (!kv)
		return 0;
	if (!as_u64(kv, &v, &negative))
		return wrong_type(g, kv, "an integer", err);
	if (negative)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key %s at byte %llu is %lld; legal: 0 to 4294967295",
		               g->path, kv->name, (unsigned long long)kv->at, (long long)v);
	if (v > UINT32_MAX)
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key %s at byte %llu is %llu; legal: 0 to 4294967295",
		               g->path, kv->name, (unsigned long long)kv->at,
		               (unsigned long long)v);
	*out = (uint32_t)v;
	return 1;
}

int nx_gguf_get_f32(const struct nx_gguf *g, const char *key, float *out, struct nx_err *err)
{
	const struct nx_gguf_kv *kv = nx_gguf_find_kv(g, key);
	float f;
	if (!kv)
		return 0;
	if (kv->type == NX_GGUF_V_F32) {
		memcpy(&f, kv->scalar, 4);
	} else if (kv->type == NX_GGUF_V_F64) {
		double d;
		memcpy(&d, kv->scalar, 8);
		f = (float)d;
	} else {
		return wrong_type(g, kv, "f32", err);
	}
	if (!isfinite(f))
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: key %s at byte %llu is not a finite number", g->path,
		               kv->name, (unsigned long long)kv->at);
	*out = f;
	return 1;
}

int nx_gguf_get_bool(const struct nx_gguf *g, const char *key, bool *out, struct nx_err *err)
{
	const struct nx_gguf_kv *kv = nx_gguf_find_kv(g, key);
	if (!kv)
		return 0;
	if (kv->type != NX_GGUF_V_BOOL)
		return wrong_type(g, kv, "bool", err);
	*out = *kv->scalar != 0;
	return 1;
}

int nx_gguf_get_str(const struct nx_gguf *g, const char *key, struct nx_gguf_str *out,
                    struct nx_err *err)
{
	const struct nx_gguf_kv *kv = nx_gguf_find_kv(g, key);
	if (!kv)
		return 0;
	if (kv->type != NX_GGUF_V_STRING)
		return wrong_type(g, kv, "string", err);
	*out = kv->str;
	return 1;
}

int nx_gguf_get_array(const struct nx_gguf *g, const char *key, enum nx_gguf_value_type elem_type,
                      struct nx_gguf_array *out, struct nx_err *err)
{
	const struct nx_gguf_kv *kv = nx_gguf_find_kv(g, key);
	if (!kv)
		return 0;
	if (kv->type != NX_GGUF_V_ARRAY)
		return wrong_type(g, kv, "array", err);
	if (kv->arr.type != elem_type)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: key %s at byte %llu is an array of %s; legal: an array of %s",
			g->path, kv->name, (unsigned long long)kv->at,
			nx_gguf_value_type_name(kv->arr.type), nx_gguf_value_type_name(elem_type));
	*out = kv->arr;
	return 1;
}

int32_t nx_gguf_array_i32(const struct nx_gguf_array *a, uint64_t i)
{
	int32_t v;
	memcpy(&v, (const uint8_t *)a->data + i * 4, 4);
	return v;
}

float nx_gguf_array_f32(const struct nx_gguf_array *a, uint64_t i)
{
	float v;
	memcpy(&v, (const uint8_t *)a->data + i * 4, 4);
	return v;
}
