"""The global sequence of samples is one and the same: for any shares, ranks, micro-batches, workers and resumes; and a
run that was killed without warning goes on as if it had not been."""

from __future__ import annotations

import json
import os
import random
import signal
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import VISION, alpaca_file, ask, language_model, llava_file, save_tokenizer

from vlsafe import ComposedVLLM, ConversationData, Part, SafetyFineTuning
from vlsafe.conversation import Conversation
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoded
from vlsafe.data.loader import MixtureDataset, MixtureLoader, StepSampler
from vlsafe.data.mixture import Mixture
from vlsafe.models.adaptation import Components, Tuning


class OneToken:
    """An encoding that needs no tokenizer."""

    def sample(self, conversation: Conversation) -> Encoded:
        ids = torch.tensor([1, 2])
        return Encoded(conversation.id, conversation.source, ids, ids)


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    """Two to four parts, of shares, counts or both, over sources of 1 to 12 records."""
    names = [f"p{n}" for n in range(draw(st.integers(2, 4)))]
    sizes = {name: draw(st.integers(1, 12)) for name in names}
    shares = [draw(st.integers(1, 20)) for _ in names]
    parts = {name: Part("x:y", share=share / 100) for name, share in zip(names, shares, strict=True)}
    counted = names[0]
    parts[counted] = Part("x:y", count=draw(st.integers(1, sizes[counted])))
    return Mixture(parts, sizes, None, draw(st.integers(0, 99)))


def dataset(mixture: Mixture) -> MixtureDataset:
    sources = {name: [ask("q", "a", identity=f"{name}/{n}") for n in range(12)] for name in mixture.names}
    return MixtureDataset(mixture, sources, OneToken())  # type: ignore[arg-type]


def expected(mixture: Mixture, steps: int) -> list[str]:
    return [f"{name}/{record}" for name, record in map(mixture.at, range(steps))]


def rank_loader(mixture: Mixture, batch: int, rank: int, world: int, workers: int = 0) -> MixtureLoader:
    return MixtureLoader(
        dataset(mixture), StepSampler(len(mixture), batch, rank, world), Collate(0), num_workers=workers
    )


def received(loader: MixtureLoader, batches: int, first: int) -> list[list[str]]:
    """``batches`` batches, across as many passes as it takes, resumed from a fresh loader's state at ``first``."""
    per_pass = len(loader)
    loader.load_state_dict({"epoch": first // per_pass, "received": first % per_pass})
    found: list[list[str]] = []
    while len(found) < batches:
        for batch in loader:
            found.append(batch.ids)
            if len(found) == batches:
                break
    return found


@settings(deadline=None, max_examples=40)
@given(mixture=mixtures(), world=st.integers(1, 8), batch=st.integers(1, 5), data=st.data())
def test_any_ranks_micro_batches_and_resume_give_the_one_sequence(
    mixture: Mixture, world: int, batch: int, data: st.DataObject
) -> None:
    batches = data.draw(st.integers(1, 6))
    resume = data.draw(st.integers(0, batches))
    whole = expected(mixture, batches * world * batch)
    ranks = []
    for rank in range(world):
        before = received(rank_loader(mixture, batch, rank, world), resume, 0)
        after = received(rank_loader(mixture, batch, rank, world), batches - resume, resume)
        ranks.append(before + after)
    found = [identity for step in zip(*ranks, strict=True) for micro in step for identity in micro]
    assert found == whole
    # an accumulation step of several micro-batches is the same sequence again, cut elsewhere
    assert [mixture.at(k) for k in range(len(whole))] == [mixture.at(k) for k in reversed(range(len(whole)))][::-1]


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_workers_change_nothing_whatever_the_rank_and_the_resume(workers: int) -> None:
    draw = random.Random(workers)
    parts = {"a": Part("x:y", count=5), "b": Part("x:y", share=0.3), "c": Part("x:y", share=0.2)}
    mixture = Mixture(parts, {"a": 9, "b": 4, "c": 12}, None, 7)
    world, batch, resume = draw.randint(1, 8), draw.randint(1, 3), draw.randint(0, 3)
    rank = draw.randrange(world)
    alone = received(rank_loader(mixture, batch, rank, world), 6, resume)
    assert received(rank_loader(mixture, batch, rank, world, workers), 6, resume) == alone


# --- killed


class Seeded(ComposedVLLM):
    """Random weights that are the same in every process; what is frozen stands in no checkpoint."""

    def load_model(self) -> Any:
        torch.manual_seed(0)
        return super().load_model()


class Diary(L.Callback):
    """Writes every step's loss to the bit, and kills its own process, without warning, at the start of a batch."""

    def __init__(self, path: Path, kill_at: int | None) -> None:
        self.path, self.kill_at = path, kill_at

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        loss = float(outputs["loss"] if isinstance(outputs, dict) else outputs)
        with self.path.open("a") as file:
            file.write(json.dumps([trainer.global_step, loss.hex(), batch.ids]) + "\n")


def train(folder: Path, tokenizer: Path, diary: str, kill_at: int | None, workers: int, seed: int) -> None:
    torch.set_num_threads(1)
    last = max((folder / f"{diary}.ckpts").glob("*.ckpt"), default=None)
    torch.manual_seed(seed if last else 0)  # a run that goes on finds its own state, whatever its process is in
    backbone = Seeded("clip", language_model(tokenizer), vision_weights=VISION["clip"], attention="sdpa")
    components = Components(Tuning(), Tuning("full", 1e-2), Tuning("lora", 1e-2, rank=2, alpha=4, dropout=0.2))
    parts = {
        "text": Part(f"alpaca:{folder / 'text.json'}", share=0.5),
        "pictures": Part(f"llava:{folder / 'pictures.json'}", count=9),
    }
    data = ConversationData(parts, batch_size=2, num_workers=workers)
    quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger", "use_distributed_sampler"), False)
    keep = ModelCheckpoint(folder / f"{diary}.ckpts", "{step:03d}", every_n_train_steps=1, save_top_k=-1)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=2, limit_val_batches=0, num_sanity_val_steps=0,
        default_root_dir=folder, callbacks=[keep, Diary(folder / f"{diary}.jsonl", kill_at)], **quiet,
    )  # fmt: skip
    module = SafetyFineTuning(backbone, components)
    trainer.fit(module, datamodule=data, ckpt_path=last)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_killed_at_random_steps_has_the_loss_curve_of_the_whole_one(tmp_path: Path, workers: int) -> None:
    alpaca_file(tmp_path / "text.json", 12)
    llava_file(tmp_path / "pictures.json", 12)
    tokenizer = save_tokenizer(tmp_path / "tokenizer")
    steps = 18
    kills = sorted(random.Random(workers).sample(range(1, steps), 2))
    runs: list[tuple[str, int | None]] = [("whole", None), *(("killed", kill) for kill in kills), ("killed", None)]
    clean = get_context("forkserver")  # forks of a process that has run no model: its threads would be missing in them
    clean.set_forkserver_preload([__name__])
    for number, (diary, kill) in enumerate(runs):
        child = clean.Process(target=train, args=(tmp_path, tokenizer, diary, kill, workers, number))
        child.start()
        child.join(300)
        assert child.exitcode == (0 if kill is None else -signal.SIGKILL), f"run {number} of {runs}"
    curves = [(tmp_path / f"{diary}.jsonl").read_text().splitlines() for diary in ("whole", "killed")]
    assert curves[0] == curves[1] and len(curves[0]) == steps
    assert len({line.split('"')[1] for line in curves[0]}) > steps // 2, "losses differ from step to step"
