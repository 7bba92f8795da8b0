/* SPDX-License-Identifier: Apache-2.0 */
/* The input is a trace of arrivals and lengths, CSV or JSON lines: its reader, and what it promises of every row. */
#include "base/arena.h"
#include "fuzz/fuzz.h"
#include "measure/trace.h"

FUZZ_TARGET(trace)
{
	struct nx_arena arena = {0};
	struct nx_trace *t = NULL;
	struct nx_err err = {0};
	uint64_t before = 0, sum = 0;

	if (fuzz_told(nx_trace_read(&arena, fuzz_file("in.csv", data, size), &t, &err), &err)) {
		fuzz_expect(t->n >= 1, "a trace has a row");
		for (size_t i = 0; i < t->n; i++) {
			const struct nx_trace_row *r = &t->rows[i];
			fuzz_expect(r->arrival_ns >= before, "times never go back");
			fuzz_expect(i > 0 || r->arrival_ns == 0, "the first row is at 0");
			fuzz_expect(r->n_in >= 1 && r->n_in <= NX_TRACE_LEN_MAX && r->n_out >= 1 &&
			                    r->n_out <= NX_TRACE_LEN_MAX,
			            "lengths are legal");
			before = r->arrival_ns;
			for (uint32_t k = 0; k < r->n_blocks; k++)
				sum += r->blocks[k];
		}
	}
	fuzz_expect(sum != 1 || before < UINT64_MAX, "every block was read"); /* keeps the reads */
	nx_arena_release(&arena);
	return 0;
}
