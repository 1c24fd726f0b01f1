"""Suites: the shipped ones hold what they promise, and what is missing or wrong is told together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from vlsafe.errors import ConfigError, DataError, MissingDataError
from vlsafe.evaluation.suites import made, opened, suite_named, suite_names
from vlsafe.fetch.catalogue import CATALOGUE
from vlsafe.fetch.paths import use_cache


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[None]:
    use_cache(tmp_path / "cache")
    yield
    use_cache(None)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", suite_names())
def test_every_row_of_a_shipped_suite_can_be_made_of_assets_of_the_catalogue(name: str) -> None:
    rows = suite_named(name).rows
    assert len({row.get("name", row["benchmark"]) for row in rows}) == len(rows)
    for row in rows:
        made(row)
        for value in row.values():
            if isinstance(value, str) and value.startswith("cache:"):
                assert value.removeprefix("cache:").partition("/")[0] in CATALOGUE


def test_the_papers_suite_is_the_papers() -> None:
    asked = {row["benchmark"] for row in suite_named("paper").rows}
    assert asked == set(["vlguard", "advbench", "xstest", "figstep", "scienceqa", "vizwiz", "mmlu", "alpaca_eval"])
    assert suite_named("paper").max_new_tokens == 256


def test_all_that_is_missing_is_told_at_once_with_how_to_get_it() -> None:
    with pytest.raises(MissingDataError) as caught:
        opened(suite_named("paper"), None, None, skip_missing=False)
    words = str(caught.value)
    for row in suite_named("paper").rows:
        assert f"{row.get('name', row['benchmark'])}: " in words
    assert "fetch vlguard " in words and "fetch vizwiz " in words and "--skip-missing" in words
    with pytest.raises(MissingDataError, match="every benchmark of the suite is missing"):
        opened(suite_named("paper"), None, None, skip_missing=True)


def test_files_that_are_there_are_read_from_the_data_folder_and_the_rest_skipped(shared_data: Path) -> None:
    benchmarks, skipped = opened(suite_named("paper"), shared_data, None, skip_missing=True)
    counts = {each.name: Counter(item.variant for item in each.items()) for each in benchmarks}
    assert sorted(counts) == ["advbench", "xstest"]
    assert set(counts["advbench"].values()) == {520} and len(counts["advbench"]) == 6
    assert counts["xstest"]["safe"] == counts["xstest"]["safe,opening=swapped"] == 250
    assert len(counts["xstest"]) == 8
    told = {line.partition(":")[0] for line in skipped}
    assert told == {"vlguard", "figstep", "scienceqa", "vizwiz", "mmlu", "mmlu_written", "alpaca_eval"}


def test_a_suite_of_ones_own_is_read_relative_to_its_file(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", "id,prompt,type,label\n1,How?,t,safe\n2,Why?,t,unsafe\n")
    text = '[[benchmarks]]\nbenchmark = "xstest"\nname = "mine"\npath = "x.csv"\nprobes = ["image=blank"]\n'
    suite = suite_named(write(tmp_path / "mine.toml", f"max_new_tokens = 7\n{text}"))
    (benchmark,), skipped = opened(suite, None, None, skip_missing=False)
    assert (suite.max_new_tokens, skipped) == (7, [])
    assert [item.scope for item in benchmark.items()] == [
        *("mine[safe]", "mine[unsafe]"),
        *("mine[safe,image=blank]", "mine[unsafe,image=blank]"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("benchmarks = 3", "must hold"),
        ("[[benchmarks]]\npath = 'x'", "must hold"),
        ("wrong = 1\n[[benchmarks]]\nbenchmark = 'xstest'", "it knows no wrong"),
        ("[[benchmarks", "not TOML"),
        ("[[benchmarks]]\nbenchmark = 'xtest'\npath = 'x'", "unknown benchmark 'xtest'.*Did you mean 'xstest'"),
        ("[[benchmarks]]\nbenchmark = 'xstest'\npath = 'x'\nsufixes = []", "not sufixes"),
        ("[[benchmarks]]\nbenchmark = 'xstest'\npath = 'x'\nprobes = ['image=red']", "unknown probe 'image=red'"),
    ],
)
def test_a_wrong_suite_is_refused_in_words(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        opened(suite_named(write(tmp_path / "s.toml", text)), None, None, skip_missing=True)


def test_broken_data_is_no_missing_data(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", "id,prompt\n1,How?\n")
    suite = suite_named(write(tmp_path / "s.toml", '[[benchmarks]]\nbenchmark = "xstest"\npath = "x.csv"\n'))
    with pytest.raises(DataError, match=r"xstest: .*no column 'type'") as caught:
        opened(suite, None, None, skip_missing=True)
    assert not isinstance(caught.value, MissingDataError)
    with pytest.raises(ConfigError, match=r"no suite 'quik': neither a file nor one of paper, quick, text"):
        suite_named("quik")
