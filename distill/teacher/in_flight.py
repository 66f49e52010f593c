"""What is asked in batches and not answered yet: the folder ``batches`` beside the ledger says it, a file each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from distill.errors import DataError
from distill.teacher.rounds import project_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from distill.spec import Spec

__all__ = [
    "Asked",
    "Batch",
    "all_open_batches",
    "batches_folder",
    "open_batches",
    "requests_path",
    "state_path",
]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question in a batch. ``key`` is the ledger's, and the request's ``custom_id``; ``shown`` are the labels that may be answered, or none: all."""

    key: str
    text: str
    sample: int = 0
    evidence: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch whose answers are not in the ledger yet, as it is written down.

    Attributes:
        token: Names its files here, and its input file at the provider.
        spec: Name of the file that it was made for; another one may lie in the same folder.
        teacher: The model.
        prompt_sha256: Hash of the settings in which it was asked.
        settings: These, as they stand in a ledger line.
        reserved_usd: What it can cost at most.
        asked: What is asked in it.
        input_file_id: None until it is uploaded.
        batch_id: None until it is created.
    """

    token: str
    spec: str
    teacher: str
    prompt_sha256: str
    settings: Mapping[str, Any]
    reserved_usd: Decimal
    asked: tuple[Asked, ...]
    input_file_id: str | None = None
    batch_id: str | None = None

    @property
    def filename(self) -> str:
        """Of its input file at the provider."""
        return f"distill-{self.token}.jsonl"


def batches_folder(spec: Spec) -> Path:
    """Beside the ledger, which rounds of ``improve`` share."""
    return project_folder(spec) / "batches"


def state_path(spec: Spec, batch: Batch) -> Path:
    """Where a batch is written down until its answers are recorded."""
    return batches_folder(spec) / f"{batch.token}.json"


def requests_path(spec: Spec, batch: Batch) -> Path:
    """Its input file, until it is uploaded."""
    return batches_folder(spec) / f"{batch.token}.requests.jsonl"


def open_batches(spec: Spec) -> list[Batch]:
    """The batches of a spec whose answers are not in the ledger yet.

    Raises:
        DataError: A file in the folder ``batches`` is not what was written there.
    """
    return [batch for batch in all_open_batches(spec) if batch.spec == spec.path.name]


def all_open_batches(spec: Spec) -> list[Batch]:
    """As ``open_batches``, with those of other specs that share the ledger.

    Raises:
        DataError: A file in the folder ``batches`` is not what was written there.
    """
    return [_read_state(path) for path in sorted(batches_folder(spec).glob("*.json"))]


def _read_state(path: Path) -> Batch:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        lists = "evidence", "shown"
        asked = tuple(
            Asked(**(each | {name: tuple(each.get(name, ())) for name in lists})) for each in state.pop("asked")
        )
        return Batch(**{**state, "asked": asked, "reserved_usd": Decimal(state["reserved_usd"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidOperation) as error:
        raise DataError(
            f"{path}: cannot be read as the state of a batch ({error!r}); delete it to give up what is asked in it"
        ) from error
