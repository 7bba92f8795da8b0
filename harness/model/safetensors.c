/* SPDX-License-Identifier: Apache-2.0
 *
 * See safetensors.h.
 */
#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the safetensors reader assumes a little-endian machine"
#endif

#define MAX_TENSORS 65536
#define MAX_NAME 255
#define MAX_ELEMENTS ((uint64_t)1 << 50)

struct nx_safetensors {
	char *path;
	const uint8_t *base;
	size_t size;
	const uint8_t *data; /* after the header */
	uint64_t data_bytes;
	struct nx_tensor *tensors; /* names are owned */
	size_t n;
};

static const struct {
	const char *name;
	enum nx_gguf_type type;
} dtypes[] = {{"F32", NX_GGUF_F32}, {"F16", NX_GGUF_F16}, {"BF16", NX_GGUF_BF16}};

NX_PRINTF(4, 5)
static int bad(const struct nx_safetensors *s, const char *tensor, struct nx_err *err,
               const char *fmt, ...)
{
	char what[200], name[96];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return nx_fail(err, NX_EFORMAT, "%.180s: tensor %s: %s", s->path,
	               nx_quote(name, sizeof(name), tensor), what);
}

static int take_type(const struct nx_safetensors *s, struct nx_tensor *t, const json_t *v,
                     struct nx_err *err)
{
	const char *name = json_string_value(v);
	char quoted[96];
	for (size_t i = 0; name && i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
		if (!strcmp(name, dtypes[i].name)) {
			t->type = dtypes[i].type;
			return 0;
		}
	if (!name)
		return bad(s, t->name, err, "dtype is %s; legal: F32, F16 or BF16",
		           v ? nx_json_kind(v) : "missing");
	(void)bad(s, t->name, err, "dtype %s is not supported; legal: F32, F16 or BF16",
	          nx_quote(quoted, sizeof(quoted), name));
	if (err)
		err->code = NX_ENOTSUP;
	return NX_ENOTSUP;
}

static int take_shape(const struct nx_safetensors *s, struct nx_tensor *t, const json_t *v,
                      struct nx_err *err)
{
	uint64_t elems = 1;
	size_t n = json_array_size(v);
	if (!json_is_array(v) || n > 4)
		return bad(s, t->name, err, "shape is %s of %zu; legal: a list of up to 4 sizes",
		           v ? nx_json_kind(v) : "missing", n);
	for (int d = 0; d < 4; d++)
		t->dims[d] = 1;
	t->n_dims = n ? (int)n : 1;
	for (size_t d = 0; d < n; d++) {
		const json_t *x = json_array_get(v, d);
		json_int_t size = json_is_integer(x) ? json_integer_value(x) : 0;
		if (size < 1 || (uint64_t)size > MAX_ELEMENTS / elems)
			return bad(s, t->name, err,
			           "size %zu of its shape is no whole number from 1, or too large",
			           d);
		elems *= (uint64_t)size;
		t->dims[n - 1 - d] = (int64_t)size;
	}
	t->bytes = elems * (uint64_t)nx_gguf_block_bytes(t->type);
	return 0;
}

static int take_extent(const struct nx_safetensors *s, struct nx_tensor *t, const json_t *v,
                       struct nx_err *err)
{
	const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
	if (!json_is_array(v) || json_array_size(v) != 2 || !json_is_integer(a) ||
	    !json_is_integer(b))
		return bad(s, t->name, err, "data_offsets is not a list of two whole numbers");
	json_int_t begin = json_integer_value(a), end = json_integer_value(b);
	if (begin < 0 || end < begin || (uint64_t)end > s->data_bytes)
		return bad(
			s, t->name, err,
			"its data at [%lld, %lld) is not within the %llu bytes of data in the file",
			(long long)begin, (long long)end, (unsigned long long)s->data_bytes);
	if ((uint64_t)(end - begin) != t->bytes)
		return bad(s, t->name, err,
		           "its data has %lld bytes; its shape and dtype take %llu",
		           (long long)(end - begin), (unsigned long long)t->bytes);
	t->data = s->data + begin;
	return 0;
}

static int take_tensor(struct nx_safetensors *s, const char *name, const json_t *v,
                       struct nx_err *err)
{
	static const char *const keys[] = {"dtype", "shape", "data_offsets"};
	struct nx_tensor *t = &s->tensors[s->n];
	size_t len = strlen(name), known = 0;
	if (len == 0 || len > MAX_NAME)
		return bad(s, name, err, "its name has %zu bytes; legal: 1 to %d", len, MAX_NAME);
	for (const char *p = name; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return bad(s, name, err, "its name holds a control byte");
	if (!json_is_object(v))
		return bad(s, name, err, "found %s; legal: an object", nx_json_kind(v));
	for (size_t i = 0; i < 3; i++)
		known += json_object_get(v, keys[i]) != NULL;
	if (json_object_size(v) != 3 || known != 3)
		return bad(s, name, err, "found other keys than dtype, shape and data_offsets");
	t->name = strdup(name);
	if (!t->name)
		return nx_fail(err, NX_ENOMEM, "out of memory while reading %.200s", s->path);
	s->n++;
	int rc = take_type(s, t, json_object_get(v, "dtype"), err);
	if (!rc)
		rc = take_shape(s, t, json_object_get(v, "shape"), err);
	return rc ? rc : take_extent(s, t, json_object_get(v, "data_offsets"), err);
}

static int by_data(const void *a, const void *b)
{
	const struct nx_tensor *x = *(const struct nx_tensor *const *)a;
	const struct nx_tensor *y = *(const struct nx_tensor *const *)b;
	return (x->data > y->data) - (x->data < y->data);
}

static int check_overlap(const struct nx_safetensors *s, struct nx_err *err)
{
	const struct nx_tensor **order = malloc((s->n + 1) * sizeof(*order));
	int rc = 0;
	if (!order)
		return nx_fail(err, NX_ENOMEM, "out of memory while reading %.200s", s->path);
	for (size_t i = 0; i < s->n; i++)
		order[i] = &s->tensors[i];
	qsort(order, s->n, sizeof(*order), by_data);
	for (size_t i = 1; i < s->n && !rc; i++) {
		const struct nx_tensor *a = order[i - 1], *b = order[i];
		if ((const uint8_t *)a->data + a->bytes > (const uint8_t *)b->data)
			rc = bad(s, b->name, err,
			         "its data overlaps that of tensor %.64s; legal: data of its own",
			         a->name);
	}
	free(order);
	return rc;
}

static int parse(struct nx_safetensors *s, struct nx_err *err)
{
	uint64_t len = 0;
	json_error_t why;
	char quoted[96];
	if (s->size < 8)
		return nx_fail(err, NX_EFORMAT, "%.200s: the file has %zu bytes; legal: at least 8",
		               s->path, s->size);
	memcpy(&len, s->base, sizeof(len));
	if (len > NX_SAFETENSORS_HEADER_MAX || len > s->size - 8)
		return nx_fail(
			err, NX_EFORMAT,
			"%.200s: the header claims %llu bytes, but %zu are left; legal: at most %zu",
			s->path, (unsigned long long)len, s->size - 8, NX_SAFETENSORS_HEADER_MAX);
	s->data = s->base + 8 + len;
	s->data_bytes = s->size - 8 - len;
	json_t *head =
		json_loadb((const char *)s->base + 8, (size_t)len, JSON_REJECT_DUPLICATES, &why);
	if (!head || !json_is_object(head)) {
		json_decref(head);
		return nx_fail(err, NX_EFORMAT,
		               "%.200s: the header is no JSON object of tensors (%s)", s->path,
		               nx_quote(quoted, sizeof(quoted), head ? "another kind" : why.text));
	}
	size_t n = json_object_size(head);
	int rc = 0;
	if (n > MAX_TENSORS)
		rc = nx_fail(err, NX_EFORMAT, "%.200s: %zu tensors; legal: at most %d", s->path, n,
		             MAX_TENSORS);
	else if (!(s->tensors = calloc(n + 1, sizeof(*s->tensors))))
		rc = nx_fail(err, NX_ENOMEM, "out of memory while reading %.200s", s->path);
	for (void *it = json_object_iter(head); it && !rc; it = json_object_iter_next(head, it))
		if (strcmp(json_object_iter_key(it), "__metadata__") != 0)
			rc = take_tensor(s, json_object_iter_key(it), json_object_iter_value(it),
			                 err);
	json_decref(head);
	return rc ? rc : check_overlap(s, err);
}

int nx_safetensors_open(struct nx_safetensors **out, const char *path, struct nx_err *err)
{
	struct nx_safetensors *s = calloc(1, sizeof(*s));
	int rc = NX_ENOMEM;
	if (s)
		s->path = strdup(path);
	if (!s || !s->path)
		(void)nx_fail(err, NX_ENOMEM, "out of memory while opening %.200s", path);
	else
		rc = nx_file_map(path, &s->base, &s->size, err);
	if (!rc)
		rc = parse(s, err);
	if (rc) {
		nx_safetensors_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void nx_safetensors_close(struct nx_safetensors *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->n; i++)
		free((char *)(uintptr_t)s->tensors[i].name);
	free(s->tensors);
	if (s->base)
		munmap((void *)(uintptr_t)s->base, s->size);
	free(s->path);
	free(s);
}

const char *nx_safetensors_path(const struct nx_safetensors *s)
{
	return s->path;
}

uint64_t nx_safetensors_bytes(const struct nx_safetensors *s)
{
	return s->size;
}

size_t nx_safetensors_count(const struct nx_safetensors *s)
{
	return s->n;
}

const struct nx_tensor *nx_safetensors_at(const struct nx_safetensors *s, size_t i)
{
	return i < s->n ? &s->tensors[i] : NULL;
}
