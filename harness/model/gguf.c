/* SPDX-License-Identifier: Apache-2.0
 *
 * See gguf.h: opening and checking. Layout of the file: header, keys, tensor table, padding to the
 * alignment, tensor data. The cursor never moves past the end, and every allocation is bounded by
 * a small multiple of the file's size, because a count is compared with the bytes that are left
 * before it is believed.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/gguf_internal.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the GGUF reader assumes a little-endian machine"
#endif

#define MAX_KEYS 65536
#define MAX_TENSORS 65536
#define MAX_NAME 255
#define MAX_ALIGNMENT (1u << 20)
#define MAX_ELEMENTS ((uint64_t)1 << 50)
#define DEFAULT_ALIGNMENT 32

struct cursor {
	const struct nx_gguf *g;
	size_t at;      /* byte offset; <= g->size */
	char where[96]; /* what is being read, for sentences */
	struct nx_err *err;
};

static size_t left(const struct cursor *c)
{
	return c->g->size - c->at;
}

NX_PRINTF(3, 4)
static int bad(const struct cursor *c, size_t at, const char *fmt, ...)
{
	char what[256];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return nx_fail(c->err, NX_EFORMAT, "%.150s: %s at byte %zu: %s", c->g->path, c->where, at,
	               what);
}

/* Sets where to `kind "name"`, with bytes that a terminal should not see replaced. */
static void set_where(struct cursor *c, const char *kind, const char *name, size_t len)
{
	char shown[65];
	size_t n = len < sizeof(shown) - 1 ? len : sizeof(shown) - 1;
	for (size_t i = 0; i < n; i++)
		shown[i] = name[i] >= 0x20 && name[i] < 0x7f ? name[i] : '?';
	shown[n] = '\0';
	snprintf(c->where, sizeof(c->where), "%s \"%s\"", kind, shown);
}

static int take(struct cursor *c, void *out, size_t n, const char *what)
{
	if (left(c) < n)
		return bad(c, c->at, "the file ends in %s (%zu bytes needed, %zu left)", what, n,
		           left(c));
	memcpy(out, c->g->base + c->at, n);
	c->at += n;
	return 0;
}

static int take_str(struct cursor *c, struct nx_gguf_str *out, const char *what)
{
	uint64_t len = 0;
	size_t at = c->at;
	int rc = take(c, &len, sizeof(len), what);
	if (rc)
		return rc;
	if (len > left(c))
		return bad(c, at, "%s claims %llu bytes, but %zu are left", what,
		           (unsigned long long)len, left(c));
	*out = (struct nx_gguf_str){(const char *)c->g->base + c->at, (size_t)len};
	c->at += (size_t)len;
	return 0;
}

/* A name of a key or tensor: 1..MAX_NAME printable bytes, copied so that it is NUL-terminated. */
static int take_name(struct cursor *c, const char *kind, char **out)
{
	struct nx_gguf_str s = {NULL, 0};
	size_t at = c->at;
	int rc = take_str(c, &s, "its name");
	if (rc)
		return rc;
	if (s.len == 0 || s.len > MAX_NAME)
		return bad(c, at, "its name has %zu bytes; legal: 1 to %d", s.len, MAX_NAME);
	set_where(c, kind, s.s, s.len);
	for (size_t i = 0; i < s.len; i++)
		if ((unsigned char)s.s[i] < 0x20 || s.s[i] == 0x7f)
			return bad(c, at, "its name holds control byte 0x%02x",
			           (unsigned char)s.s[i]);
	*out = malloc(s.len + 1);
	if (!*out)
		return nx_fail(c->err, NX_ENOMEM, "out of memory while reading %.200s", c->g->path);
	memcpy(*out, s.s, s.len);
	(*out)[s.len] = '\0';
	return 0;
}

static int check_bools(struct cursor *c, const uint8_t *p, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (p[i] > 1)
			return bad(c, (size_t)(p + i - c->g->base), "a bool is %u; legal: 0 or 1",
			           p[i]);
	return 0;
}

