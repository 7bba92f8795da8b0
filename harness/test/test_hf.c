/* SPDX-License-Identifier: Apache-2.0
 *
 * test/test_hf.c: Hugging Face directories that are broken, hostile or beyond what is computed: each is refused by
 * the name of what is wrong, and none is read out of bounds.
 */
#define _GNU_SOURCE
#include <check.h>
#include <dirent.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/model.h"
#include "model/safetensors.h"
#include "tiny_model.h"

static char dir[256], source[PATH_MAX];

static void setup(void)
{
	char rel[PATH_MAX];
	nx_test_tmp_path(dir, sizeof(dir), "hf");
	ck_assert_int_eq(mkdir(dir, 0700), 0);
	nx_test_source_path(rel, sizeof(rel), "harness/test/data/families");
	ck_assert_ptr_nonnull(realpath(rel, source));
}

static void teardown(void)
{
	char path[PATH_MAX];
	DIR *d = opendir(dir);
	const struct dirent *e;
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		unlink(path);
	}
	if (d)
		closedir(d);
	rmdir(dir);
}

static void in_dir(char *buf, const char *name)
{
	snprintf(buf, PATH_MAX, "%s/%s", dir, name);
}

/* dir gets links to all files of a family but those that are written anew. */
static void link_family(const char *family)
{
	char from[PATH_MAX + 300], to[PATH_MAX];
	snprintf(from, sizeof(from), "%s/%s", source, family);
	DIR *d = opendir(from);
	const struct dirent *e;
	ck_assert_ptr_nonnull(d);
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(from, sizeof(from), "%s/%s/%s", source, family, e->d_name);
		in_dir(to, e->d_name);
		ck_assert_int_eq(symlink(from, to), 0);
	}
	closedir(d);
}

static json_t *load(const char *family, const char *file)
{
	char path[PATH_MAX + 300];
	snprintf(path, sizeof(path), "%s/%s/%s", source, family, file);
	json_t *j = json_load_file(path, 0, NULL);
	ck_assert_msg(j != NULL, "cannot read %s", path);
	return j;
}

static void save(json_t *j, const char *file)
{
	char path[PATH_MAX];
	in_dir(path, file);
	unlink(path);
	ck_assert_int_eq(json_dump_file(j, path, 0), 0);
	json_decref(j);
}

static int open_dir(struct nx_err *err)
{
	struct nx_model *m = NULL;
	int rc = nx_model_open(&m, dir, err);
	ck_assert((m != NULL) == (rc == 0));
	nx_model_close(m);
	return rc;
}

/* ---- config.json ------------------------------------------------------------------------------ */

