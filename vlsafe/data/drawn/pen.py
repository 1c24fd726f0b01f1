"""Drawing in unit coordinates: a Pen maps the square 0..1 onto a box of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

Rgb = tuple[int, int, int]
Point = tuple[float, float]

SIZE = 224
SCALE = 2  # drawn at twice the size and reduced: smooth edges without a drawing library
INK: Rgb = (34, 34, 44)

COLOURS: dict[str, Rgb] = {
    "red": (214, 40, 40),
    "blue": (40, 90, 210),
    "green": (44, 150, 60),
    "yellow": (250, 210, 40),
    "orange": (245, 130, 30),
    "purple": (130, 60, 170),
    "brown": (130, 80, 40),
    "black": (20, 20, 20),
    "white": (252, 252, 252),
    "pink": (245, 150, 185),
    "grey": (140, 140, 145),
}


def shade(colour: Rgb, factor: float) -> Rgb:
    """Darker below 1, towards white above it."""
    if factor <= 1:
        return tuple(int(c * factor) for c in colour)  # type: ignore[return-value]
    return tuple(int(c + (255 - c) * (factor - 1)) for c in colour)  # type: ignore[return-value]


class Pen:
    """Draws into ``box`` = (left, top, width, height), given in pixels of the finished picture."""

    def __init__(self, image: Image.Image, box: tuple[float, float, float, float] = (0, 0, SIZE, SIZE)) -> None:
        self.image = image
        self.box = box
        self._draw = ImageDraw.Draw(image)
        self._outline = max(2, round(min(box[2], box[3]) * SCALE / 45))

    def inside(self, left: float, top: float, width: float, height: float) -> Pen:
        """A pen for a part of this box, in this box's unit coordinates."""
        x, y = self._pixels((left, top))
        w, h = self.box[2] * width, self.box[3] * height
        return Pen(self.image, (x / SCALE, y / SCALE, w, h))

    def rect(self, a: Point, b: Point, fill: Rgb, outline: Rgb | None = INK, round_by: float = 0) -> None:
        corners = [self._pixels(a), self._pixels(b)]
        radius = round_by * self.box[2] * SCALE
        self._draw.rounded_rectangle(corners, radius, fill, outline, self._width(outline))

    def oval(self, a: Point, b: Point, fill: Rgb, outline: Rgb | None = INK) -> None:
        self._draw.ellipse([self._pixels(a), self._pixels(b)], fill, outline, self._width(outline))

    def poly(self, points: Sequence[Point], fill: Rgb, outline: Rgb | None = INK) -> None:
        self._draw.polygon([self._pixels(p) for p in points], fill, outline, self._width(outline))

    def line(self, points: Sequence[Point], fill: Rgb = INK, width: float = 0.03) -> None:
        thick = max(1, round(width * min(self.box[2], self.box[3]) * SCALE))
        self._draw.line([self._pixels(p) for p in points], fill, thick, joint="curve")

    def arc(self, a: Point, b: Point, start: float, end: float, fill: Rgb = INK, width: float = 0.03) -> None:
        thick = max(1, round(width * min(self.box[2], self.box[3]) * SCALE))
        self._draw.arc([self._pixels(a), self._pixels(b)], start, end, fill, thick)

    def text(self, at: Point, words: str, size: float, fill: Rgb = INK, anchor: str = "la") -> None:
        """Pillow's bundled font, so that no font of the machine changes the picture. ``size`` in pixels."""
        self._draw.text(self._pixels(at), words, fill, _font(size), anchor=anchor)

    def text_width(self, words: str, size: float) -> float:
        """In units of this box's width."""
        return self._draw.textlength(words, _font(size)) / (self.box[2] * SCALE)

    def _pixels(self, point: Point) -> tuple[float, float]:
        left, top, width, height = self.box
        return ((left + point[0] * width) * SCALE, (top + point[1] * height) * SCALE)

    def _width(self, outline: Rgb | None) -> int:
        return 0 if outline is None else self._outline


@cache
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size * SCALE)


def blank(colour: Rgb) -> Image.Image:
    return Image.new("RGB", (SIZE * SCALE, SIZE * SCALE), colour)


def finish(image: Image.Image) -> Image.Image:
    """The picture at its final size, 224 x 224."""
    return image.reduce(SCALE)


def wrapped(pen: Pen, words: str, size: float, width: float) -> list[str]:
    """Lines of ``words`` no wider than ``width`` of the pen's box."""
    lines: list[str] = []
    for word in words.split():
        if lines and pen.text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
