/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 (FIPS 180-4) of memory and files; none of our dependencies brings one. See run.h. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "record/run.h"

struct sha256 {
	uint32_t h[8];
	uint8_t block[64];
	uint64_t n_bytes;
};

static const uint32_t k[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};

static uint32_t rotr(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

static void compress(uint32_t h[8], const uint8_t *p)
{
	uint32_t w[64], s[8];

	for (int i = 0; i < 16; i++)
		w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 |
		       (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];
		w[i] = w[i - 16] + (rotr(a, 7) ^ rotr(a, 18) ^ a >> 3) + w[i - 7] +
		       (rotr(b, 17) ^ rotr(b, 19) ^ b >> 10);
	}
	memcpy(s, h, sizeof(s));
	for (int i = 0; i < 64; i++) {
		uint32_t e = s[4], a = s[0];
		uint32_t t1 = s[7] + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) +
		              ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
		uint32_t t2 = (rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) +
		              ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
		memmove(s + 1, s, 7 * sizeof(*s));
		s[4] += t1;
		s[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		h[i] += s[i];
}

static void start(struct sha256 *c)
{
	*c = (struct sha256){.h = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
	                           0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

static void add(struct sha256 *c, const uint8_t *p, size_t n)
{
	size_t held = c->n_bytes % 64;

	c->n_bytes += n;
	if (held && n >= 64 - held) {
		memcpy(c->block + held, p, 64 - held);
		compress(c->h, c->block);
		p += 64 - held;
		n -= 64 - held;
		held = 0;
	}
	for (; !held && n >= 64; p += 64, n -= 64)
		compress(c->h, p);
	if (n)
		memcpy(c->block + held, p, n);
}

static void finish(struct sha256 *c, char hex[65])
{
	uint64_t n_bits = c->n_bytes * 8;
	uint8_t pad[72] = {0x80};
	size_t n = 64 - (c->n_bytes + 8) % 64; /* 1..64 bytes of padding, then the length */

	for (int i = 0; i < 8; i++)
		pad[n + (size_t)i] = (uint8_t)(n_bits >> (56 - 8 * i));
	add(c, pad, n + 8);
	for (int i = 0; i < 8; i++)
		snprintf(hex + 8 * i, 9, "%08x", c->h[i]);
}

void nx_sha256(const void *data, size_t n, char hex[65])
{
	struct sha256 c;

	start(&c);
	add(&c, data, n);
	finish(&c, hex);
}

int nx_sha256_file(const char *path, char hex[65], struct nx_err *err)
{
	struct sha256 c;
	uint8_t buf[1 << 16];
	size_t n;
	FILE *f = fopen(path, "rbe");

	if (!f)
		return nx_fail(err, NX_EIO, "%s: cannot be opened (%s)", path, strerror(errno));
	start(&c);
	while ((n = fread(buf, 1, sizeof(buf), f)) > 0)
		add(&c, buf, n);
	int failed = ferror(f);
	fclose(f);
	if (failed)
		return nx_fail(err, NX_EIO, "%s: cannot be read to its end (%s)", path,
		               strerror(errno));
	finish(&c, hex);
	return 0;
}