static const struct {
	const char *key, *value; /* value NULL: the key is taken away */
	int code;                /* 0: opens */
	const char *word;
} settings[] = {
	{"model_type", "\"gemma\"", NX_ENOTSUP,
         "key model_type is \"gemma\"; legal: llama, mistral, qwen2, qwen3"},
	{"model_type", NULL, NX_EFORMAT, "key model_type is missing"},
	{"architectures", "[\"LlamaForSequenceClassification\"]", NX_ENOTSUP,
         "architectures names \"LlamaForSequenceClassification\""},
	{"hidden_act", "\"gelu\"", NX_ENOTSUP,
         "hidden_act is \"gelu\", which is not supported; legal: silu"},
	{"attention_bias", "true", NX_ENOTSUP, "attention_bias is true"},
	{"attention_bias", "0", NX_EFORMAT, "attention_bias is a number; legal: true or false"},
	{"mlp_bias", "true", NX_ENOTSUP, "mlp_bias: biases of the feed-forward"},
	{"quantization_config", "{\"quant_method\": \"gptq\"}", NX_ENOTSUP,
         "quantized safetensors are not supported"},
	{"num_local_experts", "8", NX_ENOTSUP, "mixtures of experts"},
	{"partial_rotary_factor", "0.5", NX_ENOTSUP, "partial rotary"},
	{"partial_rotary_factor", "1.0", 0, ""},
	{"final_logit_softcapping", "30.0", NX_ENOTSUP, "capped logits"},
	{"rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 2.0}", NX_ENOTSUP,
         "RoPE scaling \"yarn\" is not supported; legal: default, linear, llama3"},
	{"rope_scaling", "{\"type\": \"longrope\"}", NX_ENOTSUP, "\"longrope\""},
	{"rope_scaling", "{\"type\": \"linear\", \"factor\": 0.5}", NX_EFORMAT,
         "rope_scaling.factor is 0.5; legal: 1 to 1e6"},
	{"rope_scaling", "{\"rope_type\": \"llama3\", \"factor\": 8.0}", NX_EFORMAT,
         "rope_scaling.low_freq_factor is missing"},
	{"rope_scaling", "{\"rope_type\": \"default\", \"mrope_section\": [1, 2]}", NX_ENOTSUP,
         "its member \"mrope_section\" is not supported"},
	{"rope_scaling", "[]", NX_EFORMAT, "rope_scaling is a list; legal: an object or null"},
	{"rope_scaling", "null", 0, ""},
	{"rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 0.5}", NX_EFORMAT,
         "rope_theta is 0.5; legal: 1 to 1e30"},
	{"rope_theta", "0.5", 0, ""}, /* rope_parameters, which is there, has the last word */
	{"rope_scaling", "{}", 0, ""},
	{"num_hidden_layers", "3", NX_EFORMAT,
         "tensor model.layers.2.input_layernorm.weight is missing"},
	{"num_hidden_layers", "1", NX_EFORMAT,
         "belongs to layer 1, but num_hidden_layers is 1; legal: layers 0 to 0"},
	{"num_hidden_layers", "4294967296", NX_EFORMAT,
         "num_hidden_layers is 4.29497e+09; legal: a whole"},
	{"num_hidden_layers", "5000", NX_EFORMAT, "num_hidden_layers is 5000; legal: 1 to 1024"},
	{"num_hidden_layers", NULL, NX_EFORMAT, "num_hidden_layers is missing"},
	{"hidden_size", "\"wide\"", NX_EFORMAT, "hidden_size is a string; legal: a number"},
	{"hidden_size", "64", NX_EFORMAT,
         "tensor model.embed_tokens.weight is [1, 1, 288, 32]; legal for this shape: [288, 64]"},
	{"intermediate_size", "47", NX_EFORMAT, "mlp.gate_proj.weight"},
	{"vocab_size", "-1", NX_EFORMAT, "vocab_size is -1"},
	{"vocab_size", "null", NX_EFORMAT, "vocab_size is missing"},
	{"vocab_size", "287", NX_EFORMAT, "legal for this shape: [287, 32]"},
	{"head_dim", "7", NX_EFORMAT, "heads have 7 elements; legal: an even number"},
	{"num_key_value_heads", "3", NX_EFORMAT, "num_key_value_heads is 3; legal: a divisor"},
	{"num_key_value_heads", "null", 0, ""},
	{"rms_norm_eps", "0", NX_EFORMAT, "rms_norm_eps is 0; legal: above 0, below 1"},
	{"tie_word_embeddings", "1", NX_EFORMAT, "tie_word_embeddings is a number"},
	{"tie_word_embeddings", "true", 0, ""},
	{"sliding_window", "16", 0, ""}, /* Llama does not look at it */
};

START_TEST(a_setting_is_honoured_or_refused_by_name)
{
	struct nx_err err = {0};
	link_family("llama");
	json_t *c = load("llama", "config.json");
	if (settings[_i].value)
		json_object_set_new(c, settings[_i].key,
		                    json_loads(settings[_i].value, JSON_DECODE_ANY, NULL));
	else
		json_object_del(c, settings[_i].key);
	save(c, "config.json");
	int rc = open_dir(&err);
	ck_assert_msg(rc == settings[_i].code && strstr(err.msg, settings[_i].word),
	              "%s = %s: code %d: %s", settings[_i].key,
	              settings[_i].value ? settings[_i].value : "nothing", rc, err.msg);
	ck_assert(!rc || strstr(err.msg, dir));
}
END_TEST

