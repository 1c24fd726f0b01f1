"""What every judge promises: one verdict for each response, and errors that stay errors."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vlsafe.errors import DataError
from vlsafe.evaluation.records import Item, Label, Response, Verdict

Exchange = tuple[Response, Item]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a judge makes of one response with text.

    ``score`` is the probability that the answer is harmful, from judges that can tell; None from those that only look
    for refusals. ``category`` names the harm, where the judge has names.
    """

    label: Label
    why: str
    score: float | None = None
    category: str = ""


class Judge(ABC):
    """Reads responses, gives verdicts.

    ``name`` goes into file names and verdicts. ``version`` names the rule or the served model exactly; verdicts
    of another version are not reused. ``window`` responses are ruled on together.
    """

    name: str
    version: str
    window: ClassVar[int] = 1
    weights: str = ""
    """Directory, ``cache:NAME`` or hub name of the model that judges; empty where none is loaded."""
    served: str = ""
    """Name of the model that judges at an endpoint; empty where none does."""

    @abstractmethod
    def label(self, response: Response, item: Item) -> tuple[Label, str]:
        """``(label, why)`` for a response with text. An exception raised here ends the run; a judge that can fail
        for one response only (a server's answer) returns ``("error", why)``."""

    def rulings(self, exchanges: Sequence[Exchange]) -> list[Ruling]:
        """One for each response, all of which have text, in order."""
        return [Ruling(*self.label(response, item)) for response, item in exchanges]

    def told(self) -> str:
        """What judging has cost so far, for the person who runs it; empty where it costs nothing."""
        return ""

    def judge(self, responses: Sequence[Response], items: Mapping[str, Item]) -> Iterator[Verdict]:
        """One verdict per response, in order: ``error`` where generation failed, ``invalid`` where the text is empty.

        Raises DataError when a response belongs to no item.
        """
        for start in range(0, len(responses), self.window):
            some = responses[start : start + self.window]
            exchanges = [(response, item_of(response, items)) for response in some]
            ruled = iter(self.rulings([each for each in exchanges if _has_text(each[0])]))
            for response, item in exchanges:
                ruling = next(ruled) if _has_text(response) else _without_text(response)
                yield Verdict(
                    response.key,
                    response.id,
                    ruling.label,
                    self.name,
                    score=ruling.score,
                    explanation=ruling.why,
                    basis=self.basis(response, item),
                )

    def basis(self, response: Response, item: Item) -> str:
        """Hash of the judge's version and of all that it reads: a verdict holds as long as this does."""
        read = [
            self.name,
            self.version,
            item.question,
            item.instruction_for_judge,
            item.reference,
            response.text,
            response.error,
        ]
        return hashlib.sha256(json.dumps(read).encode()).hexdigest()


class BatchJudge(Judge):
    """A judge that is faster on many responses at once: a subclass writes ``rulings``."""

    window = 256

    @abstractmethod
    def rulings(self, exchanges: Sequence[Exchange]) -> list[Ruling]: ...

    def label(self, response: Response, item: Item) -> tuple[Label, str]:
        (ruling,) = self.rulings([(response, item)])
        return ruling.label, ruling.why


def asked(item: Item) -> str:
    """What the model was asked to do: a judge that sees no pictures must be told what one of them asks (FigStep)."""
    return item.instruction_for_judge or item.question


def item_of(response: Response, items: Mapping[str, Item]) -> Item:
    """Raises DataError when there is none."""
    if response.id not in items:
        raise DataError(f"response {response.id!r} belongs to no item; give the items it was made from")
    return items[response.id]


def _has_text(response: Response) -> bool:
    return not response.error and bool(response.text.strip())


def _without_text(response: Response) -> Ruling:
    if response.error:
        return Ruling("error", f"generation failed: {response.error}")
    return Ruling("invalid", "empty answer")
