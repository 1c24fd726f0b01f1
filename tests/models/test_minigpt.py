"""MiniGPT-v2: its pictures, its prompt, and that it trains, saves and answers like every other family."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import changed, tensors, trainer
from tiny import alpaca_file, ask, draw, golden, language_model, llava_file, talk
from torch import Tensor
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Blip2VisionConfig,
    LlamaConfig,
)

from vlsafe import ConversationData, MiniGPTv2, Part, SafetyFineTuning
from vlsafe.answering import Decoding
from vlsafe.conversation import ImageRef, Turn, assistant, user
from vlsafe.data.collate import Collate
from vlsafe.data.encoding import Encoding
from vlsafe.errors import ConfigError
from vlsafe.models.adaptation import Components, Tuning, original_name
from vlsafe.models.minigpt import MiniGPTv2Config, MiniGPTv2ForConditionalGeneration
from vlsafe.models.minigpt.processing import processor_of
from vlsafe.models.responder import ModelResponder

VISION = dict(
    hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=4
)
TOKENS = 4
"""16 patches in groups of four."""


@pytest.fixture(scope="session")
def checkpoint(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random MiniGPT-v2 in a folder."""
    text = AutoTokenizer.from_pretrained(tokenizer)
    vision = Blip2VisionConfig(**VISION, initializer_range=0.2)
    config = MiniGPTv2Config(vision_config=vision, image_token_id=len(text))
    processor = processor_of(text, config)
    fields = {k: v for k, v in language_model(tokenizer).items() if k not in ("model_type", "tokenizer")}
    config.text_config = LlamaConfig(**fields | {"vocab_size": len(text), "initializer_range": 0.3})
    folder = tmp_path_factory.mktemp("minigpt")
    torch.manual_seed(0)
    model = MiniGPTv2ForConditionalGeneration(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def backbone(checkpoint: Path) -> MiniGPTv2:
    return MiniGPTv2(str(checkpoint), attention="sdpa", dtype="float32")


@torch.inference_mode()
def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).logits


def test_the_defaults_are_the_published_sizes() -> None:
    config = MiniGPTv2Config()
    eva = config.vision_config
    assert (eva.hidden_size, eva.num_hidden_layers, eva.num_attention_heads) == (1408, 39, 16)
    assert (eva.image_size, eva.patch_size, eva.intermediate_size) == (448, 14, int(1408 * 4.3637))
    assert (config.patches, config.image_seq_length) == (1024, 256)
    with torch.device("meta"):
        model = MiniGPTv2ForConditionalGeneration(config)
    assert tuple(model.model.multi_modal_projector.weight.shape) == (4096, 4 * 1408)
    assert model.model.vision_tower.post_layernorm.eps == 1e-5
    assert model.model.vision_tower.encoder.layers[0].layer_norm1.eps == 1e-6
    with pytest.raises(ValueError, match=r"9 patches cannot be merged in groups of 4"):
        MiniGPTv2Config(vision_config=dict(image_size=12, patch_size=4))


def test_four_neighbouring_patches_become_one_token(backbone: MiniGPTv2) -> None:
    model = backbone.load_model().eval()
    pixels = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        seen = model.get_image_features(pixels)
        patches = model.model.vision_tower(pixels).last_hidden_state  # class token first
        second = torch.cat([patches[1, 1 + place] for place in (4, 5, 6, 7)])
        expected = model.model.multi_modal_projector.weight @ second + model.model.multi_modal_projector.bias
    assert [tuple(picture.shape) for picture in seen.pooler_output] == [(TOKENS, 16)] * 2
    assert torch.allclose(seen.pooler_output[1][1], expected, atol=1e-6)
    assert model.get_decoder() is model.model.language_model


@pytest.mark.parametrize(
    ("marked", "turns"),
    [
        ("<s>[INST] <Img><image></Img> c? [/INST][[ red</s>]]", lambda p: (user(p, "c?"), assistant("red"))),
        ("<s>[INST] hi [/INST][[ yes</s>]]", lambda p: (user("hi"), assistant("yes"))),
        (
            "<s>[INST] <Img><image></Img> a [/INST][[ b</s>]]<s>[INST] c [/INST][[ d</s>]]",
            lambda p: (user(p, "a"), assistant("b"), user("c"), assistant("d")),
        ),
        (
            "<s>[INST] a [/INST][[ b</s>]]<s>[INST] <Img><image></Img> c [/INST][[ d</s>]]",
            lambda p: (user("a"), assistant("b"), user(p, "c"), assistant("d")),
        ),
        (
            "<s>[INST] <<SYS>>\nbe kind\n<</SYS>>\n\nhi [/INST][[ yes</s>]]",
            lambda p: (Turn("system", ("be kind",)), user("hi"), assistant("yes")),
        ),
    ],
    ids=["picture", "text", "two turns", "picture later", "system"],
)
def test_ids_and_labels_are_those_written_by_hand(
    backbone: MiniGPTv2, picture: ImageRef, marked: str, turns: Callable[[ImageRef], tuple[Turn, ...]]
) -> None:
    conversation = talk(*turns(picture))
    encoded = Encoding(backbone.processor).sample(conversation)
    assert (encoded.input_ids.tolist(), encoded.labels.tolist()) == golden(marked)
    if len(conversation.turns) == 2:
        prompt = Encoding(backbone.processor).prompt(talk(conversation.turns[0]))
        assert prompt.text == marked.partition("[[")[0].replace("<image>", "<ImageHere>")


