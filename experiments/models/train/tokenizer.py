"""Trains the byte-level BPE tokenizer and encodes a corpus with it.

  tokenizer.py train  --corpus train.jsonl --out tokenizer.json
  tokenizer.py encode --corpus train.jsonl --tokenizer tokenizer.json --out train.bin

Ids: 0 <|endoftext|> (begin and end of text), 1 <|pad|>, 2..257 the bytes,
then the merges. The pre-tokenizer is GPT-2's pattern; nothing is normalised.
The encoded stream is uint16: <|endoftext|> text <|endoftext|> text ... where
a share of the entries are several texts joined by a blank line.
"""
import argparse
import json
import random

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EOT, PAD = "<|endoftext|>", "<|pad|>"


def read_texts(path, limit=None):
    with open(path) as f:
        for line in f:
            text = json.loads(line)["t"]
            yield text
            if limit is not None:
                limit -= len(text)
                if limit <= 0:
                    return


def train(args):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=args.vocab, special_tokens=[EOT, PAD], min_frequency=2,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    tok.train_from_iterator(read_texts(args.corpus, args.sample_bytes), trainer)
    tok.save(args.out)
    print(f"{tok.get_vocab_size()} entries")


def join_some(texts, share, most, rng):
    """Passes texts on, a share of them in groups of 2..most joined by a blank line."""
    group, wanted = [], 1
    for text in texts:
        if not group:
            wanted = rng.randint(2, most) if rng.random() < share else 1
        group.append(text)
        if len(group) == wanted:
            yield "\n\n".join(group)
            group = []
    if group:
        yield "\n\n".join(group)


def encode(args):
    tok = Tokenizer.from_file(args.tokenizer)
    eot, rng = tok.token_to_id(EOT), random.Random(args.seed)
    parts, batch, n_bytes = [np.array([eot], np.uint16)], [], 0

    def flush():
        for enc in tok.encode_batch_fast(batch, add_special_tokens=False):
            parts.append(np.array(enc.ids + [eot], np.uint16))
        batch.clear()

    for text in join_some(read_texts(args.corpus), args.join_share, args.join_most, rng):
        batch.append(text)
        n_bytes += len(text.encode())
        if len(batch) == 8192:
            flush()
    flush()
    stream = np.concatenate(parts)
    stream.tofile(args.out)
    info = {"tokens": int(stream.size), "entries": len(parts) - 1, "bytes": n_bytes}
    with open(str(args.out) + ".json", "w") as f:
        json.dump(info, f)
    print(f"{args.out}: {info}, {n_bytes / stream.size:.3f} bytes a token")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(required=True)
    t = sub.add_parser("train", help="train a tokenizer")
    t.add_argument("--corpus", required=True)
    t.add_argument("--out", required=True)
    t.add_argument("--vocab", type=int, default=4096)
    t.add_argument("--sample-bytes", type=int, default=80_000_000)
    t.set_defaults(run=train)
    e = sub.add_parser("encode", help="encode a corpus to a token stream")
    e.add_argument("--corpus", required=True)
    e.add_argument("--tokenizer", required=True)
    e.add_argument("--out", required=True)
    e.add_argument("--join-share", type=float, default=0.25, help="share of entries that are joined texts")
    e.add_argument("--join-most", type=int, default=12)
    e.add_argument("--seed", type=int, default=7)
    e.set_defaults(run=encode)
    args = ap.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
