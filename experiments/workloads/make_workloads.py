"""Builds stories.jsonl and chat.jsonl from the held-out split of the nano corpus, and trace.csv from nothing."""
import argparse
import json
import random
from pathlib import Path

QUESTIONS = """Why is the sky blue?|How do vaccines work?|What is the difference between a virus and a bacterium?
What causes the seasons?|How does a refrigerator keep food cold?|What is inflation, and whom does it hurt?
Why do ships float although they are made of steel?|How does a bill become a law?|What is photosynthesis?
What should I think about before I adopt a dog?|How can I sleep better at night?|What is a black hole?
Name five uses of a lemon in the kitchen.|Which is heavier, a kilogram of feathers or a kilogram of iron, and why?
How do noise-cancelling headphones work?|What is the water cycle?|Give three tips for a good job interview.
How did people tell the time before clocks?|What makes bread rise?|Why do we have leap years?""".replace("\n", "|").split("|")

CODE = """a Python function that checks whether a string is a palindrome
a C function that reverses a singly linked list|a Python function that returns the n-th Fibonacci number
an SQL query that finds the three customers with the most orders
a JavaScript function that removes duplicates from an array|a shell one-liner that counts the lines of all .c files
a Python class for a stack with push, pop and peek|a C program that counts the words of its standard input
a Python function that merges two sorted lists|a regular expression for an ISO 8601 date, with an explanation
a Rust function that sums the even numbers of a slice|an HTML form with a name, an e-mail field and a button
a Python script that renames all .jpeg files of a folder to .jpg|a binary search in C over an array of int""".replace("\n", "|").split("|")

WRITE = """a short poem about the first snow|a polite e-mail that asks for a day off
a story of ten sentences about a lighthouse keeper|a product description of a wooden chair
a limerick about a cat that hates Mondays|a toast for the wedding of two old friends
a notice that asks neighbours to keep the stairs free|a packing list for three days in the mountains
a dialogue between a baker and a customer who wants the last loaf|a short speech for the opening of a library
a weekly plan for learning to play the guitar|a recipe for lentil soup for four people""".replace("\n", "|").split("|")

REWRITE = """hey, cant come to the meeting tmrw, my kid is sick, can we do it friday maybe?
The utilisation of the aforementioned device should be discontinued in the event of the occurrence of overheating.
I goed to the shop yesterday and buyed three apple, but they was not fresh and I bringed they back.
We regret to inform you that your application has not been successful on this occasion.
Our new phone is good. It has a good screen. The battery is good too. You should buy it.
The experiment was done by us and it was found that the plants that got more light were the ones that grew more.
Sorry for late reply I was on holiday, the report is nearly ready, I send it until Monday.
This movie was bad, the plot made no sense and the actors were bored.""".split("\n")
HOW = ["in a formal tone", "in plain English", "with the errors corrected", "in half the words",
       "as a friendly message", "as a bullet list"]

TALKS = [
    ("I want to grow tomatoes on my balcony.", "That is a good idea. How much sun does the balcony get each day?",
     "About six hours, from the south. Which pots and what soil do I need?"),
    ("What is the capital of Australia?", "The capital of Australia is Canberra.",
     "Why is it not Sydney? Tell me how it was chosen."),
    ("Can you help me plan a birthday party for my daughter? She is seven.",
     "Of course. How many children will come, and will it be indoors or outdoors?",
     "Ten children, in the garden. Give me three games and a simple menu."),
    ("Explain recursion to me.", "Recursion is when a function calls itself on a smaller part of the problem until it is trivial.",
     "Show me an example in Python and say what happens step by step."),
    ("My bicycle makes a clicking noise.", "Does it click when you pedal, when you brake, or all the time?",
     "Only when I pedal hard. What could it be and how do I check it?"),
    ("Tell me a riddle.", "What has hands but cannot clap?", "A clock! Give me two more, harder ones, with their answers."),
    ("I feel tired every afternoon.", "How long do you sleep, and what do you usually eat for lunch?",
     "Seven hours, and mostly pasta. What should I change first?"),
    ("What is a mortgage?", "A mortgage is a loan for buying a house, with the house itself as the security.",
     "What is the difference between a fixed and a variable rate?"),
    ("Translate 'good morning' into French.", "'Good morning' in French is 'bonjour'.",
     "And how do I say 'see you tomorrow' and 'thank you very much'?"),
    ("Is it better to learn the piano or the guitar first?", "Both are good. What kind of music do you like most?",
     "Folk songs, to sing along. Recommend one and make a plan for the first month."),
    ("How far is the Moon?", "The Moon is on average about 384,400 kilometres from the Earth.",
     "How long would it take to drive there at 100 kilometres an hour? Show the arithmetic."),
    ("I have eggs, rice and an onion.", "You could make fried rice or an omelette. Do you have oil and salt?",
     "Yes, and soy sauce. Write the recipe for fried rice in short steps."),
]
FOLLOW = ["Say that again in three sentences for a ten-year-old.", "Now give an example from daily life.",
          "What is the most common mistake people make here?", "Make it shorter."]
