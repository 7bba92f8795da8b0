/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_gpu.cuh: what the parts of bench_gpu share: the device, the limits, rows of the table, data.
 *
 * A row is one piece of work with its floor, and one or several contenders that do it in turns (A-B-A-B): ours through
 * the device table, then each peer. A contender's calls are captured into a CUDA graph, and its time is that of the
 * replayed graph between two events. What a contender cannot do becomes a row with the reason.
 */
#ifndef NX_BENCH_GPU_CUH
#define NX_BENCH_GPU_CUH

#include <functional>
#include <string>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdio.h>

#include "bench/peer.h"
#include "nexus/device.h"

#define MAX_PEERS 8

struct bench {
	const struct nx_device_ops *ops;
	void *dev;
	struct nx_stream *stream; /* a cudaStream_t */
	const struct nx_peer *peers[MAX_PEERS];
	int n_peers, turns;
	bool quick;
	FILE *json;         /* or NULL */
	size_t l2_bytes;    /* second-level cache */
	double read, flops; /* limits: bytes/s, products in FLOP/s; 0 = not known */
};

struct work {
	const char *part;
	std::string name;
	double bytes, flops; /* the floor; bytes, where given, set the limit */
	std::string note;
	int operands; /* calls 0 .. operands - 1 differ in their operands */
	double base; /* us of the row that this one is compared with, "1.02 x <base_name>"; 0 = none */
	const char *base_name;
};

struct contender {
	std::string by;
	std::function<int(int i, struct nx_err *err)> call; /* enqueues call i on b->stream */
	void *result; /* device: what a call leaves there is compared with what others leave; or NULL */
	size_t n_result; /* elements */
	bool result_f32; /* else bf16 */
};

/* bench_gpu_measure.cu: measures and prints; us of one call of the first contender, 0 where it has none. */
double measure(struct bench *b, const struct work *w, const std::vector<contender> &who);
void print_head(void);
void print_limit(struct bench *b, const char *name, const char *by, double rate, double bytes);
void print_reason(struct bench *b, const struct work *w, const std::string &by, const char *reason);
/* The peers that do the shape's work, as contenders behind ours; peers_done() after measure(). */
struct peer_call {
	const struct nx_peer *peer;
	void *self;
};
std::vector<peer_call> peers_init(struct bench *b, const struct work *w,
                                  const struct nx_peer_shape *s, std::vector<contender> *who);
void peers_done(std::vector<peer_call> *calls);

/* bench_gpu_data.cu. Failures of the runtime end the program: what is lost then is a bench. */
void cuda_must(cudaError_t e, const char *what);
#define MUST(call) cuda_must((call), #call)
/* work over the shortest time of go(), which puts it on the stream. */
double best_rate(struct bench *b, double work, const std::function<void(cudaStream_t)> &go);
double read_rate(struct bench *b);
double copy_rate(struct bench *b);

struct block { /* device memory that frees itself */
	void *p;
	size_t bytes;
	explicit block(size_t n = 0);
	~block();
	block(const block &) = delete;
	block &operator=(const block &) = delete;
	void *at(size_t offset) const
	{
		return (char *)p + offset;
	}
};
bool device_has(size_t bytes); /* with a GB to spare */
/* Uniform in [-scale, scale). */
void fill_bf16(void *p, size_t n, uint64_t seed, float scale);
void fill_f32(float *p, size_t n, uint64_t seed, float scale);
/* About as peaked as a language model's: 5 times the sum of three uniform numbers. */
void fill_logits(float *p, size_t n, uint64_t seed);
template <typename T> static inline void upload(const block &b, const std::vector<T> &v)
{
	MUST(cudaMemcpy(b.p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
}

/* A random matrix [n, k] of the device's, elements uniform with variance 1 / k; plain_matrix() is the same in bf16,
 * row-major, for peers; random_codes() the same, quantized. 0 or a code. */
int random_weight(struct bench *b, int64_t n, int64_t k, uint64_t seed, int32_t max_rows,
                  struct nx_weight **out, struct nx_err *err);
int random_codes(struct bench *b, int64_t n, int64_t k, uint64_t seed, int32_t max_rows,
                 const struct nx_weight_quant &quant, struct nx_weight **out, struct nx_err *err);
void plain_matrix(void *dst, int64_t n, int64_t k, uint64_t seed);

/* How many operands of so many bytes are rotated through: four times the cache, at least 2, at most `most`. */
int rotations(const struct bench *b, double bytes, int most);

static inline std::string format(const char *f, ...) __attribute__((format(printf, 1, 2)));
static inline std::string format(const char *f, ...)
{
	char text[256];
	va_list ap;
	va_start(ap, f);
	vsnprintf(text, sizeof(text), f, ap);
	va_end(ap);
	return text;
}

/* bench_gpu_linear.cu: the best product of 8192^3 of the peers that make products, 0 without one. */
double product_rate(struct bench *b, const char **by);

/* The parts. */
void bench_linear(struct bench *b);
void bench_products(struct bench *b);
void bench_decode(struct bench *b);
void bench_verify(struct bench *b);
void bench_coded(struct bench *b);
void bench_prefill(struct bench *b);
void bench_sample(struct bench *b);
void bench_layers(struct bench *b);
void bench_quant(struct bench *b);

/* bench_gpu_layers.cu: the model in this format, beside the one in bf16. */
void bench_layers_in(struct bench *b, const struct nx_weight_quant &quant, const char *name);

#endif
