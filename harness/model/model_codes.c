/* SPDX-License-Identifier: Apache-2.0
 *
 * See model.h: the codes of a quantized file, without a detour over floats.
 */
#include <string.h>

#include "model/dequant.h"
#include "model/model_internal.h"

#define BLOCK 32 /* elements of Q8_0, Q4_0 and Q4_1 */

bool nx_model_code_format(const struct nx_model *m, enum nx_weight_id id, int32_t layer,
                          struct nx_weight_quant *out)
{
	const struct nx_tensor *t = nx_model_weight(m, id, layer);
	*out = (struct nx_weight_quant){.group_size = BLOCK};
	switch (t ? t->type : NX_GGUF_F32) {
	case NX_GGUF_Q8_0: out->code = NX_WEIGHT_CODE_INT8; return true;
	case NX_GGUF_Q4_0: out->code = NX_WEIGHT_CODE_INT4; return true;
	case NX_GGUF_Q4_1:
		out->code = NX_WEIGHT_CODE_INT4;
		out->zero = true;
		return true;
	default: *out = (struct nx_weight_quant){.code = NX_WEIGHT_CODE_NONE}; return false;
	}
}

static float half_at(const uint8_t *p)
{
	uint16_t h;
	memcpy(&h, p, sizeof(h));
	return nx_dq_from_f16(h);
}

/* Element i of the 4-bit types is in the low nibble of byte i, i + 16 in the high. */
void nx_codes_of_block(enum nx_gguf_type type, const uint8_t *p, uint8_t *codes,
                       struct nx_quant_param *param)
{
	*param = (struct nx_quant_param){.scale = half_at(p)};
	p += 2;
	if (type == NX_GGUF_Q8_0) {
		for (int i = 0; i < BLOCK; i++)
			codes[i] = (uint8_t)(p[i] ^ 0x80u); /* q + 128 */
		return;
	}
	if (type == NX_GGUF_Q4_1) {
		param->zero = half_at(p);
		p += 2;
	}
	for (int i = 0; i < BLOCK / 2; i++) {
		codes[i] = p[i] & 15;
		codes[i + BLOCK / 2] = p[i] >> 4;
	}
}

int nx_model_codes(const struct nx_model *m, enum nx_weight_id id, int32_t layer, int64_t row0,
                   int64_t n, uint8_t *codes, struct nx_quant_param *params, struct nx_err *err)
{
	struct nx_weight_quant format;
	int rc = nx_model_check_rows(m, &id, layer, row0, n, err);
	if (rc)
		return rc;
	if (!nx_model_code_format(m, id, layer, &format))
		return nx_fail(err, NX_ENOTSUP, "weight %d of layer %d is not of codes", (int)id,
		               layer);
	const struct nx_tensor *t = nx_model_weight(m, id, layer);
	const int64_t cols = nx_weight_cols(&m->shape, id), blocks = cols / BLOCK;
	const int64_t bytes = nx_gguf_block_bytes(t->type);
	for (int64_t r = 0; r < n; r++) {
		const uint8_t *row = (const uint8_t *)t->data +
		                     nx_model_file_row(m, id, row0 + r) * blocks * bytes;
		for (int64_t b = 0; b < blocks; b++)
			nx_codes_of_block(t->type, row + b * bytes, codes + r * cols + b * BLOCK,
			                  &params[r * blocks + b]);
	}
	return 0;
}
