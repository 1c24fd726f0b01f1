"""Records that LLaVA's own trainer accepts: read as it reads them, counted, listed, and never the end of a run.

What it does with each was seen by running its ``preprocess_multimodal`` and ``preprocess_v1`` on these very records.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlsafe.conversation import ImageRef, Turn, assistant, user
from vlsafe.data.index import build
from vlsafe.data.sources import llava
from vlsafe.data.sources.llava import LLaVASource
from vlsafe.errors import DataError
from vlsafe.fetch.paths import use_cache


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def record(identity: str, *messages: dict[str, str], image: str | None = None) -> dict[str, Any]:
    return {"id": identity, "conversations": list(messages)} | ({"image": image} if image else {})


ASKED, ANSWERED = human("Why?"), gpt("So.")
TRAINED = (user("Why?"), assistant("So."))
KEPT: dict[str, tuple[dict[str, Any], tuple[Turn, ...], str | None]] = {
    "as it stands": (record("r", ASKED, ANSWERED), TRAINED, None),
    "gpt first": (record("r", gpt("Hello."), ASKED, ANSWERED), TRAINED, llava.ANSWER_FIRST),
    "gpt first, with a picture": (
        record("r", gpt("Hello."), human("<image>\nWhy?"), ANSWERED, image="a.png"),
        (user(ImageRef(Path("."), "a.png"), "Why?"), assistant("So.")),
        llava.ANSWER_FIRST,
    ),
    "a placeholder in a question without picture": (
        record("r", human("What is <image> in HTML?"), ANSWERED),
        (user("What is <image> in HTML?"), assistant("So.")),
        llava.PLAIN_TEXT,
    ),
    "a later question that begins with one": (
        record("r", ASKED, ANSWERED, human("<image>?"), ANSWERED),
        (*TRAINED, user("<image>?"), assistant("So.")),
        llava.PLAIN_TEXT,
    ),
    "placeholders in answers": (
        record("r", human("<image>\nWhy?"), gpt("An <image>"), ASKED, gpt("<image>"), image="a.png"),
        (user(ImageRef(Path("."), "a.png"), "Why?"), assistant("An <image>"), user("Why?"), assistant("<image>")),
        llava.PLAIN_TEXT,
    ),
    "an empty answer before the last": (
        record("r", ASKED, gpt(""), ASKED, ANSWERED),
        (user("Why?"), assistant(""), *TRAINED),
        llava.NO_ANSWER,
    ),
    "an answer of white space before the last": (
        record("r", ASKED, gpt(" \n"), ASKED, ANSWERED),
        (user("Why?"), assistant(" \n"), *TRAINED),
        llava.NO_ANSWER,
    ),
    "a question of white space": (record("r", human(" \n"), ANSWERED), (user(" \n"), assistant("So.")), None),
}
LEFT_OUT: dict[str, tuple[dict[str, Any], str]] = {
    "human last": (record("r", ASKED, ANSWERED, ASKED), llava.UNFINISHED),
    "a question alone": (record("r", ASKED), llava.UNFINISHED),
    "an answer alone": (record("r", ANSWERED), llava.NO_QUESTION),
    "an empty first question": (record("r", human(""), ANSWERED, ASKED, ANSWERED), llava.EMPTY_QUESTION),
    "an empty later question": (record("r", ASKED, ANSWERED, human(""), ANSWERED), llava.EMPTY_QUESTION),
    "an empty last answer": (record("r", ASKED, ANSWERED, ASKED, gpt("")), llava.EMPTY_END),
    "a last answer of white space": (record("r", ASKED, gpt("\n")), llava.EMPTY_END),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_record_is_read_as_llava_reads_it(write: Callable, name: str) -> None:
    row, turns, change = KEPT[name]
    source = LLaVASource(write("file.json", [row]), images=".", check_images=False)
    assert source[0].turns == turns
    assert source[0].changes == ((change,) if change else ())
    assert source.changes == ({change: 1} if change else {})


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_record_of_which_llava_masks_everything_is_left_out(write: Callable, name: str) -> None:
    row, reason = LEFT_OUT[name]
    source = LLaVASource(write("file.json", [record("kept", ASKED, ANSWERED), row]))
    assert [each.id for each in source] == ["kept"]
    assert source.changes == {f"left out: {reason}": 1} and source.skipped == 0
    with pytest.raises(DataError, match=r"none\.json: every record was left out; see the log for why"):
        LLaVASource(write("none.json", [row]))


@pytest.mark.parametrize("indexed", [False, True])
def test_all_of_them_are_counted_and_listed_whenever_the_file_is_opened(
    write: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, indexed: bool
) -> None:
    monkeypatch.setattr(build, "LARGE", 1 if indexed else 2**40)
    use_cache(tmp_path / "cache")
    try:
        rows = [row for row, *_ in [*KEPT.values(), *LEFT_OUT.values()]]
        path = write("file.json", rows)
        for _ in range(2):  # the second time an index is there already
            caplog.clear()
            source = LLaVASource(path, images=".", check_images=False)
            assert [each.turns for each in source] == [turns for _, turns, _ in KEPT.values()]
            assert source.changes == {
                llava.ANSWER_FIRST: 2,
                llava.PLAIN_TEXT: 3,
                llava.NO_ANSWER: 2,
                f"left out: {llava.UNFINISHED}": 2,
                f"left out: {llava.NO_QUESTION}": 1,
                f"left out: {llava.EMPTY_QUESTION}": 2,
                f"left out: {llava.EMPTY_END}": 2,
            }
            (told,) = [entry.message for entry in caplog.records if "not taken as they stand" in entry.message]
            assert f"{llava.PLAIN_TEXT}: 3" in told and f"left out: {llava.UNFINISHED}: 2" in told
            (file,) = (tmp_path / "cache" / "changed_records").iterdir()
            lines = file.read_text().splitlines()
            assert len(lines) == 14 and str(file) in told
            assert f"{path}[{len(KEPT)}] (id 'r'): left out: {llava.UNFINISHED}" in lines
    finally:
        use_cache(None)


@pytest.mark.parametrize("question", ["<image>\nWhat is it?", "What is it?\n<image>", "<image>"])
def test_a_question_that_shows_a_picture_that_its_record_does_not_name_is_refused(
    write: Callable, question: str
) -> None:
    """LLaVA would train it blind; a record with its picture under another key looks just so."""
    path = write("file.json", [record("r", human(question), ANSWERED)])
    with pytest.raises(DataError, match="1 <image> placeholders in the human messages, but 0 pictures"):
        LLaVASource(path)
