"""vicuna_v1 and llava_v1 give the very ids and labels of LLaVA's own ``train.py``.

The ids were written down from a run of its ``preprocess_multimodal``, ``preprocess_v1`` and ``tokenizer_image_token``
(commit c121f04) on the records below, with the vocabulary of Llama-2 and ``model_max_length`` 2048; the place of the
picture is -200 there. LLaVA counts the masked tokens of a turn by tokenising its pieces, less one for the second turn
where the tokenizer is not ``legacy``: its labels are each answer with the ``</s>`` after it, the rule held here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, LlamaTokenizer, LlavaProcessor, PreTrainedTokenizerBase
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from vlsafe.conversation import Conversation, ImageRef
from vlsafe.data.chat import chat_template, fitted_template
from vlsafe.data.encoding import Encoding
from vlsafe.data.processors import keep_spacing
from vlsafe.data.sources.llava import LLaVASource

PICTURE = -200
SYSTEM = (
    "1 319 13563 1546 263 12758 {who} 322 385 23116 21082 20255 29889 450 20255 4076 8444 29892 13173 29892 322 1248 "
    "568 6089 304 278 {who} 29915 29879 5155 29889"
)
WHO = {"vicuna_v1": 1404, "llava_v1": 5199}
"""The system prompt of each; they differ in "user" and "human"."""
USER, AGAIN = "3148 1001 29901", {True: "3148 1001 29901", False: "11889 29901"}
"""``USER:`` after text; after ``</s>`` its first word has a white space mark only where the tokenizer is legacy."""
ASSISTANT = "319 1799 9047 13566 29901"
SHOWN = f"{USER} 29871 {PICTURE} 29871 13 5618 338 4318 29973 {ASSISTANT}"
SQUARE = ("319 2654 6862 29889 2", "A red square.")

Message = tuple[str, str]
CASES: dict[str, tuple[list[Message], bool, str | None, list[str]]] = {
    "one turn": ([("human", "<image>\nWhat is shown?"), ("gpt", SQUARE[1])], True, None, [SHOWN, SQUARE[0]]),
    "two turns": (
        [("human", "<image>\nWhat is shown?"), ("gpt", SQUARE[1]), ("human", "Is it large?"), ("gpt", "No.")],
        True,
        None,
        [SHOWN, SQUARE[0], "AGAIN 1317 372 2919 29973 " + ASSISTANT, "1939 29889 2"],
    ),
    "text only": (
        [("human", "Name a colour."), ("gpt", "Red"), ("human", "Another?"), ("gpt", "Blue\nor green.")],
        False,
        None,
        [
            f"{USER} 4408 263 12384 29889 {ASSISTANT}",
            "4367 2",
            f"AGAIN 7280 29973 {ASSISTANT}",
            "10924 13 272 7933 29889 2",
        ],
    ),
    "picture named late": (
        [("human", "What colour is the\n<image>"), ("gpt", "Red.")],
        True,
        None,
        [f"{USER} 29871 {PICTURE} 29871 13 5618 12384 338 278 {ASSISTANT}", "4367 29889 2"],
    ),
    "system prompt": (
        [("human", "<image>\nWhat is shown?"), ("gpt", SQUARE[1])],
        True,
        "Answer briefly.",
        [SHOWN, SQUARE[0]],
    ),
    "a question that is a picture alone": (
        [("human", "<image>"), ("gpt", "So.")],
        True,
        None,
        [f"{USER} 29871 {PICTURE} {ASSISTANT}", "1105 29889 2"],
    ),
    "an empty answer before the last": (
        [("human", "What?"), ("gpt", ""), ("human", "Why?"), ("gpt", "So.")],
        False,
        None,
        [f"{USER} 1724 29973 {ASSISTANT} 11889 29901 3750 29973 {ASSISTANT}", "1105 29889 2"],
    ),
}


def golden(name: str, template: str, legacy: bool) -> tuple[list[int], list[int]]:
    """Ids and labels of a case: what LLaVA asks and what it trains, in turns, after the system prompt."""
    _, _, system, pieces = CASES[name]
    start = "1 673 23359 29889" if system else SYSTEM.format(who=WHO[template])
    ids, labels = [int(i) for i in start.split()], [-100] * len(start.split())
    for number, piece in enumerate(pieces):
        found = [int(i) for i in piece.replace("AGAIN", AGAIN[legacy]).split()]
        ids += found
        labels += found if number % 2 else [-100] * len(found)
    return ids, labels


def encoding_of(tokenizer: PreTrainedTokenizerBase, template: str, system: str | None = None) -> Encoding:
    """With a picture of one token, so that its ids are those that LLaVA has before it looks at the picture."""
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)])
    processor = LlavaProcessor(
        CLIPImageProcessorPil(crop_size=16, size={"shortest_edge": 16}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=fitted_template(chat_template(template), tokenizer),
    )
    return Encoding(processor, system)


def read(folder: Path, messages: list[Message], picture: ImageRef | None) -> Conversation:
    """The messages as LLaVA's file has them, through the source that reads such files."""
    row: dict[str, Any] = {"id": "r", "conversations": [{"from": who, "value": text} for who, text in messages]}
    (folder / "file.json").write_text(json.dumps([row | ({"image": picture.name} if picture else {})]))
    return LLaVASource(folder / "file.json", images=picture.root if picture else None)[0]


