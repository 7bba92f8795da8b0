/* SPDX-License-Identifier: Apache-2.0
 *
 * See tiny_model.h.
 */
#include "tiny_model.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/dequant.h"
#include "model/model.h"

#define ALIGNMENT 32
#define N_SPECIAL 3
#define N_BYTES 256
#define MIN_VOCAB (N_BYTES + N_SPECIAL)
#define MAX_VOCAB 18000

uint64_t nx_test_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void nx_test_tmp_path(char *buf, size_t size, const char *tag)
{
	const char *dir = getenv("TMPDIR");
	snprintf(buf, size, "%s/nexus-test-%ld-%s", dir && *dir ? dir : "/tmp", (long)getpid(),
	         tag);
}

void nx_test_source_path(char *buf, size_t size, const char *rel)
{
	const char *top = getenv("NEXUS_SOURCE");
	snprintf(buf, size, "%s/%s", top && *top ? top : ".", rel);
}

struct nx_shape nx_test_tiny_shape(void)
{
	return (struct nx_shape){
		.n_layers = 2,
		.d_model = 64,
		.n_heads = 4,
		.n_kv_heads = 2,
		.head_dim = 16,
		.d_ff = 96,
		.vocab = 320,
		.ctx_len = 256,
		.rope_theta = 10000.0f,
		.norm_eps = 1e-5f,
		.rope_dim = 16,
		.tied = true,
	};
}

/* A growing file image; the first failure sticks. */
struct image {
	uint8_t *data;
	size_t len, cap;
	bool failed;
};

static void *grow(struct image *m, size_t n)
{
	if (!m->failed && m->len + n > m->cap) {
		size_t cap = 2 * (m->len + n);
		uint8_t *p = realloc(m->data, cap);
		if (p) {
			m->data = p;
			m->cap = cap;
		} else {
			m->failed = true;
		}
	}
	if (m->failed)
		return NULL;
	void *at = m->data + m->len;
	memset(at, 0, n);
	m->len += n;
	return at;
}

static void put(struct image *m, const void *data, size_t n)
{
	void *p = grow(m, n);
	if (p && n)
		memcpy(p, data, n);
}

static void put_u32(struct image *m, uint32_t v)
{
	put(m, &v, sizeof(v));
}

static void put_u64(struct image *m, uint64_t v)
{
	put(m, &v, sizeof(v));
}

static void put_str(struct image *m, const char *s)
{
	put_u64(m, strlen(s));
	put(m, s, strlen(s));
}

static void key_u32(struct image *m, const char *key, uint32_t v)
{
	put_str(m, key);
	put_u32(m, NX_GGUF_V_U32);
	put_u32(m, v);
}

static void key_f32(struct image *m, const char *key, float v)
{
	put_str(m, key);
	put_u32(m, NX_GGUF_V_F32);
	put(m, &v, sizeof(v));
}

static void key_str(struct image *m, const char *key, const char *v)
{
	put_str(m, key);
	put_u32(m, NX_GGUF_V_STRING);
	put_str(m, v);
}

static void key_array(struct image *m, const char *key, enum nx_gguf_value_type type, uint64_t n)
{
	put_str(m, key);
	put_u32(m, NX_GGUF_V_ARRAY);
	put_u32(m, type);
	put_u64(m, n);
}

/* The printable character by which GPT-2's vocabularies write a byte. */
static void byte_text(int b, char out[4])
{
	unsigned cp = (unsigned)b;
	if (b < 33)
		cp = 256u + (unsigned)b;
	else if (b >= 127 && b <= 160)
		cp = 256u + (unsigned)b - 94u;
	else if (b == 173)
		cp = 256u + 67u;
	if (cp < 0x80) {
		snprintf(out, 4, "%c", (char)cp);
	} else {
		out[0] = (char)(0xc0 | cp >> 6);
		out[1] = (char)(0x80 | (cp & 0x3f));
		out[2] = '\0';
	}
}

#define SPACE "\xc4\xa0" /* U+0120, the space */

/* Merge i: first space + letter, then all pairs of letters, then pair + letter. */
static void merge_text(int i, char left[8], char right[8])
{
	if (i < 26) {
		snprintf(left, 8, SPACE);
		snprintf(right, 8, "%c", 'a' + i);
	} else if (i < 26 + 676) {
		i -= 26;
		/* Common letters first, so that small vocabularies merge something in English text. */
		static const char order[] = "etaoinshrdlucmfwypvbgkjqxz";
		snprintf(left, 8, "%c", order[i % 26]);
		snprintf(right, 8, "%c", order[i / 26]);
	} else {
		i -= 26 + 676;
		snprintf(left, 8, "%c%c", 'a' + i % 26, 'a' + i / 26 % 26);
		snprintf(right, 8, "%c", 'a' + i / 676);
	}
}

