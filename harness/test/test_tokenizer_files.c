/* SPDX-License-Identifier: Apache-2.0
 *
 * What tokenizer.json and the files beside it may say: settings, patterns, refusals, hostile files.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "hf_dir.h"
#include "model/pretokenize.h"
#include "model/tokenizer.h"
#include "tiny_model.h"

static struct nx_tokenizer *open_parts(const struct nx_hf_parts *parts)
{
	struct nx_tokenizer *t = NULL;
	struct nx_err err;
	ck_assert_msg(nx_test_hf_open(&t, parts, &err) == 0, "%s", err.msg);
	return t;
}

/* Encodes text and compares; ids end with -1. */
static void check_ids(const struct nx_tokenizer *t, const char *text, unsigned flags,
                      const int32_t *want)
{
	struct nx_err err;
	int32_t *ids;
	size_t n;
	ck_assert_msg(nx_tokenizer_encode(t, text, strlen(text), flags, &ids, &n, &err) == 0, "%s",
	              err.msg);
	for (size_t i = 0; i <= n; i++)
		ck_assert_msg((i < n ? ids[i] : -1) == want[i],
		              "\"%s\", token %zu: %d instead of %d", text, i, i < n ? ids[i] : -1,
		              want[i]);
	free(ids);
}

#define IDS(...) ((const int32_t[]){__VA_ARGS__, -1})

static void check_back(const struct nx_tokenizer *t, const char *text, size_t len, const char *want,
                       size_t want_len)
{
	struct nx_err err;
	int32_t *ids;
	size_t n, n_back;
	char *back;
	ck_assert_msg(nx_tokenizer_encode(t, text, len, 0, &ids, &n, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(nx_tokenizer_decode(t, ids, n, &back, &n_back, &err), 0);
	ck_assert(n_back == want_len && memcmp(back, want, want_len) == 0);
	free(ids);
	free(back);
}

#define SPM_NORMALIZER                                                                             \
	"{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"},"  \
	"{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}]}"
#define SPM_ADDED                                                                                             \
	"[{\"id\":0,\"content\":\"<unk>\",\"special\":true},{\"id\":1,\"content\":\"<s>\",\"special\":true}," \
	"{\"id\":2,\"content\":\"</s>\",\"special\":true}]"

static const struct nx_hf_parts legacy = {
	.model = nx_test_char_model,
	.added_tokens = SPM_ADDED,
	.normalizer = SPM_NORMALIZER,
	.pre_tokenizer = "null",
	.tokenizer_config = "{\"bos_token\":\"<s>\",\"add_bos_token\":true}",
};

START_TEST(bytes_merge_and_special_tokens_match)
{
	struct nx_tokenizer *t = open_parts(&(struct nx_hf_parts){0});
	check_ids(t, "hello", 0, IDS(257, 'l', 'o'));
	check_ids(t, "h<s><t>", NX_TOK_PARSE_SPECIAL, IDS('h', 258, 260));
	check_ids(t, "<s><t>", 0, IDS('<', 's', '>', 260));
	ck_assert_int_eq(nx_tokenizer_vocab(t), 261);
	ck_assert_int_eq(nx_tokenizer_bos(t), -1);
	ck_assert(!nx_tokenizer_add_bos(t));
	ck_assert(nx_tokenizer_is_control(t, 258) && !nx_tokenizer_is_control(t, 260));
	ck_assert_str_eq(nx_tokenizer_pre(t), "gpt-2");
	nx_tokenizer_destroy(t);
}
END_TEST

