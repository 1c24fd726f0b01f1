"""Weights that stay in their files until each process reads its own rows of them, so that none holds the whole model.

Inside :func:`read_in_pieces` a checkpoint of safetensors is opened as a model of stand-ins, which take no memory
(:mod:`vlsafe.strategies.filling`). It can be planned and adapted like any other and be a part of another model. Each
parameter can be given a type of its own before :class:`Pieces` reads it from its file: whole, or, where the model is
cut over processes, by each its own rows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForImageTextToText, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key
from transformers.utils import GENERATION_CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from vlsafe.errors import DataError
from vlsafe.strategies.filling import hold_places

logger = logging.getLogger(__name__)


_asked: ContextVar[bool] = ContextVar("whether weights may stay in their files", default=False)


@contextmanager
def read_in_pieces() -> Iterator[None]:
    """Let ``load_model`` leave weights in their files. One that cannot loads as ever."""
    token = _asked.set(True)
    try:
        yield
    finally:
        _asked.reset(token)


def opened(
    path: str,
    config: PretrainedConfig,
    dtype: torch.dtype,
    kind: Any = AutoModelForImageTextToText,
    revision: str | None = None,
) -> PreTrainedModel | None:
    """The model of a checkpoint without its weights, where that was asked for and can be done; else None.

    It cannot where weights are quantised, lie in other files than safetensors, or do not fill the model: transformers
    then makes up what is missing, or unties what is tied.

    Args:
        path: a folder, or a name on the hub, whose files are brought into transformers' cache.
        kind: the class of transformers that makes the model of its config.
        revision: of a name on the hub.

    Raises DataError where the checkpoint's index names a file that is not there.
    """
    if not _asked.get() or "quantization_config" in config.to_dict() or not (files := _files(path, revision)):
        return None
    with torch.device("meta"):
        model = kind.from_config(config, dtype=dtype)
    pieces = Pieces(model, files)
    if not pieces.whole:
        logger.info("%s does not fill its model tensor by tensor: every process reads all of it", path)
        return None
    hold_places(model, pieces.rows)
    _take_buffers(model, pieces)
    if _there(path, GENERATION_CONFIG_NAME, revision):
        model.generation_config = GenerationConfig.from_pretrained(path, revision=revision)
    return model.eval()


def _files(path: str, revision: str | None) -> list[Path]:
    """One file, or those of the index; others, such as a second copy in another layout, are not the model's."""
    one = _there(path, SAFE_WEIGHTS_NAME, revision)
    if one is not None:
        return [one]
    index = _there(path, SAFE_WEIGHTS_INDEX_NAME, revision)
    if index is None:
        return []
    named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    found = {name: _there(path, name, revision) for name in named}
    missing = [name for name, file in found.items() if file is None]
    if missing:
        raise DataError(f"{index} names {', '.join(missing)}, not there; fetch or copy the checkpoint again")
    return [file for file in found.values() if file is not None]


