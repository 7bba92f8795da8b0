/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz/fuzz.h: what the fuzz targets share. See README.md beside it.
 *
 * A target is one file, fuzz_<name>.c, whose function takes any bytes and must come back: no crash, no
 * leak, no hang, and where the bytes are refused, one sentence. With NX_LIBFUZZER the function is
 * libFuzzer's; without, it enters a list that test_fuzz_corpus.c goes through.
 *
 * An expectation that does not hold is a line on stderr and abort().
 */
#ifndef NEXUS_TEST_FUZZ_FUZZ_H
#define NEXUS_TEST_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nexus/err.h"

struct fuzz_target {
	const char *name;
	int (*run)(const uint8_t *data, size_t size); /* returns 0 */
	struct fuzz_target *next;
};

#ifdef NX_LIBFUZZER
#define FUZZ_TARGET(id)                                                                            \
	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);                              \
	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
#else
#define FUZZ_TARGET(id)                                                                            \
	static int run_##id(const uint8_t *data, size_t size);                                     \
	__attribute__((constructor)) static void enlist_##id(void)                                 \
	{                                                                                          \
		static struct fuzz_target target = {.name = #id, .run = run_##id};                 \
		fuzz_enlist(&target);                                                              \
	}                                                                                          \
	static int run_##id(const uint8_t *data, size_t size)
#endif

void fuzz_enlist(struct fuzz_target *t);
const struct fuzz_target *fuzz_targets(void); /* by name */

/* Counts what the reader made of its input. A refusal must have a negative code, the same in *err, and
 * one line of text without control bytes. Returns rc == 0. */
bool fuzz_told(int rc, const struct nx_err *err);
struct fuzz_tally {
	uint64_t accepted, refused;
};
extern struct fuzz_tally fuzz_tally;

void fuzz_expect(bool holds, const char *what);
/* Reads every byte, so that a sanitizer sees whether it may be read. */
void fuzz_touch(const void *data, size_t size);

/* A folder of this process, made when first asked for and removed at a normal end: in $NEXUS_FUZZ_TMP,
 * or in memory (/dev/shm) where there is such a thing, else in $TMPDIR or /tmp. */
const char *fuzz_dir(void);
/* Writes dir/name and returns its path; name may have a folder in front. Of the last 16 calls the paths stay. */
const char *fuzz_file(const char *name, const void *data, size_t size);
/* A file of the corpus, "config/tiny.json", from the source tree ($NEXUS_SOURCE) or beside the program; read once
 * and kept. */
const uint8_t *fuzz_seed(const char *name, size_t *size);
/* Where techniques/ lies: $NEXUS_BUILD, else the program's own folder. */
const char *fuzz_exe_dir(void);

/* ---- values out of the bytes, for targets that build something from them ---- */

struct fuzz_bytes {
	const uint8_t *at, *end;
};
uint8_t fuzz_u8(struct fuzz_bytes *b); /* 0 at the end */
uint32_t fuzz_u32(struct fuzz_bytes *b);
double fuzz_double(struct fuzz_bytes *b);
/* Up to the next NUL, which is taken, too; a copy, to be released with free(). */
char *fuzz_text(struct fuzz_bytes *b);

#endif
