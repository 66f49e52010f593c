"""What is known before the teacher is asked: the intents' own examples, and queries that people labelled. Gold is never among them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from distill.data import as_known, read_gold
from distill.errors import DataError
from distill.teacher.functions import redactor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distill.spec import Spec
    from distill.types import Intent

__all__ = ["evidence_by_label", "known_examples", "known_intents"]


def known_intents(spec: Spec, *, with_evidence: bool = True) -> tuple[Intent, ...]:
    """Every intent, ``oos`` last where there is one, with all known examples: its own first, then those of ``teacher.evidence``.

    Args:
        spec: The router's spec.
        with_evidence: Whether ``teacher.evidence`` is read.

    Raises:
        DataError: ``teacher.evidence`` is wrong, or is gold; or a known example is a gold query too.
        SpecError: ``teacher.redact``, which its texts pass, cannot be used.
    """
    intents = (*spec.intent_list, *((spec.out_of_scope_intent,) if spec.out_of_scope_intent else ()))
    _check_examples(spec, intents)
    if spec.evidence_path is None or not with_evidence:
        return intents
    more: dict[str, dict[str, None]] = {intent.name: dict.fromkeys(intent.examples) for intent in intents}
    for text, names in _read_evidence(spec, spec.evidence_path).items():
        for name in names:
            more[name][text] = None
    return tuple(replace(intent, examples=tuple(more[intent.name])) for intent in intents)


def evidence_by_label(spec: Spec) -> dict[str, tuple[str, ...]]:
    """The queries of ``teacher.evidence`` by label, without what is an example of the intent's own too; empty where there are none.

    Raises:
        DataError: As ``known_intents``.
    """
    if spec.evidence_path is None:
        return {}
    own = {as_known(text) for each in known_intents(spec, with_evidence=False) for text in each.examples}
    return {
        each.name: tuple(text for text in each.examples if as_known(text) not in own) for each in known_intents(spec)
    }


def _check_examples(spec: Spec, intents: tuple[Intent, ...]) -> None:
    """The examples stand in the prompt: with gold among them, the teacher would be told what it is measured on."""
    if not any(intent.examples for intent in intents):
        return
    gold, redact = _gold_texts(spec), redactor(spec)
    for intent in intents:
        for text in intent.examples:
            if not gold.isdisjoint(_keys(text, redact)):
                raise DataError(
                    f"{spec.path}: {redact(text)!r}, an example of {intent.name!r}, is in {spec.gold_path} too; take it out of one of "
                    "them: what a router is measured on must never help to label it"
                )


def _read_evidence(spec: Spec, path: Path) -> dict[str, list[str]]:
    """Labels by redacted text."""
    if spec.gold_path is not None and path.resolve() == spec.gold_path.resolve():
        raise DataError(f"{path}: is `gold:` too; what a router is measured on must never help to label it")
    gold = _gold_texts(spec)
    redact = redactor(spec)
    found: dict[str, list[str]] = {}
    for number, line in enumerate(read_gold(path, spec.labels, spec.task), 1):
        if not gold.isdisjoint(_keys(line.text, redact)):
            raise DataError(
                f"{path}: query {number}, {redact(line.text)!r}, is in {spec.gold_path} too; take it out of one of them: "
                "what a router is measured on must never help to label it"
            )
        if text := redact(line.text).strip():
            found[text] = [name for name, score in line.target.items() if score > 0]
    return found


def known_examples(spec: Spec) -> list[tuple[str, str]]:
    """Pairs of known query and intent, each query once; those that stand under several intents are left out.

    Raises:
        DataError: As ``known_intents``.
    """
    found: dict[str, dict[str, str]] = {}
    for intent in known_intents(spec):
        for text in intent.examples:
            found.setdefault(as_known(text), {}).setdefault(intent.name, text)
    return [(text, name) for by_name in found.values() if len(by_name) == 1 for name, text in by_name.items()]


def _gold_texts(spec: Spec) -> set[str]:
    if spec.gold_path is None:
        return set()
    redact = redactor(spec)
    return {key for query in read_gold(spec.gold_path, spec.labels, spec.task) for key in _keys(query.text, redact)}


def _keys(text: str, redact: Callable[[str], str]) -> set[str]:
    """By which a text is found, as it stands and as it is sent: what becomes the same by redaction tells the answer too."""
    return {as_known(text), as_known(redact(text)) or as_known(text)}
