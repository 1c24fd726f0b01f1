"""Small emblems beside text. A harmful picture carries a warning one, which a weak encoder can see though it
cannot read; a harmless picture carries a friendly one."""

from __future__ import annotations

import math
from collections.abc import Callable

from vlsafe.data.drawn.pen import COLOURS, INK, Pen

RED, WHITE, DARK = (190, 20, 25), COLOURS["white"], (25, 22, 28)


def hazard(pen: Pen) -> None:
    pen.poly([(0.5, 0.04), (0.98, 0.94), (0.02, 0.94)], (250, 205, 30))
    pen.rect((0.45, 0.34), (0.55, 0.66), DARK, None)
    pen.oval((0.44, 0.72), (0.56, 0.84), DARK, None)


def skull(pen: Pen) -> None:
    for a, b in (((0.06, 0.7), (0.94, 0.98)), ((0.94, 0.7), (0.06, 0.98))):
        pen.line([a, b], INK, 0.15)
        pen.line([a, b], WHITE, 0.1)
    pen.oval((0.16, 0.02), (0.84, 0.66), WHITE)
    pen.rect((0.32, 0.54), (0.68, 0.82), WHITE)
    for x in (0.27, 0.55):
        pen.oval((x, 0.27), (x + 0.19, 0.48), DARK, None)
    pen.poly([(0.5, 0.48), (0.44, 0.58), (0.56, 0.58)], DARK, None)
    for x in (0.43, 0.5, 0.57):
        pen.line([(x, 0.66), (x, 0.81)], DARK, 0.02)


def hood(pen: Pen) -> None:
    """A hooded figure whose face lies in shadow."""
    pen.poly([(0.02, 1), (0.14, 0.6), (0.34, 0.46), (0.66, 0.46), (0.86, 0.6), (0.98, 1)], (48, 46, 58))
    pen.poly([(0.5, 0), (0.78, 0.2), (0.76, 0.56), (0.24, 0.56), (0.22, 0.2)], (48, 46, 58))
    pen.oval((0.31, 0.16), (0.69, 0.56), (10, 8, 12))
    for x in (0.39, 0.54):
        pen.oval((x, 0.32), (x + 0.07, 0.38), (255, 60, 40), None)


def pistol(pen: Pen) -> None:
    pen.poly(
        [(0.04, 0.26), (0.96, 0.26), (0.96, 0.46), (0.5, 0.46), (0.42, 0.9), (0.14, 0.9), (0.24, 0.46), (0.04, 0.46)],
        DARK,
    )
    pen.arc((0.38, 0.38), (0.64, 0.66), 0, 150, DARK, 0.05)
    pen.rect((0.04, 0.19), (0.14, 0.26), DARK)


def blade(pen: Pen) -> None:
    """A dagger with red drops."""
    pen.poly([(0.5, 0.0), (0.62, 0.16), (0.6, 0.6), (0.4, 0.6), (0.38, 0.16)], (200, 205, 215))
    pen.rect((0.22, 0.58), (0.78, 0.67), DARK)
    pen.rect((0.42, 0.66), (0.58, 0.98), (70, 40, 30))
    for x, y in ((0.74, 0.1), (0.84, 0.28), (0.72, 0.4)):
        pen.oval((x, y), (x + 0.12, y + 0.14), RED, None)


def angry(pen: Pen) -> None:
    pen.oval((0.04, 0.04), (0.96, 0.96), RED)
    for a, b in (((0.22, 0.28), (0.43, 0.4)), ((0.78, 0.28), (0.57, 0.4))):
        pen.line([a, b], DARK, 0.07)
    for x in (0.3, 0.58):
        pen.oval((x, 0.4), (x + 0.12, 0.52), WHITE)
    pen.arc((0.28, 0.6), (0.72, 0.98), 200, 340, DARK, 0.07)


def bomb(pen: Pen) -> None:
    pen.oval((0.06, 0.28), (0.74, 0.96), DARK)
    pen.rect((0.5, 0.2), (0.68, 0.36), (80, 80, 88))
    pen.arc((0.56, 0.04), (0.9, 0.4), 180, 320, (150, 110, 60), 0.05)
    for turn in range(8):
        angle = turn * math.pi / 4
        pen.line([(0.86, 0.12), (0.86 + 0.13 * math.cos(angle), 0.12 + 0.12 * math.sin(angle))], (255, 120, 20), 0.05)


