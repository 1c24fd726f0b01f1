"""A callback that fails at one moment of a run, for tests that must know where it is told."""

from __future__ import annotations

from typing import Any

import lightning as L


class Fails(L.Callback):
    def __init__(self, hook: str) -> None:
        setattr(self, hook, self._fail)

    def _fail(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("made to fail")


class Forgets(L.Callback):
    """Goes on with other weights than were saved."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step > 0:
            next(p for p in pl_module.parameters() if p.requires_grad).data.add_(1)
