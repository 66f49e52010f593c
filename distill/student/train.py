"""Trains both students on labelled queries and seals them as bundles.

Assistants, encoders of several seeds, learn from the teacher's labels; the encoder from the labels and from the assistants' mean; the
static student from the labels and from all of them, about augmented texts too, of which the encoder labels as many more as there is
time for (teacher-assistant distillation, Mirzadeh et al., AAAI 2020).
"""

from __future__ import annotations

import hashlib
import importlib.util
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from distill.bundle import Bundle, load_bundle
from distill.data import canonical_json, remove_folder, sha256_json, storage_errors
from distill.errors import BundleError, StorageError, TrainingError, missing_extra
from distill.progress import Progress, say
from distill.split import HELD_OUT_SHARE, MOST_SEED, stratified_holdout, with_every_label
from distill.student.calibrate import FEWEST_EXAMPLES
from distill.student.processes import is_first_process, wait_for_all
from distill.student.recipe import (
    DEFAULT_BUDGET_MINUTES,
    EXPORT_VERSION,
    MAX_LENGTH,
    MOST_ASSISTANTS,
    encoder_fits,
    encoder_minutes,
    encoder_more_texts,
    encoder_recipe,
    most_more_texts,
    static_minutes,
    static_recipe,
    static_recipe_alone,
)
from distill.student.targets import LEAST_TARGET, joined, likeliest, most_rows, taken
from distill.types import HOLDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill.student.encoder import Encoder
    from distill.student.learn import Lesson, Part
    from distill.student.recipe import EncoderRecipe, StaticRecipe
    from distill.student.ship import Shipment
    from distill.student.targets import Targets
    from distill.student.vectors import Lexicon
    from distill.student.weights import BaseModel
    from distill.types import Example, Intent, Task

    Array = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["DEFAULT_BASE_MODEL", "STUDENTS", "TrainingData", "train_students", "untrained_students"]

STUDENTS = ("encoder", "static")
DEFAULT_BASE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

_NEEDED = ("torch", "transformers", "accelerate", "datasets", "safetensors", "onnx", "onnxscript", "scipy", "sklearn")
_MOST_GRAPH_BYTES = 2_000_000_000
"""Of weights: a file of protocol buffers ends at 2 GiB."""
_MOST_NAMES = 10
_TEXTS_FOR_RANGES = 256
_SEEDS_APART = 1_000
"""Between assistants, so that those of neighbouring seeds have none in common."""
_MINUTES_WORTH_A_WARNING = 3


