"""The four stages: what is kept, what is done again, what is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from fakes import ANSWER, REFUSAL, FakeResponder, Toy
from PIL import Image

from vlsafe.answering import Answer, Decoding
from vlsafe.errors import ConfigError, DataError, VlsafeError
from vlsafe.evaluation.folder import read_folder
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.records import Item, Metric, Response, Verdict, read_jsonl
from vlsafe.evaluation.scoring import benchmark_classes, score
from vlsafe.evaluation.stages import evaluate, generate, judge_responses, write_items

JUDGE = judge_named("keyword:vlsafe")
GREEDY = Decoding()
HARM = [f"toy/harm/{number}" for number in range(4)]
SAFE = dict.fromkeys(HARM[:3], REFUSAL) | {"toy/benign/0": REFUSAL}


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path / "pictures")


def run(toy: Toy, responder: FakeResponder, out: Path, decoding: Decoding = GREEDY) -> dict[str, Metric]:
    return evaluate([toy], responder, JUDGE, decoding, out)


def test_evaluate_writes_four_files_and_the_rates(toy: Toy, tmp_path: Path) -> None:
    metrics = run(toy, FakeResponder(SAFE), tmp_path / "out")
    values = {name: (metric.value, metric.n, metric.n_error) for name, metric in metrics.items()}
    assert values == {
        "toy[benign]/over_refusal": (25, 4, 0),
        "toy[harm]/asr": (25, 4, 0),
        "toy[harm]/refusal": (75, 4, 0),
        "toy[utility]/refused": (0, 2, 0),
    }
    names = ["items.jsonl", "manifest.json", "metrics.json", "responses.jsonl", "verdicts.keyword:vlsafe.jsonl"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == names
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["metrics"]["toy[harm]/asr"] == {
        "value": 25.0,
        "low": pytest.approx(4.56, abs=0.01),
        "high": pytest.approx(69.94, abs=0.01),
        "n": 4,
        "n_error": 0,
    }
    assert written["directions"]["toy[harm]/asr"] == {"side": "harm", "better": "lower"}
    assert written["labels"]["toy[harm]"] == {"comply": 1, "refuse": 3}
    first = read_jsonl(tmp_path / "out" / "responses.jsonl", Response)[0]
    assert first.prompt == f"USER: {first.id}"


def test_a_second_run_asks_nothing(toy: Toy, tmp_path: Path) -> None:
    before = run(toy, FakeResponder(SAFE), tmp_path / "out")
    files = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    again = FakeResponder({})
    assert run(toy, again, tmp_path / "out") == before
    assert again.asked == []
    assert {file: file.read_bytes() for file in files} == files


def test_a_kill_in_the_middle_costs_only_what_was_not_written(toy: Toy, tmp_path: Path) -> None:
    path = tmp_path / "out" / "responses.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(toy, FakeResponder(SAFE, dies_after=6), tmp_path / "out")
    assert len(read_jsonl(path, Response)) == 6
    with path.open("ab") as file:  # the harder kill: half a line
        file.write(path.read_bytes().split(b"\n")[0][:40])
    again = FakeResponder(SAFE)
    resumed = run(toy, again, tmp_path / "out")
    assert len(again.asked) == 4
    assert resumed == run(toy, FakeResponder(SAFE), tmp_path / "straight")
    assert len(read_jsonl(path, Response)) == 10


def test_a_retrained_model_is_asked_again_and_the_old_answers_are_ignored(toy: Toy, tmp_path: Path) -> None:
    unsafe = run(toy, FakeResponder({}, weights="w1"), tmp_path / "out")
    retrained = FakeResponder(SAFE, weights="w2")
    safe = run(toy, retrained, tmp_path / "out")
    assert len(retrained.asked) == 10
    assert (unsafe["toy[harm]/asr"].value, safe["toy[harm]/asr"].value) == (100, 25)
    assert len(read_jsonl(tmp_path / "out" / "responses.jsonl", Response)) == 20
    back = FakeResponder({}, weights="w1")
    assert run(toy, back, tmp_path / "out") == unsafe
    assert back.asked == []
    folder = read_folder(tmp_path / "out")  # the manifest says which answers count, not their place in the file
    assert score(folder.items, folder.responses, folder.verdicts, folder.benchmarks) == unsafe


@pytest.mark.parametrize("change", ["decoding", "picture"])
def test_other_decoding_or_picture_bytes_are_another_key(toy: Toy, tmp_path: Path, change: str) -> None:
    run(toy, FakeResponder(SAFE), tmp_path / "out")
    again = FakeResponder(SAFE)
    if change == "decoding":
        run(toy, again, tmp_path / "out", Decoding(max_new_tokens=8))
        assert len(again.asked) == 10
    else:
        Image.new("RGB", (4, 4), "blue").save(toy.pictures / "a.png")
        run(toy, again, tmp_path / "out")
        assert sorted(again.asked) == [f"toy/benign/{number}" for number in range(4)]


def test_added_items_cost_only_themselves(tmp_path: Path) -> None:
    run(Toy(tmp_path / "p", limit=1), FakeResponder(SAFE), tmp_path / "out")
    more = FakeResponder(SAFE)
    run(Toy(tmp_path / "p", limit=2), more, tmp_path / "out")
    assert len(more.asked) == 3


def test_failed_answers_are_errors_fail_the_run_and_are_tried_again(toy: Toy, tmp_path: Path) -> None:
    failing = dict(SAFE) | {"toy/harm/3": Answer("Failed to obtain answer via API", error="server said 500")}
    with pytest.raises(VlsafeError, match=r"1 of 10 responses are errors, more than 1 %.*server said 500"):
        run(toy, FakeResponder(failing), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    assert (written["toy[harm]/asr"]["value"], written["toy[harm]/asr"]["n_error"]) == (0, 1)
    assert "Failed to obtain" not in (tmp_path / "out" / "responses.jsonl").read_text()
    again = FakeResponder(SAFE)
    metrics = run(toy, again, tmp_path / "out")
    assert again.asked == ["toy/harm/3"]
    assert metrics["toy[harm]/asr"] == Metric(25, metrics["toy[harm]/asr"].low, metrics["toy[harm]/asr"].high, 4)


def test_all_answers_failed_leaves_no_number(toy: Toy, tmp_path: Path) -> None:
    texts = {item.id: Answer("", error="no memory") for item in toy.items()}
    with pytest.raises(VlsafeError, match="10 of 10 responses are errors"):
        run(toy, FakeResponder(texts), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    assert {row["value"] for row in written.values()} == {None}


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        ("harm utility", "no benign-side items beside 4 harm-side ones"),
        ("benign utility", "no harm-side items beside 4 benign-side ones"),
    ],
)
def test_a_one_sided_run_is_refused_before_anything_is_generated(tmp_path: Path, sides: str, words: str) -> None:
    responder = FakeResponder({})
    with pytest.raises(DataError, match=words):
        run(Toy(tmp_path / "p", sides), responder, tmp_path / "out")
    assert responder.asked == []
    assert not (tmp_path / "out").exists()


def test_utility_alone_makes_no_safety_claim_and_passes(tmp_path: Path) -> None:
    assert list(run(Toy(tmp_path / "p", "utility"), FakeResponder({}), tmp_path / "out")) == ["toy[utility]/refused"]


def test_two_benchmarks_of_one_name_are_refused(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two benchmarks are named 'toy'"):
        benchmark_classes([toy, toy])
    with pytest.raises(DataError, match="id 'toy/harm/0' occurs 2 times"):
        write_items([*toy.items(), *toy.items()], tmp_path / "items.jsonl")


def test_an_unreadable_picture_stops_before_generation(toy: Toy, tmp_path: Path) -> None:
    items = toy.items()
    (toy.pictures / "a.png").unlink()
    responder = FakeResponder({})
    with pytest.raises(DataError, match=r"item 'toy/benign/0': missing picture .*a\.png"):
        generate(items, responder, GREEDY, tmp_path / "r.jsonl")
    assert responder.asked == []


class Careless(FakeResponder):
    """Forgets the first prompt, or answers the last one twice."""

    def __init__(self, fault: str) -> None:
        super().__init__({})
        self.fault = fault

    def respond(self, prompts, decoding):  # type: ignore[no-untyped-def]
        answers = list(super().respond(prompts, decoding))
        yield from answers[:-1] if self.fault == "forgets" else [*answers, answers[0]]


@pytest.mark.parametrize(
    ("fault", "words"),
    [("forgets", "left 1 of 10 prompts unanswered, the first is 'toy/harm/0'"), ("repeats", "twice")],
)
def test_a_responder_must_answer_each_prompt_once(toy: Toy, tmp_path: Path, fault: str, words: str) -> None:
    with pytest.raises(VlsafeError, match=words):
        generate(toy.items(), Careless(fault), GREEDY, tmp_path / "r.jsonl")
    assert len(read_jsonl(tmp_path / "r.jsonl", Response)) >= 9  # what was paid for is kept


def test_verdicts_are_reused_until_the_judge_or_the_text_changes(toy: Toy, tmp_path: Path) -> None:
    items = toy.items()
    responses = generate(items, FakeResponder(SAFE), GREEDY, tmp_path / "r.jsonl")
    path = tmp_path / "v.jsonl"
    first = judge_responses(responses, items, JUDGE, path)
    assert judge_responses(responses, items, JUDGE, path) == first
    assert len(read_jsonl(path, Verdict)) == 10
    other = judge_named("keyword:vlsafe")
    other.version = "2"
    changed = judge_responses(responses, items, other, path)
    assert [row.label for row in changed] == [row.label for row in first]
    assert len(read_jsonl(path, Verdict)) == 20
    assert judge_responses(responses, items, JUDGE, path) == first
    assert len(read_jsonl(path, Verdict)) == 30  # the last row counts, so going back is written down too


def test_the_order_of_records_does_not_matter(toy: Toy, tmp_path: Path) -> None:
    items = toy.items()
    responses = generate(items, FakeResponder(SAFE), GREEDY, tmp_path / "r.jsonl")
    verdicts = judge_responses(responses, items, JUDGE, tmp_path / "v.jsonl")
    expected = score(items, responses, verdicts, {"toy": Toy})
    for records in (items, responses, verdicts):
        random.Random(0).shuffle(records)  # type: ignore[arg-type]
    shuffled = score(items, responses, verdicts, {"toy": Toy})
    assert shuffled == expected
    assert list(shuffled) == list(expected)


def test_incomplete_or_mixed_records_are_not_scored(toy: Toy, tmp_path: Path) -> None:
    items: list[Item] = toy.items()
    responses = generate(items, FakeResponder({}), GREEDY, tmp_path / "r.jsonl")
    assert {row.text for row in responses} == {ANSWER}
    verdicts = judge_responses(responses, items, JUDGE, tmp_path / "v.jsonl")
    with pytest.raises(DataError, match="item 'toy/harm/0' has no response"):
        score(items, responses[1:], verdicts, {"toy": Toy})
    with pytest.raises(DataError, match="item 'toy/harm/0' has no verdict"):
        score(items, responses, verdicts[1:], {"toy": Toy})
    stranger = Verdict("other key", "toy/harm/0", "refuse", JUDGE.name)
    with pytest.raises(DataError, match="the verdict is on another response"):
        score(items, responses, [stranger, *verdicts[1:]], {"toy": Toy})
    mixed = Verdict(verdicts[0].key, verdicts[0].id, "refuse", "keyword:gcg")
    with pytest.raises(DataError, match="several judges are mixed"):
        score(items, responses, [mixed, *verdicts[1:]], {"toy": Toy})
