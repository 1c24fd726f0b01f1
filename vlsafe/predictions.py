"""``predictions.jsonl``: the answers of ``predict``, in the order of the prompts, whichever process gave them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

import lightning as L

from vlsafe.data.collate import Batch
from vlsafe.data.datamodule import FILLING
from vlsafe.measuring import stepping
from vlsafe.models.module import SafetyFineTuning

FILE = "predictions.jsonl"


class Predictions:
    """Filled by every process from :meth:`begin` to :meth:`end`, all of which see one ``directory``.

    Several processes write a file each, since process r of n has the prompts r, r + n, r + 2n and so on; the first one
    then takes a line from each in turn.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._mine = directory / FILE
        self._in_step = ExitStack()

    def begin(self, trainer: L.Trainer, module: SafetyFineTuning) -> None:
        if trainer.is_global_zero:
            for old in (self.directory / FILE, *self.directory.glob(f".{FILE}.part-*")):
                old.unlink(missing_ok=True)
        trainer.strategy.barrier()
        if trainer.world_size > 1:
            self._mine = self._part(trainer.global_rank)
        self._mine.touch()
        if module.sharded is not None:
            self._in_step.enter_context(stepping(trainer, module))

    def add(self, batch: Batch, texts: Sequence[str]) -> None:
        """One text a row of the batch; what only fills up a process's last batch is left out."""
        rows = [{"id": i, "text": text} for i, text in zip(batch.ids, texts, strict=True) if i != FILLING]
        with self._mine.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def end(self, trainer: L.Trainer) -> None:
        self._in_step.close()
        trainer.strategy.barrier()
        if trainer.is_global_zero and trainer.world_size > 1:
            parts = [self._part(rank) for rank in range(trainer.world_size)]
            with ExitStack() as opened, (self.directory / FILE).open("w", encoding="utf-8") as file:
                files = [opened.enter_context(part.open(encoding="utf-8")) for part in parts]
                for lines in zip_longest(*files, fillvalue=""):
                    file.writelines(lines)
            for part in parts:
                part.unlink()

    def _part(self, rank: int) -> Path:
        return self.directory / f".{FILE}.part-{rank:05d}"
