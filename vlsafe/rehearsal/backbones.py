"""A config's backbone at toy size: a small checkpoint of the same architecture in the place of each that it names."""

from __future__ import annotations

import pydoc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlsafe.models.backbones.base import Backbone
from vlsafe.models.backbones.composed import ComposedVLLM
from vlsafe.models.backbones.pretrained import PretrainedVLLM
from vlsafe.models.backbones.swapped import SwappedVLLM
from vlsafe.models.encoders import vision_encoder_of
from vlsafe.models.minigpt.backbone import MiniGPTv2
from vlsafe.rehearsal.draft import Draft
from vlsafe.rehearsal.published import folder_of, published, shape_of
from vlsafe.rehearsal.shrinking import small_encoder, small_language_model, small_vlm

_AT = "model.init_args.backbone"
_SMALL = "few narrow layers, random weights"


def shrink(draft: Draft, folder: Path, exported: Mapping[str, Path]) -> None:
    """Replace the checkpoints of the backbone by small ones in ``folder``.

    Args:
        exported: what the config may name -> the model that the rehearsal of an earlier run has left.
    """
    draft.phase = "load"
    kind = pydoc.locate(draft.get(f"{_AT}.class_path"))
    assert isinstance(kind, type) and issubclass(kind, Backbone), "the parser has checked it"
    if issubclass(kind, SwappedVLLM):
        _checkpoint(draft, "checkpoint", "llava", folder, exported)
        _encoders(draft, folder)
    elif issubclass(kind, ComposedVLLM):
        _language_model(draft, folder)
        _encoders(draft, folder)
        _projector(draft)
    elif issubclass(kind, MiniGPTv2):
        _checkpoint(draft, "checkpoint", "minigpt_v2", folder, exported)
    elif issubclass(kind, PretrainedVLLM):
        _checkpoint(draft, "checkpoint", "llava", folder, exported)
    else:
        draft.leave_out(f"{kind.__name__} at toy size: it is loaded as the config says")


def _checkpoint(draft: Draft, key: str, otherwise: str, folder: Path, exported: Mapping[str, Path]) -> None:
    place = f"{_AT}.init_args.{key}"
    name = draft.get(place)
    if name in exported:
        draft.tell(name, "the model that its rehearsal has just exported", "the one run starts from the other")
        draft.put(place, str(exported[name]))
        return
    real = folder_of(name, draft.get(f"{_AT}.init_args.revision"))
    shape = real or shape_of(name, otherwise, certain=otherwise == "minigpt_v2")
    small_vlm(shape, folder / "checkpoint")
    _tell(draft, name, real, shape)
    draft.put(place, str(folder / "checkpoint"))
    if draft.get(f"{_AT}.init_args.revision"):
        draft.put(f"{_AT}.init_args.revision", None)


def _language_model(draft: Draft, folder: Path) -> None:
    place = f"{_AT}.init_args.language_model"
    name = draft.get(place)
    if isinstance(name, dict):  # random weights already; only its tokenizer may be missing
        tokenizer = name.get("tokenizer")
        if isinstance(tokenizer, str) and folder_of(tokenizer) is None and not Path(tokenizer).exists():
            shape = shape_of(tokenizer, "llama")
            draft.put(f"{place}.tokenizer", str(shape))
            draft.tell(f"tokenizer {tokenizer}", "one token a character", "it is not on this machine")
        return
    real = folder_of(name)
    shape = real or shape_of(name, "llama")
    small_language_model(shape, folder / "language_model")
    _tell(draft, name, real, shape)
    draft.put(place, str(folder / "language_model"))


def _encoders(draft: Draft, folder: Path) -> None:
    place = f"{_AT}.init_args.vision_weights"
    name, given = draft.get(f"{_AT}.init_args.vision_encoder"), draft.get(place)
    names = name.split("+")
    each = given if isinstance(given, list) else [given] * len(names)
    made = [_encoder(draft, one.strip(), weights, folder) for one, weights in zip(names, each, strict=True)]
    draft.put(place, made if len(made) > 1 else made[0])


def _encoder(draft: Draft, name: str, weights: Any, folder: Path) -> Any:
    """The weights to name in the place of ``weights``."""
    encoder = vision_encoder_of(name, weights)
    if isinstance(encoder.weights, dict):
        return weights
    real = folder_of(encoder.weights)
    out = folder / name.rpartition(".")[2]
    small_encoder(encoder, real, out)
    _tell(draft, encoder.weights, real, Path(name))
    return str(out)


def _projector(draft: Draft) -> None:
    place = f"{_AT}.init_args.projector_weights"
    if draft.get(place) is not None:
        draft.put(place, None, "they do not fit the small model")


def _tell(draft: Draft, name: str, real: Path | None, shape: Path) -> None:
    if real is not None:
        draft.tell(name, f"its own config.json and processor, {_SMALL}", "a rehearsal needs no weights")
    else:
        draft.tell(name, f"the smallest {shape.name}: {_SMALL}, a letter a token", "its files are not on this machine")
        if not published(name):
            draft.leave_out(f"{name} (fit needs it there: check the path, or make it first)")
