"""The drawn set, made once for all tests here."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from drawn_files import SPLITS

from vlsafe.data.drawn import build
from vlsafe.data.drawn.records import Drawn, SplitMaker
from vlsafe.data.drawn.tables import Split


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn")
    build(out)
    return out


@pytest.fixture(scope="session")
def drawn() -> dict[Split, list[Drawn]]:
    """The same records as in ``built``, with the descriptions of their pictures."""
    return {split: SplitMaker(random.Random(f"0/{split}"), split).records() for split in SPLITS}
