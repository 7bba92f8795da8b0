# SPDX-License-Identifier: Apache-2.0
"""Makes the small random models of this folder, one of each family, and what Transformers computes with them in
float32, for test_families.c.

  pip install gguf safetensors torch transformers
  python make_families.py .

Each NAME/ is a Hugging Face directory as Transformers saves it, with weights that were rounded to the type they are
stored in before anything was computed; NAME.gguf has the same weights, written with the `gguf` package, Q and K in
the order that llama.cpp's converter gives them. NAME.bin (little-endian): "NXFA", u32 version 1, u32 vocabulary,
u32 number of prompts; each prompt: u32 P, u32 N, i32 tokens[P + N] (the prompt and its greedy continuation),
f32 logits[N][vocabulary] from which the N tokens were drawn.
"""
import json
import math
import shutil
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from transformers import (LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

VOCAB = 288
COMMON = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
              max_position_embeddings=256, bos_token_id=VOCAB - 3, eos_token_id=VOCAB - 3,
              attn_implementation="eager")
PROMPTS = (5, 17)
N_NEW = 8
GAP = 2e-3  # a smaller one between the best two logits is no test of tokens

# name: (config class, model class, type, shards, GGUF architecture, settings)
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, torch.bfloat16, 1, "llama",
              dict(num_key_value_heads=4, rms_norm_eps=1e-5, tie_word_embeddings=False)),
    "llama31": (LlamaConfig, LlamaForCausalLM, torch.float32, 3, "llama",
                dict(num_key_value_heads=1, rms_norm_eps=1e-5, tie_word_embeddings=True, rope_theta=10000.0,
                     rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                       original_max_position_embeddings=128))),
    "linear": (LlamaConfig, LlamaForCausalLM, torch.float16, 1, "llama",
               dict(num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=False, rope_theta=5000.0,
                    rope_scaling=dict(rope_type="linear", factor=4.0))),
    "mistral": (MistralConfig, MistralForCausalLM, torch.bfloat16, 1, "llama",
                dict(num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5, sliding_window=25,
                     tie_word_embeddings=False)),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, torch.bfloat16, 2, "qwen2",
              dict(num_key_value_heads=2, rms_norm_eps=1e-6, tie_word_embeddings=True, rope_theta=1e6,
                   use_sliding_window=False, sliding_window=128)),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, torch.bfloat16, 1, "qwen3",
              dict(num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-6, tie_word_embeddings=False,
                   rope_theta=1e6, use_sliding_window=False)),
}

