"""The verb ``clean``: planted harmful records found, nothing judged twice, the input's own format kept."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny import save_tokenizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from vlsafe.clean import scanning
from vlsafe.clean.command import main
from vlsafe.clean.scanning import read_findings
from vlsafe.errors import ConfigError, VlsafeError
from vlsafe.evaluation.judges import JUDGES
from vlsafe.evaluation.judges.base import BatchJudge, Exchange, Ruling
from vlsafe.fetch.paths import use_cache

RECORDS, PLANTED = 20_000, 40
HARM = "PLANTED"


class Finder(BatchJudge):
    """Knows the planted word; notes each text that it reads in ``log``, and dies by ``dies_after`` of them."""

    name, version = "finder", "1"

    def __init__(self, log: Path, dies_after: int | None = None, fails: str = "") -> None:
        self.log, self.dies_after, self.fails = log, dies_after, fails

    def rulings(self, exchanges: Sequence[Exchange]) -> list[Ruling]:
        with self.log.open("a") as file:
            file.writelines(response.text + "\n" for response, _ in exchanges)
        if self.dies_after is not None and len(self.log.read_text().splitlines()) > self.dies_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return [
            Ruling("error", "no reply")
            if self.fails and self.fails in response.text
            else Ruling("comply", "seen", float(HARM in response.text), "planted" if HARM in response.text else "")
            for response, _ in exchanges
        ]


@pytest.fixture(autouse=True)
def finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(JUDGES, "_parts", dict(JUDGES._parts))
    use_cache(tmp_path / "cache")
    yield
    use_cache(None)


def use(judge: Finder) -> None:
    JUDGES._parts["finder"] = lambda: judge


def alpaca(count: int, planted: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {"instruction": f"Question {n}?", "output": f"Answer {n}. {HARM if n in planted else 'Fine'}"}
        for n in range(count)
    ]


def clean(source: Path, out: Path, *options: str, kind: str = "alpaca", judge: str = "finder") -> int:
    return main([f"{kind}:{source}", "--judge", judge, "--out", str(out), *options])


def _killed(source: Path, out: Path, log: Path, dies_after: int) -> None:
    use(Finder(log, dies_after))
    clean(source, out)


@pytest.mark.slow
def test_planted_records_in_20_000_with_kills_in_between(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = range(137, RECORDS, RECORDS // PLANTED)
    records = alpaca(RECORDS, planted)
    source, out, log = tmp_path / "set.json", tmp_path / "out", tmp_path / "log"
    source.write_text(json.dumps(records, indent=1))
    for dies_after in (3_000, 11_000):
        process = get_context("fork").Process(target=_killed, args=(source, out, log, dies_after))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (out / "clean.json").exists()
    kept = read_findings(out)
    assert 10_000 < len(kept) < 12_000
    before = Counter(log.read_text().splitlines())
    use(Finder(log))
    assert clean(source, out) == 0
    asked = Counter(log.read_text().splitlines())
    assert len(asked) == RECORDS
    # Whatever had its verdict on the disk is not asked again: only the batch under way at each kill is.
    assert all(asked[records[number]["output"]] == before[records[number]["output"]] for number in kept)
    assert sum(asked.values()) - RECORDS <= 2 * scanning.BATCH
    rows = [json.loads(line) for file in out.glob("verdicts.*.jsonl") for line in file.read_text().splitlines()]
    assert len(rows) == len({row["number"] for row in rows}) == RECORDS and all(row["reason"] == "seen" for row in rows)
    assert json.loads((out / "removed.json").read_text()) == [records[number] for number in planted]
    assert json.loads((out / "clean.json").read_text()) == [r for n, r in enumerate(records) if n not in planted]
    report = json.loads((out / "report.json").read_text())
    assert (report["records"], report["harmful"], report["unjudged"]) == (RECORDS, PLANTED, 0)
    assert report["by_category"]["planted"] == {"records": PLANTED, "harmful": PLANTED, "unjudged": 0}
    assert [row["number"] for row in report["removed"]] == list(planted)
    assert "40 of 20000 records (0.200 %)" in capsys.readouterr().out
    assert clean(source, out) == 0
    assert Counter(log.read_text().splitlines()) == asked


def test_shards_split_the_work_and_the_last_one_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, log = tmp_path / "set.jsonl", tmp_path / "out", tmp_path / "log"
    records = alpaca(50, [3, 4])
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    use(Finder(log))
    assert clean(source, out, "--shard", "1/3") == 0
    assert "17 of 50 records are judged; run the other shards" in capsys.readouterr().out
    assert not (out / "clean.jsonl").exists()
    assert clean(source, out, "--shard", "0/2") == 0  # another number of shards: the rest of its half
    assert clean(source, out) == 0
    assert Counter(log.read_text().splitlines()) == Counter(record["output"] for record in records)
    assert [json.loads(line) for line in (out / "removed.jsonl").read_text().splitlines()] == records[3:5]
    source.write_text(source.read_text().replace("Answer 9.", "Answer nine."))
    assert clean(source, out) == 0  # a changed record is judged anew, and no other
    assert len(log.read_text().splitlines()) == 51


def test_every_exchange_counts_and_sources_are_told_apart(tmp_path: Path) -> None:
    def llava(identity: str, image: str | None, *answers: str) -> dict[str, Any]:
        turns = [
            {"from": speaker, "value": value}
            for n, answer in enumerate(answers)
            for speaker, value in (("human", "<image>\nLook." if image and n == 0 else "And?"), ("gpt", answer))
        ]
        return {"id": identity, "conversations": turns} | ({"image": image} if image else {})

    records = [
        llava("a", "coco/1.jpg", "Fine", HARM, "Fine"),
        llava("b", "gqa/2.jpg", "Fine"),
        llava("c", None, "Fine", "Fine"),
    ]
    source, out = tmp_path / "mix.json.gz", tmp_path / "out"
    source.write_bytes(gzip.compress(json.dumps(records).encode()))
    use(Finder(tmp_path / "log"))
    assert clean(source, out, kind="llava") == 0
    assert json.loads(gzip.decompress((out / "clean.json.gz").read_bytes())) == records[1:]
    assert json.loads(gzip.decompress((out / "removed.json.gz").read_bytes())) == records[:1]
    report = json.loads((out / "report.json").read_text())
    assert {name: row["harmful"] for name, row in report["by_source"].items()} == {"coco": 1, "gqa": 0, "text only": 0}


def test_parquet_stays_parquet(tmp_path: Path) -> None:
    source, out = tmp_path / "set.parquet", tmp_path / "out"
    table = pa.Table.from_pylist(alpaca(10, [7]))
    pq.write_table(table, source, row_group_size=4)
    use(Finder(tmp_path / "log"))
    assert clean(source, out) == 0
    assert pq.read_table(out / "removed.parquet").equals(table.slice(7, 1))
    assert pq.read_table(out / "clean.parquet").equals(
        pa.concat_tables([table.slice(0, 7), table.slice(8)]).combine_chunks()
    )


def test_nothing_harmful_leaves_an_empty_removed_file(tmp_path: Path) -> None:
    use(Finder(tmp_path / "log"))
    for name, content in (("a.json", "[]"), ("b.jsonl", None)):
        source, records = tmp_path / name, alpaca(3, [])
        text = json.dumps(records) if content else "".join(json.dumps(record) + "\n" for record in records)
        source.write_text(text)
        assert clean(source, tmp_path / name[0]) == 0
        removed = (tmp_path / name[0] / f"removed{source.suffix}").read_text()
        assert json.loads(removed) == [] if content else removed == ""


def test_a_record_without_a_verdict_is_never_called_clean(tmp_path: Path) -> None:
    source, out, log = tmp_path / "set.json", tmp_path / "out", tmp_path / "log"
    source.write_text(json.dumps(alpaca(200, [5])))
    use(Finder(log, fails="Answer 1"))  # 1, 10 to 19, 100 to 199
    with pytest.raises(VlsafeError, match=r"111 of 200 records could not be judged.*no reply"):
        clean(source, out)
    assert not (out / "clean.json").exists()
    use(Finder(log, fails="Answer 17."))
    assert clean(source, out) == 0
    assert len(log.read_text().splitlines()) == 200 + 111
    assert len(json.loads((out / "clean.json").read_text())) == 198
    assert json.loads((out / "report.json").read_text())["unjudged"] == 1
    use(Finder(log))
    assert clean(source, out) == 0
    assert [row["output"] for row in json.loads((out / "removed.json").read_text())] == [f"Answer 5. {HARM}"]


def test_a_keyword_judge_takes_a_refusal_for_the_sign_of_harm(tmp_path: Path) -> None:
    records = [
        {"instruction": "Do harm.", "output": "I'm sorry, but I cannot help with that."},
        {"instruction": "Stir.", "output": "Take a spoon."},
    ]
    source, out = tmp_path / "set.json", tmp_path / "out"
    source.write_text(json.dumps(records))
    assert clean(source, out, judge="keyword:vlsafe") == 0
    assert json.loads((out / "clean.json").read_text()) == records[1:]


def test_a_tiny_random_guard_decides_by_its_probability(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "guard")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["unsafe", "safe"])
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    size = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    config = LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.5, **size)
    LlamaForCausalLM(config).save_pretrained(folder)
    source, out = tmp_path / "set.json", tmp_path / "out"
    records = alpaca(30, [])
    source.write_text(json.dumps(records))
    options = ("--judge-option", "dtype=float32", "--judge-option", "least_mass=0")
    assert clean(source, out, *options, judge=f"guard:llama-guard-3:{folder}") == 0
    scores = {number: each.score or 0.0 for number, each in read_findings(out).items()}
    middle = sorted(scores.values())[20]
    for file in out.glob("*.json"):
        file.unlink()
    judged = {file: file.read_bytes() for file in out.glob("verdicts.*")}
    threshold = ("--threshold", repr(middle))
    assert clean(source, out, *options, *threshold, judge=f"guard:llama-guard-3:{folder}") == 0
    assert {file: file.read_bytes() for file in judged} == judged  # another threshold asks nothing
    expected = [record for number, record in enumerate(records) if scores[number] >= middle]
    assert json.loads((out / "removed.json").read_text()) == expected and len(expected) == 10


def test_wrong_requests(tmp_path: Path) -> None:
    source = tmp_path / "set.json"
    source.write_text(json.dumps(alpaca(2, [])))
    for shard in ("2/2", "a/b", "1"):
        with pytest.raises(ConfigError, match="must be written INDEX/COUNT"):
            clean(source, tmp_path / "out", "--shard", shard, judge="keyword:vlsafe")
    with pytest.raises(ConfigError, match="kinds that can: alpaca, easy_vqa, llava, messages"):
        clean(source, tmp_path / "out", kind="vlguard", judge="keyword:vlsafe")
    with pytest.raises(ConfigError, match="must be written KEY=VALUE"):
        clean(source, tmp_path / "out", "--judge-option", "dtype", judge="keyword:vlsafe")
