/* SPDX-License-Identifier: Apache-2.0
 *
 * Builds the tree from libfyaml's events rather than from its documents: events carry places, do not
 * recurse, and let us refuse aliases before anything is expanded.
 */
#include "base/guard.h"
#include "base/yaml.h"

#include <libfyaml.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

struct builder {
	struct nx_arena *arena;
	const char *name;
	const char *text;
	size_t len;
	struct nx_yaml *root;
	struct nx_yaml *open[NX_YAML_DEPTH_MAX]; /* containers, outermost first */
	int depth;
	struct nx_yaml *pending_key; /* in the innermost mapping */
	struct nx_yaml last;         /* the place of the last event */
	size_t n_nodes;
	int n_documents;
};

struct nx_yaml *nx_yaml_node(struct nx_arena *a, enum nx_yaml_kind kind, const char *text,
                             const struct nx_yaml *like)
{
	struct nx_yaml *v = nx_arena_alloc(a, sizeof(*v));
	if (!v)
		return NULL;
	v->kind = kind;
	v->text = text ? text : "";
	v->file = like->file;
	v->line = like->line;
	v->column = like->column;
	v->label = "the file";
	return v;
}

void nx_yaml_append(struct nx_yaml *parent, struct nx_yaml *v)
{
	v->label = v->key ? v->key->text : parent->label;
	v->next = NULL;
	if (parent->last)
		parent->last->next = v;
	else
		parent->first = v;
	parent->last = v;
	parent->n++;
}

/* Notes where the event is. Events without a mark (empty values) keep the place before. The marks of
 * quoted text and of aliases may stand behind the first character: they are taken back to it. */
static void set_place(struct builder *b, struct fy_event *e)
{
	const struct fy_mark *m = fy_event_start_mark(e);
	if (!m || m->line < 0 || m->column < 0)
		return;
	const char *opening = e->type == FYET_ALIAS ? "*" : "\"'";
	bool quoted =
		e->type == FYET_ALIAS || (e->type == FYET_SCALAR &&
	                                  fy_scalar_token_get_style(e->scalar.value) != FYSS_PLAIN);
	bool behind = quoted && m->column > 0 && m->input_pos > 0 && m->input_pos <= b->len &&
	              strchr(opening, b->text[m->input_pos - 1]);
	b->last.line = m->line + 1;
	b->last.column = m->column + (behind ? 0 : 1);
}

static int out_of_memory(struct builder *b, struct nx_err *err)
{
	return nx_fail(err, NX_ENOMEM, "%s: out of memory", b->name);
}

static bool is_null_text(const char *s)
{
	return !s[0] || strcmp(s, "~") == 0 || strcmp(s, "null") == 0 || strcmp(s, "Null") == 0 ||
	       strcmp(s, "NULL") == 0;
}

/* A complete key: text, and not there yet. */
static int take_key(struct builder *b, struct nx_yaml *map, struct nx_yaml *key, struct nx_err *err)
{
	char quoted[96];
	if (key->kind != NX_YAML_SCALAR || key->null)
		return nx_yaml_fail(key, err, NX_EFORMAT, "found %s as a key; legal: a name",
		                    key->kind == NX_YAML_SCALAR ? "nothing"
		                    : key->kind == NX_YAML_LIST ? "a list"
		                                                : "a mapping");
	if (strcmp(key->text, "<<") == 0)
		return nx_yaml_fail(key, err, NX_EFORMAT,
		                    "found a merge key; legal: the keys written out");
	const struct nx_yaml *twin = nx_yaml_get(map, key->text);
	if (twin)
		return nx_yaml_fail(
			key, err, NX_EFORMAT,
			"found the key %s a second time; legal: once (first in line %d)",
			nx_quote(quoted, sizeof(quoted), key->text), twin->key->line);
	b->pending_key = key;
	return 0;
}

