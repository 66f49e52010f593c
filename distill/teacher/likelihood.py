"""Soft labels from log-probabilities: how likely each label was where the answer names one, in one request.

A name is several tokens, and several names may begin alike. So the answer is walked token by token: what the model gave the other tokens at a
step goes to the labels that could still have come of them (shares alike where there are several), and the rest goes on to the next step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["TOP_LOGPROBS", "Token", "label_probabilities", "read_tokens"]

TOP_LOGPROBS = 20
"""Alternatives asked for at each token: the most that OpenAI's API gives."""

_SMALLEST = 1e-4


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer.

    Attributes:
        text: Its bytes: a character may be spread over several tokens.
        probability: That the model gave it.
        others: The likeliest other tokens at its place, with their probabilities.
    """

    text: bytes
    probability: float
    others: tuple[tuple[bytes, float], ...] = ()


def read_tokens(choice: Any) -> tuple[Token, ...]:
    """The tokens of a chat completion's choice; none where the server gives no log-probabilities, or not in OpenAI's form."""
    try:
        return tuple(_token(each) for each in choice.logprobs.content)
    except (AttributeError, TypeError, ValueError, OverflowError):
        return ()


def _token(each: Any) -> Token:
    text = _bytes(each)
    others = tuple((_bytes(other), math.exp(other.logprob)) for other in each.top_logprobs or ())
    return Token(text, math.exp(each.logprob), tuple(pair for pair in others if pair[0] != text))


def _bytes(token: Any) -> bytes:
    return str(token.token).encode() if token.bytes is None else bytes(token.bytes)


def label_probabilities(tokens: Sequence[Token], label: str, names: Mapping[str, str | None]) -> dict[str, float]:
    """How likely each label was, given that the answer names one.

    Args:
        tokens: Of the whole answer.
        label: The label that the answer names.
        names: Every spelling that it may answer with, and the label that it stands for.

    Returns:
        Probabilities that sum to about 1, without those under 0.0001; 1 for ``label`` alone where the answer does not show plainly at which
        tokens it is named.
    """
    answer = b"".join(token.text for token in tokens)
    spelt = [name.encode() for name, own in names.items() if own == label]
    found = _place(answer, spelt)
    if found is None:
        return {label: 1.0}
    start, stop = found
    labels = {name.encode(): own for name, own in names.items() if own is not None}
    ends = list(accumulate(len(token.text) for token in tokens))
    mass: dict[str, float] = defaultdict(float)
    reach = 1.0
    # the token that begins where the name ends is walked too: there the name might have gone on to a longer one
    for token, end in zip(tokens, ends, strict=True):
        begin = end - len(token.text)
        if end <= start or begin > stop:
            continue
        others = list(_shares(token.others, answer[begin:start], answer[start : max(begin, start)], labels))
        whole = token.probability + sum(share for _, share in others)
        if not whole:
            continue
        for other, share in others:
            mass[other] += reach * share / whole
        reach *= token.probability / whole
    mass[label] += reach
    total = sum(mass.values())
    rounded = {name: round(each / total, 4) for name, each in mass.items()}
    return {name: each for name, each in sorted(rounded.items(), key=lambda pair: -pair[1]) if each >= _SMALLEST}


def _place(answer: bytes, names: Iterable[bytes]) -> tuple[int, int] | None:
    """Where the name stands: alone, or between quotation marks and there once; None where that is not plain."""
    for name in names:
        if answer.strip() == name:
            start = answer.index(name)
            return start, start + len(name)
    quoted = [name for name in names if b'"' + name + b'"' in answer]
    if len(quoted) != 1 or answer.count(b'"' + quoted[0] + b'"') != 1:
        return None
    start = answer.index(b'"' + quoted[0] + b'"') + 1
    return start, start + len(quoted[0])


def _shares(
    others: Iterable[tuple[bytes, float]], lead: bytes, before: bytes, labels: Mapping[bytes, str]
) -> Iterable[tuple[str, float]]:
    """What other tokens at a step give to which labels.

    Args:
        others: These tokens with their probabilities.
        lead: What of the answer's own token stands before the name, such as a quotation mark.
        before: What of the name came before this token.
        labels: Label by spelling.
    """
    for text, probability in others:
        if text.startswith(lead):
            rest = text[len(lead) :]
        elif not before and not lead.strip():
            rest = text.lstrip()
        else:
            continue
        if not before and not lead:
            rest = rest.lstrip()
        fitting = dict.fromkeys(labels[name] for name in _fitting(before + rest, labels)) if rest else {}
        for label in fitting:
            yield label, probability / len(fitting)


def _fitting(text: bytes, labels: Mapping[bytes, str]) -> list[bytes]:
    """The spellings that an answer which begins so can still come to: those that go on from it, or the one that it has passed."""
    going_on = [name for name in labels if name.startswith(text)]
    passed = max((name for name in labels if text.startswith(name)), key=len, default=None)
    ended = passed is not None and not text[len(passed) :][:1].isalnum() and text[len(passed) :][:1] not in (b"_", b"-")
    return going_on or ([passed] if passed is not None and ended else [])
