"""Weight files: read one at a time, written in shards of a few GB, a whole folder or nothing."""

from __future__ import annotations

import errno
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vlsafe.errors import ConfigError, DataError, VlsafeError

SHARD_BYTES = 4 * 2**30
"""Most bytes of a written shard, and so about the most memory that a conversion takes."""

_LAYOUTS = ("model.safetensors", "pytorch_model.bin")  # an index of several files has ".index.json" after the name
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a Hugging Face folder, safetensors before ``.bin``. Raises DataError when there are none, or
    one that the index lists is not there."""
    for name in _LAYOUTS:
        index = folder / f"{name}.index.json"
        if index.is_file():
            files = sorted({folder / file for file in read_json(index).get("weight_map", {}).values()})
            missing = [file.name for file in files if not file.is_file()]
            if missing or not files:
                raise DataError(f"{index}: lists {', '.join(missing) or 'no file'}, not there; download the rest")
            return files
        if (folder / name).is_file():
            return [folder / name]
    raise DataError(
        f"{folder}: holds neither {' nor '.join(_LAYOUTS)}, nor an index of several; is the download whole?"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises DataError naming the file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds {type(content).__name__}, not an object; is this the right file?")
    return content


def header(file: Path) -> dict[str, Tensor]:
    """Every tensor's name, shape and type, as tensors without memory. Reads no weights."""
    if file.suffix == ".safetensors":
        with _explained(file), safe_open(file, "pt") as tensors:
            slices = {key: tensors.get_slice(key) for key in tensors.keys()}  # noqa: SIM118
            return {
                key: torch.empty(part.get_shape(), dtype=_DTYPES[part.get_dtype()], device="meta")
                for key, part in slices.items()
            }
    return state_dict_of(unpickled(file, "meta"), file)


@contextmanager
def opened(file: Path) -> Iterator[Mapping[str, Tensor] | _Safetensors]:
    """The tensors of one file by name, each read from the disk when it is asked for."""
    if file.suffix == ".safetensors":
        with _explained(file), safe_open(file, "pt") as tensors:
            yield _Safetensors(tensors)
    else:
        yield state_dict_of(unpickled(file), file)


class _Safetensors:
    def __init__(self, tensors: Any) -> None:
        self._tensors = tensors

    def __getitem__(self, key: str) -> Tensor:
        return self._tensors.get_tensor(key)


def unpickled(file: Path, device: str = "cpu") -> dict[str, Any]:
    """What ``torch.save`` wrote, by the loader that runs no code. Raises DataError for a file that would need to."""
    with _explained(file):
        # only torch's zip format, that of the last years, can be read piece by piece
        content = torch.load(file, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(file))
    if not isinstance(content, dict):
        raise DataError(f"{file}: holds {type(content).__name__}, not weights by name; is this the right file?")
    return content


def state_dict_of(content: dict[str, Any], file: Path) -> dict[str, Tensor]:
    """The weights of an unpickled file; a training checkpoint has them under ``model``, beside other things."""
    weights = content["model"] if isinstance(content.get("model"), dict) else content
    wrong = [key for key, value in weights.items() if not isinstance(value, Tensor)]
    if wrong:
        raise DataError(f"{file}: {wrong[0]!r} is no tensor; is this a file of weights?")
    return weights


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except UnpicklingError as error:
        raise DataError(f"{file}: holds more than tensors, which could run code when loaded; it is not read") from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise DataError(f"{file}: cannot be read ({error}); is the download whole?") from error


class ShardWriter:
    """Collects tensors and writes a shard of safetensors whenever ``limit`` bytes have come together."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = folder
        self.limit = SHARD_BYTES if limit is None else limit
        self.bytes = 0
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._shards: list[list[str]] = []

    def add(self, name: str, tensor: Tensor) -> None:
        if self._pending and self._pending_bytes + tensor.nbytes > self.limit:
            self._flush()
        self._pending[name] = tensor
        self._pending_bytes += tensor.nbytes

    def close(self) -> int:
        """Write what is left, and the index where there are several shards. Returns their number."""
        self._flush()
        count = len(self._shards)
        names = [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
        if count == 1:
            names = ["model.safetensors"]
        for number, name in enumerate(names):
            self._part(number).rename(self.folder / name)
        if count > 1:
            where = {key: name for name, keys in zip(names, self._shards, strict=True) for key in keys}
            index = {"metadata": {"total_size": self.bytes}, "weight_map": dict(sorted(where.items()))}
            (self.folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
        return count

    def _flush(self) -> None:
        if self._pending:
            save_file(self._pending, self._part(len(self._shards)), metadata={"format": "pt"})
            self._part(len(self._shards)).chmod(0o644)  # safetensors makes its files private
            self._shards.append(list(self._pending))
            self.bytes += self._pending_bytes
            self._pending, self._pending_bytes = {}, 0

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number}.safetensors"


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` once everything is written; on any failure it goes away.

    Raises ConfigError when ``out`` holds something already, VlsafeError when the disk is full.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already; name a folder that does not")
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(out)
    except (OSError, SafetensorError) as error:
        full = "No space left on device" in str(error) or getattr(error, "errno", None) == errno.ENOSPC
        remedy = "free some space and run the same command again" if full else "choose another folder"
        raise VlsafeError(f"{out} could not be written ({error}), and nothing of it is left; {remedy}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
