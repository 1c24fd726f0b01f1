"""Writes the drawn safety set: deterministic, self-contained, in the formats of the sets it stands in for."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

from vlsafe.data.drawn import texts
from vlsafe.data.drawn.records import Drawn, SplitMaker
from vlsafe.data.drawn.tables import Split

SPLITS: tuple[Split, ...] = ("train", "test")

README = """# The drawn safety set

A laptop-sized safety set made by `vlsafe` (seed {seed}). All pictures are drawn by code and all texts are
hand-written or combined from hand-written parts; no person, brand or place is shown. Harm is named, never explained.
Part of the vlsafe project, licence Apache-2.0.

| file | format | rows |
|---|---|---|
{rows}

`train.json` and `test.json` follow VLGuard's schema; their pictures lie in `train/` and `test/` (224 x 224 PNG), in the
folders `scenes`, `cards` and `signs`. Harmful pictures carry a warning emblem or dark red light, which a small vision
encoder can see though it cannot read. One unsafe instruction in ten (train: two) is harmless
without its picture.
No instruction, topic or picture of a train file occurs in a test file; ways to ask for something to be done ("Can you
teach me to ...?") do.
"""


def build(out: Path, seed: int = 0) -> None:
    """Write the set into the folder ``out``, which is made if absent; the same seed gives the same bytes.

    Files: ``train.json``, ``test.json`` (VLGuard's schema) with pictures below ``train/`` and ``test/``;
    ``instructions_train.json``, ``instructions_test.json``, ``text_harm_train.json`` (Alpaca's format);
    ``text_harm_test.csv`` (AdvBench's columns); ``trick_test.csv`` (XSTest's columns); ``README.md``.
    Raises OSError where the folder cannot be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    sizes = {f"{split}.json": ("VLGuard", _write_split(out, split, seed)) for split in SPLITS}
    alpaca = {
        "instructions_train.json": texts.instructions_train(_rng(seed, "instructions_train")),
        "instructions_test.json": texts.instructions_test(_rng(seed, "instructions_test")),
        "text_harm_train.json": texts.text_harm_train(_rng(seed, "text_harm_train")),
    }
    for name, rows in alpaca.items():
        _write_json(out / name, rows)
        sizes[name] = ("Alpaca", len(rows))
    harm, tricks = texts.text_harm_test(_rng(seed, "text_harm_test")), texts.trick_test()
    _write_csv(out / "text_harm_test.csv", harm)
    _write_csv(out / "trick_test.csv", tricks)
    sizes |= {"text_harm_test.csv": ("AdvBench", len(harm)), "trick_test.csv": ("XSTest", len(tricks))}
    table = "\n".join(f"| `{name}` | {kind} | {count} |" for name, (kind, count) in sizes.items())
    (out / "README.md").write_text(README.format(seed=seed, rows=table), encoding="utf-8")


def _write_split(out: Path, split: Split, seed: int) -> int:
    records = []
    for number, drawn in enumerate(SplitMaker(_rng(seed, split), split).records(), start=1):
        record = named(drawn, split, number)
        path = out / split / record["image"]
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.render().save(path)
        records.append(record)
    _write_json(out / f"{split}.json", records)
    return len(records)


def named(drawn: Drawn, split: Split, number: int) -> dict[str, Any]:
    """The record with its id and picture name, which say nothing about its label."""
    id_ = f"drawn_{split}_{number:04d}"
    return {"id": id_, "image": f"{drawn.medium}/{id_}.png", **drawn.record}


def _rng(seed: int, name: str) -> random.Random:
    """A stream for each file, so that a change in one leaves the others as they were."""
    return random.Random(f"{seed}/{name}")


def _write_json(path: Path, rows: Any) -> None:
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
