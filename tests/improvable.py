"""What the tests of audit and improve share: a project whose server knows what a query wants, and students that learn from numbers."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zlib

import bundles
import numpy as np
import project
import pytest
from onnx import numpy_helper
from project import TESTS, write_lines, write_project

from distill.bundle import load_bundle
from distill.data import read_jsonl
from distill.spec import load_spec
from distill.teacher.imported import import_answers

sys.path.append(str(TESTS / "teacher"))
from fake_server import FakeServer

WEAK = "refund"
ENOUGH = 40
"""Training queries from which on a student knows the intent ``WEAK``."""
PRICED = "price: {input_per_mtok: 1, output_per_mtok: 10, source: made up, date: 2026-01-31}"


class Shop(FakeServer):
    """Labels by the shop's words, and writes queries that have them."""

    def _profile_normal(self, body, query):
        if not body["messages"][0]["content"].startswith("You write queries"):
            return self.completion(json.dumps({"intent": project.answer(query)}))
        prompt = body["messages"][-1]["content"]
        wanted = re.search(r"^Intent: (\w+)", prompt)
        word = bundles.KEYWORDS[wanted.group(1) if wanted else "oos"][0]
        more = re.search(r"^Write (\d+) more", prompt, flags=re.MULTILINE)
        lines = range(int(more.group(1))) if more else re.findall(r"^\d+\. .*$", prompt, flags=re.MULTILINE)
        number = zlib.crc32(prompt.encode())
        return self.completion(json.dumps({"queries": [f"{word} {number} {line}" for line in range(len(lines))]}))

    @property
    def n_written(self):
        """Requests for queries."""
        return sum(body["messages"][0]["content"].startswith("You write queries") for body in self.requests)


def write_improvable(folder, base_url, *, n=40, teacher="", more=""):
    """A project whose teacher is a model of that server."""
    settings = f"{{model: fake, base_url: '{base_url}', max_retries: 0, concurrency: 2{teacher}}}"
    return write_project(folder, n=n, teacher=settings, more=more)


def label_from_elsewhere(path):
    """Takes the right answer to every query, gold included, into the ledger of a project: nobody is asked."""
    texts = [line["text"] for name in ("logs", "gold") for _, line in read_jsonl(path.parent / f"{name}.jsonl")]
    answers = path.parent / "right.jsonl"
    write_lines(answers, [{"text": text, "intent": project.answer(text)} for text in texts])
    spec = load_spec(path)
    import_answers(spec, answers)
    return spec


class ByText:
    """In the place of a sentence encoder: two texts are alike when they are the same."""

    def embed(self, texts, on_done=None):
        vectors = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=32) for text in texts]
        array = np.asarray(vectors, np.float32).reshape(len(texts), 32)
        return array / np.linalg.norm(array, axis=1, keepdims=True)


def train_by_number(data, out, *, students, enough=ENOUGH, **_):
    """In the place of training: bundles that know the words of every intent, but of ``WEAK`` only after so many examples."""
    of_weak = [each for each in data.examples if each.target[data.labels.index(WEAK)] >= 0.5]
    knows_all = sum(each.split == "train" for each in of_weak) >= enough
    for student in students:
        if (out / student).exists():
            if load_bundle(out / student).manifest.data_sha256 == data.data_sha256:
                continue
            shutil.rmtree(out / student)
        with pytest.MonkeyPatch.context() as patch:
            if not knows_all:
                patch.setattr(bundles, "make_graph", _forgetful(bundles.make_graph))
            bundles.build_bundle(
                out / student, task=data.task, student=student, labels=data.labels, data_sha256=data.data_sha256
            )
    return {student: load_bundle(out / student) for student in students}


def _forgetful(make_graph):
    """The same graph without the words of ``WEAK``."""

    def make(tokenizer, labels, **options):
        graph = make_graph(tokenizer, labels, **options)
        table = next(each for each in graph.graph.initializer if each.name == "table")
        values = numpy_helper.to_array(table).copy()
        values[:, list(labels).index(WEAK)] = 0
        table.CopyFrom(numpy_helper.from_array(values, "table"))
        return graph

    return make
