"""The catalogue: everything that can be fetched by name, and groups of names."""

from __future__ import annotations

from collections.abc import Sequence

from vlsafe.errors import ConfigError
from vlsafe.fetch import packaged
from vlsafe.fetch.asset import Asset
from vlsafe.table import Table

ASSETS: tuple[Asset, ...] = (*packaged.ASSETS,)

CATALOGUE = Table("asset", **{asset.name: asset for asset in ASSETS})

GROUPS: dict[str, tuple[str, ...]] = {
    "small": ("smollm2-135m-instruct", "efficientnet-lite0", "easy-vqa", "drawn-safety"),
}


def chosen(names: Sequence[str]) -> list[Asset]:
    """The assets behind names and group names, each once, in the order asked for.

    Raises ConfigError that lists every unknown name with its nearest match.
    """
    either = Table("asset or group", **{**{asset.name: (asset.name,) for asset in ASSETS}, **GROUPS})
    found: dict[str, Asset] = {}
    problems = []
    for name in names:
        try:
            found.update({each: CATALOGUE[each] for each in either[name]})
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError(problems)
    return list(found.values())
