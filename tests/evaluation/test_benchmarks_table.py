"""Any table as a benchmark: formats, sides, pictures, and what is wrong said at once."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answering import answered
from PIL import Image

from vlsafe.data.images import open_image
from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.benchmarks.table import Columns, TableBenchmark, declared_table
from vlsafe.evaluation.records import append_jsonl, read_jsonl
from vlsafe.evaluation.scoring import directions
from vlsafe.fetch.paths import use_cache

ROWS = [{"n": 1, "ask": "How?", "kind": "bad", "pic": "a.png"}, {"n": 2, "ask": "Why?", "kind": "good", "pic": ""}]
COLUMNS = Columns(question="ask", id="n", side="kind", image="pic")
SIDES: dict[str, Any] = {"bad": "harm", "good": "benign"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[None]:
    use_cache(tmp_path / "cache")
    yield
    use_cache(None)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    match path.suffix:
        case ".csv":
            lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
        case ".tsv":
            lines = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
        case ".jsonl":
            lines = [json.dumps(row) for row in rows]
        case ".json":
            lines = [json.dumps(rows)]
        case _:
            pq.write_table(pa.Table.from_pylist(rows), path)
            return path
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_items(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"t{suffix}", ROWS)
    first, second = TableBenchmark(path, COLUMNS, "mine", sides=SIDES, pictures="pics").items()
    assert (first.id, first.side, first.scope, first.question) == ("mine/bad/1", "harm", "mine[bad]", "How?")
    assert first.image is not None
    assert (first.image.root, first.image.name, first.cluster) == (tmp_path / "pics", "a.png", "a.png")
    assert (second.side, second.image) == ("benign", None)


def test_an_object_of_nested_records(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps({"k1": {"ask": {"text": "How?"}, "facts": {"kind": "x"}}}))
    columns = Columns(question="ask.text", id="$key", group="facts.kind")
    (item,) = TableBenchmark(tmp_path / "t.json", columns, "mine", side="harm").items()
    assert (item.id, item.question, item.group) == ("mine/k1", "How?", "x")


def test_pictures_as_bytes_and_as_base64(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((30, 20), 50).save(buffer, "PNG")
    data = buffer.getvalue()
    parquet = write(tmp_path / "t.parquet", [{"ask": "How?", "pic": {"bytes": data, "path": "x.png"}}])
    encoded = write(tmp_path / "t.tsv", [{"ask": "How?", "pic": base64.b64encode(data).decode()}])
    for path in (parquet, encoded):
        (item,) = TableBenchmark(path, Columns("ask", image="pic"), "mine", side="harm").items()
        assert item.image is not None
        assert open_image(item.image).size == (30, 20)
    broken = write(tmp_path / "b.tsv", [{"ask": "How?", "pic": "*" * 400}])
    with pytest.raises(DataError, match=r"record 1: a picture of 400 characters is not base64"):
        TableBenchmark(broken, Columns("ask", image="pic"), "mine", side="harm").items()


def test_settings_stand_in_the_name_and_in_the_prompt(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ROWS)
    (item,) = TableBenchmark(
        path,
        Columns("ask"),
        "mine",
        side="harm",
        where={"kind": "bad"},
        template="Please: {question}",
        system="Be safe.",
        variant="polite",
        max_new_tokens=7,
    ).items()
    assert (item.scope, item.question, item.system, item.max_new_tokens) == (
        "mine[polite]",
        "Please: How?",
        "Be safe.",
        7,
    )
    append_jsonl(tmp_path / "items.jsonl", [item])
    assert read_jsonl(tmp_path / "items.jsonl", type(item)) == [item]


def test_both_sides_have_their_metrics_and_directions(tmp_path: Path) -> None:
    items = TableBenchmark(write(tmp_path / "t.csv", ROWS), COLUMNS, "mine", sides=SIDES).items()
    metrics = TableBenchmark.metrics(items, *answered(items, {}, {"mine/good/2": "refuse"}))
    assert {name: metric.value for name, metric in metrics.items()} == {
        "mine[bad]/asr": 100,
        "mine[bad]/refusal": 0,
        "mine[good]/over_refusal": 100,
    }
    sides = {name: row["side"] for name, row in directions(items, list(metrics), {"mine": TableBenchmark}, "j").items()}
    assert sides == {"mine[bad]/asr": "harm", "mine[bad]/refusal": "harm", "mine[good]/over_refusal": "benign"}


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [ROWS[0] | {"kind": "ugly"}, ROWS[1] | {"kind": "odd"}])
    with pytest.raises(DataError) as caught:
        TableBenchmark(path, COLUMNS, "mine", sides=SIDES).items()
    assert [f"record {n}: kind is" in problem for n, problem in enumerate(caught.value.problems, 1)] == [True, True]
    with pytest.raises(DataError, match="no column 'words'; it has n, ask, kind, pic"):
        TableBenchmark(path, Columns("words"), "mine", side="harm").items()
    with pytest.raises(DataError, match=r"cannot read \.xlsx"):
        (tmp_path / "t.xlsx").touch()
        TableBenchmark(tmp_path / "t.xlsx", Columns("ask"), "mine", side="harm").items()


def test_impossible_declarations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give either `side` or `columns\.side`"):
        TableBenchmark("x.csv", COLUMNS, "mine", side="harm")
    with pytest.raises(ConfigError, match="`sides` must map"):
        TableBenchmark("x.csv", COLUMNS, "mine", sides={"bad": "evil"})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"has no \{question\} in it"):
        TableBenchmark("x.csv", Columns("ask"), "mine", side="harm", template="hello")


def test_a_yaml_declares_one(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", ROWS)
    declared = tmp_path / "mine.yaml"
    declared.write_text(
        "name: mine\npath: t.csv\ncolumns: {question: ask, id: n, side: kind}\nsides: {bad: harm, good: benign}\n"
    )
    assert [item.id for item in declared_table(declared).items()] == ["mine/bad/1", "mine/good/2"]
    for broken in ("name: mine\npath: t.csv\ncolums: {question: ask}\n", "a: [1", "- 1", ""):
        declared.write_text(broken)
        with pytest.raises(ConfigError, match=r"mine\.yaml: not the declaration of a table"):
            declared_table(declared)
