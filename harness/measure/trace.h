/* SPDX-License-Identifier: Apache-2.0
 *
 * measure/trace.h: when requests came to a real service and how long they were, read from a file.
 *
 * Two shapes, told apart by the first byte that is no space:
 *
 *   CSV with a header. A column each for time, prompt and output; others are left alone. Names, in any case, spaces
 *   and underscores apart:
 *     time    timestamp, arrival, arrival_timestamp: seconds, or a date such as 2023-11-16 18:15:46.6805900 (also with
 *             T between, Z or +01:00 behind); timestamp_ms, arrival_ms: milliseconds
 *     prompt  ContextTokens (Azure), input_length, input_tokens, prompt_tokens, prompt_size, request tokens (BurstGPT)
 *     output  GeneratedTokens (Azure), output_length, output_tokens, completion_tokens, token_size,
 *             response tokens (BurstGPT)
 *   JSON lines (or a list) {"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [...]}, as Mooncake
 *   publishes. hash_ids, which may be left out, name blocks of NX_TRACE_BLOCK prompt tokens: equal ids, equal blocks.
 *
 * Lengths are 1 to NX_TRACE_LEN_MAX, times never go back; a row that breaks that is refused with its line. Rows of no
 * output are requests that failed (BurstGPT has thousands): they are left out, and counted.
 * Sources: Azure/AzurePublicDataset (AzureLLMInferenceTrace_*.csv), kvcache-ai/Mooncake (FAST25 traces),
 * HPMLL/BurstGPT.
 */
#ifndef NEXUS_MEASURE_TRACE_H
#define NEXUS_MEASURE_TRACE_H

#include <stdint.h>

#include "base/arena.h"

#define NX_TRACE_LEN_MAX 1048576
#define NX_TRACE_ROWS_MAX ((size_t)4000000)
#define NX_TRACE_BYTES_MAX ((size_t)256 << 20) /* of a CSV file */
#define NX_TRACE_BLOCK 512

struct nx_trace_row {
	uint64_t arrival_ns;    /* since the first row's */
	int32_t n_in, n_out;    /* tokens */
	const uint64_t *blocks; /* [n_blocks] hash_ids, or NULL */
	uint32_t n_blocks;
};

struct nx_trace {
	const char *path;
	const struct nx_trace_row *rows;
	size_t n; /* at least 1 */
	size_t n_left_out;
};

/* *out and what it points to belong to the arena; path is borrowed. */
int nx_trace_read(struct nx_arena *a, const char *path, struct nx_trace **out, struct nx_err *err);

#endif
