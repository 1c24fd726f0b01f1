"""Alpaca's format: text instructions, each with an optional input and an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlsafe.conversation import Conversation, Turn, assistant, user
from vlsafe.data.problems import Policy
from vlsafe.data.sources.base import RecordSource
from vlsafe.data.sources.fields import Fields


class AlpacaSource(RecordSource):
    """``instruction``, ``input`` (optional), ``output``, with LLaMA-Factory's optional ``system`` and ``history``.

    A JSON array or JSON Lines, also gzipped, or Parquet. The question is the instruction and, on the next
    line, the input. ``history`` lists earlier ``[question, answer]`` pairs. Raises as RecordSource.
    """

    def __init__(self, path: Path | str, name: str = "alpaca", on_bad_record: Policy = "error") -> None:
        super().__init__(path, name, False, on_bad_record)  # there are no pictures to be checked

    def convert(self, row: Any, index: int) -> Conversation:
        fields = Fields(row)
        identity = fields.identity(index)
        instruction, extra = fields.text("instruction"), fields.text("input", optional=True)
        system, answer = fields.text("system", optional=True), fields.text("output")
        turns = [Turn("system", (system,))] if system.strip() else []
        turns += _history(fields)
        turns += [user(f"{instruction}\n{extra}" if extra.strip() else instruction), assistant(answer)]
        fields.done()
        return Conversation(identity, self.name, tuple(turns))


def _history(fields: Fields) -> list[Turn]:
    turns: list[Turn] = []
    for place, pair in enumerate(fields.items("history", optional=True)):
        what = f"'history'[{place}]"
        if not isinstance(pair, list) or len(pair) != 2:
            fields.note(f"{what} must be a list of a question and an answer")
            continue
        question, answer = (fields.check_text(text, what) for text in pair)
        turns += [user(question), assistant(answer)]
    return turns
