"""Win rates: a judge compares a model's answer with a rival's, in both orders, blind to which is which.

Judges favour a position (arXiv 2306.05685), so each item is asked twice with the answers swapped. A win counts 1; a
tie, or a preference that follows the position, counts one half; an order that failed leaves the item unknown. Items
whose rival answer is empty cannot be compared: they are left out and counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import quote

from vlsafe.conversation import ImageRef
from vlsafe.errors import ConfigError, DataError, VlsafeError
from vlsafe.evaluation.probes import PROBE
from vlsafe.evaluation.records import Item, Metric, Response, write_text
from vlsafe.evaluation.tallies import Tally, estimate, mean

RIVAL = "rival"
"""Key in an Item's ``meta``: the answer to compare with."""

Winner = Literal["first", "second", "tie", "error"]


@dataclass(frozen=True, slots=True)
class Pair:
    """What a pair judge reads: two answers in the order in which it shall see them. ``id`` names item and order."""

    id: str
    question: str
    first: str
    second: str
    image: ImageRef | None = None
    key: str = ""
    """Of the model's response, which is the first or the second."""


@dataclass(frozen=True, slots=True)
class Preference:
    """What it says. ``winner`` ``error``: it could not be asked or understood; ``explanation`` says why. ``key`` is the
    Response's, and ``basis`` hashes the judge's version and all that it read."""

    id: str
    winner: Winner
    explanation: str = ""
    basis: str = ""
    key: str = ""

    @property
    def item_id(self) -> str:
        """Without the order."""
        return self.id.rpartition("#")[0]


class PairJudge(Protocol):
    """Compares two answers. ``version`` names the rule or the served model; those of another are not reused.
    ``weights`` and ``served`` as in :class:`~vlsafe.evaluation.judges.base.Judge`."""

    name: str
    version: str
    weights: str
    served: str

    def prefer(self, pairs: Sequence[Pair]) -> Iterator[Preference]:
        """One Preference a pair, in order."""


@dataclass(frozen=True, slots=True)
class WinRate:
    """``win_rate`` in percent over the compared items; ``excluded`` ones have an empty rival; ``swayed`` ones were won
    by the position in both orders."""

    win_rate: Metric
    excluded: int
    swayed: int


def rivalled(items: Sequence[Item]) -> list[Item]:
    """The items that bring a rival's answer; a probe's do not count, as the rival was not asked them. Raises DataError
    when there are none."""
    rivals = [item for item in items if RIVAL in item.meta and PROBE not in item.meta]
    if not rivals:
        raise DataError("no item has a rival's answer to compare with; use alpaca_eval, or vlguard with `rivals`")
    return rivals


def pairs_of(items: Sequence[Item], responses: Mapping[str, Response]) -> list[Pair]:
    """Both orders of every item that can be compared. ``responses`` by item id.

    Raises DataError when no item has a rival, or one has no response.
    """
    rivals = rivalled(items)
    missing = [f"item {item.id!r} has no response; run evaluate again" for item in rivals if item.id not in responses]
    if missing:
        raise DataError(missing)
    pairs: list[Pair] = []
    for item in rivals:
        own, rival = responses[item.id], item.meta[RIVAL]
        if rival.strip() and not own.error:
            pairs.append(Pair(f"{item.id}#own-first", item.question, own.text, rival, item.image, own.key))
            pairs.append(Pair(f"{item.id}#own-second", item.question, rival, own.text, item.image, own.key))
    return pairs


def compare_pairs(
    items: Sequence[Item], responses: Mapping[str, Response], judge: PairJudge, path: Path, batch: int = 64
) -> list[Preference]:
    """The judge's preferences on :func:`pairs_of`; only what ``path`` (JSONL) lacks, or holds as errors, is asked.

    What a batch brought is kept before the next one is asked. Raises as :func:`pairs_of`, and VlsafeError when the
    judge does not answer each pair in order.
    """
    pairs = pairs_of(items, responses)
    basis = {pair.id: _basis(pair, judge) for pair in pairs}
    key = {pair.id: pair.key for pair in pairs}
    same = {row.id: row for row in _read(path) if row.winner != "error" and row.basis == basis.get(row.id)}
    kept = {row_id: replace(row, key=key[row_id]) for row_id, row in same.items()}  # the same words, another model
    if kept != same:
        _write(path, kept.values())
    missing = [pair for pair in pairs if pair.id not in kept]
    for start in range(0, len(missing), batch):
        asked = missing[start : start + batch]
        given = list(judge.prefer(asked))
        if [each.id for each in given] != [pair.id for pair in asked]:
            raise VlsafeError(f"judge {judge.name!r} did not answer each of {len(asked)} pairs once and in order")
        kept |= {each.id: replace(each, basis=basis[each.id], key=key[each.id]) for each in given}
        _write(path, kept.values())
    return [kept[pair.id] for pair in pairs]


def win_rate(items: Sequence[Item], preferences: Sequence[Preference]) -> WinRate:
    """See the module's words; the interval resamples clusters of items."""
    rivals = rivalled(items)
    compared = _compared(rivals)
    orders = _orders(compared, preferences)
    scores = {item_id: _score(*both) for item_id, both in orders.items()}
    swayed = sum(both in (("first", "first"), ("second", "second")) for both in orders.values())
    return WinRate(estimate(mean(compared, scores)), len(rivals) - len(compared), swayed)


def win_tallies(items: Sequence[Item], preferences: Sequence[Preference]) -> dict[str, Tally]:
    """Full metric name (``vlguard[safe_safe]/win_rate``) -> the win rate of each scope that was compared."""
    if not preferences:
        return {}
    compared = _compared(rivalled(items))
    scores = {item_id: _score(*both) for item_id, both in _orders(compared, preferences).items()}
    scopes = sorted({item.scope for item in compared})
    return {f"{scope}/win_rate": mean([each for each in compared if each.scope == scope], scores) for scope in scopes}


def preferences_path(folder: Path, judge: str) -> Path:
    return folder / f"preferences.{quote(judge, safe=':@+')}.jsonl"


def read_preferences(folder: Path) -> list[Preference]:
    """Those of the folder's pair judge. Raises ConfigError when there are several judges."""
    found = sorted(folder.glob("preferences.*.jsonl"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"{folder} holds preferences of several judges ({names}); keep one of them there")
    return _read(found[0]) if found else []


def _compared(rivals: Sequence[Item]) -> list[Item]:
    return [item for item in rivals if item.meta[RIVAL].strip()]


def _orders(
    compared: Sequence[Item], preferences: Sequence[Preference]
) -> dict[str, tuple[Winner | None, Winner | None]]:
    by_id = {each.id: each.winner for each in preferences}
    return {item.id: (by_id.get(f"{item.id}#own-first"), by_id.get(f"{item.id}#own-second")) for item in compared}


def _score(own_first: Winner | None, own_second: Winner | None) -> float | None:
    points = {"first": 1.0, "second": 0.0, "tie": 0.5}
    if own_first not in points or own_second not in points:
        return None
    return (points[own_first] + 1 - points[own_second]) / 2


def _basis(pair: Pair, judge: PairJudge) -> str:
    read = [judge.name, judge.version, pair.question, pair.first, pair.second, str(pair.image or "")]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()


def _write(path: Path, rows: Iterable[Preference]) -> None:
    write_text(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))


def _read(path: Path) -> list[Preference]:
    if not path.exists():
        return []
    return [Preference(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]
