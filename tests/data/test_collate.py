"""Batches: padded by position, pictures in reading order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import ask, composed, draw, golden, save_tokenizer

from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoded, Encoding
from vlsafe.errors import ConfigError


@pytest.fixture
def samples(tmp_path: Path) -> list[Encoded]:
    """Text, red picture, text, blue picture; the third is the longest."""
    encoding = Encoding(composed(save_tokenizer(tmp_path / "tokenizer")).processor)
    red, blue = draw(tmp_path, "red.png", "red"), draw(tmp_path, "blue.png", "blue")
    return [
        encoding.sample(ask("a", "yes", identity="1")),
        encoding.sample(ask("b", "no", red, identity="2")),
        encoding.sample(ask("c" * 30, "maybe", identity="3")),
        encoding.sample(ask("d", "no", blue, identity="4")),
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_and_picture_rows_in_one_batch(samples: list[Encoded], side: str) -> None:
    batch = Collate(pad_id=0, side=side)(samples)
    longest = len(samples[2].input_ids)
    assert batch.ids == ["1", "2", "3", "4"]
    assert batch.labels.shape == batch.inputs["input_ids"].shape == (4, longest)
    for row, sample in enumerate(samples):
        padding = longest - len(sample.input_ids)
        filled = slice(padding, None) if side == "left" else slice(0, longest - padding)
        assert batch.inputs["input_ids"][row, filled].tolist() == sample.input_ids.tolist()
        assert batch.labels[row, filled].tolist() == sample.labels.tolist()
        assert batch.inputs["attention_mask"][row].sum() == len(sample.input_ids)
        assert batch.inputs["attention_mask"][row, filled].all()
        assert (batch.labels[row] != -100).sum() == (sample.labels != -100).sum()
    assert torch.equal(
        batch.inputs["pixel_values"], torch.cat([samples[1].pixels["pixel_values"], samples[3].pixels["pixel_values"]])
    )


def test_without_padding_the_samples_stand_one_after_the_other(samples: list[Encoded]) -> None:
    batch = Collate(pad_id=0, padding_free=True)(samples)
    lengths = [len(sample.input_ids) for sample in samples]
    bounds = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
    assert batch.inputs.keys() == {"input_ids", "position_ids", "pixel_values", *bounds}  # a mask lets samples meet
    assert batch.inputs["input_ids"].tolist() == [[i for sample in samples for i in sample.input_ids.tolist()]]
    assert batch.inputs["position_ids"].tolist() == [[i for length in lengths for i in range(length)]]
    assert batch.samples.tolist() == [[row for row, length in enumerate(lengths) for _ in range(length)]]
    assert batch.labels.tolist() == [[label for sample in samples for label in sample.labels.tolist()]]


def test_without_padding_the_bounds_of_samples_go_along_as_flash_kernels_want_them(samples: list[Encoded]) -> None:
    """int32, from 0 to the whole length, and lengths as numbers: a tensor would be read back from the GPU."""
    lengths = [len(sample.input_ids) for sample in samples]
    batch = Collate(pad_id=0, padding_free=True)(samples).to(torch.device("cpu"))
    ends = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
    for side in "qk":
        cumulative = batch.inputs[f"cu_seq_lens_{side}"]
        assert cumulative.dtype == torch.int32 and cumulative.tolist() == ends
        assert type(batch.inputs[f"max_length_{side}"]) is int and batch.inputs[f"max_length_{side}"] == max(lengths)
    assert not Collate(pad_id=0, padding_free=True)([samples[0], samples[2]]).has_pictures


def test_text_alone_has_no_pictures(samples: list[Encoded]) -> None:
    assert set(Collate(0)([samples[0], samples[2]]).inputs) == {"input_ids", "attention_mask"}


def test_the_end_token_stays_supervised_where_it_is_also_the_padding(tmp_path: Path) -> None:
    tokenizer = save_tokenizer(tmp_path, pad_token="</s>")
    encoding = Encoding(composed(tokenizer, template="vicuna_v1").processor)
    pad = encoding.tokenizer.pad_token_id
    assert pad == encoding.tokenizer.eos_token_id
    batch = Collate(pad)([encoding.sample(ask("hi", "yes")), encoding.sample(ask("hi", "yes, that is so"))])
    end = golden("</s>")[0]
    supervised = [row[row != -100].tolist() for row in batch.labels]
    assert supervised == [golden(" yes")[0] + end, golden(" yes, that is so")[0] + end]
    assert batch.inputs["attention_mask"][0].tolist() == [1] * (batch.labels.shape[1] - 12) + [0] * 12


def test_a_tokenizer_without_padding_pads_with_its_end_token(tmp_path: Path) -> None:
    processor = composed(save_tokenizer(tmp_path, pad_token="")).processor
    assert processor.tokenizer.pad_token_id == processor.tokenizer.eos_token_id


def row(length: int, **more: dict[str, torch.Tensor]) -> Encoded:
    ids = torch.arange(1, length + 1)
    return Encoded("r", "s", ids, ids, **more)


def test_what_comes_with_every_token_is_padded_with_it() -> None:
    kinds = [{"mm_token_type_ids": torch.tensor([0, 1])}, {}, {"mm_token_type_ids": torch.tensor([1, 1, 0])}]
    rows = [row(2, per_token=kinds[0]), row(1), row(3, per_token=kinds[2])]
    left, right = (Collate(0, side)(rows).inputs["mm_token_type_ids"] for side in ("left", "right"))
    assert right.tolist() == [[0, 1, 0], [0, 0, 0], [1, 1, 0]]
    assert left.tolist() == [[0, 0, 1], [0, 0, 0], [1, 1, 0]]
    assert not Collate(0)(rows).has_pictures
    with pytest.raises(ConfigError, match="padding_free cannot lay out mm_token_type_ids"):
        Collate(0, padding_free=True)(rows)


def test_pictures_of_cross_attention_stay_with_their_row() -> None:
    """Row 0 has two pictures, row 1 none, row 2 one, of which only its last token sees the first tile."""
    masks = [torch.ones(2, 2, 4), None, torch.zeros(3, 1, 4)]
    masks[2][-1, 0, 0] = 1  # type: ignore[index]
    rows = [
        row(2, per_token={"cross_attention_mask": masks[0]}, pixels={"pixel_values": torch.full((1, 2, 4, 3), 5.0)}),
        row(1),
        row(3, per_token={"cross_attention_mask": masks[2]}, pixels={"pixel_values": torch.full((1, 1, 4, 3), 7.0)}),
    ]
    batch = Collate(0, "left")(rows)
    pixels, mask = batch.inputs["pixel_values"], batch.inputs["cross_attention_mask"]
    assert pixels.shape == (3, 2, 4, 3) and mask.shape == (3, 3, 2, 4)
    assert pixels.amax((2, 3)).tolist() == [[5, 5], [0, 0], [7, 0]]
    assert mask[0].sum((1, 2)).tolist() == [0, 8, 8] and mask[1].sum() == 0
    assert mask[2].nonzero().tolist() == [[2, 0, 0]]
    assert batch.has_pictures
