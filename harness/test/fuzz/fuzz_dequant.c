/* SPDX-License-Identifier: Apache-2.0 */
/* The first byte chooses a tensor type, the second how the rest is aligned; the rest are encoded blocks. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/fuzz.h"
#include "model/dequant.h"

static const enum nx_gguf_type types[] = {
#define X(name, value, elems, bytes) NX_GGUF_##name,
	NX_GGUF_TYPES(X)
#undef X
};
#define N_TYPES (sizeof(types) / sizeof(types[0]))

/* What the 16- and 32-bit floats decode to encodes to the same bits, NaN aside. */
static void encode_again(enum nx_gguf_type type, const float *row, int64_t n, const uint8_t *src)
{
	struct nx_err err = {0};
	size_t width = (size_t)nx_gguf_block_bytes(type);
	uint8_t *out = malloc((size_t)n * width);
	fuzz_expect(out != NULL, "there is memory");
	fuzz_expect(nx_quant_row(type, row, out, n, &err) == 0, "a float type can be encoded");
	for (int64_t i = 0; i < n; i++)
		if (!isnan(row[i]))
			fuzz_expect(
				!memcmp(out + (size_t)i * width, src + (size_t)i * width, width),
				"encode(decode(x)) is x");
	free(out);
}

static void encode_q8(const float *row, int64_t n)
{
	struct nx_err err = {0};
	for (int64_t i = 0; i < n; i++)
		if (!(fabsf(row[i]) < 1e30f) || (row[i] != 0 && fabsf(row[i]) < 1e-30f))
			return; /* the converter is for finite weights */
	uint8_t *out = malloc((size_t)(n / 32 * nx_gguf_block_bytes(NX_GGUF_Q8_0)));
	fuzz_expect(out != NULL, "there is memory");
	fuzz_expect(nx_quant_row(NX_GGUF_Q8_0, row, out, n, &err) == 0, "Q8_0 can be encoded");
	free(out);
}

FUZZ_TARGET(dequant)
{
	if (size < 2)
		return 0;
	enum nx_gguf_type type = types[data[0] % N_TYPES];
	size_t shift = data[1] % 8, width = (size_t)nx_gguf_block_bytes(type);
	size_t blocks = (size - 2) / width;
	int64_t n = (int64_t)blocks * nx_gguf_block_elems(type);
	if (!blocks)
		return 0;
	/* Allocations of the exact size, so that one element too far is seen. */
	uint8_t *raw = malloc(blocks * width + shift);
	float *row = malloc((size_t)n * sizeof(*row));
	fuzz_expect(raw && row, "there is memory");
	memcpy(raw + shift, data + 2, blocks * width);
	nx_dequant_row(type, raw + shift, row, n);
	fuzz_tally.accepted++;
	if (type == NX_GGUF_F32 || type == NX_GGUF_F16 || type == NX_GGUF_BF16)
		encode_again(type, row, n, raw + shift);
	if (n % 32 == 0)
		encode_q8(row, n);
	free(row);
	free(raw);
	return 0;
}