START_TEST(spaces_are_put_where_the_normalizer_says)
{
	struct nx_tokenizer *t = open_parts(&legacy);
	check_ids(t, "a", 0, IDS(262));
	check_ids(t, " a", 0, IDS(259, 262));
	check_ids(t, "a<s>a", NX_TOK_PARSE_SPECIAL, IDS(262, 1, 262));
	check_ids(t, "a<s>a", NX_TOK_PARSE_SPECIAL | NX_TOK_CONTINUES, IDS(260, 1, 262));
	check_ids(t, "", 0, IDS(-1));
	check_ids(t, "c", 0, IDS(259, 3 + 'c'));
	check_ids(t, "\xff", 0, IDS(259, 3 + 0xff));
	check_back(t, " a  b ", 6, " a  b ", 6);
	check_back(t, "\xe4\xbd\xff", 3, "\xe4\xbd\xff", 3);
	check_back(t, "a\xe2\x96\x81", 4, "a ", 2); /* U+2581 comes back as a space */
	ck_assert_int_eq(nx_tokenizer_find(t, "c", 1), 3 + 'c');
	nx_tokenizer_destroy(t);
}
END_TEST

START_TEST(spaces_are_put_where_metaspace_says)
{
	static const char pre[] =
		"{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"%s\",\"split\":%s}";
	struct nx_hf_parts p = legacy;
	char text[160];
	struct nx_tokenizer *t;
	p.normalizer = NULL;
	p.pre_tokenizer = text;
	snprintf(text, sizeof(text), pre, "first", "false");
	t = open_parts(&p);
	check_ids(t, "a", 0, IDS(262));
	check_ids(t, " a", 0, IDS(262)); /* it has a space already */
	check_ids(t, "<s>a", NX_TOK_PARSE_SPECIAL, IDS(1, 260));
	check_ids(t, "a", NX_TOK_CONTINUES, IDS(260));
	nx_tokenizer_destroy(t);
	snprintf(text, sizeof(text), pre, "always", "true");
	t = open_parts(&p);
	check_ids(t, "<s>a", NX_TOK_PARSE_SPECIAL, IDS(1, 262));
	nx_tokenizer_destroy(t);
	snprintf(text, sizeof(text), pre, "never", "false");
	t = open_parts(&p);
	check_ids(t, "a", 0, IDS(260));
	check_back(t, " a", 2, " a", 2);
	nx_tokenizer_destroy(t);
}
END_TEST

START_TEST(bos_comes_first_once)
{
	struct nx_tokenizer *t = open_parts(&legacy);
	ck_assert(nx_tokenizer_add_bos(t) && nx_tokenizer_bos(t) == 1);
	check_ids(t, "a", NX_TOK_ADD_BOS, IDS(1, 262));
	check_ids(t, "<s>a", NX_TOK_ADD_BOS | NX_TOK_PARSE_SPECIAL, IDS(1, 262));
	check_ids(t, "<s><s>a", NX_TOK_ADD_BOS | NX_TOK_PARSE_SPECIAL, IDS(1, 1, 262));
	check_ids(t, "", NX_TOK_ADD_BOS, IDS(1));
	nx_tokenizer_destroy(t);
}
END_TEST

#define BOS_TEMPLATE                                                                                        \
	"{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},{\"type\":\"TemplateProcessing\"," \
	"\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]}]}"

static const struct {
	struct nx_hf_parts parts;
	int32_t bos, eos, also; /* also: another token that ends a generation, or -1 */
	bool add_bos;
} settings[] = {
	{{.post_processor = BOS_TEMPLATE}, 258, -1, -1, true},
	{{.post_processor = BOS_TEMPLATE, .tokenizer_config = "{\"add_bos_token\":false}"},
         258,
         -1,
         -1,
         false},
	{{.tokenizer_config = "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"</s>\"}"},
         258,
         259,
         -1,
         false},
	{{.tokenizer_config = "{\"bos_token\":null,\"add_bos_token\":true}"}, -1, -1, -1, false},
	{{.special_tokens_map = "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</s>\"}}"},
         258,
         259,
         -1,
         false},
	{{.tokenizer_config = "{\"eos_token\":\"</s>\"}",
          .generation_config = "{\"eos_token_id\":[259,260]}"},
         -1,
         259,
         260,
         false},
	{{.generation_config = "{\"eos_token_id\":260}", .config = "{\"eos_token_id\":1}"},
         -1,
         260,
         260,
         false},
	{{.generation_config = "{}", .config = "{\"eos_token_id\":[260]}"}, -1, 260, 260, false},
};

