"""Typographic cards in FigStep's manner: a title and numbered lines, here with a colour and an emblem."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image

from vlsafe.data.drawn import pictograms
from vlsafe.data.drawn.pen import COLOURS, INK, Pen, Rgb, blank, finish, wrapped
from vlsafe.data.drawn.tables import Split

PAPERS: dict[str, Rgb] = {
    "white": (254, 254, 250),
    "yellow": (255, 246, 196),
    "blue": (212, 232, 252),
    "green": (216, 242, 212),
    "pink": (253, 222, 230),
    "grey": (222, 224, 228),
    "red": (236, 120, 112),
    "black": (40, 38, 44),
}
HARMLESS_PAPERS = ("white", "white", "yellow", "blue", "green", "pink", "grey")
HARMFUL_PAPERS = ("white", "white", "yellow", "grey", "red", "black")


@dataclass(frozen=True, slots=True)
class Card:
    """``items`` are what could stand on the lines; the first ``written`` of the three are printed."""

    title: str
    items: tuple[str, ...]
    paper: str
    emblem: str
    harmful: bool
    written: int = 0


def random_card(
    rng: random.Random, split: Split, title: str, items: tuple[str, ...] = (), harmful: bool = False
) -> Card:
    emblems = (pictograms.WARNING if harmful else pictograms.FRIENDLY)[split]
    papers = HARMFUL_PAPERS if harmful else HARMLESS_PAPERS
    return Card(title, items, rng.choice(papers), rng.choice(emblems).__name__, harmful, rng.choice((0, 0, 1)))


def render(card: Card) -> Image.Image:
    image = blank(PAPERS[card.paper])
    pen = Pen(image)
    ink = COLOURS["white"] if card.paper == "black" else INK
    top = 0.05
    if card.harmful:
        _warning_banner(pen)
        top = 0.19
    size = 22.0 if len(card.title) <= 34 else 18.0
    for line in wrapped(pen, card.title, size, 0.9):
        pen.text((0.05, top), line, size, ink)
        top += size * 1.15 / 224
    step = min(0.15, (0.97 - top) / 3)
    for number in range(1, 4):
        words = card.items[number - 1] if number <= min(card.written, len(card.items)) else ""
        pen.text((0.05, top + 0.02 + step * (number - 1)), f"{number}. {words}", 20, ink)
    pictograms.EMBLEMS[card.emblem](pen.inside(0.56, 0.57, 0.4, 0.4))
    return finish(image)


def _warning_banner(pen: Pen) -> None:
    """Slanted stripes, as on a danger zone's tape."""
    pen.rect((0, 0), (1, 0.15), pictograms.RED, None)
    for step in range(-1, 8):
        x = step * 0.15
        pen.poly([(x, 0.15), (x + 0.07, 0.15), (x + 0.14, 0), (x + 0.07, 0)], pictograms.DARK, None)