static void put_tokenizer(struct image *m, int32_t vocab)
{
	static const char *const special[N_SPECIAL] = {"<|endoftext|>", "<|im_start|>",
	                                               "<|im_end|>"};
	const int32_t n_merges = vocab - N_BYTES - N_SPECIAL;
	char left[8], right[8], text[20];
	key_str(m, "tokenizer.ggml.model", "gpt2");
	key_str(m, "tokenizer.ggml.pre", "gpt-2");
	key_array(m, "tokenizer.ggml.tokens", NX_GGUF_V_STRING, (uint64_t)vocab);
	for (int b = 0; b < N_BYTES; b++) {
		byte_text(b, left);
		put_str(m, left);
	}
	for (int i = 0; i < n_merges; i++) {
		merge_text(i, left, right);
		snprintf(text, sizeof(text), "%s%s", left, right);
		put_str(m, text);
	}
	for (int i = 0; i < N_SPECIAL; i++)
		put_str(m, special[i]);
	key_array(m, "tokenizer.ggml.token_type", NX_GGUF_V_I32, (uint64_t)vocab);
	for (int32_t i = 0; i < vocab; i++)
		put_u32(m, i < vocab - N_SPECIAL ? 1 : 3);
	key_array(m, "tokenizer.ggml.merges", NX_GGUF_V_STRING, (uint64_t)n_merges);
	for (int i = 0; i < n_merges; i++) {
		merge_text(i, left, right);
		snprintf(text, sizeof(text), "%s %s", left, right);
		put_str(m, text);
	}
	key_u32(m, "tokenizer.ggml.bos_token_id", (uint32_t)(vocab - N_SPECIAL));
	key_u32(m, "tokenizer.ggml.eos_token_id", (uint32_t)(vocab - N_SPECIAL));
}

static void put_keys(struct image *m, const struct nx_shape *s)
{
	key_str(m, "general.architecture", "llama");
	key_str(m, "general.name", "tiny");
	key_u32(m, "llama.block_count", (uint32_t)s->n_layers);
	key_u32(m, "llama.context_length", (uint32_t)s->ctx_len);
	key_u32(m, "llama.embedding_length", (uint32_t)s->d_model);
	key_u32(m, "llama.feed_forward_length", (uint32_t)s->d_ff);
	key_u32(m, "llama.attention.head_count", (uint32_t)s->n_heads);
	key_u32(m, "llama.attention.head_count_kv", (uint32_t)s->n_kv_heads);
	key_u32(m, "llama.attention.key_length", (uint32_t)s->head_dim);
	key_u32(m, "llama.attention.value_length", (uint32_t)s->head_dim);
	key_u32(m, "llama.rope.dimension_count", (uint32_t)s->rope_dim);
	key_f32(m, "llama.rope.freq_base", s->rope_theta);
	key_f32(m, "llama.attention.layer_norm_rms_epsilon", s->norm_eps);
	put_tokenizer(m, s->vocab);
}

#define N_KEYS 20

struct entry {
	char name[64];
	enum nx_weight_id id;
	enum nx_gguf_type type;
	int64_t rows, cols;
	uint64_t bytes;
};

static const struct {
	const char *name;
	bool layered;
} weights[NX_W_COUNT] = {
#define X(id, name, layered, rows, cols) [NX_W_##id] = {name, layered},
	NX_WEIGHTS(X)
#undef X
};

static struct entry entry_of(const struct nx_shape *s, enum nx_weight_id id, int32_t layer,
                             enum nx_gguf_type type)
{
	struct entry e = {.id = id,
	                  .type = type,
	                  .rows = nx_weight_rows(s, id),
	                  .cols = nx_weight_cols(s, id)};
	if (weights[id].layered)
		snprintf(e.name, sizeof(e.name), "blk.%d.%s", layer, weights[id].name);
	else
		snprintf(e.name, sizeof(e.name), "%s", weights[id].name);
	if (e.rows == 1 || e.cols % nx_gguf_block_elems(type))
		e.type = NX_GGUF_F32;
	e.bytes = (uint64_t)(e.rows * e.cols / nx_gguf_block_elems(e.type) *
	                     nx_gguf_block_bytes(e.type));
	return e;
}

static struct entry *list_entries(const struct nx_shape *s, enum nx_gguf_type type, size_t *n)
{
	struct entry *e = calloc((size_t)(s->n_layers + 1) * NX_W_COUNT, sizeof(*e));
	*n = 0;
	for (int id = 0; e && id < NX_W_COUNT; id++) {
		if ((id == NX_W_OUTPUT && s->tied) || !nx_weight_rows(s, (enum nx_weight_id)id))
			continue;
		const int32_t layers = weights[id].layered ? s->n_layers : 1;
		for (int32_t l = 0; l < layers; l++)
			e[(*n)++] = entry_of(s, (enum nx_weight_id)id, l, type);
	}
	return e;
}

static float uniform(uint64_t *state)
{
	return (float)(nx_test_random(state) >> 40) * 0x1p-23f - 1.0f; /* [-1, 1) */
}

