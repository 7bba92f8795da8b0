/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a GGUF file: its reader, the tokenizer in it, the model. */
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "fuzz/model.h"
#include "model/dequant.h"

static const char *const keys[] = {
	"general.alignment",           "general.architecture",         "general.name",
	"llama.block_count",           "llama.rope.freq_base",         "tokenizer.ggml.tokens",
	"tokenizer.ggml.token_type",   "tokenizer.ggml.scores",        "tokenizer.ggml.merges",
	"tokenizer.ggml.bos_token_id", "tokenizer.chat_template",      "x",
	"tokenizer.ggml.model",        "tokenizer.ggml.add_bos_token",
};

/* All that a getter hands out must be there. */
static void read_key(const struct nx_gguf *g, const char *key)
{
	struct nx_gguf_array a;
	struct nx_gguf_str s;
	struct nx_err err = {0};
	uint32_t u;
	float f;
	bool b;
	(void)nx_gguf_get_u32(g, key, &u, &err);
	(void)nx_gguf_get_f32(g, key, &f, &err);
	(void)nx_gguf_get_bool(g, key, &b, &err);
	if (nx_gguf_get_str(g, key, &s, &err) == 1)
		fuzz_touch(s.s, s.len);
	if (nx_gguf_get_array(g, key, NX_GGUF_V_STRING, &a, &err) == 1)
		for (uint64_t i = 0; i < a.n; i++)
			fuzz_touch(a.strs[i].s, a.strs[i].len);
	if (nx_gguf_get_array(g, key, NX_GGUF_V_I32, &a, &err) == 1)
		for (uint64_t i = 0; i < a.n; i++)
			(void)nx_gguf_array_i32(&a, i);
	if (nx_gguf_get_array(g, key, NX_GGUF_V_F32, &a, &err) == 1)
		for (uint64_t i = 0; i < a.n; i++)
			(void)nx_gguf_array_f32(&a, i);
}

static void read_tensor(const struct nx_gguf *g, int64_t i)
{
	float row[256];
	const struct nx_tensor *t = nx_gguf_tensor_at(g, i);
	int64_t block = nx_gguf_block_elems(t->type), n = 1;
	for (int d = 0; d < 4; d++)
		n *= t->dims[d];
	fuzz_expect(nx_gguf_tensor(g, t->name) == t, "a tensor is found by its name");
	fuzz_expect(t->bytes == (uint64_t)(n / block) * (uint64_t)nx_gguf_block_bytes(t->type),
	            "a tensor's bytes are those of its dimensions");
	fuzz_touch(t->data, t->bytes);
	nx_dequant_row(t->type, t->data, row, block);
}

/* Text that went to ids and back; NULL where it was refused. */
static char *there_and_back(const struct nx_tokenizer *t, const char *text, size_t n, size_t *len)
{
	struct nx_err err = {0};
	int32_t *ids = NULL;
	size_t n_ids = 0;
	char *back = NULL;
	if (fuzz_told(nx_tokenizer_encode(t, text, n, 0, &ids, &n_ids, &err), &err))
		fuzz_expect(nx_tokenizer_decode(t, ids, n_ids, &back, len, &err) == 0,
		            "ids of the tokenizer can be decoded");
	free(ids);
	return back;
}

/* What is encoded comes back as it was, but for what tokenizer.h excepts, none of which happens twice. */
static void use_tokenizer(const struct nx_tokenizer *t, const uint8_t *data, size_t size)
{
	static const struct nx_turn turns[] = {{"user", "hi <|im_end|>"}};
	size_t n = size < 200 ? size : 200, n_ids = 0, len = 0, len2 = 0;
	const char *text = (const char *)data + size - n;
	struct nx_err err = {0};
	int32_t *ids = NULL;
	char *chat = NULL, *back = there_and_back(t, text, n, &len);
	if (back && (len != n || memcmp(back, text, n) != 0)) {
		char *again = there_and_back(t, back, len, &len2);
		fuzz_expect(!again || len2 <= len, "text does not grow when it is encoded again");
		free(again);
	}
	free(back);
	if (fuzz_told(nx_chat_render(t, turns, 1, true, &chat, &err), &err)) {
		ids = NULL;
		if (!nx_tokenizer_encode(t, chat, strlen(chat),
		                         NX_TOK_PARSE_SPECIAL | NX_TOK_ADD_BOS, &ids, &n_ids, &err))
			for (size_t i = 0; i < n_ids; i++) {
				const char *piece = nx_tokenizer_piece(t, ids[i], &len);
				fuzz_expect(piece != NULL, "an id is one of the vocabulary");
				fuzz_touch(piece, len);
			}
		free(ids);
	}
	free(chat);
}

FUZZ_TARGET(gguf)
{
	const char *path = fuzz_file("in.gguf", data, size);
	struct nx_err err = {0};
	struct nx_gguf *g = NULL;
	struct nx_tokenizer *t = NULL;
	struct nx_model *m = NULL;

	if (!fuzz_told(nx_gguf_open(&g, path, &err), &err))
		return 0;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		read_key(g, keys[i]);
	for (int64_t i = 0; i < nx_gguf_n_tensors(g); i++)
		read_tensor(g, i);
	if (fuzz_told(nx_tokenizer_create(&t, g, &err), &err))
		use_tokenizer(t, data, size);
	nx_tokenizer_destroy(t);
	nx_gguf_close(g);
	if (fuzz_told(nx_model_open(&m, path, &err), &err))
		fuzz_model(m);
	nx_model_close(m);
	return 0;
}
