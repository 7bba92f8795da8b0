# SPDX-License-Identifier: Apache-2.0
"""Makes the golden data of test_tokenizer.c with Hugging Face `tokenizers`.

  pip install gguf tokenizers
  python make_golden.py                          strings.txt, splits-*.txt, small-*.gguf and their ids-*.txt
  python make_golden.py --model MODEL.gguf NAME  ids-NAME.txt for the tokenizer of a real model

strings.txt: one text a line, as hexadecimal UTF-8. The other .txt files start with one comment line
and have one line for each of those texts:
  splits-PRE.txt  byte lengths of the pieces that the pre-tokenizer cuts the text into
  ids-NAME.txt    token ids, special tokens parsed; "-" where the vocabulary lacks a byte of the text
small-PRE.gguf: a tokenizer of 700 tokens trained on the strings; no tensors.
"""

import argparse
import os
import random

import gguf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import hf_tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
PRES = ["gpt-2", "smollm", "llama-bpe", "qwen2"]
SMALL_PRES = ["smollm", "llama-bpe"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n ", "\t", "\r\n", "\r\n\r\n  x", "a", " a", "a ", "  a  b   c    ",
    "Hello, world!", "hello world", "HELLO WORLD", "Hello   world", "The quick brown fox jumps over the lazy dog.",
    "I'm you're he'll they've we'd it's don't", "I'M YOU'RE HE'LL THEY'VE WE'D IT'S DON'T", "'s 't 're 've 'm 'll 'd",
    "''s x'sx 'S'T", "it\u2019s", "o'clock rock'n'roll", "x'\u017f \u017fs 'K",
    "0", "7", "42", "123", "1234", "12345", "123456789", "3.14159", "1,000,000", "-17", "1e-10", "0x1F", "v1.2.3",
    "2024-06-07T12:34:56Z", "1 2 3 4", "a1b2c3", "12abc", "abc12", " 12", "  12", "12 ", "year 1999 was", "abc 1 def",
    "\u00bd \u00be \u00b2 \u2460 \u2167 \u0663\u0664 \u096a\u096b", "x\u00b2+y\u00b2", "\u4e09\u5341\u56db",
    "def f(x):\n    return x + 1\n", "for (int i = 0; i < n; i++) {\n\ta[i] *= 2;\n}\n", "#include <stdio.h>\n",
    "if (a && b || !c) { x += y << 2; }", "<html><body>&nbsp;</body></html>", "SELECT * FROM t WHERE a >= 10;",
    "https://example.com/a/b?c=d&e=f#g", "user@example.com", "C:\\Users\\x\\y.txt", "/usr/local/bin", "a_b_c snake_case",
    "camelCase PascalCase kebab-case", "x->y::z", "$HOME ${PATH}", "`code` ```block```", "**bold** _it_ ~~no~~",
    "[1, 2, [3, 4]]", "{\"k\": [true, false, null]}", "\\n \\t \\\\", "...", "?!?!", "---", "=====", "((()))", "a...b",
    "\u00e9\u00e8\u00ea\u00eb na\u00efve caf\u00e9 \u00dcber stra\u00dfe", "e\u0301 combining a\u0300\u0301", "\u00c5ngstr\u00f6m \u00e6\u00f8\u00e5",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3002", "\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4.", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0", "\u1218\u120d\u12ab\u121d \u1240\u1295",
    "Ti\u1ebfng Vi\u1ec7t c\u00f3 d\u1ea5u", "T\u00fcrk\u00e7e \u0130stanbul \u0131", "\U0001d400\U0001d401 math", "\ufb01ligature \ufb02",
    "\U0001f600", "\U0001f600\U0001f601 \U0001f602", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", "\u2764\ufe0f", "hi \U0001f389 there",
    "\u00a0nbsp\u00a0\u00a0x", "\u2003em\u2003space", "\u3000\u5168\u89d2\u3000", "a\u0085b \u0085", "a\u180eb \u180e c", "zero\u200bwidth \u200b", "\ufeffBOM", "a\u2028b\u2029c", "a\x0bb\x0cc \x0b", "a\x1cb \x1f c",
    "a\x00b", "\x01\x02", "\x04", "\x7f", "tab\tsep\t\tx", "trail   \n", "\n\n\n   \n x", "   \n\n", "x\n\n\ny", "x \n \n y", "\n x", " \r\n\t\r\n",
    "a\rb\r\rc", "!\n!\n\n!", "word!\n\nnext", "?\r\n?", "x;\n}\n\n", "  // comment\n", "\t\tif:\n\t\t\tx\n", "    indented\n        more\n    back\n",
    "<|endoftext|>", "a<|endoftext|>b", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|im_start", "<|im_start|><|im_end|>",
    " <|im_end|> ", "<|<|im_end|>|>", "<|IM_END|>", "\u2014 \u2013 \u2026 \u201cquoted\u201d \u2018single\u2019 \u00abguillemets\u00bb", "\u20ac5 \u00a33 \u00a59 $7 50% \u00b110", "\u00a9\u00ae\u2122 \u00a7 \u00b6 \u2020",
    "\u2190\u2191\u2192\u2193 \u2200x\u2208\u211d", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ababababababababababababababab", " " * 70 + "x", "=" * 90, "\n" * 20,
    "antidisestablishmentarianism", "supercalifragilisticexpialidocious", "xyzzyqwertyuiop", "the the the the the the", "The capital of France is Paris.",
    "Once upon a time, there was a little girl named Lily. She loved to play with her toys.", "\U000e0041 tag", "\ue000 private", "\U0010ffff", "\U00050000", "\ufffd",
]