START_TEST(settings_come_from_the_files_beside)
{
	struct nx_tokenizer *t = open_parts(&settings[_i].parts);
	ck_assert_int_eq(nx_tokenizer_bos(t), settings[_i].bos);
	ck_assert_int_eq(nx_tokenizer_eos(t), settings[_i].eos);
	ck_assert_int_eq(nx_tokenizer_add_bos(t), settings[_i].add_bos);
	if (settings[_i].eos >= 0)
		ck_assert(nx_tokenizer_is_eog(t, settings[_i].eos));
	if (settings[_i].also >= 0)
		ck_assert(nx_tokenizer_is_eog(t, settings[_i].also));
	ck_assert(!nx_tokenizer_is_eog(t, 1));
	nx_tokenizer_destroy(t);
}
END_TEST

START_TEST(ids_may_leave_gaps_and_be_padded)
{
	struct nx_hf_parts p = {.added_tokens =
	                                "[{\"id\":300,\"content\":\"<s>\",\"special\":true}]"};
	struct nx_tokenizer *t = open_parts(&p);
	struct nx_err err;
	char *back;
	size_t len;
	ck_assert_int_eq(nx_tokenizer_vocab(t), 301);
	ck_assert_ptr_nonnull(nx_tokenizer_piece(t, 299, &len));
	ck_assert_uint_eq(len, 0);
	ck_assert_int_eq(nx_tokenizer_pad(t, 300, &err), NX_EINVAL);
	ck_assert_int_eq(nx_tokenizer_pad(t, 320, &err), 0);
	ck_assert_int_eq(nx_tokenizer_vocab(t), 320);
	ck_assert(!nx_tokenizer_is_control(t, 319));
	ck_assert_ptr_null(nx_tokenizer_piece(t, 320, &len));
	ck_assert_int_eq(nx_tokenizer_decode(t, IDS('h', 319, 300, 310), 4, &back, &len, &err), 0);
	ck_assert_str_eq(back, "h<s>");
	free(back);
	nx_tokenizer_destroy(t);
}
END_TEST

/* --- Refusals: what is wrong, and what the sentence says. */

