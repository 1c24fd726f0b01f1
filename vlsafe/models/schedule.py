"""The learning-rate schedule, and the number of optimizer steps that it needs to know.

The steps are counted here and never read from ``trainer.estimated_stepping_batches``: that read makes a mid-epoch
resume restart its data without a word (pitfalls J1).
"""

from __future__ import annotations

import math
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Shape = Literal["cosine", "linear", "constant"]


def optimizer_steps(batches: int, accumulate: int, max_epochs: int | None, max_steps: int) -> int:
    """Steps of the whole run: ``max_steps`` if given, and no more than the epochs hold.

    Args:
        batches: micro-batches a rank sees in one epoch.
        max_epochs: None or -1 for no limit, ``max_steps``: -1 for no limit, as in Lightning's Trainer.
    """
    in_epochs = math.ceil(batches / accumulate) * max_epochs if max_epochs and max_epochs > 0 else math.inf
    steps = min(in_epochs, max_steps if max_steps > 0 else math.inf)
    if steps is math.inf:
        return math.ceil(batches / accumulate) * 1000  # Lightning's own default of max_epochs
    return int(steps)


def limited(batches: int, limit: int | float) -> int:
    """Batches of an epoch under the Trainer's ``limit_train_batches``: a number of them, or a share."""
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def scheduled(optimizer: Optimizer, shape: Shape, warmup: int, steps: int) -> LambdaLR:
    """Linear warm-up over ``warmup`` steps to each group's own rate, then ``shape`` down to 0 at ``steps``."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[shape]

    return LambdaLR(optimizer, factor)
