# SPDX-License-Identifier: Apache-2.0
"""Makes the golden data of test_tokenizer_hf.c with Hugging Face `tokenizers`.

  pip install gguf tokenizers
  python make_hf.py                 parts.txt, hf-KIND/ (tokenizer.json and the files beside it), hf-KIND.bin, hf-llama2.gguf
  python make_hf.py --show KIND I   text I, its ids and what they decode to, for when the test names one

The 10,320 texts are those of strings.txt and 10,000 that both sides make: text I (from 0) is a function of
splitmix64 with the state SEED + I over the lines of parts.txt (see make_text, and make_text in the test). Bytes that are no UTF-8 are
replaced by U+FFFD as Python does, because Hugging Face takes text.

parts.txt: a comment line, then one part a line in hexadecimal, or "=FIRST LAST" for a range of code points.
hf-KIND.bin: for each text the low 32 bits of nx_hash (base/hash.h) over the ids (special tokens parsed, no BOS), as u32, then for
each the low 16 bits over the decoded bytes, as u16, little-endian.
"""

import argparse
import json
import os
import shutil

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import hf_tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 0x5EED
N_MADE = 10000
N_TRAIN = 2500
MASK = (1 << 64) - 1
MARK = "\u2581"

# Assigned in Unicode for long, so that no library's age shows.
RANGES = [
    (0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0x01, 0x1F), (0x7F, 0x9F), (0xA0, 0xFF), (0x100, 0x17F), (0x180, 0x233), (0x250, 0x2AD),
    (0x300, 0x34E), (0x391, 0x3A1), (0x3A3, 0x3CE), (0x400, 0x45F), (0x531, 0x556), (0x5D0, 0x5EA), (0x5B0, 0x5B9), (0x621, 0x63A), (0x641, 0x652),
    (0x660, 0x669), (0x905, 0x939), (0x93E, 0x94D), (0x958, 0x96F), (0x985, 0x98C), (0x9BE, 0x9C4), (0xB85, 0xB8A), (0xE01, 0xE3A), (0xE40, 0xE4E), (0x10D0, 0x10F0),
    (0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2), (0x1208, 0x1246), (0x1E00, 0x1E9B), (0x1EA0, 0x1EF9), (0x1F00, 0x1F15), (0x2000, 0x200F),
    (0x2010, 0x2027), (0x2028, 0x202F), (0x2070, 0x2071), (0x2080, 0x208E), (0x20A0, 0x20B1), (0x2100, 0x213A), (0x2153, 0x2183), (0x2190, 0x21F3), (0x2200, 0x22F1),
    (0x2460, 0x24EA), (0x2500, 0x257F), (0x2600, 0x2613), (0x3001, 0x303A), (0x3041, 0x3094), (0x30A1, 0x30FA), (0x3131, 0x318E), (0x4E00, 0x9FA5), (0x4E00, 0x4EFF), (0xAC00, 0xD7A3),
    (0xF900, 0xFA2D), (0xFB00, 0xFB06), (0xFF01, 0xFF5E), (0x10330, 0x1034A), (0x10400, 0x1044D), (0x1D400, 0x1D454), (0x1F600, 0x1F64F), (0x1F300, 0x1F320), (0x1F3FB, 0x1F3FF),
    (0x20000, 0x200FF), (0xE000, 0xE0FF),
]

WORDS = """the of and to in is you that it he was for on are as with his they I at be this have from or one had by word but not what all were we
when your can said there use an each which she do how their if will up other about out many then them these so some her would make like him into time has look two more
Once upon a time, there was little girl named Lily. Hello world Paris France capital don't I'M it's we'll THEY'VE rock'n'roll naïve café Straße Übermut İstanbul ılık
Привет мир как дела это тест Ελλάδα καλημέρα κόσμε שלום עולם مرحبا بالعالم हिन्दी नमस्ते दुनिया สวัสดีชาวโลก ภาษาไทย 你好 世界 今天天气很好 日本語 こんにちは カタカナ 한국어 안녕하세요 Việt Nam tiếng
გამარჯობა ሰላም Հայաստան বাংলা தமிழ் čeština Łódź žluťoučký kůň œuvre ŋaŋa""".split()

