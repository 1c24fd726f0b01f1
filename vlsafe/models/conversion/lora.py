"""LoRA weights, kept or merged into what they adapt: ``W + scale * B @ A`` (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from vlsafe.errors import DataError
from vlsafe.models.components import Tuning
from vlsafe.models.lora import lora_config

# Key names are PEFT's: `base_model.model.` before the adapted model's own, `.default` since its version 0.3.
_KEY = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")
_UNMERGEABLE = ("use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication")


@dataclass(frozen=True)
class Delta:
    """What one linear layer gained. ``a``: [rank, inputs]; ``b``: [outputs, rank]."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def alpha(self) -> float:
        return self.scale * self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]

    def onto(self, weight: Tensor) -> Tensor:
        """``weight`` [outputs, inputs] with the delta, computed in fp32 and rounded once, to the weight's own type."""
        return (weight.float() + self.b.float() @ self.a.float() * self.scale).to(weight.dtype)


def save_adapter(deltas: Mapping[str, Delta], folder: Path) -> None:
    """``deltas``, by path of the adapted module, as a PEFT adapter in ``folder``."""
    adapted = {path: Tuning("lora", rank=delta.a.shape[0], alpha=_whole(delta.alpha)) for path, delta in deltas.items()}
    lora_config(adapted, saved=[], tied=False).save_pretrained(folder)
    halves = {
        f"base_model.model.{path}.lora_{side}.weight": tensor.contiguous()
        for path, delta in deltas.items()
        for side, tensor in (("A", delta.a), ("B", delta.b))
    }
    file = folder / "adapter_model.safetensors"
    save_file(halves, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors makes its files private


def _whole(alpha: float) -> int:
    if alpha != round(alpha):
        raise DataError(f"the LoRA weights have alpha {alpha:g}, PEFT's is a whole number; convert without --keep-lora")
    return round(alpha)


def is_lora(key: str) -> bool:
    return _KEY.match(key) is not None


def deltas(tensors: Mapping[str, Tensor], alpha: float, rank: int | None, file: Path) -> dict[str, Delta]:
    """Path of the adapted module -> its delta, with scale ``alpha / rank``; None takes the rank of the tensors.

    Raises DataError for keys that are not LoRA weights, for halves without the other, and for another rank.
    """
    pairs: dict[str, dict[str, Tensor]] = {}
    problems = []
    for key, tensor in tensors.items():
        found = _KEY.match(key)
        if found is None:
            problems.append(f"{file}: {key!r} is no LoRA weight")
        else:
            pairs.setdefault(found["module"], {})[found["side"]] = tensor
    for module, sides in pairs.items():
        if len(sides) == 1:
            problems.append(f"{file}: {module} has lora_{next(iter(sides))} alone; the other half is missing")
        elif sides["A"].shape[0] != sides["B"].shape[1] or (rank and sides["A"].shape[0] != rank):
            found_rank = f"{sides['A'].shape[0]} and {sides['B'].shape[1]}"
            problems.append(f"{file}: {module} has ranks {found_rank}" + (f", its config says {rank}" if rank else ""))
    if problems:
        raise DataError(problems)
    if not pairs:
        raise DataError(f"{file}: holds no LoRA weights")
    return {name: Delta(half["A"], half["B"], alpha / half["A"].shape[0]) for name, half in pairs.items()}


def alpha_of(config: Mapping[str, Any], file: Path) -> float:
    """``alpha`` so that ``alpha / r`` is the scale of a PEFT adapter. Raises DataError for kinds that need more than a
    sum to merge."""
    wrong = [f"{name}={config[name]}" for name in _UNMERGEABLE if config.get(name)]
    if config.get("bias", "none") != "none":
        wrong.append(f"bias={config['bias']}")
    if wrong or not config.get("r") or "lora_alpha" not in config:
        missing = [name for name in ("r", "lora_alpha") if not config.get(name)]
        problem = f"{', '.join(wrong)} cannot be merged shard by shard" if wrong else f"lacks {', '.join(missing)}"
        raise DataError(f"{file}: {problem}; merge it with PEFT on its base, then convert the merged model")
    root = config["r"] ** 0.5 if config.get("use_rslora") else 1.0  # rsLoRA divides by the root of the rank
    return float(config["lora_alpha"]) * root
