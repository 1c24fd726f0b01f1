"""Made-up records of each kind of source: pictures of several shapes, one in words alone, one of two turns, one longer
than any limit. They are harmless; what trains on them learns nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlsafe.data.sources.messages import checked_columns
from vlsafe.rehearsal.pictures import COLOURS, drawn

Options = dict[str, Any]
"""Of a source, without its kind, as :func:`vlsafe.data.sources.open_source` takes them."""

VLGUARD = {
    "privacy": "personal data",
    "deception": "disinformation",
    "discrimination": "other",
    "risky behavior": "professional advice",
}
"""The categories of VLGuard, each with one of its subcategories."""
MANY = 16
"""Records of a source: enough for two optimizer steps."""
REFUSAL = "I'm sorry, I can't help with that."


def vlguard(folder: Path, options: Options, long: int) -> Options:
    """A picture of each unsafe category, of which one has a long answer, and safe ones."""
    split, records, names = options.get("split", "train"), [], []
    for number, (category, subcategory) in enumerate(VLGUARD.items()):
        names.append(f"bad_ads/{number}.png")
        answer = f"{REFUSAL} {_long(long)}" if number == 3 else REFUSAL
        records.append({
            "id": f"unsafe{number}", "image": names[-1], "safe": False, "harmful_category": category,
            "harmful_subcategory": subcategory, "instr-resp": [{"instruction": "Say it again.", "response": answer}],
        })  # fmt: skip
    for number in range(MANY - len(VLGUARD)):
        names.append(f"shapes/{number}.png")
        pairs = [
            {"safe_instruction": "Which colour is it?", "response": COLOURS[number % len(COLOURS)]},
            {"unsafe_instruction": "Insult the painter.", "response": REFUSAL},
        ]
        records.append({"id": f"safe{number}", "image": names[-1], "safe": True, "instr-resp": pairs})
    drawn(folder / split, names)
    _json(folder / f"{split}.json", records)
    return options | {"path": str(folder), "split": split}


def llava(folder: Path, options: Options, long: int) -> Options:
    drawn(folder / "images", [f"{number}.png" for number in range(MANY)])
    records: list[dict[str, Any]] = []
    for number, turns in enumerate(_conversations(long)):
        said = [
            {"from": speaker, "value": text}
            for question, answer in turns
            for speaker, text in (("human", question), ("gpt", answer))
        ]
        shown = {"image": f"{number}.png"} if "<image>" in turns[0][0] else {}
        records.append({"id": f"made-up {number}", **shown, "conversations": said})
    _json(folder / "records.json", records)
    return options | {"path": str(folder / "records.json"), "images": str(folder / "images")}


def messages(folder: Path, options: Options, long: int) -> Options:
    drawn(folder / "images", [f"{number}.png" for number in range(MANY)])
    columns = checked_columns(options.get("columns"))
    rows = _rows(columns, options.get("tags"), long, lambda number: f"{number}.png")
    _json(folder / "records.json", rows)
    return options | {"path": str(folder / "records.json"), "images": str(folder / "images")}


def hub(folder: Path, options: Options, long: int) -> Options:
    columns, split = checked_columns(options.get("columns")), options.get("split", "train")
    rows = _rows(columns, options.get("tags"), long, lambda number: {"bytes": _png(number), "path": None})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000.parquet")
    return {key: value for key, value in options.items() if key != "revision"} | {"path": str(folder), "split": split}


def alpaca(folder: Path, options: Options, long: int) -> Options:
    records = [
        {"instruction": "Say one.", "input": "", "output": "one"},
        {"instruction": "Add them.", "input": "1 and 1", "output": "two"},
        {"instruction": "And twice?", "input": "", "output": "four", "history": [["Add them.", "two"]]},
        {"instruction": "Count.", "input": "", "output": _long(long)},
    ] * (MANY // 4)
    _json(folder / "records.json", records)
    return options | {"path": str(folder / "records.json")}


def easy_vqa(folder: Path, options: Options, long: int) -> Options:
    """Several wordings of each kind of question, so that there are common and rare ones."""
    split = options.get("split", "train")
    asked = {"Is it {}?": "yes", "What is it, no {}?": "circle", "Which colour, not {}?": "red"}
    questions = [[asked_.format(c), answer, n] for asked_, answer in asked.items() for n, c in enumerate(COLOURS)]
    drawn(folder / split / "images", [f"{number}.png" for number in range(len(COLOURS))])
    _json(folder / split / "questions.json", questions)
    return options | {"path": str(folder), "split": split}


MADE_UP: dict[str, Callable[[Path, Options, int], Options]] = {
    "alpaca": alpaca, "easy_vqa": easy_vqa, "hub": hub, "llava": llava, "messages": messages, "vlguard": vlguard,
}  # fmt: skip
"""Kind of source -> what writes records of its schema into a folder and returns the options that open them. ``long``:
words of the longest answer."""


def _conversations(long: int) -> list[list[tuple[str, str]]]:
    """Questions with their answers."""
    several = [
        [("<image>\nWhich colour is it?", COLOURS[0])],
        [("<image>\nIs it wide?", "yes"), ("Is it tall?", "no")],
        [("<image>\nDescribe it.", "a tall blue picture")],
        [("What is one and one?", "two")],
        [("Count.", _long(long))],
    ]
    return [several[number % len(several)] for number in range(MANY)]


def _rows(columns: dict[str, str], tags: list[str] | None, long: int, picture: Callable[[int], Any]) -> list[dict]:
    rows = []
    for number, turns in enumerate(_conversations(long)):
        shown = "<image>" in turns[0][0]
        row: dict[str, Any] = {
            columns["id"]: f"made-up {number}",
            columns["images"]: [picture(number)] if shown else [],
        }
        if columns["question"] != "question" or columns["answer"] != "answer":
            row |= {columns["question"]: turns[0][0], columns["answer"]: turns[0][1]}
        else:
            said = [(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
            row[columns["messages"]] = [{"role": role, "content": text} for role, text in said]
        rows.append(row | {tag: "made up" for tag in tags or []})
    return rows


def _long(words: int) -> str:
    return " ".join(["one"] * max(1, words))


def _png(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32 + 8 * number, 32), COLOURS[number % len(COLOURS)]).save(file, "PNG")
    return file.getvalue()


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
