"""Which Conversation comes at step k: a pure function of (parts, shares, seed, k).

Two decisions make it exact. *Which part* comes at step k is Tijdeman's solution of the chairman assignment
problem (Discrete Mathematics 32, 1980): after any n steps each part's count differs from ``share * n`` by less
than one, for any number of parts. *Which record* of that part comes is its j-th draw, read from a seeded
permutation of the part, a new one for each pass. Neither looks at ranks, workers or earlier calls.

Worked example: shares 1/2, 1/4, 1/4 give the period ``a b c a``: after 1 step a has 1 (share * n = 0.5), after 2
steps a 1, b 1 (1.0, 0.5), after 3 steps 1, 1, 1 (1.5, 0.75, 0.75), after 4 steps 2, 1, 1, and the period starts again.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm

import numpy as np

from vlsafe.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """One source in a mixture, which of its records, and how much of it.

    Exactly one of ``share``, ``count`` and ``repeat`` says how much:

    Args:
        source: ``kind:path[#split]`` or a mapping ``{kind, path, ...options}``.
        share: of the samples (or of the supervised tokens, see ``share_of``), between 0 and 1.
        count: records drawn once, without replacement, by seed; 0 for none of them.
        repeat: whole passes over the source.
        where: only records whose tags have these values, ``{subset: unsafe, category: [privacy, deception]}``.
        without: no record whose tags have any of these values.
        balance: a tag of which every value is to come equally often. Records of the more frequent values are left
            out, drawn by seed.
    """

    source: str | dict
    share: float | None = None
    count: int | None = None
    repeat: int | None = None
    where: dict[str, str | list[str]] | None = None
    without: dict[str, str | list[str]] | None = None
    balance: str | None = None


class Mixture:
    """The order of samples.

    Args:
        parts: name -> Part.
        sizes: name -> number of records in the part's source.
        samples: samples in one pass of the mixture. Needed when all parts have a ``share``; otherwise it follows
            from the counts.
        seed: decides every draw.
        tokens: name -> supervised tokens of a record on average. With it a ``share`` is of tokens: parts of longer
            answers get fewer samples, so that tokens come in the given shares over whole passes of the parts.

    ``pools`` holds, for each part, the indices of the records that it may draw, ``weights`` its samples in proportion.

    Raises:
        ConfigError: shares that do not sum to 1, several or no amounts for a part, more records asked than there are.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        sizes: Mapping[str, int],
        samples: int | None,
        seed: int,
        tokens: Mapping[str, Fraction] | None = None,
    ) -> None:
        weights, total = _weights(parts, sizes, samples, tokens)
        self._plan(dict(zip(parts, weights, strict=True)), total, seed)
        for name, part in parts.items():
            self.pools[name] = np.arange(sizes[name])
            if part.count is not None:
                self.pools[name] = permutation(seed, f"{name}/count", sizes[name])[: part.count]

    @classmethod
    def planned(cls, weights: Mapping[str, int], pools: Mapping[str, int], samples: int, seed: int) -> Mixture:
        """The mixture of sources that hold exactly a pool of ``pools[name]`` records each, in its order."""
        mixture = cls.__new__(cls)
        mixture._plan(weights, samples, seed)
        mixture.pools = {name: np.arange(size) for name, size in pools.items()}
        return mixture

    def _plan(self, weights: Mapping[str, int], samples: int, seed: int) -> None:
        self.names = list(weights)
        self.weights = dict(weights)
        self.samples = samples
        self.seed = seed
        self.pools: dict[str, np.ndarray] = {}
        self.shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
        self._assignment = ChairmanAssignment(list(weights.values()))

    def __len__(self) -> int:
        return self.samples

    def at(self, step: int) -> tuple[str, int]:
        """The part's name and the index of the record in its source, for any step >= 0."""
        part, draw = self._assignment.at(step)
        name = self.names[part]
        pool = self.pools[name]
        chosen, place = divmod(draw, len(pool))
        return name, int(pool[permutation(self.seed, f"{name}/pass{chosen}", len(pool))[place]])

    def counts(self, steps: int | None = None) -> dict[str, int]:
        """Samples per part in the first ``steps`` steps (default: one pass)."""
        counts = self._assignment.counts(self.samples if steps is None else steps)
        return dict(zip(self.names, counts, strict=True))


@lru_cache(maxsize=64)
def permutation(seed: int, stream: str, size: int) -> np.ndarray:
    """A permutation of ``range(size)`` that depends on nothing but ``seed`` and the name of the stream."""
    return np.random.default_rng([seed, zlib.crc32(stream.encode())]).permutation(size)


