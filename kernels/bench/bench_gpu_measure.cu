/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu_measure.cu: contenders in turns, and the table.
 */
#include <algorithm>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_gpu.cuh"

/* ---- the table: peers.py prints the same columns */

void print_head(void)
{
	printf("%-9s %-34s %-15s %10s %8s %-7s %10s %-5s %8s %5s  %s\n", "part", "row", "by", "us",
	       "rate", "", "floor", "", "of limit", "x", "note");
}

/* The first name has what opens the object before it, the others a comma. */
static void json_text(FILE *f, const char *name, const std::string &text)
{
	fprintf(f, "%s\": \"", name);
	for (char c : text)
		fprintf(f, c == '"' || c == '\\' ? "\\%c" : "%c", c);
	fputc('"', f);
}

struct figures {
	double us, rate, floor, limit, x;
};

static void print_row(struct bench *b, const char *part, const std::string &row,
                      const std::string &by, const struct figures *f, bool bytes,
                      const std::string &note)
{
	printf("%-9s %-34s %-15s ", part, row.c_str(), by.c_str());
	if (f) {
		char us[16] = "", x[16] = "", of[16] = "-";
		if (f->us > 0)
			snprintf(us, sizeof(us), "%.2f", f->us);
		if (f->x > 0)
			snprintf(x, sizeof(x), "%.2f", f->x);
		if (f->limit > 0)
			snprintf(of, sizeof(of), "%.1f%%", 100 * f->rate / f->limit);
		printf("%10s %8.1f %-7s %10.1f %-5s %8s %5s  %s\n", us,
		       f->rate * (bytes ? 1e-9 : 1e-12), bytes ? "GB/s" : "TFLOP/s",
		       f->floor * (bytes ? 1e-6 : 1e-9), bytes ? "MB" : "GFLOP", of, x,
		       note.c_str());
	} else {
		printf("%10s %8s %-7s %10s %-5s %8s %5s  %s\n", "-", "", "", "", "", "", "",
		       note.c_str());
	}
	fflush(stdout);
	if (!b->json)
		return;
	json_text(b->json, "{\"part", part);
	json_text(b->json, ", \"row", row);
	json_text(b->json, ", \"by", by);
	json_text(b->json, ", \"note", note);
	if (f)
		fprintf(b->json,
		        ", \"us\": %.4f, \"rate\": %.6g, \"floor\": %.6g, \"limit\": %.6g, "
		        "\"x\": %.4f, \"unit\": \"%s\"",
		        f->us, f->rate, f->floor, f->limit, f->x, bytes ? "bytes" : "flops");
	fputs("}\n", b->json);
	fflush(b->json);
}

void print_reason(struct bench *b, const struct work *w, const std::string &by, const char *reason)
{
	print_row(b, w->part, w->name, by, NULL, true, reason);
}

void print_limit(struct bench *b, const char *name, const char *by, double rate, double bytes)
{
	bool memory = strcmp(name, "product") != 0;
	struct figures f = {0, rate, bytes, memory ? b->read : b->flops, 0};
	print_row(b, "limit", name, by, &f, memory, "");
}

/* ---- a contender's graph */

struct runner {
	const struct contender *who;
	struct nx_graph *graph;
	int calls, launches; /* calls a graph, graphs a turn */
	std::vector<double> us;
	struct nx_err err;
};

/* Captures through the table, peers too: its stream and its hooks are what the engine uses. */
static int capture(struct bench *b, struct runner *r, int calls)
{
	struct nx_err ignored;
	int rc = b->ops->graph_begin(b->dev, b->stream, &r->err), end;
	if (rc)
		return rc;
	for (int i = 0; i < calls && !rc; i++)
		rc = r->who->call(i, &r->err);
	end = b->ops->graph_end(b->dev, b->stream, &r->graph, rc ? &ignored : &r->err);
	if (rc && !end)
		b->ops->graph_destroy(b->dev, r->graph);
	if (rc || end)
		r->graph = NULL;
	r->calls = calls;
	return rc ? rc : end;
}

static double launch(struct bench *b, struct runner *r, int launches)
{
	static cudaEvent_t e[2];
	cudaStream_t s = (cudaStream_t)b->stream;
	float ms = 0;
	if (!e[0]) {
		MUST(cudaEventCreate(&e[0]));
		MUST(cudaEventCreate(&e[1]));
	}
	MUST(cudaEventRecord(e[0], s));
	for (int i = 0; i < launches; i++)
		if (b->ops->graph_launch(b->dev, b->stream, r->graph, &r->err)) {
			fprintf(stderr, "bench_gpu: %s\n", r->err.msg);
			exit(EXIT_FAILURE);
		}
	MUST(cudaEventRecord(e[1], s));
	MUST(cudaEventSynchronize(e[1]));
	MUST(cudaEventElapsedTime(&ms, e[0], e[1]));
	return 1e3 * ms / launches / r->calls;
}