static int take_array(struct cursor *c, struct nx_gguf_kv *kv)
{
	uint32_t type = 0;
	uint64_t n = 0;
	size_t at = c->at;
	int rc = take(c, &type, sizeof(type), "the type of its elements");
	if (!rc)
		rc = take(c, &n, sizeof(n), "its count");
	if (rc)
		return rc;
	size_t width = nx_gguf_value_bytes(type);
	if (!width && type != NX_GGUF_V_STRING)
		return bad(c, at, "an array of type %u (%s); legal: scalars and strings", type,
		           nx_gguf_value_type_name(type));
	/* Each string takes at least its 8-byte length. */
	if (n > left(c) / (width ? width : 8))
		return bad(c, at, "an array claims %llu elements of %s, but %zu bytes are left",
		           (unsigned long long)n, nx_gguf_value_type_name(type), left(c));
	kv->arr.type = (enum nx_gguf_value_type)type;
	kv->arr.n = n;
	if (width) {
		kv->arr.data = c->g->base + c->at;
		c->at += (size_t)n * width;
		return type == NX_GGUF_V_BOOL ? check_bools(c, kv->arr.data, n) : 0;
	}
	kv->strs = malloc((size_t)n * sizeof(*kv->strs) + 1);
	if (!kv->strs)
		return nx_fail(c->err, NX_ENOMEM, "out of memory while reading %.200s", c->g->path);
	kv->arr.strs = kv->strs;
	for (uint64_t i = 0; i < n; i++) {
		rc = take_str(c, &kv->strs[i], "a string of the array");
		if (rc)
			return rc;
	}
	return 0;
}

static int take_kv(struct cursor *c, struct nx_gguf *g, uint64_t i)
{
	struct nx_gguf_kv *kv = &g->kvs[i];
	uint32_t type = 0;
	size_t start = c->at;
	snprintf(c->where, sizeof(c->where), "key %llu", (unsigned long long)i);
	int rc = take_name(c, "key", &kv->name);
	if (rc)
		return rc;
	if (nx_strmap_put(&g->kv_by_name, kv->name, strlen(kv->name), (uint32_t)i, NULL) != 1)
		return bad(c, start, "the key is there twice");
	rc = take(c, &type, sizeof(type), "its type");
	if (rc)
		return rc;
	kv->type = (enum nx_gguf_value_type)type;
	kv->at = c->at;
	if (type == NX_GGUF_V_STRING)
		return take_str(c, &kv->str, "its string");
	if (type == NX_GGUF_V_ARRAY)
		return take_array(c, kv);
	size_t width = nx_gguf_value_bytes(type);
	if (!width)
		return bad(c, c->at - 4, "value type %u is unknown; legal: 0 to 12", type);
	if (left(c) < width)
		return bad(c, c->at, "the file ends in its value");
	kv->scalar = g->base + c->at;
	c->at += width;
	return type == NX_GGUF_V_BOOL ? check_bools(c, kv->scalar, 1) : 0;
}

/* Names of ggml types that exist but are not read, for the refusal. */
static const char *foreign_type_name(uint32_t type)
{
	static const char *const names[] = {
		[9] = "Q8_1",     [10] = "Q2_K",   [11] = "Q3_K",    [15] = "Q8_K",
		[16] = "IQ2_XXS", [17] = "IQ2_XS", [18] = "IQ3_XXS", [19] = "IQ1_S",
		[20] = "IQ4_NL",  [21] = "IQ3_S",  [22] = "IQ2_S",   [23] = "IQ4_XS",
		[24] = "I8",      [25] = "I16",    [26] = "I32",     [27] = "I64",
		[28] = "F64",     [29] = "IQ1_M",  [34] = "TQ1_0",   [35] = "TQ2_0",
		[39] = "MXFP4",
	};
	return type < sizeof(names) / sizeof(names[0]) && names[type] ? names[type] : NULL;
}

