"""Batches: padded by position, pictures in reading order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import ask, composed, draw, golden, save_tokenizer

from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoded, Encoding


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
    assert batch.inputs.keys() == {"input_ids", "position_ids", "pixel_values"}  # a mask would let samples meet
    assert batch.inputs["input_ids"].tolist() == [[i for sample in samples for i in sample.input_ids.tolist()]]
    assert batch.inputs["position_ids"].tolist() == [[i for length in lengths for i in range(length)]]
    assert batch.samples.tolist() == [[row for row, length in enumerate(lengths) for _ in range(length)]]
    assert batch.labels.tolist() == [[label for sample in samples for label in sample.labels.tolist()]]


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