def _there(path: str, name: str, revision: str | None) -> Path | None:
    """A file of a folder, or of a name on the hub."""
    found = cached_file(
        path,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def _take_buffers(model: PreTrainedModel, pieces: Pieces) -> None:
    """Those of the checkpoint from its files; others, such as rotary frequencies, as transformers makes them itself."""
    kept = model.state_dict()
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            full = f"{path}.{name}" if path else name
            value = torch.empty_like(buffer, device=torch.empty(0).device)
            if full in kept:
                value.copy_(pieces.rows(full))
            value._is_hf_initialized = full in kept  # type: ignore[attr-defined]
            module._buffers[name] = value
    for parameter in model.parameters():
        parameter._is_hf_initialized = True
    model.initialize_weights()


@dataclass
class _Recipe:
    """A tensor that is not in the files as it is: what its sources were renamed to, and what is done to them."""

    name: str
    converter: WeightConverter
    sources: list[tuple[str, str]] = field(default_factory=list)

    def made(self, model: PreTrainedModel, read: Callable[[str], Tensor]) -> dict[str, Tensor]:
        converter = deepcopy(self.converter)
        for key, pattern in self.sources:
            converter.add_tensor(self.name, key, pattern, lambda key=key: read(key))
        made = converter.convert(self.name, model=model, config=model.config)
        return {target: value[0] if isinstance(value, list) else value for target, value in made.items()}


class Pieces:
    """Where the weights of one model lie: rows of any parameter, by its name in the model before it is adapted.

    Names and conversions are those of ``from_pretrained``. A tensor that is made of several in the files, or of a part
    of one, is put together whole each time; every other is read row by row.
    """

    def __init__(self, model: PreTrainedModel, files: list[Path]) -> None:
        self._model = model
        self._shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in model.state_dict().items()}
        self._files = {key: file for file in files for key in _keys(file)}
        self._open: dict[Path, Any] = {}
        self._direct: dict[str, str] = {}
        self._recipes: dict[str, _Recipe] = {}
        self._assign()
        tied = self._shapes.keys() - {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
        self.names = self._direct.keys() | self._recipes.keys()
        """Parameters and buffers that are in the files."""
        self.whole = self.names == self._shapes.keys() - tied
        """Whether every tensor is there, and none that is tied to another besides."""

    def _assign(self) -> None:
        mapping = get_model_conversion_mapping(self._model)
        renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
        prefix, recipes = self._model.base_model_prefix, dict[str, _Recipe]()
        for key in sorted(self._files, key=dot_natural_key):
            name, pattern = rename_source_key(key, renamings, converters, prefix, self._shapes)
            if name not in self._shapes and key in self._shapes:
                name, pattern = key, None
            if name not in self._shapes:
                continue  # as from_pretrained leaves out what the model has no place for
            if pattern is None:
                self._direct[name] = key
            else:
                recipes.setdefault(name, _Recipe(name, by_pattern[pattern])).sources.append((key, pattern))
        for recipe in recipes.values():  # without data, to learn what comes of it
            self._recipes |= dict.fromkeys(recipe.made(self._model, self._without_data), recipe)

    def rows(self, name: str, begin: int = 0, end: int | None = None) -> Tensor:
        """Rows ``begin`` to ``end`` of a parameter or buffer, in its file's type: [end - begin, ...]. All of them are
        the file itself, mapped; what is written to them changes this process's copy of a page, never the file.

        Raises DataError where it has another shape in the files than in the model.
        """
        if name in self._recipes:
            found = self._recipes[name].made(self._model, self._read)[name]
            self._compare(name, list(found.shape), "what its files make of it")
            return found[begin:end].contiguous()
        return self._rows_of(self._direct[name], name, begin, end)

    def _rows_of(self, key: str, name: str, begin: int, end: int | None) -> Tensor:
        place = f"{key} of {self._files[key]}"
        if begin == 0 and end is None:  # stays where it is: processes of one machine share the file's pages
            found = self._mapped(self._files[key]).get_tensor(key)
            self._compare(name, list(found.shape), place)
            return found
        # each tensor maps its file anew: the pages of earlier ones would stay in this process's memory
        with _reading(self._files[key]) as file:
            stored = file.get_slice(key)
            self._compare(name, stored.get_shape(), place)
            return stored[begin:end].clone()

    def _mapped(self, file: Path) -> Any:
        if file not in self._open:
            with torch.device("cpu"):
                self._open[file] = safe_open(file, "pt").__enter__()
        return self._open[file]

    def _read(self, key: str) -> Tensor:
        with _reading(self._files[key]) as file:
            return file.get_tensor(key).clone()

    def _without_data(self, key: str) -> Tensor:
        with _reading(self._files[key]) as file:
            return torch.empty(file.get_slice(key).get_shape(), device="meta")

    def _compare(self, name: str, found: list[int], what: str) -> None:
        wanted = list(self._shapes[name].shape)
        if found != wanted:
            raise DataError(
                f"{what} has the shape {found}, but {name} of the model that config.json describes has {wanted}: "
                "config and weights are not of one model"
            )


@contextmanager
def _reading(file: Path) -> Iterator[Any]:
    """The file, whose tensors come as CPU tensors whatever the default device is."""
    with torch.device("cpu"), safe_open(file, "pt") as opened:
        yield opened


def _keys(file: Path) -> list[str]:
    with _reading(file) as opened:
        return list(opened.keys())
