"""distill: turns an LLM prompt that routes queries to intents into a small router, and measures whether it is as good.

The public names. Importing this package loads nothing heavy; ``Router`` brings numpy and onnxruntime when it is first asked for,
tokenizers where a query needs it, and nothing else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from distill.errors import BundleError, DistillError, QueryError
from distill.types import Prediction, Reason, Task

if TYPE_CHECKING:
    from distill.cascade import Cascade
    from distill.router import Router

__all__ = [
    "BundleError",
    "Cascade",
    "DistillError",
    "Prediction",
    "QueryError",
    "Reason",
    "Router",
    "Task",
    "__version__",
]

__version__ = "0.1.0"

# ONNX Runtime's official builds send what they do to their maker and keep a device id in the home folder; a forked process
# waits for that at its end, for ever. It is read when onnxruntime is imported (its Privacy.md).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> Any:
    if name == "Router":
        from distill.router import Router

        return Router
    if name == "Cascade":
        from distill.cascade import Cascade

        return Cascade
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
