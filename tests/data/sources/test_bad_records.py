"""Every malformed record and every missing picture is in one report, with file, index and reason, for every kind."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlsafe.data.index import build
from vlsafe.data.sources import SOURCES, open_source
from vlsafe.errors import DataError
from vlsafe.fetch.paths import use_cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[None]:
    datasets.disable_progress_bars()
    use_cache(tmp_path / "cache")
    yield
    use_cache(None)


def messages(answer: str, image: str) -> dict[str, Any]:
    said = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": answer}]
    return {"id": f"id of {image or answer}", "messages": said, "images": [image] if image else []}


def llava(answer: str, image: str) -> dict[str, Any]:
    said = [{"from": "human", "value": "<image>?" if image else "?"}, {"from": "gpt", "value": "yes"}]
    said = said if answer else [{"from": "system", "value": ""}, *said]
    return {"id": f"id of {image or answer}", "conversations": said} | ({"image": image} if image else {})


def vlguard(answer: str, image: str) -> dict[str, Any]:
    row = {"id": f"id of {image}", "image": image, "safe": False, "harmful_category": "c", "harmful_subcategory": "s"}
    return row | {"instr-resp": [{"instruction": "Who?", "response": answer}]}


def alpaca(answer: str, _: str) -> dict[str, Any]:
    return {"id": "id", "instruction": "Add.", "output": answer}


def easy_vqa(answer: str, image: str) -> list[Any]:
    return ["is it?", answer, 0 if image == "a.png" else 9]


def hub(answer: str, _: str) -> dict[str, Any]:
    return {"id": "id", "question": "Is it?", "answer": answer}


ROWS = {"messages": messages, "llava": llava, "vlguard": vlguard, "alpaca": alpaca, "easy_vqa": easy_vqa, "hub": hub}
WITHOUT_PICTURES = ("alpaca", "hub")


def rows_of(kind: str) -> list[Any]:
    """Record 1 has no answer (LLaVA's an empty system message), record 2 no picture, record 4 neither."""
    made = [("yes", "a.png"), ("", "a.png"), ("yes", "gone.png"), ("yes", "a.png"), ("", "gone.png")]
    return [ROWS[kind](answer, image) for answer, image in made]


def written(path: Path, rows: list[Any], form: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    data = (json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows))).encode()
    path.write_bytes(gzip.compress(data) if form == "jsonl.gz" else data)


def pictures(folder: Path, packed: bool) -> Path:
    """One picture, ``a.png``, which easy-vqa calls ``0.png``, in a folder or a zip file."""
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    if packed:
        folder = folder.with_suffix(".zip")
        with zipfile.ZipFile(folder, "w") as archive:
            archive.writestr("a.png", buffer.getvalue())
    else:
        folder.mkdir(parents=True)
        for name in ("a.png", "0.png"):
            (folder / name).write_bytes(buffer.getvalue())
    return folder


FORMS = ("json", "jsonl", "jsonl.gz", "parquet")
CASES = [(kind, form, packed) for kind in ("llava", "messages") for form in FORMS for packed in (False, True)]
CASES += [("vlguard", "json", False), ("vlguard", "json", True), ("easy_vqa", "json", False), ("hub", "parquet", False)]
CASES += [("alpaca", form, False) for form in FORMS]


def test_every_kind_is_here() -> None:
    assert sorted({kind for kind, _, _ in CASES}) == SOURCES.names()


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(("kind", "form", "packed"), CASES)
def test_one_report_names_all_of_them(
    tmp_path: Path,
    kind: str,
    form: str,
    packed: bool,
    indexed: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(build, "LARGE", 1 if indexed else 2**40)
    spec: dict[str, Any] = {"kind": kind}
    if kind == "vlguard":
        file = tmp_path / "train.json"
        pictures(tmp_path / "train", packed)
        spec |= {"path": str(tmp_path)}
    elif kind == "easy_vqa":
        file = tmp_path / "train" / "questions.json"
        pictures(tmp_path / "train" / "images", packed)
        spec |= {"path": str(tmp_path)}
    else:
        file = tmp_path / f"file.{form}"
        spec |= {"path": str(file)}
        if kind not in WITHOUT_PICTURES:
            spec |= {"images": str(pictures(tmp_path / "pictures", packed))}
    written(file, rows_of(kind), form)
    bad = [1, 4] if kind in WITHOUT_PICTURES else [1, 2, 4]
    with pytest.raises(DataError) as caught:
        open_source(spec)
    told = str(caught.value).splitlines()
    for number in bad:
        (line,) = [line for line in told if f"{file}[{number}]" in line]
        assert ("missing picture" if number == 2 else "is empty") in line, line
    assert len(told) == len(bad) + 2 + (kind not in WITHOUT_PICTURES), told  # head, records, what to do
    caplog.clear()
    source = open_source(spec | {"on_bad_record": "skip"})
    assert len(source) == 5 - len(bad) and source.skipped == len(bad)
    assert all(f"{file}[{number}]" in caplog.text for number in bad)
