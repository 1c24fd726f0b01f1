"""Which records a part may draw: by tag, balanced, by seed; and never nothing without a word."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny import alpaca_file, ask, composed, save_tokenizer

from vlsafe.conversation import Conversation, ImageRef
from vlsafe.data.encoding import Encoding
from vlsafe.data.mixture import Part
from vlsafe.data.selection import selected
from vlsafe.data.sources import open_source
from vlsafe.data.sources.base import Source
from vlsafe.data.sources.vlguard import VLGuardSource
from vlsafe.data.tokens import tokens_per_record
from vlsafe.errors import ConfigError


class Listed(Source):
    def __init__(self, conversations: list[Conversation]) -> None:
        self.name = "listed"
        self._conversations = conversations

    def __len__(self) -> int:
        return len(self._conversations)

    def __getitem__(self, index: int) -> Conversation:
        return self._conversations[index]


def tagged() -> Listed:
    """12 of privacy, 6 of deception, 3 of violence, and 5 safe ones without a category."""
    categories = ["privacy"] * 12 + ["deception"] * 6 + ["violence"] * 3 + [""] * 5
    conversations = []
    for number, category in enumerate(categories):
        tags = {"subset": "unsafe", "category": category} if category else {"subset": "safe"}
        conversations.append(Conversation(f"r{number}", "listed", ask("q", "a").turns, tags))
    return Listed(conversations)


def kept(seed: int = 0, **options: Any) -> Counter[str]:
    source = selected(tagged(), "part", Part("x:y", **({"repeat": 1} | options)), seed)
    return Counter(each.tags.get("category", "safe") for each in source)


def test_where_keeps_and_without_leaves_out() -> None:
    assert kept() == {"privacy": 12, "deception": 6, "violence": 3, "safe": 5}
    assert kept(where={"subset": "safe"}) == {"safe": 5}
    assert kept(where={"category": ["privacy", "violence"]}) == {"privacy": 12, "violence": 3}
    # leave one category out: what has none stays
    assert kept(without={"category": "privacy"}) == {"deception": 6, "violence": 3, "safe": 5}
    assert kept(where={"subset": "unsafe"}, without={"category": ["privacy"]}) == {"deception": 6, "violence": 3}


def test_balance_keeps_equally_many_of_each_value_by_seed() -> None:
    unsafe = {"where": {"subset": "unsafe"}, "balance": "category"}
    assert kept(**unsafe) == {"privacy": 3, "deception": 3, "violence": 3}
    assert kept(**unsafe, repeat=None, count=8) == {"deception": 3, "privacy": 3, "violence": 2}
    part = Part("x:y", repeat=1, **unsafe)
    ids = [[each.id for each in selected(tagged(), "part", part, seed)] for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    assert all(one == sorted(one, key=lambda identity: int(identity[1:])) for one in ids)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": {"kind": "x"}}, "part 'part': no record has a tag 'kind'; tags of this source: category, subset"),
        ({"without": {"category": "privcy"}}, "no record has category privcy; values: deception, privacy, violence"),
        ({"where": {"subset": "safe"}, "without": {"subset": "safe"}}, "no record is left by where and without"),
        ({"balance": "category"}, "some records have no tag 'category', so they cannot be balanced by it"),
        (
            {"where": {"subset": "unsafe"}, "balance": "category", "repeat": None, "count": 12},
            "count 12 balanced by category wants 4 of each value, but there are only 3 of violence",
        ),
    ],
)
def test_what_would_select_nothing_says_so(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        kept(**options)


def test_a_category_of_the_published_set_can_be_left_out(shared_data: Path) -> None:
    source = VLGuardSource(shared_data / "vlguard", check_images=False)
    rest = selected(source, "safety", Part("x:y", repeat=1, without={"category": "privacy"}), 0)
    counts = Counter(each.tags.get("category", "safe") for each in rest)
    assert counts == {"risky behavior": 612, "deception": 55, "discrimination": 260, "safe": 977}


def test_the_mean_of_supervised_tokens_is_counted_without_pictures(tmp_path: Path) -> None:
    backbone = composed(save_tokenizer(tmp_path / "tokenizer"))
    encoding = Encoding(backbone.processor)
    source = open_source(f"alpaca:{alpaca_file(tmp_path / 'text.json', 6)}")
    counted = [encoding.sample(each).supervised for each in source]
    assert tokens_per_record(source, "text", encoding, 0) * 6 == sum(counted)
    picture = ImageRef(tmp_path, "nowhere.png")  # never opened
    with_picture = Listed([ask("colour?", "red", picture)])
    without = Listed([ask("colour?", "red")])
    assert tokens_per_record(with_picture, "p", encoding, 0) == tokens_per_record(without, "p", encoding, 0) > 3
