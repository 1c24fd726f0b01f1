"""Throughput in a real run, with a loader that is made slow."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger
from tiny import save_tokenizer

from callbacks import Throughput
from tests.models.fitting import data, files, module, trainer
from vlsafe.data.collate import Batch
from vlsafe.data.encoding import IGNORE
from vlsafe.errors import ConfigError
from vlsafe.planning.flops import language_flops

STEPS = 4


class Slow:
    """A loader's batches, each ``wait`` seconds late."""

    def __init__(self, batches: list[Batch], wait: float) -> None:
        self.batches, self.wait = batches, wait

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            time.sleep(self.wait)
            yield batch

    def __len__(self) -> int:
        return len(self.batches)


class Idle(L.Callback):
    """Another callback that takes its time after a batch: neither work nor waiting."""

    def on_train_batch_end(self, *_: Any) -> None:
        time.sleep(0.2)


def fitted(folder: Path, wait: float, **options: Any) -> tuple[list[dict[str, float]], Any, list[Batch]]:
    """Rows of metrics.csv, the module, and the batches that it saw."""
    tuned = module(save_tokenizer(folder / "tokenizer"))
    conversations = data(files(folder), batch_size=4)
    callbacks = [Throughput(**options), Idle()]
    fit = trainer(folder, max_steps=STEPS, logger=CSVLogger(folder, name="", version=""), callbacks=callbacks)
    batches: list[Batch] = []
    make = conversations.train_dataloader

    def slow_loader() -> Slow:
        batches.extend(make())
        return Slow(batches, wait)

    conversations.train_dataloader = slow_loader  # type: ignore[method-assign]
    fit.fit(tuned, conversations)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [
            {k: float(v) for k, v in row.items() if v and k.startswith("throughput/")} for row in csv.DictReader(file)
        ]
    return [row for row in rows if row], tuned, batches


def test_waiting_for_data_is_seen_and_counts_are_exact(tmp_path: Path) -> None:
    rows, tuned, batches = fitted(tmp_path, wait=0.3, every_n_steps=2, peak_tflops=1e-3)
    assert len(rows) == STEPS / 2
    last = rows[-1]
    shares = [row["throughput/data_wait_share"] for row in rows]
    assert all(0 < share <= 1 for share in shares)
    seconds = 8 / last["throughput/samples_per_second"]
    # Lightning fetches one batch ahead: of the last two batches only one is waited for
    assert 0.25 < last["throughput/data_wait_share"] * seconds < 0.9
    assert last["throughput/data_wait_share_max"] == pytest.approx(last["throughput/data_wait_share"])
    seen = batches[2:4]
    real = sum(int(batch.inputs["attention_mask"].sum()) for batch in seen)
    supervised = sum(int((batch.labels[:, 1:] != IGNORE).sum()) for batch in seen)
    positions = sum(batch.labels.numel() for batch in seen)
    assert positions > real
    for name, count in (("", real), ("padded_", positions), ("supervised_", supervised)):
        assert last[f"throughput/{name}tokens_per_second"] * seconds == pytest.approx(count)
    flops = language_flops(tuned.model, tuned.plan, tuned.model.get_output_embeddings())
    done = real * flops.body + supervised * flops.head
    assert last["throughput/mfu"] == pytest.approx(done / seconds / 1e9)
    assert last["throughput/peak_memory_gib"] > 0.05


def test_a_ready_loader_is_not_waited_for(tmp_path: Path) -> None:
    rows, _, _ = fitted(tmp_path, wait=0.0, every_n_steps=3)
    assert len(rows) == 2  # three steps, and the one that is left
    # the other callback's 0.2 s a step are neither: they would make this share more than a half
    assert all(row["throughput/data_wait_share"] < 0.3 for row in rows)
    assert all("throughput/mfu" not in row for row in rows)


@pytest.mark.parametrize("options", [{"every_n_steps": 0}, {"peak_tflops": 0.0}])
def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Throughput.{next(iter(options))} is 0"):
        Throughput(**options)