/* Puts a node where it belongs: top, list item, key or value. */
static int place_node(struct builder *b, struct nx_yaml *v, struct nx_err *err)
{
	if (++b->n_nodes > NX_YAML_NODES_MAX)
		return nx_yaml_fail(v, err, NX_EFORMAT, "found more than %d values; legal: fewer",
		                    NX_YAML_NODES_MAX);
	if (b->depth == 0) {
		b->root = v;
		return 0;
	}
	struct nx_yaml *parent = b->open[b->depth - 1];
	size_t most = parent->kind == NX_YAML_MAP ? NX_YAML_KEYS_MAX : NX_YAML_CHILDREN_MAX;
	if (parent->n >= most)
		return nx_yaml_fail(v, err, NX_EFORMAT, "found more than %zu entries; legal: fewer",
		                    most);
	if (parent->kind == NX_YAML_MAP && !b->pending_key)
		return take_key(b, parent, v, err);
	v->key = parent->kind == NX_YAML_MAP ? b->pending_key : NULL;
	b->pending_key = NULL;
	nx_yaml_append(parent, v);
	return 0;
}

static int refuse_properties(struct builder *b, struct fy_token *anchor, struct fy_token *tag,
                             struct nx_err *err)
{
	if (anchor)
		return nx_yaml_fail(&b->last, err, NX_EFORMAT,
		                    "found an anchor (&); legal: values written out");
	if (tag)
		return nx_yaml_fail(&b->last, err, NX_EFORMAT,
		                    "found a tag (!); legal: values without tags");
	return 0;
}

static int open_container(struct builder *b, enum nx_yaml_kind kind, struct nx_err *err)
{
	struct nx_yaml *v = nx_yaml_node(b->arena, kind, NULL, &b->last);
	if (!v)
		return out_of_memory(b, err);
	if (b->depth == NX_YAML_DEPTH_MAX)
		return nx_yaml_fail(v, err, NX_EFORMAT, "found more than %d levels; legal: fewer",
		                    NX_YAML_DEPTH_MAX);
	int rc = place_node(b, v, err);
	if (rc == 0)
		b->open[b->depth++] = v;
	return rc;
}

static int add_scalar(struct builder *b, struct fy_token *token, struct nx_err *err)
{
	size_t len = 0;
	const char *text = token ? fy_token_get_text(token, &len) : NULL;
	char *copy = nx_arena_strndup(b->arena, text ? text : "", text ? len : 0);
	struct nx_yaml *v = copy ? nx_yaml_node(b->arena, NX_YAML_SCALAR, copy, &b->last) : NULL;
	if (!v)
		return out_of_memory(b, err);
	if (strlen(copy) != (text ? len : 0))
		return nx_yaml_fail(v, err, NX_EFORMAT, "found a NUL character; legal: text");
	bool plain = !token || fy_scalar_token_get_style(token) == FYSS_PLAIN;
	v->null = plain && is_null_text(copy);
	return place_node(b, v, err);
}

static int take_event(struct builder *b, struct fy_event *e, struct nx_err *err)
{
	int rc = 0;
	if (e->type != FYET_SCALAR || e->scalar.value) /* a missing value has no place of its own */
		set_place(b, e);
	switch (e->type) {
	case FYET_DOCUMENT_START:
		if (b->n_documents++)
			return nx_yaml_fail(&b->last, err, NX_EFORMAT,
			                    "found a second document; legal: one");
		return 0;
	case FYET_ALIAS:
		return nx_yaml_fail(&b->last, err, NX_EFORMAT,
		                    "found an alias (*); legal: values written out");
	case FYET_SCALAR:
		rc = refuse_properties(b, e->scalar.anchor, e->scalar.tag, err);
		return rc ? rc : add_scalar(b, e->scalar.value, err);
	case FYET_SEQUENCE_START:
		rc = refuse_properties(b, e->sequence_start.anchor, e->sequence_start.tag, err);
		return rc ? rc : open_container(b, NX_YAML_LIST, err);
	case FYET_MAPPING_START:
		rc = refuse_properties(b, e->mapping_start.anchor, e->mapping_start.tag, err);
		return rc ? rc : open_container(b, NX_YAML_MAP, err);
	case FYET_SEQUENCE_END:
	case FYET_MAPPING_END:
		if (b->depth == 0)
			return nx_fail(err, NX_EBUG, "%s: unbalanced YAML events", b->name);
		b->depth--;
		/* A container that was a key was never appended; take_key refused it on its start. */
		return 0;
	default: return 0;
	}
}

