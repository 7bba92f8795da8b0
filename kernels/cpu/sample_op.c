/* SPDX-License-Identifier: Apache-2.0
 *
 * The sample operation: drafts are checked and sequences shared out here, for all kernels alike.
 */
#include "cpu/law.h"
#include "cpu/ops.h"
#include "nexus_kernels/work.h"

/* Below so many logits a call to the pool costs more than it saves. */
#define SERIAL_LOGITS 8192

static int check_q_row(const struct nx_sample *a, const struct nx_emit *e, int32_t i,
                       struct nx_err *err)
{
	const struct nx_draft *d = a->draft;
	int64_t at = (int64_t)e->seq * d->stride + i;
	int rc = check_draft_row(d, e->seq, i, a->vocab, err);
	if (rc)
		return rc;
	if (d->q_row[at] < NX_Q_CERTAIN ||
	    (d->q_row[at] >= 0 && (!d->q || d->q_cols < 1) && a->samplers[e->seq].temperature > 0))
		return nx_fail(
			err, NX_EBUG,
			"drafted row %d of sequence %d was drawn from row %d of a q that the "
			"draft does not have",
			i, e->seq, d->q_row[at]);
	return 0;
}

static int check_override(const struct nx_sample *a, const struct nx_emit *e, struct nx_err *err)
{
	const struct nx_override *o = a->override ? &a->override[e->seq] : NULL;
	if (!o || o->kind == NX_OVERRIDE_OWN)
		return 0;
	if (o->kind != NX_OVERRIDE_DEPTH && o->kind != NX_OVERRIDE_LEAF)
		return nx_fail(err, NX_EINVAL, "override of sequence %d has kind %d", e->seq,
		               o->kind);
	if (o->kind == NX_OVERRIDE_DEPTH && o->value < 0)
		return nx_fail(err, NX_EINVAL, "sequence %d is to accept %d drafted rows", e->seq,
		               o->value);
	if (o->kind != NX_OVERRIDE_LEAF || o->value == -1)
		return 0;
	if (o->value < -1 || o->value >= e->n_draft)
		return nx_fail(err, NX_EINVAL,
		               "sequence %d is to accept drafted row %d, it has rows 0 to %d",
		               e->seq, o->value, e->n_draft - 1);
	if (!verify_depth(a->draft, e->seq, o->value))
		return nx_fail(
			err, NX_EINVAL,
			"sequence %d is to accept drafted row %d, which is no CANDIDATE with a "
			"token below such rows",
			e->seq, o->value);
	return 0;
}

static int check_emit(const struct nx_sample *a, const struct nx_emit *e, struct nx_err *err)
{
	const struct nx_verdict *v = a->verdict;
	int32_t n = a->state->max_seqs;
	if (e->seq < 0 || e->seq >= n || e->src_seq < 0 || e->src_seq >= n)
		return nx_fail(err, NX_EBUG, "sequence %d from %d is to get a token, there are %d",
		               e->seq, e->src_seq, n);
	if (e->n_draft > 0 && (!a->draft || e->n_draft > a->draft->stride))
		return nx_fail(err, NX_EBUG, "sequence %d has %d drafted rows of %d at most",
		               e->seq, e->n_draft, a->draft ? a->draft->stride : 0);
	if (v->stride < 1 || e->n_draft >= v->stride)
		return nx_fail(err, NX_EBUG,
		               "the verdict has room for %d tokens, sequence %d may get %d",
		               v->stride, e->seq, e->n_draft + 1);
	for (int32_t i = 0; i < e->n_draft; i++) {
		int rc = check_q_row(a, e, i, err);
		if (rc)
			return rc;
	}
	return check_override(a, e, err);
}

struct sample_job {
	const struct cpu_dev *d;
	const struct nx_sample *a;
	char *scratch;
	size_t bytes; /* a thread's part of it */
	size_t p, q;  /* floats of a thread */
};

static void sample_part(void *ctx, int64_t begin, int64_t end, int thread)
{
	const struct sample_job *j = ctx;
	const struct law_ops *ops = j->d->k->sum_exp ? &law_fast : &law_ref;
	char *at = j->scratch + (size_t)thread * j->bytes;
	struct verify_scratch m = {.kept = (struct sample_entry *)(void *)at};
	m.p = (float *)(void *)(m.kept + j->a->vocab);
	m.q = m.p + j->p;
	for (int64_t i = begin; i < end; i++)
		verify(ops, j->d->k, j->a, &j->a->emit[i], &m);
}

int op_sample(void *dev, struct nx_stream *s, const struct nx_sample *a, struct nx_err *err)
{
	struct cpu_dev *d = dev;
	bool drafted = false;
	int64_t rows = 0;
	(void)s;
	if (a->n_emit < 1)
		return 0;
	int rc = nx_check_sample(a, err);
	if (rc)
		return rc;
	for (int32_t i = 0; i < a->n_emit; i++) {
		rc = check_emit(a, &a->emit[i], err);
		if (rc)
			return rc;
		drafted |= a->emit[i].n_draft > 0;
	}
	struct sample_job job = {.d = d, .a = a};
	job.p = drafted ? (size_t)a->vocab : 0;
	job.q = drafted && a->draft->q && a->draft->q_cols > 0 ? (size_t)a->draft->q_cols : 0;
	job.bytes =
		(size_t)a->vocab * sizeof(struct sample_entry) + (job.p + job.q) * sizeof(float);
	job.bytes = (size_t)round_up((int64_t)job.bytes, 64);
	job.scratch = cpu_scratch(d, (size_t)pool_size(d->pool) * job.bytes);
	if (!job.scratch)
		return nx_fail(err, NX_ENOMEM, "no memory to sample from %d tokens", a->vocab);
	if (a->n_emit == 1 || (int64_t)a->n_emit * a->vocab < SERIAL_LOGITS)
		sample_part(&job, 0, a->n_emit, 0);
	else
		pool_for(d->pool, a->n_emit, sample_part, &job);
	for (int32_t i = 0; i < a->n_emit; i++)
		rows += 1 + a->verdict->n_accepted[a->emit[i].seq];
	nx_count_sample(&d->counted, rows, a->vocab);
	return 0;
}
