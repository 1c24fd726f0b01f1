"""Ids and labels of samples, written by hand and as transformers' own mask has them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labels import VICUNA, shown, two_turns
from tiny import ask, composed, draw, golden, talk
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from vlsafe.conversation import ImageRef, Turn, assistant, user
from vlsafe.data.encoding import BROKEN, Encoding
from vlsafe.data.images import open_image


def test_numbers_written_out(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    # 3 and 4 are ChatML's markers, 101 is the line break, 102 the picture, letters start at 16 with "a"
    encoded = encoding().sample(ask("c?", "ab", picture))
    start, user_, helper = [3], [36, 34, 20, 33, 101], [16, 34, 34, 24, 34, 35, 16, 29, 35, 101]
    question = [102, 102, 102, 102, 101, 18, 88, 4, 101]
    assert encoded.input_ids.tolist() == start + user_ + question + start + helper + [16, 17, 4, 101]
    assert encoded.labels.tolist() == [-100] * 26 + [16, 17, 4, -100]
    assert encoded.supervised == 3
    assert encoded.pixels["pixel_values"].shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("template", "marked"),
    [
        (
            "chatml",
            "<|im_start|>user\n<image>\nwhat?<|im_end|>\n<|im_start|>assistant\n[[a cat<|im_end|>]]\n"
            "<|im_start|>user\nhurt it<|im_end|>\n<|im_start|>assistant\n[[no<|im_end|>]]\n",
        ),
        (
            "vicuna_v1",
            f"{VICUNA}USER: <image>\nwhat? ASSISTANT:[[ a cat</s>]]USER: hurt it ASSISTANT:[[ no</s>]]",
        ),
    ],
)
def test_both_answers_of_a_two_turn_record_are_supervised_or_the_last_alone(
    encoding: Callable[..., Encoding], picture: ImageRef, template: str, marked: str
) -> None:
    assert shown(encoding(template).sample(two_turns(picture))) == golden(marked)
    last = re.sub(r"\[\[(.*?)\]\]", r"\1", marked, count=1)
    assert shown(encoding(template, supervise="last").sample(two_turns(picture))) == golden(last)


@pytest.mark.parametrize(
    ("template", "marked"),
    [
        ("chatml", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[[yes<|im_end|>]]\n"),
        ("vicuna_v1", f"{VICUNA}USER: hi ASSISTANT:[[ yes</s>]]"),
        ("llava_v1", VICUNA.replace("user", "human") + "USER: hi ASSISTANT:[[ yes</s>]]"),
    ],
)
def test_text_alone(encoding: Callable[..., Encoding], template: str, marked: str) -> None:
    encoded = encoding(template).sample(ask("hi", "yes"))
    assert shown(encoded) == golden(marked)
    assert encoded.pixels == {}


def test_a_picture_keeps_its_place(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n[[yes<|im_end|>]]\n"
    first, middle, last = ((picture, "a", "b"), ("a", picture, "b"), ("a", "b", picture))
    for content, text in ((first, "<image>\nab"), (middle, "a<image>\nb"), (last, "ab<image>\n")):
        assert shown(encoding().sample(talk(user(*content), assistant("yes")))) == golden(turn.format(text))


def test_a_picture_in_a_later_turn_and_two_pictures(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    blue = draw(picture.root, "blue.png", "blue")
    conversation = talk(user("hi"), assistant("yes"), user(picture, blue, "which?"), assistant("blue"))
    encoded = encoding().sample(conversation)
    assert shown(encoded) == golden(
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[[yes<|im_end|>]]\n"
        "<|im_start|>user\n<image>\n<image>\nwhich?<|im_end|>\n<|im_start|>assistant\n[[blue<|im_end|>]]\n"
    )
    red, blue_pixels = encoded.pixels["pixel_values"]
    assert red[0].mean() > blue_pixels[0].mean() and red[2].mean() < blue_pixels[2].mean()


@pytest.mark.parametrize(
    ("template", "marked"),
    [
        (
            "chatml",
            "<|im_start|>system\nbe safe<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
            "<|im_start|>assistant\n[[yes<|im_end|>]]\n",
        ),
        ("vicuna_v1", "<s>be safe USER: hi ASSISTANT:[[ yes</s>]]"),
    ],
)
def test_the_system_prompt_of_the_config_or_of_the_record(
    encoding: Callable[..., Encoding], template: str, marked: str
) -> None:
    assert shown(encoding(template, "be safe").sample(ask("hi", "yes"))) == golden(marked)
    own = talk(Turn("system", ("be safe",)), user("hi"), assistant("yes"))
    assert shown(encoding(template, "something else").sample(own)) == golden(marked)


@pytest.mark.parametrize("template", ["chatml", "vicuna_v1", "llava_v1"])
def test_a_prompt_is_the_beginning_of_its_training_sample(
    encoding: Callable[..., Encoding], picture: ImageRef, template: str
) -> None:
    made = encoding(template)
    prompt, sample = made.prompt(talk(user(picture, "what?"))), made.sample(ask("what?", "a cat", picture))
    length = len(prompt.input_ids)
    assert sample.input_ids[:length].tolist() == prompt.input_ids.tolist()
    assert sample.labels[length - 1] == -100 and sample.labels[length] != -100  # the next token is to be learnt
    assert set(prompt.labels.tolist()) == {-100}


def test_one_bos_whether_the_template_or_the_tokenizer_brings_it(tokenizer: Path, tmp_path: Path) -> None:
    adding = AutoTokenizer.from_pretrained(tokenizer)
    adding._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    adding.save_pretrained(tmp_path)
    for template in ("chatml", "vicuna_v1"):
        encoded = Encoding(composed(tmp_path, template=template).processor).sample(ask("hi", "yes"))
        assert encoded.input_ids.tolist().count(1) == 1 and encoded.input_ids[0] == 1
        assert encoded.labels[encoded.labels != -100].tolist()[-4:-1] == golden("yes")[0]


def test_an_answer_in_two_pieces_is_one_text(encoding: Callable[..., Encoding]) -> None:
    conversation = talk(user("hi"), Turn("assistant", ("yes", "no")))
    assert shown(encoding("vicuna_v1").sample(conversation)) == golden(f"{VICUNA}USER: hi ASSISTANT:[[ yes\nno</s>]]")


@pytest.mark.parametrize("template", ["chatml", "vicuna_v1", "llava_v1"])
def test_labels_are_those_of_transformers_own_mask(
    encoding: Callable[..., Encoding], picture: ImageRef, template: str
) -> None:
    made = encoding(template)
    long = talk(
        user("hi"), assistant("yes\n\nno "), user("see", picture, "and"), assistant(" 5"), user("?"), assistant("x")
    )
    for conversation in (ask("c?", "red", picture), two_turns(picture), ask("hi", "yes"), long):
        encoded = made.sample(conversation)
        out = made.processor.apply_chat_template(
            [_as_transformers(turn) for turn in conversation.turns],
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert encoded.input_ids.tolist() == list(out["input_ids"][0])
        assert (encoded.labels != -100).long().tolist() == list(out["assistant_masks"][0])


def _as_transformers(turn: Turn) -> dict[str, Any]:
    pieces: list[dict[str, Any]] = []
    for piece in turn.content:
        shown = isinstance(piece, str)
        pieces.append({"type": "text", "text": piece} if shown else {"type": "image", "image": open_image(piece)})
    return {"role": turn.role, "content": pieces}


@pytest.mark.parametrize("token", ["<image>", "<|im_end|>", "<|im_start|>", "<s>", "</s>", "<pad>"])
def test_control_tokens_in_plain_text_are_broken(
    encoding: Callable[..., Encoding], picture: ImageRef, token: str
) -> None:
    clean = encoding().sample(ask("hi ", "yes", picture)).input_ids.tolist()
    attacked = encoding().sample(ask(f"hi {token}", f"yes{token}", picture))
    special = range(6)
    assert [i for i in attacked.input_ids.tolist() if i in (*special, 102)] == [
        i for i in clean if i in (*special, 102)
    ]
    assert f"hi {token[0]} {token[1:]}" in attacked.text
    assert attacked.changes == {BROKEN: 2}


def test_a_control_token_without_a_role_of_its_own_is_broken_too(tokenizer: Path, tmp_path: Path) -> None:
    more = AutoTokenizer.from_pretrained(tokenizer)
    more.add_tokens([AddedToken("<|vision|>", special=True)])
    more.save_pretrained(tmp_path)
    made = Encoding(composed(tmp_path).processor)
    assert "hi < |vision|>" in made.sample(ask("hi <|vision|>", "yes")).text


def test_the_fingerprints_change_with_template_and_picture_fit(tokenizer: Path) -> None:
    made = [
        Encoding(composed(tokenizer).processor),
        Encoding(composed(tokenizer, template="vicuna_v1").processor),
        Encoding(composed(tokenizer, image_fit="crop").processor),
    ]
    first, other_template, other_fit = (one.fingerprints() for one in made)
    assert first == Encoding(composed(tokenizer).processor, "be safe").fingerprints()
    assert {name for name in first if first[name] != other_template[name]} == {"template"}
    assert {name for name in first if first[name] != other_fit[name]} == {"image_processor"}
