/* SPDX-License-Identifier: Apache-2.0
 *
 * Drives bigram_drafter with a fake host; nexus/fake_host.h and fake_slots.h are its manual.
 */
#include <nexus/fake_slots.h>

int main(int argc, char **argv)
{
	const char *so = argc > 1 ? argv[1] : "./bigram_drafter.so";
	static const int32_t text[] = {1, 2, 3, 1, 2, 4, 1, 2, 3, 1};
	static const int32_t other[] = {7, 8, 1};
	struct nx_draft_row rows[8];
	struct nx_fake f;

	nx_fake_life(so, "");
	nx_fake_life(so, "num_tokens=32,min_votes=100");
	if (!nx_fake_open(&f, so, "num_tokens=4", 2)) {
		NX_CHECK(nx_fake_propose(&f, 1, text, 1, 8, rows) == 0,
		         "one token teaches nothing");
		NX_CHECK(nx_fake_propose(&f, 1, text, 10, 8, rows) == 4, "a chain is drafted");
		NX_CHECK(rows[0].token == 2 && rows[1].token == 3 && rows[2].token == 1 &&
		                 rows[3].token == 2,
		         "it follows the bigrams that won: 2 3 1 2");
		NX_CHECK(nx_fake_propose(&f, 1, text, 10, 2, rows) == 2, "the cap is kept");
		NX_CHECK(nx_fake_propose(&f, 2, other, 3, 8, rows) == 0,
		         "another sequence in the place knows nothing of the first");
		NX_CHECK(nx_fake_counter(&f, "proposed") == 6, "drafted tokens are counted");
		nx_fake_close(&f);
	}
	if (!nx_fake_open(&f, so, "min_votes=2", 2)) {
		NX_CHECK(nx_fake_propose(&f, 1, text, 10, 8, rows) == 1,
		         "2 leads after 1, nobody after 2");
		nx_fake_close(&f);
	}
	return nx_fake_done();
}
