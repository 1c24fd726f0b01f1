"""What every judge promises: one verdict for each response, and errors that stay errors."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from vlsafe.errors import DataError
from vlsafe.evaluation.records import Item, Label, Response, Verdict


class Judge(ABC):
    """Reads responses, gives verdicts.

    ``name`` goes into file names and verdicts. ``version`` names the rule or the served model exactly; verdicts
    of another version are not reused.
    """

    name: str
    version: str

    @abstractmethod
    def label(self, response: Response, item: Item) -> tuple[Label, str]:
        """``(label, why)`` for a response with text. An exception raised here ends the run; a judge that can fail
        for one response only (a server's answer) returns ``("error", why)``."""

    def judge(self, responses: Sequence[Response], items: Mapping[str, Item]) -> Iterator[Verdict]:
        """One verdict per response, in order: ``error`` where generation failed, ``invalid`` where the text is empty.

        Raises DataError when a response belongs to no item.
        """
        for response in responses:
            item = item_of(response, items)
            label: Label
            if response.error:
                label, why = "error", f"generation failed: {response.error}"
            elif not response.text.strip():
                label, why = "invalid", "empty answer"
            else:
                label, why = self.label(response, item)
            basis = self.basis(response, item)
            yield Verdict(response.key, response.id, label, self.name, explanation=why, basis=basis)

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


def item_of(response: Response, items: Mapping[str, Item]) -> Item:
    """Raises DataError when there is none."""
    if response.id not in items:
        raise DataError(f"response {response.id!r} belongs to no item; give the items it was made from")
    return items[response.id]
