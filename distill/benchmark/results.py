"""bench.json: a ``BenchResult`` as JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from distill.errors import DataError
from distill.types import (
    BenchResult,
    BenchRow,
    GateVerdict,
    IntentFigures,
    Leakage,
    NearPair,
    ReliabilityBin,
    RiskCoverage,
    Task,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["FORMAT", "read_result", "result_as_json", "result_from_json"]

FORMAT = 1
"""Version of bench.json that this code writes, and the newest that it reads."""

_ROW_FIELDS = tuple(field.name for field in fields(BenchRow) if field.name != "notes")
_SIGNIFICANT_DIGITS = 6
_DIGITS_OF = {"ask_below": 9}
"""Of what is set again as it stands here: float32 probabilities differ by as little."""
_TEXT_KEYS = frozenset({"disagreements"})
_LISTS: dict[str, type[Any]] = {
    "gates": GateVerdict,
    "per_intent": IntentFigures,
    "reliability": ReliabilityBin,
    "risk_coverage": RiskCoverage,
}
_T = TypeVar("_T")


def result_as_json(result: BenchResult, *, with_text: bool = True) -> dict[str, Any]:
    """The object of bench.json. A row's notes stand beside its figures; floats have six significant digits, ``ask_below`` nine.

    Args:
        result: What ``run_bench`` found.
        with_text: False leaves out what holds the text of queries.
    """
    value = {
        "format": FORMAT,
        "name": result.name,
        "task": result.task.value,
        "n_gold": result.n_gold,
        "n_in_scope": result.n_in_scope,
        "n_oos": result.n_oos,
        "environment": result.environment,
        "rows": [_row_as_json(row, with_text=with_text) for row in result.rows],
        "cost": result.cost,
        "confusions": result.confusions,
        "cascades": result.cascades,
        "leakage": None if result.leakage is None else _leakage_as_json(result.leakage, with_text=with_text),
        "provenance": result.provenance,
        **{name: [asdict(entry) for entry in getattr(result, name)] for name in _LISTS},
    }
    plain: dict[str, Any] = _plain(value)
    return plain


def _row_as_json(row: BenchRow, *, with_text: bool) -> dict[str, Any]:
    notes = {name: note for name, note in row.notes.items() if with_text or name not in _TEXT_KEYS}
    return {name: getattr(row, name) for name in _ROW_FIELDS} | notes


def _leakage_as_json(leakage: Leakage, *, with_text: bool) -> dict[str, Any]:
    if not with_text:
        leakage = replace(leakage, pairs=tuple(replace(pair, gold="", training="") for pair in leakage.pairs))
    return asdict(leakage)


def _plain(value: Any, digits: int = _SIGNIFICANT_DIGITS) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(entry, _DIGITS_OF.get(name, digits)) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, digits) for entry in value]
    if isinstance(value, float | Decimal):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def result_from_json(value: Mapping[str, Any], where: str = "bench.json") -> BenchResult:
    """The result that ``result_as_json`` described.

    Args:
        value: The object of bench.json.
        where: Its file, for messages.

    Raises:
        DataError: It is of a newer format, or not a benchmark's result.
    """
    version = value.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise DataError(f"{where}: format {version} is newer than this version reads ({FORMAT}); upgrade distill")
    try:
        return BenchResult(
            task=Task(value["task"]),
            name=value.get("name", ""),
            n_gold=value["n_gold"],
            n_in_scope=value["n_in_scope"],
            n_oos=value["n_oos"],
            environment=value["environment"],
            rows=tuple(_row_from_json(row) for row in value["rows"]),
            cost=value.get("cost", {}),
            provenance=_provenance_from_json(value.get("provenance", {})),
            confusions=tuple(value.get("confusions", ())),
            cascades=value.get("cascades", {}),
            leakage=_leakage_from_json(value.get("leakage")),
            **{name: tuple(_read(kind, entry) for entry in value.get(name, ())) for name, kind in _LISTS.items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: not the result of a benchmark ({error!r}); run `distill bench` again") from error


def _read(kind: type[_T], entry: Mapping[str, Any]) -> _T:
    return kind(**{name: tuple(part) if isinstance(part, list) else part for name, part in entry.items()})


def _leakage_from_json(value: Mapping[str, Any] | None) -> Leakage | None:
    if value is None:
        return None
    return Leakage(**{**value, "pairs": tuple(NearPair(**pair) for pair in value["pairs"])})


def _provenance_from_json(value: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(value.get("bundles", {}), dict):
        raise TypeError(f"bundles: {value['bundles']!r}")
    return {**value}


def _row_from_json(row: Mapping[str, Any]) -> BenchRow:
    known = {name: row[name] for name in _ROW_FIELDS if name in row}
    intervals = {name: tuple(known[name]) for name in known if name.endswith("_ci95") and known[name] is not None}
    return BenchRow(**known | intervals, notes={name: note for name, note in row.items() if name not in _ROW_FIELDS})


def read_result(path: Path) -> BenchResult:
    """Reads a bench.json.

    Raises:
        DataError: The file is missing or not a benchmark's result.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); `distill bench` writes it") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: not the result of a benchmark; run `distill bench` again")
    return result_from_json(value, str(path))