static const struct {
	const char *family, *key, *value;
	int32_t window;
} windows[] = {
	{"mistral", NULL, NULL, 25},
	{"mistral", "sliding_window", "null", 0},
	{"mistral", "sliding_window", "300", 0}, /* longer than the context */
	{"mistral", "layer_types", "[\"full_attention\", \"sliding_attention\"]", 25},
	{"mistral", "layer_types", "[\"full_attention\", \"full_attention\"]", 0},
	{"qwen2", NULL, NULL, 0},
};

START_TEST(a_window_counts_where_the_family_has_one)
{
	struct nx_err err = {0};
	struct nx_model *m = NULL;
	link_family(windows[_i].family);
	json_t *c = load(windows[_i].family, "config.json");
	if (windows[_i].key) {
		json_object_del(c, "layer_types");
		json_object_set_new(c, windows[_i].key,
		                    json_loads(windows[_i].value, JSON_DECODE_ANY, NULL));
	}
	save(c, "config.json");
	ck_assert_msg(nx_model_open(&m, dir, &err) == 0, "%s", err.msg);
	ck_assert_int_eq(nx_model_shape(m)->window, windows[_i].window);
	ck_assert_int_eq(nx_model_shape(m)->ctx_len, windows[_i].window ? windows[_i].window : 256);
	nx_model_close(m);
}
END_TEST

START_TEST(qwen_slides_when_it_says_so)
{
	struct nx_err err = {0};
	static const struct {
		bool use;
		int first, window;
	} cases[] = {{true, 0, 100}, {true, 1, 100}, {true, 2, 0}, {false, 0, 0}};
	link_family("qwen2");
	for (size_t i = 0; i < 4; i++) {
		struct nx_model *m = NULL;
		json_t *c = load("qwen2", "config.json");
		json_object_del(c, "layer_types");
		json_object_set_new(c, "sliding_window", json_integer(100));
		json_object_set_new(c, "use_sliding_window", json_boolean(cases[i].use));
		json_object_set_new(c, "max_window_layers", json_integer(cases[i].first));
		save(c, "config.json");
		ck_assert_msg(nx_model_open(&m, dir, &err) == 0, "%s", err.msg);
		ck_assert_int_eq(nx_model_shape(m)->window, cases[i].window);
		nx_model_close(m);
	}
}
END_TEST

START_TEST(broken_json_has_a_place)
{
	static const struct {
		const char *text, *word;
	} cases[] = {
		{"", "config.json:1:"},
		{"{\n  \"model_type\": llama}", "config.json:2:"},
		{"[]", "found a list; legal: an object"},
		{"{\"a\": 1, \"a\": 2}", "config.json:1:"},
	};
	char path[PATH_MAX];
	struct nx_err err = {0};
	link_family("llama");
	in_dir(path, "config.json");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ck_assert_int_eq(
			nx_test_write_file(path, cases[i].text, strlen(cases[i].text), &err), 0);
		ck_assert_int_eq(open_dir(&err), NX_EFORMAT);
		ck_assert_msg(strstr(err.msg, cases[i].word), "%s", err.msg);
	}
}
END_TEST

/* ---- shards ----------------------------------------------------------------------------------- */

#define INDEX "model.safetensors.index.json"

static const struct {
	const char *file; /* for the tensor model.norm.weight */
	int code;
	const char *word;
} shards[] = {
	{"../model-00001-of-00003.safetensors", NX_EFORMAT, "legal: the plain name"},
	{"/etc/passwd", NX_EFORMAT, "names the file \"/etc/passwd\"; legal: the plain name"},
	{"sub/model.safetensors", NX_EFORMAT, "legal: the plain name"},
	{"a\\b.safetensors", NX_EFORMAT, "legal: the plain name"},
	{".safetensors", NX_EFORMAT, "legal: the plain name"},
	{".hidden.safetensors", NX_EFORMAT, "legal: the plain name"},
	{"", NX_EFORMAT, "legal: the plain name"},
	{"weights.bin", NX_EFORMAT, "legal: the plain name"},
	{"model-00009-of-00003.safetensors", NX_EIO, "cannot be opened"},
	{NULL, NX_EFORMAT, "(no text)"},
};