@dataclass(frozen=True)
class TrainingData:
    """What students are trained on.

    Attributes:
        name: Name of the router.
        task: Picks loss and policy.
        labels: In logit order; for ``single`` with out-of-scope the last is ``oos``.
        examples: Those of the split ``held_out`` calibrate and set thresholds, the others train. Where none is held out, a tenth is; where
            there are too few for that, nothing calibrates.
        intents: Names and descriptions, for the bundle's self-check.
        teacher: Name of the model or callable that labelled.
        prompt_sha256: Hash of the teacher's prompt.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    examples: tuple[Example, ...]
    intents: tuple[Intent, ...] = ()
    teacher: str = ""
    prompt_sha256: str = ""

    @cached_property
    def data_sha256(self) -> str:
        """Hash of all of the above."""
        others = {
            "name": self.name,
            "task": self.task.value,
            "labels": self.labels,
            "intents": [[intent.name, intent.description, intent.examples] for intent in self.intents],
            "teacher": self.teacher,
            "prompt_sha256": self.prompt_sha256,
        }
        # canonical JSON with the examples among the others, written piece by piece: as a whole it may take gigabytes
        digest = hashlib.sha256(b'{"examples":[')
        for number, each in enumerate(self.examples):
            facts = canonical_json([each.text, each.split, round(float(each.weight), 6)])
            digest.update(f"{',' if number else ''}{facts[:-1]},{_as_json(each.target)}]".encode())
        digest.update(f"],{canonical_json(others)[1:]}".encode())
        return digest.hexdigest()


def _as_json(target: Array) -> str:
    """A target as canonical JSON of six decimals; quick where most of it is zero."""
    values = np.round(target.astype(float), 6)
    pieces, after = [], 0
    for position in np.flatnonzero(values.view(np.int64)).tolist():  # -0.0 is not all zero bits
        pieces += ["0.0," * (position - after), canonical_json(values[position].item()), ","]
        after = position + 1
    pieces.append("0.0," * (len(values) - after))
    return f"[{''.join(pieces)[:-1]}]"


def train_students(  # noqa: PLR0913  # each is a setting of router.yaml
    data: TrainingData,
    out: Path,
    *,
    students: Sequence[str] = ("static", "encoder"),
    base_model: str = DEFAULT_BASE_MODEL,
    assistant_model: str | None = None,
    seed: int = 0,
    budget_minutes: float = DEFAULT_BUDGET_MINUTES,
    force: bool = False,
    show_progress: bool = True,
) -> dict[str, Bundle]:
    """Trains students and writes their bundles to ``out/encoder`` and ``out/static``.

    Bundles that were made from the same data, recipe and seed are left as they are. Training that was killed goes on: an encoder
    that was finished is not trained again, a longer training goes on from its last epoch, and what encoders have answered is not asked again.
    The static student learns from the encoder, which is trained for that even when it is not asked for, unless ``budget_minutes`` has no
    time for one.

    Args:
        data: Labelled examples.
        out: Folder of the bundles.
        students: Which to make: ``encoder``, ``static`` or both.
        base_model: A local folder, or a name on the Hugging Face hub.
        assistant_model: A larger transformer that teaches both students, likewise. None: all-mpnet-base-v2 where its weights are on
            this machine and ``base_model`` is the default, otherwise assistants of the base model itself.
        seed: The same seed gives the same students on the same machine.
        budget_minutes: What training may take on two cores, about: dearer steps are left out where they do not fit.
        force: Trains even where nothing has changed.
        show_progress: Whether to show progress on stderr.

    Returns:
        The bundle of each student that was asked for.

    Raises:
        TrainingError: The examples cannot be trained on, or the base model cannot be had.
        ExportError: An exported graph does not give what the trained student gives.
        StorageError: Something could not be written.
        MissingExtraError: torch or another library that training needs is not installed.
    """
    _check(data, students)
    run = _run(data, out, students, base_model, assistant_model, seed, budget_minutes, show_progress=show_progress)
    bundles = {} if force else {student: bundle for student in students if (bundle := run.existing(student, tell=True))}
    missing = [student for student in STUDENTS if student in students and student not in bundles]
    if missing:
        bundles |= run.make(missing, force=force)
    wait_for_all()
    if not is_first_process():
        return {student: load_bundle(out / student) for student in students}
    return {student: bundles[student] for student in students}


def untrained_students(
    data: TrainingData,
    out: Path,
    *,
    students: Sequence[str],
    base_model: str,
    assistant_model: str | None = None,
    seed: int,
    budget_minutes: float,
) -> tuple[str, ...]:
    """Those that ``train_students`` would train: there is no bundle, or it was made from something else.

    Arguments as for ``train_students``; errors too, but for what training itself meets.
    """
    if not any((out / student).is_dir() for student in students):  # told without loading any library
        return tuple(students)
    run = _run(data, out, students, base_model, assistant_model, seed, budget_minutes, show_progress=False)
    return tuple(student for student in students if run.existing(student) is None)


def _run(
    data: TrainingData,
    out: Path,
    students: Sequence[str],
    base_model: str,
    assistant_model: str | None,
    seed: int,
    budget_minutes: float,
    *,
    show_progress: bool,
) -> _Run:
    _require_libraries()
    from distill.student.weights import base_model_fingerprint, larger_model

    if not 0 <= seed <= MOST_SEED:
        raise TrainingError(f"the seed must be from 0 to {MOST_SEED:,}, found {seed}")
    fingerprint = base_model_fingerprint(base_model)
    if assistant_model is None and base_model == DEFAULT_BASE_MODEL:
        assistant_model = larger_model()
    training, held_out = _split(data, seed)
    return _Run(
        data=data,
        out=out,
        students=tuple(students),
        base_model=base_model,
        base_fingerprint=fingerprint,
        assistant_model=assistant_model,
        seed=seed,
        budget_minutes=budget_minutes,
        show_progress=show_progress and is_first_process(),
        training=training,
        held_out=held_out,
    )


def _check(data: TrainingData, students: Sequence[str]) -> None:
    for student in students:
        if student not in STUDENTS:
            raise TrainingError(f"there is no student {student!r}; there are {' and '.join(STUDENTS)}")
    trained = [example for example in data.examples if example.split != "held_out"]
    if not trained:
        raise TrainingError("there is no labelled query to train on; label some first")
    for example in data.examples:
        if example.target.shape != (len(data.labels),) or not np.isfinite(example.target).all():
            raise TrainingError(f"the target of {example.text!r} is not a number for each of {len(data.labels)} labels")
    counts = _label_counts(data.task, trained, len(data.labels))
    if np.count_nonzero(counts) <= 1 and data.task.has_one_label:
        raise TrainingError(
            f"all {len(trained)} labelled queries have the label {data.labels[counts.argmax()]!r}; a router needs at least two (if the teacher answered otherwise, look at "
            "how it is read: `answer_path`, `answer_map`)"
        )
    if not counts.any():
        raise TrainingError(
            f"none of {len(trained)} labelled queries has an intent; look at what the teacher answered, and how it is read "
            "(`answer_path`, `answer_map`)"
        )
    if not data.task.is_mixture and not counts.all():
        names = [label for label, count in zip(data.labels, counts, strict=True) if not count]
        say(f"train: no labelled query has the label {_named(names)}; the students will not know it")


def _check_fits_a_file(base: BaseModel) -> None:
    n_bytes = sum(each.numel() * each.element_size() for each in base.body.parameters())
    if n_bytes > _MOST_GRAPH_BYTES:
        raise TrainingError(
            f"base_model {base.name!r} has {n_bytes / 1e9:.1f} GB of weights; an ONNX file holds {_MOST_GRAPH_BYTES / 1e9:g} GB: give a smaller "
            "encoder as `base_model`, and this one as `assistant_model` if it is to teach"
        )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"


def _label_counts(task: Task, examples: Sequence[Example], n_labels: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    if task.has_one_label:
        return np.bincount([example.target.argmax() for example in examples], minlength=n_labels)
    counts = np.zeros(n_labels, np.int64)
    for example in examples:
        counts += example.target > 0 if task.is_mixture else example.target >= HOLDS
    return counts


def _known_labels(task: Task, targets: Targets) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which labels some example has, (n_labels,): as its best one, or for ``multi`` as one of several."""
    n, n_labels = targets.shape
    known = np.zeros(n_labels, bool)
    if task.has_one_label:
        places = likeliest(targets, LEAST_TARGET)
        known[places[places >= 0]] = True
        return known
    step = most_rows(n_labels)
    for start in range(0, n, step):
        known |= (targets[start : start + step] >= HOLDS).any(axis=0)
    return known


