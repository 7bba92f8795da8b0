/* SPDX-License-Identifier: Apache-2.0
 *
 * Drives shortest_prompt with a fake host; nexus/fake_host.h and fake_slots.h are its manual.
 */
#include <nexus/fake_slots.h>

static struct nx_fake_scene s;

int main(int argc, char **argv)
{
	const char *so = argc > 1 ? argv[1] : "./shortest_prompt.so";
	struct nx_fake f;

	nx_fake_life(so, "");
	if (!nx_fake_open(&f, so, "budget=20",
	                  1)) { /* one place: the order is that of the starts */
		nx_fake_scene_init(&s, 1, 100, 1000);
		nx_fake_arrive(&s, 50, 2, 0);
		nx_fake_arrive(&s, 30, 2, 0);
		nx_fake_arrive(&s, 10, 2, 0);
		nx_fake_serve(&f, &s, 100);
		NX_CHECK(s.finished[0] == 2 && s.finished[1] == 1 && s.finished[2] == 0,
		         "the shortest prompt goes first");
		NX_CHECK(nx_fake_counter(&f, "chunks") == 3, "prompts of 50 and 30 are cut at 20");
		NX_CHECK(nx_fake_counter(&f, "overtaken") == 2, "two start before the oldest");
		nx_fake_close(&f);
	}
	if (!nx_fake_open(&f, so, "budget=20,patience=0", 1)) {
		nx_fake_scene_init(&s, 1, 100, 1000);
		nx_fake_arrive(&s, 50, 2, 0);
		nx_fake_arrive(&s, 10, 2, 0);
		nx_fake_serve(&f, &s, 100);
		NX_CHECK(s.finished[0] == 0, "without patience they go by arrival");
		nx_fake_close(&f);
	}
	if (!nx_fake_open(&f, so, "budget=8", 4)) {
		nx_fake_scene_init(&s, 4, 16, 400);
		s.view.split_prompt = false; /* then nothing may be cut, whatever the budget */
		for (int i = 0; i < 20; i++)
			nx_fake_arrive(&s, 1 + i * 5 % 13, 1 + i % 4, 0);
		nx_fake_serve(&f, &s, 400);
		NX_CHECK(s.n_finished == 20, "all are served");
		NX_CHECK(nx_fake_counter(&f, "chunks") == 0, "no prompt was cut");
		nx_fake_close(&f);
	}
	return nx_fake_done();
}
