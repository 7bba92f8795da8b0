#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made seeds of corpus/: small valid files that reach deep, and texts that people write.

    python3 make_seeds.py        (standard library only; the same bytes each time)

corpus/run_file comes from the program: NEXUS_FUZZ_SEEDS=<folder> build/tests/test_fuzz_corpus.
Other files of corpus/ were found by fuzzing, or are regressions, called r-*.
"""
import json
import os
import random
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def put(name, data):
    path = os.path.join(HERE, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data.encode() if isinstance(data, str) else data)


# ---- a byte-level vocabulary ------------------------------------------------------------------

def byte_letters():
    """GPT-2's printable letter of each byte."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters, extra = {}, 0
    for b in range(256):
        if b in plain:
            letters[b] = chr(b)
        else:
            letters[b] = chr(256 + extra)
            extra += 1
    return [letters[b] for b in range(256)]


SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB = byte_letters() + ["he"] + SPECIALS
MERGES = ["h e"]
TEMPLATE = "{{'<|im_start|>system\\nYou help.<|im_end|>\\n'}}{% for m in messages %}{{m}}{% endfor %}"

# ---- GGUF -------------------------------------------------------------------------------------

U8, I8, U16, I16, U32, I32, F32, BOOL, STR, ARR, U64, I64, F64 = range(13)
PACK = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B",
        U64: "Q", I64: "q", F64: "d"}
TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20),
         "Q8_0": (8, 32, 34), "Q6_K": (14, 256, 210), "BF16": (30, 1, 2)}


def string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(kind, v):
    return string(v) if kind == STR else struct.pack("<" + PACK[kind], v)


def array(kind, vs):
    return struct.pack("<IQ", kind, len(vs)) + b"".join(value(kind, v) for v in vs)


def gguf(keys, tensors, version=3, alignment=32):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
    for name, kind, v in keys:
        out += string(name) + struct.pack("<I", kind)
        out += array(*v) if kind == ARR else value(kind, v)
    data, at = b"", 0
    rng = random.Random(1)
    for name, kind, dims in tensors:
        number, elems, size = TYPES[kind]
        n = 1
        for d in dims:
            n *= d
        out += string(name) + struct.pack("<I", len(dims))
        out += b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", number, at)
        if kind == "F32":
            raw = struct.pack("<%df" % n, *[rng.uniform(-1, 1) for _ in range(n)])
        else:  # any bytes are weights; zeros compress, and hold no NaN
            raw = bytes(n // elems * size)
        raw += b"\0" * (-len(raw) % alignment)
        data += raw
        at += len(raw)
    out += b"\0" * (-len(out) % alignment)
    return out + data


def model_keys(d, heads, kv, ff):
    return [("general.architecture", STR, "llama"), ("general.name", STR, "tiny"),
            ("llama.block_count", U32, 1), ("llama.embedding_length", U32, d),
            ("llama.feed_forward_length", U32, ff), ("llama.context_length", U32, 64),
            ("llama.attention.head_count", U32, heads),
            ("llama.attention.head_count_kv", U32, kv),
            ("llama.rope.freq_base", F32, 10000.0),
            ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5)]


def tokenizer_keys():
    kinds = [1] * 257 + [3] * 3
    return [("tokenizer.ggml.model", STR, "gpt2"), ("tokenizer.ggml.pre", STR, "gpt-2"),
            ("tokenizer.ggml.tokens", ARR, (STR, VOCAB)),
            ("tokenizer.ggml.token_type", ARR, (I32, kinds)),
            ("tokenizer.ggml.merges", ARR, (STR, MERGES)),
            ("tokenizer.ggml.bos_token_id", U32, 257), ("tokenizer.ggml.eos_token_id", U32, 257),
            ("tokenizer.ggml.add_bos_token", BOOL, 1),
            ("tokenizer.chat_template", STR, TEMPLATE)]


def model_tensors(d, kv_rows, ff, kind):
    names = [("token_embd.weight", kind, [d, len(VOCAB)]), ("output_norm.weight", "F32", [d])]
    for part, k, dims in [("attn_norm", "F32", [d]), ("attn_q", kind, [d, d]),
                          ("attn_k", kind, [d, kv_rows]), ("attn_v", kind, [d, kv_rows]),
                          ("attn_output", kind, [d, d]), ("ffn_norm", "F32", [d]),
                          ("ffn_gate", kind, [d, ff]), ("ffn_up", kind, [d, ff]),
                          ("ffn_down", kind, [ff, d])]:
        names.append(("blk.0.%s.weight" % part, k, dims))
    return names


def gguf_seeds():
    put("gguf/model.gguf", gguf(model_keys(8, 2, 1, 8) + tokenizer_keys(),
                                model_tensors(8, 4, 8, "F16")))
    put("gguf/model-q8.gguf", gguf(model_keys(32, 2, 1, 32) + tokenizer_keys(),
                                   model_tensors(32, 16, 32, "Q8_0"), version=2))
    put("gguf/tokenizer.gguf", gguf(tokenizer_keys(), []))
    put("gguf/tensors.gguf", gguf([("general.alignment", U32, 8)],
                                  [(t.lower(), t, [TYPES[t][1] * 2, 2]) for t in TYPES],
                                  alignment=8))
    scalars = [("k%d" % k, k, 1) for k in PACK]
    put("gguf/values.gguf", gguf(scalars + [("s", STR, "text")] +
                                 [("a%d" % k, ARR, (k, [1, 0, 1])) for k in PACK], []))
    put("gguf/empty.gguf", gguf([], []))


