"""The bundle: a folder that is the whole contract between training and runtime.

    manifest.json          what it is, which files belong to it (SHA-256), and the figures it was measured at
    config.json  tokenizer.json  tokenizer_config.json  README.md
    onnx/model.onnx        fp32; onnx/model_quantized.onnx  int8, where it passed its gate
    selfcheck.jsonl        texts with the ids and logits they must give

No pickle, no code, no path of the machine it was made on, no user's text. The manifest is written last: a folder
without one is not a bundle, whatever else lies in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from distill.data import canonical_json, sha256_bytes, sha256_file, write_json
from distill.errors import DISTRIBUTION, BundleError
from distill.types import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Mark = tuple[int, ...]

__all__ = [
    "CONFIG",
    "FORMAT",
    "MANIFEST",
    "ONNX_FP32",
    "ONNX_INT8",
    "SELFCHECK",
    "TOKENIZER",
    "Bundle",
    "Manifest",
    "check_graph",
    "is_in_place",
    "load_bundle",
    "mark_of",
    "mark_of_file",
    "seal",
]

FORMAT = 2
"""Version of the layout and of manifest.json that this code writes, and the newest that it reads."""

MANIFEST = "manifest.json"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
SELFCHECK = "selfcheck.jsonl"
ONNX_FP32 = "onnx/model.onnx"
ONNX_INT8 = "onnx/model_quantized.onnx"

_REQUIRED = (CONFIG, TOKENIZER, SELFCHECK)
_TOKENIZER_CONFIG = "tokenizer_config.json"
_LAYOUT = (*_REQUIRED, _TOKENIZER_CONFIG, ONNX_FP32, ONNX_INT8)
_STUDENTS = ("encoder", "static")
_MINIMUM_LABELS = 2
_ID_LENGTH = 16
_OPTIONAL = (
    "base_model", "versions", "figures", "bundle_id", "created_at", "teacher", "prompt_sha256", "data_sha256", "recipe_sha256",
    "seed", "parent",
)  # fmt: skip
_NUMBERS = ("n_", "held_out_")
"""How the figures start that are reckoned with."""
_COUNTING = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The content of manifest.json.

    Attributes:
        name: Name of the router, as in router.yaml.
        student: ``encoder`` or ``static``.
        task: What the labels mean.
        labels: Label names in logit order; for ``single`` a last label ``oos`` means out of scope.
        policy: Thresholds, as ``Policy.as_dict`` gives them.
        onnx_file: Which graph the runtime loads: ``onnx/model.onnx`` or ``onnx/model_quantized.onnx``.
        max_length: Longest query, in tokens, special tokens included; the rest of a longer one is cut off.
        teacher: Name of the model or callable that labelled the training queries.
        base_model: Name of the pretrained transformer, such as ``org/name``; of one in a local folder the folder's name, never its
            path. Empty where it is not known.
        prompt_sha256: Hash of the teacher's prompt.
        data_sha256: Hash of what was trained on.
        recipe_sha256: Hash of what training depended on besides the data.
        seed: Seed of the training run.
        parent: ``bundle_id`` of the bundle that this one improves upon, or None.
        versions: Versions of the libraries that made it.
        figures: What it was measured at: held-out figures, int8 flips, parity and the like.
        files: SHA-256 of each file, by path with forward slashes. Filled in by ``seal``.
        bundle_id: First 16 hexadecimal digits of the SHA-256 of all of the above. Filled in by ``seal``.
        created_at: ISO 8601, UTC. Not part of ``bundle_id``. Filled in by ``seal`` where empty.
        format: Version of the layout.
    """

    name: str
    student: str
    task: Task
    labels: tuple[str, ...]
    policy: Mapping[str, Any]
    onnx_file: str
    max_length: int
    teacher: str = ""
    base_model: str = ""
    prompt_sha256: str = ""
    data_sha256: str = ""
    recipe_sha256: str = ""
    seed: int = 0
    parent: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    bundle_id: str = ""
    created_at: str = ""
    format: int = FORMAT

    def as_dict(self) -> dict[str, Any]:
        """The JSON object of manifest.json; ``from_dict`` gives the manifest back."""
        return {
            "format": self.format,
            "bundle_id": self.bundle_id,
            "parent": self.parent,
            "name": self.name,
            "student": self.student,
            "task": self.task.value,
            "labels": list(self.labels),
            "policy": dict(self.policy),
            "onnx_file": self.onnx_file,
            "max_length": self.max_length,
            "teacher": self.teacher,
            "base_model": self.base_model,
            "prompt_sha256": self.prompt_sha256,
            "data_sha256": self.data_sha256,
            "recipe_sha256": self.recipe_sha256,
            "seed": self.seed,
            "versions": dict(self.versions),
            "figures": dict(self.figures),
            "files": dict(self.files),
            "created_at": self.created_at,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """The manifest that a JSON object describes. Keys it does not know are passed over.

        Raises:
            ValueError: A key is missing, or its value is not what the format says. Names the key.
        """
        for key, (what, is_valid) in _CHECKS.items():
            if key not in value and key not in _OPTIONAL:
                raise ValueError(f"`{key}` is missing")
            if key in value and not is_valid(value[key]):
                raise ValueError(f"`{key}` is not {what}")
        known = {each.name for each in fields(cls)}
        content = {key: entry for key, entry in value.items() if key in known}
        return cls(**content | {"task": Task(value["task"]), "labels": tuple(value["labels"])})


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model directory and what its manifest says.

    Attributes:
        path: The folder.
        manifest: The content of its manifest.json.
    """

    path: Path
    manifest: Manifest

    @property
    def onnx_path(self) -> Path:
        """The graph that the runtime loads."""
        return self.path / self.manifest.onnx_file

    @property
    def size_bytes(self) -> int:
        """Size of what the runtime reads: the graph it loads and the tokenizer."""
        return self.onnx_path.stat().st_size + (self.path / TOKENIZER).stat().st_size

    @property
    def missing(self) -> tuple[str, ...]:
        """Files of the manifest that are not there: none, or the graph that the runtime does not load."""
        return tuple(name for name in self.manifest.files if not (self.path / name).is_file())


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_label_list(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= _MINIMUM_LABELS
        and all(_is_text(name) for name in value)
        and len(set(value)) == len(value)
    )


def _is_file_map(value: Any) -> bool:
    """Whether it names files of the layout alone: a manifest may come from anywhere, and ``publish`` copies what it names."""
    return isinstance(value, dict) and all(name in _LAYOUT and _is_text(value[name]) for name in value)


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_string, value.values()))


def _is_figures(value: Any) -> bool:
    """Whether each is one number or word, and a number where it is reckoned with."""
    return isinstance(value, dict) and all(
        isinstance(figure, int | float)
        or (not name.startswith(_NUMBERS) and (figure is None or isinstance(figure, str)))
        for name, figure in value.items()
    )


_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("a name", _is_text),
    "student": (f"one of {', '.join(_STUDENTS)}", lambda value: value in _STUDENTS),
    "task": (f"one of {', '.join(Task)}", lambda value: value in list(Task)),
    "labels": ("a list of at least two different names", _is_label_list),
    "policy": ("an object", _is_object),
    **dict.fromkeys(
        ("base_model", "bundle_id", "created_at", "teacher", "prompt_sha256", "data_sha256", "recipe_sha256"),
        ("a text", _is_string),
    ),
    "parent": ("a text or null", lambda value: value is None or isinstance(value, str)),
    "seed": ("a whole number", lambda value: type(value) is int),
    "versions": ("an object of texts", _is_text_map),
    "figures": ("an object of numbers and texts", _is_figures),
    "onnx_file": (f"{ONNX_FP32} or {ONNX_INT8}", lambda value: value in (ONNX_FP32, ONNX_INT8)),
    "max_length": ("a number of tokens", lambda value: type(value) is int and value > 0),
    "files": (f"an object of SHA-256 sums of {', '.join(_LAYOUT)}", _is_file_map),
}


def seal(path: Path, manifest: Manifest) -> Bundle:
    """Makes a folder a bundle: hashes its files, derives its ``bundle_id`` and writes manifest.json last, atomically.

    Args:
        path: The folder. config.json, tokenizer.json, selfcheck.jsonl and the graph must be in it.
        manifest: What the bundle is; ``files``, ``bundle_id`` and, where empty, ``created_at`` are filled in here.

    Raises:
        BundleError: A required file is not there, or the manifest would not be readable again.
        StorageError: The manifest could not be written.
    """
    for name in (*_REQUIRED, manifest.onnx_file):
        if not (path / name).is_file():
            raise BundleError(f"{path}: {name} is missing; the bundle cannot be sealed without it")
    present = [name for name in sorted(_LAYOUT) if (path / name).is_file()]
    manifest = replace(
        manifest,
        files={name: sha256_file(path / name) for name in present},
        created_at=manifest.created_at or datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        content = json.loads(json.dumps(manifest.as_dict(), allow_nan=False))
        content["bundle_id"] = _bundle_id(content)
        sealed = Manifest.from_dict(content)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{path}: the manifest is not valid: {error}") from error
    write_json(path / MANIFEST, content)
    return Bundle(path, sealed)


def _bundle_id(content: Mapping[str, Any]) -> str:
    hashed = {key: value for key, value in content.items() if key not in {"bundle_id", "created_at"}}
    return sha256_bytes(canonical_json(hashed).encode("utf-8", "surrogatepass"))[:_ID_LENGTH]


def load_bundle(path: str | Path, *, verify: bool = True, spare: bool = True) -> Bundle:
    """Reads a bundle's manifest and checks that the bundle is whole.

    Args:
        path: The folder.
        verify: Whether to compare every file, and the manifest itself, with its SHA-256.
        spare: With ``verify``, whether the graph that the runtime does not load must be there and whole, too.

    Raises:
        BundleError: There is no such folder, it is not a bundle or holds several, it is of a newer format, a file is
            missing, or, with ``verify``, was altered. Names the file.
    """
    path = Path(path)
    content = _read_manifest(path)
    manifest_path = path / MANIFEST
    _check_format(manifest_path, content)
    try:
        manifest = Manifest.from_dict(content)
    except ValueError as error:
        raise BundleError(f"{manifest_path}: damaged: {error}; train again, or copy the bundle again") from error
    for name in (*_REQUIRED, manifest.onnx_file):
        if name not in manifest.files:
            raise BundleError(f"{manifest_path}: damaged: `files` lacks {name}; train again, or copy the bundle again")
    bundle = Bundle(path, manifest)
    needed = set(manifest.files) if verify and spare else set(manifest.files) - _spare(manifest)
    try:
        missing = bundle.missing
    except OSError as error:  # a folder in it that may not be read
        raise BundleError(f"{error.filename}: cannot be read ({error.strerror or error})") from error
    for name in missing:
        if name in needed:
            raise BundleError(f"{path}: incomplete: {name} is missing; train again, or copy the whole folder")
    if verify:
        _verify(path, manifest, content, needed)
    return bundle


def is_in_place(bundle: Bundle) -> bool:
    """Whether the folder still holds this bundle, by its manifest, and no other. One that is not sealed yet has none.

    Raises:
        BundleError: The manifest cannot be read.
    """
    return not bundle.manifest.bundle_id or _read_manifest(bundle.path).get("bundle_id") == bundle.manifest.bundle_id


def mark_of(path: str | Path) -> Mark | None:
    """What changes when another bundle takes the place of the one in a folder, the same one copied again too; None where none is."""
    return mark_of_file(Path(path) / MANIFEST)


def mark_of_file(path: Path) -> Mark | None:
    """What changes when a file is written anew; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def check_graph(bundle: Bundle, *, verify: bool = True, mark: Mark | None = None) -> None:
    """Makes sure that the graph on disk is still the one that the manifest, as it was read, speaks of.

    Args:
        bundle: As it was read.
        verify: Whether to compare the graph with its SHA-256 too.
        mark: Of the graph's file before its SHA-256 was compared: a file that still has this mark is not read again.

    Raises:
        BundleError: It was replaced, or cannot be read.
    """
    is_to_be_read = verify and (mark is None or mark_of_file(bundle.onnx_path) != mark)
    if not is_in_place(bundle) or (
        is_to_be_read and not _is_unaltered(bundle.onnx_path, bundle.manifest.files[bundle.manifest.onnx_file])
    ):
        raise BundleError(f"{bundle.path}: replaced since it was loaded; load it again")


def _spare(manifest: Manifest) -> set[str]:
    """The graph that the runtime does not load."""
    return {ONNX_FP32, ONNX_INT8} - {manifest.onnx_file}


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest_path = path / MANIFEST
    try:
        content = json.loads(manifest_path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(_why_not_a_bundle(path)) from error
    except OSError as error:
        raise BundleError(f"{manifest_path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{manifest_path}: damaged: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise BundleError(f"{manifest_path}: damaged: expected an object, found {type(content).__name__}")
    return content


def _why_not_a_bundle(path: Path) -> str:
    if not path.exists():
        return f"{path}: no such folder; `distill train` makes bundles, such as models/NAME/static"
    if not path.is_dir():
        return f"{path}: not a bundle but a file; give the folder that holds {MANIFEST}"
    inside = sorted(entry.parent for entry in path.glob(f"*/{MANIFEST}"))
    if len(inside) == 1:
        return f"{path}: not a bundle, but holds one: give {inside[0]}"
    if inside:
        count = _COUNTING[len(inside)] if len(inside) < len(_COUNTING) else str(len(inside))
        return f"{path}: holds {count} bundles: {', '.join(map(str, inside))}; give one of them"
    if any((path / name).exists() for name in (*_REQUIRED, "onnx")):
        return f"{path}: incomplete: {MANIFEST} is missing; train again, or copy the whole folder"
    return f"{path}: not a bundle: it holds no {MANIFEST}"


def _check_format(manifest_path: Path, content: Mapping[str, Any]) -> None:
    version = content.get("format")
    if type(version) is not int or version < 1:
        raise BundleError(
            f"{manifest_path}: not the manifest of a bundle (`format` is {version!r}, not a number from 1 on)"
        )
    if version > FORMAT:
        raise BundleError(
            f"{manifest_path}: format {version} is newer than this version reads ({FORMAT}); "
            f"upgrade with: pip install --upgrade {DISTRIBUTION}"
        )


def _verify(path: Path, manifest: Manifest, content: Mapping[str, Any], needed: set[str]) -> None:
    advice = "copy the bundle again, or train again"
    try:
        bundle_id = _bundle_id(content)
    except RecursionError as error:  # what can just be read may be too deep to be written
        raise BundleError(f"{path / MANIFEST}: damaged: too deeply nested; {advice}") from error
    if bundle_id != manifest.bundle_id:
        raise BundleError(f"{path / MANIFEST}: altered since it was sealed; {advice}")
    for name, expected in manifest.files.items():
        if name in needed and not _is_unaltered(path / name, expected):
            raise BundleError(f"{path / name}: altered since it was sealed (SHA-256 differs); {advice}")


def _is_unaltered(path: Path, expected: str) -> bool:
    """Whether a file has the SHA-256 that the manifest says.

    Raises:
        BundleError: It cannot be read.
    """
    try:
        return sha256_file(path) == expected
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