def _require_libraries() -> None:
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            raise missing_extra(module)


def _split(data: TrainingData, seed: int) -> tuple[Part, Part]:
    """What trains and what calibrates; nothing does where there are too few examples to hold any out.

    Repeats of a query stand on one side, as what was learnt would calibrate otherwise.
    """
    from distill.student.learn import Part

    held_out = [example for example in data.examples if example.split == "held_out"]
    training = [example for example in data.examples if example.split != "held_out"]
    if held_out:
        learnt = {example.text for example in training}
        held_out = [example for example in held_out if example.text not in learnt]
    else:
        training, held_out = _tenth_held_out(training, data.task, seed)
    n_labels = len(data.labels)
    return Part.of(training, n_labels), Part.of(_few_enough(held_out, n_labels, seed), n_labels)


def _tenth_held_out(examples: list[Example], task: Task, seed: int) -> tuple[list[Example], list[Example]]:
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.text, example)
    distinct = list(first.values())
    kept, chosen = stratified_holdout([_stratum(task, example) for example in distinct], HELD_OUT_SHARE, seed)
    if not task.sums_to_one:
        kept, chosen = with_every_label(lambda position: distinct[position].target >= HOLDS, kept, chosen)
    texts = {distinct[position].text for position in chosen}
    return (
        [example for example in examples if example.text not in texts],
        [example for example in examples if example.text in texts],
    )


