"""Supervised tokens of a source's records on average: what a share of tokens is reckoned with."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from vlsafe.conversation import Conversation
from vlsafe.data.encoding import Encoding
from vlsafe.data.mixture import permutation
from vlsafe.data.sources.base import Source

MOST = 2000
"""Records that are counted. A source of no more is counted whole, and its mean is exact; of a larger one as many are
drawn by seed, and its mean is an estimate."""


def tokens_per_record(source: Source, name: str, encoding: Encoding, seed: int) -> Fraction:
    """The mean of supervised tokens over the records, or over MOST of them, as the encoding labels them.

    Pictures are left out, because they are never supervised; so an answer that ``too_long: truncate`` would shorten
    counts as if it were whole. Raises DataError as :meth:`Encoding.sample`.
    """
    chosen = permutation(seed, f"{name}/tokens", len(source))[:MOST]
    total = sum(encoding.sample(_without_pictures(source[int(record)])).supervised for record in chosen)
    return Fraction(total, len(chosen))


def _without_pictures(conversation: Conversation) -> Conversation:
    turns = tuple(replace(turn, content=(turn.text,)) for turn in conversation.turns)
    return replace(conversation, turns=turns)
