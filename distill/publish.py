"""Cards with what was measured; and a bundle laid out as a model repository, card included. Uploads nothing.

    models/NAME/STUDENT + models/NAME/bench.json → FOLDER → `hf upload org/name FOLDER`

Only what the manifest lists goes there: no code, no pickle, nothing that merely lay beside the bundle.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.bundle import MANIFEST, ONNX_FP32, ONNX_INT8, load_bundle
from distill.data import atomic_write, storage_errors
from distill.errors import BundleError, DataError, missing_extra

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from distill.bundle import Bundle, Manifest
    from distill.types import BenchResult

__all__ = ["Repository", "publish", "write_card"]

_CARD = "README.md"
_BENCH = "bench.json"
_KEPT = ("base_model", "license", "license_name", "license_link", "language", "datasets", "teacher_terms")
_NAME = r"\w([\w.-]{0,94}\w)?"
_REPOSITORY = re.compile(rf"(?!.*(--|\.\.|\.git$)){_NAME}/{_NAME}", re.ASCII)
"""What huggingface_hub's ``validate_repo_id`` takes, with an organisation or a user."""

_NEVER_UPLOADED = re.compile(r"/(\.git|\.cache/huggingface)(/|$)")
"""In a path from the folder on: what huggingface_hub leaves out (``DEFAULT_IGNORE_PATTERNS``)."""

_KILLED = re.compile(r"\.\d+(-[0-9a-f]{8})?\.partial$")
"""Of a file that a killed copy has left beside the whole one."""

_PLACEHOLDER = "YOUR-NAME"


@dataclass(frozen=True, slots=True)
class Repository:
    """A folder that is ready to be uploaded.

    Attributes:
        path: The folder.
        name: Where it belongs on the Hugging Face hub: ``org/name``, or a placeholder for it.
        files: What is in it, relative to ``path``.
        bench: The bench.json whose figures the card has, or None.
        not_stated: Which of ``license`` and ``teacher_terms`` the card lacks.
    """

    path: Path
    name: str
    files: tuple[str, ...]
    bench: Path | None
    not_stated: tuple[str, ...]

    @property
    def upload_command(self) -> str:
        """The one command that uploads it, and removes graphs of an earlier version that are not in it; huggingface_hub brings ``hf``."""
        import shlex

        return f"hf upload {shlex.quote(self.name)} {shlex.quote(str(self.path))} --delete 'onnx/*'"


def publish(
    bundle_path: str | Path,
    to: str | Path,
    *,
    name: str | None = None,
    bench: str | Path | None = None,
    license_name: str | None = None,
    teacher_terms: str | None = None,
) -> Repository:
    """Writes a model repository: a whole, checked copy of the bundle, its card written anew.

    What somebody added to the header of the bundle's own card (licence, language, data sets, the teacher's terms) is kept.

    Args:
        bundle_path: The bundle's folder.
        to: Where to: a folder that is not there, is empty, or holds an earlier copy.
        name: ``org/name`` on the hub; None: a placeholder stands in card and command.
        bench: The bench.json that measured this bundle; None: the one beside the bundle's folder, if it measured this bundle.
        license_name: Licence of the model, as the hub spells it, such as ``apache-2.0``.
        teacher_terms: The teacher's terms of use: a link, or what they say of training on its answers.

    Raises:
        BundleError: The bundle is not whole, ``name`` is no repository's name, or something else stands at ``to``.
        DataError: ``bench`` cannot be read, or measured another bundle.
        MissingExtraError: huggingface_hub is not installed.
        StorageError: Something could not be written.
    """
    bundle, target = load_bundle(bundle_path), Path(to)
    if name is not None and not _REPOSITORY.fullmatch(name):
        raise BundleError(f"{name!r} is not the name of a repository; give one such as org/{bundle.manifest.name}")
    earlier = _check_target(bundle, target)
    found, result = _measured(bundle, None if bench is None else Path(bench))
    header = _kept_header(bundle.path / _CARD)
    if license_name:
        header = {key: value for key, value in header.items() if not key.startswith("license_")}
    header |= {key: value for key, value in (("license", license_name), ("teacher_terms", teacher_terms)) if value}
    card = _card(bundle.manifest, result, name, header)
    files = (*sorted(bundle.manifest.files), MANIFEST)
    _copy(bundle.path, target, files)
    _remove(target, earlier - {*files, _CARD})
    with atomic_write(target / _CARD) as partial:
        partial.write_text(card, encoding="utf-8", newline="\n")
    load_bundle(target)
    placeholder = f"{_PLACEHOLDER}/{bundle.manifest.name}-{bundle.manifest.student}"
    return Repository(
        path=target,
        name=name or placeholder,
        files=(*files, _CARD),
        bench=found,
        not_stated=tuple(key for key in ("license", "teacher_terms") if key not in header),
    )


