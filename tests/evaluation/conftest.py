"""What several files of these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vlsafe.fetch.paths import use_cache


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    """The cache directory for one test: what is drawn or unpacked goes there."""
    use_cache(tmp_path / "cache")
    yield tmp_path / "cache"
    use_cache(None)
