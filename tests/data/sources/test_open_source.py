"""Sources by name, by mapping and from the cache; and random files never end in anything but a DataError."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlsafe.data import sources
from vlsafe.data.sources import SOURCES, open_source, parse_spec, rows
from vlsafe.errors import ConfigError, DataError
from vlsafe.fetch import locate
from vlsafe.fetch.paths import use_cache

ROW = {
    "id": "a",
    "image": "a.png",
    "conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "!"}],
}
VLGUARD_PAIRS = [{"instruction": "Who?", "response": "No."}]
VLGUARD_ROW = {
    **{"id": "a", "image": "a.png", "safe": False, "harmful_category": "privacy", "harmful_subcategory": "data"},
    "instr-resp": VLGUARD_PAIRS,
}


def test_a_name_is_kind_path_and_split() -> None:
    assert parse_spec("llava:dir/file.json") == {"kind": "llava", "path": "dir/file.json"}
    assert parse_spec("vlguard:dir#test") == {"kind": "vlguard", "path": "dir", "split": "test"}
    assert parse_spec("vlguard:cache:drawn-safety#train") == {
        "kind": "vlguard",
        "path": "cache:drawn-safety",
        "split": "train",
    }
    assert parse_spec("vlguard:odd#dir#test")["path"] == "odd#dir"
    for spec in ("vlguard", "vlguard:", ":dir", "vlguard:dir#"):
        with pytest.raises(
            ConfigError, match=r"must be written kind:path or kind:path#split; valid kinds: alpaca, easy"
        ):
            parse_spec(spec)


def test_string_and_mapping_open_the_same_source(tmp_path: Path, draw: Callable, write: Callable) -> None:
    draw(tmp_path / "test", ["a.png"])
    write("test.json", [VLGUARD_ROW])
    by_name = open_source(f"vlguard:{tmp_path}#test")
    by_options = open_source({"kind": "vlguard", "path": str(tmp_path), "split": "test", "two_turn": False})
    assert list(by_name) == list(by_options)
    renamed = open_source({"kind": "vlguard", "path": tmp_path, "split": "test", "name": "other", "check_images": True})
    assert renamed[0].source == renamed.name == "other"


def test_pictures_in_another_folder_by_mapping(tmp_path: Path, draw: Callable, write: Callable) -> None:
    root = draw(tmp_path / "pictures", ["a.png"])
    source = open_source({"kind": "llava", "path": str(write("file.json", [ROW])), "images": str(root)})
    assert source[0].images[0].root == root


def test_images_in_the_cache_are_found_where_the_parser_leaves_text(
    tmp_path: Path, draw: Callable, write: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``Path | str`` is parsed as either: ``typing`` keeps the order in which a process first met the two."""
    monkeypatch.setattr(sources, "_checked_options", lambda kind, source, options: dict(options))
    root, file = draw(tmp_path / "pictures", ["a.png"]), write("file.json", [ROW])
    monkeypatch.setattr(sources, "resolved", {"cache:records": str(file), "cache:images": str(root)}.get)
    source = open_source({"kind": "llava", "path": "cache:records", "images": "cache:images"})
    assert source[0].images[0].root == root


