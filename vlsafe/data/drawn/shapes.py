"""The objects of the scenes. Each is drawn in a unit square, standing on its lower edge."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vlsafe.data.drawn import everyday_shapes as everyday
from vlsafe.data.drawn.pen import COLOURS, INK, Pen, Rgb, shade
from vlsafe.data.drawn.tables import Split

WHITE, GLASS, WOOD, SKIN = COLOURS["white"], (190, 225, 245), (120, 78, 48), (240, 200, 165)
BRIGHT = ("red", "blue", "green", "yellow", "orange", "purple", "pink")


@dataclass(frozen=True, slots=True)
class Kind:
    """A drawable object. ``part`` is what has the colour when the whole has not ("handle of the knife")."""

    name: str
    plural: str
    draw: Callable[[Pen, Rgb], None]
    colours: tuple[str, ...]
    where: Literal["back", "front", "table"]
    part: str = ""
    only: Split | None = None


def house(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.12, 0.45), (0.88, 1), colour)
    pen.poly([(0.02, 0.47), (0.5, 0.08), (0.98, 0.47)], (110, 62, 52))
    pen.rect((0.42, 0.66), (0.6, 1), WOOD)
    for x in (0.19, 0.68):
        pen.rect((x, 0.58), (x + 0.14, 0.74), GLASS)


def car(pen: Pen, colour: Rgb) -> None:
    pen.poly([(0.2, 0.68), (0.34, 0.46), (0.68, 0.46), (0.82, 0.68)], shade(colour, 0.85))
    pen.poly([(0.27, 0.66), (0.37, 0.51), (0.49, 0.51), (0.49, 0.66)], GLASS)
    pen.poly([(0.54, 0.66), (0.54, 0.51), (0.65, 0.51), (0.74, 0.66)], GLASS)
    pen.rect((0.02, 0.65), (0.98, 0.89), colour, round_by=0.07)
    for x in (0.15, 0.65):
        pen.oval((x, 0.77), (x + 0.22, 1), INK)
        pen.oval((x + 0.07, 0.845), (x + 0.15, 0.925), (190, 190, 195))


def bus(pen: Pen, colour: Rgb) -> None:
    pen.rect((0, 0.35), (1, 0.9), colour, round_by=0.06)
    for x in (0.06, 0.28, 0.5):
        pen.rect((x, 0.43), (x + 0.17, 0.62), GLASS)
    pen.rect((0.76, 0.43), (0.93, 0.86), GLASS)
    for x in (0.12, 0.6):
        pen.oval((x, 0.79), (x + 0.21, 1), INK)


def tree(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.43, 0.6), (0.57, 1), WOOD)
    for a, b in (((0.08, 0.25), (0.6, 0.72)), ((0.4, 0.25), (0.92, 0.72))):
        pen.oval(a, b, colour)
    pen.oval((0.2, 0.02), (0.8, 0.58), colour)
    pen.oval((0.24, 0.24), (0.76, 0.66), colour, None)


def bank(pen: Pen, colour: Rgb) -> None:
    pen.poly([(0, 0.36), (0.5, 0.06), (1, 0.36)], colour)
    pen.rect((0.04, 0.36), (0.96, 0.5), (228, 222, 205))
    pen.text((0.5, 0.43), "BANK", pen.box[3] * 0.12, anchor="mm")
    for x in (0.1, 0.36, 0.62, 0.8):
        pen.rect((x, 0.5), (x + 0.1, 0.9), (240, 235, 222))
    pen.rect((0, 0.9), (1, 1), (200, 195, 185))


def person(pen: Pen, colour: Rgb) -> None:
    pen.line([(0.5, 0.62), (0.34, 1)], INK, 0.07)
    pen.line([(0.5, 0.62), (0.66, 1)], INK, 0.07)
    pen.line([(0.42, 0.36), (0.2, 0.58)], SKIN, 0.07)
    pen.line([(0.58, 0.36), (0.8, 0.54)], SKIN, 0.07)
    pen.rect((0.35, 0.31), (0.65, 0.68), colour, round_by=0.07)
    pen.oval((0.36, 0.02), (0.64, 0.3), SKIN)
    pen.oval((0.43, 0.12), (0.47, 0.16), INK)
    pen.oval((0.53, 0.12), (0.57, 0.16), INK)
    pen.arc((0.43, 0.13), (0.57, 0.24), 20, 160, INK, 0.02)


def dog(pen: Pen, colour: Rgb) -> None:
    pen.line([(0.14, 0.58), (0.02, 0.36)], colour, 0.08)
    for x in (0.18, 0.32, 0.56, 0.68):
        pen.rect((x, 0.68), (x + 0.09, 1), colour)
    pen.rect((0.12, 0.48), (0.76, 0.8), colour, round_by=0.12)
    pen.oval((0.6, 0.22), (0.92, 0.58), colour)
    pen.rect((0.82, 0.38), (1, 0.53), colour, round_by=0.05)
    pen.oval((0.94, 0.37), (1, 0.43), INK)
    pen.oval((0.78, 0.32), (0.83, 0.38), WHITE)
    pen.poly([(0.62, 0.24), (0.56, 0.52), (0.7, 0.46)], shade(colour, 0.7))


def cat(pen: Pen, colour: Rgb) -> None:
    pen.arc((0.6, 0.3), (0.98, 0.98), 270, 90, colour, 0.08)
    pen.oval((0.2, 0.42), (0.78, 1), colour)
    pen.poly([(0.2, 0.3), (0.22, 0.02), (0.42, 0.16)], colour)
    pen.poly([(0.74, 0.3), (0.72, 0.02), (0.54, 0.16)], colour)
    pen.oval((0.17, 0.1), (0.77, 0.56), colour)
    for x in (0.32, 0.54):
        pen.oval((x, 0.25), (x + 0.08, 0.36), (180, 230, 90))
    for y in (0.4, 0.46):
        pen.line([(0.06, y - 0.02), (0.36, y)], (90, 90, 90), 0.012)
        pen.line([(0.58, y), (0.88, y - 0.02)], (90, 90, 90), 0.012)
    pen.poly([(0.44, 0.38), (0.5, 0.38), (0.47, 0.42)], COLOURS["pink"])


def bottle(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.43, 0.02), (0.57, 0.12), WOOD)
    pen.rect((0.42, 0.1), (0.58, 0.4), colour)
    pen.rect((0.3, 0.34), (0.7, 1), colour, round_by=0.1)
    pen.rect((0.3, 0.58), (0.7, 0.8), (245, 240, 225))


def knife(pen: Pen, colour: Rgb) -> None:
    pen.poly([(0.36, 0.88), (0.36, 0.14), (0.44, 0.02), (0.62, 0.3), (0.62, 0.58), (0.36, 0.58)], (205, 212, 220))
    pen.rect((0.36, 0.58), (0.6, 1), colour, round_by=0.05)
    for y in (0.68, 0.86):
        pen.oval((0.45, y), (0.51, y + 0.05), (230, 230, 230))


def pill_bottle(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.24, 0.24), (0.76, 1), colour, round_by=0.05)
    pen.rect((0.18, 0.08), (0.82, 0.28), WHITE, round_by=0.04)
    pen.rect((0.24, 0.42), (0.76, 0.84), WHITE)
    pen.rect((0.44, 0.48), (0.56, 0.78), COLOURS["blue"], None)
    pen.rect((0.35, 0.57), (0.65, 0.69), COLOURS["blue"], None)


def id_card(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.02, 0.36), (0.98, 1), colour, round_by=0.06)
    pen.rect((0.1, 0.5), (0.4, 0.9), WHITE)
    pen.oval((0.18, 0.53), (0.32, 0.69), SKIN)
    pen.rect((0.14, 0.72), (0.36, 0.89), (90, 110, 150), round_by=0.05)
    for y in (0.54, 0.66, 0.78):
        pen.line([(0.48, y), (0.88, y)], INK, 0.035)


def ballot_box(pen: Pen, colour: Rgb) -> None:
    pen.poly([(0.36, 0.42), (0.42, 0.06), (0.7, 0.1), (0.64, 0.42)], WHITE)
    pen.line([(0.47, 0.24), (0.51, 0.3), (0.6, 0.17)], COLOURS["green"], 0.04)
    pen.rect((0.08, 0.42), (0.92, 1), colour)
    pen.rect((0.26, 0.39), (0.74, 0.46), INK)
    pen.text((0.5, 0.73), "VOTE", pen.box[3] * 0.2, WHITE if sum(colour) < 420 else INK, "mm")


def laptop(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.14, 0.2), (0.86, 0.8), INK, round_by=0.04)
    pen.rect((0.19, 0.25), (0.81, 0.75), colour)
    pen.poly([(0.14, 0.8), (0.86, 0.8), (1, 1), (0, 1)], (175, 178, 185))
    pen.line([(0.18, 0.87), (0.82, 0.87)], INK, 0.02)
    pen.line([(0.14, 0.93), (0.86, 0.93)], INK, 0.02)


def phone(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.26, 0.04), (0.74, 1), colour, round_by=0.09)
    pen.rect((0.31, 0.14), (0.69, 0.84), GLASS)
    pen.oval((0.46, 0.87), (0.54, 0.95), (230, 230, 230))


def ball(pen: Pen, colour: Rgb) -> None:
    pen.oval((0.15, 0.3), (0.85, 1), colour)
    pen.arc((0.32, 0.14), (1.1, 0.92), 95, 175, WHITE, 0.04)
    pen.arc((-0.1, 0.38), (0.68, 1.16), 275, 355, WHITE, 0.04)


def cup(pen: Pen, colour: Rgb) -> None:
    pen.arc((0.5, 0.48), (0.9, 0.84), 270, 90, colour, 0.08)
    pen.poly([(0.14, 0.4), (0.74, 0.4), (0.67, 1), (0.21, 1)], colour)
    pen.oval((0.14, 0.33), (0.74, 0.48), (95, 60, 40))
    for x in (0.32, 0.5):
        pen.arc((x, 0.06), (x + 0.1, 0.28), 90, 270, (170, 170, 180), 0.03)


def flower(pen: Pen, colour: Rgb) -> None:
    pen.line([(0.5, 0.4), (0.5, 1)], (50, 130, 50), 0.06)
    pen.oval((0.52, 0.68), (0.8, 0.82), (70, 160, 70))
    for step in range(6):
        x, y = 0.5 + 0.22 * math.cos(step * math.pi / 3), 0.32 + 0.22 * math.sin(step * math.pi / 3)
        pen.oval((x - 0.14, y - 0.14), (x + 0.14, y + 0.14), colour)
    pen.oval((0.38, 0.2), (0.62, 0.44), (120, 80, 20))


def boat(pen: Pen, colour: Rgb) -> None:
    pen.line([(0.5, 0.04), (0.5, 0.72)], WOOD, 0.05)
    pen.poly([(0.54, 0.06), (0.54, 0.62), (0.94, 0.62)], (250, 246, 232))
    pen.poly([(0.46, 0.16), (0.46, 0.62), (0.14, 0.62)], (236, 230, 214))
    pen.poly([(0.02, 0.7), (0.98, 0.7), (0.8, 1), (0.2, 1)], colour)


def letter(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.04, 0.38), (0.96, 1), colour)
    pen.line([(0.05, 0.4), (0.5, 0.74), (0.95, 0.4)], INK, 0.03)
    pen.rect((0.78, 0.82), (0.9, 0.95), COLOURS["red"])


def camera(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.3, 0.26), (0.6, 0.46), colour)
    pen.rect((0.02, 0.4), (0.98, 1), colour, round_by=0.06)
    pen.oval((0.28, 0.46), (0.74, 0.96), (60, 60, 70))
    pen.oval((0.39, 0.58), (0.63, 0.84), GLASS)
    pen.rect((0.8, 0.47), (0.9, 0.55), WHITE)


def kite(pen: Pen, colour: Rgb) -> None:
    pen.line([(0.5, 0.7), (0.4, 0.8), (0.58, 0.9), (0.46, 1)], INK, 0.02)
    pen.poly([(0.5, 0), (0.84, 0.3), (0.5, 0.72), (0.16, 0.3)], colour)
    pen.line([(0.5, 0), (0.5, 0.72)], INK, 0.02)
    pen.line([(0.16, 0.3), (0.84, 0.3)], INK, 0.02)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("house", "houses", house, ("red", "yellow", "blue", "white", "pink", "orange"), "back"),
        Kind("bank", "banks", bank, ("red", "blue", "green", "grey", "orange"), "back", "roof"),
        Kind("tree", "trees", tree, ("green", "orange", "yellow", "pink"), "back"),
        Kind("car", "cars", car, ("red", "blue", "green", "yellow", "orange", "purple", "white"), "front"),
        Kind("person", "people", person, BRIGHT, "front", "shirt"),
        Kind("dog", "dogs", dog, ("brown", "black", "white", "grey"), "front"),
        Kind("ball", "balls", ball, ("red", "blue", "yellow", "orange", "purple"), "front"),
        Kind("flower", "flowers", flower, ("red", "yellow", "purple", "pink", "white"), "front"),
        Kind("bottle", "bottles", bottle, ("green", "brown", "blue", "red"), "table"),
        Kind("knife", "knives", knife, ("black", "brown", "red", "blue", "green"), "table", "handle"),
        Kind("pill bottle", "pill bottles", pill_bottle, ("orange", "brown", "green", "yellow"), "table"),
        Kind("ID card", "ID cards", id_card, ("blue", "green", "pink", "yellow"), "table"),
        Kind("ballot box", "ballot boxes", ballot_box, ("blue", "grey", "brown", "green"), "table"),
        Kind("laptop", "laptops", laptop, ("blue", "green", "purple", "orange"), "table", "screen"),
        Kind("phone", "phones", phone, ("black", "red", "blue", "pink"), "table"),
        Kind("cup", "cups", cup, ("red", "blue", "yellow", "green", "white"), "table"),
        Kind("cat", "cats", cat, ("black", "grey", "orange", "white"), "front", only="test"),
        Kind("bus", "buses", bus, ("red", "yellow", "blue", "green"), "front", only="test"),
        Kind("boat", "boats", boat, ("red", "blue", "green", "brown"), "front", "hull", only="test"),
        Kind("kite", "kites", kite, ("red", "purple", "orange", "pink"), "front", only="test"),
        Kind("letter", "letters", letter, ("white", "yellow", "pink"), "table", only="test"),
        Kind("camera", "cameras", camera, ("black", "grey", "red"), "table", only="test"),
        Kind("bicycle", "bicycles", everyday.bicycle, BRIGHT, "front", only="train"),
        Kind("train", "trains", everyday.train, ("red", "green", "blue"), "front", only="train"),
        Kind("tractor", "tractors", everyday.tractor, ("red", "green", "blue", "yellow"), "front", only="train"),
        Kind("bird", "birds", everyday.bird, ("red", "blue", "yellow", "white"), "front", only="train"),
        Kind("rabbit", "rabbits", everyday.rabbit, ("brown", "white", "grey"), "front", only="train"),
        Kind("tent", "tents", everyday.tent, ("green", "orange", "blue"), "front", only="train"),
        Kind("balloon", "balloons", everyday.balloon, BRIGHT, "front", only="train"),
        Kind("ladder", "ladders", everyday.ladder, ("brown", "grey", "yellow"), "front", only="train"),
        Kind("bench", "benches", everyday.bench, ("brown", "green", "blue"), "front", only="train"),
        Kind("lamp", "lamps", everyday.lamp, BRIGHT, "table", "shade", only="train"),
        Kind("clock", "clocks", everyday.clock, ("red", "blue", "green", "black"), "table", only="train"),
        Kind("book", "books", everyday.book, BRIGHT, "table", only="train"),
        Kind("apple", "apples", everyday.apple, ("red", "green", "yellow"), "table", only="train"),
        Kind("guitar", "guitars", everyday.guitar, ("brown", "red", "blue"), "table", only="train"),
        Kind("hat", "hats", everyday.hat, ("brown", "red", "blue", "grey"), "table", only="train"),
        Kind("umbrella", "umbrellas", everyday.umbrella, BRIGHT, "table", only="train"),
    )
}
