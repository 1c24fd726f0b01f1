"""Where the time of training goes: data, the parts of the forward pass, backward, optimizer, what is around them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import lightning as L
import torch
from torch.utils.hooks import RemovableHandle

from vlsafe.account import Account
from vlsafe.data.datamodule import ConversationData
from vlsafe.models.module import SafetyFineTuning

Mark = float | torch.cuda.Event

VISION, PROJECTOR, LANGUAGE = "forward, vision", "forward, projector", "forward, language"
HEAD, BACKWARD, OPTIMIZER = "head and loss", "backward", "optimizer"
VALIDATION, CHECKPOINTS, CALLBACKS = "validation", "checkpoints", "callbacks"
_BETWEEN = "between steps"
_PARTS = (VISION, PROJECTOR, LANGUAGE, HEAD, BACKWARD, OPTIMIZER, VALIDATION, CHECKPOINTS, CALLBACKS)
_KEPT = 1000
"""Marks that wait for a GPU to come to them: those of fifty steps or more."""


class StepAccount(L.Callback):
    """Seconds of this process's training by part, on its device's own clock. Nothing waits for a GPU while it trains.

    It must stand before all other callbacks; behind them it sets one of its own. ``account`` is told when training
    begins and ends.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._device = torch.device("cpu")
        self._seconds: dict[str, float] = defaultdict(float)
        self._marks: list[tuple[str, Mark]] = []
        self._hooks: list[RemovableHandle] = []
        self._training = self._forward = False

    def enter(self, part: str) -> None:
        """While it trains: from now on time belongs to ``part``."""
        if not self._training:
            return
        self._marks.append((part, mark(self._device)))
        if len(self._marks) > 2 * _KEPT:
            self._settle(_KEPT)

    def parts(self, data: ConversationData) -> dict[str, float]:
        """Part -> seconds so far, in the order of a step. ``data`` tells how much of the time between steps was spent
        waiting for it; without workers most of that was encoding in this process. Waits for a GPU."""
        self._settle(1)
        between, loading = self._seconds[_BETWEEN], data.loading
        waited = min(between, loading.waiting)
        encoded = 0.0 if data.num_workers else min(waited, loading.working)
        found = {"wait for data": waited - encoded, "encode": encoded}
        found |= {part: self._seconds[part] for part in _PARTS}
        found["logging"] = between - waited
        return {part: seconds for part, seconds in found.items() if seconds}

    def _settle(self, keep: int) -> None:
        """Add up all but the last ``keep`` marks."""
        settled = max(0, len(self._marks) - keep)
        for (part, begin), (_, end) in pairwise(self._marks[: settled + 1]):
            self._seconds[part] += elapsed([(begin, end)])
        del self._marks[:settled]

    # --- around training ----------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit":
            trainer.callbacks.append(_Last(self))

    def begin(self, module: SafetyFineTuning) -> None:
        self._account.enter("train")
        self._device = module.device
        self._hook(module)
        self._training = True
        self.enter(_BETWEEN)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.enter(_BETWEEN)
        self._training = False
        self._account.enter("end of training")
        while self._hooks:
            self._hooks.pop().remove()

    def _hook(self, module: SafetyFineTuning) -> None:
        model = module._plain()
        modules, paths = dict(model.named_modules()), module.backbone.modules_of(model)
        for part, component in ((VISION, paths["vision"]), (PROJECTOR, paths["projector"])):
            for path in component:
                if path in modules:  # else it is a parameter that stands alone
                    self._hooks.append(modules[path].register_forward_pre_hook(partial(self._in_forward, part)))
                    self._hooks.append(modules[path].register_forward_hook(partial(self._in_forward, LANGUAGE)))
        head = model.get_output_embeddings()
        self._hooks.append(head.register_forward_pre_hook(partial(self._in_forward, HEAD)))

    def _in_forward(self, part: str, *_: Any) -> None:
        if self._forward:  # not in validation, nor where the backward pass computes again
            self.enter(part)

    # --- in a step ----------------------------------------------------------------------------------------------------

    def _callbacks(self, *_: Any) -> None:
        self.enter(CALLBACKS)

    on_train_batch_start: Callable[..., None] = _callbacks
    on_train_batch_end: Callable[..., None] = _callbacks
    on_train_epoch_end: Callable[..., None] = _callbacks

    def step_begins(self) -> None:
        self._forward = True
        self.enter(LANGUAGE)

    def step_ends(self) -> None:
        self.enter(_BETWEEN)

    def on_before_backward(self, *_: Any) -> None:
        self._forward = False
        self.enter(BACKWARD)

    def on_after_backward(self, *_: Any) -> None:
        self.enter(OPTIMIZER)

    def on_save_checkpoint(self, *_: Any) -> None:
        self.enter(CHECKPOINTS)  # callbacks that write checkpoints are the last to be called

    def on_validation_start(self, *_: Any) -> None:
        self.enter(VALIDATION)


class _Last(L.Callback):
    """Runs after all other callbacks, whose time is then known."""

    def __init__(self, steps: StepAccount) -> None:
        self._steps = steps

    def on_train_start(self, trainer: L.Trainer, pl_module: SafetyFineTuning) -> None:
        self._steps.begin(pl_module)

    def on_train_batch_start(self, *_: Any) -> None:
        self._steps.step_begins()

    def on_train_batch_end(self, *_: Any) -> None:
        self._steps.step_ends()

    on_train_epoch_end: Callable[..., None] = on_train_batch_end
    on_validation_end: Callable[..., None] = on_train_batch_end


def mark(device: torch.device) -> Mark:
    """Now, on the device's own clock: on a GPU when it comes to this point, which nobody waits for."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def elapsed(spans: list[tuple[Mark, Mark]]) -> float:
    """Seconds of all spans together; waits for the device where it has not come to their ends."""
    total = 0.0
    for begin, end in spans:
        if isinstance(begin, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
            end.synchronize()
            total += begin.elapsed_time(end) / 1000
        elif isinstance(begin, float) and isinstance(end, float):
            total += end - begin
    return total
