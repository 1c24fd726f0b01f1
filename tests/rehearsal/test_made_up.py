"""Made-up records and items open as the real ones do; excerpts keep what a choice of records asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tiny import draw
from vlsafe.data.sources import SOURCES, open_source
from vlsafe.evaluation.scoring import check_pictures
from vlsafe.rehearsal.excerpts import FIRST, first_records
from vlsafe.rehearsal.items import MADE_UP as ITEMS
from vlsafe.rehearsal.records import MADE_UP as RECORDS
from vlsafe.rehearsal.records import VLGUARD

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("alpaca", {}), ("easy_vqa", {"wordings": "common"}), ("easy_vqa", {"split": "test", "wordings": "rare"}),
    ("llava", {"on_bad_record": "skip"}), ("messages", {}), ("messages", {"columns": {"id": "key"}, "tags": ["topic"]}),
    ("messages", {"columns": {"question": "asked", "answer": "told", "images": "shown"}}), ("hub", {"split": "test"}),
    ("hub", {"columns": {"question": "asked", "answer": "told", "images": "shown"}, "revision": "abc"}),
    ("vlguard", {}), ("vlguard", {"two_turn": False, "subsets": ["safe_safe"]}), ("vlguard", {"split": "test"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_made_up_records_open(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    made = RECORDS[kind](tmp_path / "made", {"path": "nowhere", **options}, 40)
    source = open_source({"kind": kind, **made})
    conversations = list(source)
    assert len(conversations) >= 3 and source.skipped == 0
    if kind not in ("easy_vqa", "vlguard"):
        assert max(len(each.turns[-1].text.split()) for each in conversations) == 40
        assert {len(each.turns) for each in conversations} >= ({2} if "columns" in options else {2, 4}) - {4}
    if kind in ("llava", "messages"):
        shapes = {Image.open(image.root / image.name).size for each in conversations for image in each.images}
        assert len(shapes) == 4 and not all(each.images for each in conversations)
    if options.get("tags"):
        assert conversations[0].tags == {"topic": "made up"}


def test_every_kind_of_source_and_the_recipes_benchmarks_can_be_made_up(tmp_path: Path) -> None:
    assert set(RECORDS) == set(SOURCES)
    sides = set()
    for kind, make in ITEMS.items():
        items = kind(**({"limit": 2} | make(tmp_path / kind.__name__, {}))).items()
        check_pictures(items)
        sides |= {item.side for item in items}
        assert 2 <= len(items) <= 6
    assert sides == {"harm", "benign", "utility"}


def test_an_excerpt_of_a_large_file_is_its_first_records_with_its_own_pictures(tmp_path: Path) -> None:
    draw(tmp_path / "pictures", "a.png")
    said = [{"from": "human", "value": "<image>\na?"}, {"from": "gpt", "value": "b"}]
    rows = [{"id": str(n), "image": "pictures/a.png", "conversations": said} for n in range(3 * FIRST)]
    (tmp_path / "all.json").write_text(json.dumps(rows))
    few = first_records("llava", {"path": "all.json"}, tmp_path / "all.json", tmp_path / "few")
    assert few is not None
    source = open_source({"kind": "llava", **few})
    assert len(source) == FIRST and source[0].images[0].root == tmp_path


def test_an_excerpt_of_vlguard_has_every_category(tmp_path: Path) -> None:
    made = RECORDS["vlguard"](tmp_path / "made", {}, 3)
    file = tmp_path / "made" / "train.json"
    rows = json.loads(file.read_text())
    file.write_text(json.dumps([{**row, "id": f"{n}-{row['id']}"} for n in range(20) for row in rows]))
    few = first_records("vlguard", made, tmp_path / "made", tmp_path / "few")
    assert few is not None
    tags = [each.tags.get("category", "") for each in open_source({"kind": "vlguard", **few})]
    assert set(tags) == {*VLGUARD, ""} and len(tags) == 8 * 5
