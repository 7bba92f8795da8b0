"""The prompt grammar: seeded random requests for short, simple English texts.

Each request is (kind, user text, opening). The opening is put in the mouth
of the assistant, so it is the start of the document that comes out.
"""
import random

import words as w

KINDS = {"story": 56, "explain": 8, "answer": 9, "howto": 6, "letter": 5,
         "dialogue": 7, "scene": 4, "diary": 5}
MASS = set("bread cheese milk honey soup sugar salt rain snow wind fire ice sand sun moon paint thread "
           "treasure".split())  # no article before these
COUNT = [n for n in w.NOUNS if n not in MASS]
LENGTHS = ["very short", "short", "short", "", "", "long"]


def _article(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _cap(text):
    return text[0].upper() + text[1:]


class Grammar:
    """Draws requests; the same seed gives the same sequence."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.kinds, self.weights = zip(*KINDS.items())

    def draw(self):
        kind = self.rng.choices(self.kinds, self.weights)[0]
        user, opening = getattr(self, "_" + kind)()
        return kind, user, opening

    def _pick(self, items):
        return self.rng.choice(items)

    def _hero(self):
        """(name or None, full phrase with article) of a main character."""
        adj = self._pick(w.ADJECTIVES)
        being = self._pick(w.ANIMALS if self.rng.random() < 0.45 else w.ROLES)
        return self._pick(w.NAMES), _article(f"{adj} {being}"), being

    def _story(self):
        r, pick = self.rng, self._pick
        name, phrase, being = self._hero()
        place, time = pick(w.PLACES), pick(w.TIMES)
        nouns = [pick(COUNT)]
        length = pick(LENGTHS)
        thing = _article(nouns[0])
        user = f"Write {_article((length + ' story').strip())} for children about {phrase} named {name}"
        user += pick([f" who finds {thing}", f" who loses {thing}", f" who wants {thing}", f" and {thing}",
                      f" who lives {place}", f" who wants to {pick(w.VERBS)}", f" who likes to {pick(w.VERBS)}",
                      f" and {_article(pick(w.ANIMALS))} named {pick(w.NAMES)}", ""]) + "."
        extra = r.random()
        if extra < 0.25:
            user += f" The story has {pick(w.FEATURES)}."
        elif extra < 0.4:
            user += f" It shows that {pick(w.LESSONS)}."
        elif extra < 0.5:
            user += f" Use the words {nouns[0]} and {pick(w.NOUNS)}."
        elif extra < 0.65:
            user += " Use simple words."
        opening = pick([
            f"Once upon a time, there was {phrase} named {name}.",
            f"Once there was {phrase} called {name} who lived {place}.",
            f"{_cap(place)}, there lived {phrase} named {name}.",
            f"{name} was {phrase}.",
            f"{name} was {phrase} who lived {place}.",
            f"{time}, {name} found {_article(nouns[0])}.",
            f"{time}, {name} the {being} woke up and looked outside.",
            f"{time}, {name} felt {pick(w.FEELINGS)}.",
            f"{name} had {_article(nouns[0])}.",
            f"{name} wanted to {pick(w.VERBS)}.",
            f"{name} the {being} could not",
            f"There was once {_article(nouns[0])}",
            f"Nobody knew why {name}",
            f"\"Where is my {nouns[0]}?\" asked {name}.",
            f"\"Look!\" said {name}.",
            f"{time},",
            f"The {being}",
            f"Everyone {place} knew {name}.",
            f"It was",
            f"{name}",
        ])
        return user.strip(), opening

    def _explain(self):
        thing = self._pick(w.THINGS)
        style = self._pick(["in simple words", "to a child", "in one short paragraph",
                            "in a few plain sentences", "in two short paragraphs"])
        user = self._pick([f"Explain {thing} {style}.", f"Describe {thing} {style}.",
                           f"What should I know about {thing}? Tell me {style}."])
        opening = self._pick([_cap(thing), _cap(thing), f"When we talk about {thing},",
                              f"Most people know {thing},", f"Think about {thing}.", "The", "We"])
        return user, opening

    def _answer(self):
        if self.rng.random() < 0.5:
            q = self._pick(w.QUESTIONS)
        else:
            thing = self._pick(w.THINGS)
            q = self._pick([f"What is {thing}?", f"Why is {thing} important?",
                            f"Where can I find {thing}?", f"How do people use {thing}?",
                            f"What is special about {thing}?"])
        return q + " Answer in a few simple sentences.", f"Question: {q}\nAnswer:"

    def _howto(self):
        task = self._pick(w.TASKS)
        if self.rng.random() < 0.5:
            return (f"Explain in plain sentences, without a list, how to {task}.",
                    self._pick([f"To {task}, first", f"If you want to {task}, you", f"To {task},"]))
        return (f"Give a few short numbered steps that tell how to {task}.",
                f"How to {task}:\n1.")

    def _letter(self):
        what, a, b = self._pick(w.LETTERS), *self.rng.sample(w.NAMES, 2)
        return (f"Write a short, friendly letter from {b} to {a}, to {what}. Sign it {b}.",
                f"Dear {a},\n\n" + self._pick(["I", "I hope", "Thank you", "How are you?", "I am writing",
                                               "It was", "Today", "We", "I want to", "Last week"]))

    def _dialogue(self):
        topic, a, b = self._pick(w.TOPICS), *self.rng.sample(w.NAMES, 2)
        return (f"Write a short conversation between two friends, {a} and {b}, about {topic}.", self._pick([f"{a}: Hello, {b}!", f"{a}: I", f"{a}: Did you", f"{a}: What", f"{a}: Do you",
                            f"{a}: Good morning, {b}.", f"{a}: Can you", f"{a}: Have you", f"{a}: {b},"]))

    def _scene(self):
        scene = self._pick(w.SCENES)
        return (f"Describe {scene} in one paragraph of simple words: what one sees, hears and smells.",
                self._pick([_cap(scene), "The", "It is", "There is", "In the", "At first,"]))

    def _diary(self):
        name, phrase, _ = self._hero()
        noun = self._pick(COUNT)
        return (f"Write a short diary entry by {name}, {phrase}, about {_article(noun)} "
                f"and about feeling {self._pick(w.FEELINGS)}.",
                self._pick(["Dear diary,\n\nToday", "Today", "Dear diary,\n\nI", "This morning I",
                            "I felt", "Yesterday"]))
