"""Grouped by modality and length inside windows: the mixture's shares hold, and any machine has the same batches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import alpaca_file, ask, llava_file

from vlsafe import ConversationData, Part
from vlsafe.conversation import ImageRef
from vlsafe.data.grouping import Grouping, described
from vlsafe.data.loader import StepSampler
from vlsafe.data.mixture import Mixture
from vlsafe.errors import ConfigError

BATCH = 8
PARTS = {"safety": Part("x:y", share=0.3), "pictures": Part("x:y", share=0.45), "text": Part("x:y", share=0.25)}
MIXTURE = Mixture(PARTS, dict.fromkeys(PARTS, 40), 1000, seed=1)


def tell(step: int) -> tuple[bool, int]:
    """``text`` has no images; a record's number decides its words."""
    part, record = MIXTURE.at(step)
    return part != "text", record % 7 + 1


def batches(samples: int, world: int = 1, accumulate: int = 1, windows: int = 4, epoch: int = 0) -> list[list[int]]:
    """The global batches of one epoch, as ranks that accumulate see them together."""
    micro = BATCH // world // accumulate
    grouping = Grouping(tell, BATCH, windows, seed=5)
    ranks = [StepSampler(samples, micro, rank, world, grouping) for rank in range(world)]
    for rank in ranks:
        rank.epoch = epoch
    steps = [step for together in zip(*ranks, strict=True) for mine in together for step in mine]
    return [steps[begin : begin + BATCH] for begin in range(0, len(steps), BATCH)]


@settings(deadline=None, max_examples=60)
@given(samples=st.integers(1, 200), windows=st.integers(1, 6), epoch=st.integers(0, 2))
def test_every_window_holds_the_steps_of_the_mixture(samples: int, windows: int, epoch: int) -> None:
    found, size = batches(samples, windows=windows, epoch=epoch), windows * BATCH
    steps, first = [step for batch in found for step in batch], epoch * len(found) * BATCH
    for begin in range(0, len(steps), size):
        window = steps[begin : begin + size]
        assert sorted(window) == list(range(first + begin, first + begin + len(window)))
        counts = Counter(MIXTURE.at(step)[0] for step in steps[: begin + len(window)])
        if epoch == 0:
            assert counts == Counter({n: c for n, c in MIXTURE.counts(begin + len(window)).items() if c})


def test_a_global_batch_has_images_or_none_and_goes_from_long_to_short() -> None:
    """LLaVA's batches: of one modality, the longest first; what is left of a window shares one batch."""
    found = batches(320, windows=10)
    for window in (found[begin : begin + 10] for begin in range(0, len(found), 10)):
        kinds = [{tell(step)[0] for step in batch} for batch in window]
        assert sum(len(kind) == 2 for kind in kinds) <= 1
        assert {True} in kinds and {False} in kinds
        for batch in window:
            told = [tell(step) for step in batch]
            assert told == sorted(told, reverse=True)
    assert [{tell(step)[0] for step in batch} for batch in found] != sorted(
        ({tell(step)[0] for step in batch} for batch in found), key=str
    ), "kinds are shuffled, not one after the other"


@pytest.mark.parametrize("samples", [64, 160])
def test_the_same_global_batches_on_any_number_of_ranks(samples: int) -> None:
    one = batches(samples)
    for world, accumulate in ((1, 4), (2, 1), (2, 2), (4, 2), (8, 1)):
        assert batches(samples, world, accumulate) == one


def test_a_resumed_epoch_goes_on_in_the_same_order() -> None:
    def sampler() -> StepSampler:
        return StepSampler(100, BATCH, grouping=Grouping(tell, BATCH, 4, seed=5))

    whole, resumed = list(sampler()), sampler()
    resumed.start = 6
    assert list(resumed) == whole[6:]


def test_an_epoch_s_short_last_batch_stays_last() -> None:
    """20 samples of 4 a micro-batch, 8 a step: the third step has 4, and none before it may."""
    grouping = Grouping(tell, 8, 2, seed=5)
    steps = [step for batch in StepSampler(20, 4, grouping=grouping) for step in batch]
    assert sorted(steps) == list(range(20)) and sorted(steps[16:]) == [16, 17, 18, 19]


def test_words_and_images_as_llava_counts_them(tmp_path: Path) -> None:
    picture = ImageRef(tmp_path, "x.png")
    assert described(ask("what is this?", "a red cat", picture)) == (True, 6)
    assert described(ask("say  hi", "hi")) == (False, 3)


def test_the_datamodule_groups_what_an_optimizer_step_sees(tmp_path: Path) -> None:
    alpaca_file(tmp_path / "a.json", 24)
    llava_file(tmp_path / "l.json", 24)
    parts = {
        "text": Part(f"alpaca:{tmp_path / 'a.json'}", repeat=1),
        "pictures": Part(f"llava:{tmp_path / 'l.json'}", repeat=1),
    }
    data = ConversationData(parts, batch_size=2, group_by_modality_length=6)
    data.trainer = SimpleNamespace(world_size=2, global_rank=1, accumulate_grad_batches=2)  # type: ignore[assignment]
    mixture = data.open()
    mine = list(data._steps())
    assert data.batches_per_epoch == len(mine) == 12
    for first, second in zip(mine[::2], mine[1::2], strict=True):
        assert len({mixture.at(step)[0] for step in first + second}) == 1
    with pytest.raises(ConfigError, match="group_by_modality_length is 0: a window has at least 1"):
        ConversationData(parts, group_by_modality_length=0)