def write_card(bundle_path: str | Path, result: BenchResult) -> bool:
    """Writes a bundle's own card anew, with what was measured; what somebody added to its header is kept.

    Args:
        bundle_path: The bundle's folder.
        result: What ``distill bench`` found.

    Returns:
        Whether ``result`` measured this very bundle; otherwise nothing is written.

    Raises:
        BundleError: The bundle or the header of its card cannot be read.
        MissingExtraError: huggingface_hub is not installed.
        StorageError: It could not be written.
    """
    bundle = load_bundle(bundle_path, verify=False)
    if result.provenance.get("bundles", {}).get(bundle.manifest.student) != bundle.manifest.bundle_id:
        return False
    path = bundle.path / _CARD
    card = _card(bundle.manifest, result, None, _kept_header(path))
    with atomic_write(path) as partial:
        partial.write_text(card, encoding="utf-8", newline="\n")
    return True


def _check_target(bundle: Bundle, target: Path) -> set[str]:
    """What an earlier copy has left there, relative to ``target``."""
    if target.exists() and not target.is_dir():
        raise BundleError(f"{target}: is a file; give a folder")
    if target.resolve().is_relative_to(bundle.path.resolve()):
        raise BundleError(f"{target}: is the bundle itself, or in it; give another folder")
    if not target.exists():
        return set()
    there = {
        path.relative_to(target).as_posix()
        for path in target.rglob("*")
        if path.is_file() and not _NEVER_UPLOADED.search(f"/{path.relative_to(target).as_posix()}")
    }
    if (other := _name_of(target)) not in {None, _name_of(bundle.path)}:
        raise BundleError(f"{target}: holds another bundle, {other}; give an empty folder")
    known = {*bundle.manifest.files, *_files_of(target), ONNX_FP32, ONNX_INT8, MANIFEST, _CARD}
    earlier = {name for name in there if _KILLED.sub("", name) in known}
    if strangers := there - earlier - {".gitattributes"}:
        raise BundleError(
            f"{target}: holds {min(strangers)}, which is none of the bundle's files and would be uploaded with it; "
            "give an empty folder"
        )
    if earlier and not _is_a_copy(bundle, target, earlier):
        raise BundleError(f"{target}: holds {min(earlier)}, which no copy of a bundle has left; give an empty folder")
    return earlier


def _is_a_copy(bundle: Bundle, target: Path, names: set[str]) -> bool:
    """Whether a copy has left these files: with a bundle's manifest, or, cut before that, the very files of this bundle."""
    try:
        if "bundle_id" in json.loads((target / MANIFEST).read_bytes()):
            return True
    except (OSError, ValueError, TypeError):
        pass
    whole = [name for name in names if not _KILLED.search(name)]
    return all(
        (bundle.path / name).is_file() and cmp(bundle.path / name, target / name, shallow=False) for name in whole
    )


def _files_of(folder: Path) -> tuple[str, ...]:
    """Of the bundle in a folder; none where there is none, or half of one."""
    try:
        return tuple(load_bundle(folder, verify=False).manifest.files)
    except BundleError:
        return ()


def _remove(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        with storage_errors(folder / name):
            (folder / name).unlink(missing_ok=True)


def _name_of(folder: Path) -> str | None:
    """Of the bundle in a folder: router and student; None where there is none, or half of one."""
    try:
        manifest = load_bundle(folder, verify=False).manifest
    except BundleError:
        return None
    return f"{manifest.name}, {manifest.student}"


def _measured(bundle: Bundle, bench: Path | None) -> tuple[Path | None, BenchResult | None]:
    """The bench.json that measured this bundle, and what it says."""
    from distill.benchmark.results import read_result

    path = bundle.path.absolute().parent / _BENCH if bench is None else bench
    if bench is None and not path.is_file():
        return None, None
    result = read_result(path)
    measured = result.provenance.get("bundles", {}).get(bundle.manifest.student)
    if measured == bundle.manifest.bundle_id:
        return path, result
    if bench is None:
        return None, None
    raise DataError(
        f"{path}: measured the bundle {measured}, not {bundle.manifest.bundle_id} ({bundle.path}); run `distill bench` again"
    )


def _kept_header(card: Path) -> dict[str, Any]:
    """What of the header of a card is not written anew."""
    try:
        from huggingface_hub import ModelCard
        from yaml import YAMLError
    except ImportError as error:
        raise missing_extra("huggingface_hub") from error
    if not card.is_file():
        return {}
    try:
        data = ModelCard.load(card, ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, TypeError, YAMLError) as error:
        raise BundleError(f"{card}: its header is not YAML of a card; mend or remove it: {error}") from error
    base_model = data.get("base_model", "")
    listed = base_model if isinstance(base_model, list) else [base_model]
    if not all(isinstance(name, str) for name in listed):
        raise BundleError(f"{card}: its header's base_model is a name, or a list of names, found {base_model!r}")
    return {key: data[key] for key in _KEPT if key in data}


def _card(manifest: Manifest, result: BenchResult | None, name: str | None, header: Mapping[str, Any]) -> str:
    from distill.benchmark.table import markdown_table
    from distill.student.card import model_card

    base_model = header.get("base_model", "")
    return model_card(
        manifest,
        base_model if isinstance(base_model, str) else ", ".join(base_model),
        result=result,
        table="" if result is None else markdown_table(result),
        repository=name or "",
        header=header,
    )


def _copy(source: Path, target: Path, files: tuple[str, ...]) -> None:
    for name in files:
        with atomic_write(target / name) as partial:  # a process may have mapped what stands there
            shutil.copyfile(source / name, partial)
