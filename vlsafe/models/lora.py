"""Adapters by PEFT, on fully qualified paths only: leaf names match in the vision encoder too (pitfalls B1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from peft import LoraConfig, PeftModel

from vlsafe.errors import ConfigError
from vlsafe.models.backbones.base import Component
from vlsafe.models.components import Tuning


def lora_config(adapted: Mapping[str, Tuning], saved: Sequence[str], tied: bool) -> LoraConfig:
    """PEFT's config for adapters at the paths of ``adapted``, and modules that are trained and saved whole.

    ``tied``: the input embeddings are among ``saved`` and the output head shares their tensor.
    """
    first = next(iter(adapted.values()))
    others = {path: t for path, t in adapted.items() if (t.rank, t.alpha) != (first.rank, first.alpha)}
    return LoraConfig(
        r=first.rank,
        lora_alpha=first.alpha,
        lora_dropout=first.dropout,
        use_rslora=first.rslora,
        use_dora=first.dora,
        target_modules="|".join(re.escape(path) for path in adapted),  # a string is matched as a full regex
        rank_pattern={f"^{re.escape(path)}$": tuning.rank for path, tuning in others.items()},
        alpha_pattern={f"^{re.escape(path)}$": tuning.alpha for path, tuning in others.items()},
        modules_to_save=list(saved) or None,
        ensure_weight_tying=tied,
    )


def targets_of(component: Component, tuning: Tuning, linear: Sequence[str]) -> list[str]:
    """Those of a component's linear layers that ``tuning`` names.

    Raises ConfigError that names each target which no layer has.
    """
    wanted = tuning.targets
    where = f"model.components.{component}"
    names = ", ".join(sorted({path.rsplit(".", 1)[-1] for path in linear})) or "none"
    if wanted is None:
        if not linear:
            raise ConfigError(f"{where}: there is no linear layer that could get an adapter; set train: full")
        return list(linear)
    missing = [name for name in wanted if not any(_named(path, name) for path in linear)]
    if missing:
        raise ConfigError(f"{where}: no linear layer is named {missing}; those of this component: {names}")
    return [path for path in linear if any(_named(path, name) for name in wanted)]


def _named(path: str, name: str) -> bool:
    return f".{path}".endswith(f".{name}")


@contextmanager
def adapters_off(model: PeftModel) -> Iterator[None]:
    """The model without its adapters; what trains is marked as it was, inside and afterwards."""
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}

    def mark() -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trains[name])

    try:
        with model.disable_adapter():
            mark()  # FSDP2 looks when it gathers first, and would never again reduce gradients in float32
            yield
    finally:  # PEFT would let the whole of what it saves train, unread layers and frozen words too
        mark()
