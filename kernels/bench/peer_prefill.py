#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prefill attention of the CUDA backend, through its table, beside PyTorch's (flash and cuDNN).

  python3 kernels/bench/peer_prefill.py [build/backends/cuda.so] [block_size]

Causal work is counted as 4 * S * S / 2 * D flops a head. Of each shape the error against PyTorch is shown too.
"""
import ctypes as c
import os
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

P, I, L, F = c.c_void_p, c.c_int32, c.c_int64, c.c_float


def struct(name, fields):
    return type(name, (c.Structure,), {"_fields_": fields})


Config = struct("Config", [("n_threads", I), ("index", I), ("dtype", I), ("invariant", c.c_bool), ("isa", P)])
Err = struct("Err", [("code", I), ("msg", c.c_char * 4092)])
Rows = struct("Rows", [(n, I) for n in ("n_rows", "n_segments", "anc_stride", "max_keys")] +
              [(n, P) for n in ("seq", "token", "slot_off", "pos_off", "kind", "scratch", "n_anc", "anc", "segments")])
State = struct("State", [("max_seqs", I), ("len", P), ("last_token", P)])
KV = struct("KV", [(n, I) for n in ("codec", "plain", "n_layers", "n_kv_heads", "head_dim", "block_size",
                                    "table_stride")] +
            [("table", P), ("base", P), ("layer_bytes", L), ("row_bytes", L), ("v_offset", L), ("scratch", P),
             ("scratch_layer_bytes", L), ("scratch_row_bytes", L), ("scratch_v_offset", L), ("scratch_cap", I),
             ("window", I), ("win", P), ("win_layer_bytes", L), ("win_v_offset", L)])
Attention = struct("Attention", [("rows", P), ("state", P), ("kv", P), ("layer", I), ("n_heads", I), ("scale", F),
                                 ("q", P), ("q_stride", L), ("out", P), ("kernel", I), ("kv_chunk", I),
                                 ("workspace", P), ("workspace_bytes", c.c_size_t)])
# The table: abi, size, name, then functions; their places in it.
OPEN, ATTENTION = 0, 34


class Device:
    def __init__(self, path):
        so = c.CDLL(path)
        so.nx_backend.restype = P
        table = so.nx_backend()
        self.fn = c.cast(table + 16, c.POINTER(P))
        self.err = Err()
        self.dev = P()
        config = Config(dtype=1)
        self.call(OPEN, c.addressof(self.dev), c.addressof(config), c.addressof(self.err))

    def call(self, at, *args):
        if c.CFUNCTYPE(c.c_int, *[P] * len(args))(self.fn[at])(*args):
            sys.exit(self.err.msg.decode("utf8", "replace"))


def ints(x):
    return torch.tensor(x, dtype=torch.int32, device="cuda")


class World:
    """B sequences of S rows after `prior` others, in a store of shuffled blocks."""

    def __init__(self, B, S, H, G, D, block, prior=0):
        n, hk = S + prior, H // G
        block = block or n
        blocks = (n + block - 1) // block
        order = torch.randperm(B * blocks, device="cuda").to(torch.int32)
        self.table = (order * block).view(B, blocks).contiguous()
        self.k = torch.randn(B, n, hk, D, device="cuda", dtype=torch.bfloat16)
        self.v = torch.randn(B, n, hk, D, device="cuda", dtype=torch.bfloat16)
        self.qkv = torch.randn(B * S, (H + 2 * hk) * D, device="cuda", dtype=torch.bfloat16)
        self.q = self.qkv[:, :H * D]
        self.out = torch.full((B * S, H * D), float("nan"), device="cuda", dtype=torch.bfloat16)
        pool = torch.full((2, B * blocks * block, hk, D), float("nan"), device="cuda", dtype=torch.bfloat16)
        slot = torch.arange(n, device="cuda")
        at = (self.table[:, slot // block] + slot % block).long()
        pool[0][at] = self.k
        pool[1][at] = self.v
        self.pool = pool
        self.len = ints([prior] * B)
        self.slot_off = torch.arange(S, device="cuda", dtype=torch.int32).repeat(B)
        self.segments = ints([[b, b * S, S, n] for b in range(B)])
        self.kind = torch.zeros(B * S, device="cuda", dtype=torch.int32)
        self.seq = torch.arange(B, device="cuda", dtype=torch.int32).repeat_interleave(S)
        row = hk * D * 2
        self.rows = Rows(n_rows=B * S, n_segments=B, max_keys=n, seq=self.seq.data_ptr(), kind=self.kind.data_ptr(),
                         slot_off=self.slot_off.data_ptr(), pos_off=self.slot_off.data_ptr(),
                         segments=self.segments.data_ptr())
        self.state = State(max_seqs=B, len=self.len.data_ptr())
        self.kv = KV(codec=1, plain=1, n_layers=1, n_kv_heads=hk, head_dim=D, block_size=block, table_stride=blocks,
                     table=self.table.data_ptr(), base=pool.data_ptr(), layer_bytes=2 * pool[0].numel() * 2,
                     row_bytes=row, v_offset=pool[0].numel() * 2, window=1)
        self.a = Attention(rows=c.addressof(self.rows), state=c.addressof(self.state), kv=c.addressof(self.kv),
                           n_heads=H, scale=D ** -0.5, q=self.q.data_ptr(), q_stride=self.qkv.shape[1],
                           out=self.out.data_ptr(), kernel=1, kv_chunk=256)
        self.shape = B, S, H, G, D, n
        self.flops = 4 * D * H * B * (S * n - S * S / 2)

    def run(self, dev, stream):
        dev.call(ATTENTION, dev.dev, stream.cuda_stream, c.addressof(self.a), c.addressof(dev.err))

    def torch_inputs(self):
        B, S, H, G, D, n = self.shape
        q = self.q.reshape(B, S, H, D).transpose(1, 2).contiguous()
        k = self.k.transpose(1, 2).repeat_interleave(G, 1).contiguous()
        v = self.v.transpose(1, 2).repeat_interleave(G, 1).contiguous()
        return q, k, v

    def error(self):
        B, S, H, G, D, n = self.shape
        q, k, v = self.torch_inputs()
        diff = norm = 0.0
        mask = torch.arange(n, device="cuda")[None] <= torch.arange(n - S, n, device="cuda")[:, None]
        for b in range(B):
            for h in range(0, H, 4):
                s = (q[b, h:h + 4].float() @ k[b, h:h + 4].float().transpose(1, 2)) * D ** -0.5
                o = s.masked_fill_(~mask, float("-inf")).softmax(-1) @ v[b, h:h + 4].float()
                got = self.out.view(B, S, H, D)[b, :, h:h + 4].transpose(0, 1).float()
                diff += (got - o).pow(2).sum().item()
                norm += o.pow(2).sum().item()
        return (diff / norm) ** .5


def seconds(fn, stream, reps=20):
    """Of one call: `reps` of them in a graph, so that the host's time is not in it."""
    graph = torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        fn()
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(reps):
                fn()
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()
        start.record(stream)
        graph.replay()
        stop.record(stream)
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3 / reps