START_TEST(a_shard_is_a_file_of_the_folder)
{
	struct nx_err err = {0};
	link_family("llama31");
	json_t *index = load("llama31", INDEX);
	json_object_set_new(json_object_get(index, "weight_map"), "model.norm.weight",
	                    shards[_i].file ? json_string(shards[_i].file) : json_integer(3));
	save(index, INDEX);
	int rc = open_dir(&err);
	ck_assert_msg(rc == shards[_i].code && strstr(err.msg, shards[_i].word), "code %d: %s", rc,
	              err.msg);
}
END_TEST

START_TEST(the_index_and_its_shards_agree)
{
	struct nx_err err = {0};
	char path[PATH_MAX], other[PATH_MAX + 300];
	link_family("llama31");
	json_t *index = load("llama31", INDEX), *map = json_object_get(index, "weight_map");
	const char *has = json_string_value(json_object_get(map, "model.norm.weight"));
	const char *name = NULL;
	json_t *v;
	json_object_foreach(map, name, v) if (strcmp(json_string_value(v), has) != 0) break;
	ck_assert_ptr_nonnull(name);
	/* a tensor that is in another shard than the index says */
	json_object_set(map, "model.norm.weight", v);
	save(json_incref(index), INDEX);
	ck_assert_int_eq(open_dir(&err), NX_EFORMAT);
	ck_assert_msg(strstr(err.msg, "tensor \"model.norm.weight\" is not in"), "%s", err.msg);
	json_decref(index);
	/* one that is in no shard */
	index = load("llama31", INDEX);
	map = json_object_get(index, "weight_map");
	json_object_set(map, "model.layers.7.nothing", json_object_get(map, "model.norm.weight"));
	save(index, INDEX);
	ck_assert_int_eq(open_dir(&err), NX_EFORMAT);
	ck_assert_msg(strstr(err.msg, "tensor \"model.layers.7.nothing\" is not in"), "%s",
	              err.msg);
	/* one that is in two */
	index = load("llama31", INDEX);
	json_object_set_new(json_object_get(index, "weight_map"), "more",
	                    json_string("more.safetensors"));
	in_dir(path, "more.safetensors");
	snprintf(other, sizeof(other), "%s/llama31/%s", source,
	         json_string_value(json_object_get(json_object_get(index, "weight_map"),
	                                           "model.norm.weight")));
	ck_assert_int_eq(symlink(other, path), 0);
	save(index, INDEX);
	ck_assert_int_eq(open_dir(&err), NX_EFORMAT);
	ck_assert_msg(strstr(err.msg, " is in "), "%s", err.msg);
	/* nothing at all */
	in_dir(path, INDEX);
	unlink(path);
	ck_assert_int_eq(open_dir(&err), NX_EENV);
	ck_assert_msg(strstr(err.msg, "found neither model.safetensors nor"), "%s", err.msg);
}
END_TEST

/* ---- safetensors ------------------------------------------------------------------------------ */

