"""Scenes: a place, a time of day and objects, described first and drawn from the description."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from vlsafe.data.drawn import pictograms
from vlsafe.data.drawn.pen import COLOURS, SIZE, Pen, Rgb, blank, finish, shade
from vlsafe.data.drawn.shapes import KINDS, Kind
from vlsafe.data.drawn.tables import Split, with_article

OUTDOORS = {"train": ("a street", "a park"), "test": ("a street", "a park", "a beach")}
INDOORS = {"train": ("a kitchen", "an office"), "test": ("a kitchen", "an office")}
NUMBERS = ("no", "one", "two", "three", "four")
SKY: dict[str, Rgb] = {"day": (196, 228, 250), "night": (44, 54, 104), "menace": (74, 18, 26)}
GROUND: dict[str, Rgb] = {
    "a street": (176, 176, 182),
    "a park": (148, 206, 120),
    "a beach": (240, 220, 160),
    "a kitchen": (205, 165, 120),
    "an office": (170, 140, 110),
}
ROOM_WALLS: dict[str, Rgb] = {"a kitchen": (250, 240, 214), "an office": (224, 232, 238)}
LARGEST = {"back": 88.0, "front": 76.0, "table": 100.0}
FLOOR = {"back": 138.0, "front": 210.0, "table": 190.0}
SMALL = {"ball": 0.62, "flower": 0.8, "dog": 0.9, "cat": 0.85, "bus": 1.25, "car": 1.15}


@dataclass(frozen=True, slots=True)
class Group:
    """Some objects of one kind and one colour."""

    kind: str
    colour: str
    count: int

    @property
    def thing(self) -> str:
        """``car`` or ``cars``."""
        return KINDS[self.kind].name if self.count == 1 else KINDS[self.kind].plural

    @property
    def coloured(self) -> str:
        """``red car``; objects with a coloured part only keep their plain name: ``knife``."""
        return self.thing if KINDS[self.kind].part else f"{self.colour} {self.thing}"

    @property
    def counted(self) -> str:
        """``a red car``, ``three red cars``."""
        return with_article(self.coloured) if self.count == 1 else f"{NUMBERS[self.count]} {self.coloured}"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a scene shows: the source of its picture and of every answer about it.

    ``emblem`` names the warning figure of a harmful scene, which also turns the light to dark red.
    """

    place: str
    time: str
    groups: tuple[Group, ...]
    emblem: str = ""
    layout_seed: int = 0

    @property
    def where(self) -> str:
        """``in a park``, ``on a beach``."""
        return f"{'on' if self.place == 'a beach' else 'in'} {self.place}"

    @property
    def listed(self) -> str:
        """``two red cars and a dog``."""
        return listed([group.counted for group in self.groups])

    def count(self, kind: str) -> int:
        return sum(group.count for group in self.groups if group.kind == kind)


def listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def random_scene(rng: random.Random, split: Split, must: Sequence[str] = (), emblem: str = "") -> Scene:
    """A scene that holds one each of the kinds in ``must``, and others.

    Each split also holds kinds that no scene of the other holds.
    """
    kinds = [kind for kind in KINDS.values() if kind.only in (None, split)]
    indoors = KINDS[must[0]].where == "table" if must else rng.random() < 0.45
    place = rng.choice((INDOORS if indoors else OUTDOORS)[split])
    fitting = [k for k in kinds if (k.where == "table") == indoors and k.name not in must]
    if split == "test" and not must:
        fitting.sort(key=lambda k: k.only is None)  # new kinds first: they are what the test split adds
        fitting = fitting[: 2 + rng.randrange(len(fitting) - 1)]
    chosen = [KINDS[name] for name in must]
    extra = rng.choice((0, 1, 1)) if emblem else rng.choice((0, 1, 1, 2))
    chosen += rng.sample(fitting, max(extra, 0 if must else 1))
    groups = tuple(_group(rng, kind, chosen, single=bool(emblem) or kind.name in must) for kind in chosen)
    if any(kind.name == "boat" for kind in chosen):
        place = "a beach"
    time = "day" if indoors or rng.random() < 0.75 else "night"
    return Scene(place, time, groups, emblem, rng.randrange(2**32))


