# SPDX-License-Identifier: Apache-2.0
"""Builds a Hugging Face `tokenizers` object from the metadata of a GGUF file: the independent
tokenizer that golden data and oracle are made with. Needs: pip install gguf tokenizers."""

from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

TIKTOKEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def pre_tokenizer(name):
    """The pre-tokenizers of the tokenizer.json files that the names in GGUF stand for."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if name in ("gpt-2", "default"):
        return byte_level
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    digits = {"llama-bpe": r"\p{N}{1,3}", "qwen2": r"\p{N}"}[name]
    split = pre_tokenizers.Split(Regex(TIKTOKEN % digits), behavior="isolated")
    return pre_tokenizers.Sequence([split, bytes_only])


def from_fields(tokens, types, merges, pre):
    vocab = {}
    for i, token in enumerate(tokens):
        vocab.setdefault(token, i)
    model = models.BPE(vocab=vocab, merges=[tuple(m.split(" ", 1)) for m in merges],
                       ignore_merges=pre == "llama-bpe")
    tok = Tokenizer(model)
    tok.pre_tokenizer = pre_tokenizer(pre)
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False)
                            for t, kind in zip(tokens, types) if kind == 3])
    tok.add_tokens([AddedToken(t, normalized=False) for t, kind in zip(tokens, types) if kind == 4])
    return tok


def from_gguf(path, pre=None):
    """The tokenizer of a GGUF file; pre overrides tokenizer.ggml.pre."""
    fields = GGUFReader(path).fields

    def get(key, default=None):
        return fields["tokenizer.ggml." + key].contents() if "tokenizer.ggml." + key in fields else default

    if get("model") != "gpt2":
        raise SystemExit(f"{path}: tokenizer.ggml.model is {get('model')!r}; legal: 'gpt2'")
    tokens = get("tokens")
    return from_fields(tokens, get("token_type", [1] * len(tokens)), get("merges"),
                       pre or get("pre", "default"))