# ---- the same model as Hugging Face keeps it --------------------------------------------------

def hf_seeds():
    d, ff, kv = 8, 8, 4
    put("config/tiny.json", json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": d,
        "intermediate_size": ff, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 4, "vocab_size": len(VOCAB),
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "rope_scaling": None, "tie_word_embeddings": True, "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "bos_token_id": 257, "eos_token_id": 257,
        "torch_dtype": "float32"}, indent=1))
    put("config/llama3.json", json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": d,
        "intermediate_size": ff, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": len(VOCAB), "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 32, "rope_type": "llama3"},
        "tie_word_embeddings": True, "bos_token_id": 257, "eos_token_id": [257, 259],
        "torch_dtype": "bfloat16"}))

    def added(i):
        return {"id": 257 + i, "content": SPECIALS[i], "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": True}

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added(i) for i in range(3)], "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(VOCAB)}, "merges": MERGES}}
    put("tokenizer_json/tiny.json", json.dumps(tokenizer, ensure_ascii=False))
    tokenizer["model"]["merges"] = [m.split() for m in MERGES]
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}|\p{L}+|\s+|[^\s\p{L}\p{N}]+"},
         "behavior": "Isolated", "invert": False}, dict(byte_level, use_regex=False)]}
    put("tokenizer_json/split.json", json.dumps(tokenizer, ensure_ascii=False))

    def safetensors(dtype, width):
        shapes = {"model.embed_tokens.weight": [len(VOCAB), d], "model.norm.weight": [d]}
        for part, shape in [("input_layernorm", [d]), ("self_attn.q_proj", [d, d]),
                            ("self_attn.k_proj", [kv, d]), ("self_attn.v_proj", [kv, d]),
                            ("self_attn.o_proj", [d, d]), ("post_attention_layernorm", [d]),
                            ("mlp.gate_proj", [ff, d]), ("mlp.up_proj", [ff, d]),
                            ("mlp.down_proj", [d, ff])]:
            shapes["model.layers.0.%s.weight" % part] = shape
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in shapes.items():
            n = width
            for s in shape:
                n *= s
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + n]}
            at += n
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + bytes(at)

    put("safetensors/tiny.safetensors", safetensors("F32", 4))
    put("safetensors/tiny-bf16.safetensors", safetensors("BF16", 2))


# ---- texts ------------------------------------------------------------------------------------

def text_seeds():
    put("yaml/block.yaml", "# comment\na: 1\nb:\n  - x\n  - {y: 2, z: [3, 4]}\nc: 'quoted ''text'''\n"
        "d: \"esc \\u00e9 \\n\"\ne: |\n  lines\n  more\nf: >-\n  folded\n  text\ng: ~\nh: null\n")
    put("yaml/flow.yaml", "{a: 1, b: [64MiB, 90s, 1e3, true], stack: tuned, c: {d: {e: {}}}}")
    put("yaml/refused.yaml", "%YAML 1.2\n---\na: &x 1\nb: *x\nc: !!str 1\n<<: {d: 1}\n? [k]\n: v\n...\n---\n2\n")
    put("yaml/numbers.yaml", "- 0\n- -5\n- 1.5\n- 0x10\n- .5\n- 1e999\n- 18446744073709551615\n- 10 GB\n- 2TiB\n- 1h\n- 5ns\n- false\n")

    head = "model: m.gguf\nworkload: {prompts: p.jsonl}\n"
    put("experiment/smallest.yaml", "# How fast?\n" + head)
    put("experiment/whole.yaml", """# Which stack?
# SPDX-License-Identifier: Apache-2.0
model: m.gguf
device: cpu
base: plain
dtype: f32
invariant: true
threads: 2
kv_memory: 256MiB
timeout: 90s
order: sorted
gate: false
min_effect: 0.02
workload: {prompts: p.jsonl, samples: 2, seed: 7, ignore_eos: false, temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05}
sweep:
  batch_size: [1, 8]
  seq_len: [64, {uniform: {min: 10, max: 20}}]
  output_len: {lognormal: {mean: 48, sigma: 0.6, max: 128, min: 2}}
  stack: [baseline, paged, all]
num_requests: {per_slot: 2}
trials: {min: 6, max: 12, rel_ci: 0.02}
reference: baseline
goodput: {ttft: 100, tpot: 20.5}
include: [more.yaml]
stacks:
  mine:
    - kv_cache: {reserve: [max, exact]}
    - continuous_batching: {max_batch_size: 16, policy: priority}
    - flash_attention: {kv_chunk: 64}
    - prompt_lookup
""")
    put("experiment/sets.yaml", head + "stacks:\n  p:\n    - paged_attention: {block_size: 16}\n" +
        "\x1e".join(["", "sweep.batch_size=1,4", "trials=5", "stacks.p.paged_attention.block_size=[8, 32]",
                     "stacks.p.0={}", "num_requests.per_slot=3", "sweep.seq_len={uniform: {min: 1, max: 2}}",
                     "workload.seed=null"]))
    put("experiment/axes.yaml", head + "base: tuned\nsweep: {stack: [a, b]}\nreference: a\nstacks:\n"
        "  a: []\n  b:\n    - paged_attention: {block_size: [8, 16], preempt: [recompute, swap]}\n"
        "    - prompt_lookup: {num_tokens: 3, ngram_min: 1, ngram_max: 2}\n")
    put("experiment/wrong.yaml", "modle: m.gguf\nsweep: {bach_size: [1, 1]}\n")

    put("json/lines.jsonl", '{"a": 1, "b": [1.5e3, true, null, "\\u00e9\\ud83d\\ude00"], "c": {"d": {}}}\n\n  {"x": "y"}\r\n{}')
    put("json/wrong.jsonl", '{"a": 1, "a": 2}\n')
    put("json/deep.jsonl", '{"a": ' + "[" * 60 + "]" * 60 + "}\n")

    put("workload/texts.jsonl", '{"text": "Once upon a time there was a little girl."}\n'
        '{"prompt": "The quick brown fox", "priority": -3}\n{"text": "\\u00e9\\n he he he <|im_end|>", "note": 1}\n')
    put("workload/chats.jsonl", '{"turns": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}\n'
        '{"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one"}, '
        '{"role": "assistant", "content": "two"}, {"role": "user", "content": "three and a half"}], "priority": 2}\n')
    put("workload/wrong.jsonl", '{"txet": "x"}\n')


