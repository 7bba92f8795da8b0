/* SPDX-License-Identifier: Apache-2.0
 *
 * verb_generate.c: `nexus generate`: continues a prompt. Text goes to stdout as it comes, figures to
 * stderr.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cli.h"
#include "engine/clock.h"
#include "measure/experiment.h"

#define SAMPLES_MAX 64
#define PROMPT_BYTES_MAX ((size_t)16 << 20)

struct gen_args {
	const char *stack, *prompt, *prompt_file;
	struct nx_strings techniques;
	bool chat;
	int64_t max_tokens, samples, seed, top_k;
	double temperature, top_p, min_p;
	struct nx_session_config session;
};

/* What the run leaves: the outputs of each sample, and times. */
struct gen_out {
	const struct nx_tokenizer *tok;
	bool stream;
	int32_t *tokens[SAMPLES_MAX];
	int32_t n[SAMPLES_MAX], cap;
	uint64_t t0_ns, first_ns, last_ns;
};

static void put_token(const struct nx_tokenizer *tok, int32_t id)
{
	size_t len = 0;
	const char *piece = nx_tokenizer_piece(tok, id, &len);
	if (piece && !nx_tokenizer_is_control(tok, id))
		fwrite(piece, 1, len, stdout);
}

static void on_token(void *ctx, uint32_t request, uint32_t sample, int32_t index, int32_t token,
                     uint64_t t_ns)
{
	struct gen_out *g = ctx;
	(void)request;
	(void)index;
	if (!g->first_ns)
		g->first_ns = t_ns;
	g->last_ns = t_ns;
	if (sample >= SAMPLES_MAX || g->n[sample] >= g->cap)
		return;
	g->tokens[sample][g->n[sample]++] = token;
	if (g->stream) {
		put_token(g->tok, token);
		fflush(stdout);
	}
}

/* The prompt as text: given, of a file, or standard input ("-"). */
static int prompt_text(const struct gen_args *a, struct nx_arena *arena, const char **text,
                       size_t *len, struct nx_err *err)
{
	if (a->prompt && a->prompt_file)
		return nx_fail(err, NX_EINVAL, "--prompt and --prompt-file exclude each other");
	if (a->prompt) {
		*text = a->prompt;
		*len = strlen(a->prompt);
		return 0;
	}
	if (!a->prompt_file)
		return nx_fail(err, NX_EINVAL,
		               "a prompt is missing: give --prompt TEXT or --prompt-file FILE");
	char *data = NULL;
	int rc = nx_file_read(arena, a->prompt_file, PROMPT_BYTES_MAX, &data, len, err);
	if (!rc)
		*text = data;
	return rc == NX_EIO ? NX_EINVAL : rc;
}

static int encode(const struct gen_args *a, const struct nx_tokenizer *tok, const char *text,
                  size_t len, int32_t **ids, size_t *n, struct nx_err *err)
{
	if (!a->chat)
		return nx_tokenizer_encode(tok, text, len, NX_TOK_ADD_BOS, ids, n, err);
	char *copy = strndup(text, len), *rendered = NULL;
	if (!copy)
		return nx_fail(err, NX_ENOMEM, "no memory for the prompt");
	const struct nx_turn turn = {.role = "user", .content = copy};
	int rc = nx_chat_render(tok, &turn, 1, true, &rendered, err);
	if (!rc && strcmp(nx_chat_format(tok), "plain") == 0)
		nx_say("the model has no chat template that is known: the prompt is written as plain text, \"user: ...\"");
	if (!rc)
		rc = nx_tokenizer_encode(tok, rendered, strlen(rendered),
		                         NX_TOK_PARSE_SPECIAL | NX_TOK_ADD_BOS, ids, n, err);
	free(rendered);
	free(copy);
	return rc;
}

/* --stack FILE:NAME. The stack lives as long as *x. */
static int stack_of_file(const char *spec, struct nx_experiment **x, struct nx_stack *out,
                         struct nx_err *err)
{
	const char *colon = strrchr(spec, ':');
	char path[4096];
	if (!colon || colon == spec || !colon[1] || (size_t)(colon - spec) >= sizeof(path))
		return nx_fail(
			err, NX_EINVAL,
			"--stack is '%s'; it takes FILE:NAME, an experiment and a stack of its sweep",
			spec);
	snprintf(path, sizeof(path), "%.*s", (int)(colon - spec), spec);
	int rc = nx_experiment_load(x, path, NULL, 0, nx_exe_dir(), err);
	if (rc)
		return rc;
	const char *names[64];
	size_t n = 0;
	for (size_t i = 0; i < (*x)->n_stacks; i++) {
		if (!strcmp((*x)->stacks[i].name, colon + 1)) {
			*out = (*x)->stacks[i].stack;
			return 0;
		}
		if (n < 64)
			names[n++] = (*x)->stacks[i].name;
	}
	char list[256];
	return nx_fail(err, NX_EINVAL, "%s has no stack '%s' in its sweep; there are %s", path,
	               colon + 1, nx_list_text(list, sizeof(list), names, n));
}