@cache
def llama2(shared_data: Path, legacy: bool) -> PreTrainedTokenizerBase:
    """Read once: its 32,000 words take a second."""
    return AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "llama2", legacy=legacy)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("template", ["vicuna_v1", "llava_v1"])
def test_ids_and_labels_are_llavas(
    shared_data: Path, tmp_path: Path, picture: ImageRef, template: str, legacy: bool
) -> None:
    for name, (messages, shown, system, _) in CASES.items():
        encoding = encoding_of(llama2(shared_data, legacy), template, system)
        encoded = encoding.sample(read(tmp_path, messages, picture if shown else None))
        image = encoding.processor.image_token_id
        ids = [PICTURE if i == image else i for i in encoded.input_ids.tolist()]
        assert (ids, encoded.labels.tolist()) == golden(name, template, legacy), name


LETTERS = "AEINRSTU:.?adelnorswy\n"


@pytest.fixture(params=[True, False], ids=["legacy", "not legacy"])
def small(request: pytest.FixtureRequest) -> LlamaTokenizer:
    """Llama's tokenizer over single letters: its white space mark, ``_`` below, can be read in what it gives."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *LETTERS]
    return LlamaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[], legacy=request.param)


def test_white_space_marks_stand_where_llava_has_them(small: LlamaTokenizer, tmp_path: Path, picture: ImageRef) -> None:
    messages = [("human", "<image>\nred?"), ("gpt", "yes"), ("human", "yellow?"), ("gpt", "no")]
    again = "_USER:" if small.legacy else "USER:"
    expected = f"<s>_a.?_USER:_<image>_\nred?_ASSISTANT:_yes</s>{again}_yellow?_ASSISTANT:_no</s>"
    encoding = encoding_of(small, "vicuna_v1", "a.?")
    conversation = read(tmp_path, messages, picture)
    encoded = encoding.sample(conversation)
    assert "".join(small.convert_ids_to_tokens(encoded.input_ids)).replace("▁", "_") == expected
    trained = encoded.input_ids[encoded.labels != -100]
    assert "".join(small.convert_ids_to_tokens(trained)).replace("▁", "_") == "_yes</s>_no</s>"


def test_a_saved_tokenizer_splits_as_the_one_that_was_trained_with(small: LlamaTokenizer, tmp_path: Path) -> None:
    conversation = read(tmp_path, [("human", "red?"), ("gpt", "yes"), ("human", "dry?"), ("gpt", "no")], None)
    encoding = encoding_of(small, "vicuna_v1", "a")
    keep_spacing(small)
    encoding.processor.save_pretrained(tmp_path / "saved")
    again = Encoding(LlavaProcessor.from_pretrained(tmp_path / "saved"), "a")
    assert again.processor.tokenizer.legacy is small.legacy
    assert again.sample(conversation).input_ids.tolist() == encoding.sample(conversation).input_ids.tolist()


def test_a_tokenizer_without_such_marks_gets_no_space(encoding: Callable[..., Encoding]) -> None:
    for name in ("vicuna_v1", "llava_v1"):
        assert encoding(name).processor.chat_template == chat_template(name)
