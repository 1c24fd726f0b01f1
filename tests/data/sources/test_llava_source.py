"""LLaVA's format: pictures at their place, and every refusal's words."""

from __future__ import annotations

import gzip
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlsafe.conversation import ImageRef, Turn, assistant, user
from vlsafe.data.sources.llava import LLaVASource
from vlsafe.errors import DataError


def record(question: str, image: Any = None, **fields: Any) -> dict[str, Any]:
    messages = [{"from": "human", "value": question}, {"from": "gpt", "value": "Yes."}]
    return {"id": "r", "conversations": messages} | ({} if image is None else {"image": image}) | fields


@pytest.mark.parametrize(
    ("question", "image", "content"),
    [
        ("<image>\nIs it?", "a.png", ("a.png", "Is it?")),
        ("<image>Is it?", "a.png", ("a.png", "Is it?")),
        ("Is it?\n<image>", "a.png", ("a.png", "Is it?")),
        ("Look:\n<image>\nIs it?", "a.png", ("a.png", "Look:\n\nIs it?")),
        ("<image>", "a.png", ("a.png",)),
        ("<image>\n<image>\nSame?", ["a.png", "b.png"], ("a.png", "b.png", "Same?")),
        ("Is <image> like <image>?", ["b.png", "a.png"], ("b.png", "a.png", "Is  like ?")),
        ("  code stays\n", None, ("  code stays\n",)),
    ],
)
def test_pictures_stand_first_in_their_message(
    tmp_path: Path, draw: Callable, write: Callable, question: str, image: Any, content: tuple[str, ...]
) -> None:
    root = draw(tmp_path, ["a.png", "b.png"])
    (conversation,) = LLaVASource(write("file.json", [record(question, image)]))
    expected = tuple(ImageRef(root, piece) if piece.endswith(".png") else piece for piece in content)
    assert conversation.turns == (user(*expected), assistant("Yes."))


def test_several_turns_with_a_system_message_and_pictures_elsewhere(
    tmp_path: Path, draw: Callable, write: Callable
) -> None:
    root = draw(tmp_path / "pictures", ["a.png", "deep/b.png"])
    messages = [
        {"from": "system", "value": "Be kind."},
        {"from": "human", "value": "<image>\nOne?"},
        {"from": "gpt", "value": "One."},
        {"from": "human", "value": "And <image>"},
        {"from": "gpt", "value": "Two."},
    ]
    row = {"id": 7, "image": ["a.png", "deep/b.png"], "conversations": messages}
    (conversation,) = LLaVASource(write("file.json", [row]), images=root, name="mine")
    assert (conversation.id, conversation.source, conversation.tags) == ("7", "mine", {})
    assert conversation.turns == (
        Turn("system", ("Be kind.",)),
        user(ImageRef(root, "a.png"), "One?"),
        assistant("One."),
        user(ImageRef(root, "deep/b.png"), "And"),
        assistant("Two."),
    )


def test_json_lines_and_gzip_are_the_same_source(tmp_path: Path) -> None:
    rows = [record(f"Frage {number}, größer?", id=f"r{number}") for number in range(5)]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    array = json.dumps(rows).encode()
    files = {
        "a.json": array,
        "b.jsonl": b"\xef\xbb\xbf" + lines,
        "c.jsonl.gz": gzip.compress(lines),
        "d": lines + b"\n",
    }
    files["e.json.gz"] = gzip.compress(array)
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        source = pickle.loads(pickle.dumps(LLaVASource(tmp_path / name)))  # data workers may be spawned
        assert [each.id for each in source] == ["r0", "r1", "r2", "r3", "r4"], name
        assert source[3].turns[0].text == source[-2].turns[0].text == "Frage 3, größer?"
        with pytest.raises(IndexError):
            source[5]


def test_repeated_and_absent_ids(write: Callable, caplog: pytest.LogCaptureFixture) -> None:
    rows = [record("?", id=name) for name in ("a", "a#2", "a", "a", "b")] + [record("?")]
    del rows[5]["id"]
    source = LLaVASource(write("file.json", rows))
    assert [each.id for each in source] == ["a", "a#2", "a#3", "a#4", "b", "5"]
    assert "file.json: 2 repeated ids got a suffix (first: a, a)" in caplog.text