static int check(const struct gen_args *a, struct nx_err *err)
{
	if (!a->session.model)
		return nx_fail(err, NX_EINVAL, "--model FILE is missing");
	if (a->stack && a->techniques.n)
		return nx_fail(err, NX_EINVAL, "--stack and --technique exclude each other");
	if (a->max_tokens < 1 || a->max_tokens > 1 << 20)
		return nx_fail(err, NX_EINVAL, "--max-tokens is %lld; legal are 1 to 1048576",
		               (long long)a->max_tokens);
	if (a->samples < 1 || a->samples > SAMPLES_MAX)
		return nx_fail(err, NX_EINVAL, "--samples is %lld; legal are 1 to %d",
		               (long long)a->samples, SAMPLES_MAX);
	if (a->seed < 0)
		return nx_fail(err, NX_EINVAL, "--seed is %lld; legal is 0 or more",
		               (long long)a->seed);
	if (!(a->temperature >= 0 && a->temperature <= 100))
		return nx_fail(err, NX_EINVAL, "--temperature is %g; legal are 0 to 100",
		               a->temperature);
	if (!(a->top_p > 0 && a->top_p <= 1))
		return nx_fail(err, NX_EINVAL, "--top-p is %g; legal is more than 0, at most 1",
		               a->top_p);
	if (!(a->min_p >= 0 && a->min_p < 1))
		return nx_fail(err, NX_EINVAL, "--min-p is %g; legal is 0 to less than 1",
		               a->min_p);
	if (a->top_k < 0 || a->top_k > INT32_MAX)
		return nx_fail(err, NX_EINVAL, "--top-k is %lld; legal is 0 (off) or more",
		               (long long)a->top_k);
	return 0;
}

static int run_request(const struct gen_args *a, struct nx_session *s, const struct nx_stack *stack,
                       const int32_t *ids, size_t n_ids, struct gen_out *g, struct nx_err *err)
{
	const struct nx_shape *shape = nx_model_shape(s->model);
	char context[96];
	int64_t room = (int64_t)shape->ctx_len - (int64_t)n_ids;
	if (!n_ids)
		return nx_fail(err, NX_EINVAL, "the prompt is empty; legal: text, with -p or -f");
	if (room < 1)
		return nx_fail(err, NX_EINVAL,
		               "the prompt has %zu tokens; the model's context is %s", n_ids,
		               nx_context_text(shape, context, sizeof(context)));
	int32_t max_out = (int32_t)(a->max_tokens < room ? a->max_tokens : room);
	const struct nx_engine_config ec = {
		.weights = s->weights,
		.stack = stack,
		.batch_size = 1,
		.samples = (int32_t)a->samples,
		.max_len = shape->ctx_len,
		.longest_request = (int32_t)n_ids + max_out,
		.longest_prompt = (int32_t)n_ids,
		.invariant = a->session.invariant,
	};
	struct nx_engine *e = NULL;
	int rc = nx_engine_create(&e, &ec, err);
	if (rc)
		return rc;
	g->cap = max_out;
	for (int64_t i = 0; i < a->samples; i++) {
		g->tokens[i] = calloc((size_t)max_out, sizeof(int32_t));
		if (!g->tokens[i])
			rc = nx_fail(err, NX_ENOMEM, "no memory for %d tokens", max_out);
	}
	const struct nx_request req = {
		.prompt = ids,
		.n_prompt = (int32_t)n_ids,
		.max_out = max_out,
		.samples = (int32_t)a->samples,
		.sampler =
			{
				.temperature = (float)a->temperature,
				.top_p = (float)a->top_p,
				.min_p = (float)a->min_p,
				.top_k = (int32_t)a->top_k,
				.seed = (uint64_t)a->seed,
			},
	};
	const struct nx_sink sink = {.ctx = g, .token = on_token};
	g->t0_ns = nx_now_ns();
	if (!rc)
		rc = nx_engine_run(e, &req, 1, &sink, err);
	nx_engine_destroy(e);
	return rc;
}

static void show(const struct gen_args *a, const struct nx_session *s, const struct gen_out *g,
                 size_t n_ids)
{
	int64_t total = 0;
	for (int64_t i = 0; i < a->samples; i++) {
		total += g->n[i];
		if (g->stream)
			continue;
		printf("%s[%lld]\n", i ? "\n" : "", (long long)i);
		for (int32_t k = 0; k < g->n[i]; k++)
			put_token(g->tok, g->tokens[i][k]);
	}
	printf("\n");
	fflush(stdout);
	double ttft_s = g->first_ns ? 1e-9 * (double)(g->first_ns - g->t0_ns) : 0;
	double rest_s = 1e-9 * (double)(g->last_ns - g->first_ns);
	int64_t later = total - a->samples;
	struct nx_device_info info;
	s->dev.ops->info(s->dev.dev, &info);
	fprintf(stderr,
	        "%s on %s (%s, %d threads): %zu prompt tokens, first token after %.1f ms (%.0f tok/s), ",
	        nx_model_name(s->model), info.name, info.isa, info.n_units, n_ids, 1e3 * ttft_s,
	        ttft_s > 0 ? (double)n_ids / ttft_s : 0);
	if (later > 0 && rest_s > 0)
		fprintf(stderr, "then %lld tokens at %.1f tok/s\n", (long long)later,
		        (double)later / rest_s);
	else
		fprintf(stderr, "%lld tokens in all\n", (long long)total);
}

