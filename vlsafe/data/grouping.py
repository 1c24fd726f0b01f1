"""Samples in the order that their modality and length make cheap, inside windows that keep the mixture's shares.

LLaVA's ``group_by_modality_length`` (``LengthGroupedSampler`` in llava/train/llava_trainer.py) gives every global batch
samples with images or samples without, and sorts them by length inside it. It shuffles the whole data set, so how often
a source comes in a stretch of training is left to chance. Here the mixture decides which samples come in a window of
some global batches; only their order inside it changes, so after every window each part's count is the mixture's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from vlsafe.conversation import Conversation

Describe = Callable[[int], tuple[bool, int]]
"""Step -> whether its sample has an image, and how many words it has."""


class Grouping:
    """The order of steps, a pure function of seed, window and what the window's samples are.

    Args:
        describe: tells of a step's sample.
        batch: samples of a global batch: of one optimizer step, over all ranks and accumulated micro-batches.
        batches: global batches of a window.
    """

    def __init__(self, describe: Describe, batch: int, batches: int, seed: int) -> None:
        self._describe = describe
        self.batch = batch
        self.window = batch * batches
        self._seed = seed
        self._order = lru_cache(maxsize=2)(self._grouped)

    def at(self, place: int, first: int, samples: int) -> int:
        """The step whose sample comes at ``place`` of an epoch that holds steps ``first`` to ``first + samples``."""
        number, inside = divmod(place, self.window)
        begin = number * self.window
        return self._order(first + begin, min(self.window, samples - begin))[inside]

    def _grouped(self, begin: int, size: int) -> list[int]:
        told = {step: self._describe(step) for step in range(begin, begin + size)}
        kinds = [[step for step, (image, _) in told.items() if image == kind] for kind in (True, False)]
        whole: list[list[int]] = []
        rest: list[int] = []
        for steps in kinds:
            full = len(steps) - len(steps) % self.batch
            whole += _cut(steps[:full], self.batch)
            rest += steps[full:]
        left = _cut(rest, self.batch)
        last = [left.pop()] if left and len(left[-1]) < self.batch else []  # an epoch's last batch may not be full
        whole += left
        shuffled = [whole[place] for place in np.random.default_rng([self._seed, begin]).permutation(len(whole))]
        return [step for batch in [*shuffled, *last] for step in sorted(batch, key=lambda s: told[s], reverse=True)]


def described(conversation: Conversation) -> tuple[bool, int]:
    """Whether it has an image, and its words, which LLaVA sorts by too."""
    return bool(conversation.images), sum(len(turn.text.split()) for turn in conversation.turns)


def _cut(steps: Sequence[int], size: int) -> list[list[int]]:
    return [list(steps[begin : begin + size]) for begin in range(0, len(steps), size)]
