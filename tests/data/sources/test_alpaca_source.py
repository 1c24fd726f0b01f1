"""Text instructions in Alpaca's format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlsafe.conversation import Turn, assistant, user
from vlsafe.data.sources.alpaca import AlpacaSource
from vlsafe.errors import DataError

DEMO = Path(__file__).parents[3].parent / "shared" / "data" / "alpaca_en_demo" / "alpaca_en_demo.json"


def test_golden_conversations(write: Callable) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3"},
        {"id": "named", "instruction": "Say hello.", "input": "", "output": "Hello."},
        {
            "instruction": "Go on.",
            "output": "So.",
            "system": "Be brief.",
            "history": [["Who?", "Me."], ["Me?", "You."]],
        },
        {"instruction": "Nulls.", "input": None, "output": "Fine.", "system": None, "history": None},
    ]
    source = AlpacaSource(write("file.json", rows))
    assert [each.id for each in source] == ["0", "named", "2", "3"]
    assert {each.source for each in source} == {"alpaca"}
    assert [each.turns for each in source] == [
        (user("Add.\n1 and 2"), assistant("3")),
        (user("Say hello."), assistant("Hello.")),
        (
            Turn("system", ("Be brief.",)),
            *(user("Who?"), assistant("Me."), user("Me?"), assistant("You.")),
            *(user("Go on."), assistant("So.")),
        ),
        (user("Nulls."), assistant("Fine.")),
    ]


BAD: dict[str, Any] = {
    "'instruction' is missing (found: output)": {"output": "3"},
    "'output' is missing": {"instruction": "Add."},
    "'output' is empty; it must hold text": {"instruction": "Add.", "output": ""},
    "'instruction' is empty": {"instruction": " ", "output": "3"},
    "'input' must be text, not a list": {"instruction": "Add.", "input": [1], "output": "3"},
    "'history' must be a list, not text": {"instruction": "Add.", "output": "3", "history": "Who?"},
    "'history'[0] must be a list of a question and an answer": {"instruction": "A", "output": "3", "history": [["?"]]},
    "'history'[0] is empty": {"instruction": "Add.", "output": "3", "history": [["Who?", ""]]},
    "must be a JSON object, not null": None,
}


@pytest.mark.parametrize("words", BAD)
def test_malformed_records_are_named_with_the_reason(write: Callable, words: str) -> None:
    path = write("file.json", [{"instruction": "Add.", "output": "3"}, BAD[words]])
    with pytest.raises(DataError) as caught:
        AlpacaSource(path)
    assert f"{path}[1]" in str(caught.value)
    assert words in str(caught.value)


def test_a_published_file() -> None:
    if not DEMO.exists():
        pytest.skip(f"the published records are not at {DEMO}")
    source = AlpacaSource(DEMO)
    assert len(source) == 999
    assert source[0].turns[0] == user("Describe a process of making crepes.")
    assert all(len(each.turns) == 2 for each in source)
