/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu [--only PART]... [--quick] [--json FILE] [--invariant] [--peer FILE.so]...: the CUDA backend against the
 * limits of its card, and against peers (peer.h) in turns.
 *
 * Each row names its floor, the bytes that have to move or the products that have to be made, and what fraction of
 * the limit that is at the measured time: the best read (or copy) and the best product (of peers, too) of this process. Medians over turns
 * of replayed graphs; random data; operands rotate through more memory than the caches hold. `x` is the median
 * over turns of peer's time / our time.
 */
#include <algorithm>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench_gpu.cuh"

static const struct {
	const char *name;
	void (*run)(struct bench *b);
} parts[] = {
	{"linear", bench_linear}, {"prefill", bench_products},  {"decode", bench_decode},
	{"verify", bench_verify}, {"attention", bench_prefill}, {"sample", bench_sample},
	{"model", bench_layers},  {"quant", bench_quant},       {"coded", bench_coded},
};
#define N_PARTS (sizeof(parts) / sizeof(parts[0]))

static void *symbol(const char *path, const char *name)
{
	void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL), *at = so ? dlsym(so, name) : NULL;
	if (!at)
		fprintf(stderr, "bench_gpu: %s\n", dlerror());
	return at;
}

static int add_peer(struct bench *b, const char *path)
{
	nx_peer_fn entry;
	const char *name = strchr(path, '/') ? path : NULL;
	std::string here =
		name ? path : std::string("./") + path; /* else the loader looks elsewhere */
	*(void **)&entry = symbol(here.c_str(), NX_PEER_SYMBOL);
	if (!entry)
		return 3;
	const struct nx_peer *p = entry();
	if (p->abi != NX_PEER_ABI || p->size != sizeof(*p)) {
		fprintf(stderr,
		        "bench_gpu: %s was built for another peer.h (%u, %u bytes; here %u, %zu)\n",
		        path, p->abi, p->size, NX_PEER_ABI, sizeof(*p));
		return 3;
	}
	if (b->n_peers == MAX_PEERS) {
		fprintf(stderr, "bench_gpu: at most %d peers\n", MAX_PEERS);
		return 2;
	}
	b->peers[b->n_peers++] = p;
	return 0;
}

struct options {
	bool only[N_PARTS], any, invariant;
};

static int usage(const char *program)
{
	fprintf(stderr,
	        "usage: %s [--only PART]... [--quick] [--json FILE] [--invariant] [--peer FILE.so]...\nparts:",
	        program);
	for (auto &p : parts)
		fprintf(stderr, " %s", p.name);
	fputc('\n', stderr);
	return 2;
}

static int read_options(struct bench *b, struct options *o, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;
		if (!strcmp(argv[i], "--quick")) {
			b->quick = true;
			continue;
		}
		if (!strcmp(argv[i], "--invariant")) {
			o->invariant = true;
			continue;
		}
		if (!value)
			return usage(argv[0]);
		if (!strcmp(argv[i], "--only")) {
			bool known = false;
			for (size_t p = 0; p < N_PARTS; p++)
				if (!strcmp(parts[p].name, value))
					known = o->only[p] = o->any = true;
			if (!known)
				return usage(argv[0]);
		} else if (!strcmp(argv[i], "--json")) {
			b->json = fopen(value, "w");
			if (!b->json) {
				perror(value);
				return 3;
			}
		} else if (!strcmp(argv[i], "--peer")) {
			int rc = add_peer(b, value);
			if (rc)
				return rc;
		} else {
			return usage(argv[0]);
		}
		i++;
	}
	return 0;
}

static int open_device(struct bench *b, const struct options *o)
{
	const char *build = getenv("NEXUS_BUILD");
	char path[1024];
	struct nx_device_config cfg = {};
	struct nx_err err = {};
	nx_backend_fn entry;
	snprintf(path, sizeof(path), "%s/backends/cuda.so", build ? build : "build");
	*(void **)&entry = symbol(path, NX_BACKEND_SYMBOL);
	if (!entry)
		return 3;
	b->ops = entry();
	if (b->ops->abi != NX_DEVICE_ABI) {
		fprintf(stderr, "bench_gpu: %s has ABI %u; here %u\n", path, b->ops->abi,
		        NX_DEVICE_ABI);
		return 3;
	}
	unsetenv("NEXUS_CUDA_HOST_MEMORY"); /* both are for tests, and slow */
	unsetenv("NEXUS_POISON");
	cfg.dtype = NX_BF16;
	cfg.invariant = o->invariant;
	if (b->ops->open(&b->dev, &cfg, &err) || b->ops->stream_create(b->dev, &b->stream, &err)) {
		fprintf(stderr, "bench_gpu: %s\n", err.msg);
		return 3;
	}
	return 0;
}

static void limits(struct bench *b)
{
	struct nx_calibration c = {};
	struct nx_err err = {};
	if (b->ops->calibrate(b->dev, b->quick ? 1.0 : 3.0, &c, &err))
		printf("no calibration: %s\n", err.msg);
	const char *by = "";
	double read = read_rate(b), copy = copy_rate(b), product = product_rate(b, &by);
	b->read = std::max({c.read_bytes_per_s, c.copy_bytes_per_s, read, copy});
	b->flops = std::max({c.bf16_flops_per_s, c.blas_flops_per_s, product});
	print_head();
	if (c.read_bytes_per_s > 0)
		print_limit(b, "read", "calibration", c.read_bytes_per_s, (double)c.mem_set_bytes);
	print_limit(b, "read", "bench_gpu", read, (double)((size_t)4 << 30));
	if (c.copy_bytes_per_s > 0)
		print_limit(b, "copy", "calibration", c.copy_bytes_per_s, (double)c.mem_set_bytes);
	print_limit(b, "copy", "cudaMemcpy", copy, (double)((size_t)4 << 30));
	if (c.cache_read_bytes_per_s > 0)
		print_limit(b, "read of cache", "calibration", c.cache_read_bytes_per_s,
		            (double)c.cache_set_bytes);
	if (c.bf16_flops_per_s > 0)
		print_limit(b, "product", "own", c.bf16_flops_per_s, 0);
	if (c.blas_flops_per_s > 0)
		print_limit(b, "product", "library", c.blas_flops_per_s, 0);
	if (product > 0)
		print_limit(b, "product", by, product, 0);
}

int main(int argc, char **argv)
{
	struct bench b = {};
	struct options o = {};
	struct nx_device_info info;
	int rc = read_options(&b, &o, argc, argv);
	if (!rc)
		rc = open_device(&b, &o);
	if (rc)
		return rc;
	b.ops->info(b.dev, &info);
	b.l2_bytes = (size_t)info.llc_bytes;
	b.turns = b.quick ? 7 : 21;
	printf("%s, %s, %d SMs, cache %.0f MB, library %s, medians of %d turns%s\n", info.name,
	       info.isa, info.n_units, (double)info.llc_bytes * 1e-6,
	       info.blas[0] ? info.blas : "none", b.turns, o.invariant ? ", invariant" : "");
	limits(&b);
	for (size_t p = 0; p < N_PARTS; p++)
		if (!o.any || o.only[p])
			parts[p].run(&b);
	b.ops->stream_destroy(b.dev, b.stream);
	b.ops->close(b.dev);
	if (b.json)
		fclose(b.json);
	return 0;
}
