"""One contender of scripts/peers.py, run in that contender's own environment: nothing but the standard library and its library.

python peers_worker.py train CONTENDER DATA WEIGHTS MODEL     fits on DATA/train.jsonl, writes the folder MODEL
python peers_worker.py start CONTENDER WEIGHTS MODEL          loads, answers one query, says how long that took
python peers_worker.py serve CONTENDER WEIGHTS MODEL          answers requests, a line of JSON each, until stdin ends

A request names what to do with its texts: {"do": "answer" | "time" | "batch" | "memory", "texts": [...]}, of "time" also other texts to "warm" up on. Times are taken here, around the one
call that a user of the library would write; pipes and JSON are not in them.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()

import itertools  # noqa: E402  # the clock starts before anything else is imported
import json  # noqa: E402
import os  # noqa: E402
import pickle  # noqa: E402  # written and read by this program alone
import re  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TextIO

    Answer = tuple[str | None, str, float]

OUT_OF_SCOPE = "oos"
FIRST_QUERY = "where is my parcel?"
WARM_UP_CALLS, WARM_UP_S = 5, 0.01
MAX_ITERATIONS = 1_000
KEPT_PROBABILITY = 0.5


def read(path: Path) -> tuple[list[str], list[str]]:
    """Texts and intents of a data file."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [line["text"] for line in lines], [line["intent"] for line in lines]


def judged(scores: Mapping[str, float]) -> Answer:
    """What one query's probabilities by label say: the decision (None: out of scope), the best in-scope label, how far out of scope."""
    best = max(scores, key=scores.get)
    top = max((label for label in scores if label != OUT_OF_SCOPE), key=scores.get)
    return None if best == OUT_OF_SCOPE else best, top, scores.get(OUT_OF_SCOPE, 1 - scores[top])


class Contender:
    """A library as its documentation uses it.

    ``train`` writes a model, the constructor opens it. ``one`` is the call that is timed; ``batch`` the call for many texts, or None
    where the library has none; ``answers`` gives for each text the decision, the best in-scope label and an out-of-scope score.
    """

    how = ""
    batch: Any = None

    @staticmethod
    def train(data: Path, weights: Path, model: Path) -> None:
        """Fits on ``data``, a folder, and writes to ``model``, a folder."""


class Distill(Contender):
    """A bundle of this project."""

    def __init__(self, _weights: Path, model: Path) -> None:
        from distill import Router

        router = Router.load(model)
        self.one, self.batch = router.route, router.route_batch

    def answers(self, texts: Sequence[str]) -> Iterator[Answer]:
        """See ``Contender``; one by one, as a service is asked, whose memory is read next."""
        for prediction in map(self.one, texts):
            scores = prediction.scores
            yield prediction.intent, prediction.top_intent, scores.get(OUT_OF_SCOPE, 1 - prediction.score)


class SemanticRouter(Contender):
    """semantic-router: nearest training queries by cosine, its local encoder."""

    how = "IndexedRouter with LocalEncoder, every training query an utterance; calibrated on the validation part where there is one"

    @staticmethod
    def train(data: Path, weights: Path, model: Path) -> None:
        """See ``Contender``."""
        from semantic_router import Route
        from semantic_router.encoders import LocalEncoder
        from semantic_router.routers import IndexedRouter

        by_intent = {}
        for text, intent in zip(*read(data / "train.jsonl"), strict=True):
            by_intent.setdefault(intent, []).append(text)
        by_intent.pop(OUT_OF_SCOPE, None)
        routes = [Route(name=name, utterances=texts) for name, texts in by_intent.items()]
        router = IndexedRouter(encoder=LocalEncoder(name=str(weights)), routes=routes)
        calibrator = None
        if (data / "validation.jsonl").exists():
            texts, intents = read(data / "validation.jsonl")
            router.fit(X=texts, y=[None if intent == OUT_OF_SCOPE else intent for intent in intents])
            calibrator = router.calibrator.to_dict()
        import numpy as np

        index = router.index
        np.save(model / "embeddings.npy", np.asarray(index.index, np.float32))
        stored = {"routes": index.routes.tolist(), "utterances": index.utterances.tolist(), "calibrator": calibrator}
        (model / "index.json").write_text(json.dumps(stored, default=float), encoding="utf-8")

    def __init__(self, weights: Path, model: Path) -> None:
        import numpy as np
        from semantic_router.calibration import Calibrator
        from semantic_router.encoders import LocalEncoder
        from semantic_router.index import LocalIndex
        from semantic_router.routers import IndexedRouter

        stored = json.loads((model / "index.json").read_text(encoding="utf-8"))
        calibrator, index = stored["calibrator"], LocalIndex()
        embeddings = list(
            np.load(model / "embeddings.npy").astype(np.float64)
        )  # as the library's own encoder gives them
        index.add(embeddings=embeddings, routes=stored["routes"], utterances=stored["utterances"])
        self.one = self.router = IndexedRouter(encoder=LocalEncoder(name=str(weights)), index=index)
        if calibrator:
            self.router.calibrator = Calibrator.from_dict(calibrator)
            self.router.confidence_threshold = KEPT_PROBABILITY

    def answers(self, texts: Sequence[str]) -> Iterator[Answer]:
        """See ``Contender``."""
        for text in texts:
            best = self.router(text, limit=None, threshold=float("-inf"))[0]
            kept = best.confidence >= (self.router.confidence_threshold or float("-inf"))
            yield best.name if kept else None, best.name, -best.confidence


