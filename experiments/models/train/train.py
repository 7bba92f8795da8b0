"""Trains a language model of any shape on an encoded token stream; resumable.

The schedule runs over a budget of seconds or of tokens: warm-up, constant
rate, then a decay to zero; the last part runs at the long sequence length.
A run stopped by --stop-after continues from OUT/state.pt with --resume.
"""
import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from model import LM, Shape, generate

BUCKETS = (0, 16, 64, 256, 512, 1024, 2048, 3072, 4096)
PROMPTS = ("Once upon a time, there was a small fox", "One morning, Anna found a key.",
           "Question: What is a bridge?\nAnswer:", "Dear Tom,\n\nThank you",
           "How to make a cup of tea:\n1.", "The harbour")


class Stream:
    """Windows of a token stream kept on the device, in a new order every epoch."""

    def __init__(self, path, device, seed, n_future=1):
        self.n_future = n_future
        data = np.fromfile(path, dtype=np.uint16).astype(np.int16)
        self.data = torch.from_numpy(data).to(device)
        self.gen = torch.Generator().manual_seed(seed)
        self.order, self.length, self.epochs = None, 0, 0

    def batch(self, rows, length):
        if self.length != length or len(self.order) < rows:
            shift = int(torch.randint(length, (1,), generator=self.gen))
            starts = torch.arange(shift, len(self.data) - length - self.n_future, length)
            self.order = starts[torch.randperm(len(starts), generator=self.gen)]
            self.length, self.epochs = length, self.epochs + 1
        take, self.order = self.order[:rows], self.order[rows:]
        take = take.to(self.data.device, non_blocking=True)
        x = self.data[take[:, None] + torch.arange(length + self.n_future, device=self.data.device)].long()
        return x[:, :length].contiguous(), x[:, 1:].contiguous()


