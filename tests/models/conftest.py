"""One tokenizer and one picture for every test of the models."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import draw, save_tokenizer

from vlsafe.conversation import ImageRef


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> ImageRef:
    return draw(tmp_path_factory.mktemp("pictures"))