static const struct {
	struct nx_hf_parts parts;
	int code;
	const char *says;
} refusals[] = {
	{{.model = "{\"type\":\"Unigram\",\"vocab\":[]}"},
         NX_ENOTSUP,
         "tokenizer.json: key model.type: \"Unigram\" is not supported; legal: BPE"},
	{{.model = "{\"type\":\"WordPiece\",\"vocab\":{}}"}, NX_ENOTSUP, "\"WordPiece\""},
	{{.model = "[]"}, NX_EFORMAT, "key model is a list"},
	{{.model = "{\"type\":\"BPE\",\"merges\":[]}"}, NX_EFORMAT, "key model.vocab is missing"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}", .added_tokens = "[]"},
         NX_EFORMAT,
         "key model.vocab holds no tokens"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0}}"},
         NX_EFORMAT,
         "key model.merges is missing"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}"},
         NX_EFORMAT,
         "two tokens have the id 0"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}"},
         NX_EFORMAT,
         "out of range"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999},\"merges\":[]}"},
         NX_EFORMAT,
         "out of range; legal: 0 to 4194303"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":\"x\"},\"merges\":[]}"},
         NX_EFORMAT,
         "an id is a string"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}"},
         NX_EFORMAT,
         "key model.merges: merge 0 names a token that is not in the vocabulary"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}"},
         NX_EFORMAT,
         "merge 0 is not two tokens"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\",3]]}"},
         NX_EFORMAT,
         "merge 0 is not two tokens"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}"},
         NX_ENOTSUP,
         "key model.dropout"},
	{{.model =
                  "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}"},
         NX_ENOTSUP,
         "key model.end_of_word_suffix"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"<u>\"}"},
         NX_EFORMAT,
         "key model.unk_token: \"<u>\" is no token"},
	{{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"ignore_merges\":1}"},
         NX_EFORMAT,
         "key ignore_merges is a number; legal: true, false"},
	{{.added_tokens = "{}"}, NX_EFORMAT, "key added_tokens is an object"},
	{{.added_tokens = "[{\"id\":5,\"content\":\"<s>\"}]"},
         NX_EFORMAT,
         "the id of \"<s>\" is that of another token"},
	{{.added_tokens = "[{\"id\":300}]"}, NX_EFORMAT, "a token has no content"},
	{{.added_tokens = "[7]"}, NX_EFORMAT, "an id is missing"},
	{{.normalizer = "{\"type\":\"NFKC\"}"},
         NX_ENOTSUP,
         "key normalizer: \"NFKC\" is not supported; legal: NFC"},
	{{.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"y\"}"},
         NX_ENOTSUP,
         "key normalizer: \"Replace\""},
	{{.normalizer =
                  "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Sequence\",\"normalizers\":[]}]}"},
         NX_ENOTSUP,
         "\"Sequence\" is not supported"},
	{{.normalizer = "3"}, NX_EFORMAT, "key normalizer is a number"},
	{{.normalizer = SPM_NORMALIZER}, NX_ENOTSUP, "although pre_tokenizer is ByteLevel"},
	{{.pre_tokenizer = "{\"type\":\"BertPreTokenizer\"}"},
         NX_ENOTSUP,
         "key pre_tokenizer: \"BertPreTokenizer\""},
	{{.pre_tokenizer = "null"}, NX_ENOTSUP, "neither bytes nor SentencePiece's spaces"},
	{{.pre_tokenizer =
                  "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}]}"},
         NX_ENOTSUP,
         "\"ByteLevel before others\""},
	{{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":3}"},
         NX_EFORMAT,
         "key pre_tokenizer.pretokenizers is a number"},
	{{.pre_tokenizer =
                  "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}"},
         NX_ENOTSUP,
         "key pre_tokenizer.replacement"},
	{{.pre_tokenizer =
                  "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"often\"}"},
         NX_ENOTSUP,
         "key pre_tokenizer.prepend_scheme: \"often\""},
	{{.post_processor = "{\"type\":\"BertProcessing\"}"},
         NX_ENOTSUP,
         "key post_processor: \"BertProcessing\""},
	{{.post_processor = "{\"type\":\"TemplateProcessing\"}"},
         NX_EFORMAT,
         "key post_processor.single is missing"},
	{{.tokenizer_config = "{\"add_bos_token\":\"yes\"}"},
         NX_EFORMAT,
         "tokenizer_config.json: key add_bos_token is a string"},
	{{.tokenizer_config = "[]"}, NX_EFORMAT, "tokenizer_config.json: found a list"},
	{{.generation_config = "{\"eos_token_id\":[1,5000]}"},
         NX_EFORMAT,
         "generation_config.json: key eos_token_id holds an id out of range; legal: ids from 0 to 260"},
	{{.config = "{\"eos_token_id\":{}}"}, NX_EFORMAT, "key eos_token_id holds an object"},
};

START_TEST(what_is_not_known_is_refused)
{
	struct nx_tokenizer *t = NULL;
	struct nx_err err;
	const int rc = nx_test_hf_open(&t, &refusals[_i].parts, &err);
	ck_assert_msg(rc == refusals[_i].code, "%d instead of %d: %s", rc, refusals[_i].code,
	              rc ? err.msg : "opened");
	ck_assert_msg(strstr(err.msg, refusals[_i].says) != NULL, "\"%s\" does not say \"%s\"",
	              err.msg, refusals[_i].says);
}
END_TEST

