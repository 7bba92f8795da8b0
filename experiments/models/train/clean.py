"""Text rules of the corpus: what is kept, and the held-out split."""
import hashlib
import re
from collections import Counter

BAD = re.compile(
    r"as an ai|language model|smollm|hugging ?face|i'm sorry, but|i cannot|i can't assist|"
    r"here is a|here's a (?:short|simple|story)|in this story|this story|the story (?:is|shows|ends|has)|"
    r"the words? \"|use the word|simple words|assistant|the user|http|www\.|the dialogue|"
    r"in this letter|this letter is|postscript|in this scene|this dialogue|"
    r"\b(?:guns?|kill\w*|suicid\w*|sex\w*|drugs?|murder\w*|rap(?:e|ed|ist)|naked|bombs?|terroris\w*|"
    r"corpse|blood\w*|nazi\w*|porn\w*)\b|"
    r"\[|\]|lorem|copyright|the narrator|the reader|the author|\bprompt\b", re.I)
SENTENCE = re.compile(r"[^.!?\n]+[.!?]")
WORD = re.compile(r"[a-z']+")
MIN_CHARS = {"answer": 70, "explain": 120, "scene": 150, "dialogue": 120}


def reject(kind, text):
    """None when the text is kept, else a short name of the rule it breaks."""
    if len(text) < MIN_CHARS.get(kind, 200):
        return "short"
    if not text.isascii():
        return "non-ascii"
    if BAD.search(text):
        return "meta"
    if kind != "letter" and text[-1] not in ".!?\"":
        return "ending"
    if kind == "letter" and len(text.rsplit("\n", 1)[-1]) > 60 and text[-1] not in ".!?":
        return "ending"
    if kind == "dialogue":
        lines = [x for x in text.split("\n") if x]
        names = {x.split(":")[0] for x in lines if ":" in x[:20]}
        if len(lines) < 3 or len(names) != 2 or sum(":" in x[:20] for x in lines) < 0.8 * len(lines):
            return "dialogue"
    words = WORD.findall(text.lower())
    if len(words) < 13:
        return "short"
    grams = Counter(zip(words, words[1:], words[2:]))
    total = sum(grams.values())
    if total and len(grams) / total < 0.80:
        return "repetition"
    if grams and grams.most_common(1)[0][1] > 3 + total // 100:
        return "repetition"
    sentences = Counter(s.strip().lower() for s in SENTENCE.findall(text) if len(s) > 20)
    if sentences and sentences.most_common(1)[0][1] > 1:
        return "repetition"
    if any(a == b == c for a, b, c in zip(words, words[1:], words[2:])):
        return "repetition"
    if text.count('"') % 2:
        return "quotes"
    return None


def tidy(text):
    """Trailing blanks off each line, at most one blank line in a row."""
    text = "\n".join(line.rstrip() for line in text.strip().split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text)


def digest(text):
    """Hash of the words alone: texts equal but for spacing or case count as one."""
    return hashlib.blake2b(" ".join(WORD.findall(text.lower())).encode(), digest_size=8).digest()


def held_out(text, share):
    """A stable choice by hash, so that the split survives a re-run."""
    h = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return h < share * 2 ** 32
