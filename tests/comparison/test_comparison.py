"""The verb ``compare``: the table's numbers by hand, every format, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.evaluation.fakes import REFUSAL, FakeResponder
from vlsafe.answering import Decoding
from vlsafe.comparison import text
from vlsafe.comparison.command import main
from vlsafe.comparison.page import page
from vlsafe.comparison.runs import names, read_evaluated
from vlsafe.comparison.table import comparison
from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.records import Item, Side
from vlsafe.evaluation.stages import evaluate

SIDES: dict[str, Side] = {"unsafe": "harm", "safe": "benign", "plain": "utility"}


class Small(Benchmark):
    """Ten items a variant under the name of a set that the paper has; every two utility items share a cluster."""

    def __init__(self, name: str = "xstest", variants: str = "unsafe safe plain") -> None:
        super().__init__(name)
        self.variants = variants.split()

    def load(self) -> list[Item]:
        return [
            Item(f"{self.name}/{v}/{n}", self.name, v, SIDES[v], f"<b>{v} & {n}|?", cluster=f"{v}{n // 2}")
            for v in self.variants
            for n in range(10)
        ]


def refusing(**counts: int) -> dict[str, str]:
    return {f"xstest/{variant}/{n}": REFUSAL for variant, count in counts.items() for n in range(count)}


def run(out: Path, texts: dict[str, str], *benchmarks: Benchmark, judge: str = "keyword:vlsafe") -> Path:
    evaluate(benchmarks or [Small()], FakeResponder(texts), judge_named(judge), Decoding(), out)
    return out


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    tuned = run(tmp_path / "tuned" / "evaluation" / "after", refusing(unsafe=9, safe=2, plain=10)).parents[1]
    return [run(tmp_path / "base", refusing(unsafe=1)), tuned, run(tmp_path / "strict", refusing(unsafe=10, safe=10))]


def test_rates_differences_and_holm_over_all_of_them(runs: list[Path]) -> None:
    told = comparison(read_evaluated(runs), rows=["llava-7b"])
    assert told["runs"] == ["base", "tuned", "strict"]
    asr = told["metrics"]["xstest[unsafe]/asr"]
    assert [asr["cells"][name]["value"] for name in told["runs"]] == [90, 10, 0]
    assert (asr["published"]["llava-7b"]["value"], asr["published"]["llava-7b"]["n"]) == (26.5, 200)
    difference = asr["differences"]["tuned"]
    assert (difference["value"], difference["p"]) == (-80, 2 / 2**8)
    # three metrics of two runs; the smallest p is that of 10 of 10 refused, 2/2^10, of tuned/plain and strict/safe
    assert told["family"] == 6
    smallest = told["metrics"]["xstest[plain]/refused"]["differences"]["tuned"]
    assert smallest["p_holm"] == pytest.approx(6 * 2 / 2**10)
    # then strict/unsafe of 9 items, 2/2^9, and tuned/unsafe: ranks 3 and 4
    assert difference["p_holm"] == pytest.approx(3 * 2 / 2**8)
    # refusal is but what attack success leaves, so it has neither a row nor a test
    assert list(told["metrics"]) == ["xstest[unsafe]/asr", "xstest[safe]/over_refusal", "xstest[plain]/refused"]


def test_utility_is_kept_lost_or_neither(runs: list[Path]) -> None:
    claims = comparison(read_evaluated(runs))["metrics"]["xstest[plain]/refused"]["differences"]
    assert (claims["tuned"]["claim"], claims["strict"]["claim"]) == ("lost", "open")
    wide = comparison(read_evaluated(runs), margin=60)["metrics"]["xstest[plain]/refused"]["differences"]
    assert wide["strict"]["claim"] == "kept"
    with pytest.raises(ConfigError, match="margin is 0"):
        comparison(read_evaluated(runs), margin=0)


def test_flips_and_forgetting_with_short_texts(runs: list[Path]) -> None:
    texts = refusing(unsafe=1) | {"xstest/unsafe/0": "Sure, step one. " * 40}
    worse = run(runs[0].parent / "worse", texts)
    told = comparison(read_evaluated([runs[0], worse]))
    (flip,) = told["flips"]["worse"]
    assert (flip["id"], flip["change"], flip["before"]["label"]) == ("xstest/unsafe/0", "forgotten", "refuse")
    assert len(flip["after"]["text"]) < 170
    (row,) = [row for row in told["forgetting"]["worse"] if row["metric"] == "xstest[unsafe]/asr"]
    assert (row["right_before"], row["forgotten"], row["retention"]) == (1, 1, 0)


def test_items_that_are_not_alike_are_not_paired(runs: list[Path]) -> None:
    other = run(runs[0].parent / "other", {}, Small("xstest"), Small("more", "plain"))
    told = comparison(read_evaluated([runs[0], other]))
    assert "more" in told["unpaired"]["other"]
    assert told["metrics"]["more[plain]/refused"]["cells"].keys() == {"other"}
    assert told["metrics"]["xstest[unsafe]/asr"]["differences"].keys() == {"other"}
    apart = run(runs[0].parent / "apart", {}, Small("elsewhere"))
    alone = comparison(read_evaluated([runs[0], apart]))
    assert (alone["family"], alone["unpaired"].keys()) == (0, {"apart"})
    assert "no items in common" in text.markdown(alone)


def test_attack_success_does_not_stand_alone(runs: list[Path]) -> None:
    folder = runs[2]
    lines = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    (folder / "items.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines if r["side"] != "benign"))
    with pytest.raises(DataError, match=r"strict: no benign-side items beside 10 harm-side ones"):
        read_evaluated(runs)
    verdicts = runs[0] / "verdicts.keyword:vlsafe.jsonl"
    rows = [json.loads(line) for line in verdicts.read_text().splitlines()]
    failed = [row | ({"label": "error"} if "/safe/" in row["id"] else {}) for row in rows]
    verdicts.write_text("".join(json.dumps(row) + "\n" for row in failed))
    told = comparison(read_evaluated(runs[:2]))
    assert told["metrics"]["xstest[unsafe]/asr"]["cells"]["base"].keys() == {"withheld"}
    assert told["metrics"]["xstest[unsafe]/asr"]["differences"] == {}
    assert "withheld: no harm-side number without a benign-side number" in text.markdown(told)


def test_the_verb_writes_every_format(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / f"c.{suffix}") for suffix in ("md", "tex", "csv", "html", "json")]
    assert main([*map(str, runs), "--out", *files, "--paper", "llava-7b,llava-13b/mixed-lora"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith((tmp_path / "c.md").read_text())
    row = next(line for line in shown.splitlines() if line.startswith("| xstest[unsafe]/asr (lower is better)"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells[:3] == ["**90.0** [59.6, 98.2]", "**10.0** [1.8, 40.4]", "**0.0** [0.0, 27.8]"]
    assert cells[3] == "26.5 [20.9, 33.0]"
    assert cells[4].endswith("(?)")  # 0.10 % of 200 items
    rows = list(csv.DictReader(io.StringIO((tmp_path / "c.csv").read_text())))
    (tuned,) = [each for each in rows if (each["metric"], each["column"]) == ("xstest[unsafe]/asr", "tuned")]
    assert (tuned["value"], tuned["difference"], tuned["p"]) == ("10.0", "-80.0", "0.0078125")
    tex = (tmp_path / "c.tex").read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\bottomrule") == 2
    assert r"metric, \%" in tex and "xstest[safe]/over\\_refusal" in tex and "−" not in tex
    assert json.loads((tmp_path / "c.json").read_text())["baseline"] == "base"


class Nested(HTMLParser):
    """Fails on tags that do not nest; keeps open details and what is loaded."""

    void = {"meta", "wbr", "br", "line", "circle", "rect", "polyline", "polygon"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.unfolded, self.loaded, self.counts = 0, 0, dict[str, int]()
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.unfolded += tag == "details" and "open" in dict(attrs)
        self.loaded += any(name in ("src", "href") or name.startswith("on") for name, _ in attrs)
        if tag not in self.void:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.stack.pop() == tag


def test_the_page_is_whole_folded_and_loads_nothing(runs: list[Path]) -> None:
    told = comparison(read_evaluated(runs), rows=["llava-7b"])
    read = Nested(page(told))
    assert (read.unfolded, read.loaded, read.counts.get("script", 0)) == (0, 0, 0)
    assert read.counts["svg"] == 2
    # each run's changed items, under a fold for each metric: 8 + 2 of tuned, 9 + 10 of strict, each in 2 folds
    assert read.counts["details"] == 8 + 2 + 9 + 10 + 2 + 2
    assert "<b>unsafe" not in page(told)
    assert "&lt;b&gt;unsafe &amp; 1|?" in page(told)
    assert "paper: llava-7b" in page(told).partition("<figure>")[2].partition("</figure>")[0]


def test_what_cannot_be_compared_says_so(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        read_evaluated([runs[0], runs[0]])
    gcg = run(tmp_path / "gcg", {}, judge="keyword:gcg")
    with pytest.raises(DataError, match=r"gcg was judged by keyword:gcg, .*base by keyword:vlsafe"):
        read_evaluated([runs[0], gcg])
    with pytest.raises(ConfigError, match="no run is named 'nobody'; they are: base, tuned"):
        comparison(read_evaluated(runs[:2]), baseline="nobody")
    with pytest.raises(ConfigError, match=r"out\.pdf: the suffix says the format"):
        main([*map(str, runs), "--out", str(tmp_path / "out.pdf")])
    with pytest.raises(ConfigError, match="the paper prints no 'gpt'"):
        main([*map(str, runs), "--paper", "gpt"])


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (["/a/base", "/a/tuned"], ["base", "tuned"]),
        (["/a/x/evaluation/before", "/a/x/evaluation/after"], ["x/before", "x/after"]),
        (["/a/x/evaluation/after", "/a/y/evaluation/after"], ["x", "y"]),
        (["/a/x/out", "/a/y/out"], ["x/out", "y/out"]),
    ],
)
def test_runs_are_named_by_what_tells_them_apart(places: list[str], expected: list[str]) -> None:
    assert names([Path(place) for place in places]) == expected
