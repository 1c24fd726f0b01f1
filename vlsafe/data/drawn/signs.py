"""Signs, posters and memes: one slogan, a board, an emblem."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from vlsafe.data.drawn import pictograms
from vlsafe.data.drawn.pen import COLOURS, INK, SIZE, Pen, blank, finish, wrapped
from vlsafe.data.drawn.tables import Split

HARMLESS_BOARDS = ("blue", "green", "yellow", "orange", "white", "purple")
HARMFUL_BOARDS = ("red", "black", "red", "black", "white", "yellow")
WALL, SKY, GRASS = (214, 196, 176), (200, 230, 250), (150, 205, 125)


Form = Literal["post", "poster", "meme"]
FORMS: tuple[Form, ...] = ("post", "poster", "meme")


@dataclass(frozen=True, slots=True)
class Sign:
    """A slogan on a board of one colour. ``where`` completes "it could hang ..."."""

    slogan: str
    board: str
    emblem: str
    form: Form
    harmful: bool
    where: str = ""


def random_sign(rng: random.Random, split: Split, slogan: str, where: str = "", harmful: bool = False) -> Sign:
    emblems = (pictograms.WARNING if harmful else pictograms.FRIENDLY)[split]
    board = rng.choice(HARMFUL_BOARDS if harmful else HARMLESS_BOARDS)
    form = rng.choice(FORMS)
    return Sign(slogan, board, rng.choice(emblems).__name__, form, harmful, where)


def render(sign: Sign) -> Image.Image:
    return finish({"post": _post, "poster": _poster, "meme": _meme}[sign.form](sign))


def _post(sign: Sign) -> Image.Image:
    image = blank((96, 40, 44) if sign.harmful else SKY)
    pen = Pen(image)
    pen.rect((0, 0.82), (1, 1), (70, 66, 60) if sign.harmful else GRASS, None)
    pen.rect((0.47, 0.7), (0.53, 0.96), (110, 90, 70))
    _board(pen.inside(0.05, 0.06, 0.9, 0.68), sign)
    return image


def _poster(sign: Sign) -> Image.Image:
    image = blank((120, 112, 108) if sign.harmful else WALL)
    _board(Pen(image).inside(0.12, 0.03, 0.76, 0.94), sign)
    return image


def _meme(sign: Sign) -> Image.Image:
    image = blank(COLOURS[sign.board])
    pen = Pen(image)
    side, top = (0.48, 0.34) if len(sign.slogan) < 28 else (0.44, 0.44)
    pictograms.EMBLEMS[sign.emblem](pen.inside(0.5 - side / 2, top, side, side))
    if sign.harmful:
        pen.rect((0, 0.92), (1, 1), pictograms.RED if sign.board != "red" else pictograms.DARK, None)
    _words(pen, sign.slogan.upper() if sign.harmful else sign.slogan, 0.03, sign.board)
    return image


def _board(pen: Pen, sign: Sign) -> None:
    pen.rect((0, 0), (1, 1), COLOURS[sign.board], round_by=0.04)
    top = 0.05
    if sign.harmful:
        pen.rect((0.03, 0.03), (0.97, 0.15), pictograms.RED if sign.board != "red" else pictograms.DARK, None)
        pen.text((0.5, 0.09), "! ! !", 18, COLOURS["white"], "mm")
        top = 0.17
    below = _words(pen, sign.slogan, top, sign.board)
    side = min(0.94 - below, 0.5) * pen.box[3]
    width = side / pen.box[2]
    pictograms.EMBLEMS[sign.emblem](pen.inside(0.5 - width / 2, below + 0.02, width, side / pen.box[3]))


def _words(pen: Pen, words: str, top: float, board: str) -> float:
    """Centred lines from ``top`` down; returns where they end."""
    ink = COLOURS["white"] if sum(COLOURS[board]) < 420 else INK
    size = 26.0 if pen.box[2] > 0.8 * SIZE and len(words) < 24 else 21.0
    for line in wrapped(pen, words, size, 0.92):
        pen.text((0.5, top), line, size, ink, "ma")
        top += size * 1.15 / pen.box[3]
    return top
