"""Which attention kernel each part of a model runs with: the one place that knows kernels, models and precisions.

flash-attn's kernels take bfloat16 and float16, and no mask but the causal one and the bounds of rows and samples.
transformers hands them anything: float32 ends in the kernel's error, and a mask by which a prompt is read in both
directions is dropped without a word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_MAPPING, PretrainedConfig, PreTrainedModel

from vlsafe.errors import ConfigError
from vlsafe.strategies.segments import SEGMENTED_SDPA

Attention = Literal["auto", "flash_attention_2", "flash_attention_3", "sdpa", "eager"]

HALF = (torch.bfloat16, torch.float16)
"""Precisions of flash kernels."""

READ_BOTH_WAYS = frozenset(
    ("diffusion_gemma", "gemma3", "gemma4", "gemma4_unified", "molmo2", "paligemma", "pi0", "shieldgemma2")
)
"""Model types of transformers that read pictures or a whole prompt in both directions, by a mask over pairs of tokens:
those whose code asks for one (``block_sequence_ids``, ``or_mask_function``), which a test compares."""

_COMPUTES = {
    "bf16-mixed": "bfloat16",
    "bf16-true": "bfloat16",
    "bfloat16": "bfloat16",
    "16-mixed": "float16",
    "16-true": "float16",
    "float32": "float32",
}
"""Precisions of a run in which layers compute in one of their own; under others in that of the weights."""

_INSTALL = {
    "flash_attention_2": "install it after torch with: pip install --no-build-isolation 'vlsafe[flash]'",
    "flash_attention_3": "build flash-attn 3 from the `hopper` folder of the flash-attention sources",
}


@dataclass(frozen=True)
class Runtime:
    """Where a model computes, and the precision in which its attention gets queries, keys and values: autocast's where
    there is one, whatever the weights are kept in, since the layers before it have computed in that."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def under(cls, device: torch.device, precision: str, dtype: str) -> Runtime:
        """A run's. ``precision``: the Trainer's, or that of a sharded model's products; ``dtype``: of the weights."""
        return cls(device, getattr(torch, _COMPUTES.get(precision, dtype)))

    @classmethod
    def here(cls, dtype: str) -> Runtime:
        """Weights of ``dtype`` without autocast, on the GPU where there is one."""
        return cls(torch.device("cuda" if torch.cuda.is_available() else "cpu"), getattr(torch, dtype))


@dataclass(frozen=True)
class Kernels:
    """What the parts of a loaded model run with. ``vision`` is None for an encoder that is no model of transformers;
    ``because``: why the language model takes no flash kernel that is installed, if one is."""

    language: str
    vision: str | None
    because: str = ""

    def __str__(self) -> str:
        parts = [f"language {self.language}", *([f"vision {self.vision}"] if self.vision else [])]
        return ", ".join(parts) + (f" ({self.because})" if self.because else "")


def available() -> dict[str, bool]:
    """Each backend -> whether it can run here: for flash, its package and a GPU of the Ampere generation or newer."""
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    return {
        "flash_attention_3": is_flash_attn_3_available() and _ampere(),
        "flash_attention_2": is_flash_attn_2_available() and _ampere(),
        "sdpa": True,
        "eager": True,
    }