static int check_type(const struct cursor *c, size_t at, uint32_t type)
{
#define X(name, value, elems, bytes) " " #name
	static const char legal[] = "legal:" NX_GGUF_TYPES(X);
#undef X
	if (type <= INT32_MAX && nx_gguf_type_name((int)type))
		return 0;
	const char *name = foreign_type_name(type);
	if (!name)
		return bad(c, at, "type number %u is unknown; %s", type, legal);
	(void)bad(c, at, "type %s is not supported; %s", name, legal);
	if (c->err)
		c->err->code = NX_ENOTSUP;
	return NX_ENOTSUP;
}

/* Reads one row of the tensor table. data holds the offset until the data's start is known. */
static int take_tensor(struct cursor *c, struct nx_gguf *g, uint64_t i, uint64_t *offset)
{
	struct nx_tensor *t = &g->tensors[i];
	uint32_t n_dims = 0, type = 0;
	uint64_t n_elems = 1;
	char *name = NULL;
	size_t start = c->at;
	snprintf(c->where, sizeof(c->where), "tensor %llu", (unsigned long long)i);
	int rc = take_name(c, "tensor", &name);
	t->name = name;
	if (rc)
		return rc;
	if (nx_strmap_put(&g->tensor_by_name, name, strlen(name), (uint32_t)i, NULL) != 1)
		return bad(c, start, "the tensor is there twice");
	rc = take(c, &n_dims, sizeof(n_dims), "its number of dimensions");
	if (rc)
		return rc;
	if (n_dims < 1 || n_dims > 4)
		return bad(c, c->at - 4, "%u dimensions; legal: 1 to 4", n_dims);
	t->n_dims = (int)n_dims;
	for (int d = 0; d < 4; d++)
		t->dims[d] = 1;
	for (uint32_t d = 0; d < n_dims; d++) {
		uint64_t v = 0;
		rc = take(c, &v, sizeof(v), "its dimensions");
		if (rc)
			return rc;
		if (v == 0 || v > MAX_ELEMENTS / n_elems)
			return bad(
				c, c->at - 8,
				"dimension %u is %llu; legal: at least 1, and at most 2^50 elements in all",
				d, (unsigned long long)v);
		n_elems *= v;
		t->dims[d] = (int64_t)v;
	}
	rc = take(c, &type, sizeof(type), "its type");
	if (!rc)
		rc = check_type(c, c->at - 4, type);
	if (!rc)
		rc = take(c, offset, sizeof(*offset), "its offset");
	if (rc)
		return rc;
	t->type = (enum nx_gguf_type)type;
	int64_t block = nx_gguf_block_elems(t->type);
	if (t->dims[0] % block)
		return bad(c, start,
		           "its first dimension is %lld; legal for %s: a multiple of %lld",
		           (long long)t->dims[0], nx_gguf_type_name((int)type), (long long)block);
	t->bytes = n_elems / (uint64_t)block * (uint64_t)nx_gguf_block_bytes(t->type);
	if (*offset % g->alignment)
		return bad(c, c->at - 8,
		           "its offset is %llu; legal: a multiple of the alignment, %u",
		           (unsigned long long)*offset, g->alignment);
	return 0;
}

static int by_data(const void *a, const void *b)
{
	const struct nx_tensor *x = *(const struct nx_tensor *const *)a;
	const struct nx_tensor *y = *(const struct nx_tensor *const *)b;
	return (x->data > y->data) - (x->data < y->data);
}

static int check_overlap(struct cursor *c, struct nx_gguf *g)
{
	if (g->n_tensors < 2)
		return 0;
	const struct nx_tensor **order = malloc((size_t)g->n_tensors * sizeof(*order));
	if (!order)
		return nx_fail(c->err, NX_ENOMEM, "out of memory while reading %.200s", g->path);
	for (uint64_t i = 0; i < g->n_tensors; i++)
		order[i] = &g->tensors[i];
	qsort(order, (size_t)g->n_tensors, sizeof(*order), by_data);
	int rc = 0;
	for (uint64_t i = 1; i < g->n_tensors && !rc; i++) {
		const struct nx_tensor *a = order[i - 1], *b = order[i];
		if ((const uint8_t *)a->data + a->bytes <= (const uint8_t *)b->data)
			continue;
		set_where(c, "tensor", b->name, strlen(b->name));
		rc = bad(c, (size_t)((const uint8_t *)b->data - g->base),
		         "its data overlaps that of tensor \"%.64s\"; legal: data of its own",
		         a->name);
	}
	free(order);
	return rc;
}

