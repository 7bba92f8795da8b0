#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The rows of bench_gpu as PyTorch and Transformers do them: the same shapes, floors and table.

Needs torch with a GPU, and Transformers for the part `model`; `make bench-gpu PYTHON=path/to/python` runs it after
ours. Every row is a CUDA graph of many calls, replayed between two events; operands rotate through more memory than
the second-level cache holds; data is random. Medians of the turns. What a peer does not take is a row with the
reason. --beside FILE takes the limits and our rows from what `bench_gpu --json FILE` wrote, and adds the column "x"
(peer's time / ours: above 1 we are faster).
"""
import argparse
import json
import math
import statistics
import sys
import time
import warnings

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BF16 = torch.bfloat16
PARTS = ("linear", "prefill", "decode", "verify", "attention", "sample", "model")
LINEAR = ((12288, 4096, ""), (4096, 4096, ""), (22016, 4096, "swiglu"), (4096, 11008, ""), (32000, 4096, "f32"))
SDPA = (("sdpa flash", SDPBackend.FLASH_ATTENTION), ("sdpa cudnn", SDPBackend.CUDNN_ATTENTION),
        ("sdpa efficient", SDPBackend.EFFICIENT_ATTENTION))
ROTATE = 256 << 20  # bytes that operands rotate through: several times the cache


class Table:
    """bench_gpu's table: bench_gpu.h has the same columns."""

    def __init__(self, a):
        self.json = open(a.json, "w") if a.json else None
        self.ours, self.read, self.flops = {}, 0.0, 0.0
        if a.beside:
            for line in open(a.beside):
                r = json.loads(line)
                if r["part"] == "limit":
                    self.read, self.flops = ((self.read, r["limit"]) if r["row"] == "product"
                                             else (r["limit"], self.flops))
                elif r["by"] == "nexus" and r.get("us"):
                    self.ours[r["part"], r["row"]] = r["us"]

    def head(self):
        print(f"{'part':9} {'row':34} {'by':15} {'us':>10} {'rate':>8} {'':7} {'floor':>10} {'':5} {'of limit':>8} "
              f"{'x':>5}  note", flush=True)

    def row(self, part, name, by, us=None, nbytes=0.0, flops=0.0, note="", rate=None):
        """us: of one call; the floor is the bytes or, where flops alone is given, the products."""
        r = {"part": part, "row": name, "by": by, "note": note}
        if us is None and rate is None:
            print(f"{part:9} {name:34} {by:15} {'-':>10} {'':8} {'':7} {'':10} {'':5} {'':8} {'':5}  {note}", flush=True)
        else:
            unit, floor, limit = ("GB/s", nbytes, self.read) if nbytes else ("TFLOP/s", flops, self.flops)
            scale = 1e9 if nbytes else 1e12
            rate = floor / (us * 1e-6) if rate is None else rate
            of = rate / limit if limit else 0
            mine = self.ours.get((part, name))
            r.update(us=us, rate=rate, unit=unit, floor=floor, of_limit=of)
            text = f"{floor / (1e6 if nbytes else 1e9):10.1f} {'MB' if nbytes else 'GFLOP':5}"
            print(f"{part:9} {name:34} {by:15} {f'{us:.2f}' if us else '':>10} {rate / scale:8.1f} {unit:7} {text} "
                  f"{100 * of:7.1f}% {f'{us / mine:5.2f}' if mine else '':5}  {note}", flush=True)
        if self.json:
            self.json.write(json.dumps(r) + "\n")
            self.json.flush()


def events(launch, per, turns):
    """Median us of one of the `per` calls in a launch."""
    def once(n):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        for _ in range(n):
            launch()
        b.record()
        b.synchronize()
        return a.elapsed_time(b) * 1e3 / n

    launch()
    first = once(2)
    n = max(1, min(50, int(1500 / first)))
    once(n)
    return statistics.median(once(n) for _ in range(turns)) / per


def graphed(calls, turns):
    """calls: closures, captured one after the other into one graph; us of one."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        calls[0]()
        calls[-1]()
    torch.cuda.current_stream().wait_stream(side)
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        for c in calls:
            c()
    us = events(g.replay, len(calls), turns)
    del g
    return us


def attempt(t, part, name, by, work, **floor):
    """A row of work() -> us, or of the reason why there is none."""
    try:
        us = work()
    except (RuntimeError, ValueError, TypeError, torch.cuda.OutOfMemoryError) as e:
        text = " ".join(str(e).split())
        t.row(part, name, by, note=("no kernel for this" if "No available kernel" in text else text[:60]))
        return
    t.row(part, name, by, us, **floor)


def rotations(nbytes, most=64):
    return max(1, min(most, math.ceil(ROTATE / nbytes)))


# ---- limits


def limits(t, a):
    x = torch.randn(1 << 30, device="cuda")  # 4 GiB
    y = torch.empty_like(x)
    torch.cuda.synchronize()
    rate = x.nbytes / (graphed([lambda: x.sum()], a.turns) * 1e-6)
    copy = 2 * x.nbytes / (graphed([lambda: torch.mul(x, 1.0, out=y)], a.turns) * 1e-6)
    del x, y
    p, q = (torch.randn(8192, 8192, device="cuda", dtype=BF16) for _ in range(2))
    flops = 2 * 8192**3 / (graphed([lambda: p @ q.t()], a.turns) * 1e-6)
    del p, q
    t.read, t.flops = t.read or max(rate, copy), t.flops or flops
    t.head()
    t.row("limit", "read", "torch sum", rate=rate, nbytes=4 << 30)
    t.row("limit", "copy", "torch mul", rate=copy, nbytes=8 << 30)
    t.row("limit", "product", "torch cublas", rate=flops, flops=2 * 8192**3)


# ---- products


def linear(t, a, part):
    for n, k, kind in LINEAR:
        ws = [torch.randn(n, k, device="cuda", dtype=BF16) for _ in range(rotations(2 * n * k) if part == "linear" else 3)]
        for m in (1, 8, 16, 32, 64) if part == "linear" else (2048,):
            x = torch.randn(m, k, device="cuda", dtype=BF16)
            y_bytes = m * (n // 2 * 2 if kind == "swiglu" else 4 * n if kind == "f32" else 2 * n)
            floor = {"nbytes": 2 * n * k + 2 * m * k + y_bytes} if part == "linear" else {"flops": 2 * m * n * k}
            name = f"{n}x{k}{' ' + kind if kind else ''} M {m}"
            note = {"swiglu": "product alone", "f32": "bf16 out"}.get(kind, "")
            attempt(t, part, name, "torch cublas", lambda: graphed([lambda w=w: F.linear(x, w) for w in ws], a.turns),
                    note=note, **floor)
        del ws


# ---- attention


def sdpa(backend, q, k, v, causal=False):
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def one_decode(t, a, part, name, batch, keys, kv_heads, rows, note=""):
    nbytes = 2 * batch * keys * kv_heads * 128 * 2
    floor = nbytes + 2 * 2 * batch * rows * 32 * 128
    kv = [torch.randn(2, batch, kv_heads, keys, 128, device="cuda", dtype=BF16) for _ in range(rotations(nbytes))]
    q = torch.randn(batch, 32, rows, 128, device="cuda", dtype=BF16)
    for by, backend in SDPA:
        attempt(t, part, name, by, lambda: graphed([lambda x=x: sdpa(backend, q, x[0], x[1]) for x in kv], a.turns),
                nbytes=floor, note=note)


def decode(t, a):
    for kv_heads in (8, 32):
        for keys in (1024, 4096, 32768):
            for batch in (1, 8, 32, 64):
                one_decode(t, a, "decode", f"B {batch} S {keys} heads 32/{kv_heads}", batch, keys, kv_heads, 1,
                           "contiguous KV")


def verify(t, a):
    for kv_heads in (8, 32):
        for rows in (1, 8, 16):
            one_decode(t, a, "verify", f"B 1 S 2048 heads 32/{kv_heads} rows {rows}", 1, 2048, kv_heads, rows,
                       "contiguous KV, no mask")


def attention(t, a):
    for batch, s in ((1, 2048), (4, 2048), (1, 8192)):
        q, k, v = (torch.randn(batch, 32, s, 128, device="cuda", dtype=BF16) for _ in range(3))
        for by, backend in SDPA:
            attempt(t, "attention", f"B {batch} S {s} heads 32/32 causal", by,
                    lambda: graphed([lambda: sdpa(backend, q, k, v, True)] * 4, a.turns),
                    flops=4 * batch * 32 * 128 * s * (s + 1) / 2)


# ---- sampling


def top_p(logits):
    """As Transformers and most servers do it: sort, cumulate, cut, draw by the exponential race."""
    p, index = torch.sort(torch.softmax(logits / 0.8, -1), -1, descending=True)
    p = torch.where(p.cumsum(-1) - p > 0.95, 0.0, p)
    return index.gather(-1, (p / torch.empty_like(p).exponential_(1)).argmax(-1, keepdim=True))


def sample(t, a):
    for vocab in (32000, 128256):
        for batch in (1, 32, 256):
            n = rotations(4 * batch * vocab, 16)
            # About as peaked as a language model's.
            logits = [5 * (torch.rand(3, batch, vocab, device="cuda") * 2 - 1).sum(0) for _ in range(n)]
            for name, f in (("greedy", lambda x: x.argmax(-1)), ("top-p", top_p)):
                attempt(t, "sample", f"{name} V {vocab} B {batch}", "torch",
                        lambda: graphed([lambda x=x: f(x) for x in logits], a.turns), nbytes=4 * batch * vocab)


# ---- a whole model


def model(t, a):
    """Transformers with a static cache and torch.compile(mode="reduce-overhead"), greedy, llama-7b's shape, random."""
    import transformers
    from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

    prompt, steps = 512, 32 if a.quick else 64
    config = LlamaConfig(vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
                         num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=4096)
    torch.set_default_dtype(BF16)
    with torch.device("cuda"):
        m = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    weights = sum(p.nbytes for n, p in m.named_parameters() if "embed_tokens" not in n)
    by = f"hf {transformers.__version__}"

    def step(ids, position, cache):
        out = m(input_ids=ids, position_ids=position[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1, keepdim=True)

    def rewind(cache, n):
        for layer in cache.layers:
            layer.cumulative_length.fill_(n)

    compiled = torch.compile(step, mode="reduce-overhead", fullgraph=True, dynamic=False)
    for batch in (1, 32):
        begin = time.time()
        cache = StaticCache(config=config, max_cache_len=prompt + 128)
        ids = torch.randint(0, 32000, (batch, prompt), device="cuda")
        positions = torch.arange(prompt + 128, device="cuda")
        first = []
        for _ in range(3):
            rewind(cache, 0)
            torch.cuda.synchronize()
            at = time.time()
            token = step(ids, positions[:prompt], cache)
            torch.cuda.synchronize()
            first.append((time.time() - at) * 1e6)
        flops = 2 * batch * (prompt * (weights / 2 - 32000 * 4096) + 32000 * 4096) \
            + 32 * 4 * batch * 32 * 128 * prompt * (prompt + 1) / 2
        t.row("model", f"llama-7b prefill 512 B {batch}", by, min(first), flops=flops, note="eager, host clock")

        def run(f, n):
            token_ = token.clone()
            rewind(cache, prompt)
            torch.cuda.synchronize()
            at_ = time.time()
            for i in range(n):
                torch.compiler.cudagraph_mark_step_begin()
                token_ = f(token_, positions[prompt + i:prompt + i + 1], cache).clone()
            torch.cuda.synchronize()
            return (time.time() - at_) * 1e6 / n

        kv = 2 * 2 * batch * 32 * 32 * 128
        for name, f in (("eager", step), ("compiled", compiled)):
            try:
                run(f, 4)  # compiles, then records
                us = statistics.median(run(f, steps) for _ in range(3))
            except Exception as e:  # the compiler's errors are of many types
                t.row("model", f"llama-7b decode B {batch}", by, note=f"{name}: {' '.join(str(e).split())[:120]}")
                continue
            t.row("model", f"llama-7b decode B {batch}", by, us, nbytes=weights + kv * (prompt + steps / 2),
                  note=f"{name}, static cache, host clock, after {time.time() - begin:.0f} s")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--only", choices=PARTS, action="append")
    ap.add_argument("--quick", action="store_true")
    ap.add_argument("--json", metavar="FILE", help="write the rows there, too, one JSON object a line")
    ap.add_argument("--beside", metavar="FILE", help="rows of bench_gpu --json")
    a = ap.parse_args()
    a.turns = 7 if a.quick else 15
    if not torch.cuda.is_available():
        print("peers: torch sees no GPU", file=sys.stderr)
        return 3
    torch.set_grad_enabled(False)
    warnings.filterwarnings("ignore")  # why a backend was not chosen is in its row
    t = Table(a)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, "
          f"medians of {a.turns}")
    limits(t, a)
    for part in a.only or PARTS:
        torch.cuda.empty_cache()
        begin = time.time()
        try:
            if part in ("linear", "prefill"):
                linear(t, a, part)
            else:
                globals()[part](t, a)
        except Exception as e:  # one part shall not take the others with it
            t.row(part, "", "", note=f"{type(e).__name__}: {' '.join(str(e).split())[:200]}")
        print(f"{part}: {time.time() - begin:.1f} s", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
