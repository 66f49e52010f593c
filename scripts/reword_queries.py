"""Has a model say the queries of a made-up clip library in its own words: paraphrases.jsonl, which make_clip_library.py takes.

python scripts/reword_queries.py FOLDER --base-url http://127.0.0.1:18080/v1 --model NAME

The model sees a query alone, never a clip. What loses a name or a number, repeats the query, or is much longer is left as the script worded it. A line
is written as it comes; a run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from make_clip_library import scripted_queries
from openai import OpenAI

from distill.data import read_jsonl
from distill.progress import Progress

PROMPT = """Somebody types this into the search box of a video archive. Say the same in other words, as another person might type it: short and plain. \
Keep every detail, all names and all numbers. Answer with the new words alone.

Query: {query}"""
SHOTS = (
    ("show me a clip with a man repairing a bicycle in 2009", "clip from 2009, guy fixes a bike"),
    ("i am looking for talk about how a neighbour plays the drums at night", "someone complaining that the neighbour drums at night"),
    ("find a soundtrack with bells from afar and a barking dog", "distant bells and a dog barking"),
)  # fmt: skip
TEMPERATURE, MOST_TOKENS = 0.7, 64
MOST_TIMES_LONGER = 1.5


def kept_whole(scripted: str, text: str) -> bool:
    """Whether a paraphrase is one: other words, about as long, with every name and number of the query."""
    must_stay = re.findall(r"\b(?:[A-Z]\w+|\d+)\b", scripted)
    one_line = "\n" not in text and 0 < len(text) <= MOST_TIMES_LONGER * len(scripted)
    return one_line and text.lower() != scripted.lower() and all(re.search(rf"\b{word}\b", text) for word in must_stay)


def reword(client: OpenAI, model: str, query: str) -> str:
    """The query in the model's words."""
    messages: list[dict[str, str]] = []
    for asked, answered in SHOTS:
        messages += [
            {"role": "user", "content": PROMPT.format(query=asked)},
            {"role": "assistant", "content": answered},
        ]
    messages.append({"role": "user", "content": PROMPT.format(query=query)})
    reply = client.chat.completions.create(
        model=model, messages=messages, temperature=TEMPERATURE, max_tokens=MOST_TOKENS, seed=0
    )  # type: ignore[call-overload]
    return (reply.choices[0].message.content or "").strip().strip('"')


def main() -> None:
    """Writes paraphrases.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--concurrency", type=int, default=4)
    options = parser.parse_args()
    path = options.folder / "paraphrases.jsonl"
    done = {line["id"] for _, line in read_jsonl(path)} if path.exists() else set()
    waiting = {name: text for name, text in scripted_queries(options.folder).items() if name not in done}
    client = OpenAI(base_url=options.base_url, api_key=os.environ.get("OPENAI_API_KEY", "no-key"))
    with (
        path.open("a", encoding="utf-8", newline="\n") as file,
        Progress("reword", len(waiting)) as progress,
        ThreadPoolExecutor(options.concurrency) as pool,
    ):
        answers = pool.map(partial(reword, client, options.model), waiting.values())
        for (name, scripted), text in zip(waiting.items(), answers, strict=True):
            if kept_whole(scripted, text):
                line = {"id": name, "scripted": scripted, "text": text, "model": options.model}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
            progress.advance()


if __name__ == "__main__":
    main()
