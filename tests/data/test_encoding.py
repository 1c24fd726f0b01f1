"""Ids and labels against hand-written ones: what a model is shown, and which of it it must learn."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import ask, composed, draw, golden, save_tokenizer, talk
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from vlsafe.conversation import Conversation, ImageRef, Turn, assistant, user
from vlsafe.data.encoding import Encoded, Encoding
from vlsafe.data.images import open_image
from vlsafe.errors import ConfigError, DataError

VICUNA = (
    "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. "
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> ImageRef:
    return draw(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def encoding(tokenizer: Path) -> Callable[..., Encoding]:
    def make(template: str = "chatml", system_prompt: str | None = None, **options: Any) -> Encoding:
        return Encoding(composed(tokenizer, template=template).processor, system_prompt, **options)

    return make


def shown(encoded: Encoded) -> tuple[list[int], list[int]]:
    return encoded.input_ids.tolist(), encoded.labels.tolist()


def two_turns(picture: ImageRef) -> Conversation:
    """A safe picture of VLGuard: a harmless question, then a harmful one that is refused, under one picture."""
    return talk(user(picture, "what?"), assistant("a cat"), user("hurt it"), assistant("no"))


# --- golden


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


# --- an independent check


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


# --- control tokens in data


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


def test_a_control_token_without_a_role_of_its_own_is_broken_too(tokenizer: Path, tmp_path: Path) -> None:
    more = AutoTokenizer.from_pretrained(tokenizer)
    more.add_tokens([AddedToken("<|vision|>", special=True)])
    more.save_pretrained(tmp_path)
    made = Encoding(composed(tmp_path).processor)
    assert "hi < |vision|>" in made.sample(ask("hi <|vision|>", "yes")).text


# --- what cannot be trained on


def test_an_empty_answer_names_the_record(encoding: Callable[..., Encoding]) -> None:
    with pytest.raises(DataError) as caught:
        encoding().sample(ask("hi", " \n", identity="r9"))
    assert str(caught.value) == (
        "file.json, record 'r9': an assistant answer is empty; give it text or remove the record"
    )


def test_a_record_without_an_answer_names_the_record(encoding: Callable[..., Encoding]) -> None:
    with pytest.raises(DataError) as caught:
        encoding().sample(talk(user("hi")))
    assert str(caught.value) == ("file.json, record 'r1': no token would be supervised; it needs an assistant answer")


@pytest.mark.parametrize(
    "turns",
    [(assistant("yes"),), (user("a"), user("b"), assistant("c")), (Turn("system", ("be safe",)),)],
)
def test_turns_that_do_not_alternate_name_the_record(
    encoding: Callable[..., Encoding], turns: tuple[Turn, ...]
) -> None:
    with pytest.raises(DataError, match=r"file.json, record 'r1': turns must alternate user and assistant"):
        encoding().sample(talk(*turns))


def test_a_long_record_is_an_error_or_cut_at_its_end(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    record = ask("c?", "red", picture)
    whole = encoding().sample(record)
    length = len(whole.input_ids)
    with pytest.raises(DataError) as caught:
        encoding(max_length=length - 1).sample(record)
    assert str(caught.value) == (
        f"file.json, record 'r1': {length} tokens, more than max_length={length - 1}; raise max_length, "
        "or set too_long: truncate to cut its last answer"
    )
    assert shown(encoding(max_length=length).sample(record)) == shown(whole)
    cut = encoding(max_length=length - 3, too_long="truncate").sample(record)
    assert shown(cut) == (whole.input_ids[:-3].tolist(), whole.labels[:-3].tolist())
    assert cut.supervised == 2


def test_truncation_leaves_something_of_the_last_answer_or_is_an_error(
    encoding: Callable[..., Encoding], picture: ImageRef
) -> None:
    record = two_turns(picture)
    length = len(encoding().sample(record).input_ids)
    # the record ends with "no", the end-of-turn token and a line break
    assert encoding(max_length=length - 3, too_long="truncate").sample(record).labels[-1] != -100
    with pytest.raises(DataError) as caught:
        encoding(max_length=length - 4, too_long="truncate").sample(record)
    assert str(caught.value) == (
        f"file.json, record 'r1': max_length={length - 4} would cut its whole last answer; raise max_length"
    )


def test_truncation_never_cuts_a_picture(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    record = ask("c?", "red", picture)
    for length in (1, 6, 7, 9):  # the picture's four tokens are the 7th to the 10th
        with pytest.raises(DataError, match=f"record 'r1': max_length={length} would cut a picture; raise max_length"):
            encoding(max_length=length, too_long="truncate").sample(record)


# --- templates that cannot be labelled


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m['content'][0]['text'] | upper }}</s>{% endfor %}", "rewrites assistant answers"),
        ("{% for m in messages %}{{ m['content'][0]['text'] }}\n{% endfor %}", "puts no end-of-turn token after"),
        ("{% for m in messages %}{{ m['content'][0]['text'] * 2 }}</s>{% endfor %}", "repeats or drops"),
        ("{{ messages[0]['content'][0]['text'] }}</s>", "repeats or drops"),
    ],
)
def test_a_template_whose_answers_cannot_be_found_is_refused(
    encoding: Callable[..., Encoding], template: str, words: str
) -> None:
    made = encoding()
    made.processor.chat_template = template
    with pytest.raises(ConfigError, match=words):
        made.sample(ask("hi", "yes"))


def test_a_template_that_drops_pictures_is_refused(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    made = encoding()
    made.processor.chat_template = (
        "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}</s>{% endfor %}"
    )
    with pytest.raises(DataError, match=r"record 'r1': the template shows 0 pictures, the record has 1"):
        made.sample(ask("hi", "yes", picture))


def test_a_template_that_trims_answers_still_labels_them(encoding: Callable[..., Encoding]) -> None:
    made = encoding()
    made.processor.chat_template = "{% for m in messages %}{{ m['content'][0]['text'] | trim }}</s>{% endfor %}"
    assert shown(made.sample(ask("hi", " yes "))) == golden("hi</s>[[yes</s>]]")


# --- fingerprint


def test_the_fingerprint_changes_with_template_system_prompt_and_picture_fit(tokenizer: Path) -> None:
    made = [
        Encoding(composed(tokenizer).processor),
        Encoding(composed(tokenizer, template="vicuna_v1").processor),
        Encoding(composed(tokenizer).processor, "be safe"),
        Encoding(composed(tokenizer, image_fit="crop").processor),
    ]
    assert len({one.fingerprint() for one in made}) == 4
    assert made[0].fingerprint() == Encoding(composed(tokenizer).processor).fingerprint()
