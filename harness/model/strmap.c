/* SPDX-License-Identifier: Apache-2.0
 *
 * See strmap.h.
 */
#include "model/strmap.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash_bytes(const char *s, size_t len)
{
	uint64_t h = 0x9e3779b97f4a7c15u ^ len;
	while (len >= 8) {
		uint64_t w;
		memcpy(&w, s, 8);
		h = nx_mix64(h ^ w);
		s += 8;
		len -= 8;
	}
	uint64_t w = 0;
	if (len)
		memcpy(&w, s, len);
	return nx_mix64(h ^ w);
}

int nx_strmap_init(struct nx_strmap *m, size_t max_keys, struct nx_err *err)
{
	size_t n = 16;
	memset(m, 0, sizeof(*m));
	if (max_keys > SIZE_MAX / 64)
		return nx_fail(err, NX_ENOMEM, "a map of %zu names is too large", max_keys);
	while (n < 2 * max_keys)
		n *= 2;
	m->slots = calloc(n, sizeof(*m->slots));
	if (!m->slots)
		return nx_fail(err, NX_ENOMEM, "cannot allocate a map of %zu names", max_keys);
	m->mask = n - 1;
	m->max = max_keys;
	return 0;
}

void nx_strmap_release(struct nx_strmap *m)
{
	free(m->slots);
	memset(m, 0, sizeof(*m));
}

static struct nx_strmap_slot *find(const struct nx_strmap *m, const char *key, size_t len)
{
	size_t i = hash_bytes(key, len) & m->mask;
	while (m->slots[i].key) {
		if (m->slots[i].len == len && memcmp(m->slots[i].key, key, len) == 0)
			break;
		i = (i + 1) & m->mask;
	}
	return &m->slots[i];
}

int nx_strmap_put(struct nx_strmap *m, const char *key, size_t len, uint32_t value, uint32_t *old)
{
	struct nx_strmap_slot *s = find(m, key, len);
	if (s->key) {
		if (old)
			*old = s->value;
		return 0;
	}
	if (m->n >= m->max || len > UINT32_MAX)
		return NX_ENOSPC;
	*s = (struct nx_strmap_slot){.key = key, .len = (uint32_t)len, .value = value};
	m->n++;
	return 1;
}

bool nx_strmap_get(const struct nx_strmap *m, const char *key, size_t len, uint32_t *value)
{
	if (!m->slots)
		return false;
	const struct nx_strmap_slot *s = find(m, key, len);
	if (!s->key)
		return false;
	*value = s->value;
	return true;
}
