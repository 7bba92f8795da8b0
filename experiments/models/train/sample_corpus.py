"""Samples a corpus of short English texts from a teacher model in GGUF form.

Writes one JSON object a line, {"k": kind, "t": text}, to OUT/train.jsonl and
OUT/heldout.jsonl, and the counts to OUT/sample_stats.json.
"""
import argparse
import json
import multiprocessing as mp
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import clean
from gguf_io import GGUFReader
from prompts import Grammar

PREFIX = ("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
          "<|im_end|>\n<|im_start|>user\n")
# wished lengths in teacher tokens
WISH = {"story": (90, 380), "explain": (60, 180), "answer": (25, 100), "howto": (70, 200),
        "letter": (70, 220), "dialogue": (80, 250), "scene": (60, 180), "diary": (70, 220)}
MIDDLE = "<|im_end|>\n<|im_start|>assistant\n"
BANNED = set("*#`|<>{}[]()_=\\@~^")
GLUE = set("""the a an and or but of to in on at for with from by as is was were are be been it its he she they
his her him them their I you we my your our that this so had has have not no said who what when . , ! ? " ' : ; -
's 't n't ." ," ?" !" up down out then there all one into would could did do does like if how""".split())


def teacher_tokenizer(kv):
    tokens = kv["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ", 1)) for m in kv["tokenizer.ggml.merges"]]
    tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    kinds = kv["tokenizer.ggml.token_type"]
    tok.add_special_tokens([AddedToken(t, special=True) for t, k in zip(tokens, kinds) if k == 3])
    return tok


def allowed_tokens(tok, kv):
    """Tokens of plain printable ASCII without markup, and the end of a turn."""
    ok = np.zeros(len(kv["tokenizer.ggml.tokens"]), dtype=bool)
    for i in range(len(ok)):
        text = tok.decode([i], skip_special_tokens=False)
        ok[i] = (text.isascii() and bool(text) and not BANNED & set(text)
                 and all(c.isprintable() or c == "\n" for c in text))
    ok[[i for i, k in enumerate(kv["tokenizer.ggml.token_type"]) if k == 3]] = False
    ok[kv["tokenizer.ggml.eos_token_id"]] = True
    return ok


def token_sets(tok, size):
    """Ids that end a sentence, of the commonest words and signs, of word insides, of line ends."""
    texts = [tok.decode([i], skip_special_tokens=False) for i in range(size)]
    ends = [i for i, t in enumerate(texts) if t.strip() in (".", "!", "?", ".\"", "!\"", "?\"", ".'")]
    glue = [i for i, t in enumerate(texts) if t.strip().lower() in GLUE or not t.strip()]
    inner = [i for i, t in enumerate(texts) if t[:1].isalpha()]
    line = [i for i, t in enumerate(texts) if "\n" in t]
    return ends, glue, inner, line


def writer(queue, kv, out, held_share):
    """Decodes, filters and writes in a process of its own."""
    tok, seen, count = teacher_tokenizer(kv), set(), Counter()
    files = {name: open(out / f"{name}.jsonl", "w") for name in ("train", "heldout", "dropped")}
    while (item := queue.get()) is not None:
        kinds, openings, ids, ended = item
        for kind, opening, tail, end in zip(kinds, openings, tok.decode_batch(ids), ended):
            count["drawn"] += 1
            text = clean.tidy(opening + tail)
            why = None if end else "length"
            why = why or clean.reject(kind, text)
            key = clean.digest(text)
            if why is None and key in seen:
                why = "duplicate"
            if why:
                count["dropped " + why] += 1
                if count["dropped " + why] <= 20:  # a look at what each rule drops
                    files["dropped"].write(json.dumps({"why": why, "k": kind, "t": text}) + "\n")
                continue
            seen.add(key)
            name = "heldout" if clean.held_out(text, held_share) else "train"
            count[name + " texts"] += 1
            count[name + " bytes"] += len(text)
            count["kind " + kind] += 1
            files[name].write(json.dumps({"k": kind, "t": text}) + "\n")
    for f in files.values():
        f.close()
    (out / "sample_stats.json").write_text(json.dumps(dict(sorted(count.items())), indent=1))