def test_with_the_vocabulary_of_llama_the_ids_are_those_of_the_repository(shared_data: Path, picture: ImageRef) -> None:
    """Values of the repository's ``prompt_wrap`` and ``tokenize_conversation`` with ``end_sym: </s>``, but with one
    space before ``[/INST]``; its picture is -200."""
    for legacy in (True, False):
        tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "llama2", legacy=legacy)
        made = Encoding(processor_of(tokenizer, MiniGPTv2Config()))
        talk_ = talk(
            user(picture, "What is shown?"), assistant("A red square."), user("Is it large?"), assistant("No.")
        )
        encoded = made.sample(talk_)
        image = made.processor.image_token_id
        ids = [i for i in encoded.input_ids.tolist() if i != image]
        before = [1, 518, 25580, 29962, 529, 25518, 29958]
        asked = [1533, 25518, 29958, 1724, 338, 4318, 29973, 518, 29914, 25580, 29962]
        again = [1, 518, 25580, 29962, 1317, 372, 2919, 29973, 518, 29914, 25580, 29962]
        answers = [[319, 2654, 6862, 29889, 2], [1939, 29889, 2]]
        assert ids == [*before, *asked, *answers[0], *again, *answers[1]], legacy
        assert encoded.input_ids.tolist()[7:263] == [image] * 256
        assert encoded.labels[encoded.labels != -100].tolist() == [*answers[0], *answers[1]]


def test_a_wide_picture_is_squeezed_to_the_square(backbone: MiniGPTv2, tmp_path: Path) -> None:
    from PIL import Image

    wide = Image.new("RGB", (32, 16), "red")
    wide.paste("blue", (16, 0, 32, 16))
    pixels = backbone.processor.image_processor(wide, return_tensors="pt")["pixel_values"]
    assert tuple(pixels.shape) == (1, 3, 16, 16)
    red, blue = pixels[0, 0, :, :6], pixels[0, 2, :, 10:]
    assert red.std() < 1e-3 and blue.std() < 1e-3  # all rows: nothing was cut off, nothing filled up
    assert float(red.mean()) == pytest.approx((1 - 0.48145466) / 0.26862954, abs=1e-3)