GGUF_NAMES = {
    "input_layernorm.weight": "attn_norm.weight", "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight", "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight", "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight", "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight", "self_attn.q_proj.bias": "attn_q.bias",
    "self_attn.k_proj.bias": "attn_k.bias", "self_attn.v_proj.bias": "attn_v.bias",
    "self_attn.q_norm.weight": "attn_q_norm.weight", "self_attn.k_norm.weight": "attn_k_norm.weight",
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def randomise(model, dtype, seed):
    """Every parameter, since a fresh model's norms are 1 and its biases 0; rounded to dtype."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.copy_(torch.randn(p.shape, generator=g) * 0.5)
            elif p.ndim == 1:
                p.copy_(torch.rand(p.shape, generator=g) + 0.5)
            else:
                p.copy_(torch.randn(p.shape, generator=g) * (1.5 / math.sqrt(p.shape[1])))
            p.copy_(p.to(dtype).to(torch.float32))


def greedy(model, prompt):
    """Tokens and logits, each step with all tokens before it: no cache that could be wrong."""
    tokens, rows, gap = list(prompt), [], math.inf
    for _ in range(N_NEW):
        with torch.no_grad():
            logits = model(torch.tensor([tokens]), use_cache=False).logits[0, -1]
        best = torch.topk(logits, 2).values
        gap = min(gap, float(best[0] - best[1]))
        rows.append(logits.numpy().astype("<f4"))
        tokens.append(int(logits.argmax()))
    return tokens, rows, gap


def expect(model, path, seed):
    rng = np.random.default_rng(seed)
    out = b"NXFA" + struct.pack("<III", 1, VOCAB, len(PROMPTS))
    largest, smallest = 0, math.inf
    for n in PROMPTS:
        while True:  # until greedy choices are clear
            prompt = [int(t) for t in rng.integers(0, VOCAB - 3, n)]
            tokens, rows, gap = greedy(model, prompt)
            if gap >= GAP:
                break
        smallest = min(smallest, gap)
        largest = max(largest, max(float(np.abs(r).max()) for r in rows))
        out += struct.pack("<II", n, N_NEW) + np.array(tokens, "<i4").tobytes() + b"".join(r.tobytes() for r in rows)
    path.write_bytes(out)
    return largest, smallest


def permuted(w, n_heads):
    """Rows (or elements) of each head from two halves to adjacent pairs, as llama.cpp's converter does."""
    return w.reshape(n_heads, 2, w.shape[0] // n_heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def byte_texts():
    """GPT-2's printable characters of the 256 bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in shown]
    return [chr(b) if b in shown else chr(256 + rest.index(b)) for b in range(256)]


def write_gguf(model, path, arch, dtype, name):
    c = model.config
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    w = gguf.GGUFWriter(path, arch)
    w.add_name(name)
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    settings = FAMILIES[name][5]
    w.add_rope_freq_base(settings.get("rope_theta", 10000.0))
    if arch == "llama":
        w.add_rope_dimension_count(head_dim)
    if name == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(settings["rope_scaling"]["factor"])
    if settings.get("sliding_window") and name == "mistral":
        w.add_sliding_window(settings["sliding_window"])
    letters = [a + b for a in "etaoin" for b in "etaoin"][:VOCAB - 256 - 3]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(byte_texts() + letters + ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    w.add_token_types([1] * (VOCAB - 3) + [3] * 3)
    w.add_token_merges([f"{t[0]} {t[1]}" for t in letters])
    w.add_bos_token_id(VOCAB - 3)
    w.add_eos_token_id(VOCAB - 3)
    kind = {torch.float32: gguf.GGMLQuantizationType.F32, torch.float16: gguf.GGMLQuantizationType.F16,
            torch.bfloat16: gguf.GGMLQuantizationType.BF16}[dtype]
    if name == "llama31":
        s = settings["rope_scaling"]
        factors = []
        for i in range(head_dim // 2):
            wavelength = 2 * math.pi * settings["rope_theta"] ** (2 * i / head_dim)
            turns = s["original_max_position_embeddings"] / wavelength
            smooth = (turns - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
            smooth = min(max(smooth, 0.0), 1.0)
            factors.append(1 / ((1 - smooth) / s["factor"] + smooth))
        w.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and c.tie_word_embeddings:
            continue
        x, parts = value.numpy(), key.split(".", 3)
        if key.startswith("model.layers."):
            if arch == "llama" and ".q_proj." in key:
                x = permuted(x, c.num_attention_heads)
            if arch == "llama" and ".k_proj." in key:
                x = permuted(x, c.num_key_value_heads)
            key = f"blk.{parts[2]}.{GGUF_NAMES[parts[3]]}"
        else:
            key = GGUF_NAMES[key]
        x = np.ascontiguousarray(x)
        if x.ndim == 1:
            w.add_tensor(key, x)
        else:
            w.add_tensor(key, gguf.quants.quantize(x, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    top = Path(sys.argv[1])
    for seed, (name, (config, cls, dtype, shards, arch, settings)) in enumerate(FAMILIES.items()):
        torch.manual_seed(seed)
        model = cls(config(**COMMON, **settings)).float().eval()
        randomise(model, dtype, seed + 100)
        if settings["tie_word_embeddings"]:
            model.tie_weights()
        largest, gap = expect(model, top / f"{name}.bin", seed + 200)
        write_gguf(model, top / f"{name}.gguf", arch, dtype, name)
        shutil.rmtree(top / name, ignore_errors=True)
        stored = sum(p.numel() for p in model.parameters()) * dtype.itemsize
        model.to(dtype).save_pretrained(top / name, max_shard_size=stored // shards + 4096 if shards > 1 else "1GB")
        for extra in (top / name).glob("*"):
            if extra.name == "generation_config.json":
                extra.unlink()
        config_file = top / name / "config.json"
        written = json.loads(config_file.read_text())
        if name == "llama31" and "rope_parameters" in written:  # one directory as version 4 of Transformers spells it
            rope = written.pop("rope_parameters")
            written |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
            config_file.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
        for file in (top / name).iterdir():
            file.chmod(0o644)
        size = sum(f.stat().st_size for f in (top / name).iterdir())
        print(f"{name}: {size:,} bytes, logits to {largest:.2f}, least gap {gap:.4f}")
    print("transformers", transformers.__version__, "torch", torch.__version__)


if __name__ == "__main__":
    main()