START_TEST(broken_and_missing_files_are_refused)
{
	static const char deep[] = "[[[[[[[[[[";
	struct nx_hf_dir d;
	struct nx_tokenizer *t;
	struct nx_err err;
	char *nested = malloc(1 << 20);
	ck_assert_ptr_nonnull(nested);
	for (size_t i = 0; i < 1 << 20; i++)
		nested[i] = deep[i % (sizeof(deep) - 1)];
	nx_test_hf_dir_init(&d, &(struct nx_hf_parts){0});
	nx_test_hf_put(&d, "tokenizer.json", "{\"model\":\n {", 12);
	ck_assert_int_eq(nx_tokenizer_create_hf(&t, d.path, &err), NX_EFORMAT);
	ck_assert_ptr_nonnull(strstr(err.msg, "tokenizer.json:2:"));
	nx_test_hf_put(&d, "tokenizer.json", nested, 1 << 20);
	ck_assert_int_eq(nx_tokenizer_create_hf(&t, d.path, &err), NX_EFORMAT);
	ck_assert_ptr_nonnull(strstr(err.msg, "found broken JSON"));
	nx_test_hf_put(&d, "tokenizer.json", "", 0);
	ck_assert_int_eq(nx_tokenizer_create_hf(&t, d.path, &err), NX_EFORMAT);
	nx_test_hf_dir_release(&d);
	ck_assert_int_eq(nx_tokenizer_create_hf(&t, d.path, &err), NX_EIO);
	ck_assert_ptr_nonnull(strstr(err.msg, "tokenizer.json is not there"));
	free(nested);
}
END_TEST

/* Cut off, or with flipped bits: it may open or be refused, but nothing may be read that is not there. */
START_TEST(hostile_files_do_no_harm)
{
	static const char *const names[] = {"llama3", "llama2", "gpt2"};
	static const char text[] = "Hello w\xc3\xb6rld <s> 123\n\n  <|im_end|> \xff\xe4\xbd";
	uint64_t seed = 77;
	char rel[128], path[512], target[512];
	struct nx_hf_dir d;
	struct nx_err err;
	uint8_t *data;
	size_t len;
	int opened = 0;
	snprintf(rel, sizeof(rel), "harness/test/data/tokenizer/hf-%s/tokenizer.json", names[_i]);
	nx_test_source_path(path, sizeof(path), rel);
	ck_assert_msg(nx_test_read_file(path, &data, &len, &err) == 0, "%s", err.msg);
	nx_test_hf_dir_init(&d, &(struct nx_hf_parts){0});
	snprintf(target, sizeof(target), "%s/tokenizer.json", d.path);
	for (int i = 0; i < 150; i++) {
		struct nx_tokenizer *t;
		const bool cut = i % 10 == 0;
		const size_t keep = cut ? nx_test_random(&seed) % len : len;
		const size_t below = i % 2 ? 1500 : len; /* the steps are near the start */
		int32_t *ids;
		size_t n;
		ck_assert_int_eq(nx_test_write_hostile(target, data, keep, cut ? 0 : 1 + i % 3,
		                                       below < keep ? below : keep,
		                                       nx_test_random(&seed), &err),
		                 0);
		if (nx_tokenizer_create_hf(&t, d.path, &err))
			continue;
		opened++;
		if (nx_tokenizer_encode(t, text, sizeof(text) - 1, NX_TOK_PARSE_SPECIAL, &ids, &n,
		                        &err) == 0)
			free(ids);
		nx_tokenizer_destroy(t);
	}
	ck_assert_int_gt(opened, 0);
	nx_test_hf_dir_release(&d);
	free(data);
}
END_TEST

/* --- Patterns */

