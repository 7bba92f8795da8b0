/* SPDX-License-Identifier: Apache-2.0
 *
 * Drives int8_kv with a fake host and a small store; nexus/fake_device.h is its manual.
 */
#include <nexus/fake_device.h>

int main(int argc, char **argv)
{
	const char *so = argc > 1 ? argv[1] : "./int8_kv.so";
	struct nx_codec_limits l = {.n_kv_heads = 2, .head_dim = 16, .plain = NX_F32};
	struct nx_codec_layout out = {0};
	struct nx_err err = {0};
	struct nx_fake f;

	nx_fake_life(so, "");
	if (!nx_fake_open(&f, so, "", 2)) {
		f.t->codec_layout(f.self, &l, &out, &err);
		NX_CHECK(out.row_bytes == 2 * (16 + 4),
		         "a head takes 16 codes and a scale: %d bytes", out.row_bytes);
		nx_fake_codec(&f, 0.02); /* numbers are below 1: a step of the grid is 1 / 127 */
		NX_CHECK(nx_fake_probe(&f, "cuda", NX_DEV_ASYNC, &err) == NX_ESKIP,
		         "a device whose memory C cannot reach is refused");
		nx_fake_close(&f);
	}
	return nx_fake_done();
}