def _ampere() -> bool:
    """Whether the GPU is of the first generation that flash kernels, torch's own too, are made for, or newer."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def check_name(requested: str) -> None:
    """Raises ConfigError for a name that is none."""
    if requested not in get_args(Attention):
        raise ConfigError(f"unknown attention {requested!r}. Valid names: {', '.join(get_args(Attention))}")


def choose(
    requested: str,
    runtime: Runtime,
    model_types: Iterable[str] = (),
    kinds: Iterable[type[PreTrainedModel] | PreTrainedModel] = (),
) -> str:
    """The backend's name as transformers' ``attn_implementation`` takes it; ``auto`` is the fastest that can run.

    Args:
        model_types: of the configs concerned, the whole model's and its language model's.
        kinds: their classes, or models of them.

    Raises ConfigError for an unknown name, and for an explicit request that cannot be met: silently running something
    else would make the run's record untrue.
    """
    check_name(requested)
    refused = {name: _refusal(name, runtime, set(model_types), kinds) for name in available()}
    if requested == "auto":
        return next(name for name, reason in refused.items() if reason is None)
    if reason := refused[requested]:
        raise ConfigError(f"attention {requested!r} cannot run here: {reason}, or use 'auto', which takes what can")
    return requested


def _refusal(
    name: str, runtime: Runtime, model_types: set[str], kinds: Iterable[type[PreTrainedModel] | PreTrainedModel]
) -> str | None:
    """Why a backend cannot run, and what to do instead; None where it can."""
    if name == "eager":
        return None
    if name == "sdpa":
        without = [kind for kind in kinds if not kind._supports_sdpa]
        return f"transformers has no SDPA for {_named(without[0])}; use 'eager'" if without else None
    if not available()[name]:
        return f"it needs a CUDA GPU of the Ampere generation or newer, and its package; {_INSTALL[name]}"
    if runtime.device.type != "cuda":
        return f"it needs a CUDA GPU, and this run computes on {runtime.device.type!r}; use 'sdpa'"
    if reason := _too_precise(runtime):
        return reason
    if both := sorted(READ_BOTH_WAYS & model_types):
        return f"{both[0]} reads pictures or prompts in both directions, which this kernel drops; use 'sdpa'"
    without = [kind for kind in kinds if not (kind._supports_flash_attn and kind._supports_attention_backend)]
    return f"transformers has no flash attention for {_named(without[0])}; use 'sdpa'" if without else None


def _too_precise(runtime: Runtime) -> str | None:
    if runtime.dtype in HALF:
        return None
    precision = str(runtime.dtype).removeprefix("torch.")
    return f"attention would get {precision}, and this kernel takes bfloat16 and float16; use 'sdpa'"


def check_precision_of(requested: str, precision: str, dtype: str) -> None:
    """Raises ConfigError, also where no GPU is, for a flash kernel in a precision that it does not take; ``precision``
    and ``dtype`` as in :meth:`Runtime.under`."""
    if reason := _too_precise(Runtime.under(torch.device("cuda"), precision, dtype)):
        raise ConfigError(f"attention {requested!r} cannot run: {reason}, or use 'auto', which takes what can")


def _named(kind: type[PreTrainedModel] | PreTrainedModel) -> str:
    return (kind if isinstance(kind, type) else type(kind)).__name__


def check(requested: str, runtime: Runtime, config: PretrainedConfig) -> None:
    """Raises ConfigError, before any weight is read, where ``requested`` cannot be had for the model of ``config``."""
    text = config.get_text_config()
    kinds = (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None), MODEL_MAPPING.get(type(text), None))
    known = [kind for kind in kinds if kind is not None]  # a checkpoint with code of its own is known once it is loaded
    choose(requested, runtime, (config.model_type, text.model_type), known)


def attend(model: PreTrainedModel, requested: str, runtime: Runtime, padding_free: bool) -> Kernels:
    """Give the language model and the vision encoder their kernels, and return them for the run's records.

    The language model's is what was asked for, or ConfigError. The encoder takes the same where its class can, else
    SDPA.

    Args:
        padding_free: samples of a batch may stand in one row; SDPA then computes them apart
            (:mod:`vlsafe.strategies.segments`) where the GPU can and the language model hands its attention what that
            needs. Elsewhere a mask over all pairs of tokens keeps them apart.
    """
    decoder, encoder = model.get_decoder(), model.get_encoder("image")
    types, kinds = (model.config.model_type, decoder.config.model_type), (model, decoder)
    kernel = choose(requested, runtime, types, kinds)
    able = decoder._supports_attention_backend and (runtime.device.type != "cuda" or _ampere())
    decoder.set_attn_implementation(SEGMENTED_SDPA if kernel == "sdpa" and padding_free and able else kernel)
    vision = None
    if isinstance(encoder, PreTrainedModel) and encoder is not model:
        encoder.set_attn_implementation(_of_encoder(encoder, requested, runtime))
        vision = encoder.config._attn_implementation
    installed = [name for name in _INSTALL if available()[name]]
    passed = [reason for name in installed if (reason := _refusal(name, runtime, set(types), kinds))]
    return Kernels(kernel, vision, f"not {installed[0]}: {passed[0]}" if passed and requested == "auto" else "")


def _of_encoder(encoder: PreTrainedModel, requested: str, runtime: Runtime) -> str:
    if requested == "auto" or _refusal(requested, runtime, set(), (encoder,)) is None:
        return choose(requested, runtime, (), (encoder,))
    return "sdpa" if encoder._supports_sdpa else "eager"
