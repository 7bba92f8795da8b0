/* SPDX-License-Identifier: Apache-2.0
 *
 * See hf_dir.h.
 */
#include "hf_dir.h"

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/tokenizer.h"
#include "tiny_model.h"

#define MODEL_MAX 16384

static const char added[] =
	"[{\"id\":258,\"content\":\"<s>\",\"special\":true},{\"id\":259,\"content\":\"</s>\",\"special\":true},"
	"{\"id\":260,\"content\":\"<t>\",\"special\":false}]";

/* The character that GPT-2's alphabet writes byte b with, escaped for JSON. */
static int put_alphabet(char *out, size_t size, int b)
{
	const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
	const int other = b <= 32 ? 256 + b : b <= 160 ? 256 + b - 94 : 256 + 67;
	return snprintf(out, size, "\\u%04x", (unsigned)(printable ? b : other));
}

static char *byte_model(void)
{
	char *s = malloc(MODEL_MAX);
	size_t n = 0;
	ck_assert_ptr_nonnull(s);
	n += (size_t)snprintf(s, MODEL_MAX, "{\"type\":\"BPE\",\"vocab\":{");
	for (int b = 0; b < 256; b++) {
		n += (size_t)snprintf(s + n, MODEL_MAX - n, "\"");
		n += (size_t)put_alphabet(s + n, MODEL_MAX - n, b);
		n += (size_t)snprintf(s + n, MODEL_MAX - n, "\":%d,", b);
	}
	snprintf(s + n, MODEL_MAX - n,
	         "\"he\":256,\"hel\":257},\"merges\":[\"h e\",[\"he\",\"l\"]]}");
	return s;
}

/* 256 byte tokens between what a test can read. */
static char *char_model(void)
{
	char *s = malloc(MODEL_MAX);
	size_t n = 0;
	ck_assert_ptr_nonnull(s);
	n += (size_t)snprintf(
		s, MODEL_MAX,
		"{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"byte_fallback\":true,\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,");
	for (int b = 0; b < 256; b++)
		n += (size_t)snprintf(s + n, MODEL_MAX - n, "\"<0x%02X>\":%d,", (unsigned)b, 3 + b);
	snprintf(s + n, MODEL_MAX - n,
	         "\"\\u2581\":259,\"a\":260,\"b\":261,\"\\u2581a\":262,\"ab\":263},"
	         "\"merges\":[\"\\u2581 a\",\"a b\"]}");
	return s;
}

const char nx_test_char_model[] = "(characters)";

void nx_test_hf_put(const struct nx_hf_dir *d, const char *name, const char *text, size_t len)
{
	char path[512];
	struct nx_err err;
	snprintf(path, sizeof(path), "%s/%s", d->path, name);
	ck_assert_msg(nx_test_write_file(path, text, len, &err) == 0, "%s", err.msg);
}

void nx_test_hf_dir_init(struct nx_hf_dir *d, const struct nx_hf_parts *p)
{
	const struct {
		const char *name, *text;
	} others[] = {{"tokenizer_config.json", p->tokenizer_config},
	              {"generation_config.json", p->generation_config},
	              {"special_tokens_map.json", p->special_tokens_map},
	              {"config.json", p->config},
	              {"chat_template.jinja", p->template}};
	char *made = !p->model                        ? byte_model()
	             : p->model == nx_test_char_model ? char_model()
	                                              : NULL;
	const char *model = made ? made : p->model;
	const char *pre = p->pre_tokenizer ? p->pre_tokenizer
	                                   : "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}";
	const size_t size = strlen(model) + 65536;
	char *text = malloc(size);
	ck_assert_ptr_nonnull(text);
	const int n = snprintf(
		text, size,
		"{\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":%s,\"model\":%s}",
		p->added_tokens ? p->added_tokens : added, p->normalizer ? p->normalizer : "null",
		pre, p->post_processor ? p->post_processor : "null", model);
	ck_assert(n > 0 && (size_t)n < size);
	nx_test_tmp_path(d->path, sizeof(d->path) - 8, "hf");
	strncat(d->path, "XXXXXX", 7);
	ck_assert_ptr_nonnull(mkdtemp(d->path));
	nx_test_hf_put(d, "tokenizer.json", text, (size_t)n);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (others[i].text)
			nx_test_hf_put(d, others[i].name, others[i].text, strlen(others[i].text));
	free(text);
	free(made);
}

void nx_test_hf_dir_release(struct nx_hf_dir *d)
{
	char path[512];
	DIR *dir = opendir(d->path);
	ck_assert_ptr_nonnull(dir);
	for (struct dirent *e; (e = readdir(dir)) != NULL;) {
		snprintf(path, sizeof(path), "%s/%.200s", d->path, e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	closedir(dir);
	rmdir(d->path);
}

int nx_test_hf_open(struct nx_tokenizer **out, const struct nx_hf_parts *parts, struct nx_err *err)
{
	struct nx_hf_dir d;
	nx_test_hf_dir_init(&d, parts);
	const int rc = nx_tokenizer_create_hf(out, d.path, err);
	nx_test_hf_dir_release(&d);
	return rc;
}
