"""Objects that only training scenes hold: requests point at many kinds of things there, so that a thing never seen
before is no reason to refuse. Each is drawn in a unit square, standing on its lower edge.
"""

from __future__ import annotations

from vlsafe.data.drawn.pen import COLOURS, INK, Pen, Rgb, shade

WOOD, CREAM, METAL, GLASS = (120, 78, 48), (250, 246, 232), (150, 152, 160), (190, 225, 245)


def bicycle(pen: Pen, colour: Rgb) -> None:
    for x in (0.02, 0.6):
        pen.arc((x, 0.6), (x + 0.38, 0.98), 0, 360, INK, 0.05)
    pen.line([(0.21, 0.79), (0.36, 0.5), (0.68, 0.5), (0.48, 0.79), (0.21, 0.79)], colour, 0.05)
    pen.line([(0.36, 0.5), (0.48, 0.79)], colour, 0.05)
    pen.line([(0.79, 0.79), (0.66, 0.36), (0.78, 0.34)], colour, 0.05)
    pen.line([(0.28, 0.44), (0.42, 0.44)], INK, 0.06)


def train(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.02, 0.3), (0.4, 0.86), colour)
    pen.rect((0.09, 0.38), (0.31, 0.58), GLASS)
    pen.rect((0.4, 0.5), (0.94, 0.86), colour, round_by=0.05)
    pen.rect((0.72, 0.24), (0.84, 0.5), INK)
    pen.rect((0, 0.2), (0.44, 0.3), shade(colour, 0.7))
    for x in (0.06, 0.3, 0.52, 0.74):
        pen.oval((x, 0.78), (x + 0.2, 0.99), METAL)


def tractor(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.12, 0.2), (0.5, 0.6), CREAM)
    pen.rect((0.08, 0.12), (0.54, 0.2), colour)
    pen.rect((0.12, 0.52), (0.9, 0.8), colour)
    pen.line([(0.74, 0.52), (0.74, 0.3)], INK, 0.05)
    pen.oval((0.02, 0.5), (0.5, 0.99), INK)
    pen.oval((0.16, 0.64), (0.36, 0.85), METAL)
    pen.oval((0.68, 0.72), (0.95, 0.99), INK)


def bird(pen: Pen, colour: Rgb) -> None:
    for x in (0.42, 0.54):
        pen.line([(x, 0.8), (x, 1)], (230, 150, 40), 0.04)
    pen.poly([(0.2, 0.6), (0, 0.42), (0.06, 0.68)], colour)
    pen.oval((0.12, 0.4), (0.76, 0.86), colour)
    pen.oval((0.54, 0.14), (0.88, 0.5), colour)
    pen.poly([(0.86, 0.28), (1, 0.34), (0.86, 0.4)], (240, 160, 40))
    pen.oval((0.7, 0.24), (0.76, 0.31), INK)
    pen.oval((0.26, 0.5), (0.56, 0.74), shade(colour, 0.75))


def rabbit(pen: Pen, colour: Rgb) -> None:
    for x in (0.32, 0.52):
        pen.oval((x, 0), (x + 0.15, 0.4), colour)
    pen.oval((0.2, 0.54), (0.8, 1), colour)
    pen.oval((0.26, 0.28), (0.74, 0.66), colour)
    for x in (0.37, 0.56):
        pen.oval((x, 0.42), (x + 0.06, 0.5), INK)
    pen.poly([(0.47, 0.53), (0.53, 0.53), (0.5, 0.57)], COLOURS["pink"])


def tent(pen: Pen, colour: Rgb) -> None:
    pen.poly([(0, 1), (0.5, 0.12), (1, 1)], colour)
    pen.poly([(0.36, 1), (0.5, 0.36), (0.64, 1)], (70, 66, 60))
    pen.line([(0.46, 0.04), (0.52, 0.14)], WOOD, 0.03)


