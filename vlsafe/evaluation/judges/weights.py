"""A judge's model on disk: where it is, what it is called in records, and which weights it holds."""

from __future__ import annotations

import hashlib
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved

_FILES = ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt"]
_SAMPLES, _BYTES = 64, 2**14


def model_folder(model: str, revision: str | None = None) -> Path:
    """A directory, ``cache:NAME`` or hub name as a directory with safetensors, config and tokenizer.

    Raises ConfigError when there is none and the hub does not give it.
    """
    path = Path(resolved(model))
    if path.is_dir():
        return path
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"judge model {model!r} is neither a directory nor to be had from the hub: {error}. Check the name; a "
            "gated model needs its licence accepted and `hf auth login`"
        ) from error


def short_name(model: str) -> str:
    """What a model is called in files that may be shared: of a directory only the last part."""
    path = Path(resolved(model))
    return path.resolve().name if path.is_dir() else model


def folder_digest(folder: Path) -> str:
    """sha256 over the names, sizes and samples of all files that decide what the model says, in 16 characters.

    Small files are read whole; of large ones 64 places, so that another checkpoint of the same name is noticed
    without reading all its bytes.
    """
    digest = hashlib.sha256()
    for pattern in sorted(_FILES):
        for file in sorted(folder.glob(pattern)):
            size = file.stat().st_size
            digest.update(f"{file.name} {size}".encode())
            with file.open("rb") as opened:
                for number in range(_SAMPLES) if size > _SAMPLES * _BYTES else ():
                    opened.seek(number * (size - _BYTES) // (_SAMPLES - 1))
                    digest.update(opened.read(_BYTES))
                if size <= _SAMPLES * _BYTES:
                    digest.update(opened.read())
    return digest.hexdigest()[:16]
