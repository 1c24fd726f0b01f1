"""A picture for the tests of encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlsafe.conversation import ImageRef


@pytest.fixture
def photo(tmp_path: Path) -> ImageRef:
    """A wide picture without symmetry."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 33, 3), dtype=np.uint8)).save(tmp_path / "p.png")
    return ImageRef(tmp_path, "p.png")