#define T(dtype, shape, offsets)                                                                   \
	"{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static const struct {
	const char *header;
	size_t data; /* bytes behind it */
	int code;
	const char *word;
} headers[] = {
	{"{\"a\":" T("F32", "[2,3]", "[0,24]") "}", 24, 0, ""},
	{"{\"__metadata__\":{\"format\":\"pt\"},\"a\":" T("BF16", "[2]", "[4,8]") "}", 9, 0, ""},
	{"{\"a\":" T("F32", "[]", "[0,4]") "}", 4, 0, ""},
	{"{}", 0, 0, ""},
	{"{\"a\":" T("F32", "[2,3]", "[0,24]") "}", 23, NX_EFORMAT,
         "tensor \"a\": its data at [0, 24) is not within the 23 bytes"},
	{"{\"a\":" T("F32", "[2,3]", "[0,20]") "}", 24, NX_EFORMAT,
         "its data has 20 bytes; its shape and dtype take 24"},
	{"{\"a\":" T("F32", "[2,3]", "[-4,20]") "}", 24, NX_EFORMAT, "[-4, 20)"},
	{"{\"a\":" T("F32", "[2,3]", "[24,0]") "}", 24, NX_EFORMAT, "[24, 0)"},
	{"{\"a\":" T("F32", "[2,3]", "[0]") "}", 24, NX_EFORMAT, "list of two whole numbers"},
	{"{\"a\":" T("F32", "[2,3]", "[0,24.0]") "}", 24, NX_EFORMAT, "list of two whole numbers"},
	{"{\"a\":" T("F32", "[4294967296,4294967296]", "[0,24]") "}", 24, NX_EFORMAT,
         "size 1 of its shape"},
	{"{\"a\":" T("F32", "[0]", "[0,0]") "}", 0, NX_EFORMAT, "size 0 of its shape"},
	{"{\"a\":" T("F32", "[-1]", "[0,4]") "}", 4, NX_EFORMAT, "size 0 of its shape"},
	{"{\"a\":" T("F32", "[1,1,1,1,1]", "[0,4]") "}", 4, NX_EFORMAT, "a list of 5; legal"},
	{"{\"a\":" T("F32", "{}", "[0,4]") "}", 4, NX_EFORMAT, "shape is an object"},
	{"{\"a\":" T("F8_E4M3", "[4]", "[0,4]") "}", 4, NX_ENOTSUP,
         "dtype \"F8_E4M3\" is not supported; legal: F32, F16 or BF16"},
	{"{\"a\":{\"dtype\":4,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, NX_EFORMAT,
         "dtype is a number"},
	{"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, NX_EFORMAT, "other keys than dtype"},
	{"{\"a\":7}", 4, NX_EFORMAT, "found a number; legal: an object"},
	{"{\"\":" T("F32", "[1]", "[0,4]") "}", 4, NX_EFORMAT, "its name has 0 bytes"},
	{"{\"a\":" T("F32", "[2]", "[0,8]") ",\"b\":" T("F32", "[2]", "[4,12]") "}", 12, NX_EFORMAT,
         "tensor \"b\": its data overlaps that of tensor a"},
	{"{\"a\":" T("F32", "[2]", "[0,8]") ",\"b\":" T("F32", "[1]", "[8,12]") "}", 12, 0, ""},
	{"{\"a\":" T("F32", "[1]", "[0,4]") ",\"a\":" T("F32", "[1]", "[4,8]") "}", 8, NX_EFORMAT,
         "no JSON object of tensors"},
	{"[]", 0, NX_EFORMAT, "no JSON object of tensors"},
	{"{\"a\"", 0, NX_EFORMAT, "no JSON object of tensors"},
	{"", 0, NX_EFORMAT, "no JSON object of tensors"},
};

static size_t image(uint8_t *out, const char *header, uint64_t claimed, size_t data)
{
	const size_t n = strlen(header);
	memcpy(out, &claimed, 8);
	memcpy(out + 8, header, n);
	memset(out + 8 + n, 0x3c, data);
	return 8 + n + data;
}

START_TEST(a_header_is_believed_when_it_has_been_checked)
{
	uint8_t data[4096];
	char path[PATH_MAX];
	struct nx_err err = {0};
	struct nx_safetensors *s = NULL;
	size_t n = image(data, headers[_i].header, strlen(headers[_i].header), headers[_i].data);
	in_dir(path, "x.safetensors");
	ck_assert_int_eq(nx_test_write_file(path, data, n, &err), 0);
	int rc = nx_safetensors_open(&s, path, &err);
	ck_assert_msg(rc == headers[_i].code && strstr(err.msg, headers[_i].word), "code %d: %s",
	              rc, err.msg);
	ck_assert((s != NULL) == (rc == 0));
	nx_safetensors_close(s);
}
END_TEST

START_TEST(the_length_of_the_header_is_within_the_file)
{
	static const uint64_t claims[] = {3, 1u << 20, UINT64_MAX, UINT64_MAX - 8,
	                                  (uint64_t)1 << 63};
	uint8_t data[64];
	char path[PATH_MAX];
	struct nx_err err = {0};
	struct nx_safetensors *s = NULL;
	in_dir(path, "x.safetensors");
	for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
		size_t n = image(data, "{}", claims[i], 0);
		ck_assert_int_eq(nx_test_write_file(path, data, n, &err), 0);
		ck_assert_int_eq(nx_safetensors_open(&s, path, &err), NX_EFORMAT);
		ck_assert_msg(strstr(err.msg, "the header claims"), "%s", err.msg);
	}
	for (size_t n = 0; n < 8; n++) {
		ck_assert_int_eq(nx_test_write_file(path, data, n, &err), 0);
		ck_assert_int_eq(nx_safetensors_open(&s, path, &err), NX_EFORMAT);
	}
	ck_assert_int_eq(nx_safetensors_open(&s, dir, &err), NX_EIO);
}
END_TEST

