"""Checkpoints hold what trains, and a run that was stopped anywhere ends as the one that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fitting import FROZEN, FULL, LORA, changed, data, files, module, tensors, trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from vlsafe.errors import VlsafeError
from vlsafe.models.adaptation import Components

TABLE = Components(FROZEN, FULL, replace(LORA, dropout=0.2))
SCHEDULE = dict(schedule="cosine", warmup_ratio=0.2)
RUN = dict(max_steps=-1, max_epochs=2, accumulate_grad_batches=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return files(tmp_path)


def keep_all(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder / "checkpoints", "{step}", every_n_train_steps=1, save_top_k=-1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_ends_with_the_very_weights_of_the_uninterrupted_one(
    workers: int, tokenizer: Path, folder: Path
) -> None:
    whole = module(tokenizer, TABLE, **SCHEDULE)
    torch.manual_seed(5)
    kept = trainer(folder, **RUN, enable_checkpointing=True, callbacks=[keep_all(folder)])
    kept.fit(whole, datamodule=data(folder, batch_size=2, num_workers=workers))
    assert kept.global_step == 8
    expected, last = tensors(whole), kept.optimizers[0].state_dict()
    for step in (1, 3, 4, 6) if workers == 0 else (3, 6):  # the first epoch ends with step 4
        torch.manual_seed(1000 + step)
        resumed = module(tokenizer, TABLE, **SCHEDULE)
        again = trainer(folder, **RUN)
        again.fit(
            resumed, datamodule=data(folder, batch_size=2, num_workers=workers),
            ckpt_path=folder / "checkpoints" / f"step={step}.ckpt",
        )  # fmt: skip
        assert again.global_step == 8
        assert changed(expected, tensors(resumed)) == set(), f"resumed after step {step}"
        assert again.optimizers[0].state_dict()["param_groups"] == last["param_groups"]
        assert resumed.seen == whole.seen


def test_dropout_differs_from_step_to_step(tokenizer: Path, folder: Path) -> None:
    """Or the test above would pass with a generator that stands still."""
    tuned = module(tokenizer, TABLE)
    made = trainer(folder)
    made.fit(tuned, datamodule=data(folder))
    draws = []
    for batch in (0, 0, 1):
        tuned._seed_dropout(batch)
        draws.append(float(torch.rand(1)))
    assert draws[0] == draws[1] != draws[2]


def test_a_checkpoint_holds_what_trains_and_no_more(tokenizer: Path, folder: Path) -> None:
    tuned = module(tokenizer, TABLE)
    made = trainer(folder)
    made.fit(tuned, datamodule=data(folder))
    path = folder / "one.ckpt"
    made.save_checkpoint(path)
    state = torch.load(path, weights_only=True)
    assert set(state["state_dict"]) == {name for name, p in tuned.named_parameters() if p.requires_grad}
    assert state["vlsafe"]["trained"] == ["projector", "language"]
    assert state["vlsafe"]["seen"]["text"]["samples"] == 8


def test_the_statistics_of_a_trained_encoder_are_kept(tokenizer: Path, folder: Path) -> None:
    table = Components(FULL, FROZEN, FROZEN)
    tuned = module(tokenizer, table, "efficientnet_lite0")
    made = trainer(folder, max_steps=1)
    made.fit(tuned, datamodule=data(folder, batch_size=4))
    made.save_checkpoint(folder / "one.ckpt")
    again = module(tokenizer, table, "efficientnet_lite0")
    trainer(folder, max_steps=1).fit(again, datamodule=data(folder, batch_size=4), ckpt_path=folder / "one.ckpt")
    assert changed(tensors(tuned), tensors(again)) == set()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Components(FULL, FULL, TABLE.language), r"\d+ tensors that train here are missing from it, 0 of its tensors"),
        (Components(FROZEN, FROZEN, TABLE.language), "0 tensors that train here are missing from it, 4 of its tensors"),
    ],
)
def test_a_checkpoint_of_other_components_is_refused(
    other: Components, words: str, tokenizer: Path, folder: Path
) -> None:
    made = trainer(folder)
    made.fit(module(tokenizer, TABLE), datamodule=data(folder))
    made.save_checkpoint(folder / "one.ckpt")
    with pytest.raises(VlsafeError, match=words) as caught:
        trainer(folder).fit(module(tokenizer, other), datamodule=data(folder), ckpt_path=folder / "one.ckpt")
    assert "Resume with the config of the run that wrote it" in str(caught.value)
