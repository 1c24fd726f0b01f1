"""Any table as a benchmark: which column is the question, which the picture, and who should refuse what.

A set that needs no rule of its own is declared, not programmed: as YAML by its user, or as a row of ``sets.toml``.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.benchmarks.files import cell, read_records
from vlsafe.evaluation.benchmarks.pictures import unpacked
from vlsafe.evaluation.records import Item, Side

_SIDES = ("harm", "benign", "utility")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what; dots reach into nested records. Only ``question`` is needed.

    ``id`` empty: the record's number. ``image``: a name inside ``pictures``, the bytes of a picture, or base64.
    ``side``: its values are translated by ``sides``. ``variant`` splits the metrics (empty: the side
    column does). ``instruction``: what a judge
    should read where the prompt hides it. ``cluster`` empty: the picture, else the record alone.
    """

    question: str
    id: str = ""
    image: str = ""
    side: str = ""
    variant: str = ""
    group: str = ""
    reference: str = ""
    instruction: str = ""
    cluster: str = ""


class TableBenchmark(Benchmark):
    """A CSV, TSV, JSON, JSON Lines or parquet file, or a folder of parquet files, by a mapping of its columns.

    Metrics: ``asr`` and ``refusal`` of the harm side, ``over_refusal`` of the benign one, ``refused`` of utility.

    Args:
        path: the file.
        columns: what is where.
        side: of all records; or, with ``columns.side``, leave it out and give ``sides``.
        sides: value of the side column -> side. A value that is not named is an error.
        pictures: folder or zip file of the pictures; relative to the table's folder, "" for that folder itself.
        where: column -> value: keep only such records (``{split: test}``).
        template: the prompt, with ``{question}`` in it.
        system: system prompt of these items.
        variant: a word for what these settings make of the set; it stands in the metric's name.
        max_new_tokens: of these items; None: the run's.
        get: how to get the data, for the error that it is missing.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Columns,
        name: str,
        side: Side | None = None,
        sides: dict[str, Side] | None = None,
        pictures: str | Path = "",
        where: dict[str, str] | None = None,
        template: str = "{question}",
        system: str = "",
        variant: str = "",
        max_new_tokens: int | None = None,
        get: str = "",
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(name, limit, seed, path)
        if (side is None) == (not columns.side):
            raise ConfigError(f"benchmark {name!r}: give either `side` or `columns.side` with `sides`")
        unknown = [value for value in [side, *(sides or {}).values()] if value not in (None, *_SIDES)]
        if unknown or (columns.side and not sides):
            raise ConfigError(f"benchmark {name!r}: `sides` must map the column's values to {', '.join(_SIDES)}")
        if "{question}" not in template:
            raise ConfigError(f"benchmark {name!r}: template {template!r} has no {{question}} in it")
        self.columns, self.side, self.sides, self.where = columns, side, sides or {}, where or {}
        self.pictures, self.template, self.system, self.variant = Path(pictures), template, system, variant
        self.max_new_tokens = max_new_tokens
        self.get = get or "the set's own page"

    def load(self) -> list[Item]:
        needed = [name for name in (self.columns.question, self.columns.id, self.columns.side, *self.where) if name]
        rows = [
            (number, row)
            for number, row in enumerate(read_records(self.path, needed, self.get), start=1)
            if all(str(cell(row, column)) == value for column, value in self.where.items())
        ]
        items, problems = [], []
        for number, row in rows:
            try:
                items.append(self._item(row, number))
            except DataError as error:
                problems += [f"{self.path}, record {number}: {problem}" for problem in error.problems]
        if problems:
            raise DataError(problems)
        return items

    def _item(self, row: dict[str, Any], number: int) -> Item:
        columns = self.columns
        image = self._image(cell(row, columns.image)) if columns.image else None
        split = _text(row, columns.variant or columns.side)  # two sides under one name could not be told apart
        variant = ",".join(filter(None, (split, self.variant)))
        return Item(
            id=f"{self.name}/{variant + '/' if variant else ''}{_text(row, columns.id) or number}",
            benchmark=self.name,
            variant=variant,
            side=self._side(row),
            question=self.template.replace("{question}", _text(row, columns.question)),
            image=image,
            reference=_text(row, columns.reference),
            group=_text(row, columns.group),
            cluster=_text(row, columns.cluster) or (image.name if image else ""),
            instruction_for_judge=_text(row, columns.instruction),
            system=self.system,
            max_new_tokens=self.max_new_tokens,
        )

    def _side(self, row: dict[str, Any]) -> Side:
        if self.side is not None:
            return self.side
        value = _text(row, self.columns.side)
        if value not in self.sides:
            raise DataError(f"{self.columns.side} is {value!r}; `sides` knows {', '.join(self.sides)}")
        return self.sides[value]

    def _image(self, value: Any) -> ImageRef | None:
        if value is None or value == "":
            return None
        if isinstance(value, dict):  # how parquet files of Hugging Face hold a picture
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return unpacked(value)
        if not isinstance(value, str):
            raise DataError(f"{self.columns.image} is {type(value).__name__}, neither a name nor a picture")
        folder = self.path if self.path.is_dir() else self.path.parent
        return embedded(value) or ImageRef(folder / self.pictures, value)


def declared_table(file: str | Path, limit: int | None = None) -> TableBenchmark:
    """The benchmark that a YAML file declares: the arguments of :class:`TableBenchmark`, ``path`` and ``pictures``
    relative to it. Raises ConfigError naming what is unknown or missing."""
    file = Path(file)
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
        arguments = {**content, "columns": Columns(**content["columns"])}
        if not str(arguments["path"]).startswith("cache:"):
            arguments["path"] = file.parent / arguments["path"]
        return TableBenchmark(**arguments | ({} if limit is None else {"limit": limit}))
    except ConfigError:
        raise
    except Exception as error:  # OmegaConf passes on whatever its YAML reader raises
        raise ConfigError(f"{file}: not the declaration of a table ({error}); see docs/benchmarks.md") from error


def embedded(text: str) -> ImageRef | None:
    """The picture in a base64 text; None for a name. No name is as long as the smallest picture."""
    if len(text) < 300:
        return None
    try:
        return unpacked(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise DataError(f"a picture of {len(text)} characters is not base64: {error}; get the file again") from error


def _text(row: dict[str, Any], column: str) -> str:
    value = cell(row, column) if column else None
    return "" if value is None else str(value).strip()
