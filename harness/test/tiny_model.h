/* SPDX-License-Identifier: Apache-2.0
 *
 * test/tiny_model.h: writes small random GGUF files for tests, and spoils them.
 */
#ifndef NEXUS_TEST_TINY_MODEL_H
#define NEXUS_TEST_TINY_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "model/gguf.h"
#include "model/shape.h"
#include "nexus/err.h"

/* 2 layers, d 64, 4 heads / 2 kv of 16, ff 96, vocab 320, context 256, tied. */
struct nx_shape nx_test_tiny_shape(void);

/* Writes a complete Llama GGUF v3 with seeded weights (embedding uniform in [-1, 1], matrices of
 * variance 1 / columns, norms in [0.9, 1.1]) and a byte-level BPE tokenizer ("gpt-2"): tokens 0..255
 * are the bytes, merges follow up to vocab - 3, then come <|endoftext|> (BOS and EOS),
 * <|im_start|> and <|im_end|>. vocab: 259 to 18,000. type: F32, F16, BF16 or Q8_0; norms are always
 * F32, and so is a matrix whose columns are no multiple of 32 where Q8_0 is asked.
 * The same arguments give the same bytes. */
int nx_test_write_model(const char *path, const struct nx_shape *shape, enum nx_gguf_type type,
                        uint64_t seed, struct nx_err *err);

/* Whole files. *data is the caller's, to be released with free(). */
int nx_test_read_file(const char *path, uint8_t **data, size_t *len, struct nx_err *err);
int nx_test_write_file(const char *path, const void *data, size_t len, struct nx_err *err);

/* Writes a hostile variant: the first keep bytes of data, with n_flips seeded random bits flipped
 * in [0, flip_below). */
int nx_test_write_hostile(const char *path, const uint8_t *data, size_t keep, int n_flips,
                          size_t flip_below, uint64_t seed, struct nx_err *err);

/* The path of a scratch file of this process in $TMPDIR or /tmp, ending in tag; the caller unlinks. */
void nx_test_tmp_path(char *buf, size_t size, const char *tag);

/* "$NEXUS_SOURCE/rel", with "." for an unset NEXUS_SOURCE. */
/* Writes a tiny model to path and opens its file and tokenizer, which are the caller's to close. */
struct nx_gguf;
struct nx_tokenizer;
int nx_test_open_tokenizer(const char *path, struct nx_gguf **g, struct nx_tokenizer **t,
                           struct nx_err *err);

void nx_test_source_path(char *buf, size_t size, const char *rel);

/* Seeded 64-bit generator (splitmix64). */
uint64_t nx_test_random(uint64_t *state);

#endif