# ---- tables and weights -----------------------------------------------------------------------

GOOD = ["window", "block_size", "tokens", "", "16", "a|b|cd", "true", "0.5", "b"]


def text(s):
    """As fuzz_plugin_table.c reads it."""
    if s is None:
        return b"\0"
    return bytes([9 + GOOD.index(s)]) if s in GOOD else b"\xff" + s.encode() + b"\0"


def table(value, shape, odd, params, counters, hooks, size=None, name="window"):
    out = value.encode() + b"\0" + bytes([shape, odd, len(params), len(counters)])
    if shape & 1:
        out += struct.pack("<I", size)
    out += b"".join(text(t) for t in [name, "0.5", "does what it does", "a paper"])
    out += struct.pack("<IIII", 0, 0, 0, hooks)
    if shape & 2:
        for kind, key, default, unit, words, choices, span in params:
            out += bytes([kind]) + b"".join(text(t) for t in [key, default, unit, words, choices])
            out += b"\1" + struct.pack("<dd", *span) if span else b"\0"
    if shape & 4:
        out += b"".join(text(t) for row in counters for t in row)
    return out


def table_seeds():
    create, counters, schedule = 2 | 8, 16, 64
    params = [(0, "block_size", "16", "tokens", "rows of a block", None, (1, 4096)),
              (1, "window", "0.5", "", "a share", None, (0, 1)),
              (3, "tokens", "b", "", "a choice", "a|b|cd", None)]
    rows = [("window", "tokens", "how many"), ("block_size", "", "which")]
    put("plugin_table/whole", table("16", 6, 0, params, rows, create | counters | schedule))
    put("plugin_table/short", table("b", 5, 0, [], rows, create | counters | schedule, size=168))
    put("plugin_table/bool", table("true", 2, 0, [(2, "window", "true", "", "whether", None, None)],
                                   [], create | 1 << 8 | 1 << 9))
    put("plugin_table/endless", table("1", 2, 4, params, [], create | schedule))
    put("plugin_table/all-hooks", table("1", 0, 0, [], [], (1 << 29) - 1))
    nan = float("nan")
    put("plugin_table/r-nan-range", table("9", 2, 0, [(0, "window", None, "", "x", None, (nan, nan))],
                                          [], create | schedule))
    put("plugin_table/r-half-hook", table("1", 1, 0, [], [], create | schedule | 1 << 11, size=171))
    put("plugin_table/r-short-leak", table("1", 5, 0, [], rows, create | schedule, size=168))
    put("plugin_table/bad-name", table("1", 0, 0, [], [], create | schedule, name="Bad Name!"))


def dequant_seeds():
    rng = random.Random(2)
    for i, kind in enumerate(TYPES):
        raw = bytes(rng.randrange(256) for _ in range(2 * TYPES[kind][2] * (32 if TYPES[kind][1] == 1 else 1)))
        order = ["F32", "F16", "Q4_0", "Q4_1", "Q8_0", "Q6_K", "BF16"]
        put("dequant/" + kind.lower(), bytes([order.index(kind), i]) + raw)


def rows_seeds():
    rng = random.Random(3)
    put("run_rows/plain", bytes(rng.randrange(8, 40) for _ in range(3000)))
    put("run_rows/short", bytes(rng.randrange(8, 200) for _ in range(600)))


for make in [gguf_seeds, hf_seeds, text_seeds, table_seeds, rows_seeds, dequant_seeds]:
    make()