CODE = [
    "def f(x):\n    return x + 1\n", "for (int i = 0; i < n; i++) {\n\ta[i] *= 2;\n}\n", "#include <stdio.h>\n", "if (a && b || !c)", "x->y::z", "fn main() { println!(\"{}\", 1); }\n",
    "SELECT * FROM t WHERE a >= 10;", "<div class=\"x\">&nbsp;</div>", "import os\nimport sys\n\n\n", "lambda x: x**2", "std::vector<int>", "$HOME/${PATH}", "git commit -m 'x'", "0x1F", "1e-10", "3.14159",
    "public static void main(String[] args)", "=> {}", "/* c */", "// c\n", "\\frac{1}{2}", "{\"k\": [1, 2.5, null]}", "https://example.com/a/b?c=d&e=f#g", "a_b_c", "camelCase", "PascalCaseWord", "HTTPServer", "kebab-case-x",
]

MARKS = [
    " ", " ", " ", " ", "  ", "    ", "        ", "\n", "\n", "\n\n", "\r\n", "\t", "\t\t", " \n", "\n ", "\u00a0", "\u3000", "\u2003", "\u200b", "\u180e", "\ufeff", "\u0085", "\u2028", "\x0b", "\x0c", "\x1c", "\x00", "\x7f",
    ".", ",", "!", "?", "...", ";", ":", "(", ")", "[", "]", "{", "}", "=", "==", "+", "-", "--", "*", "/", "//", "#", "$", "@", "_", "'", "\"", "`", "|", "&", "~", "^", "<", ">", "\\", "%",
    "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "\u2019s", "\u2014", "\u2026", "\u20ac", "\u201c", "\u201d", "\u00ab", "\u3002", "\uff0c",
    "0", "1", "23", "456", "7890", "12345", "1234567890", "1,000", "2024-06-07", "\u00bd", "\u00b2", "\u0663\u0664", "\u096a\u096b", "\u2167", "\u4e09",
    "e\u0301", "a\u030a\u0301", "\u212b", "\u1e9b\u0323", "q\u0307\u0323", "\u0958", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u00c5", "\ufb01", "\u0301", "\u0344", "\u2126", "\uf900",
    "\U0001f600", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\u26f9\U0001f3fc\u200d\u2640\ufe0f",
    MARK, MARK + "a", MARK + MARK, "<0x0A>", "\ufffd",
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start|>user\n", "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<think>", "</think>", "<mask>", "<|im_", "<s", "[INST",
    " <mask> ", "  <pad>  ", "<sep>", "x<word>", " <word> ", "<word>", "\u00e9<word>", "<\u0438\u0306>", "<\u0439>",
]

BROKEN = [b"\xff", b"\xc0\x80", b"\xe4\xbd", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\x80\x80", b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", b"\xf8\x88\x80\x80\x80"]


def parts():
    out = [w.encode() for w in WORDS] + [(" " + w).encode() for w in WORDS] + [c.encode() for c in CODE]
    return out + [m.encode() for m in MARKS] * 2 + BROKEN


class Rng:
    """splitmix64, as base/rng.h."""

    def __init__(self, state):
        self.state = state & MASK

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
        return (z ^ (z >> 31)) % n


def make_text(i, all_parts):
    r = Rng(SEED + i)
    count, mode = 1 + r.below(24), r.below(16)
    if mode == 0:  # a very long word, or run
        part = all_parts[r.below(len(all_parts))]
        raw = (part * (1 + r.below(400)))[:1500]
    else:
        one = RANGES[r.below(len(RANGES))]
        raw = b""
        for _ in range(count):
            if mode == 1 or r.below(8) == 0:
                lo, hi = one if mode == 1 else RANGES[r.below(len(RANGES))]
                raw += chr(lo + r.below(hi - lo + 1)).encode()
            else:
                raw += all_parts[r.below(len(all_parts))]
    return raw.decode("utf-8", errors="replace")


def texts():
    with open(os.path.join(HERE, "strings.txt"), encoding="ascii") as f:
        out = [bytes.fromhex(line.strip()).decode() for line in list(f)[1:]]
    all_parts = parts()
    return out + [make_text(i, all_parts) for i in range(N_MADE)]


def nx_hash(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 & MASK
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    h = (h ^ (h >> 27)) * 0x94D049BB133111EB & MASK
    return h ^ (h >> 31)


# --- Tokenizers

TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK3 = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
             "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
             "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]


def special(*names):
    return [AddedToken(n, special=True, normalized=False) for n in names]


# Added tokens with every way of being looked for.
ODD = [AddedToken("<mask>", special=True, lstrip=True, normalized=False), AddedToken("<pad>", special=True, rstrip=True, normalized=False),
       AddedToken("<sep>", special=False, normalized=True), AddedToken("<word>", special=False, single_word=True, normalized=False),
       AddedToken("<\u0439>", special=False, normalized=True)]


def splits(*patterns):
    return [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns]


def bytes_only():
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def bos_first(bos, bos_id):
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, bos_id)])