def peer(world, backend, stream):
    q, k, v = world.torch_inputs()
    try:
        with sdpa_kernel(backend):
            return seconds(lambda: sdpa(q, k, v, is_causal=True), stream)
    except RuntimeError:
        return float("nan")


def main():
    os.environ.pop("NEXUS_CUDA_HOST_MEMORY", None)
    path = sys.argv[1] if len(sys.argv) > 1 else "build/backends/cuda.so"
    sizes = [int(sys.argv[2])] if len(sys.argv) > 2 else [0, 16, 3]
    torch.backends.cuda.matmul.allow_tf32 = False
    dev = Device(path)
    stream = torch.cuda.Stream()
    print(torch.cuda.get_device_name())
    print("   B     S  H/Hkv    D prior | TFLOP/s " + " ".join(f"block {b or 'all':>3}" for b in sizes) +
          "    flash    cudnn | error")
    for B, S, H, G, D, prior in [(1, 2048, 32, 1, 128, 0), (4, 2048, 32, 1, 128, 0), (1, 8192, 32, 1, 128, 0),
                                 (1, 8192, 32, 4, 128, 0), (1, 512, 32, 4, 128, 3584), (1, 2048, 32, 1, 64, 0),
                                 (4, 2048, 32, 1, 64, 0), (1, 8192, 32, 1, 64, 0)]:
        torch.manual_seed(1)
        rate, worst = [], 0.0
        for block in sizes:
            w = World(B, S, H, G, D, block, prior)
            torch.cuda.synchronize()
            w.run(dev, stream)
            torch.cuda.synchronize()
            worst = max(worst, w.error()) if S < 8192 else worst
            rate.append(w.flops / seconds(lambda: w.run(dev, stream), stream) / 1e12)
        others = [w.flops / peer(w, b, stream) / 1e12 if not prior else float("nan")
                  for b in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION)]
        print(f"{B:4} {S:5} {H:3}/{H // G:<3} {D:4} {prior:5} |         " + " ".join(f"{r:9.0f}" for r in rate) + " " +
              " ".join(f"{r:9.0f}" for r in others) + f" | {worst:.1e}", flush=True)


if __name__ == "__main__":
    main()
