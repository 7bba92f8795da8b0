"""Writes a trained model and its tokenizer as a GGUF v3 file with Q8_0 weights."""
import argparse
import json
from pathlib import Path

import torch

from gguf_io import F32, FILE_TYPE_Q8_0, Q8_0, GGUFWriter
from model import LM, Shape


def load_master(path):
    saved = torch.load(path, map_location="cpu")
    model = LM(Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    return model.eval()


def tensors(model):
    """(name, float32 array) in the file's order; fused weights are split."""
    s = model.shape
    q, kv = s.n_heads * s.head_dim, s.n_kv_heads * s.head_dim
    out = [("token_embd.weight", model.embed.weight)]
    named = [(f"blk.{i}", b) for i, b in enumerate(model.blocks)] + [(f"mtp.{i}", b) for i, b in enumerate(model.extra)]
    for prefix, b in named:
        wq, wk, wv = b.qkv.weight.split((q, kv, kv))
        gate, up = b.gate_up.weight.chunk(2)
        for name, w in (("attn_norm", b.attn_norm.weight), ("attn_q", wq), ("attn_k", wk), ("attn_v", wv),
                        ("attn_output", b.out.weight), ("ffn_norm", b.ffn_norm.weight),
                        ("ffn_gate", gate), ("ffn_up", up), ("ffn_down", b.down.weight)):
            out.append((f"{prefix}.{name}.weight", w))
    out.append(("output_norm.weight", model.norm.weight))
    return [(n, w.detach().float().numpy()) for n, w in out]


def write(model, tokenizer_path, path, name):
    s = model.shape
    tok = json.loads(Path(tokenizer_path).read_text())
    vocab = sorted(tok["model"]["vocab"], key=tok["model"]["vocab"].get)
    special = {t["content"]: t["id"] for t in tok["added_tokens"]}
    if len(vocab) != s.vocab:
        raise SystemExit(f"tokenizer has {len(vocab)} entries, the model {s.vocab}")
    merges = [m if isinstance(m, str) else " ".join(m) for m in tok["model"]["merges"]]
    w = GGUFWriter()
    w.string("general.architecture", "llama")
    w.string("general.name", name)
    w.string("general.license", "apache-2.0")
    w.u32("general.file_type", FILE_TYPE_Q8_0)
    w.u32("general.quantization_version", 2)
    w.u32("llama.context_length", s.context)
    w.u32("llama.embedding_length", s.d_model)
    w.u32("llama.block_count", s.n_layers)
    w.u32("llama.feed_forward_length", s.d_ff)
    w.u32("llama.attention.head_count", s.n_heads)
    w.u32("llama.attention.head_count_kv", s.n_kv_heads)
    w.f32("llama.attention.layer_norm_rms_epsilon", s.norm_eps)
    w.u32("llama.attention.key_length", s.head_dim)
    w.u32("llama.attention.value_length", s.head_dim)
    w.u32("llama.rope.dimension_count", s.head_dim)
    w.f32("llama.rope.freq_base", s.rope_theta)
    w.u32("llama.vocab_size", s.vocab)
    if s.n_future > 1:  # mtp.K.*: the head of the token K + 2 ahead; reads what block tap_layer reads
        w.u32("nexus.mtp.n_heads", s.n_future - 1)
        w.u32("nexus.mtp.tap_layer", s.n_layers - 1)
    w.string("tokenizer.ggml.model", "gpt2")
    w.string("tokenizer.ggml.pre", "gpt-2")
    w.strings("tokenizer.ggml.tokens", vocab)
    w.ints("tokenizer.ggml.token_type", [3 if t in special else 1 for t in vocab])
    w.strings("tokenizer.ggml.merges", merges)
    w.u32("tokenizer.ggml.bos_token_id", special["<|endoftext|>"])
    w.u32("tokenizer.ggml.eos_token_id", special["<|endoftext|>"])
    w.u32("tokenizer.ggml.padding_token_id", special["<|pad|>"])
    w.boolean("tokenizer.ggml.add_bos_token", False)
    for tensor_name, array in tensors(model):
        w.tensor(tensor_name, array, F32 if array.ndim == 1 else Q8_0)
    w.write(path)


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--master", required=True, help="master.pt of train.py")
    ap.add_argument("--tokenizer", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--name", help="general.name; the shape's name unless given")
    args = ap.parse_args()
    model = load_master(args.master)
    write(model, args.tokenizer, args.out, args.name or model.shape.name)
    print(f"{args.out}: {Path(args.out).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