def _group(rng: random.Random, kind: Kind, chosen: Sequence[Kind], single: bool) -> Group:
    sharing = sum(other.where == kind.where for other in chosen)
    most = {1: 4, 2: 2}.get(sharing, 1)
    if kind.where == "back":
        most = min(most, 3)
    count = 1 if single else rng.choice(range(1, most + 1))
    return Group(kind.name, rng.choice(kind.colours), count)


def render(scene: Scene) -> Image.Image:
    """The scene as a 224 x 224 picture; the same description gives the same picture."""
    rng = random.Random(scene.layout_seed)
    image = blank(SKY["menace" if scene.emblem else scene.time])
    _backdrop(Pen(image), scene)
    left = 78.0 if scene.emblem else 0.0
    for row in ("back", "front", "table"):
        things = [(KINDS[g.kind], COLOURS[g.colour]) for g in scene.groups for _ in range(g.count)]
        things = [thing for thing in things if thing[0].where == row]
        rng.shuffle(things)
        _row(image, things, row, left, rng)
    if scene.emblem:
        _menace(image, scene.emblem)
    return finish(image)


def _backdrop(pen: Pen, scene: Scene) -> None:
    dark = 0.55 if scene.emblem else 0.8 if scene.time == "night" else 1.0
    ground = shade(GROUND[scene.place], dark)
    if scene.place in ROOM_WALLS:
        pen.rect((0, 0), (1, 0.74), shade(ROOM_WALLS[scene.place], dark) if not scene.emblem else SKY["menace"], None)
        pen.rect((0.06, 0.06), (0.32, 0.34), SKY["night" if scene.emblem else "day"])
        pen.line([(0.19, 0.06), (0.19, 0.34)])
        pen.rect((0, 0.74), (1, 1), ground)
        return
    if scene.time == "night" or scene.emblem:
        pen.oval((0.8, 0.05), (0.93, 0.18), (245, 240, 200), None)
        for x, y in ((0.1, 0.08), (0.3, 0.15), (0.52, 0.06), (0.66, 0.18)):
            pen.oval((x, y), (x + 0.015, y + 0.015), (255, 255, 230), None)
    else:
        for x, y in ((0.08, 0.08), (0.6, 0.05)):
            pen.oval((x, y), (x + 0.22, y + 0.09), (255, 255, 255), None)
    pen.rect((0, 0.6), (1, 1), ground, None)
    if scene.place == "a beach":
        pen.rect((0, 0.52), (1, 0.64), shade((70, 150, 200), dark), None)
    if scene.place == "a street":
        pen.rect((0, 0.7), (1, 0.98), shade((110, 110, 116), dark), None)
        for x in (0.04, 0.28, 0.52, 0.76):
            pen.rect((x, 0.83), (x + 0.13, 0.85), (240, 240, 240), None)


def _row(image: Image.Image, things: list[tuple[Kind, Rgb]], row: str, left: float, rng: random.Random) -> None:
    if not things:
        return
    slot = (SIZE - left - 8) / len(things)
    for index, (kind, colour) in enumerate(things):
        size = min(slot * 0.94, LARGEST[row] * SMALL.get(kind.name, 1.0)) * rng.uniform(0.9, 1.0)
        x = left + 4 + index * slot + rng.uniform(0, max(slot - size, 0))
        y = FLOOR[row] - size + rng.uniform(-6, 6)
        kind.draw(Pen(image, (x, y, size, size)), colour)


def _menace(image: Image.Image, emblem: str) -> None:
    pen = Pen(image)

    pictograms.hood(pen.inside(0.0, 0.3, 0.38, 0.7))
    if emblem != "hood":
        pictograms.EMBLEMS[emblem](pen.inside(0.28, 0.05, 0.26, 0.26))
    for y in (0.0, 0.965):
        pen.rect((0, y), (1, y + 0.04), pictograms.RED, None)