/* Whatever is flipped or cut off: a sentence or a model, and no access beyond the file (a sanitizer watches). */
START_TEST(random_damage_is_survived)
{
	char path[PATH_MAX + 300], here[PATH_MAX];
	struct nx_err err = {0};
	uint8_t *data;
	size_t len, opened = 0;
	uint64_t head;
	link_family("qwen3");
	snprintf(path, sizeof(path), "%s/qwen3/model.safetensors", source);
	ck_assert_msg(nx_test_read_file(path, &data, &len, &err) == 0, "%s", err.msg);
	memcpy(&head, data, 8);
	in_dir(here, "model.safetensors");
	for (uint64_t i = 0; i < 400; i++) {
		struct nx_model *m = NULL;
		float row[64];
		size_t keep = i % 4 == 3 ? (size_t)(i * 7919 % len) : len;
		ck_assert_int_eq(nx_test_write_hostile(here, data, keep, (int)(i % 3) + 1,
		                                       (size_t)head + 8, i, &err),
		                 0);
		if (nx_model_open(&m, dir, &err))
			continue;
		opened++;
		for (int id = 0; id < NX_W_COUNT; id++) {
			int64_t rows = nx_weight_rows(nx_model_shape(m), (enum nx_weight_id)id);
			if (rows && nx_weight_cols(nx_model_shape(m), (enum nx_weight_id)id) <= 64)
				ck_assert_int_eq(nx_model_rows(m, (enum nx_weight_id)id, 1,
				                               rows - 1, 1, row, &err),
				                 0);
		}
		nx_model_close(m);
	}
	ck_assert_uint_lt(opened, 400);
	free(data);
}
END_TEST

/* The same for the texts: a model, or a sentence that names the folder. _i: which. */
START_TEST(damaged_texts_are_survived)
{
	static const char *const files[] = {"config.json", INDEX};
	char path[PATH_MAX + 300], here[PATH_MAX];
	struct nx_err err = {0};
	uint8_t *data;
	size_t len;
	link_family("llama31");
	snprintf(path, sizeof(path), "%s/llama31/%s", source, files[_i]);
	ck_assert_msg(nx_test_read_file(path, &data, &len, &err) == 0, "%s", err.msg);
	in_dir(here, files[_i]);
	for (uint64_t i = 0; i < 300; i++) {
		size_t keep = i % 5 == 4 ? (size_t)(i * 7919 % len) : len;
		ck_assert_int_eq(
			nx_test_write_hostile(here, data, keep, (int)(i % 3) + 1, len, i, &err), 0);
		err.msg[0] = '\0';
		ck_assert(!open_dir(&err) || strstr(err.msg, dir));
	}
	free(data);
}
END_TEST

#define LOOP(test, cases) tcase_add_loop_test(tc, test, 0, (int)(sizeof(cases) / sizeof(cases[0])))

int main(void)
{
	Suite *s = suite_create("hf");
	TCase *tc = tcase_create("hf");
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	LOOP(a_setting_is_honoured_or_refused_by_name, settings);
	LOOP(a_window_counts_where_the_family_has_one, windows);
	tcase_add_test(tc, qwen_slides_when_it_says_so);
	tcase_add_test(tc, broken_json_has_a_place);
	LOOP(a_shard_is_a_file_of_the_folder, shards);
	tcase_add_test(tc, the_index_and_its_shards_agree);
	LOOP(a_header_is_believed_when_it_has_been_checked, headers);
	tcase_add_test(tc, the_length_of_the_header_is_within_the_file);
	tcase_add_test(tc, random_damage_is_survived);
	tcase_add_loop_test(tc, damaged_texts_are_survived, 0, 2);
	suite_add_tcase(s, tc);
	SRunner *sr = srunner_create(s);
	srunner_run_all(sr, CK_NORMAL);
	int failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
