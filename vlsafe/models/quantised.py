"""Weights kept in 4 bits under adapters (QLoRA). All that needs bitsandbytes is here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

import torch
from torch import nn

from vlsafe.errors import ConfigError


def require_quantisation() -> None:
    """Raises ConfigError where 4-bit weights cannot be used; asked before any weight is loaded."""
    if not torch.cuda.is_available():
        raise ConfigError(
            "train: qlora keeps weights in 4 bits, which needs a CUDA GPU; set train: lora on this machine"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("train: qlora needs bitsandbytes: pip install 'vlsafe[qlora]', or set train: lora")


def quantise(model: nn.Module, paths: Iterable[str]) -> None:
    """Replace the linear layers at ``paths`` by 4-bit ones (NormalFloat4 with doubly quantised constants, the setting
    of the QLoRA paper). Their weights are packed when the model moves to the GPU; sums are computed in the precision
    that the weight had."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for path in paths:
        parent, _, name = path.rpartition(".")
        plain = model.get_submodule(path)
        with torch.device("meta"):
            packed = Linear4bit(
                plain.in_features,
                plain.out_features,
                bias=plain.bias is not None,
                compute_dtype=plain.weight.dtype,
                compress_statistics=True,
                quant_type="nf4",
            )
        packed.weight = Params4bit(
            plain.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=packed
        )
        if plain.bias is not None:
            packed.bias = plain.bias
        setattr(model.get_submodule(parent), name, packed)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT asks for it before it adapts such layers
