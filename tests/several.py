"""What the tests of improve share for several intents a query and for weights: a project, and a server that knows what a query asks for."""

from __future__ import annotations

import json
import random
import re
import zlib
from itertools import combinations

from bundles import KEYWORDS
from improvable import PRICED, Shop
from project import FILLERS, SHOP, write_lines

from distill.spec import load_spec
from distill.teacher.imported import import_answers

KINDS = {"money that is to come back": ("refund",), "something on its way": ("track_order",), "a change of mind": ("cancel_order",)}  # fmt: skip
"""Kinds of queries, and what those of one ask for."""
BOTH = "two things at once"
"""The kind of all others."""


def asked_for(text):
    """The intents whose words stand in a text."""
    words = text.split()
    return [name for name in SHOP if any(word in KEYWORDS[name] for word in words)]


def label_line(task, text):
    """The right answer to a text, as a line of a data set has it."""
    names = asked_for(text)
    return {"intents": names} if task == "multi" else {"weights": {name: 100 // len(names) for name in names}}


def texts_of(names, n, chance):
    """Distinct texts of five words, two for each name."""
    found = set()
    while len(found) < n:
        words = [word for name in names for word in chance.sample(KEYWORDS[name], 2)]
        words += chance.sample(FILLERS, 5 - len(words))
        chance.shuffle(words)
        found.add(" ".join(words))
    return sorted(found)


class Assistant(Shop):
    """Says all that a query asks for, and writes queries for what it is asked to."""

    def __init__(self):
        super().__init__()
        self.prompts = []

    def _profile_normal(self, body, query):
        system, prompt = body["messages"][0]["content"], body["messages"][-1]["content"]
        if system.startswith("You write queries"):
            self.prompts.append(prompt)
            return self.completion(json.dumps({"queries": self._written(prompt)}))
        if '"weights": {' in system:
            names = asked_for(query)
            weights = {name: (100 // len(names) if name in names else 0) for name in SHOP}
            return self.completion(json.dumps({"channels": names, "weights": weights}))
        return self.completion(json.dumps({"intents": asked_for(query)}))

    @staticmethod
    def _written(prompt):
        wanted = re.search(r"^Intent: (\w+)|found mostly under (\w+)|look for something by (.+?), all about", prompt)
        intent, channel, kind = wanted.groups() if wanted else (None, None, None)
        names = [name for name in (intent, channel) if name] or KINDS.get(kind, SHOP[:2] if kind else ("oos",))
        number, queries = zlib.crc32(prompt.encode()), []
        for position, line in enumerate(re.findall(r"^\d+\. (.*)$", prompt, flags=re.MULTILINE)):
            also = [name for name in SHOP if re.search(rf"and asks for .*\b{name}\b", line)]
            words = [word for name in (*names, *also) for word in KEYWORDS[name][:2]]
            queries.append(" ".join([*words, str(number), str(position)]))
        return queries


def write_several(folder, base_url, task, *, n=20, with_kinds=True, teacher=""):
    """A labelled project of that task; the words of all queries are right for their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(0)  # noqa: S311
    wanted = [*((name,) for name in SHOP), *combinations(SHOP, 2), *([("oos",)] if task == "multi" else [])]
    texts = [
        (text, names) for names in wanted for text in texts_of(names, (2 * n if len(names) == 1 else n) + 2, chance)
    ]
    gold = [text for position, (text, _) in enumerate(texts) if texts[position - 1][1] != texts[position][1]]
    kinds = {names: kind for kind, names in KINDS.items()}
    described = json.dumps({name: f"about {name}" for name in SHOP})
    settings = f"{{model: fake, base_url: '{base_url}', max_retries: 0, concurrency: 2, {PRICED}, max_output_tokens: 99{teacher}}}"
    lines = ["name: tiny", f"task: {task}", f"intents: {described}", f"teacher: {settings}", "queries: logs.jsonl", "gold: gold.jsonl"]  # fmt: skip
    if task == "weights" and with_kinds:
        lines.append(f"synth: {{attributes: {{about: {json.dumps([*KINDS, BOTH])}, subject: [shoes, hats]}}}}")
    (folder / "router.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    logs = [
        {"text": text} | ({"intended_intent": kinds.get(names, BOTH)} if with_kinds else {})
        for text, names in texts
        if text not in gold
    ]
    write_lines(folder / "logs.jsonl", logs)
    write_lines(folder / "gold.jsonl", [{"text": text} | label_line(task, text) for text in gold])
    answers = folder / "right.jsonl"
    write_lines(answers, [{"text": text} | label_line(task, text) for text, _ in texts])
    spec = load_spec(folder / "router.yaml")
    import_answers(spec, answers)
    return spec
