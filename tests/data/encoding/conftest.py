"""A tokenizer, a picture, and encodings of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import composed, draw, save_tokenizer

from vlsafe.conversation import ImageRef
from vlsafe.data.encoding import Encoding


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
