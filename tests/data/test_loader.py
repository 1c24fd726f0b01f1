"""The training loader: the same order for every world size and worker count, and no sample lost at a resume."""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import alpaca_file, ask, composed, llava_file, save_tokenizer

from vlsafe import ConversationData, Part
from vlsafe.conversation import Conversation
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import CUT, CUT_TOKENS, Encoded, Encoding
from vlsafe.data.loader import MixtureDataset, MixtureLoader, StepSampler
from vlsafe.data.mixture import Mixture
from vlsafe.data.sources import open_source
from vlsafe.errors import ConfigError
from vlsafe.run_report import data_row


class OneToken:
    """An encoding that needs no tokenizer."""

    def sample(self, conversation: Conversation) -> Encoded:
        ids = torch.tensor([1, 2])
        return Encoded(conversation.id, conversation.source, ids, ids)


def dataset(samples: int = 17) -> MixtureDataset:
    parts = {"safety": Part("alpaca:x", share=0.3), "help": Part("alpaca:x", share=0.7)}
    sources = {
        name: [ask("q", "a", identity=f"{name}{i}") for i in range(size)]
        for name, size in (("safety", 4), ("help", 20))
    }
    mixture = Mixture(parts, {name: len(rows) for name, rows in sources.items()}, samples, seed=3)
    return MixtureDataset(mixture, sources, OneToken())  # type: ignore[arg-type]


def loader(samples: int = 17, batch_size: int = 3, workers: int = 0) -> MixtureLoader:
    data = dataset(samples)
    options: dict[str, Any] = {"persistent_workers": True} if workers else {}
    return MixtureLoader(data, StepSampler(samples, batch_size), Collate(0), num_workers=workers, **options)


def passes(made: MixtureLoader, number: int) -> list[list[str]]:
    return [batch.ids for _ in range(number) for batch in made]


# --- steps


