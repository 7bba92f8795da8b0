"""Further passes over the sampled corpus; both rewrite DIR/{train,heldout}.jsonl in place.

  refine.py rare DIR   drops texts with words hardly seen elsewhere (made-up and
                       misspelt ones are rare in the corpus as a whole), shuffles
  refine.py dull DIR   drops texts in which one longer word is too frequent
"""
import argparse
import json
import multiprocessing as mp
import random
from collections import Counter
from pathlib import Path

from clean import WORD

GOOD = set()


def _words(lines):
    count = Counter()
    for line in lines:
        count.update(set(WORD.findall(json.loads(line)["t"].lower())))
    return count


def _keep(lines):
    return [x for x in lines if all(w in GOOD for w in WORD.findall(json.loads(x)["t"].lower()))]


def _set_good(words):
    global GOOD
    GOOD = words


def _lively(lines):
    out = []
    for line in lines:
        words = WORD.findall(json.loads(line)["t"].lower())
        long = Counter(w for w in words if len(w) > 3)
        if not long or long.most_common(1)[0][1] <= max(4, 0.06 * len(words)):
            out.append(line)
    return out


def _chunks(lines, n=4000):
    return [lines[i:i + n] for i in range(0, len(lines), n)]


def read(folder):
    return {n: (folder / f"{n}.jsonl").read_text().splitlines() for n in ("train", "heldout")}


def write(folder, name, lines):
    (folder / f"{name}.jsonl").write_text("".join(x + "\n" for x in lines))
    return sum(len(json.loads(x)["t"]) for x in lines)


def rare(args):
    stats, lines = {"min_df": args.min_df}, read(args.dir)
    with mp.Pool() as pool:
        count = Counter()
        for part in pool.imap_unordered(_words, _chunks(lines["train"])):
            count.update(part)
    good = {w for w, c in count.items() if c >= args.min_df}
    stats |= {"words": len(count), "words kept": len(good)}
    with mp.Pool(initializer=_set_good, initargs=(good,)) as pool:
        for name, old in lines.items():
            new = [x for part in pool.imap(_keep, _chunks(old)) for x in part]
            random.Random(args.seed).shuffle(new)
            stats[name + " bytes"] = write(args.dir, name, new)
            stats[name + " texts"] = [len(old), len(new)]
    return stats


def dull(args):
    stats = {}
    with mp.Pool() as pool:
        for name, old in read(args.dir).items():
            new = [x for part in pool.imap(_lively, _chunks(old)) for x in part]
            stats[name + " bytes"] = write(args.dir, name, new)
            stats[name + " texts"] = [len(old), len(new)]
    return stats


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("rule", choices=("rare", "dull"))
    ap.add_argument("dir", type=Path)
    ap.add_argument("--min-df", type=int, default=8, help="rare: texts a word must occur in")
    ap.add_argument("--seed", type=int, default=5, help="rare: order of the texts written")
    args = ap.parse_args()
    stats = {"rare": rare, "dull": dull}[args.rule](args)
    (args.dir / f"refine_{args.rule}_stats.json").write_text(json.dumps(stats, indent=1))
    print(json.dumps(stats))


if __name__ == "__main__":
    main()