def rate(progress, step, args):
    """Learning rate: linear warm-up, constant, then 1 - sqrt decay to zero."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    if progress < 1 - args.decay:
        return args.lr
    part = (progress - (1 - args.decay)) / args.decay
    return args.lr * max(0.0, 1 - math.sqrt(min(1.0, part)))


def amp(device):
    return torch.autocast(device_type=device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


@torch.no_grad()
def evaluate(model, path, length, device, limit=4_000_000):
    """Mean loss in nats a token, bits a byte, and loss by position, over windows of one length."""
    data = np.fromfile(path, dtype=np.uint16)[:limit].astype(np.int64)
    n_bytes = json.loads(Path(str(path) + ".json").read_text())["bytes"]
    per_token = n_bytes / json.loads(Path(str(path) + ".json").read_text())["tokens"]
    rows = (len(data) - 1) // length
    x = torch.from_numpy(data[:rows * length].reshape(rows, length)).to(device)
    y = torch.from_numpy(data[1:rows * length + 1].reshape(rows, length)).to(device)
    total = torch.zeros(length, dtype=torch.float64, device=device)
    group = max(1, 65536 // length)
    for i in range(0, rows, group):
        with amp(device):
            total += model(x[i:i + group], y[i:i + group], "none").double().sum(0)
    by_pos = (total / rows).cpu()
    nats = float(by_pos.mean())
    edges = [b for b in BUCKETS if b < length] + [length]
    return {"length": length, "tokens": rows * length, "nats_per_token": round(nats, 5),
            "bits_per_byte": round(nats / math.log(2) / per_token, 5),
            "by_position": {f"{a}-{b}": round(float(by_pos[a:b].mean()), 4)
                            for a, b in zip(edges, edges[1:])}}


@torch.no_grad()
def evaluate_heads(model, path, length, device, limit=1_000_000):
    """For each head: loss, how often its first choice is the text's token, and how often it is what the model's
    own next-token head chooses at that position (the text given): what greedy drafting would have accepted."""
    data = torch.from_numpy(np.fromfile(path, dtype=np.uint16)[:limit].astype(np.int64)).to(device)
    n = model.shape.n_future
    rows = (len(data) - n) // length
    at = torch.arange(rows, device=device)[:, None] * length + torch.arange(length + n - 1, device=device)
    loss, right, agreed, alive = (torch.zeros(n, dtype=torch.float64, device=device) for _ in range(4))
    count, group = 0, max(1, 16384 // length)
    for i in range(0, rows, group):
        x, y = data[at[i:i + group, :length]], data[at[i:i + group] + 1]
        with amp(device):
            logits = [model.logits(h).float() for h in model.hiddens(x)]
        best = [z.argmax(-1) for z in logits]
        m = length - n + 1  # positions whose drafted tokens all lie inside the window
        chain = torch.ones_like(best[0][:, :m], dtype=torch.bool)
        for k in range(n):
            t = y[:, k:k + length]
            loss[k] += F.cross_entropy(logits[k].flatten(0, 1), t.flatten(), reduction="sum").double()
            right[k] += (best[k] == t).double().sum()
            same = best[k][:, :m] == best[0][:, k:k + m]
            # Head k is asked only where the text followed the choices before it.
            asked = chain & (best[0][:, k - 1:k - 1 + m] == y[:, k - 1:k - 1 + m]) if k else chain
            agreed[k] += (same & asked).double().sum()
            alive[k] += asked.double().sum()
            chain = asked & same
        count += x.numel()
    return [{"ahead": k + 1, "nats_per_token": round(float(loss[k]) / count, 5),
             "right": round(float(right[k]) / count, 4),
             "accepted_if_asked": round(float(agreed[k] / alive[k]), 4)} for k in range(n)]


def optimizer(model, args, device):
    decay = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW([{"params": decay, "weight_decay": args.weight_decay},
                              {"params": plain, "weight_decay": 0.0}],
                             lr=args.lr, betas=(0.9, 0.95), eps=1e-8, fused=device.type == "cuda")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--shape", required=True, help="JSON file of the shape")
    ap.add_argument("--data", required=True, help="encoded training stream")
    ap.add_argument("--heldout", required=True, help="encoded held-out stream")
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True, type=Path)
    ap.add_argument("--seconds", type=float, help="budget of the schedule in seconds of training")
    ap.add_argument("--tokens", type=float, help="budget of the schedule in tokens")
    ap.add_argument("--stop-after", type=float, default=1e9, help="stop this call after so many seconds")
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--batch-tokens", type=int, default=262144)
    ap.add_argument("--short", type=int, default=1024, help="sequence length of the first part")
    ap.add_argument("--long-share", type=float, default=0.15, help="part of the budget at full context")
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--warmup", type=int, default=200, help="steps")
    ap.add_argument("--decay", type=float, default=0.4, help="part of the budget with a falling rate")
    ap.add_argument("--weight-decay", type=float, default=0.1)
    ap.add_argument("--clip", type=float, default=1.0)
    ap.add_argument("--seed", type=int, default=11)
    ap.add_argument("--device", default="cuda")
    ap.add_argument("--log-every", type=int, default=100)
    args = ap.parse_args()
    if not args.seconds and not args.tokens:
        ap.error("give --seconds or --tokens")
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    shape = Shape.load(args.shape)
    model = LM(shape).to(device)
    opt = optimizer(model, args, device)
    stream = Stream(args.data, device, args.seed, shape.n_future)
    fast = torch.compile(model.losses, dynamic=False) if device.type == "cuda" else model.losses
    print(f"{shape.name}: {model.count():,} parameters, {len(stream.data):,} training tokens", flush=True)

    def loss_of(length):
        x, y = stream.batch(max(1, args.batch_tokens // length), length)
        with amp(device):
            return fast(x, y)  # the sum of all heads' losses is what is trained

    begin = time.time()
    if device.type == "cuda":  # compile both lengths before the clock starts
        for length in (args.short, shape.context):
            loss_of(length).sum().backward()
        opt.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
    print(f"compiled in {time.time() - begin:.1f} s", flush=True)
    state = {"step": 0, "tokens": 0, "elapsed": 0.0}
    if args.resume:
        saved = torch.load(args.out / "state.pt", map_location=device)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        state = saved["state"]
        stream.gen.manual_seed(args.seed + state["step"])
    stream.epochs, stream.length = 0, 0
    log = open(args.out / "train_log.jsonl", "a")
    start, before, progress = time.time(), state["elapsed"], 0.0
    while True:
        state["elapsed"] = before + time.time() - start
        progress = max(state["elapsed"] / args.seconds if args.seconds else 0.0,
                       state["tokens"] / args.tokens if args.tokens else 0.0)
        if progress >= 1 or time.time() - start > args.stop_after:
            break
        lr = rate(progress, state["step"], args)
        for group in opt.param_groups:
            group["lr"] = lr
        length = shape.context if progress >= 1 - args.long_share else args.short
        loss = loss_of(length)
        loss.sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        opt.step()
        opt.zero_grad(set_to_none=True)
        state["step"] += 1
        state["tokens"] += max(1, args.batch_tokens // length) * length
        if state["step"] % 10 == 0:
            values = loss.tolist()  # also keeps the host close to the device's clock
            if state["step"] % args.log_every == 0:
                row = {"step": state["step"], "tokens": state["tokens"], "loss": round(values[0], 4),
                       "lr": round(lr, 6), "length": length, "seconds": round(state["elapsed"], 1)}
                if len(values) > 1:
                    row["further"] = [round(v, 4) for v in values[1:]]
                log.write(json.dumps(row) + "\n")
                log.flush()
                if state["step"] % (5 * args.log_every) == 0 or state["step"] <= 2 * args.log_every:
                    print(json.dumps(row), flush=True)
    torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "state": state}, args.out / "state.pt")
    torch.save({"shape": shape.dict(), "model": {k: v.float().cpu() for k, v in model.state_dict().items()}},
               args.out / "master.pt")
    report = {"shape": shape.dict(), "parameters": model.count(), **state, "progress": round(progress, 4),
              "train_stream_tokens": len(stream.data),
              "settings": {k: str(v) for k, v in vars(args).items()},
              "heldout": [evaluate(model, args.heldout, n, device) for n in (args.short, shape.context)]}
    if shape.n_future > 1:
        report["heads"] = evaluate_heads(model, args.heldout, args.short, device)
    tok = Tokenizer.from_file(args.tokenizer)
    eot = tok.token_to_id("<|endoftext|>")
    ids = [[eot] + tok.encode(p).ids for p in PROMPTS]
    with amp(device):
        for temperature in (0.0, 0.8):
            for row in generate(model, ids, 200, temperature, eot):
                report.setdefault("samples", []).append(
                    {"temperature": temperature, "text": tok.decode(row)})
    (args.out / "report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps({k: v for k, v in report.items() if k not in ("shape", "settings")}, indent=1))


if __name__ == "__main__":
    main()