PARTS = [
    " ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000", "the", " the", "Hello", "world", "x", "Z", "ing", " and", "'s", "'ll", "'D", "'", "\"",
    "1", "23", "456", "7890", "\u00bd", "\u0664", ".", ",", "!", "?", "...", "(", ")", "{", "}", "=", "==", "->", "+", "#", "$", "@", "_", "-", "\u2014",
    "\u00e9", "\u00df", "\u041f\u0440", "\u4f60\u597d", "\u3042", "\ud55c", "\u0627", "\u05d0", "\u0928\u092e", "\u0e01\u0e34", "\U0001f600", "\U0001f468\u200d\U0001f469", "\u0301", "\u200b", "<|im_end|>", "<|", "|>",
]


def texts():
    rng = random.Random(7)
    out = list(TEXTS)
    while len(out) < 320:
        out.append("".join(rng.choice(PARTS) for _ in range(rng.randint(2, 14))))
    return out


def write_lines(name, comment, lines):
    with open(os.path.join(HERE, name), "w", encoding="ascii") as f:
        f.write(f"# {comment}; made by make_golden.py\n")
        f.writelines(line + "\n" for line in lines)


def write_ids(name, comment, tok, vocab):
    missing = {b for b, c in byte_alphabet().items() if c not in vocab}
    lines = []
    for text in texts():
        # Special tokens are no bytes: what is left around them must be in the vocabulary.
        plain = text
        for special in SPECIALS:
            plain = plain.replace(special, "")
        if missing & set(plain.encode()):
            lines.append("-")
        else:
            lines.append(" ".join(map(str, tok.encode(text, add_special_tokens=False).ids)))
    write_lines(f"ids-{name}.txt", comment, lines)


def byte_alphabet():
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    return {**{b: chr(b) for b in keep}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def train_small(pre):
    """A tokenizer small enough to keep: byte alphabet, 441 merges, three control tokens first."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = hf_tokenizer.pre_tokenizer(pre)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIALS, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tok.train_from_iterator(texts(), trainer)
    path = os.path.join(HERE, f"small-{pre}.gguf")
    vocab = sorted(tok.get_vocab().items(), key=lambda kv: kv[1])
    tokens = [t for t, _ in vocab]
    import json
    merges = [" ".join(m) if isinstance(m, list) else m for m in json.loads(tok.to_str())["model"]["merges"]]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t in SPECIALS else 1 for t in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", nargs=2, metavar=("GGUF", "NAME"))
    args = parser.parse_args()
    if args.model:
        path, name = args.model
        tok = hf_tokenizer.from_gguf(path)
        write_ids(name, f"token ids of {os.path.basename(path)}", tok, tok.get_vocab())
        return
    with open(os.path.join(HERE, "strings.txt"), "w", encoding="ascii") as f:
        f.write("# texts as hexadecimal UTF-8; made by make_golden.py\n")
        f.writelines(text.encode().hex() + "\n" for text in texts())
    for pre in PRES:
        split = hf_tokenizer.pre_tokenizer(pre)
        alphabet = set(byte_alphabet().values())
        lines = []
        for text in texts():
            pieces = [p for p, _ in split.pre_tokenize_str(text)]
            assert all(c in alphabet for p in pieces for c in p)
            lines.append(" ".join(str(len(p)) for p in pieces))  # one character a byte
        write_lines(f"splits-{pre}.txt", f"byte lengths of the pieces, {pre}", lines)
    for pre in SMALL_PRES:
        tok = hf_tokenizer.from_gguf(train_small(pre))
        write_ids(f"small-{pre}", f"token ids of small-{pre}.gguf", tok, tok.get_vocab())


if __name__ == "__main__":
    main()
