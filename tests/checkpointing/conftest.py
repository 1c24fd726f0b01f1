"""A run on a tiny model that keeps a checkpoint of every step, and may be gone on with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "models"))

from fitting import FROZEN, FULL, LORA, data, files, module, trainer
from tiny import save_tokenizer

from vlsafe import SafetyFineTuning
from vlsafe.checkpointing import AtomicCheckpointIO
from vlsafe.models.adaptation import Components
from vlsafe.resuming import CheckpointPlan, RunIdentity

Fit = Callable[..., tuple[L.Trainer, SafetyFineTuning]]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return files(tmp_path)


@pytest.fixture
def fit(tokenizer: Path, folder: Path) -> Fit:
    """Trains for six steps, or goes on from ``ckpt_path`` to the sixth; ``config`` is what the run says of itself."""

    def run(
        ckpt_path: Path | None = None,
        checkpoints: Path | None = None,
        config: dict[str, Any] | None = None,
        changed: bool = False,
        newest: bool = False,
        batch_size: int = 2,
        **options: Any,
    ) -> tuple[L.Trainer, SafetyFineTuning]:
        torch.manual_seed(3)
        tuned = module(tokenizer, Components(FROZEN, FULL, LORA), schedule="cosine")
        kept = CheckpointPlan(every=1, keep=2).callback(checkpoints or folder / "checkpoints")
        made = trainer(
            folder,
            max_steps=6,
            enable_checkpointing=True,
            callbacks=[kept, RunIdentity(config or {"seed": 1}, ckpt_path, changed, newest)],
            plugins=[AtomicCheckpointIO()],
            **options,
        )
        made.fit(tuned, datamodule=data(folder, batch_size=batch_size), ckpt_path=ckpt_path, weights_only=True)
        return made, tuned

    return run