def train_bytes(pre, specials, vocab=800, normalizer=None, ignore_merges=False):
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    if normalizer:
        tok.normalizer = normalizer
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=vocab, show_progress=False, special_tokens=[],
                                                         initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.add_special_tokens([t for t in specials if t.special])
    tok.add_tokens([t for t in specials if not t.special])
    return tok


def train_sentencepiece(vocab_size=900):
    """Vocabulary and scores as SentencePiece's BPE has them: special tokens, bytes, merges in order, characters."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="never")
    texts_without_nul = [t.replace("\0", "") for t in corpus()]  # no key of a JSON object, for jansson
    tok.train_from_iterator(texts_without_nul, trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, special_tokens=[], limit_alphabet=300))
    learned = sorted(tok.get_vocab().items(), key=lambda kv: kv[1])
    chars = [t for t, _ in learned if len(t) == 1]
    merged = [t for t, _ in learned if len(t) > 1 and t not in ("<s>", "</s>", "<unk>") and not t.startswith("<0x")]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + merged + chars
    scores = [0.0] * 259 + [-float(i) for i in range(len(merged) + len(chars))]
    types = [2, 3, 3] + [6] * 256 + [1] * (len(merged) + len(chars))
    return tokens, scores, types


def merges_of(tokens, scores):
    """Every way to make a token of two others, best score first: what conversion to tokenizer.json does."""
    ids = {t: i for i, t in enumerate(tokens)}
    out = []
    for t in tokens[259:]:
        ways = [(t[:i], t[i:]) for i in range(1, len(t)) if t[:i] in ids and t[i:] in ids]
        out += [(-scores[ids[t]], ids[a], ids[b], a, b) for a, b in ways]
    return [(a, b) for _, _, _, a, b in sorted(out)]


def sentencepiece(tokens, scores, legacy, specials, **options):
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges_of(tokens, scores), **options))
    if legacy:
        tok.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
        tok.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens([t for t in specials if t.special])
    tok.add_tokens([t for t in specials if not t.special])
    return tok


_corpus = None


def corpus():
    global _corpus
    if _corpus is None:
        _corpus = texts()[:N_TRAIN]
    return _corpus


def kinds():
    """name -> tokenizer, files beside tokenizer.json."""
    tokens, scores, types = train_sentencepiece()
    inst = special("<unk>", "<s>", "</s>")
    out = {}
    out["gpt2"] = train_bytes(pre_tokenizers.ByteLevel(add_prefix_space=False), special("<|endoftext|>") + ODD), {
        "tokenizer_config.json": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}}
    out["prefix"] = train_bytes(pre_tokenizers.ByteLevel(add_prefix_space=True), special("<s>", "</s>") + ODD, vocab=500), {}
    smollm = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    out["smollm"] = train_bytes(smollm, special("<|endoftext|>", "<|im_start|>", "<|im_end|>"), vocab=600), {
        "tokenizer_config.json": {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "add_bos_token": False}}
    split = hf_tokenizer.TIKTOKEN % r"\p{N}{1,3}"
    tok = train_bytes(pre_tokenizers.Sequence(splits(split) + [bytes_only()]),
                      special("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), ignore_merges=True)
    bos = tok.token_to_id("<|begin_of_text|>")
    tok.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), bos_first("<|begin_of_text|>", bos)])
    out["llama3"] = tok, {
        "tokenizer_config.json": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        "generation_config.json": {"bos_token_id": bos, "eos_token_id": [bos + 1, bos + 4]}}
    split = hf_tokenizer.TIKTOKEN % r"\p{N}"
    qwen = special("<|endoftext|>", "<|im_start|>", "<|im_end|>") + [AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)]
    tok = train_bytes(pre_tokenizers.Sequence(splits(split) + [bytes_only()]), qwen + ODD, normalizer=normalizers.NFC())
    out["qwen2"] = tok, {
        "tokenizer_config.json": {"bos_token": None, "eos_token": {"content": "<|im_end|>"}, "add_bos_token": False},
        "generation_config.json": {"eos_token_id": tok.token_to_id("<|im_end|>")}}
    out["tekken"] = train_bytes(pre_tokenizers.Sequence(splits(TEKKEN) + [bytes_only()]), special("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), vocab=600,
                                ignore_merges=True), {"special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>"}}
    out["deepseek3"] = train_bytes(pre_tokenizers.Sequence(splits(*DEEPSEEK3) + [bytes_only()]), special("<s>", "</s>"), vocab=500), {}
    tok = sentencepiece(tokens, scores, True, inst + ODD, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tok.post_processor = bos_first("<s>", 1)
    out["llama2"] = tok, {"tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}, "config.json": {"eos_token_id": 2}}
    tok = sentencepiece(tokens, scores, False, inst + special("[INST]", "[/INST]") + ODD, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="first", split=False)
    tok.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    out["mistral"] = tok, {}
    tok = sentencepiece(tokens, scores, False, inst, unk_token="<unk>", fuse_unk=False, byte_fallback=False)
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always", split=True)
    tok.decoder = decoders.Metaspace(replacement=MARK, prepend_scheme="always", split=True)
    out["metaspace"] = tok, {}
    return out, (tokens, scores, types)


def write_gguf(path, tokens, scores, types):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--show", nargs=2, metavar=("KIND", "I"))
    args = parser.parse_args()
    if args.show:
        kind, i = args.show[0], int(args.show[1])
        tok = Tokenizer.from_file(os.path.join(HERE, f"hf-{kind}", "tokenizer.json"))
        text = texts()[i]
        e = tok.encode(text, add_special_tokens=False)
        print(repr(text), text.encode().hex(), list(zip(e.ids, e.tokens)), repr(tok.decode(e.ids, skip_special_tokens=False)), sep="\n")
        return
    with open(os.path.join(HERE, "parts.txt"), "w", encoding="ascii") as f:
        f.write("# parts of texts as hexadecimal bytes, =FIRST LAST ranges of code points; made by make_hf.py\n")
        f.writelines(p.hex() + "\n" for p in parts())
        f.writelines(f"={lo:x} {hi:x}\n" for lo, hi in RANGES)
    made, (tokens, scores, types) = kinds()
    all_texts = texts()
    for kind, (tok, files) in made.items():
        folder = os.path.join(HERE, f"hf-{kind}")
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        data = json.loads(tok.to_str())
        if kind == "gpt2":  # the older spelling of merges
            data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(data, f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        for name, data in files.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
                json.dump(data, f, indent=1)
                f.write("\n")
        tok = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        ids, decoded = b"", b""
        for text in all_texts:
            e = tok.encode(text, add_special_tokens=False).ids
            ids += (nx_hash(b"".join(i.to_bytes(4, "little") for i in e)) & 0xFFFFFFFF).to_bytes(4, "little")
            decoded += (nx_hash(tok.decode(e, skip_special_tokens=False).encode()) & 0xFFFF).to_bytes(2, "little")
        with open(os.path.join(HERE, f"hf-{kind}.bin"), "wb") as f:
            f.write(ids + decoded)
        print(kind, tok.get_vocab_size(), "tokens")
    write_gguf(os.path.join(HERE, "hf-llama2.gguf"), tokens, scores, types)


if __name__ == "__main__":
    main()