static int place_tensors(struct cursor *c, struct nx_gguf *g, const uint64_t *offsets)
{
	size_t start = (c->at + g->alignment - 1) / g->alignment * g->alignment;
	uint64_t room = start < g->size ? g->size - start : 0;
	for (uint64_t i = 0; i < g->n_tensors; i++) {
		struct nx_tensor *t = &g->tensors[i];
		set_where(c, "tensor", t->name, strlen(t->name));
		if (offsets[i] > room || t->bytes > room - offsets[i])
			return bad(
				c, start,
				"its data of %llu bytes at offset %llu ends beyond the %llu bytes of data in the file; legal: a file that is whole",
				(unsigned long long)t->bytes, (unsigned long long)offsets[i],
				(unsigned long long)room);
		t->data = g->base + start + offsets[i];
	}
	return check_overlap(c, g);
}

static int read_alignment(struct cursor *c, struct nx_gguf *g)
{
	const struct nx_gguf_kv *kv = nx_gguf_find_kv(g, "general.alignment");
	g->alignment = DEFAULT_ALIGNMENT;
	if (!kv)
		return 0;
	int rc = nx_gguf_get_u32(g, "general.alignment", &g->alignment, c->err);
	if (rc < 0)
		return rc;
	if (g->alignment < 8 || g->alignment > MAX_ALIGNMENT ||
	    (g->alignment & (g->alignment - 1))) {
		set_where(c, "key", kv->name, strlen(kv->name));
		return bad(c, (size_t)kv->at,
		           "the alignment is %u; legal: a power of two from 8 to %u", g->alignment,
		           MAX_ALIGNMENT);
	}
	return 0;
}

static int read_header(struct cursor *c, struct nx_gguf *g)
{
	char magic[4] = {0};
	snprintf(c->where, sizeof(c->where), "header");
	int rc = take(c, magic, sizeof(magic), "the magic");
	if (rc)
		return rc;
	if (memcmp(magic, "GGUF", 4) != 0)
		return bad(c, 0, "the file starts with bytes %02x %02x %02x %02x; legal: GGUF",
		           (unsigned char)magic[0], (unsigned char)magic[1],
		           (unsigned char)magic[2], (unsigned char)magic[3]);
	rc = take(c, &g->version, sizeof(g->version), "the version");
	if (rc)
		return rc;
	if (g->version == 0x02000000u || g->version == 0x03000000u)
		return bad(c, 4, "the file is big-endian; legal: little-endian");
	if (g->version != 2 && g->version != 3)
		return bad(c, 4, "version %u; legal: 2 and 3", g->version);
	rc = take(c, &g->n_tensors, sizeof(g->n_tensors), "the number of tensors");
	if (!rc)
		rc = take(c, &g->n_kvs, sizeof(g->n_kvs), "the number of keys");
	if (rc)
		return rc;
	/* A tensor's row takes at least 33 bytes, a key 14: no file of this size has more of them. */
	if (g->n_tensors > MAX_TENSORS || g->n_tensors > left(c) / 33)
		return bad(c, 8,
		           "%llu tensors; legal: at most %d, and as many as fit into the file",
		           (unsigned long long)g->n_tensors, MAX_TENSORS);
	if (g->n_kvs > MAX_KEYS || g->n_kvs > left(c) / 14)
		return bad(c, 16, "%llu keys; legal: at most %d, and as many as fit into the file",
		           (unsigned long long)g->n_kvs, MAX_KEYS);
	return 0;
}