static const struct {
	const char *pattern, *want; /* want: the translation, or "!" and what the sentence says */
} patterns[] = {
	{"\\s+(?!\\S)", "[" NX_WS "]+(?![^" NX_WS "])"},
	{"[^\\s\\p{L}]", "[^" NX_WS "\\p{L}]"},
	{"[\\S]", "[" NX_NOT_WS "]"},
	{"(?i:'s|'t)|\\d{1,3}", "(?i:'s|'t)|\\p{Nd}{1,3}"},
	{"a{,3}b{2}c{", "a{0,3}b{2}c\\{"},
	{"\\u00e9\\x41\\v\\-", "\\x{00e9}\\x{41}\\x{B}\\-"},
	{"(ab)?\\p{Han}", "(?:ab)?\\p{sc:Han}"},
	{"\xe4\xb8\x80\n", "\\x{4E00}\\n"},
	{"\\p{^Lu}\\P{N}", "\\p{^Lu}\\P{N}"},
	{"\\w+", "!\\w at byte 0"},
	{"a\\b", "!\\b at byte 1"},
	{"(a)\\1", "!\\1"},
	{"(?<n>a)", "!a kind of group"},
	{"(?>a)", "!a kind of group"},
	{"(?R)", "!a kind of group"},
	{"(*COMMIT)a", "!a verb"},
	{"a(?i)b", "!a kind of group"},
	{"[a[b]]", "!a class in a class"},
	{"[[:alpha:]]", "!a class in a class"},
	{"[a&&b]", "!&& in a class"},
	{"[]a]", "!starts with ]"},
	{"[a", "!a class without an end"},
	{"[\\s-x]", "!a range that starts with a set"},
	{"[!-\\s]", "!a range that ends with a set"},
	{"a{2}+", "!{}+"},
	{"a{2}?", "!{n}?"},
	{"a{12345}", "!more than four digits"},
	{"\\p{Emoji}", "!a property other than"},
	{"\\pL", "!a property without {}"},
	{"\\xff", "!a byte that is no character"},
	{"\\u12", "!a broken"},
	{"a\\", "!a backslash at its end"},
	{"\\h", "!\\h"},
};

START_TEST(patterns_mean_the_same_or_are_refused)
{
	char out[NX_REGEX_MAX + 1];
	struct nx_err err;
	const char *p = patterns[_i].pattern, *want = patterns[_i].want;
	const int rc = nx_regex_translate(p, strlen(p), "f: key k", out, &err);
	if (want[0] != '!') {
		ck_assert_msg(rc == 0, "%s", err.msg);
		ck_assert_str_eq(out, want);
		return;
	}
	ck_assert_int_eq(rc, NX_ENOTSUP);
	ck_assert_msg(strncmp(err.msg, "f: key k: the pattern has ", 26) == 0, "%s", err.msg);
	ck_assert_msg(strstr(err.msg, want + 1) != NULL, "\"%s\" does not say \"%s\"", err.msg,
	              want + 1);
}
END_TEST

static int put_len(void *ud, const char *piece, size_t len, struct nx_err *err)
{
	char *out = ud;
	(void)piece;
	(void)err;
	snprintf(out + strlen(out), 64 - strlen(out), "%zu ", len);
	return 0;
}

START_TEST(negated_properties_give_back)
{
	/* PCRE2 10.42 would keep what the first took, and match nothing; Oniguruma's answer. */
	static const char text[] = "x1,000 ab\n";
	const char *pattern = "\\P{N}{2,}\\P{L}";
	char got[64] = "";
	struct nx_pretok *p;
	struct nx_err err;
	ck_assert_int_eq(nx_pretok_create_custom(&p, &pattern, 1, "f", &err), 0);
	ck_assert_int_eq(nx_pretok_split(p, text, sizeof(text) - 1, put_len, got, &err), 0);
	ck_assert_str_eq(got, "6 4 ");
	nx_pretok_destroy(p);
}
END_TEST

static int open_pattern(struct nx_tokenizer **t, const char *pattern, struct nx_err *err)
{
	char pre[512];
	snprintf(
		pre, sizeof(pre),
		"{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
		"\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}",
		pattern);
	return nx_test_hf_open(t, &(struct nx_hf_parts){.pre_tokenizer = pre}, err);
}

