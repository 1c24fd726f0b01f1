"""The conversational form, from JSON files and from Hugging Face data sets with embedded pictures."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from vlsafe.conversation import ImageRef, Turn, assistant, user
from vlsafe.data.images import image_bytes, open_image
from vlsafe.data.sources import open_source
from vlsafe.data.sources.messages import MessagesSource
from vlsafe.errors import ConfigError, DataError
from vlsafe.fetch.paths import use_cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[None]:
    use_cache(tmp_path / "cache")
    yield
    use_cache(None)


def said(question: Any, answer: Any = "Yes.") -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


TEXT, PICTURE = {"type": "text", "text": "Is it?"}, {"type": "image"}


@pytest.mark.parametrize(
    ("row", "content"),
    [
        ({"messages": said("Is it?")}, ("Is it?",)),
        ({"messages": said("Is it?"), "images": ["a.png", "b.png"]}, ("a.png", "b.png", "Is it?")),
        (
            {"messages": said("Is <image> it <image>?"), "images": ["a.png", "b.png"]},
            ("Is", "a.png", "it", "b.png", "?"),
        ),
        ({"messages": said([TEXT, PICTURE]), "images": ["a.png"]}, ("Is it?", "a.png")),
        (
            {"messages": said([PICTURE, TEXT], [{"type": "text", "text": "Yes."}]), "images": "a.png"},
            ("a.png", "Is it?"),
        ),
        ({"question": "Is it?", "answer": "Yes.", "images": "a.png"}, ("a.png", "Is it?")),
        ({"messages": [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "Yes."}]}, ("Is it?",)),
    ],
)
def test_golden_conversations(tmp_path: Path, draw: Callable, write: Callable, row: Any, content: Any) -> None:
    root = draw(tmp_path, ["a.png", "b.png"])
    (conversation,) = MessagesSource(write("file.json", [row]))
    expected = tuple(ImageRef(root, piece) if piece.endswith(".png") else piece for piece in content)
    assert conversation.turns == (user(*expected), assistant("Yes."))


def test_columns_of_other_names_tags_and_a_system_message(write: Callable) -> None:
    row = {"key": 7, "ask": "Is it?", "reply": "Yes.", "rules": "Be kind.", "topic": "pets", "level": 3}
    columns = {"id": "key", "question": "ask", "answer": "reply", "system": "rules"}
    spec = {"kind": "messages", "path": str(write("file.json", [row])), "columns": columns, "tags": ["topic", "level"]}
    (conversation,) = open_source(spec)
    assert (conversation.id, conversation.tags) == ("7", {"topic": "pets", "level": "3"})
    assert conversation.turns == (Turn("system", ("Be kind.",)), user("Is it?"), assistant("Yes."))
    with pytest.raises(ConfigError, match="no column can be mapped to quesiton; valid: messages, question"):
        open_source(spec | {"columns": {"quesiton": "ask"}})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "'question' is missing (found: nothing)"),
        ({"messages": "hi"}, "'messages' must be a list, not text"),
        ({"messages": [3]}, "message 0 is of the role None; a message must be of one of: system, user"),
        ({"messages": said("")}, "message 0 is empty"),
        ({"messages": said([PICTURE])}, "message 0 has more pictures than the record"),
        ({"messages": said([{"type": "video"}])}, "message 0: unknown part 'video'"),
        ({"messages": said("Is it?", None)}, "message 1 must be text, not null"),
        ({"messages": said("<image>?"), "images": ["a.png", "b.png"]}, "2 pictures, of which the messages place 1"),
        ({"messages": said("?"), "images": ["../a.png"]}, "picture 0 '../a.png' leaves the root"),
        ({"messages": said("?")[:1]}, "the messages go user; after"),
    ],
)
def test_malformed_records_are_named(write: Callable, row: Any, words: str) -> None:
    path = write("file.json", [row])
    with pytest.raises(DataError) as caught:
        MessagesSource(path, check_images=False)
    assert f"{path}[0]" in str(caught.value) and words in str(caught.value)


# --- Hugging Face data sets


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (level, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def embedded(rows: int = 5) -> datasets.Dataset:
    """Row n has n % 3 pictures, whose red is 10 n + place."""
    columns = {
        "key": [f"k{n % 4}" for n in range(rows)],
        "messages": [said(f"Is it {n}?") for n in range(rows)],
        "shown": [[{"bytes": png(10 * n + i), "path": None} for i in range(n % 3)] for n in range(rows)],
    }
    return datasets.Dataset.from_dict(columns).cast_column("shown", datasets.List(datasets.Image()))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    datasets.disable_progress_bars()
    data = embedded()
    data.save_to_disk(tmp_path / "disk", num_shards=2)
    datasets.DatasetDict({"test": data}).save_to_disk(tmp_path / "dict")
    data.to_parquet(tmp_path / "parquet" / "test-00000-of-00001.parquet")
    embedded(2).to_parquet(tmp_path / "parquet" / "train-00000-of-00001.parquet")
    return tmp_path


COLUMNS = {"id": "key", "images": "shown"}


@pytest.mark.parametrize("place", ["disk", "dict", "parquet", "parquet/test-00000-of-00001.parquet"])
def test_every_form_of_a_data_set_gives_its_pictures_from_inside(saved: Path, place: str) -> None:
    source = open_source({"kind": "hub", "path": str(saved / place), "split": "test", "columns": COLUMNS})
    assert [each.id for each in source] == ["k0", "k1", "k2", "k3", "k0#2"]
    assert [len(each.images) for each in source] == [0, 1, 2, 0, 1]
    for number in (4, 2, 1):
        reds = [np.asarray(open_image(ref))[0, 0, 0] for ref in source[number].images]
        assert reds == [10 * number + place for place in range(number % 3)]
    assert source[2].turns == (user(*source[2].images, "Is it 2?"), assistant("Yes."))


def pictures_of(source: Any) -> list[bytes]:
    return [image_bytes(ref) for each in source for ref in each.images]


def test_other_processes_map_the_files_themselves(saved: Path) -> None:
    source = open_source({"kind": "hub", "path": str(saved / "disk"), "columns": COLUMNS})
    expected = pictures_of(source)
    assert pictures_of(pickle.loads(pickle.dumps(source))) == expected and len(pickle.dumps(source)) < 3000
    with get_context("fork").Pool(2) as pool:
        assert pool.map(pictures_of, [source, source]) == [expected, expected]


def test_what_is_not_there_is_said(saved: Path) -> None:
    with pytest.raises(DataError, match=r"cannot open data set .*dict, split 'dev'"):
        open_source({"kind": "hub", "path": str(saved / "dict"), "split": "dev"})
    (saved / "empty").mkdir()
    with pytest.raises(DataError, match="holds neither a saved data set nor Parquet files"):
        open_source(f"hub:{saved / 'empty'}")
    (saved / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"cannot open data set .*broken\.parquet"):
        open_source(f"hub:{saved / 'broken.parquet'}")
    root = next((saved / "disk").glob("data-*.arrow"))
    for name in ("9/0/shown", "1/5/shown", "1/0/nothing", "x", "-1/0/shown"):
        with pytest.raises(DataError, match="missing picture"):
            image_bytes(ImageRef(root, name))


def test_malformed_rows_are_told_or_left_out(tmp_path: Path) -> None:
    rows = {"messages": [said("Is it?"), said(""), said("And this?")]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "disk")
    with pytest.raises(DataError, match=r"disk\[1\]: message 0 is empty"):
        open_source(f"hub:{tmp_path / 'disk'}")
    source = open_source({"kind": "hub", "path": str(tmp_path / "disk"), "on_bad_record": "skip"})
    assert [each.turns[0].text for each in source] == ["Is it?", "And this?"] and source.skipped == 1
