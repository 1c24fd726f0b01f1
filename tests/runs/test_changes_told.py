"""What a run does not take as it stands in its data is counted in its report and shown by ``preview``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from vlsafe.__main__ import main


@pytest.fixture
def odd(config: Path, tmp_path: Path) -> Path:
    """The config with one part of three records, each odd in its way, and a fourth that is left out."""
    human, gpt = (lambda text, who=who: {"from": who, "value": text} for who in ("human", "gpt"))
    rows = [
        [gpt("hello"), human("hi?"), gpt("yes")],
        [human("an <image>?"), gpt("no <image>")],
        [human("a?"), gpt("b"), human("?"), gpt("z" * 80)],
        [human("a?"), gpt("b"), human("c?")],
    ]
    file = tmp_path / "odd.json"
    file.write_text(json.dumps([{"id": f"r{n}", "conversations": said} for n, said in enumerate(rows)]))
    content = yaml.safe_load(config.read_text())
    data = content["data"]["init_args"]
    for key in ("samples", "validation", "prompts"):
        del data[key]
    data |= {"parts": {"odd": {"source": f"llava:{file}", "repeat": 1}}, "max_length": 44, "too_long": "truncate"}
    data["batch_size"] = 1
    content["evaluation"]["benchmarks"][0]["init_args"]["limit"] = 1
    config.write_text(yaml.safe_dump(content))
    return config


READ = {
    "the first turn, an answer to no question, is dropped": 1,
    "<image> is text, not the place of a picture": 1,
    "left out: it ends with a question": 1,
}


def test_the_report_counts_records_and_samples(odd: Path, tmp_path: Path) -> None:
    assert main(["fit", "--config", str(odd)]) == 0
    data = json.loads((tmp_path / "run" / "report.json").read_text())["data"]
    (part,) = data["parts"]
    assert part["samples"] == 3 and part["changes"] == READ
    changes = data["loading"]["changes"]
    # 24 tokens with the first answer, 20 that open the second one, whose 80 letters and two more are cut off
    assert changes == {
        "control tokens in text, broken up": 2,
        "samples cut at max_length": 1,
        "tokens cut off": 82,
        "whole answers cut off": 1,
    }
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Not taken as it stands. odd: " in page and "left out: it ends with a question (1)" in page
    assert "samples of the first process: " in page and "samples cut at max_length (1)" in page


def test_preview_shows_them(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["preview", "--config", str(odd), "-n", "3"]) == 0
    out = capsys.readouterr().out
    for kind in READ:
        assert f"odd, not taken as it stands: {kind}: 1" in out
    for line in ("<image> is text, not the place of a picture", "samples cut at max_length: 1"):
        assert f"not taken as it stands: {line}" in out.splitlines()