START_TEST(patterns_of_a_file_run_under_limits)
{
	struct nx_tokenizer *t;
	struct nx_err err;
	int32_t *ids;
	size_t n;
	char text[102];
	memset(text, 'a', 100);
	memcpy(text + 100, "!x", 2);
	ck_assert_int_eq(open_pattern(&t, "a*", &err), NX_ENOTSUP);
	ck_assert_ptr_nonnull(strstr(err.msg, "pattern 0 can match an empty text"));
	ck_assert_int_eq(open_pattern(&t, "a)", &err), NX_EFORMAT);
	ck_assert_ptr_nonnull(
		strstr(err.msg, "tokenizer.json: key pre_tokenizer: PCRE2 refuses pattern 0"));
	/* Would take 2^100 steps. */
	ck_assert_msg(open_pattern(&t, "(?:a|a)+x", &err) == 0, "%s", err.msg);
	ck_assert_int_eq(nx_tokenizer_encode(t, text, sizeof(text), 0, &ids, &n, &err), NX_EINVAL);
	ck_assert_ptr_nonnull(strstr(err.msg, "pre-tokenizer custom fails at byte 0"));
	nx_tokenizer_destroy(t);
}
END_TEST

START_TEST(long_texts_take_no_quadratic_time)
{
	static const char *const names[] = {"llama3", "qwen2", "llama2", "metaspace"};
	static const char *const fills[] = {"a", " ", "\xc3\xa9", "<", "0", "e\xcc\x81"};
	const size_t n = (size_t)1 << 20;
	char rel[128], dir[512], *text = malloc(n + 8);
	struct nx_tokenizer *t;
	struct nx_err err;
	ck_assert_ptr_nonnull(text);
	snprintf(rel, sizeof(rel), "harness/test/data/tokenizer/hf-%s", names[_i]);
	nx_test_source_path(dir, sizeof(dir), rel);
	ck_assert_msg(nx_tokenizer_create_hf(&t, dir, &err) == 0, "%s", err.msg);
	for (size_t f = 0; f < sizeof(fills) / sizeof(fills[0]); f++) {
		const size_t size = strlen(fills[f]);
		int32_t *ids;
		size_t n_ids;
		for (size_t i = 0; i < n; i++)
			text[i] = fills[f][i % size];
		ck_assert_msg(nx_tokenizer_encode(t, text, n / size * size, NX_TOK_PARSE_SPECIAL,
		                                  &ids, &n_ids, &err) == 0,
		              "%s", err.msg);
		ck_assert_uint_gt(n_ids, 10000);
		free(ids);
	}
	nx_tokenizer_destroy(t);
	free(text);
}
END_TEST

#define N(table) (int)(sizeof(table) / sizeof((table)[0]))

static Suite *suite_tokenizer_files(void)
{
	Suite *s = suite_create("tokenizer_files");
	TCase *tc = tcase_create("files"), *slow = tcase_create("slow");
	tcase_add_test(tc, bytes_merge_and_special_tokens_match);
	tcase_add_test(tc, spaces_are_put_where_the_normalizer_says);
	tcase_add_test(tc, spaces_are_put_where_metaspace_says);
	tcase_add_test(tc, bos_comes_first_once);
	tcase_add_loop_test(tc, settings_come_from_the_files_beside, 0, N(settings));
	tcase_add_test(tc, ids_may_leave_gaps_and_be_padded);
	tcase_add_loop_test(tc, what_is_not_known_is_refused, 0, N(refusals));
	tcase_add_test(tc, broken_and_missing_files_are_refused);
	tcase_add_loop_test(tc, patterns_mean_the_same_or_are_refused, 0, N(patterns));
	tcase_add_test(tc, negated_properties_give_back);
	suite_add_tcase(s, tc);
	tcase_set_timeout(slow, 120); /* sanitized, on busy cores; quadratic time would be hours */
	tcase_add_test(slow, patterns_of_a_file_run_under_limits);
	tcase_add_loop_test(slow, hostile_files_do_no_harm, 0, 3);
	tcase_add_loop_test(slow, long_texts_take_no_quadratic_time, 0, 4);
	suite_add_tcase(s, slow);
	return s;
}

int main(void)
{
	SRunner *r = srunner_create(suite_tokenizer_files());
	srunner_run_all(r, CK_NORMAL);
	const int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
