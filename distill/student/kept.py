"""Arrays that an interrupted training goes on from, as safetensors files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.data import atomic_write
from distill.student.trainer import checkpoint_errors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    Arrays = Mapping[str, np.ndarray[Any, Any]]

__all__ = ["keep_arrays", "kept_arrays"]


def keep_arrays(file: Path, arrays: Arrays) -> None:
    """Writes arrays by their names, atomically.

    Raises:
        StorageError: They could not be written.
    """
    from safetensors.numpy import save_file

    with checkpoint_errors(file), atomic_write(file) as partial:
        save_file(dict(arrays), str(partial))


def kept_arrays(file: Path) -> Arrays:
    """What ``keep_arrays`` wrote; nothing where it cannot be read, as if it were not there."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: Arrays = load_file(file)
    except (OSError, SafetensorError):
        return {}
    return arrays
