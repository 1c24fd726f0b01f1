"""Reading the files of the drawn set."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vlsafe.data.drawn.tables import Split

SPLITS: tuple[Split, ...] = ("train", "test")
SUBSETS = {"instruction": "U", "unsafe_instruction": "SU", "safe_instruction": "SS"}


class Pair(NamedTuple):
    subset: str
    instruction: str
    response: str
    image: str


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pairs(built: Path, split: Split) -> Iterator[Pair]:
    for record in read_json(built / f"{split}.json"):
        for pair in record["instr-resp"]:
            key = next(key for key in pair if key != "response")
            yield Pair(SUBSETS[key], pair[key], pair["response"], record["image"])


def normalised(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))