def _few_enough(examples: list[Example], n_labels: int, seed: int) -> list[Example]:
    """All examples, or as many as fit an array: thousands are enough for a temperature and thresholds."""
    most = most_rows(n_labels)
    if len(examples) <= most:
        return examples
    chosen = np.sort(np.random.default_rng(seed).permutation(len(examples))[:most])
    return [examples[position] for position in chosen]


def _stratum(task: Task, example: Example) -> int:
    """The best label; for ``multi`` the rarest question is whether any label holds, and 0 or the first one stands for it."""
    if not task.sums_to_one:
        positive = np.flatnonzero(example.target >= HOLDS)
        return int(positive[0]) if len(positive) else -1
    return int(example.target.argmax())


@dataclass(frozen=True)
class _Run:
    """One call of ``train_students``."""

    data: TrainingData
    out: Path
    students: tuple[str, ...]
    base_model: str
    base_fingerprint: str
    assistant_model: str | None
    seed: int
    budget_minutes: float
    show_progress: bool
    training: Part
    held_out: Part

    @property
    def work(self) -> Path:
        return self.out / ".work"

    @cached_property
    def encoder_recipe(self) -> EncoderRecipe:
        n_examples, n_tokens, n_parameters = self._size
        for_static = static_minutes(
            static_recipe(n_examples), n_examples, n_tokens, n_parameters, len(self.data.labels)
        )  # whichever is wanted: one recipe
        return encoder_recipe(*self._size, self.budget_minutes - for_static, self._n_larger)

    @cached_property
    def static_recipe(self) -> StaticRecipe:
        if self.is_alone:
            return static_recipe_alone(len(self.training.texts))
        spent = encoder_minutes(self.encoder_recipe, *self._size, self._n_larger)
        return static_recipe(*self._size, self.budget_minutes - spent, len(self.data.labels))

    @cached_property
    def is_alone(self) -> bool:
        """Whether the static student has no encoder to ask: it alone is wanted, and an encoder would take more than the budget."""
        return self.students == ("static",) and not encoder_fits(*self._size, self.budget_minutes)

    @cached_property
    def _size(self) -> tuple[int, int, int]:
        """Training examples, tokens in all of them, and parameters of the base model: what recipes depend on."""
        from distill.student.weights import body_parameters, count_tokens

        texts = self.training.texts
        return len(texts), count_tokens(self.base_model, texts, MAX_LENGTH), body_parameters(self.base_model)

    @cached_property
    def _n_larger(self) -> int | None:
        from distill.student.weights import body_parameters

        return body_parameters(self.assistant_model) if self.assistant_model else None

    def estimated_minutes(self, students: Sequence[str]) -> float:
        """About how long it takes on two cores with AVX-512 and bfloat16 to train these."""
        minutes = 0.0 if self.is_alone else encoder_minutes(self.encoder_recipe, *self._size, self._n_larger)
        if "static" in students:
            minutes += static_minutes(self.static_recipe, *self._size, len(self.data.labels))
        return minutes

    def recipe_sha256(self, student: str) -> str:
        """Hash of what a bundle depends on besides data and seed."""
        from distill.student.weights import base_model_fingerprint

        recipes: dict[str, Any] = {
            "base_model": self.base_fingerprint,
            "encoder": self.encoder_recipe.as_dict(),
            "export": EXPORT_VERSION,
        }
        if self.is_alone:
            recipes["encoder"] = None
        elif self.encoder_recipe.larger and self.assistant_model:
            recipes["assistant_model"] = base_model_fingerprint(self.assistant_model)
        return sha256_json(recipes | ({"static": self.static_recipe.as_dict()} if student == "static" else {}))

    def existing(self, student: str, *, tell: bool = False) -> Bundle | None:
        """The bundle in place, if it has all that a Router reads and is made from just this; ``tell`` says why one is not whole."""
        try:
            bundle = load_bundle(self.out / student, spare=False)
        except BundleError as error:
            if tell and (self.out / student).is_dir():
                say(f"train: {student} is trained again, as its bundle cannot be used: {error}")
            return None
        made_from = bundle.manifest.data_sha256, bundle.manifest.recipe_sha256, bundle.manifest.seed
        wanted = self.data.data_sha256, self.recipe_sha256(student), self.seed
        return bundle if made_from == wanted else None

    def make(self, students: Sequence[str], *, force: bool) -> dict[str, Bundle]:
        """Trains and ships what is missing; of several processes that train together the first ships, and has bundles."""
        from filelock import FileLock, Timeout

        if not is_first_process():
            return self._make(students, force=force)

        with storage_errors(self.work):
            self.work.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.work / "lock", timeout=0):
                bundles = self._make(students, force=force)
                self._clear()
        except Timeout as error:
            raise TrainingError(
                f"{self.out}: another process is training here; wait for it, or give another --out"
            ) from error
        return bundles

    def _clear(self) -> None:
        """Removes what training needed on the way, the lock after all else: from then on another process may begin here."""
        for path in self.work.iterdir():
            if path.is_dir():
                with suppress(StorageError):
                    remove_folder(path)
        with suppress(OSError):
            (self.work / "lock").unlink()
            self.work.rmdir()

    def _make(self, students: Sequence[str], *, force: bool) -> dict[str, Bundle]:
        from distill.student.ship import ship_encoder
        from distill.student.vectors import lexicon
        from distill.student.weights import load_base_model

        self._say_what_is_not_held_out()
        if self.show_progress:
            self._say_the_recipe(students)
        base = load_base_model(self.base_model)
        if "encoder" in students:
            _check_fits_a_file(base)
        words = lexicon(base, self.training.texts, self.static_recipe.dimension)  # before an encoder trains it in place
        if is_first_process():
            self._forget(all_of_it=force)
        wait_for_all()
        lesson = self._lesson(base)
        bundles: dict[str, Bundle] = {}
        if self.is_alone:
            say(
                f"train: an encoder would take more than {self.budget_minutes:g} minutes; static learns from the labels alone"
            )
            return self._make_static(base, lesson, words, None, [])
        new_texts = self._new_texts(words)
        encoder, temperature, answers = self._learn_encoders(base, lesson, new_texts, answer_all="static" in students)
        if "encoder" in students and is_first_process():
            shipment = self._shipment("encoder", base, temperature)
            with Progress("export encoder", 1, "bundles", show=self.show_progress) as progress:
                bundles["encoder"] = ship_encoder(encoder, shipment, self.work / "bundle", self.out / "encoder")
                progress.advance()
        if "static" in students:
            more_texts = self._more_texts(words, new_texts)
            mean = self._mean_answers(answers, encoder, base, more_texts, lesson.max_length)
            del answers
            bundles |= self._make_static(base, lesson, words, mean, [*new_texts, *more_texts])
        return bundles

    def _say_what_is_not_held_out(self) -> None:
        if not self.held_out.texts:
            is_given = any(example.split == "held_out" for example in self.data.examples)
            why = (
                "every held-out query is trained on too"
                if is_given
                else f"{len(self.training.texts)} labelled queries are too few to hold any out"
            )
            say(f"train: {why}; probabilities are not calibrated and no threshold is fitted")
            return
        if self._n_calibrating < FEWEST_EXAMPLES:
            say(f"train: {self._n_calibrating} held-out queries with a label are too few to calibrate probabilities on")
        if not self.data.task.is_mixture:
            taught, held_out = (_known_labels(self.data.task, part.targets) for part in (self.training, self.held_out))
            names = [self.data.labels[number] for number in np.flatnonzero(taught & ~held_out)]
            if names:
                say(
                    f"train: no held-out query has the label {_named(names)}; calibration and thresholds take no account of it"
                )

    @property
    def _n_calibrating(self) -> int:
        """Held-out queries that tell of probabilities: where they sum to 1, a query of no label does not."""
        if not self.data.task.sums_to_one:
            return len(self.held_out.texts)
        return int(np.count_nonzero(self.held_out.targets[:].any(axis=1)))

    def _say_the_recipe(self, wanted: Sequence[str]) -> None:
        from distill.student.trainer import bfloat16_is_fast

        recipe, students, minutes = self.encoder_recipe, [], self.estimated_minutes(wanted)
        if not self.is_alone:
            teachers = self.assistant_model if recipe.larger else f"{recipe.assistants} of its own kind"
            taught = f"assisted by {teachers}" if recipe.assistants else "from the labels alone"
            if recipe.more_texts:
                taught += f", from up to {recipe.augmentation * len(self.training.texts) + recipe.more_texts:,} varied texts too"
            students.append(f"encoder {taught}, {recipe.again().epochs if recipe.assistants else recipe.epochs} passes")
        if "static" in wanted:
            static = self.static_recipe
            n_new = (
                static.more_texts
                if self.is_alone
                else self._times * len(self.training.texts) + static.more_texts + recipe.more_texts
            )
            taught = f"from up to {n_new:,} varied texts too" if n_new else "from the labels alone"
            students.append(f"static {taught}, {static.epochs} passes")
        say(
            f"train: {len(self.training.texts):,} queries, {self._size[1]:,} tokens; {'; '.join(students)}; about {minutes:.1f} minutes on two "
            f"cores (budget_minutes: {self.budget_minutes:g}{', which even this does not keep' if minutes > self.budget_minutes > 0 else ''})"
        )
        if not self.is_alone and minutes >= _MINUTES_WORTH_A_WARNING and not bfloat16_is_fast():
            say(
                "train: this is reckoned for AVX-512 with bfloat16, which this processor lacks: it takes several times as long; "
                "a smaller budget_minutes leaves dearer steps out"
            )
        if left_out := self._left_out(wanted):
            say(f"train: left out to keep to the budget: {', '.join(left_out)}")

    def _left_out(self, wanted: Sequence[str]) -> list[str]:
        """What the budget has no time for."""
        if self.is_alone:
            return ["the encoder and its assistants"]
        recipe, left_out = self.encoder_recipe, []
        if self.assistant_model and not recipe.larger:
            left_out.append(f"the assistant {self.assistant_model}")
        if missing := MOST_ASSISTANTS - recipe.assistants if not recipe.larger else 0:
            left_out.append(f"{missing} of {MOST_ASSISTANTS} assistants of its own kind")
        most = encoder_more_texts(len(self.training.texts))
        if recipe.larger and most > recipe.more_texts:
            left_out.append(f"{most:,} more texts for the encoder")
        if "static" in wanted:
            most = most_more_texts(len(self.training.texts))
            if missing := most - self.static_recipe.more_texts:
                left_out.append(f"{missing:,} of {most:,} more texts for static")
        return left_out

    def _mean_answers(
        self, answers: list[Targets], encoder: Encoder, base: BaseModel, more_texts: list[str], max_length: int
    ) -> Targets:
        """The probabilities that the static student learns: the mean of the ``answers``, then the encoder's about more texts."""
        from distill.student.soft_labels import mean_answer

        temperature = self.static_recipe.assistant_temperature
        mean = mean_answer(self.data.task, answers, temperature)
        if not more_texts:
            return mean
        more = self._ask("encoder", encoder, base, more_texts, max_length)
        return joined([mean, mean_answer(self.data.task, [more], temperature)])

    def _make_static(
        self, base: BaseModel, lesson: Lesson, words: Lexicon, answers: Targets | None, new_texts: list[str]
    ) -> dict[str, Bundle]:
        from distill.student.learn import learn_static
        from distill.student.ship import ship_static

        recipe, kept = self.static_recipe, self._kept("static")
        static, temperature = learn_static(base, answers, new_texts, words, lesson, recipe, kept)
        if not is_first_process():
            return {}
        shipment = self._shipment("static", base, temperature)
        with Progress("export static", 1, "bundles", show=self.show_progress) as progress:
            bundle = ship_static(static, shipment, self.work / "bundle", self.out / "static")
            progress.advance()
        return {"static": bundle}

    def _new_texts(self, words: Lexicon) -> list[str]:
        """Augmented texts, which assistants label once for both students."""
        from distill.student.augment import augment

        if self.students == ("encoder",) and not self.encoder_recipe.assistants:
            return []
        texts = augment(self.training.texts, self._times, self.seed, words.neighbours)
        more = self._beyond(texts, words, self.encoder_recipe.more_texts, self.seed + 2 * _SEEDS_APART)
        return [*texts, *more]

    @property
    def _times(self) -> int:
        """Augmented texts for each training example."""
        times = self.static_recipe.augmentation
        return max(times, self.encoder_recipe.augmentation) if self.encoder_recipe.assistants else times

    def _more_texts(self, words: Lexicon, known: list[str]) -> list[str]:
        """Augmented texts beyond ``known``, which the encoder alone labels for the static student."""
        return self._beyond(known, words, self.static_recipe.more_texts, self.seed + _SEEDS_APART)

    def _beyond(self, known: list[str], words: Lexicon, wanted: int, seed: int) -> list[str]:
        from distill.student.augment import more_texts

        if not wanted:
            return []
        groups = likeliest(self._corrected.targets, 0.0 if self.data.task.sums_to_one else HOLDS).tolist()
        return more_texts(self.training.texts, groups, wanted, seed, words.neighbours, known)

    def _ask(self, name: str, encoder: Encoder, base: BaseModel, texts: list[str], max_length: int) -> Targets:
        """The logits that an encoder of ``base``, which ``name`` is kept by, gives texts."""
        from distill.student.soft_labels import Assistant, ask
        from distill.student.tokens import bundle_tokenizer

        assistant = Assistant(encoder, bundle_tokenizer(base.tokenizer, max_length))
        kept = self._kept("encoder") / f"answers of {name}"
        return ask(assistant, texts, kept, show_progress=self.show_progress)

    def _learn_encoders(
        self, base: BaseModel, lesson: Lesson, new_texts: list[str], *, answer_all: bool
    ) -> tuple[Encoder, float, list[Targets]]:
        """The encoder, its temperature, and the logits of all that may label training texts and new ones for the static student.

        Where the recipe has assistants, the encoder is born again (Furlanello et al., ICML 2018): it learns from their mean answer as
        well as from the labels, and about varied texts too.
        """
        from distill.student.learn import distilled, learn_encoder
        from distill.student.soft_labels import mean_answer

        recipe, kept = self.encoder_recipe, self._kept("encoder")
        n_known, texts = len(lesson.training.texts), [*lesson.training.texts, *new_texts]
        answers: list[Targets] = []
        if recipe.assistants:
            answers = self._ask_new_assistants(lesson, texts)
            mean = mean_answer(lesson.task, answers, recipe.assistant_temperature)
            chance = np.random.default_rng(self.seed)
            wanted = recipe.augmentation * n_known + recipe.more_texts
            chosen = np.sort(chance.permutation(len(new_texts))[:wanted])
            mean = taken(mean, np.concatenate([np.arange(n_known), n_known + chosen]))
            taught = distilled(lesson.training, [new_texts[each] for each in chosen], mean, recipe.label_share)
            encoder, temperature = learn_encoder(base, replace(lesson, training=taught), recipe.again(), kept)
        else:
            encoder, temperature = learn_encoder(base, lesson, recipe, kept)
        if answer_all:
            answers.append(self._ask("encoder", encoder, base, texts, lesson.max_length))
        return encoder, temperature, answers

    def _ask_new_assistants(self, lesson: Lesson, texts: list[str]) -> list[Targets]:
        """Trains the assistants one after the other, so that one at a time is in memory, and gives their logits about texts."""
        from distill.student.learn import learn_encoder
        from distill.student.weights import load_base_model

        recipe, kept = self.encoder_recipe, self._kept("encoder")
        answers: list[Targets] = []
        for number in range(recipe.assistants):
            base = (
                load_base_model(self.assistant_model, key="assistant_model")
                if recipe.larger and self.assistant_model
                else load_base_model(self.base_model)
            )
            own = replace(
                lesson,
                seed=lesson.seed + _SEEDS_APART * number,
                max_length=min(lesson.max_length, base.max_length),
            )
            name = f"assistant {number + 1}"
            encoder, _ = learn_encoder(base, own, recipe.assistant(number), kept, name)
            answers.append(self._ask(name, encoder, base, texts, own.max_length))
        return answers

    def _kept(self, student: str) -> Path:
        """Folder of what an interrupted training of this data, recipe and seed left."""
        fingerprint = sha256_json([self.data.data_sha256, self.recipe_sha256(student), self.seed])
        return self.work / f"{student}-{fingerprint[:16]}"

    def _forget(self, *, all_of_it: bool) -> None:
        """Removes what other trainings left, or, to train anew, everything."""
        from distill.student.ship import put_back

        put_back(self.work / "bundle", self.out)
        keep = set() if all_of_it else {self._kept(student).name for student in STUDENTS}
        with storage_errors(self.work):
            for path in self.work.iterdir():
                if path.is_dir() and path.name not in keep:
                    remove_folder(path)

    @cached_property
    def _corrected(self) -> Part:
        """What trains, with its labels put right where they mislead."""
        from distill.student.correct import corrected

        models = [self.base_model]
        if self.encoder_recipe.larger and self.assistant_model and not self.is_alone:
            models.append(self.assistant_model)
        kept = self._kept("encoder") / "labels.safetensors"
        return corrected(self.training, self.data.task, models, MAX_LENGTH, kept, show_progress=self.show_progress)

    @property
    def _n_corrected(self) -> int:
        """Training queries whose best label was held for wrong."""
        if self._corrected is self.training:
            return 0
        best = (likeliest(part.targets) for part in (self.training, self._corrected))
        return int(np.count_nonzero(np.not_equal(*best)))

    def _lesson(self, base: BaseModel) -> Lesson:
        from distill.student.learn import Lesson

        return Lesson(
            task=self.data.task,
            n_labels=len(self.data.labels),
            training=self._corrected,
            held_out=self.held_out,
            max_length=self._max_length(base),
            seed=self.seed,
            show_progress=self.show_progress,
        )

    def _shipment(self, student: str, base: BaseModel, temperature: float) -> Shipment:
        from distill.student.ship import Shipment
        from distill.student.tokens import bundle_tokenizer

        is_static = student == "static"
        max_length = self._max_length(base)
        own = {"max_position_embeddings": max_length} if is_static else {}
        return Shipment(
            student=student,
            name=self.data.name,
            task=self.data.task,
            labels=self.data.labels,
            intents=self.data.intents,
            teacher=self.data.teacher,
            base_model=base.name,
            config={"model_type": "bert", "vocab_size": base.tokenizer.get_vocab_size(), **own}
            if is_static
            else base.config,
            tokenizer=bundle_tokenizer(base.tokenizer, max_length, special_tokens=not is_static),
            max_length=max_length,
            held_out_texts=self.held_out.texts,
            held_out_targets=self.held_out.targets[:],
            held_out_weights=self.held_out.weights,
            calibration_texts=self.training.texts[:: -(-len(self.training.texts) // _TEXTS_FOR_RANGES)],
            prompt_sha256=self.data.prompt_sha256,
            data_sha256=self.data.data_sha256,
            recipe_sha256=self.recipe_sha256(student),
            seed=self.seed,
            figures={
                "n_train": len(self.training.texts),
                **({"n_corrected": n_corrected} if (n_corrected := self._n_corrected) else {}),
                "n_held_out": len(self.held_out.texts),
                "n_calibrating": self._n_calibrating,
                "temperature": round(temperature, 4),
            },
        )

    def _max_length(self, base: BaseModel) -> int:
        return min(self.encoder_recipe.max_length, base.max_length)