class ScikitLearn(Contender):
    """A pickled scikit-learn model behind some features."""

    def __init__(self, weights: Path, model: Path) -> None:
        self.model = pickle.loads((model / "model.pickle").read_bytes())  # noqa: S301
        self.weights = weights

    def features(self, texts: Sequence[str]) -> Any:
        """What the model is given."""
        return texts

    def one(self, text: str) -> Any:
        """See ``Contender``."""
        return self.model.predict(self.features([text]))[0]

    def batch(self, texts: Sequence[str]) -> Any:
        """See ``Contender``."""
        return self.model.predict(self.features(texts))

    def answers(self, texts: Sequence[str]) -> Iterator[Answer]:
        """See ``Contender``."""
        labels = self.model.classes_.tolist()
        for row in self.model.predict_proba(self.features(texts)).tolist():
            yield judged(dict(zip(labels, row, strict=True)))


class Tfidf(ScikitLearn):
    """TF-IDF of words and logistic regression."""

    how = "TfidfVectorizer() and LogisticRegression(), as in scikit-learn's tutorial on text"

    @staticmethod
    def train(data: Path, _weights: Path, model: Path) -> None:
        """See ``Contender``."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        fitted = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=MAX_ITERATIONS))
        (model / "model.pickle").write_bytes(pickle.dumps(fitted.fit(*read(data / "train.jsonl"))))


class SentenceTransformers(ScikitLearn):
    """Frozen sentence vectors and logistic regression."""

    how = "SentenceTransformer.encode and LogisticRegression on the training part"

    @staticmethod
    def train(data: Path, weights: Path, model: Path) -> None:
        """See ``Contender``."""
        from sentence_transformers import SentenceTransformer
        from sklearn.linear_model import LogisticRegression

        texts, intents = read(data / "train.jsonl")
        vectors = SentenceTransformer(str(weights)).encode(texts)
        fitted = LogisticRegression(max_iter=MAX_ITERATIONS).fit(vectors, intents)
        (model / "model.pickle").write_bytes(pickle.dumps(fitted))

    def __init__(self, weights: Path, model: Path) -> None:
        super().__init__(weights, model)
        from sentence_transformers import SentenceTransformer

        self.encode = SentenceTransformer(str(weights)).encode

    def features(self, texts: Sequence[str]) -> Any:
        """Sentence vectors, as ``encode`` gives them."""
        return self.encode(texts)


class Model2Vec(Contender):
    """model2vec's fine-tuned classifier, served without torch."""

    how = "model distilled from the weights, StaticModelForClassification.fit with its defaults, served as StaticModelPipeline"

    @staticmethod
    def train(data: Path, weights: Path, model: Path) -> None:
        """See ``Contender``."""
        from model2vec.distill import distill
        from model2vec.train import StaticModelForClassification

        classifier = StaticModelForClassification.from_static_model(model=distill(str(weights)))
        classifier.fit(*read(data / "train.jsonl"))
        classifier.to_pipeline().save_pretrained(str(model))

    def __init__(self, _weights: Path, model: Path) -> None:
        from model2vec.inference import StaticModelPipeline

        self.pipeline = StaticModelPipeline.from_pretrained(str(model))
        self.batch = self.pipeline.predict

    def one(self, text: str) -> Any:
        """See ``Contender``."""
        return self.pipeline.predict([text])[0]

    def answers(self, texts: Sequence[str]) -> Iterator[Answer]:
        """See ``Contender``."""
        labels = [str(label) for label in self.pipeline.classes_]
        for row in self.pipeline.predict_proba(texts).tolist():
            yield judged(dict(zip(labels, row, strict=True)))


