"""What single families need, shown where the shared checks cannot see it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from family_google import PALIGEMMA
from family_mllama import FAMILY as MLLAMA
from making import strong
from PIL import Image
from tiny import ask, talk
from transformers import AutoModelForImageTextToText, PreTrainedModel

from vlsafe import PretrainedVLLM
from vlsafe.conversation import ImageRef, assistant, user
from vlsafe.data.collate import Batch, Collate
from vlsafe.data.encoding import Encoding


@pytest.fixture
def paligemma(tmp_path: Path) -> PretrainedVLLM:
    PALIGEMMA.write(tmp_path).config.save_pretrained(tmp_path)
    return PretrainedVLLM(str(tmp_path), dtype="float32", attention="sdpa")


def test_paligemma_is_encoded_as_its_own_processor_does(
    paligemma: PretrainedVLLM, pictures: dict[str, ImageRef]
) -> None:
    """Theirs knows one question, its picture and the answer, which it calls a suffix."""
    ours = Encoding(paligemma.processor).sample(ask("c?", "red", pictures["red"]))
    plain = transformers.PaliGemmaProcessor.from_pretrained(paligemma.checkpoint)
    image = Image.open(pictures["red"].root / pictures["red"].name)
    theirs = plain(text="<image>c?", images=image, suffix="red", return_tensors="pt")
    assert torch.equal(ours.input_ids, theirs["input_ids"][0])
    assert torch.equal(ours.labels, theirs["labels"][0])
    assert torch.equal(ours.per_token["token_type_ids"], theirs["token_type_ids"][0])
    assert torch.equal(ours.pixels["pixel_values"], theirs["pixel_values"])


def test_paligemma_reads_both_ways_up_to_the_first_answer_in_training_and_in_prompts(
    paligemma: PretrainedVLLM,
) -> None:
    encoding = Encoding(paligemma.processor, supervise="last")
    turns = [user("hi"), assistant("yo"), user("c?")]
    prompt, sample = encoding.prompt(talk(*turns)), encoding.sample(talk(*turns, assistant("red")))
    first = len(["<bos>", *"hi\n"])
    for encoded in (prompt, sample):
        kinds = encoded.per_token["token_type_ids"]
        assert kinds.tolist() == [0] * first + [1] * (len(encoded.input_ids) - first)
    assert encoding.prompt(talk(user("hi"))).per_token["token_type_ids"].tolist() == [0] * first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_mllama_masks_is_finite_in_any_precision(
    dtype: torch.dtype, tmp_path: Path, pictures: dict[str, ImageRef]
) -> None:
    strong(MLLAMA.write(tmp_path)).save_pretrained(tmp_path)
    backbone = PretrainedVLLM(str(tmp_path), dtype="float32", attention="sdpa")
    model, encoding = backbone.load_model().eval(), Encoding(backbone.processor)
    batch = Collate(0)([encoding.sample(ask("c?", "red", pictures["red"])), encoding.sample(ask("hi", "yo"))])
    cross, masks = model.model.language_model.layers[1].cross_attn, []
    cross.register_forward_pre_hook(lambda _, args, given: masks.append(given["attention_mask"]), with_kwargs=True)
    with torch.inference_mode():
        blank, _ = backbone.with_blank_image(model, Collate(0)([encoding.sample(ask("a", "b"))]).inputs)
        for inputs in (batch.inputs, blank):
            model(**inputs)
    assert [bool((mask < 0).all(-1)[-1].all()) for mask in masks] == [True, True]  # rows that see nothing
    assert all(mask.to(dtype).isfinite().all() for mask in masks)


def text_row_moves(model: PreTrainedModel, batch: Batch, alone: Batch) -> float:
    """How far the logits of a text-only sample, the batch's last, are from those that it has alone."""
    with torch.inference_mode():
        apart: torch.Tensor = model(**alone.inputs).logits[0]
        return float((model(**batch.inputs).logits[-1, : len(apart)] - apart).abs().max())


def test_mllama_rows_read_their_own_pictures_only_because_we_see_to_it(
    tmp_path: Path, pictures: dict[str, ImageRef]
) -> None:
    """The day that transformers does it by itself, the first line fails, and ``Mllama.prepare`` can go."""
    strong(MLLAMA.write(tmp_path)).save_pretrained(tmp_path)
    backbone = PretrainedVLLM(str(tmp_path), dtype="float32", attention="sdpa")
    encoding = Encoding(backbone.processor)
    text = encoding.sample(ask("hi", "yo"))
    batch, alone = Collate(0)([encoding.sample(ask("c?", "red", pictures["red"])), text]), Collate(0)([text])
    assert text_row_moves(AutoModelForImageTextToText.from_pretrained(tmp_path).eval(), batch, alone) > 0.01
    assert text_row_moves(backbone.load_model().eval(), batch, alone) < 1e-5
