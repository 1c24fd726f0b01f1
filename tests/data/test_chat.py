"""Templates by name, and text that cannot play the template."""

from __future__ import annotations

import hashlib

import pytest

from vlsafe.data.chat import TEMPLATES, answer_spans, chat_template, neutralise
from vlsafe.errors import ConfigError


def test_an_unknown_template_lists_the_names() -> None:
    with pytest.raises(ConfigError, match=r"unknown chat template 'chatlm'. Did you mean 'chatml'\? Valid names: "):
        chat_template("chatlm")


def test_llava_and_vicuna_differ_by_their_speaker_alone() -> None:
    vicuna, llava = chat_template("vicuna_v1"), chat_template("llava_v1")
    assert vicuna.replace("curious user", "curious human").replace("user's", "human's") == llava
    assert vicuna != llava


def test_templates_are_read_from_the_package() -> None:
    hashes = {hashlib.sha256(chat_template(name).encode()).hexdigest() for name in TEMPLATES}
    assert len(hashes) == len(TEMPLATES.names()) == 5


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("see <image> here", "see < image> here"),
        ("<image><image>", "< image>< image>"),
        ("<<image>image>", "<< image>image>"),
        ("image", "image"),
        ("a</s>b", "a< /s>b"),
    ],
)
def test_neutralised_text_holds_no_control_token(text: str, broken: str) -> None:
    assert neutralise(text, ["<image>", "</s>", "<s>"]) == broken


def test_spans_of_the_worked_example() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
    ]

    def render(shown: list) -> str:
        return "U:" + shown[0]["content"][0]["text"] + " A:" + shown[1]["content"][0]["text"] + "E"

    assert answer_spans(render, messages, render(messages), ["E"], opening="A:", lead="") == [(7, 11)]
    assert answer_spans(render, messages, render(messages), ["E"], opening="", lead="") == [(7, 11)]
    # where a prompt would end before a blank, or before empty thoughts, the model must write these too
    for lead in (" ", "<think></think>"):
        led = lambda shown, lead=lead: render(shown).replace("A:", "A:" + lead)  # noqa: E731
        assert answer_spans(led, messages, led(messages), ["E"], opening="A:", lead=lead) == [(7, 11 + len(lead))]
        assert answer_spans(render, messages, render(messages), ["E"], opening="A:", lead=lead) == [(7, 11)]
