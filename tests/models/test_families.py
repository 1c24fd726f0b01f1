"""Checkpoints of other families through PretrainedVLLM: pictures of other sizes become other numbers of tiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ask, draw, language_model, talk
from tokenizers import AddedToken
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
)

from vlsafe import PretrainedVLLM
from vlsafe.answering import Decoding
from vlsafe.conversation import user
from vlsafe.data.chat import chat_template
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding
from vlsafe.models.adaptation import Components, Tuning, adapt
from vlsafe.models.responder import ModelResponder

VISION = dict(
    hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=8
)
GRID = [[16, 32], [32, 16], [32, 32]]


def parts(tokenizer: Path, *extra: str) -> tuple[Any, dict[str, Any], int]:
    """A tokenizer with more tokens, a language model's config for it, and the placeholder's id."""
    made = AutoTokenizer.from_pretrained(tokenizer)
    made.add_tokens([AddedToken(token, special=True) for token in ("<image>", *extra)])
    text = language_model(tokenizer, vocab_size=len(made))
    del text["tokenizer"]
    return made, text, made.convert_tokens_to_ids("<image>")


def llava_next(tokenizer: Path) -> tuple[Any, Any]:
    made, text, image = parts(tokenizer)
    square = {"height": 16, "width": 16}
    pictures = LlavaNextImageProcessorPil(size={"shortest_edge": 16}, crop_size=square, image_grid_pinpoints=GRID)
    processor = LlavaNextProcessor(
        pictures, made, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=chat_template("chatml"),
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=VISION | {"model_type": "clip_vision_model"}, text_config=text, image_token_id=image,
        image_token_index=image, image_grid_pinpoints=GRID,
    )  # fmt: skip
    return processor, LlavaNextForConditionalGeneration(config)


def idefics3(tokenizer: Path) -> tuple[Any, Any]:
    made, text, image = parts(tokenizer, "<fake_token_around_image>", "<end_of_utterance>", "<global-img>")
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    processor = Idefics3Processor(pictures, made, image_seq_len=1, chat_template=chat_template("chatml"))
    config = Idefics3Config(
        vision_config=VISION, text_config=text, scale_factor=2, image_token_id=image, pad_token_id=0
    )  # fmt: skip
    return processor, Idefics3ForConditionalGeneration(config)


@pytest.fixture(params=[llava_next, idefics3], ids=["llava_next", "idefics3"])
def backbone(request: pytest.FixtureRequest, tokenizer: Path, tmp_path: Path) -> PretrainedVLLM:
    make: Callable[[Path], tuple[Any, Any]] = request.param
    torch.manual_seed(0)
    processor, model = make(tokenizer)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return PretrainedVLLM(str(tmp_path / "model"), dtype="float32", attention="sdpa")


@torch.inference_mode()
def last(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).logits


def test_pictures_of_different_sizes_and_text_in_one_batch_are_as_alone(
    backbone: PretrainedVLLM, tmp_path: Path
) -> None:
    model, encoding = backbone.load_model().eval(), Encoding(backbone.processor)
    wide, square = draw(tmp_path, "wide.png", "red", (32, 16)), draw(tmp_path, "square.png", "blue", (40, 40))
    encoded = [encoding.sample(ask("c?", "red", *shown)) for shown in ([wide], [square], [])]
    together = last(model, Collate(0)(encoded).inputs)
    for row, one in enumerate(encoded):
        alone = last(model, Collate(0)([one]).inputs)[0]
        assert torch.allclose(together[row, : len(alone)], alone, atol=1e-5)
        assert one.supervised == 4
    responder = ModelResponder(model, backbone, batch_size=3)
    answers = dict(responder.respond([talk(user(wide, "a")), talk(user(square, "b")), talk(user("c"))], Decoding(4)))
    assert [answers[i].error for i in range(3)] == ["", "", ""]


@pytest.mark.parametrize(
    "components",
    [
        Components(Tuning(), Tuning("full", 1e-3), Tuning("lora", 1e-3, rank=2)),
        Components(Tuning("full", 1e-3), Tuning("full", 1e-3), Tuning("full", 1e-3)),
    ],
    ids=["posthoc", "full"],
)
def test_every_parameter_has_a_component_and_what_trains_gets_a_gradient(
    backbone: PretrainedVLLM, components: Components, tmp_path: Path
) -> None:
    model = backbone.load_model()
    owner = backbone.component_of(model)
    assert set(owner.values()) == {"vision", "projector", "language"}
    adapted = adapt(model, backbone, components)
    encoding = Encoding(backbone.processor)
    batch = Collate(0)([encoding.sample(ask("c?", "red", draw(tmp_path, "wide.png", "red", (32, 16))))])
    adapted(**batch.inputs, labels=batch.labels).loss.backward()
    without = [name for name, p in adapted.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