class ChairmanAssignment:
    """The part sequence for integer ``weights``, with period ``sum(weights)``, worked out as far as it is asked for
    (shares of many digits have a period that no memory could hold).

    At step n a part may be chosen once it is owed at least 1 / (2m - 2) of a sample; among those the one whose
    deadline (the step by which it must have been chosen to stay within the bound) is nearest. All in integers.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self.weights = list(weights)
        self.period = sum(weights)
        self._live = [i for i, w in enumerate(weights) if w > 0]
        self._counts = [0] * len(weights)
        self._parts: list[int] = []
        self._draws: list[int] = []

    def at(self, step: int) -> tuple[int, int]:
        """The part of any step >= 0, and how often it came before."""
        whole, offset = divmod(step, self.period)
        self._extend(offset + 1)
        part = self._parts[offset]
        return part, whole * self.weights[part] + self._draws[offset]

    def counts(self, steps: int) -> list[int]:
        """How often each part comes in the first ``steps`` steps."""
        whole, rest = divmod(steps, self.period)
        self._extend(rest)
        tail = Counter(self._parts[:rest])
        return [whole * weight + tail[part] for part, weight in enumerate(self.weights)]

    def _extend(self, steps: int) -> None:
        while len(self._parts) < steps:
            part = self._next()
            self._parts.append(part)
            self._draws.append(self._counts[part])
            self._counts[part] += 1

    def _next(self) -> int:
        if len(self._live) == 1:
            return self._live[0]
        n, total, scale = len(self._parts) + 1, self.period, 2 * len(self._live) - 2
        best, best_slack = -1, 0
        for i in self._live:
            weight = self.weights[i]
            owed = scale * (n * weight - self._counts[i] * total)
            if owed < total:
                continue
            slack = scale * total - total - owed
            # slack / weight is the time left; compare two fractions by cross-multiplication
            if best < 0 or slack * self.weights[best] < best_slack * weight:
                best, best_slack = i, slack
        return best


def _weights(
    parts: Mapping[str, Part], sizes: Mapping[str, int], samples: int | None, tokens: Mapping[str, Fraction] | None
) -> tuple[list[int], int]:
    """Integer weights, smallest possible, and the samples of one pass.

    Shares are of what a record weighs: 1, or its tokens on average. The counted parts weigh ``counted``; they are what
    the shares leave of the whole, so the whole is ``counted / (1 - shares)``.
    """
    check_parts(parts, samples)
    problems = []
    for name, part in parts.items():
        if sizes[name] == 0:
            problems.append(f"part {name!r}: its source holds no records")
        if part.count is not None and part.count > sizes[name]:
            problems.append(f"part {name!r}: count {part.count} is more than the {sizes[name]} records of its source")
    if problems:
        raise ConfigError(problems)
    weight = tokens or dict.fromkeys(parts, Fraction(1))
    drawn = {n: p.count if p.count is not None else (p.repeat or 0) * sizes[n] for n, p in parts.items()}
    shared = sum((_fraction(p.share) for p in parts.values()), Fraction(0))
    counted = sum((drawn[n] * weight[n] for n in parts), Fraction(0))
    whole = counted / (1 - shared) if shared != 1 else Fraction(1)
    exact = [
        Fraction(drawn[n]) if p.share is None else _fraction(p.share) * whole / weight[n] for n, p in parts.items()
    ]
    denominator = lcm(*(amount.denominator for amount in exact))
    divisor = gcd(*(int(amount * denominator) for amount in exact))
    total = samples if samples is not None else round(sum(exact))
    return [int(amount * denominator) // divisor for amount in exact], total


def check_parts(parts: Mapping[str, Part], samples: int | None) -> None:
    """What can be said of a mixture before its sources are opened. Raises ConfigError with every problem."""
    problems = []
    if not parts:
        problems.append("data.parts is empty: name at least one part")
    for name, part in parts.items():
        given = [key for key in ("share", "count", "repeat") if getattr(part, key) is not None]
        if len(given) != 1:
            problems.append(f"part {name!r}: give exactly one of share, count, repeat (given: {given or 'none'})")
        if part.share is not None and not 0 <= part.share <= 1:
            problems.append(f"part {name!r}: share {part.share} is not between 0 and 1")
        if (part.count is not None and part.count < 0) or (part.repeat is not None and part.repeat < 1):
            problems.append(f"part {name!r}: count must be at least 0, repeat at least 1")
    if samples is not None and samples < 1:
        problems.append(f"data.samples is {samples}, must be at least 1")
    if problems:
        raise ConfigError(problems)
    shared = sum((_fraction(p.share) for p in parts.values()), Fraction(0))
    if all(part.share is not None for part in parts.values()):
        if shared != 1:
            listed = " + ".join(f"{name} {part.share}" for name, part in parts.items())
            problems.append(f"the shares sum to {float(shared)}, not 1: {listed}")
        if samples is None:
            problems.append("all parts have a share, so data.samples must say how many samples to draw")
    else:
        if all(part.count == 0 for part in parts.values() if part.share is None):
            problems.append("every counted part has count 0, which leaves nothing to draw")
        if shared >= 1:
            problems.append(f"the shares already sum to {float(shared)}; nothing is left for the counted parts")
        if samples is not None:
            problems.append("data.samples cannot be given beside count or repeat: the counts already decide it")
    if problems:
        raise ConfigError(problems)


def _fraction(share: float | None) -> Fraction:
    """A share as people wrote it: 0.1 is 1/10, not the nearest binary number; 0.3333 is 3333/10000, 1 / 3 a third."""
    return Fraction(0) if share is None else Fraction(str(share)).limit_denominator(10**9)
