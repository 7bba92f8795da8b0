# SPDX-License-Identifier: Apache-2.0
"""Makes the oracle of a real model: what an independent float32 implementation (Transformers'
LlamaForCausalLM on weights dequantised by the `gguf` package) says about fixed prompts. The format
is in README.md beside this file.

  pip install gguf tokenizers torch transformers
  python make_oracle.py MODEL.gguf OUT.jsonl [--prompts FILE] [--n-new 64]
"""

import argparse
import hashlib
import json
import os
import sys

import numpy as np
import torch
import transformers
from gguf import GGUFReader
from gguf.quants import dequantize

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tokenizer"))
import hf_tokenizer  # noqa: E402

NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def unpermute(w, n_heads):
    """GGUF rotates adjacent pairs, Transformers the two halves of a head: undo the row order."""
    rows, cols = w.shape
    return w.reshape(n_heads, rows // n_heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def load(path):
    reader = GGUFReader(path)
    meta = {k.removeprefix("llama."): f.contents() for k, f in reader.fields.items() if k.startswith("llama.")}
    n_heads = meta["attention.head_count"]
    n_kv = meta.get("attention.head_count_kv", n_heads)
    d = meta["embedding_length"]
    state = {}
    for t in reader.tensors:
        parts = t.name.split(".")
        if t.name in NAMES:
            name = NAMES[t.name]
        elif parts[0] == "blk" and parts[2] in LAYER_NAMES:
            name = f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.weight"
        else:
            print(f"left out: {t.name}", file=sys.stderr)
            continue
        w = np.asarray(dequantize(t.data, t.tensor_type), dtype=np.float32)
        w = w.reshape([int(n) for n in reversed(t.shape)])
        if parts[-2] == "attn_q":
            w = unpermute(w, n_heads)
        elif parts[-2] == "attn_k":
            w = unpermute(w, n_kv)
        state[name] = torch.from_numpy(np.ascontiguousarray(w))
    tied = "lm_head.weight" not in state
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    theta = meta.get("rope.freq_base", 10000.0)
    config = transformers.LlamaConfig(
        vocab_size=state["model.embed_tokens.weight"].shape[0], hidden_size=d,
        intermediate_size=meta["feed_forward_length"], num_hidden_layers=meta["block_count"],
        num_attention_heads=n_heads, num_key_value_heads=n_kv,
        head_dim=meta.get("attention.key_length", d // n_heads),
        max_position_embeddings=meta["context_length"],
        rms_norm_eps=meta["attention.layer_norm_rms_epsilon"],
        rope_theta=theta, rope_parameters={"rope_type": "default", "rope_theta": theta},
        tie_word_embeddings=tied, attention_bias=False, mlp_bias=False, attn_implementation="eager")
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model = model.to_empty(device="cpu").to(torch.float32)
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise SystemExit(f"weights do not fit: missing {missing}, unexpected {unexpected}")
    if tied:
        model.tie_weights()
    # The meta device left buffers without values: build the rotary embedding again.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    expected = theta ** (-torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim)
    if not torch.allclose(model.model.rotary_emb.inv_freq.cpu(), expected, rtol=1e-6):
        raise SystemExit("this version of Transformers ignores rope_theta")
    return model.eval(), reader


def greedy(model, ids, n_new):
    out, cache = list(ids), None
    step = torch.tensor([out])
    for _ in range(n_new):
        r = model(step, past_key_values=cache, use_cache=True)
        cache = r.past_key_values
        out.append(int(r.logits[0, -1].argmax()))
        step = torch.tensor([[out[-1]]])
    return out


def numbers(values):
    return [float(f"{v:.7g}") for v in values.tolist()]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--prompts", default=os.path.join(HERE, "prompts.json"))
    parser.add_argument("--n-new", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    model, reader = load(args.model)
    tok = hf_tokenizer.from_gguf(args.model)
    field = reader.fields.get("tokenizer.ggml.add_bos_token")
    bos = [reader.fields["tokenizer.ggml.bos_token_id"].contents()] if field and field.contents() else []
    with open(args.prompts, encoding="utf-8") as f:
        prompts = json.load(f)
    with open(args.model, "rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    lines = [{
        "format": "nexus-oracle", "version": 1, "model": os.path.basename(args.model), "sha256": digest,
        "file_bytes": os.path.getsize(args.model), "vocab": model.config.vocab_size,
        "n_prompts": len(prompts), "n_new": args.n_new, "dtype": "float32",
        "made_with": f"make_oracle.py, torch {torch.__version__}, transformers {transformers.__version__}",
    }]
    moved = 0
    for i, text in enumerate(prompts):
        ids = bos + tok.encode(text, add_special_tokens=False).ids
        tokens = greedy(model, ids, args.n_new)
        logits = model(torch.tensor([tokens])).logits[0].to(torch.float32)
        top = torch.topk(logits, 2, dim=-1)
        argmax = top.indices[:, 0].tolist()
        # The one pass over all tokens rounds otherwise than the steps: count where that matters.
        moved += sum(a != b for a, b in zip(argmax[len(ids) - 1:-1], tokens[len(ids):]))
        lines.append({
            "id": i, "text": text, "n_prompt": len(ids), "tokens": tokens, "argmax": argmax,
            "logit": numbers(top.values[:, 0]), "gap": numbers(top.values[:, 0] - top.values[:, 1]),
        })
        print(f"{i + 1}/{len(prompts)}: {tok.decode(tokens[len(ids):])!r}", file=sys.stderr)
    with open(args.out, "w", encoding="utf-8") as f:
        for line in lines:
            f.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")
    gaps = sorted(g for line in lines[1:] for g in line["gap"])
    print(f"{len(gaps)} positions, smallest gaps {gaps[:4]}, {moved} choices moved between passes", file=sys.stderr)


if __name__ == "__main__":
    main()
