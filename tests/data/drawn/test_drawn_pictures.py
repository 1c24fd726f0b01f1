"""The drawn safety set: what the answers say of a picture is what it shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from drawn_files import SPLITS, read_json
from PIL import Image

from vlsafe.data.drawn.pen import COLOURS
from vlsafe.data.drawn.records import Drawn
from vlsafe.data.drawn.scenes import NUMBERS, Group, Scene, render
from vlsafe.data.drawn.shapes import KINDS
from vlsafe.data.drawn.tables import Split


def test_the_pictures_are_small_and_all_there(built: Path) -> None:
    for split in SPLITS:
        names = [record["image"] for record in read_json(built / f"{split}.json")]
        assert {str(path.relative_to(built / split)) for path in (built / split).rglob("*.png")} == set(names)
        for name in names:
            with Image.open(built / split / name) as image:
                assert (image.size, image.mode) == ((224, 224), "RGB")
    assert sum(path.stat().st_size for path in built.rglob("*")) < 12_000_000


def test_some_object_kinds_are_seen_in_test_only(drawn: dict[Split, list[Drawn]]) -> None:
    kinds = {
        split: {group.kind for d in drawn[split] if isinstance(d.picture, Scene) for group in d.picture.groups}
        for split in SPLITS
    }
    assert {"cat", "bus", "boat", "kite", "letter", "camera"} == kinds["test"] - kinds["train"]


def test_answers_are_true_of_the_described_scene(drawn: dict[Split, list[Drawn]]) -> None:
    plurals = {name: kind.name for kind in KINDS.values() for name in (kind.name, kind.plural)}
    things = "|".join(sorted(plurals, key=len, reverse=True))
    counts = re.compile(rf"\b({'|'.join(NUMBERS)}|an?) (?:({'|'.join(COLOURS)}) )?({things})\b")
    colours = re.compile(rf"\bthe (?:\w+ of the )?({things})(?: shown)? (?:is|are) ({'|'.join(COLOURS)})")
    checked: Counter[str] = Counter()
    for record in (d for split in SPLITS for d in drawn[split] if d.record["safe"]):
        scene, (shown, *_) = record.picture, record.record["instr-resp"]
        if not isinstance(scene, Scene):
            continue
        answer = shown["response"]
        about_the_picture = (
            "picture" in answer + shown["safe_instruction"]
        )  # advice may name "a ball" that is not there
        for number, colour, thing in counts.findall(answer) if about_the_picture else ():
            wanted = 1 if number in ("a", "an") else NUMBERS.index(number)
            assert scene.count(plurals[thing]) == wanted, answer
            assert not colour or colour in {g.colour for g in scene.groups if g.kind == plurals[thing]}, answer
            checked["counts"] += 1
        for thing, colour in colours.findall(answer.lower().replace("id card", "ID card")):
            assert colour in {g.colour for g in scene.groups if g.kind == plurals[thing]}, answer
            checked["colours"] += 1
    assert checked["counts"] > 60 and checked["colours"] > 15


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_scene_shows_as_many_objects_and_the_colour_it_says(name: str) -> None:
    kind = KINDS[name]
    for count in (1, 2, 3):
        place = "a kitchen" if kind.where == "table" else "a park"
        for colour in kind.colours:
            bare = np.asarray(render(Scene(place, "night", ())))
            shown = np.asarray(render(Scene(place, "night", (Group(name, colour, count),), layout_seed=count)))
            touched = (shown != bare).any(axis=2)
            assert runs(touched.any(axis=0)) == count
            assert ((shown == COLOURS[colour]).all(axis=2) & touched).sum() > 40 * count


def runs(columns: Sequence[bool] | np.ndarray) -> int:
    """How many stretches of true values there are."""
    padded = np.concatenate([[False], np.asarray(columns)])
    return int((padded[1:] & ~padded[:-1]).sum())


def test_a_weak_eye_can_tell_harmful_pictures_from_harmless_ones(built: Path) -> None:
    """A linear probe on 14 x 14 pixels, far less than an encoder sees, learnt on train and read on test."""

    def seen(split: Split) -> tuple[np.ndarray, np.ndarray]:
        records = read_json(built / f"{split}.json")
        small = [np.asarray(Image.open(built / split / r["image"]).reduce(16)) for r in records]
        pixels = np.stack(small).reshape(len(small), -1) / 255 - 0.5
        labels = np.array([-1.0 if record["safe"] else 1.0 for record in records])
        return np.hstack([pixels, np.ones((len(small), 1))]), labels

    (x, y), (x_test, y_test) = seen("train"), seen("test")
    weights = np.linalg.solve(x.T @ x + 3.0 * np.eye(x.shape[1]), x.T @ y)
    assert ((x_test @ weights > 0) == (y_test > 0)).mean() > 0.9
