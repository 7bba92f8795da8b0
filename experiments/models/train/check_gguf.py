"""Reads a GGUF back and compares it with its float32 master on held-out tokens.

The file's side goes through the GGUF reader and the file's own names and
metadata alone; the losses should differ by quantisation noise only.
"""
import argparse
import json

import numpy as np
import torch
from tokenizers import Tokenizer

from export_gguf import load_master
from gguf_io import GGUFReader
from model import LM, Shape, generate


def from_gguf(path):
    r = GGUFReader(path)
    kv, t = r.kv, lambda n: torch.from_numpy(r.tensor(n))
    shape = Shape(kv["general.name"], kv["llama.embedding_length"], kv["llama.block_count"],
                  kv["llama.attention.head_count"], kv["llama.attention.head_count_kv"],
                  kv["llama.rope.dimension_count"], kv["llama.feed_forward_length"],
                  kv["llama.vocab_size"], kv["llama.context_length"], kv["llama.rope.freq_base"],
                  kv["llama.attention.layer_norm_rms_epsilon"], kv.get("nexus.mtp.n_heads", 0) + 1)
    model, state = LM(shape), {"embed.weight": t("token_embd.weight"), "norm.weight": t("output_norm.weight")}
    places = [(f"blk.{i}.", f"blocks.{i}.") for i in range(shape.n_layers)]
    for a, b in places + [(f"mtp.{i}.", f"extra.{i}.") for i in range(shape.n_future - 1)]:
        state[b + "qkv.weight"] = torch.cat([t(f"{a}attn_{x}.weight") for x in "qkv"])
        state[b + "out.weight"] = t(a + "attn_output.weight")
        state[b + "gate_up.weight"] = torch.cat([t(a + "ffn_gate.weight"), t(a + "ffn_up.weight")])
        state[b + "down.weight"] = t(a + "ffn_down.weight")
        for x in ("attn_norm", "ffn_norm"):
            state[f"{b}{x}.weight"] = t(f"{a}{x}.weight")
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def loss(model, ids, length):
    rows = (len(ids) - 1) // length
    x = torch.from_numpy(ids[:rows * length].reshape(rows, length))
    y = torch.from_numpy(ids[1:rows * length + 1].reshape(rows, length))
    return float(np.mean([model(x[i:i + 4], y[i:i + 4], "none").double().mean().item()
                          for i in range(0, rows - rows % 4, 4)]))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--gguf", required=True)
    ap.add_argument("--master", required=True)
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--heldout", required=True, help="encoded held-out stream")
    ap.add_argument("--tokens", type=int, default=100_000)
    ap.add_argument("--length", type=int, default=1024)
    ap.add_argument("--prompt", action="append", default=[], help="greedy text is printed for each")
    args = ap.parse_args()
    ids = np.fromfile(args.heldout, dtype=np.uint16)[:args.tokens].astype(np.int64)
    tok = Tokenizer.from_file(args.tokenizer)
    models = {"master": load_master(args.master), "gguf": from_gguf(args.gguf)}
    out = {"tokens": len(ids)} | {n: round(loss(m, ids, args.length), 5) for n, m in models.items()}
    for prompt in args.prompt:
        start = [[0] + tok.encode(prompt).ids]
        out[prompt] = {n: tok.decode(generate(m, start, 60)[0]) for n, m in models.items()}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