static int put_weight(struct image *m, const struct entry *e, uint64_t *state, struct nx_err *err)
{
	float *row = malloc((size_t)e->cols * sizeof(*row));
	const size_t row_bytes = (size_t)(e->bytes / (uint64_t)e->rows);
	const float scale = e->id == NX_W_EMBED ? 1.0f : sqrtf(3.0f / (float)e->cols);
	int rc = 0;
	for (int64_t r = 0; row && r < e->rows && !rc; r++) {
		for (int64_t c = 0; c < e->cols; c++)
			row[c] = e->rows == 1 ? 1.0f + 0.1f * uniform(state)
			                      : scale * uniform(state);
		void *dst = grow(m, row_bytes);
		if (dst)
			rc = nx_quant_row(e->type, row, dst, e->cols, err);
	}
	m->failed |= !row;
	free(row);
	return rc;
}

static void pad(struct image *m)
{
	if (m->len % ALIGNMENT)
		(void)grow(m, ALIGNMENT - m->len % ALIGNMENT);
}

static int build(struct image *m, const struct nx_shape *s, const struct entry *e, size_t n,
                 uint64_t seed, struct nx_err *err)
{
	uint64_t offset = 0;
	int rc = 0;
	put(m, "GGUF", 4);
	put_u32(m, 3);
	put_u64(m, n);
	put_u64(m, N_KEYS);
	put_keys(m, s);
	for (size_t i = 0; i < n; i++) {
		put_str(m, e[i].name);
		put_u32(m, e[i].rows == 1 ? 1 : 2);
		put_u64(m, (uint64_t)e[i].cols);
		if (e[i].rows != 1)
			put_u64(m, (uint64_t)e[i].rows);
		put_u32(m, e[i].type);
		put_u64(m, offset);
		offset += (e[i].bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	}
	pad(m);
	for (size_t i = 0; i < n && !rc; i++) {
		rc = put_weight(m, &e[i], &seed, err);
		pad(m);
	}
	return rc;
}

int nx_test_write_model(const char *path, const struct nx_shape *shape, enum nx_gguf_type type,
                        uint64_t seed, struct nx_err *err)
{
	struct image m = {0};
	size_t n;
	if (shape->vocab < MIN_VOCAB || shape->vocab > MAX_VOCAB)
		return nx_fail(err, NX_EINVAL, "a tiny model has %d tokens; legal: %d to %d",
		               shape->vocab, MIN_VOCAB, MAX_VOCAB);
	struct entry *e = list_entries(shape, type, &n);
	int rc = e ? build(&m, shape, e, n, seed, err) : NX_ENOMEM;
	if (!e || m.failed)
		rc = nx_fail(err, NX_ENOMEM, "out of memory while building %.200s", path);
	if (!rc)
		rc = nx_test_write_file(path, m.data, m.len, err);
	free(e);
	free(m.data);
	return rc;
}

int nx_test_read_file(const char *path, uint8_t **data, size_t *len, struct nx_err *err)
{
	FILE *f = fopen(path, "rb");
	uint8_t *p = NULL;
	long n = -1;
	int rc = 0;
	if (!f)
		return nx_fail(err, NX_EIO, "cannot open %.200s: %s", path, strerror(errno));
	if (fseek(f, 0, SEEK_END) == 0 && (n = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0)
		p = malloc((size_t)n + 1);
	if (!p || fread(p, 1, (size_t)n, f) != (size_t)n) {
		rc = nx_fail(err, NX_EIO, "cannot read %.200s", path);
		free(p);
	} else {
		p[n] = 0;
		*data = p;
		*len = (size_t)n;
	}
	fclose(f);
	return rc;
}

int nx_test_write_file(const char *path, const void *data, size_t len, struct nx_err *err)
{
	(void)unlink(path); /* a new inode, so that an open mapping of the old file stays whole */
	FILE *f = fopen(path, "wb");
	if (!f)
		return nx_fail(err, NX_EIO, "cannot create %.200s: %s", path, strerror(errno));
	const bool written = fwrite(data, 1, len, f) == len;
	if (fclose(f) != 0 || !written)
		return nx_fail(err, NX_EIO, "cannot write %zu bytes to %.200s", len, path);
	return 0;
}

int nx_test_write_hostile(const char *path, const uint8_t *data, size_t keep, int n_flips,
                          size_t flip_below, uint64_t seed, struct nx_err *err)
{
	uint8_t *copy = malloc(keep + 1);
	if (!copy)
		return nx_fail(err, NX_ENOMEM, "out of memory while writing %.200s", path);
	memcpy(copy, data, keep);
	if (flip_below > keep)
		flip_below = keep;
	for (int i = 0; i < n_flips && flip_below; i++) {
		const uint64_t r = nx_test_random(&seed);
		copy[(r >> 3) % flip_below] ^= (uint8_t)(1u << (r & 7));
	}
	int rc = nx_test_write_file(path, copy, keep, err);
	free(copy);
	return rc;
}

int nx_test_open_tokenizer(const char *path, struct nx_gguf **g, struct nx_tokenizer **t,
                           struct nx_err *err)
{
	const struct nx_shape shape = nx_test_tiny_shape();
	int rc = nx_test_write_model(path, &shape, NX_GGUF_F32, 1, err);
	if (!rc)
		rc = nx_gguf_open(g, path, err);
	return rc ? rc : nx_tokenizer_create(t, *g, err);
}
