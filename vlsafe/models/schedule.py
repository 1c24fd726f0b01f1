"""The learning-rate schedule, and the number of optimizer steps that it needs to know.

The steps are counted here and never read from ``trainer.estimated_stepping_batches``: that read makes a mid-epoch
resume restart its data without a word (pitfalls J1).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from vlsafe.errors import ConfigError
from vlsafe.models.components import Components

log = logging.getLogger(__name__)

Shape = Literal["cosine", "cosine_from_start", "linear", "constant"]


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


@dataclass(frozen=True)
class Schedule:
    """How every learning rate moves over a run, from a component's own peak.

    Args:
        shape: after warm-up, over what is left of the run; ``cosine_from_start`` counts the half wave from the first
            step, and warm-up lies over its beginning (MiniGPT-v2's ``linear_warmup_cosine_lr``).
        warmup: steps of linear warm-up.
        warmup_start: learning rate of the first step, None for a step's share of the peak.
        floor: learning rate at the end of the run.
    """

    shape: Shape
    warmup: int = 0
    warmup_start: float | None = None
    floor: float = 0.0

    def rate(self, peak: float, step: int, steps: int) -> float:
        """Of a component of rate ``peak`` in step ``step`` (the first is 0) of ``steps``."""
        if step < self.warmup:
            if self.warmup_start is None:
                return peak * (step + 1) / (self.warmup + 1)
            return self.warmup_start + (peak - self.warmup_start) * step / self.warmup
        before = 0 if self.shape == "cosine_from_start" else self.warmup
        done = min(1.0, (step - before) / max(1, steps - before))
        wave = 0.5 * (1 + math.cos(math.pi * done))
        left = {"cosine": wave, "cosine_from_start": wave, "linear": 1 - done, "constant": 1.0}[self.shape]
        return self.floor + (peak - self.floor) * left

    def warn_of_no_peak(self, steps: int) -> None:
        """Where warm-up leaves nothing of a run of ``steps``."""
        if self.warmup >= steps:
            log.warning("warm-up takes %d steps, the run has %d: no learning rate reaches its own", self.warmup, steps)


def refuse_odd_rates(
    components: Components, ratio: float, steps: int | None, start: float | None, floor: float
) -> None:
    """Raises ConfigError for a warm-up or an end of the schedule that contradicts the component table."""
    rates = {component: tuning.learning_rate for component, tuning in components.items() if tuning.learning_rate}
    problems = []
    if not 0 <= ratio < 1:
        problems.append(f"model.warmup_ratio is {ratio}, must be at least 0 and below 1")
    if steps is not None and steps < 0:
        problems.append(f"model.warmup_steps is {steps}, must be at least 0")
    for name, rate in (("warmup_start", start), ("min_learning_rate", floor)):
        if rate is not None and rate < 0:
            problems.append(f"model.{name} is {rate:g}, must not be negative")
        problems += [
            f"model.{name} is {rate:g}, more than the {peak:g} of model.components.{component}"
            for component, peak in rates.items()
            if rate is not None and rate > peak
        ]
    if problems:
        raise ConfigError(problems)


def scheduled(optimizer: Optimizer, schedule: Schedule, steps: int) -> LambdaLR:
    """Moves the rate of every group as ``schedule`` says over ``steps``."""

    def factor(peak: float, step: int) -> float:
        return schedule.rate(peak, step, steps) / peak

    return LambdaLR(optimizer, [partial(factor, group["lr"]) for group in optimizer.param_groups])