def test_a_path_in_the_cache(tmp_path: Path, write: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Path | None]] = []

    def located(name: str, cache: Path | None = None) -> Path:
        asked.append((name, cache))
        return tmp_path / name

    monkeypatch.setattr(locate, "located", located)
    write("drawn-safety/deep/text.json", [{"instruction": "Add.", "output": "3"}])
    write("drawn-safety/train.json", [VLGUARD_ROW])
    assert len(open_source("alpaca:cache:drawn-safety/deep/text.json")) == 1
    spec = {"kind": "vlguard", "path": "cache:drawn-safety", "check_images": False}
    use_cache(tmp_path / "mine")
    try:
        assert len(open_source(spec)) == 1
    finally:
        use_cache(None)
    assert asked == [("drawn-safety", None), ("drawn-safety", tmp_path / "mine")]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            "vlgard:dir",
            "unknown kind of source 'vlgard'. Did you mean 'vlguard'? Valid names: alpaca, easy_vqa, hub, llava",
        ),
        ({"path": "dir"}, "has no kind; valid kinds: alpaca, easy_vqa, hub, llava, messages, vlguard"),
        ({"kind": 7, "path": "dir"}, "unknown kind of source '7'"),
        ({"kind": "vlguard"}, "a source of kind 'vlguard' needs a 'path'"),
        ({"kind": "vlguard", "path": "dir", "twoturn": True}, "takes no 'twoturn'; its options: path, split, two_turn"),
        (
            {"kind": "vlguard", "path": "dir", "split": "dev"},
            "\"split\":\n  Expected a typing.Literal['train', 'test']",
        ),
        ({"kind": "vlguard", "path": "dir", "two_turn": 3}, "\"two_turn\":\n  Expected a <class 'bool'>"),
        ("llava:file.json#train", "source kind 'llava' takes no 'split'; its options: path, images"),
    ],
)
def test_wrong_requests_say_what_is_valid(spec: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        open_source(spec)


KEYS = ["id", "image", "conversations", "from", "value", "safe", "instr-resp", "instruction", "response", "output"]
KEYS += ["messages", "images", "role", "content", "type", "text", "question", "answer"]
KEYS += ["safe_instruction", "unsafe_instruction", "harmful_category", "harmful_subcategory", "input", "history"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
WORDS = st.sampled_from(["a.png", "../a", "human", "gpt", "system", "<image>", "yes", "\ud800", "\0", "a/" * 200])
VALUES = st.recursive(
    LEAVES | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=12,
)


def mutated(row: Any) -> st.SearchStrategy[Any]:
    """The row with any of its values, at any depth, replaced."""
    if isinstance(row, dict):
        parts = st.fixed_dictionaries({key: mutated(value) for key, value in row.items()})
    elif isinstance(row, list):
        parts = st.tuples(*map(mutated, row)).map(list)
    else:
        parts = st.just(row)
    return st.integers(0, 11).flatmap(lambda chance: VALUES if chance == 11 else parts)


GOOD: dict[str, Any] = {
    "vlguard": VLGUARD_ROW,
    "llava": ROW,
    "alpaca": {"instruction": "Add.", "input": "1", "output": "3", "history": [["Who?", "Me."]]},
    "easy_vqa": ["is it?", "yes", 0],
    "messages": {
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is it?"}]},
            {"role": "assistant", "content": "Yes."},
        ],
        "images": ["a.png"],
        "id": "a",
    },
}


def test_every_kind_of_record_file_is_fuzzed() -> None:
    assert sorted([*GOOD, "hub"]) == SOURCES.names()  # hub reads typed columns, not JSON


@pytest.mark.parametrize("kind", sorted(GOOD))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_records_open_or_raise_a_data_error(
    tmp_path: Path, draw: Callable, kind: str, data: st.DataObject
) -> None:
    rows = data.draw(VALUES | st.lists(mutated(GOOD[kind]), min_size=1, max_size=3))
    file = {"vlguard": "train.json", "easy_vqa": "train/questions.json"}.get(kind, "file.json")
    draw(tmp_path, ["a.png", "train/a.png", "train/images/0.png"])
    (tmp_path / file).write_text(json.dumps(rows))
    spec: dict[str, Any] = {"kind": kind, "path": tmp_path / file}
    if kind in ("vlguard", "easy_vqa"):
        spec["path"] = tmp_path
    spec["on_bad_record"] = data.draw(st.sampled_from(["error", "skip"]))
    if kind != "alpaca":
        spec["check_images"] = data.draw(st.booleans())
    try:
        source = open_source(spec)
    except DataError as error:
        assert str(tmp_path) in str(error)
        return
    assert len({each.id for each in source}) == len(source) > 0
    for conversation in source:
        assert conversation.turns[-1].role == "assistant" and conversation.turns[-1].text.strip()


@pytest.mark.parametrize("kind", sorted(GOOD))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_open_or_raise_a_data_error_that_names_them(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    """Cut anywhere, with any bytes in between, packed or not."""
    rows = [GOOD[kind]] * data.draw(st.integers(1, 3))
    content = (json.dumps(rows) if data.draw(st.booleans()) else "\n".join(map(json.dumps, rows))).encode()
    if data.draw(st.booleans()):
        content = gzip.compress(content)
    cut = data.draw(st.integers(0, len(content)))
    content = (
        content[:cut] + data.draw(st.sampled_from([b"", b"\0", b"\xff\xfe", b"]", b"{" * 3000])) + content[cut + 1 :]
    )
    file = {"vlguard": "train.json", "easy_vqa": "train/questions.json"}.get(kind, "file.json")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(content)
    spec: dict[str, Any] = {"kind": kind, "path": tmp_path if kind in ("vlguard", "easy_vqa") else tmp_path / file}
    try:
        source = open_source(spec | ({} if kind == "alpaca" else {"check_images": False}))
    except DataError as error:
        assert str(tmp_path) in str(error)
    else:
        assert len(list(source)) == len(source) > 0


def test_a_text_of_ten_megabytes_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({"instruction": "a" * 10_000_000, "output": "\0 is kept"}))
    (conversation,) = open_source(f"alpaca:{path}")
    assert (len(conversation.turns[0].text), conversation.turns[1].text) == (10_000_000, "\0 is kept")


def test_a_compressed_file_that_grows_beyond_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST", 10_000)
    (tmp_path / "file.json").write_bytes(gzip.compress(b"[" + b" " * 10_000_000 + b"]"))
    with pytest.raises(DataError, match=r"file\.json is more than 10,000 bytes unpacked.*split it"):
        open_source(f"alpaca:{tmp_path / 'file.json'}")


def test_records_that_lack_their_pictures_can_be_left_out(
    tmp_path: Path, draw: Callable, write: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path, ["a.png"])
    path = write("file.json", [ROW, {**ROW, "id": "b", "image": "nowhere.png"}, {"id": "c"}])
    source = open_source({"kind": "llava", "path": str(path), "on_bad_record": "skip"})
    assert [each.id for each in source] == ["a"] and source.skipped == 2
    assert "nowhere.png" in caplog.text and "[2] (id 'c'): 'conversations' is missing" in caplog.text
    with pytest.raises(DataError, match="every record was left out"):
        open_source({"kind": "llava", "path": str(write("none.json", [{"id": "c"}])), "on_bad_record": "skip"})
