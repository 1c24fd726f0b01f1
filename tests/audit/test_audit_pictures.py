"""Pictures under audit: missing, broken, the same file, the same look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit.sets import rows, written
from PIL import Image

from vlsafe.audit.auditing import audit
from vlsafe.audit.pictures import NEAR, Picture, difference_hash, near_pairs
from vlsafe.conversation import ImageRef


def noise(seed: int, size: int = 64) -> Image.Image:
    """A picture of random blocks, unlike any of another seed."""
    blocks = np.random.default_rng(seed).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((size, size), Image.Resampling.NEAREST)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """Train and test with a picture for each record, all different."""
    for split, first in (("train", 0), ("test", 100)):
        for number, row in enumerate(rows(3, split)):
            path = tmp_path / split / row["image"]
            path.parent.mkdir(parents=True, exist_ok=True)
            noise(first + number).save(path)
    return tmp_path


def audited(folder: Path) -> dict[str, dict[str, Any]]:
    specs = [written(folder, rows(3, split), split) for split in ("train", "test")]
    return {finding["code"]: finding for finding in audit(specs)["findings"]}


def test_different_pictures_are_no_finding(drawn: Path) -> None:
    assert not {code for code in audited(drawn) if "picture" in code}


def test_the_same_file_within_and_across(drawn: Path) -> None:
    data = (drawn / "train/signs/train-u0.png").read_bytes()
    (drawn / "train/signs/train-u1.png").write_bytes(data)
    (drawn / "test/scenes/test-s2.png").write_bytes(data)
    findings = audited(drawn)
    assert findings["duplicate_picture"]["matches"] == {"train-u1": ["train-u0"]}
    assert findings["leaked_picture"]["matches"] == {"test-s2": ["train-u0"]}
    assert "similar_picture" not in findings and "leaked_similar_picture" not in findings


def test_a_rescaled_copy_within_and_across(drawn: Path) -> None:
    with Image.open(drawn / "train/signs/train-u0.png") as image:
        image.resize((48, 40), Image.Resampling.BICUBIC).save(drawn / "train/signs/train-u2.png", "JPEG", quality=85)
        image.resize((120, 90), Image.Resampling.BICUBIC).save(drawn / "test/signs/test-u0.png")
    findings = audited(drawn)
    assert findings["similar_picture"]["matches"] == {"train-u2": ["train-u0"]}
    assert findings["leaked_similar_picture"]["matches"] == {"test-u0": ["train-u0", "train-u2"]}
    assert "leaked_picture" not in findings


def test_missing_and_broken_pictures(drawn: Path) -> None:
    (drawn / "train/signs/train-u0.png").unlink()
    (drawn / "train/signs/train-u1.png").write_bytes(b"\x89PNG nothing")
    findings = audited(drawn)
    assert (findings["missing_picture"]["ids"], findings["missing_picture"]["severity"]) == (["train-u0"], "serious")
    assert findings["broken_picture"]["ids"] == ["train-u1"]


def test_difference_hash_by_hand() -> None:
    ramp = Image.fromarray(np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1)))
    assert difference_hash(ramp) == 2**64 - 1
    assert difference_hash(ramp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0


def test_near_pairs_equal_those_of_every_comparison() -> None:
    random = np.random.default_rng(0)
    looks = [int(look) for look in random.integers(0, 2**63, 60)]
    for look in looks[:30]:  # neighbours at 0 to 7 bits
        bits = random.choice(64, random.integers(0, 8), replace=False)
        looks.append(look ^ sum(1 << int(bit) for bit in bits))
    made = [Picture(ImageRef(Path("x"), str(n)), (str(n),), sha256=str(n), look=look) for n, look in enumerate(looks)]
    expected = {(a, b) for b in range(90) for a in range(b) if (looks[a] ^ looks[b]).bit_count() <= NEAR}
    assert {(int(a.sha256), int(b.sha256)) for a, b in near_pairs(made, made)} == expected
    assert 5 < len(expected) < 30