static int parse(struct nx_gguf *g, struct nx_err *err)
{
	struct cursor c = {.g = g, .err = err};
	uint64_t *offsets = NULL;
	int rc = read_header(&c, g);
	if (rc) {
		g->n_kvs = g->n_tensors = 0; /* nothing is allocated yet */
		return rc;
	}
	g->kvs = calloc((size_t)g->n_kvs + 1, sizeof(*g->kvs));
	g->tensors = calloc((size_t)g->n_tensors + 1, sizeof(*g->tensors));
	offsets = calloc((size_t)g->n_tensors + 1, sizeof(*offsets));
	if (!g->kvs || !g->tensors || !offsets) {
		rc = nx_fail(err, NX_ENOMEM, "out of memory while reading %.200s", g->path);
		goto out;
	}
	rc = nx_strmap_init(&g->kv_by_name, (size_t)g->n_kvs, err);
	if (!rc)
		rc = nx_strmap_init(&g->tensor_by_name, (size_t)g->n_tensors, err);
	for (uint64_t i = 0; i < g->n_kvs && !rc; i++)
		rc = take_kv(&c, g, i);
	if (!rc)
		rc = read_alignment(&c, g);
	for (uint64_t i = 0; i < g->n_tensors && !rc; i++)
		rc = take_tensor(&c, g, i, &offsets[i]);
	if (!rc)
		rc = place_tensors(&c, g, offsets);
out:
	free(offsets);
	return rc;
}

static int map_file(struct nx_gguf *g, const char *path, struct nx_err *err)
{
	struct stat st;
	int rc = 0;
	/* A pipe without a writer would wait for one. */
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return nx_fail(err, NX_EIO, "%.200s: cannot open the model file: %s", path,
		               strerror(errno));
	if (fstat(fd, &st) != 0) {
		rc = nx_fail(err, NX_EIO, "%.200s: cannot stat the model file: %s", path,
		             strerror(errno));
	} else if (!S_ISREG(st.st_mode)) {
		rc = nx_fail(err, NX_EIO, "%.200s: not a regular file; legal: a GGUF file", path);
	} else if (st.st_size < 24) {
		rc = nx_fail(
			err, NX_EFORMAT,
			"%.200s: header at byte 0: the file has %lld bytes; legal: at least 24",
			path, (long long)st.st_size);
	} else {
		void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED) {
			rc = nx_fail(err, NX_EIO, "%.200s: cannot map %lld bytes: %s", path,
			             (long long)st.st_size, strerror(errno));
		} else {
			g->base = p;
			g->size = (size_t)st.st_size;
		}
	}
	close(fd);
	return rc;
}

int nx_gguf_open(struct nx_gguf **out, const char *path, struct nx_err *err)
{
	struct nx_gguf *g = calloc(1, sizeof(*g));
	int rc = NX_ENOMEM;
	if (g)
		g->path = strdup(path);
	if (!g || !g->path) {
		(void)nx_fail(err, NX_ENOMEM, "out of memory while opening %.200s", path);
		goto fail;
	}
	rc = map_file(g, path, err);
	if (!rc)
		rc = parse(g, err);
	if (rc)
		goto fail;
	*out = g;
	return 0;
fail:
	nx_gguf_close(g);
	return rc;
}

void nx_gguf_close(struct nx_gguf *g)
{
	if (!g)
		return;
	nx_strmap_release(&g->kv_by_name);
	nx_strmap_release(&g->tensor_by_name);
	for (uint64_t i = 0; g->kvs && i < g->n_kvs; i++) {
		free(g->kvs[i].name);
		free(g->kvs[i].strs);
	}
	for (uint64_t i = 0; g->tensors && i < g->n_tensors; i++)
		free((char *)(uintptr_t)g->tensors[i].name);
	free(g->kvs);
	free(g->tensors);
	if (g->base)
		munmap((void *)(uintptr_t)g->base, g->size);
	free(g->path);
	free(g);
}