class PromptSource:
    def __init__(self, tok, seed, limit):
        self.tok, self.grammar, self.limit = tok, Grammar(seed), limit
        self.rng, self.ready = random.Random(seed + 1), []

    def top_up(self, n):
        while len(self.ready) < n:
            drawn = [self.grammar.draw() for _ in range(256)]
            heads = self.tok.encode_batch([PREFIX + u + MIDDLE for _, u, _ in drawn])
            tails = self.tok.encode_batch([o for _, _, o in drawn])
            for (kind, _, opening), head, tail in zip(drawn, heads, tails):
                if len(head) + len(tail) < self.limit:
                    self.ready.append((kind, opening, head.ids + tail.ids, self.rng.uniform(0.5, 0.85),
                                       len(head), self.rng.randint(*WISH[kind])))

    def take(self, n):
        self.top_up(n)
        out, self.ready = self.ready[:n], self.ready[n:]
        return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--teacher", required=True, help="GGUF file of the teacher")
    ap.add_argument("--out", required=True, type=Path)
    ap.add_argument("--seconds", type=float, default=300, help="sampling time after the warm-up")
    ap.add_argument("--batch", type=int, default=4096)
    ap.add_argument("--max-len", type=int, default=640, help="prompt and text, teacher tokens")
    ap.add_argument("--min-p", type=float, default=0.1)
    ap.add_argument("--every", type=int, default=16, help="steps between refills")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--held-out", type=float, default=0.01)
    ap.add_argument("--device", default="cuda")
    ap.add_argument("--random-weights", action="store_true", help="speed test without the weights")
    args = ap.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    begin = time.time()
    kv = GGUFReader(args.teacher).kv
    tok = teacher_tokenizer(kv)
    queue = mp.get_context("fork").Queue(maxsize=64)
    proc = mp.get_context("fork").Process(target=writer, args=(queue, kv, args.out, args.held_out))
    proc.start()

    import torch
    from teacher import Teacher
    torch.manual_seed(args.seed)
    ends, glue, inner, line = token_sets(tok, len(kv["tokenizer.ggml.tokens"]))
    teacher = Teacher(args.teacher, args.batch, args.max_len, args.device, allowed_tokens(tok, kv),
                      args.min_p, args.random_weights, ends)
    teacher.glue[glue], teacher.inner[inner], teacher.line[line] = True, True, True
    teacher.seed.fill_(args.seed * 1_000_003)
    teacher.prepare()
    shared = len(tok.encode(PREFIX).ids)
    source = PromptSource(tok, args.seed, args.max_len // 2)
    info = {}

    def refill(slots, start):
        items = source.take(len(slots))
        for slot, item in zip(slots, items):
            info[int(slot)] = item[:2]
        _, _, ids, temps, begins, wishes = zip(*items)
        teacher.fill(slots, ids, temps, begins, wishes, start)

    refill(np.arange(args.batch), 0)
    print(f"ready after {time.time() - begin:.1f} s; prefix {shared} tokens", flush=True)
    start, made, steps, last = time.time(), 0, 0, 0
    while time.time() - start < args.seconds:
        teacher.run(args.every)
        steps += args.every
        source.top_up(min(1024, args.batch))  # the device is still at work
        slots, rows, plen, end = teacher.finished()
        if len(slots):
            ids = [r[p:e].tolist() for r, p, e in zip(rows, plen, end)]
            ended = [bool(r[e] == teacher.eos) for r, e in zip(rows, end)]
            made += sum(len(i) for i in ids)
            kinds, openings = zip(*(info[int(s)] for s in slots))
            queue.put((kinds, openings, ids, ended))
            refill(slots, shared)
        if time.time() - start > last + 20:
            last = time.time() - start
            print(f"{last:6.0f} s  {steps} steps  {1e3 * last / steps:.2f} ms/step  "
                  f"{made / 1e6:.2f} M new tokens  {made / last / 1e3:.0f} k/s", flush=True)
    took = time.time() - start
    queue.put(None)
    proc.join()
    stats = json.loads((args.out / "sample_stats.json").read_text())
    stats |= {"new teacher tokens": made, "seconds": round(took, 1), "steps": steps,
              "seed": args.seed, "batch": args.batch, "min_p": args.min_p, "max_len": args.max_len}
    (args.out / "sample_stats.json").write_text(json.dumps(stats, indent=1))
    print(json.dumps(stats))


if __name__ == "__main__":
    main()
