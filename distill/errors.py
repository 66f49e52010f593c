"""The error family of distill.

Everything that goes wrong because of what a user gave, or of what a server or a disk did, is a ``DistillError`` with one
clear line. The CLI prints that line and exits with 1; anything else is a bug and keeps its traceback.

    DistillError
    ├── SpecError               router.yaml is wrong (names file, line and a hint)
    ├── DataError               a data file is wrong (names file and line)
    │   └── LedgerError         the ledger is damaged, or another process is writing to it
    ├── StorageError            a file could not be written: the disk is full, or it may not be written to
    ├── MissingExtraError       an optional dependency is not installed (names the extra)
    ├── TeacherError            the teacher could not answer
    │   ├── MissingKeyError     the API key's environment variable is not set
    │   └── SpendLimitError     ``teacher.max_usd`` is reached; everything answered so far is kept
    │       └── UnknownSpendError   it cannot be kept, as what was spent is not known
    ├── TrainingError           a student could not be trained
    │   └── ExportError         the exported graph does not match the model it came from
    ├── BundleError             a model directory is missing, incomplete, altered or of a newer format
    ├── QueryError              what was given to the Router is not a query
    └── GateError               ``bench --check``, ``run --check``: a gate is broken
"""

from __future__ import annotations

__all__ = [
    "DISTRIBUTION",
    "BundleError",
    "DataError",
    "DistillError",
    "ExportError",
    "GateError",
    "LedgerError",
    "MissingExtraError",
    "MissingKeyError",
    "QueryError",
    "SpecError",
    "SpendLimitError",
    "StorageError",
    "TeacherError",
    "TrainingError",
    "UnknownSpendError",
    "first_line",
    "missing_extra",
]

DISTRIBUTION = "distill-router"
"""Name under which the package is installed."""


class DistillError(Exception):
    """Base of every error that a user can cause or mend."""


class SpecError(DistillError):
    """router.yaml is wrong."""


class DataError(DistillError):
    """A data file is wrong."""


class LedgerError(DataError):
    """The ledger is damaged, or another process is writing to it."""


class StorageError(DistillError):
    """A file could not be written."""


class MissingExtraError(DistillError):
    """An optional dependency is not installed."""


class TeacherError(DistillError):
    """The teacher could not answer."""


class MissingKeyError(TeacherError):
    """The API key's environment variable is not set."""


class SpendLimitError(TeacherError):
    """The spend limit is reached; everything answered so far is kept."""


class UnknownSpendError(SpendLimitError):
    """The spend limit cannot be kept: a price is not known, or tokens were not counted."""


class TrainingError(DistillError):
    """A student could not be trained."""


class ExportError(TrainingError):
    """The exported graph does not match the model it came from."""


class BundleError(DistillError):
    """A model directory is missing, incomplete, altered or of a newer format."""


class QueryError(DistillError, TypeError):
    """What was given to the Router is not a query."""


class GateError(DistillError):
    """A benchmark gate is broken."""


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line: its first, or the error's kind where it says nothing."""
    try:
        said = str(error).strip().splitlines()
    except Exception:  # noqa: BLE001 - anybody's class, which may fail at its own message
        said = []
    return (said or [type(error).__name__])[0]


def missing_extra(module: str) -> MissingExtraError:
    """The error for a module that is not installed: names the extra which brings it.

    The extra is read from the installed distribution's own metadata, so that the hint cannot go stale.

    Args:
        module: Import name of the module that was not found, such as ``torch`` or ``yaml``.
    """
    import re
    from importlib import metadata

    project_names = {"yaml": "pyyaml", "sklearn": "scikit-learn", "genai_prices": "genai-prices", "svg": "svg-py"}
    root = module.split(".", maxsplit=1)[0]
    wanted = project_names.get(root, root).replace("_", "-").lower()
    distribution = metadata.metadata(DISTRIBUTION)
    for requirement in distribution.get_all("Requires-Dist") or []:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if name and extra and name.group().replace("_", "-").lower() == wanted:
            package = distribution["Name"]
            return MissingExtraError(
                f"{root} is not installed; this step needs it: pip install '{package}[{extra.group(1)}]'"
            )
    return MissingExtraError(f"{root} is not installed: pip install {wanted}")