LONG_TASKS = ["Summarise the following text in three sentences.", "List the main points of this text as bullets.",
              "Give this text a title and write a summary of about fifty words.",
              "Rewrite the following text in the past tense and in fewer words.",
              "Who appears in the text below, and what does each of them want?",
              "Find anything in this text that does not make sense and explain why.",
              "Write five questions a teacher could ask about this text.",
              "Continue the following text with two more paragraphs in the same style."]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def stories(texts, tok, count, least, rng):
    """Several stories, a blank line between, until each entry has `least` tokens."""
    pool, out = [t for k, t in texts if k == "story"], []
    rng.shuffle(pool)
    while len(out) < count:
        group, size = [], 0
        while size < least:
            group.append(pool.pop())
            size = len(tok.encode("\n\n".join(group)).ids)
        out.append({"text": "\n\n".join(group)})
    return out, pool


def chats(texts, left, rng):
    out = [[user(q)] for q in QUESTIONS]
    out += [[user(f"Write {c}.")] for c in CODE]
    out += [[user(f"Write {w}.")] for w in WRITE]
    out += [[user(f"Rewrite this text {HOW[i % len(HOW)]}:\n\n{t}")] for i, t in enumerate(REWRITE)]
    for i, (a, b, c) in enumerate(TALKS):
        out.append([user(a), assistant(b), user(c)])
        if i % 2 == 0:
            extra = "Good question. Here is the short version: start small, check the result, then go on."
            out.append([user(a), assistant(b), user(c), assistant(extra), user(FOLLOW[i // 2 % len(FOLLOW)])])
    plain = [t for k, t in texts if k in ("explain", "howto", "scene", "diary", "letter")]
    rng.shuffle(plain)
    for i in range(44):
        wanted, source, parts = 300 + 600 * i // 43, (left if i % 2 else plain), []
        while sum(len(p.split()) for p in parts) < wanted:
            parts.append(source.pop())
        passage = " ".join("\n\n".join(parts).split(" ")[:900])
        task = LONG_TASKS[i % len(LONG_TASKS)]
        if i % 5 == 4:
            out.append([user("I will send you a text and then ask about it.\n\n" + passage),
                        assistant("Thank you, I have read it. What would you like to know?"), user(task)])
        else:
            out.append([user(f"{task}\n\n{passage}")])
    rng.shuffle(out)
    return [{"turns": turns} for turns in out]


def trace(count, rng):
    """Requests of a made-up service: quiet and busy times, short questions with long answers and long texts
    with short ones. Arrivals are Poisson at a rate that switches; lengths log-normal."""
    now, busy, left, rows = 0.0, False, 20.0, []
    while len(rows) < count:
        step = rng.expovariate(6.0 if busy else 1.0)
        if step >= left:
            now, busy = now + left, not busy
            left = rng.expovariate(1 / 8) if busy else rng.expovariate(1 / 25)
            continue
        now, left = now + step, left - step
        question = rng.random() < 0.7
        prompt = rng.lognormvariate(4.6, 0.7) if question else rng.lognormvariate(6.4, 0.5)
        answer = rng.lognormvariate(4.2, 0.8) if question else rng.lognormvariate(2.9, 0.6)
        rows.append((now, min(max(round(prompt), 8), 2048), min(max(round(answer), 2), 512)))
    return rows


def save_trace(path, rows):
    first = rows[0][0]
    lines = [f"{t - first:.3f},{i},{o}" for t, i, o in rows]
    path.write_text("timestamp,input_length,output_length\n" + "\n".join(lines) + "\n")
    print(f"{path.name}: {len(rows)} rows, {path.stat().st_size:,} bytes")


def save(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    print(f"{path.name}: {len(rows)} lines, {path.stat().st_size:,} bytes")


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--heldout", help="heldout.jsonl of the corpus; without it trace.csv alone is built")
    ap.add_argument("--tokenizer", help="tokenizer.json of nano")
    ap.add_argument("--out", type=Path, default=Path(__file__).parent)
    ap.add_argument("--stories", type=int, default=200)
    ap.add_argument("--least", type=int, default=1210, help="nano tokens an entry of stories.jsonl has")
    ap.add_argument("--seed", type=int, default=3)
    ap.add_argument("--rows", type=int, default=512, help="rows of trace.csv")
    args = ap.parse_args()
    save_trace(args.out / "trace.csv", trace(args.rows, random.Random(args.seed)))
    if not args.heldout:
        return
    from tokenizers import Tokenizer
    rng, tok = random.Random(args.seed), Tokenizer.from_file(args.tokenizer)
    texts = [(r["k"], r["t"]) for r in map(json.loads, open(args.heldout))]
    rows, left = stories(texts, tok, args.stories, args.least, rng)
    save(args.out / "stories.jsonl", rows)
    save(args.out / "chat.jsonl", chats(texts, left, rng))


if __name__ == "__main__":
    main()
