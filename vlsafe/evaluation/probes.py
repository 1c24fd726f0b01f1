"""Probes: the items of a benchmark asked again under one changed condition, to see what the answers hang on.

A probe is named like what it changes, and its name joins the variant: ``vlguard[unsafe,image=none]/asr``. It rewrites
existing items only; an item that it would leave as it is, is not asked again.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import Any, get_args

from vlsafe.data.balance.wording import openings
from vlsafe.errors import ConfigError
from vlsafe.evaluation.benchmarks.pictures import ImageCondition, plain
from vlsafe.evaluation.records import Item
from vlsafe.table import Table

PROBE, PROBE_OF = "probe", "probe_of"
"""Keys in the ``meta`` of a probed Item: the probe's name, and the id of the item that it was made from."""

Rewrite = Callable[[Item], Item]


def probed(items: Sequence[Item], name: str) -> list[Item]:
    """The items as the probe ``name`` asks them, each paired with its original by ``meta``.

    Raises ConfigError for an unknown probe, and for one that changes none of the items.
    """
    rewrite: Rewrite = PROBES[name]
    pairs = [(item, rewrite(item)) for item in items]
    changed = [_marked(item, new, name) for item, new in pairs if new != item]
    if not changed:
        raise ConfigError(f"probe {name!r} changes no item of benchmark {items[0].benchmark!r}; leave it out there")
    return changed


def _marked(item: Item, new: Item, name: str) -> Item:
    return replace(
        new,
        id=f"{item.id}~{name}",
        variant=f"{item.variant},{name}" if item.variant else name,
        cluster=item.cluster or item.id,
        meta=item.meta | {PROBE: name, PROBE_OF: item.id},
    )


def _picture(condition: ImageCondition, item: Item) -> Item:
    return replace(item, image=plain(condition))


def _system(name: str, item: Item) -> Item:
    return replace(item, system=_wording()["system"][name])


def _opening(name: str, item: Item) -> Item:
    """The request in a template that begins with the other side's word; which one hangs on the item alone. A request
    that begins so already stays, and counts for the attack all the same."""
    words = _wording()["opening"][name]
    if item.side not in words:
        return item
    (opening,) = (each for each in openings() if each.word == words[item.side])
    # Below the number of templates, so that the request inside keeps its own voice.
    turn = hashlib.sha256(item.id.encode()).digest()[0] % 3
    (new,) = opening.introduce([item.question], turn)
    # What a judge is told stays the plain request, so that it rules on the same thing.
    told = item.instruction_for_judge or item.question
    return replace(item, question=new.text, instruction_for_judge=told)


@cache
def _wording() -> dict[str, Any]:
    return tomllib.loads(files("vlsafe.evaluation").joinpath("probes.toml").read_text(encoding="utf-8"))


_rewrites: dict[str, Rewrite] = {f"image={each}": partial(_picture, each) for each in get_args(ImageCondition)}
_rewrites |= {f"system={each}": partial(_system, each) for each in _wording()["system"]}
_rewrites |= {f"opening={each}": partial(_opening, each) for each in _wording()["opening"]}

PROBES = Table("probe", **_rewrites)
"""Name -> what it makes of an Item. ``PROBES.add(name, rewrite)`` registers one of your own."""