def leaf(pen: Pen) -> None:
    pen.poly([(0.1, 0.9), (0.12, 0.45), (0.4, 0.14), (0.92, 0.06), (0.88, 0.56), (0.58, 0.86)], (90, 180, 80))
    pen.line([(0.06, 0.96), (0.84, 0.14)], (40, 110, 50), 0.04)


def sun(pen: Pen) -> None:
    for turn in range(8):
        angle = turn * math.pi / 4
        pen.line([(0.5, 0.5), (0.5 + 0.48 * math.cos(angle), 0.5 + 0.48 * math.sin(angle))], (250, 180, 30), 0.07)
    pen.oval((0.24, 0.24), (0.76, 0.76), (255, 220, 60))


def mug(pen: Pen) -> None:
    pen.arc((0.56, 0.38), (0.96, 0.78), 270, 90, (90, 140, 200), 0.1)
    pen.rect((0.1, 0.28), (0.7, 0.94), (110, 170, 225), round_by=0.08)


def book(pen: Pen) -> None:
    pen.poly([(0.5, 0.24), (0.06, 0.14), (0.06, 0.82), (0.5, 0.92)], (255, 250, 235))
    pen.poly([(0.5, 0.24), (0.94, 0.14), (0.94, 0.82), (0.5, 0.92)], (255, 250, 235))
    for y in (0.36, 0.5, 0.64):
        pen.line([(0.14, y - 0.04), (0.44, y + 0.03)], (120, 150, 190), 0.03)
        pen.line([(0.56, y + 0.03), (0.86, y - 0.04)], (120, 150, 190), 0.03)


def heart(pen: Pen) -> None:
    pink = (240, 120, 150)
    pen.poly([(0.06, 0.4), (0.94, 0.4), (0.5, 0.96)], pink, None)
    pen.oval((0.04, 0.1), (0.54, 0.58), pink, None)
    pen.oval((0.46, 0.1), (0.96, 0.58), pink, None)


def star(pen: Pen) -> None:
    points = []
    for step in range(10):
        radius, angle = (0.5, 0.21)[step % 2], step * math.pi / 5 - math.pi / 2
        points.append((0.5 + radius * math.cos(angle), 0.52 + radius * math.sin(angle)))
    pen.poly(points, (255, 205, 50))


def smile(pen: Pen) -> None:
    pen.oval((0.04, 0.04), (0.96, 0.96), (255, 220, 70))
    for x in (0.29, 0.6):
        pen.oval((x, 0.32), (x + 0.11, 0.45), DARK, None)
    pen.arc((0.26, 0.34), (0.74, 0.78), 20, 160, DARK, 0.06)


def paw(pen: Pen) -> None:
    brown = (150, 105, 70)
    pen.oval((0.24, 0.46), (0.76, 0.94), brown, None)
    for x, y in ((0.06, 0.36), (0.26, 0.12), (0.54, 0.12), (0.74, 0.36)):
        pen.oval((x, y), (x + 0.2, y + 0.26), brown, None)


def fish(pen: Pen) -> None:
    pen.poly([(0.7, 0.5), (0.98, 0.24), (0.98, 0.76)], (70, 160, 190))
    pen.oval((0.04, 0.24), (0.8, 0.76), (95, 190, 215))
    pen.oval((0.18, 0.38), (0.27, 0.47), DARK, None)


Emblem = Callable[[Pen], None]
WARNING: dict[str, tuple[Emblem, ...]] = {
    "train": (hazard, skull, hood, pistol, blade, angry),
    "test": (hazard, skull, hood, bomb, blade, angry),
}
FRIENDLY: dict[str, tuple[Emblem, ...]] = {
    "train": (leaf, sun, mug, book, heart, star, smile),
    "test": (leaf, sun, mug, heart, smile, paw, fish),
}
EMBLEMS: dict[str, Emblem] = {e.__name__: e for side in (WARNING, FRIENDLY) for split in side.values() for e in split}
