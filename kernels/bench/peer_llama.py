#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the engine beside llama.cpp: same weights in BF16, same threads, in turns A B A B.

With --codes both read the quantized file itself (Q8_0, Q4_0, Q4_1): we with weight_quant and activations of int8,
as llama.cpp rounds them too.

Needs llama-cpp-python and numpy; `make bench-peer PYTHON=path/to/python` runs it. Both read one BF16 file made of
MODEL, prefill the same number of tokens and decode the same number at each batch size. llama.cpp is timed around
llama_decode alone, over all repetitions, without sampling, with its defaults (KV in F16, its own choice of flash attention); the engine's
time is of whole steps, choosing the token included. Prints medians over the turns, and ratios of each turn.
"""
import argparse
import csv
import ctypes
import io
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def child(a):
    """llama.cpp's side, in a process of its own: one JSON line."""
    import llama_cpp as lc

    lc.llama_backend_init()
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    lc.llama_log_set(quiet, None)
    model = lc.llama_model_load_from_file(a.model.encode(), lc.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp cannot load {a.model}")
    vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    out = {}
    for batch in a.batches:
        p = lc.llama_context_default_params()
        p.n_ctx = batch * (a.prompt_len + a.gen)
        p.n_batch, p.n_ubatch, p.n_seq_max = 2048, 512, batch
        p.n_threads = p.n_threads_batch = a.threads
        ctx = lc.llama_init_from_model(model, p)
        b = lc.llama_batch_init(2048, 0, 1)

        def feed(rows):
            """rows: (token, position, sequence, wants logits)"""
            for at in range(0, len(rows), 2048):
                part = rows[at:at + 2048]
                b.n_tokens = len(part)
                for i, (token, pos, seq, want) in enumerate(part):
                    b.token[i], b.pos[i], b.n_seq_id[i], b.logits[i] = token, pos, 1, want
                    b.seq_id[i][0] = seq
                begin = time.perf_counter()
                if lc.llama_decode(ctx, b):
                    raise SystemExit("llama_decode failed")
                lc.llama_synchronize(ctx)
                yield time.perf_counter() - begin

        ids = [(i * 7919 + 13) % vocab for i in range(a.prompt_len)]
        prompt = [(t, i, s, i == a.prompt_len - 1) for s in range(batch) for i, t in enumerate(ids)]
        steps = [[(ids[i % len(ids)], a.prompt_len + i, s, True) for s in range(batch)] for i in range(a.gen - 1)]
        pre = dec = 0.0
        for turn in range(a.repeat + 1):  # the first warms up
            lc.llama_memory_clear(lc.llama_get_memory(ctx), True)
            t_pre = sum(feed(prompt))
            t_dec = sum(t for step in steps for t in feed(step))
            if turn:
                pre, dec = pre + t_pre, dec + t_dec
        out["built"] = lc.llama_print_system_info().decode().strip()
        out[batch] = {"prefill": a.repeat * len(prompt) / pre, "decode": a.repeat * batch * len(steps) / dec}
        lc.llama_batch_free(b)
        lc.llama_free(ctx)
    print(json.dumps(out))


def theirs(a, model):
    text = subprocess.run([sys.executable, __file__, "--child", "--model", model, *common(a)], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    return {int(k) if k.isdigit() else k: v for k, v in json.loads(text.splitlines()[-1]).items()}


def common(a):
    return ["--batch-size", ",".join(map(str, a.batches)), "--prompt-len", str(a.prompt_len), "--gen", str(a.gen),
            "--repeat", str(a.repeat), "--threads", str(a.threads)]


def ours(a, model):
    codes = ["--technique", "weight_quant:type=file,activations=int8,lm_head=true"] if a.codes else []
    text = subprocess.run([a.nexus, "bench", "--model", model, "--format", "csv", *common(a), *codes], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    return {int(r["batch"]): {"prefill": float(r["prefill tok/s"]), "decode": float(r["decode tok/s"])} for r in rows}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--model", required=True, help="GGUF file")
    ap.add_argument("--nexus", default="build/nexus")
    ap.add_argument("--turns", type=int, default=5)
    ap.add_argument("--batch-size", default="1,8")
    ap.add_argument("--prompt-len", type=int, default=256)
    ap.add_argument("--gen", type=int, default=64)
    ap.add_argument("--repeat", type=int, default=2)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--codes", action="store_true", help="keep the codes of a quantized file")
    ap.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    a = ap.parse_args()
    a.batches = [int(x) for x in a.batch_size.split(",")]
    if a.child:
        return child(a)
    sys.path.insert(0, str(HERE.parents[1] / "experiments/models/train"))
    from to_bf16 import convert

    model = Path(a.nexus).resolve().parent / (Path(a.model).stem + "-bf16.gguf")
    if a.codes:
        model = Path(a.model)
    elif not model.exists() or model.stat().st_mtime < Path(a.model).stat().st_mtime:
        part = model.with_suffix(".part")
        convert(a.model, part)
        part.rename(model)
    turns = []
    for i in range(a.turns):
        turns.append((ours(a, str(model)), theirs(a, str(model))))
        print(f"turn {i + 1} of {a.turns}: " + "; ".join(
            f"batch {b} {what} {turns[-1][0][b][what]:.0f} and {turns[-1][1][b][what]:.0f} tok/s"
            for b in a.batches for what in ("prefill", "decode")), file=sys.stderr)
    import llama_cpp

    print(f"{Path(a.model).name}{'' if a.codes else ' as BF16'}, {a.threads} threads, prompt {a.prompt_len}, output {a.gen}, {a.turns} turns; "
          f"llama-cpp-python {llama_cpp.__version__} ({turns[0][1]['built']})")
    print(f"{'batch':>5} {'what':8} {'nexus tok/s':>12} {'llama.cpp tok/s':>16} {'ratio':>6}  of single turns")
    for batch in a.batches:
        for what in ("prefill", "decode"):
            mine, other = ([t[k][batch][what] for t in turns] for k in (0, 1))
            ratios = sorted(m / o for m, o in zip(mine, other))
            print(f"{batch:5} {what:8} {statistics.median(mine):12.1f} {statistics.median(other):16.1f} "
                  f"{statistics.median(ratios):6.2f}  {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
