"""LLaVA's ``plain`` form of the first stage: an image, its caption and a line break, and no word of the user's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from labels import shown
from tiny import ask, composed, golden
from transformers import AutoTokenizer

from vlsafe.conversation import ImageRef
from vlsafe.data.encoding import Encoding

LLAMA = Path(__file__).parents[4] / "shared" / "data" / "tokenizers" / "llama2"


def test_the_caption_and_its_line_break_are_supervised(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    """As llava/train/train.py, preprocess_plain: the user's words make way for the image; labels begin after it."""
    asked = ask("Render a clear summary of the photo.", "a red cat", picture)
    assert shown(encoding("plain").sample(asked)) == golden("<s><image>[[a red cat\n]]")


def test_a_line_break_in_a_caption_does_not_end_it(encoding: Callable[..., Encoding], picture: ImageRef) -> None:
    assert shown(encoding("plain").sample(ask("?", "a\ncat", picture))) == golden("<s><image>[[a\ncat\n]]")


def test_other_templates_must_still_end_by_a_control_token(encoding: Callable[..., Encoding]) -> None:
    made = encoding("chatml")
    assert "\n" not in made._end_tokens() and "\n" in encoding("plain")._end_tokens()


@pytest.mark.skipif(not LLAMA.is_dir(), reason="the real Llama vocabulary is not on this machine")
def test_ids_are_llava_s_with_the_real_vocabulary(tokenizer: Path, picture: ImageRef) -> None:
    """LLaVA tokenises the caption alone: 263 2654 6635 are ``▁a ▁red ▁cat``, 13 the line break, 1 ``<s>``."""
    llama = AutoTokenizer.from_pretrained(LLAMA)
    alone = llama("a red cat\n", add_special_tokens=False)["input_ids"]
    assert alone == [263, 2654, 6635, 13]
    backbone = composed(tokenizer, template="plain", language={"model_type": "llama", "tokenizer": str(LLAMA)})
    found = Encoding(backbone.processor).sample(ask("what?", "a red cat", picture))
    image = backbone.processor.image_token_id
    assert found.input_ids.tolist() == [1, *[image] * 4, *alone]
    assert found.labels.tolist() == [-100] * 5 + alone