@pytest.mark.parametrize("samples", [24, 29])
def test_the_global_order_is_the_same_for_every_world_size(samples: int) -> None:
    plans = []
    for world in (1, 2, 4):
        ranks = [StepSampler(samples, 8 // world, rank, world) for rank in range(world)]
        assert len({len(rank) for rank in ranks}) == 1
        global_batches = []
        for epoch in range(2):
            for rank in ranks:
                rank.epoch = epoch
            per_rank = zip(*ranks, strict=True)
            global_batches += [[step for micro in batch for step in micro] for batch in per_rank]
        plans.append(global_batches)
    assert plans[0] == plans[1] == plans[2]
    steps = [step for batch in plans[0] for step in batch]
    assert steps == list(range(2 * -(-samples // 8) * 8))  # nothing twice, nothing left out


def test_a_sample_bears_its_parts_name_and_the_parts_share_holds() -> None:
    data = dataset()
    sources = [data[k].source for k in range(10)]
    assert sources.count("safety") == 3 and sources.count("help") == 7
    assert all(data[k].id.startswith(data[k].source) for k in range(10))


# --- resume


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_after_any_batch_gives_the_batches_that_remained(workers: int) -> None:
    expected = passes(loader(), 3)
    per_epoch = len(loader())
    assert per_epoch == 6 and len(expected) == 18
    stops = range(len(expected)) if workers == 0 else (1, 5, 6, 8, 12)
    for stop in stops:
        first, got, state = loader(workers=workers), [], None
        while len(got) < stop:
            for batch in first:
                got.append(batch.ids)
                state = first.state_dict()
                if len(got) == stop:
                    break
        second = loader(workers=workers)
        if state is not None:
            second.load_state_dict(pickle.loads(pickle.dumps(state)))
        while len(got) < len(expected):
            got += [batch.ids for batch in second]
        assert got == expected, f"resumed after batch {stop}"


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_counts_what_was_received_not_what_workers_prepared(workers: int) -> None:
    made = loader(workers=workers)
    batches = iter(made)
    for received in (1, 2, 3):
        next(batches)
        assert made.state_dict() == {"epoch": 0, "received": received}


def test_a_new_pass_goes_on_where_the_last_one_ended() -> None:
    seen = [identity for ids in passes(loader(), 3) for identity in ids]
    assert seen == [dataset()[step].id for step in range(3 * 6 * 3)]


def test_workers_change_nothing() -> None:
    assert passes(loader(workers=2), 2) == passes(loader(workers=0), 2)


def test_the_loader_leaves_torchs_own_generator_alone() -> None:
    made = loader()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    passes(made, 1)
    assert torch.equal(torch.get_rng_state(), before)


class Slow(OneToken):
    """An encoding that takes its time."""

    def sample(self, conversation: Conversation) -> Encoded:
        time.sleep(0.02)
        return super().sample(conversation)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_loading_took_is_measured(workers: int) -> None:
    made = loader(samples=12, workers=workers)
    made.dataset.encoding = Slow()  # type: ignore[attr-defined]
    began = time.perf_counter()
    passes(made, 1)
    elapsed = time.perf_counter() - began
    assert made.loading.samples == 12 and made.loading.working >= 12 * 0.02
    assert made.loading.per_worker == pytest.approx(12 / made.loading.working) and made.loading.per_worker <= 50
    assert 0.05 < made.loading.waiting <= elapsed, "nothing else was done meanwhile"


class Cutting(OneToken):
    """An encoding that cuts three tokens off every sample."""

    def sample(self, conversation: Conversation) -> Encoded:
        encoded = super().sample(conversation)
        encoded.changes.update({CUT: 1, CUT_TOKENS: 3})
        return encoded


@pytest.mark.parametrize("workers", [0, 2])
def test_what_encoding_changes_is_counted(workers: int) -> None:
    made = loader(samples=12, workers=workers)
    made.dataset.encoding = Cutting()  # type: ignore[attr-defined]
    passes(made, 1)
    assert made.loading.changes == {CUT: 12, CUT_TOKENS: 36}


# --- the data module


class FakeTrainer:
    """What ConversationData asks of a Trainer."""

    global_rank, world_size = 0, 1

    class strategy:
        root_device = torch.device("cpu")

    class lightning_module:
        backbone: Any = None


@pytest.fixture
def files(tmp_path: Path) -> Path:
    alpaca_file(tmp_path / "alpaca.json", 10)
    llava_file(tmp_path / "llava.json", 6)
    save_tokenizer(tmp_path / "tokenizer")
    return tmp_path


def conversation_data(files: Path, **options: Any) -> ConversationData:
    parts = {
        "text": Part(f"alpaca:{files / 'alpaca.json'}", share=0.5),
        "pictures": Part(f"llava:{files / 'llava.json'}", share=0.5),
    }
    data = ConversationData(**{"parts": parts, "samples": 12, "batch_size": 4} | options)
    data.trainer = FakeTrainer()  # type: ignore[assignment]
    data.trainer.lightning_module.backbone = composed(files / "tokenizer")
    return data


def test_training_batches_hold_every_part_and_count_as_told(files: Path) -> None:
    data = conversation_data(files)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert data.batches_per_epoch == len(batches) == 3
    assert data.part_names == ["text", "pictures"]
    loading = data_row(data, {}, seconds=2 * data.loading.waiting)["loading"]
    assert loading["workers"] == 0 and loading["wait_share"] == pytest.approx(0.5)
    assert loading["samples_per_second_per_worker"] == pytest.approx(12 / sum(batch.seconds for batch in batches))
    assert all(batch.sources.count("text") == 2 and batch.inputs["pixel_values"].shape[0] == 2 for batch in batches)


def test_validation_reads_each_source_from_its_start_and_names_it(files: Path) -> None:
    data = conversation_data(
        files, validation={"held": f"alpaca:{files / 'alpaca.json'}", "seen": f"llava:{files / 'llava.json'}"},
        validation_limit=3,
    )  # fmt: skip
    rows = [row for batch in data.val_dataloader() for row in zip(batch.sources, batch.ids, strict=True)]
    text = open_source(f"alpaca:{files / 'alpaca.json'}")
    assert rows == [("held", text[i].id) for i in range(3)] + [("seen", f"p{i}") for i in range(3)]


def test_no_validation_is_no_batches_but_test_wants_some(files: Path) -> None:
    data = conversation_data(files)
    assert data.val_dataloader() == []
    with pytest.raises(
        ConfigError, match=r"`test` reports the loss on data.validation, which this config does not name"
    ):
        data.test_dataloader()
    with pytest.raises(ConfigError, match=r"`predict` answers the conversations of data.prompts; name a source"):
        data.predict_dataloader()


def test_padding_free_is_refused_where_samples_would_meet(files: Path) -> None:
    data = conversation_data(files, padding_free=True)
    data.setup("fit")
    assert "position_ids" in next(iter(data.train_dataloader())).inputs
    data.trainer.lightning_module.backbone.padding_free = False
    with pytest.raises(ConfigError, match=r"data.padding_free: ComposedVLLM is not known to keep samples apart"):
        data.setup("fit")


def test_prompts_leave_the_last_answer_out_and_are_padded_on_the_left(files: Path) -> None:
    data = conversation_data(files, prompts=f"llava:{files / 'llava.json'}")
    batch = next(iter(data.predict_dataloader()))
    encoding: Encoding = data.encoding()
    text = encoding.tokenizer.decode(batch.inputs["input_ids"][0])
    assert text.endswith("colour?<|im_end|>\n<|im_start|>assistant\n")
    assert batch.inputs["attention_mask"][:, -1].all()


def test_what_is_wrong_before_any_file_is_opened() -> None:
    with pytest.raises(ConfigError, match=r"data.batch_size is 0, must be at least 1"):
        ConversationData({"a": Part("alpaca:nowhere", share=1)}, samples=1, batch_size=0)
    with pytest.raises(ConfigError, match=r"the shares sum to 0.5, not 1: a 0.5"):
        ConversationData({"a": Part("alpaca:nowhere", share=0.5)}, samples=1)
