"""What a conversion did, in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from vlsafe.models.conversion.plan import Plan
from vlsafe.models.conversion.shards import ShardWriter


@dataclass(frozen=True)
class Converted:
    """``out`` holds the model; ``facts`` say how it was made, name -> words."""

    out: Path
    facts: dict[str, str]

    def __str__(self) -> str:
        width = max(map(len, self.facts))
        return "\n".join([str(self.out), *(f"  {name:<{width}}  {fact}" for name, fact in self.facts.items())])


def counted(plan: Plan, writer: ShardWriter, dtype: torch.dtype) -> dict[str, str]:
    """What can be said of any conversion."""
    parameters = sum(shape.numel() for shape in plan.shapes.values())
    precision = str(dtype).removeprefix("torch.")
    facts = {
        "tensors": f"{len(plan.steps)}, every key matched",
        "size": f"{parameters:,} parameters, {writer.bytes / 2**30:.2f} GiB in {precision}",
    }
    if plan.merged:
        facts["LoRA"] = f"merged into {plan.merged} layers"
    if plan.left_out:
        kinds = Counter(key.rpartition(".")[2] for key in plan.left_out)
        facts["left out"] = f"{len(plan.left_out)} tensors without a use: " + ", ".join(
            f"{kind} ({count})" for kind, count in kinds.most_common(6)
        )
    return facts
