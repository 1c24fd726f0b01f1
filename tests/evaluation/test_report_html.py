from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from reports import after_only, report, side

from vlsafe.evaluation import plots
from vlsafe.evaluation.markup import safe
from vlsafe.evaluation.report import write_report
from vlsafe.evaluation.svg import ticks

VOID = {"meta", "wbr", "br", "line", "circle", "rect", "polyline", "polygon"}


class Page(HTMLParser):
    """Reads a page, fails on tags that do not nest, and keeps what the tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def html_of(whole: dict[str, Any], directory: Path) -> str:
    return write_report(whole, directory).read_text(encoding="utf-8")


@pytest.fixture
def html(tmp_path: Path) -> str:
    return html_of(report(), tmp_path)


def test_the_page_stands_alone(html: str) -> None:
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "form", "base"}
    assert not any(key in ("src", "href", "style") or key.startswith("on") for _, each in page.tags for key in each)
    assert not re.search(r"https?://|url\(|@import", html)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in page.tags
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_the_page_holds_what_the_run_did(html: str) -> None:
    words = Page(html).words
    for said in (
        "Attack success fell from 92 % to 2 % on average over 2 harm-side sets",
        "mean of 2 harm-side sets; lower is better",
        "96.0 [86.5, 98.9]",
        "4.0 [1.1, 13.5]",
        "−92.0 [−97.5, −78.0]",
        "▲ better",
        "≈ not clear",
        "134 515 008",
        "4 884 480 (3.6 %)",
        "0.0005",
        "900 (90.0 %)",
        "1 min 00 s",
        "75.0 %",
        "A note.",
        "2.13.0",
        "keyword:vlsafe",
        "by McNemar's exact test",
    ):
        assert said in words, said
    groups = [words.index(title) for title in ("Harm side:", "Benign side:", "Utility:")]
    assert groups == sorted(groups)


def test_harm_side_answers_are_folded_and_cut(html: str) -> None:
    page = Page(html)
    assert "LAST WORDS" not in html and "You should follow the sign." in html
    assert [("open" in each) for tag, each in page.tags if tag == "details"] == [False, True]


def test_model_output_cannot_become_markup_or_reorder_the_page(tmp_path: Path) -> None:
    evil = "</blockquote><script>alert(1)</script><img src=x onerror=alert(1)> \" ' & \u202e\u0000\ud800 end"
    whole = report(title=evil, judge=evil, notes=[evil], environment={evil: evil}, created=evil)
    for example in whole["examples"]:
        example.update(id=evil, scope=evil, question=evil, reference=evil)
        example["before"] = example["after"] = {"text": evil, "label": evil}
    for row, key in (
        (whole["trained"][0], "component"),
        (whole["data"]["parts"][0], "name"),
        (whole["phases"][0], "name"),
    ):
        row[key] = evil
    whole["curves"][f"loss/{evil}"] = [1.0, 2.0, 3.0, 4.0]
    for name in ("metrics", "directions"):
        whole[name] = {(f"{evil}/asr" if key == "advbench[text]/asr" else key): row for key, row in whole[name].items()}
    html = html_of(whole, tmp_path)
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert not any(key.startswith("on") for _, each in page.tags for key in each)
    assert not set(html) & {"\u202e", "\u0000", "\ud800"}
    assert page.words.count("alert(1)") > 20


def test_every_plot_has_a_title_and_every_table_its_roles(html: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(svgs) == 4 + 2 + 2 + 2 * 2 + 2  # strips, planes, curves, data bars, phase bars
    assert all(re.search(r'role="img"><title>[^<]+</title>', each) for each in svgs)
    tables = re.findall(r"<table.*?</table>", html, re.DOTALL)
    assert all('role="table"' in each and "<caption>" in each for each in tables)
    assert all(len(re.findall(r'<td(?! role="cell" data-label=)', each)) == 0 for each in tables)


def test_before_and_after_differ_in_shape_and_in_words(html: str) -> None:
    plane = next(each for each in re.findall(r"<svg.*?</svg>", html, re.DOTALL) if "plot plane" in each)
    assert 'class="mark before"' in plane and 'class="mark after"' in plane
    assert ">before 92\u00a0%</text>" in plane and ">after 2\u00a0%</text>" in plane
    style = html[: html.index("</style>")]
    assert ".plot .mark.before { fill: var(--card); }" in style and ".plot .mark.after { fill: var(--after); }" in style


def test_a_run_with_one_side_names_no_before(tmp_path: Path) -> None:
    page = Page(html_of({**after_only(), "phases": []}, tmp_path))
    assert "Rate, %" in page.words and "Difference" not in page.words and "before" not in page.words.lower()


def test_unscored_metrics_and_lost_items_are_said(tmp_path: Path) -> None:
    whole = report()
    whole["metrics"]["easy_vqa/accuracy"]["after"] = side(None, 0.0, 100.0, n=0, n_error=50)
    whole["metrics"]["vlguard[unsafe]/asr"]["after"]["n_error"] = 2
    words = Page(html_of(whole, tmp_path)).words
    assert "no scored item" in words and "0 before, 2 after" in words and "None" not in words


def test_a_trained_run_without_curves_says_so(tmp_path: Path) -> None:
    assert "No training loss was logged." in html_of(report(curves={}), tmp_path)


def test_holm_is_shown_where_given(tmp_path: Path) -> None:
    whole = report()
    whole["metrics"]["easy_vqa/accuracy"]["difference"]["p_holm"] = 0.0421
    assert "Holm 0.042" in Page(html_of(whole, tmp_path)).words


# --- plots ----------------------------------------------------------------------------------------------------------


def numbers(text: str, pattern: str) -> list[float]:
    return [float(each) for each in re.findall(pattern, text)]


def test_strip_places_values_on_its_scale() -> None:
    drawn = plots.strip("m", side(100.0, 90.0, 100.0), side(0.0, 0.0, 10.0))
    assert numbers(drawn, r'class="mark \w+" cx="([\d.]+)"') == [10.0, 190.0]


def test_tradeoff_labels_never_overlap_or_leave_the_frame() -> None:
    for before, after in [
        ((0, 100), (0, 99)),
        ((3, 1), (5, 0)),
        ((99, 50), (98, 52)),
        ((50, 50), (50, 50)),
        ((0, 0), (100, 100)),
    ]:
        drawn = plots.tradeoff([plots.Move("m", after, before)], "x", "y", right_is_better=False)
        levels = numbers(drawn, r'<text class="label \w+" x="[\d.]+" y="([\d.]+)"')
        assert len(levels) == 2 and abs(levels[0] - levels[1]) >= 17
        assert all(20 <= level <= 290 for level in levels)


def test_arrow_ends_short_of_the_disc() -> None:
    drawn = plots.tradeoff([plots.Move("m", (0.0, 0.0), (0.0, 100.0))], "x", "y", right_is_better=True)
    tip = re.search(r'class="head" points="([\d.]+),([\d.]+)', drawn)
    assert tip and float(tip[1]) == 46.0 and float(tip[2]) == 290.0 - 12.0


def test_curve_keeps_its_ends_when_thinned_and_smooths_evenly() -> None:
    steps = list(range(10_001))
    drawn = plots.curve("t", steps, [1.0] * 10_000 + [2.0], 0.0, 2.0, window=1)
    for line in re.findall(r'points="([^"]+)"', drawn):
        pairs = line.split()
        assert len(pairs) <= 301 and pairs[0] == "40.0,86.0" and pairs[-1] == "346.0,12.0"
    assert plots._smooth([(0, 0.0), (1, 3.0), (2, 6.0), (3, 0.0)], 3) == [(0, 1.5), (1, 3.0), (2, 3.0), (3, 3.0)]


def test_curve_of_one_value_and_of_none_is_drawn() -> None:
    assert "<circle" in plots.curve("t", [7], [1.0], 0.0, 1.0, window=1)
    assert "no value" in plots.curve("t", [7, 8], [None, None], 0.0, 1.0, window=1)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.0, 4.1) == [0, 1, 2, 3, 4]
    assert ticks(0.0, 0.033) == [0, 0.01, 0.02, 0.03]
    assert ticks(-1.0, 11.0) == [0, 5, 10]


def test_safe_keeps_what_scripts_need_and_drops_what_reorders() -> None:
    assert safe("a<b>&\"'") == "a&lt;b&gt;&amp;&quot;&#x27;"
    assert safe("می\u200cخواهم 👩\u200d🔬\n\t") == "می\u200cخواهم 👩\u200d🔬\n\t"
    assert safe("\u2066\u202e\x1b") == "\ufffd" * 3