def balloon(pen: Pen, colour: Rgb) -> None:
    pen.line([(0.5, 0.62), (0.44, 0.78), (0.54, 0.88), (0.48, 1)], INK, 0.02)
    pen.oval((0.2, 0), (0.8, 0.64), colour)
    pen.poly([(0.44, 0.68), (0.5, 0.6), (0.56, 0.68)], colour)
    pen.oval((0.3, 0.12), (0.42, 0.26), CREAM, None)


def ladder(pen: Pen, colour: Rgb) -> None:
    for x in (0.28, 0.66):
        pen.rect((x, 0), (x + 0.08, 1), colour)
    for y in (0.12, 0.3, 0.48, 0.66, 0.84):
        pen.rect((0.34, y), (0.68, y + 0.07), colour)


def bench(pen: Pen, colour: Rgb) -> None:
    for y in (0.34, 0.48):
        pen.rect((0.04, y), (0.96, y + 0.1), colour)
    pen.rect((0, 0.66), (1, 0.75), colour)
    for x in (0.1, 0.82):
        pen.rect((x, 0.75), (x + 0.08, 1), METAL)


def lamp(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.46, 0.42), (0.54, 0.9), METAL)
    pen.rect((0.26, 0.9), (0.74, 1), METAL, round_by=0.04)
    pen.poly([(0.34, 0.04), (0.66, 0.04), (0.84, 0.46), (0.16, 0.46)], colour)


def clock(pen: Pen, colour: Rgb) -> None:
    for x in (0.2, 0.68):
        pen.rect((x, 0.86), (x + 0.12, 1), METAL)
    pen.oval((0.08, 0.1), (0.92, 0.94), colour)
    pen.oval((0.18, 0.2), (0.82, 0.84), CREAM)
    pen.line([(0.5, 0.3), (0.5, 0.52), (0.66, 0.6)], INK, 0.04)


def book(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.14, 0.14), (0.86, 1), colour, round_by=0.03)
    pen.rect((0.8, 0.18), (0.9, 0.97), CREAM)
    pen.rect((0.28, 0.28), (0.68, 0.48), CREAM)
    pen.line([(0.22, 0.16), (0.22, 0.98)], shade(colour, 0.6), 0.04)


def apple(pen: Pen, colour: Rgb) -> None:
    pen.line([(0.5, 0.36), (0.54, 0.14)], WOOD, 0.05)
    pen.oval((0.54, 0.12), (0.8, 0.26), (70, 160, 70))
    pen.oval((0.12, 0.3), (0.6, 0.98), colour)
    pen.oval((0.4, 0.3), (0.88, 0.98), colour)
    pen.oval((0.24, 0.38), (0.76, 0.9), colour, None)


def guitar(pen: Pen, colour: Rgb) -> None:
    pen.rect((0.45, 0.1), (0.55, 0.6), WOOD)
    pen.rect((0.41, 0), (0.59, 0.12), INK)
    pen.oval((0.3, 0.4), (0.7, 0.74), colour)
    pen.oval((0.2, 0.58), (0.8, 1), colour)
    pen.oval((0.42, 0.58), (0.58, 0.74), INK)


def hat(pen: Pen, colour: Rgb) -> None:
    pen.oval((0, 0.74), (1, 1), colour)
    pen.rect((0.24, 0.34), (0.76, 0.88), colour, round_by=0.12)
    pen.rect((0.24, 0.68), (0.76, 0.8), INK)


def umbrella(pen: Pen, colour: Rgb) -> None:
    pen.line([(0.5, 0.4), (0.5, 0.9)], WOOD, 0.04)
    pen.arc((0.5, 0.82), (0.68, 1), 0, 180, WOOD, 0.04)
    pen.poly([(0, 0.5), (0.16, 0.2), (0.5, 0.04), (0.84, 0.2), (1, 0.5)], colour)
    pen.line([(0.34, 0.5), (0.5, 0.06), (0.66, 0.5)], shade(colour, 0.6), 0.02)