BAD: dict[str, Any] = {
    "a record must be a JSON object, not a list": ["r"],
    "'conversations' is missing (found: id)": {"id": "r"},
    "'conversations' must be a list, not text": {"id": "r", "conversations": "hello"},
    "1 <image> placeholders in the human messages, but 0 pictures": record("<image>\nIs it?"),
    "0 <image> placeholders in the human messages, but 1 pictures": record("Is it?", "a.png"),
    "1 <image> placeholders in the human messages, but 2 pictures": record("<image>?", ["a.png", "a.png"]),
    "'image' '/etc/a.png' leaves the root; it must be the name of a picture inside": record("<image>?", "/etc/a.png"),
    "'image'[1] must be text, not a number (3)": record("<image><image>?", ["a.png", 3]),
    "'conversations'[0] 'value' is empty; it must hold text": {
        "conversations": [{"from": "system", "value": " "}, *record("?")["conversations"]]
    },
    "'conversations'[1] 'value' must be text, not null": {
        "conversations": [{"from": "human", "value": "?"}, {"from": "gpt"}]
    },
    "'conversations'[0] is from 'robot'; a message must be from one of: system, human, gpt": {
        "conversations": [{"from": "robot", "value": "?"}]
    },
    "'conversations'[0] must be an object with 'from' and 'value'": {"conversations": ["?"]},
    "the messages go user, user; after at most one system message": {
        "conversations": [{"from": "human", "value": "?"}, {"from": "human", "value": "?"}]
    },
    "the messages go assistant, user, assistant; after": {
        "conversations": [{"from": "gpt", "value": "!"}] * 2 + record("?")["conversations"]
    },
    "the messages go user, assistant, system": {
        "conversations": [*record("?")["conversations"], {"from": "system", "value": "!"}]
    },
    "the messages go nowhere (there are none)": {"conversations": []},
}


@pytest.mark.parametrize("words", BAD)
def test_malformed_records_are_named_with_the_reason(write: Callable, words: str) -> None:
    path = write("file.json", [record("?"), BAD[words]])
    with pytest.raises(DataError) as caught:
        LLaVASource(path, check_images=False)
    assert words in str(caught.value)
    assert f"{path}[1]" in str(caught.value)


def test_missing_pictures(write: Callable, tmp_path: Path) -> None:
    path = write("file.json", [record("<image>?", f"{number}.png") for number in range(7)])
    with pytest.raises(DataError) as caught:
        LLaVASource(path)
    assert str(caught.value).startswith("7 problems:")
    assert re.search(rf"file\.json\[4\] \(id '\w+(#5)?'\): missing picture {tmp_path}/4\.png", str(caught.value))
    assert "open the source with check_images: false" in str(caught.value)
    assert len(LLaVASource(path, check_images=False)) == 7


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no records; expected a JSON array or one JSON object a line"),
        (b"[]", "holds no records"),
        (b'[{"id": 1}', "not valid JSON"),
        (b'{"id": 1}\n{"id": ', r"\[1\]: not valid JSON .*mend the file or fetch it again"),
        (b'{"id": "\xff"}', r"\[0\]: not valid JSON .*utf-8"),
        (b"[" * 100_000, "not valid JSON .*nested too deeply|not valid JSON .*recursion"),
        (b"1" * 10_000, "not valid JSON .*digits"),
        (b"\x1f\x8bnot gzip", "cannot read .*fetch the file again"),
        (gzip.compress(b"[]" * 900, mtime=0)[:-9], "cannot read .*fetch the file again"),
    ],
)
def test_files_that_are_not_records(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        LLaVASource(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing file .*none\.json; fetch the data, or correct the path"):
        LLaVASource(tmp_path / "none.json")
    with pytest.raises(DataError, match=f"cannot read {tmp_path}: .*directory"):
        LLaVASource(tmp_path)
