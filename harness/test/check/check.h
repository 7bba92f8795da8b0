/* SPDX-License-Identifier: Apache-2.0
 *
 * test/check/check.h: Check's own header, without a cost that is quadratic. Tests find it before the system's.
 *
 * Every ck_assert that holds sends its place to the parent, which moves all that follows it in the record for each
 * message: time grows with the square of the number of assertions, and a loop over a tensor has a million. The place
 * serves one purpose, to say after which assertion a test died, so each assertion sends its own the first few times.
 */
#ifndef NX_TEST_CHECK_H
#define NX_TEST_CHECK_H

#pragma GCC system_header /* where include_next is no pedantry */
#include_next <check.h>

#define NX_MARKS_OF_ONE_PLACE 4

/* Threads of one test may both send the last one. */
#define _mark_point(file, line)                                                                    \
	__extension__({                                                                            \
		static unsigned sent_;                                                             \
		unsigned now_ = __atomic_load_n(&sent_, __ATOMIC_RELAXED);                         \
		if (now_ < NX_MARKS_OF_ONE_PLACE) {                                                \
			__atomic_store_n(&sent_, now_ + 1, __ATOMIC_RELAXED);                      \
			(_mark_point)(file, line);                                                 \
		}                                                                                  \
	})

#endif