/* The first thing libfyaml complained about, with its place. */
static int syntax_error(struct builder *b, struct fy_diag *diag, struct nx_err *err)
{
	void *iter = NULL;
	const struct fy_diag_error *d = fy_diag_errors_iterate(diag, &iter);
	if (!d || !d->msg)
		return nx_yaml_fail(&b->last, err, NX_EFORMAT,
		                    "found broken YAML; legal: YAML 1.2");
	if (d->line > 0)
		b->last.line = d->line, b->last.column = d->column > 0 ? d->column : 1;
	char why[96];
	nx_quote(why, sizeof(why), d->msg);
	return nx_yaml_fail(&b->last, err, NX_EFORMAT, "found broken YAML (%s); legal: YAML 1.2",
	                    why);
}

static int run_parser(struct builder *b, struct fy_parser *parser, struct fy_diag *diag,
                      struct nx_err *err)
{
	int rc = 0;
	bool ended = false;
	while (rc == 0 && !ended) {
		struct fy_event *e = fy_parser_parse(parser);
		if (!e)
			break;
		ended = e->type == FYET_STREAM_END;
		rc = take_event(b, e, err);
		fy_parser_event_free(parser, e);
	}
	if (rc == 0 && (!ended || fy_diag_got_error(diag)))
		return syntax_error(b, diag, err);
	if (rc == 0 && !b->root)
		return nx_fail(err, NX_EFORMAT, "%s:1:1: found nothing; legal: a mapping of keys",
		               b->name);
	return rc;
}

/* What is no YAML text. libfyaml ends the document without an error at some of these, so the rest of a
 * file would be lost silently. */
static int check_bytes(struct builder *b, struct nx_err *err)
{
	if (b->len > NX_YAML_BYTES_MAX)
		return nx_fail(err, NX_EFORMAT, "%s: found %zu bytes; legal: at most %zu", b->name,
		               b->len, NX_YAML_BYTES_MAX);
	b->last.column = 1;
	for (size_t i = 0; i < b->len;) {
		const char *s = b->text + i;
		int n = nx_text_utf8_len(s, b->len - i);
		if (n == 0 || (nx_text_is_control(s) && !strchr("\t\r\n", *s)) || *s == '\0')
			return nx_yaml_fail(&b->last, err, NX_EFORMAT,
			                    "found the byte 0x%02x; legal: UTF-8 text",
			                    (unsigned char)*s);
		i += (size_t)n;
		b->last.column++;
		if (*s == '\n') {
			b->last.line++;
			b->last.column = 1;
		}
	}
	b->last.line = b->last.column = 1;
	return 0;
}

static int parse(struct nx_arena *a, const char *name, const char *text, size_t len,
                 struct nx_yaml **out, struct nx_err *err)
{
	struct builder b = {.arena = a,
	                    .name = name,
	                    .text = text,
	                    .len = len,
	                    .last = {.file = name, .line = 1}};
	int rc = check_bytes(&b, err);
	if (rc)
		return rc;

	/* An output function that is never to print: errors are collected and told by us. */
	struct fy_diag_cfg dcfg;
	fy_diag_cfg_default(&dcfg);
	dcfg.fp = NULL;
	struct fy_diag *diag = fy_diag_create(&dcfg);
	struct fy_parser *parser = NULL;
	if (diag) {
		fy_diag_set_collect_errors(diag, true);
		struct fy_parse_cfg cfg = {
			.flags = FYPCF_QUIET | FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE,
			.diag = diag,
		};
		parser = fy_parser_create(&cfg);
	}
	if (!parser || fy_parser_set_string(parser, text, len) != 0)
		rc = out_of_memory(&b, err);
	else
		rc = run_parser(&b, parser, diag, err);
	if (rc == 0)
		*out = b.root;
	if (parser)
		fy_parser_destroy(parser);
	if (diag)
		fy_diag_destroy(diag);
	return rc;
}

struct attempt {
	struct nx_arena *arena;
	const char *name, *text;
	size_t len;
};

static void try_it(void *ctx)
{
	const struct attempt *t = ctx;
	struct nx_yaml *root = NULL;
	struct nx_err err = {0};
	(void)parse(t->arena, t->name, t->text, t->len, &root, &err);
}

int nx_yaml_parse(struct nx_arena *a, const char *name, const char *text, size_t len,
                  struct nx_yaml **out, struct nx_err *err)
{
	struct attempt t = {a, name, text, len};
	int rc = nx_guard_try(try_it, &t, name, "YAML 1.2 that is not broken", err);
	return rc ? rc : parse(a, name, text, len, out, err);
}