@pytest.mark.slow
def test_it_comes_back_from_its_folder_through_the_auto_classes(checkpoint: Path, picture: ImageRef) -> None:
    """In a new process, which knows the family only because vlsafe's class was asked for."""
    code = (
        "import sys; import vlsafe; vlsafe.MiniGPTv2; "
        "from transformers import AutoModelForImageTextToText as M, AutoProcessor as P; "
        "print(type(M.from_pretrained(sys.argv[1])).__name__, type(P.from_pretrained(sys.argv[1])).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(checkpoint)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.split() == ["MiniGPTv2ForConditionalGeneration", "MiniGPTv2Processor"], done.stderr


def test_a_round_trip_keeps_every_bit(backbone: MiniGPTv2, picture: ImageRef, tmp_path: Path) -> None:
    model = backbone.load_model().eval()
    inputs = Collate(0)([Encoding(backbone.processor).sample(ask("c?", "red", picture))]).inputs
    model.save_pretrained(tmp_path)
    backbone.processor.save_pretrained(tmp_path)
    again, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert torch.equal(logits(model, inputs), logits(again.eval(), inputs))
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert processor.image_seq_length == TOKENS
    assert processor.chat_template == backbone.processor.chat_template


def test_loss_is_that_of_the_supervised_tokens_and_kept_logits_are_the_same(
    backbone: MiniGPTv2, picture: ImageRef
) -> None:
    model, encoding = backbone.load_model().eval(), Encoding(backbone.processor)
    batch = Collate(0)([encoding.sample(ask("c?", "red", picture)), encoding.sample(ask("hi", "yes"))])
    with torch.inference_mode():
        out = model(**batch.inputs, labels=batch.labels)
        chosen = torch.tensor([3, 7])
        kept = model(**batch.inputs, logits_to_keep=chosen).logits
        last = model(**batch.inputs, logits_to_keep=2).logits
    wanted = batch.labels[:, 1:] != -100
    expected = torch.nn.functional.cross_entropy(out.logits[:, :-1][wanted], batch.labels[:, 1:][wanted])
    assert torch.allclose(out.loss, expected)
    assert torch.allclose(kept, out.logits[:, chosen], atol=1e-6)
    assert torch.allclose(last, out.logits[:, -2:], atol=1e-6)


def test_features_made_before_give_the_same_logits(backbone: MiniGPTv2, picture: ImageRef) -> None:
    model = backbone.load_model().eval()
    inputs = Collate(0)([Encoding(backbone.processor).sample(ask("c?", "red", picture))]).inputs
    with torch.inference_mode():
        made = model.get_image_features(inputs["pixel_values"])
        ids = {name: value for name, value in inputs.items() if name != "pixel_values"}
        again = model(**ids, mm_encoder_outputs={"image": made}).logits
        embedded = model.get_input_embeddings()(ids.pop("input_ids"))
        by_embedding = model(**ids, inputs_embeds=embedded, pixel_values=inputs["pixel_values"]).logits
    assert torch.equal(again, logits(model, inputs)) and torch.equal(by_embedding, again)
    with pytest.raises(ValueError, match="input_ids or inputs_embeds, one of them"):
        model(pixel_values=inputs["pixel_values"])


def test_more_placeholders_than_features_are_refused(backbone: MiniGPTv2, picture: ImageRef) -> None:
    model = backbone.load_model()
    inputs = Collate(0)([Encoding(backbone.processor).sample(ask("c?", "red", picture))]).inputs
    inputs["input_ids"][0, 0] = backbone.processor.image_token_id
    with pytest.raises(ValueError, match=r"the text holds 5 picture tokens, the pictures give 4 features"):
        model(**inputs)


def test_answers_in_a_batch_are_the_answers_one_by_one(backbone: MiniGPTv2, picture: ImageRef, tmp_path: Path) -> None:
    """Left padding, pictures and text-only rows together."""
    model = backbone.load_model()
    blue = draw(tmp_path, "blue.png", "blue")
    prompts = [talk(user(picture, "what?")), talk(user("a longer text-only question")), talk(user(blue, "b"))]

    def answers(size: int) -> list[tuple[str, int, str]]:
        found = dict(ModelResponder(model, backbone, batch_size=size).respond(prompts, Decoding(max_new_tokens=6)))
        return [(found[i].text, found[i].n_tokens, found[i].error) for i in range(3)]

    together = answers(3)
    assert together == answers(1)
    assert [error for *_, error in together] == ["", "", ""]
    assert len({text for text, *_ in together}) > 1


def test_samples_in_one_row_do_not_see_each_other(backbone: MiniGPTv2, picture: ImageRef) -> None:
    assert MiniGPTv2.padding_free
    model, encoding = backbone.load_model().eval(), Encoding(backbone.processor)
    encoded = [encoding.sample(ask("c?", "red", picture)), encoding.sample(ask("hi", "yes"))]
    row = logits(model, Collate(0, padding_free=True)(encoded).inputs | {"use_cache": False})[0]
    alone = torch.cat([logits(model, Collate(0)([one]).inputs)[0] for one in encoded])
    assert torch.allclose(row, alone, atol=1e-5)


@pytest.mark.parametrize(
    ("components", "trained"),
    [
        (Components(Tuning(), Tuning("full", 1e-2), Tuning("lora", 1e-2, rank=2)), {"lora", "projector"}),
        (Components(Tuning(), Tuning("full", 1e-2), Tuning()), {"projector"}),
        (Components(Tuning("full", 1e-2), Tuning("full", 1e-2), Tuning("full", 1e-2)), {"vision", "projector", "llm"}),
    ],
    ids=["paper", "projector", "full"],
)
def test_steps_change_exactly_what_the_table_names(
    components: Components, trained: set[str], checkpoint: Path, tmp_path: Path
) -> None:
    alpaca_file(tmp_path / "text.json", 8)
    llava_file(tmp_path / "pictures.json", 8)
    parts = {
        "text": Part(f"alpaca:{tmp_path / 'text.json'}", share=0.5),
        "pictures": Part(f"llava:{tmp_path / 'pictures.json'}", share=0.5),
    }
    module = SafetyFineTuning(
        MiniGPTv2(str(checkpoint), attention="sdpa", dtype="float32"), components, warmup_ratio=0.0
    )
    torch.manual_seed(0)
    module.configure_model()
    before = tensors(module)
    trainer(tmp_path, max_steps=2).fit(module, datamodule=ConversationData(parts, samples=16, batch_size=4))

    def kind(name: str) -> str:
        if "lora_" in name:
            return "lora"
        return next((k for k in ("vision", "projector") if k in original_name(name)), "llm")

    moved = changed(before, tensors(module))
    assert {kind(name) for name in moved} == trained
    still = {name for name in before if kind(name) in trained and "original_module" not in name} - moved
    assert still == set()


def test_another_model_is_refused_with_the_way_to_convert(tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    backbone = MiniGPTv2(str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"its model_type is 'llama'\); convert the published weights with `python -m"
    ):
        backbone.load_model()