class FastText(Contender):
    """fastText's supervised classifier."""

    how = "train_supervised(lr=1.0, epoch=25, wordNgrams=2) on lower-case text, as in fastText's tutorial on classification"
    prefix = "__label__"
    marks = re.compile(r"([.!?,'/()])")

    @classmethod
    def clean(cls, text: str) -> str:
        """One line, lower case, punctuation apart: as the tutorial prepares its text."""
        return " ".join(cls.marks.sub(r" \1 ", text).lower().split())

    @classmethod
    def train(cls, data: Path, _weights: Path, model: Path) -> None:
        """See ``Contender``."""
        import fasttext

        texts, intents = read(data / "train.jsonl")
        labels = sorted(set(intents))
        (model / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
        numbers = {label: number for number, label in enumerate(labels)}
        lines = [
            f"{cls.prefix}{numbers[intent]} {cls.clean(text)}\n" for text, intent in zip(texts, intents, strict=True)
        ]
        (model / "train.txt").write_text("".join(lines), encoding="utf-8")
        fitted = fasttext.train_supervised(
            str(model / "train.txt"), lr=1.0, epoch=25, wordNgrams=2, thread=1, verbose=0
        )
        fitted.save_model(str(model / "model.bin"))
        (model / "train.txt").unlink()

    def __init__(self, _weights: Path, model: Path) -> None:
        import fasttext

        self.model = fasttext.load_model(str(model / "model.bin"))
        self.labels = json.loads((model / "labels.json").read_text(encoding="utf-8"))

    def one(self, text: str) -> Any:
        """See ``Contender``."""
        return self.model.predict(self.clean(text))[0][0]

    def batch(self, texts: Sequence[str]) -> Any:
        """See ``Contender``."""
        return self.model.predict([self.clean(text) for text in texts])

    def answers(self, texts: Sequence[str]) -> Iterator[Answer]:
        """See ``Contender``."""
        for text in texts:
            found, shares = self.model.predict(self.clean(text), k=-1)
            names = [self.labels[int(each.removeprefix(self.prefix))] for each in found]
            yield judged(dict(zip(names, shares.tolist(), strict=True)))


class BareImports(Contender):
    """What the runtime of this project is built on, and nothing done with it: the floor of a cold start."""

    def __init__(self, _weights: Path, _model: Path) -> None:
        import numpy as np  # noqa: F401
        import onnxruntime  # noqa: F401
        import tokenizers  # noqa: F401

    def one(self, _text: str) -> None:
        """Asks nothing."""


CONTENDERS: dict[str, Any] = {
    "bare-imports": BareImports,
    "distill": Distill,
    "fasttext": FastText,
    "model2vec": Model2Vec,
    "semantic-router": SemanticRouter,
    "sentence-transformers": SentenceTransformers,
    "tfidf": Tfidf,
}


def use_one_thread() -> None:
    """Keeps torch, where it is, to one thread; the environment keeps the others."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def nanoseconds(call: Callable[[str], Any], texts: Sequence[str], warm: Sequence[str]) -> list[int]:
    """How long each call takes, after a few that do not count: other contenders had the processor and its caches in between.

    Those few are about other texts, as the quickest contenders would ask each of the timed ones several times, and the slowest none.
    """
    begun = time.perf_counter()
    for number, text in enumerate(itertools.cycle(warm)):
        if number >= WARM_UP_CALLS and time.perf_counter() - begun > WARM_UP_S:
            break
        call(text)
    found = []
    for text in texts:
        started = time.perf_counter_ns()
        call(text)
        found.append(time.perf_counter_ns() - started)
    return found


def seconds_for(call: Callable[[Sequence[str]], Any] | None, texts: Sequence[str]) -> float | None:
    """How long all texts take at once; None where the library takes one at a time."""
    if call is None:
        return None
    started = time.perf_counter()
    call(texts)
    return time.perf_counter() - started


def peak_rss_mb() -> float | None:
    """The most memory that this process ever held, MB of 10**6 bytes; None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def serve(contender: Any, requests: TextIO, replies: TextIO) -> None:
    """Answers requests until there are no more."""
    for line in requests:
        request = json.loads(line)
        texts = request["texts"]
        if request["do"] == "time":
            reply = nanoseconds(contender.one, texts, request["warm"])
        elif request["do"] == "memory":
            reply = peak_rss_mb()
        elif request["do"] == "batch":
            reply = seconds_for(contender.batch, texts)
        else:
            reply = list(contender.answers(texts))
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def main() -> None:
    """Does what the command line says; results on stdout, whatever libraries print on stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    what, name, *paths = sys.argv[1:]
    kind, paths = CONTENDERS[name], [Path(path) for path in paths]
    if what == "train":
        started = time.perf_counter()
        kind.train(*paths)
        replies.write(json.dumps({"train_s": time.perf_counter() - started, "how": kind.how}))
        replies.flush()
        return
    contender = kind(*paths)
    if what == "start":
        contender.one(FIRST_QUERY)
        cold_start_ms = (time.perf_counter() - STARTED) * 1000
        replies.write(json.dumps({"cold_start_ms": cold_start_ms, "peak_rss_mb": peak_rss_mb()}))
        replies.flush()
        return
    use_one_thread()
    serve(contender, sys.stdin, replies)


if __name__ == "__main__":
    main()
