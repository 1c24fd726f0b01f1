"""Which records of a source a part may draw: by tag, and equally many of each value of a tag."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from vlsafe.conversation import Conversation
from vlsafe.data.mixture import Part, permutation
from vlsafe.data.sources.base import Source
from vlsafe.errors import ConfigError

Wanted = Mapping[str, str | list[str]]


class SelectedSource(Source):
    """Some records of a source, in the order of ``places``."""

    def __init__(self, source: Source, places: Sequence[int]) -> None:
        self.name = source.name
        self.skipped, self.changes = source.skipped, source.changes
        self._source = source
        self._places = np.asarray(places, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Conversation:
        return self._source[int(self._places[index])]


def selected(source: Source, name: str, part: Part, seed: int) -> Source:
    """The records that ``part`` (called ``name``) may draw: the source itself unless it says which.

    Raises ConfigError for a tag or a value that no record has, when no record is left, or when there are too few of a
    value to be balanced.
    """
    if not (part.where or part.without or part.balance):
        return source
    tags = [conversation.tags for conversation in source]
    where, without = _checked(tags, part.where or {}, name), _checked(tags, part.without or {}, name)
    places = [
        place
        for place, each in enumerate(tags)
        if all(each.get(tag) in values for tag, values in where.items())
        and not any(each.get(tag) in values for tag, values in without.items())
    ]
    if not places:
        raise ConfigError(f"part {name!r}: no record is left by where and without")
    if part.balance:
        places = _balanced(places, tags, name, part, seed)
    return SelectedSource(source, places)


def _checked(tags: Sequence[Mapping[str, str]], wanted: Wanted, name: str) -> dict[str, set[str]]:
    """The wanted values as sets. A misspelt one would select nothing, or everything, without a word."""
    checked = {tag: {values} if isinstance(values, str) else set(values) for tag, values in wanted.items()}
    problems = []
    for tag, values in checked.items():
        found = Counter(each[tag] for each in tags if tag in each)
        if not found:
            valid = ", ".join(sorted({key for each in tags for key in each})) or "none"
            problems.append(f"part {name!r}: no record has a tag {tag!r}; tags of this source: {valid}")
        elif values - found.keys():
            unknown = ", ".join(sorted(values - found.keys()))
            problems.append(f"part {name!r}: no record has {tag} {unknown}; values: {', '.join(sorted(found))}")
    if problems:
        raise ConfigError(problems)
    return checked


def _balanced(places: list[int], tags: list[dict[str, str]], name: str, part: Part, seed: int) -> list[int]:
    tag = str(part.balance)
    groups: dict[str, list[int]] = defaultdict(list)
    for place in places:
        if tag not in tags[place]:
            raise ConfigError(
                f"part {name!r}: some records have no tag {tag!r}, so they cannot be balanced by it; "
                "choose those that have it with where"
            )
        groups[tags[place][tag]].append(place)
    values = sorted(groups)
    if part.count is None:
        quota = dict.fromkeys(values, min(map(len, groups.values())))
    else:  # as equal as whole numbers can be
        each, more = divmod(part.count, len(values))
        quota = {value: each + (number < more) for number, value in enumerate(values)}
    short = [f"{len(groups[value])} of {value}" for value in values if quota[value] > len(groups[value])]
    if short:
        raise ConfigError(
            f"part {name!r}: count {part.count} balanced by {tag} wants {max(quota.values())} of each value, but there "
            f"are only {', '.join(short)}"
        )
    chosen = [
        groups[value][draw]
        for value in values
        for draw in permutation(seed, f"{name}/balance/{value}", len(groups[value]))[: quota[value]]
    ]
    return sorted(chosen)
