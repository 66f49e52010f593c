"""Data files: JSONL in and out, gold, the leakage check."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import threading
import unicodedata
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.errors import DataError, LedgerError, StorageError
from distill.types import OUT_OF_SCOPE_LABEL, GoldQuery, Label, Query, Task, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "as_known",
    "atomic_write",
    "canonical_json",
    "csv_delimiter",
    "csv_fields_up_to",
    "keep_mode",
    "label_as_line",
    "leaked",
    "ledger_key",
    "normalise",
    "read_gold",
    "read_jsonl",
    "read_labels",
    "read_queries",
    "remove_folder",
    "sha256_bytes",
    "sha256_file",
    "sha256_json",
    "storage_errors",
    "swap_folder",
    "text_of",
    "unknown_label",
    "with_whole_characters",
    "write_json",
    "write_jsonl",
]


def csv_delimiter(header: str) -> str:
    """What parts the columns of a table: of comma, semicolon, tab and bar the one that stands in its header most often, quotes apart."""
    return max(",;\t|", key=re.sub('"[^"]*"', "", header).count)


_HASHED_AT_ONCE = 1 << 18
"""Bytes."""
_csv_limit = threading.Lock()


@contextmanager
def csv_fields_up_to(n_characters: int) -> Iterator[None]:
    """Lets ``csv`` read fields as long as this. Its limit is the whole process's, so it is put back."""
    import csv

    with _csv_limit:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, n_characters))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no white space and plain Unicode: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256_bytes(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return str(_sha256(content).hexdigest())


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return sha256_bytes(canonical_json(value).encode())


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    found = _sha256()
    with path.open("rb") as stream:
        while part := stream.read(_HASHED_AT_ONCE):
            found.update(part)
    return str(found.hexdigest())


def _sha256(content: bytes = b"") -> Any:
    """Python's own, as in the standard library's ``random``, unless OpenSSL is loaded or will be: it is three times as fast, and takes 4 MB."""
    if "hashlib" not in sys.modules and not _is_nanotoken_installed():
        for module in ("_sha2", "_sha256"):  # since Python 3.12, and before
            with suppress(ImportError, AttributeError):
                return import_module(module).sha256(content)
    from hashlib import sha256

    return sha256(content)


@lru_cache(maxsize=1)
def _is_nanotoken_installed() -> bool:
    """Which loads OpenSSL with every bundle."""
    with suppress(ValueError):  # what stands in for a module may have no specification
        return find_spec("nanotoken") is not None
    return False


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an ``OSError`` while writing to ``path`` into one clear line.

    Raises:
        StorageError: The disk is full, or the file may not be written.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``, or beside what a link leads to, and moves it there when the block ends without an error.

    A device or a pipe, such as /dev/stdout, is given itself: a file in its place would be the end of it. A link stays
    one, and what is replaced passes on its mode.

    Raises:
        StorageError: The disk is full, or the file may not be written; what stood at ``path`` is untouched.
    """
    with storage_errors(path):
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        # not the process id alone: two containers with one volume are both process 1
        partial = target.with_name(f"{target.name}.{os.getpid()}-{os.urandom(4).hex()}.partial")
        if _is_stream(path):
            yield path
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if target.is_file():
                partial.touch(mode=0o600)  # what was made private is so while it is written, too
            yield partial
            keep_mode(target, partial)
            partial.replace(target)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()


def keep_mode(target: Path, partial: Path) -> None:
    """Gives the new file the rights of the one whose place it takes: a file that was made private stays so."""
    with suppress(OSError):  # nothing is to be replaced, or a file system without rights
        partial.chmod(target.stat().st_mode & 0o7777)


def _is_stream(path: Path) -> bool:
    """Whether it is a device or a pipe, or leads to one of a process's own streams, which may be a file."""
    names = [str(path.absolute()), *([str(path.readlink())] if path.is_symlink() else [])]
    if any(name.startswith(("/dev/std", "/dev/fd/", "/proc/")) for name in names):
        return True
    return path.exists() and not (path.is_file() or path.is_dir())


def remove_folder(path: Path) -> None:
    """Removes a folder and all in it, where there is one; of a link to a folder the link alone.

    Raises:
        StorageError: It cannot be removed.
    """
    with storage_errors(path):
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            from shutil import rmtree  # who only routes removes nothing, and need not hold it

            rmtree(path)


def swap_folder(source: Path, target: Path, aside: Path) -> None:
    """Moves a finished folder to where another may stand; a reader never sees half of one, and where it fails the old one stays.

    Args:
        source: The new folder.
        target: Its place.
        aside: Where the old one goes, in the place of whatever is there.

    Raises:
        StorageError: It cannot be moved.
    """
    remove_folder(aside)
    with storage_errors(target):
        stood = target.exists()
        if stood:
            target.replace(aside)
        try:
            source.replace(target)
        except BaseException:
            if stood and not target.exists():
                with suppress(OSError):
                    aside.replace(target)
            raise


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically, as UTF-8 with a newline at the end."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_jsonl(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object a line, atomically."""
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def read_jsonl(path: Path, *, skip_torn: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and object of each line; blank lines are passed over.

    Args:
        path: The file, UTF-8, with or without a byte order mark.
        skip_torn: Passes over a broken last line without a newline: what a killed writer left.

    Raises:
        DataError: The file is missing, not UTF-8, or a line is not a JSON object.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    lines = content.split(b"\n")
    if skip_torn and not _is_json(lines[-1]):
        lines.pop()
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        try:
            value = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: not a JSON object: {error}") from error
        if not isinstance(value, dict):
            raise DataError(
                f'{path}:{number}: expected a JSON object such as {{"text": ...}}, found {type(value).__name__}'
            )
        yield number, value


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def text_of(path: Path, number: int, line: dict[str, Any]) -> str:
    """The text of one line of a JSONL file.

    Raises:
        DataError: There is none, or it has no UTF-8.
    """
    text = line.get("text")
    if "text" not in line:
        raise DataError(f'{path}:{number}: has no "text"; its keys: {", ".join(map(str, line)) or "none"}')
    if not isinstance(text, str):
        raise DataError(f'{path}:{number}: "text" must be a string, found {text!r}')
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{path}:{number}: the text holds half a surrogate pair ({text!r}); mend or remove it"
        ) from error
    return text


def read_queries(path: Path) -> list[Query]:
    """Queries to be labelled; repeated and blank texts are left out.

    Raises:
        DataError: As ``read_jsonl``; or a line without a text.
    """
    queries: dict[str, Query] = {}
    for number, line in read_jsonl(path):
        text = text_of(path, number, line)
        if text.strip():
            query = Query(
                id=str(line.get("id", number)),
                text=text,
                source=str(line.get("source", "logs")),
                intended_intent=line.get("intended_intent"),
            )
            queries.setdefault(unicodedata.normalize("NFC", text), query)
    return list(queries.values())


def _target(path: Path, number: int, line: dict[str, Any], task: Task | None) -> dict[str, float]:
    keys = _LABEL_KEYS.values() if task is None else [_LABEL_KEYS[task]]
    given = {key: line[key] for key in keys if key in line}
    match given:
        case {"intent": str(name)}:
            return {name: 1.0}
        case {"intents": list(names)} if all(isinstance(name, str) for name in names):
            return dict.fromkeys(names, 1.0)
        case {"weights": dict(weights)}:
            return _weights(path, number, weights)
    expected = " or ".join(f'"{key}": {_LABEL_FORMS[key]}' for key in given or keys)
    found = ", ".join(f'"{key}": {json.dumps(value)}' for key, value in given.items()) or "none of them"
    raise DataError(f'{path}:{number}: no label; expected {expected} beside "text", found {found}')


_LARGEST = sys.float_info.max


def _weights(path: Path, number: int, weights: dict[str, Any]) -> dict[str, float]:
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= _LARGEST:
            raise DataError(f"{path}:{number}: the weight of {name!r} must be a number from 0 on, found {weight!r}")
    largest = max(weights.values(), default=0)
    if not largest:
        raise DataError(f"{path}:{number}: the weights are all 0")
    shares = {name: weight / largest for name, weight in weights.items()}  # first by the largest: the sum may overflow
    total = math.fsum(shares.values())
    return {name: abs(share / total) for name, share in shares.items()}  # -0.0 is 0


_LABEL_KEYS = {Task.SINGLE: "intent", Task.MULTI: "intents", Task.WEIGHTS: "weights"}
_LABEL_FORMS = {"intent": "name", "intents": "[names]", "weights": "{name: weight}"}


def read_gold(path: Path, labels: Sequence[str] | None = None, task: Task | None = None) -> list[GoldQuery]:
    """Human-labelled queries.

    Args:
        path: JSONL with ``text`` and ``intent``, ``intents`` or ``weights``.
        labels: The labels that may occur; None takes any.
        task: What the labels must be; None takes any.

    Raises:
        DataError: As ``read_jsonl``; or a line without a text or label, or with a label that does not exist.
    """
    gold, known = [], frozenset(labels or ())
    for number, line in read_jsonl(path):
        if task is not None and _LABEL_KEYS[task] not in line:
            raise DataError(f'{path}:{number}: `task: {task.value}` needs "{_LABEL_KEYS[task]}" beside "text"')
        text, target = text_of(path, number, line), _target(path, number, line, task)
        for name in target:
            if labels is not None and name not in known:
                raise DataError(f"{path}:{number}: {unknown_label(name, labels, task)}")
        gold.append(GoldQuery(text=text, target=target))
    if not gold:
        raise DataError(f"{path}: holds no query")
    return gold


_FITS_NONE = frozenset({"out of scope", "outofscope", "out of domain", "ood", "none", "no intent", "none of these"})


def with_whole_characters(value: Any) -> Any:
    """What YAML holds, with whole characters: of an emoji that is written as JSON escapes, PyYAML makes two halves.

    Raises:
        UnicodeDecodeError: There is half a one alone, which is a ``ValueError``.
    """
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16")
    if isinstance(value, dict):
        return {with_whole_characters(key): with_whole_characters(each) for key, each in value.items()}
    if isinstance(value, list):
        return [with_whole_characters(each) for each in value]
    return value


def unknown_label(name: Any, labels: Sequence[str], task: Task | None = Task.SINGLE) -> str:
    """What is said of a name that is no label, with the label that was probably meant."""
    task = task or Task.SINGLE
    if not task.sums_to_one and (name == OUT_OF_SCOPE_LABEL or normalise(str(name)) in _FITS_NONE):
        return f"the intent {name!r} does not exist; a query that fits none has an empty list of intents"
    if not task.is_mixture and name == OUT_OF_SCOPE_LABEL:
        return f"the intent {name!r} needs `out_of_scope: true` in router.yaml"
    if not task.is_mixture and normalise(str(name)) in _FITS_NONE:
        return f"the intent {name!r} does not exist; a query that fits none is {OUT_OF_SCOPE_LABEL!r}"
    near = _nearest_name(str(name), tuple(labels))
    hint = f"; did you mean {near!r}?" if near else f"; it is none of the {len(labels)} labels there are"
    return f"the {'channel' if task.is_mixture else 'intent'} {name!r} does not exist{hint}"


@lru_cache(maxsize=1_000)
def _nearest_name(name: str, labels: tuple[str, ...]) -> str | None:
    """Kept, as what a teacher says wrongly it says often, and among many labels this takes long."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, labels, n=1)), None)


_NOT_WORD = re.compile(r"[\W_]+")
_MARKS = frozenset({"Mn", "Mc"})
"""Categories of signs that belong to a letter: vowels of Hindi and tones of Thai are such."""
_VARIATION_SELECTORS = range(0xFE00, 0xFE10)


def normalise(text: str) -> str:
    """Text without case, punctuation and repeated white space: two texts that agree here are the same query.

    Of emoji and punctuation alone nothing is left.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    if not plain.isascii():
        plain = "".join(each if each.isalnum() or _is_mark(each) else " " for each in plain)
        return " ".join(plain.split())
    return _NOT_WORD.sub(" ", plain).strip()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in _MARKS and ord(character) not in _VARIATION_SELECTORS


def read_labels(path: Path) -> Iterator[Label]:
    """Every answer of a ledger, in the file's order.

    A last line without a newline is what a killed writer left; it is passed over unless it is whole.

    Raises:
        LedgerError: A line is not an answer.
    """
    if not path.exists():
        return
    try:
        stream = path.open("rb")
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read ({error.strerror or error})") from error
    known: dict[Any, Any] = {}
    with stream:
        for number, raw in enumerate(stream, 1):
            try:
                yield _label(json.loads(raw), known)
            except (ValueError, ArithmeticError, KeyError, TypeError, AttributeError, RecursionError) as error:
                if not raw.strip() or not raw.endswith(b"\n"):
                    continue
                raise LedgerError(f"{path}:{number}: not a ledger line ({error!r}); remove it to go on") from error


_LABEL_FIELDS = {
    "key", "text", "scores", "error", "teacher", "prompt_sha256", "sample", "prompt_tokens", "completion_tokens",
    "cached_tokens", "latency_ms", "asked_at",
}  # fmt: skip


def _label(line: dict[str, Any], known: dict[Any, Any]) -> Label:
    """The answer in a line. What many lines have in common is kept in ``known`` and shared: a ledger may have a million."""
    key, text, teacher, prompt_sha256 = line["key"], line["text"], line["teacher"], line["prompt_sha256"]
    if not (
        isinstance(key, str) and isinstance(text, str) and isinstance(teacher, str) and isinstance(prompt_sha256, str)
    ):
        raise TypeError("key, text, teacher and prompt_sha256 must be strings")
    scores = line.get("scores")
    counts = line.get("prompt_tokens"), line.get("completion_tokens"), line.get("cached_tokens")
    usage = Usage(*[None if count is None else int(count) for count in counts])
    return Label(
        key=key,
        text=text,
        scores=None if scores is None else _shared({str(name): float(score) for name, score in scores.items()}, known),
        error=line.get("error"),
        teacher=known.setdefault(teacher, teacher),
        prompt_sha256=known.setdefault(prompt_sha256, prompt_sha256),
        sample=line.get("sample", 0),
        usage=known.setdefault(usage, usage),
        latency_ms=line.get("latency_ms"),
        asked_at=line.get("asked_at", ""),
        extra=_shared({name: value for name, value in line.items() if name not in _LABEL_FIELDS}, known),
    )


_MOST_SHARED = 10_000


def _shared(value: dict[str, Any], known: dict[Any, Any]) -> dict[str, Any]:
    """``value``, or an equal dictionary that came before it; dictionaries in it likewise."""
    parts = {name: _shared(part, known) if type(part) is dict else part for name, part in value.items()}
    values = parts.values()
    identity = (*parts, *map(type, values), *[id(part) if type(part) is dict else part for part in values])
    with suppress(TypeError):  # a list is in it
        parts = known.setdefault(identity, parts) if len(known) < _MOST_SHARED else known.get(identity, parts)
    return parts


def label_as_line(label: Label) -> dict[str, Any]:
    """The ledger line of an answer; ``read_labels`` gives the answer back."""
    line: dict[str, Any] = {"key": label.key, "text": label.text}
    if label.scores is not None:
        line["scores"] = dict(label.scores)
    if label.error is not None:
        line["error"] = label.error
    line |= {
        "teacher": label.teacher,
        "prompt_sha256": label.prompt_sha256,
        "sample": label.sample,
        "prompt_tokens": label.usage.prompt_tokens,
        "completion_tokens": label.usage.completion_tokens,
        "cached_tokens": label.usage.cached_tokens,
        "latency_ms": label.latency_ms,
        "asked_at": label.asked_at,
    }
    return line | dict(label.extra)


def ledger_key(model: str, prompt_sha256: str, text: str, sample: int = 0) -> str:
    """Key of an answer: SHA-256 of canonical JSON ``[model, prompt_sha256, NFC text, sample]``."""
    return sha256_json([model, prompt_sha256, unicodedata.normalize("NFC", text), sample])


def leaked(texts: Iterable[str], gold: Iterable[GoldQuery]) -> list[str]:
    """The texts that are also gold queries, but for case and punctuation."""
    known = {as_known(query.text) for query in gold}
    return [text for text in texts if as_known(text) in known]


def as_known(text: str) -> str:
    """By which a text is found among others: normalised, or its emoji and other symbols where nothing would be left."""
    return normalise(text) or "".join(each for each in text if unicodedata.category(each)[0] == "S")