static int generate(const struct gen_args *a)
{
	struct nx_err err = {0};
	struct nx_session s = {0};
	struct nx_cli_stack cs = {0};
	struct nx_experiment *x = NULL;
	struct nx_stack stack = {0};
	struct gen_out g = {0};
	struct nx_arena arena = {0};
	const char *text = NULL;
	size_t len = 0, n_ids = 0;
	int32_t *ids = NULL;
	int rc = check(a, &err);
	if (!rc)
		rc = prompt_text(a, &arena, &text, &len, &err);
	if (!rc && a->stack)
		rc = stack_of_file(a->stack, &x, &stack, &err);
	if (!rc)
		rc = nx_session_init(&s, &a->session, &err);
	if (!rc && !a->stack) {
		rc = nx_cli_stack_init(&cs, s.registry, a->session.device, a->techniques.v,
		                       a->techniques.n, &err);
		stack = cs.stack;
	}
	if (!rc) {
		g.tok = nx_model_tokenizer(s.model);
		g.stream = a->samples == 1;
		if (!g.tok)
			rc = nx_fail(
				&err, NX_EINVAL,
				"the model %s has no tokenizer, so it can neither read a prompt nor "
				"write text; legal: a GGUF file, or a directory with tokenizer.json",
				nx_model_name(s.model));
	}
	if (!rc) {
		rc = encode(a, g.tok, text, len, &ids, &n_ids, &err);
	}
	if (!rc)
		rc = run_request(a, &s, &stack, ids, n_ids, &g, &err);
	if (!rc)
		show(a, &s, &g, n_ids);
	int status = rc ? nx_say_err(&err) : NX_EXIT_DONE;
	for (int i = 0; i < SAMPLES_MAX; i++)
		free(g.tokens[i]);
	free(ids);
	nx_cli_stack_release(&cs);
	nx_session_release(&s);
	nx_experiment_destroy(x);
	nx_arena_release(&arena);
	return status;
}

int nx_verb_generate(int argc, char **argv)
{
	struct gen_args a = {
		.max_tokens = 128,
		.samples = 1,
		.top_p = 1,
		.session = {.device = "cpu", .dtype = "bf16"},
	};
	struct nx_strings args;
	const struct nx_opt opts[] = {
		{"m,model", NX_OPT_TEXT, &a.session.model, "FILE",
	         "name, GGUF file or Hugging Face directory of a model"},
		{"p,prompt", NX_OPT_TEXT, &a.prompt, "TEXT", "what to continue"},
		{"f,prompt-file", NX_OPT_TEXT, &a.prompt_file, "FILE", "the same from a file"},
		{"chat", NX_OPT_FLAG, &a.chat, NULL,
	         "the prompt is a user's turn, in the model's chat format"},
		{"n,max-tokens", NX_OPT_INT, &a.max_tokens, "N", "most tokens to make (128)"},
		{"temperature", NX_OPT_REAL, &a.temperature, "T", "0 is greedy (0)"},
		{"top-p", NX_OPT_REAL, &a.top_p, "P", "nucleus; 1 is off (1)"},
		{"min-p", NX_OPT_REAL, &a.min_p, "P", "0 is off (0)"},
		{"top-k", NX_OPT_INT, &a.top_k, "K", "0 is off (0)"},
		{"seed", NX_OPT_INT, &a.seed, "N", "of the random numbers (0)"},
		{"samples", NX_OPT_INT, &a.samples, "N", "continuations of the one prompt (1)"},
		{"technique", NX_OPT_MANY, &a.techniques, "SPEC",
	         "name:key=value,... over the base tuned; repeatable"},
		{"stack", NX_OPT_TEXT, &a.stack, "FILE:NAME",
	         "a stack of an experiment's sweep instead"},
		{"dtype", NX_OPT_TEXT, &a.session.dtype, "TYPE", "f32 or bf16 (bf16)"},
		{"threads", NX_OPT_INT, &a.session.threads, "N", "0 is all (0)"},
		{"device", NX_OPT_TEXT, &a.session.device, "NAME", "cpu or cuda[:N] (cpu)"},
		{"invariant", NX_OPT_FLAG, &a.session.invariant, NULL,
	         "results do not depend on batching, bit for bit"},
		{0},
	};
	const struct nx_opts o = {
		.usage = "generate --model FILE --prompt TEXT [options]",
		.summary = "Continues a prompt: text on stdout as it comes, figures on stderr.",
		.example =
			"  nexus generate --model experiments/models/nano/nano.gguf --prompt 'Once upon a time' \\\n"
			"      --technique paged_attention:block_size=16",
		.opts = opts,
	};
	int status = nx_opts_parse(&o, argc, argv, &args);
	if (status < 0)
		status = generate(&a);
	nx_opts_release(&o, &args);
	return status;
}