/* A graph lasts half a millisecond at least, so that what starting it takes is lost in it; a turn two. */
static int prepare(struct bench *b, struct runner *r, int operands)
{
	for (int i = 0; i < operands;
	     i++) { /* outside of a graph first: whatever is made late is made now */
		int rc = r->who->call(i, &r->err);
		if (rc)
			return rc;
	}
	MUST(cudaStreamSynchronize((cudaStream_t)b->stream));
	int rc = capture(b, r, operands);
	if (rc)
		return rc;
	launch(b, r, 1);
	double us = launch(b, r, 1);
	int rounds = (int)ceil(500 / (us * operands));
	if (rounds > 1) {
		b->ops->graph_destroy(b->dev, r->graph);
		rc = capture(b, r, operands * std::min(rounds, std::max(1, 512 / operands)));
		if (rc)
			return rc;
		launch(b, r, 1);
		us = launch(b, r, 1);
	}
	r->launches = std::min(32, (int)ceil(2000 / (us * r->calls)));
	return 0;
}

static double median(std::vector<double> v)
{
	std::sort(v.begin(), v.end());
	return v[v.size() / 2];
}

/* What call 0 leaves, on memory that held NaN. */
static std::vector<float> result(struct bench *b, const struct contender *c)
{
	size_t width = c->result_f32 ? 4 : 2;
	std::vector<char> raw(c->n_result * width);
	std::vector<float> out(c->n_result);
	struct nx_err err;
	MUST(cudaMemset(c->result, 0xff, raw.size()));
	MUST(cudaDeviceSynchronize());
	if (c->call(0, &err))
		return {};
	MUST(cudaStreamSynchronize((cudaStream_t)b->stream));
	MUST(cudaMemcpy(raw.data(), c->result, raw.size(), cudaMemcpyDeviceToHost));
	for (size_t i = 0; i < c->n_result; i++)
		memcpy((char *)&out[i] + 4 - width, &raw[i * width], width);
	return out;
}

/* ||x - y|| / ||y||, y the peer's; NaN where one left elements unwritten. */
static double difference(struct bench *b, const struct contender *x, const struct contender *y)
{
	std::vector<float> mine = result(b, x), other = result(b, y);
	double diff = 0, norm = 0;
	if (mine.empty() || other.size() != mine.size())
		return NAN;
	for (size_t i = 0; i < mine.size(); i++) {
		diff += (double)(mine[i] - other[i]) * (mine[i] - other[i]);
		norm += (double)other[i] * other[i];
	}
	return sqrt(diff / norm);
}

/* The peer's median ratio to ours, and how far the results are apart. */
static double compare(struct bench *b, const struct runner *ours, const struct runner *peer,
                      std::string *note)
{
	std::vector<double> ratio;
	for (size_t t = 0; t < peer->us.size(); t++)
		ratio.push_back(peer->us[t] / ours->us[t]);
	if (ours->who->result)
		*note += format("%sdiffers by %.1e", note->empty() ? "" : ", ",
		                difference(b, ours->who, peer->who));
	return median(ratio);
}

double measure(struct bench *b, const struct work *w, const std::vector<contender> &who)
{
	std::vector<runner> runners(who.size());
	double ours = 0;
	for (size_t i = 0; i < who.size(); i++) {
		runners[i] = {};
		runners[i].who = &who[i];
		if (prepare(b, &runners[i], w->operands))
			print_reason(b, w, who[i].by, runners[i].err.msg);
	}
	for (int turn = 0; turn < b->turns; turn++)
		for (auto &r : runners)
			if (r.graph)
				r.us.push_back(launch(b, &r, r.launches));
	for (auto &r : runners) {
		if (!r.graph)
			continue;
		bool bytes = w->bytes > 0;
		double us = median(r.us), floor = bytes ? w->bytes : w->flops;
		struct figures f = {us, floor / us * 1e6, floor, bytes ? b->read : b->flops, 0};
		std::string note = w->note;
		if (&r == &runners[0])
			ours = us;
		if (&r == &runners[0] && w->base > 0)
			note += format("%s%.2f x %s", note.empty() ? "" : ", ", us / w->base,
			               w->base_name);
		if (&r != &runners[0] && runners[0].graph)
			f.x = compare(b, &runners[0], &r, &note);
		print_row(b, w->part, w->name, r.who->by, &f, bytes, note);
	}
	for (auto &r : runners)
		if (r.graph)
			b->ops->graph_destroy(b->dev, r.graph);
	return ours;
}

/* ---- peers */

std::vector<peer_call> peers_init(struct bench *b, const struct work *w,
                                  const struct nx_peer_shape *s, std::vector<contender> *who)
{
	std::vector<peer_call> calls;
	for (int i = 0; i < b->n_peers; i++) {
		const struct nx_peer *p = b->peers[i];
		struct peer_call c = {p, NULL};
		struct nx_err err = {};
		if (!(p->works & 1u << s->work))
			continue;
		if (p->init(&c.self, s, &err)) {
			print_reason(b, w, p->name, err.msg);
			continue;
		}
		calls.push_back(c);
		struct contender x = (*who)[0];
		x.by = p->name;
		x.call = [b, c](int at, struct nx_err *e) {
			return c.peer->run(c.self, at, b->stream, e);
		};
		who->push_back(x);
	}
	return calls;
}

void peers_done(std::vector<peer_call> *calls)
{
	for (auto &c : *calls)
		c.peer->done(c.self);
	calls->clear();
}
