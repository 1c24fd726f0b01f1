"""What the benchmarks of the utility side ask, and what their variants are called."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path

import pytest
from benchmark_files import parquet, png, write

from vlsafe.data.images import open_image
from vlsafe.errors import ConfigError, DataError
from vlsafe.evaluation.benchmarks.choices import MMLU, MMBench, ScienceQA
from vlsafe.evaluation.benchmarks.mme import MME
from vlsafe.evaluation.benchmarks.open_ended import AlpacaEval, MMVet
from vlsafe.evaluation.benchmarks.vqa import TextVQA, VizWiz, VQAv2

pytestmark = pytest.mark.usefixtures("cache")  # what is drawn or unpacked


def test_scienceqa_asks_as_llava(tmp_path: Path) -> None:
    row = {"question": "Which?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": "image.png", "subject": "s"}
    write(tmp_path / "problems.json", {"1": row, "2": row | {"image": None, "hint": "Look."}, "3": row})
    write(tmp_path / "pid_splits.json", {"test": ["1", "2"], "val": ["3"]})
    (item,) = ScienceQA(tmp_path).items()
    assert item.question == "Which?\nA. x\nB. y\nAnswer with the option's letter from the given choices directly."
    assert (item.reference, item.image and item.image.name, item.scope) == ("B", "1/image.png", "scienceqa[test,image]")
    every = ScienceQA(tmp_path, with_picture=False).items()
    assert every[1].question.startswith("Context: Look.\nWhich?")
    write(tmp_path / "pid_splits.json", {"test": ["9"]})
    with pytest.raises(DataError, match="no problem '9'"):
        ScienceQA(tmp_path).items()


def test_mmlu_by_likelihood_and_in_words_with_examples(tmp_path: Path) -> None:
    rows = [
        {"question": f"q{n}", "subject": "high_school_physics", "choices": list("wxyz"), "answer": n % 4}
        for n in range(6)
    ]
    parquet(tmp_path / "all" / "test-00000-of-00001.parquet", rows[:2])
    parquet(tmp_path / "all" / "dev-00000-of-00001.parquet", rows)
    scored, second = MMLU(tmp_path).items()
    assert (scored.options, scored.reference, second.reference) == (("A", "B", "C", "D"), "A", "B")
    header = "The following are multiple choice questions (with answers) about high school physics.\n\n"
    assert scored.question == f"{header}q0\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    shown, _ = MMLU(tmp_path, shots=1).items()
    assert shown.question == header + "q0\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\nq0\nA. w\nB. x\nC. y\nD. z\nAnswer:"
    assert scored.scope == "mmlu[test,likelihood,shots=0]"
    written, _ = MMLU(tmp_path, mode="generate", shots=2).items()
    assert written.options == ()
    assert written.question.count("Answer: ") == 2
    assert written.question.startswith("q0\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\nq1")
    assert written.question.endswith("Answer with the option's letter from the given choices directly.")
    with pytest.raises(ConfigError, match="shots 0 to 5"):
        MMLU(tmp_path, shots=6)


def test_the_vqa_sets(tmp_path: Path) -> None:
    answers = [{"answer": "red", "answer_confidence": "yes"}] * 10
    write(tmp_path / "viz" / "val.json", [{"image": "v.jpg", "question": "Q?", "answers": answers, "answerable": 1}])
    (viz,) = VizWiz(tmp_path / "viz").items()
    assert viz.question == (
        "Q?\nWhen the provided information is insufficient, respond with 'Unanswerable'."
        "\nAnswer the question using a single word or phrase."
    )
    assert viz.scope == "vizwiz[val,normalise=textvqa]"
    assert viz.image and viz.image.root == tmp_path / "viz" / "val"
    asked = {"questions": [{"question_id": 5, "image_id": 42, "question": "Q?"}]}
    write(tmp_path / "v2" / "v2_OpenEnded_mscoco_val2014_questions.json", asked)
    told = {"annotations": [{"question_id": 5, "answers": answers}]}
    write(tmp_path / "v2" / "v2_mscoco_val2014_annotations.json", told)
    (v2,) = VQAv2(tmp_path / "v2", pictures=tmp_path).items()
    assert (v2.image and v2.image.name, v2.scope) == (
        "COCO_val2014_000000000042.jpg",
        "vqav2[val,normalise=unless_equal]",
    )
    write(tmp_path / "t.json", {"data": [{"question_id": 1, "image_id": "i", "question": "Q?", "answers": ["a"] * 10}]})
    assert len(TextVQA(tmp_path / "t.json", pictures=tmp_path).items()) == 1
    write(tmp_path / "t.json", {"data": [{"question_id": 1}]})
    with pytest.raises(DataError, match="lacks 'image_id'"):
        TextVQA(tmp_path / "t.json", pictures=tmp_path).items()


def test_mme_unpacks_its_pictures_and_puts_the_suffix_in_place_of_its_own(tmp_path: Path) -> None:
    rows = [
        {
            "question_id": f"count/{p}.png",
            "question": "Is it? Please answer yes or no.",
            "answer": answer,
            "category": "count",
            "image": {"bytes": png(), "path": "x"},
        }
        for p in (1, 2, 3)
        for answer in ("Yes", "No")
    ]
    parquet(tmp_path / "data" / "test-0.parquet", rows)
    items = MME(tmp_path).items()
    assert items[0].question == "Is it?\nAnswer the question using a single word or phrase."
    assert open_image(items[0].image).size == (40, 30)  # type: ignore[arg-type]
    assert Counter(Counter(item.cluster for item in MME(tmp_path, limit=2).items()).values()) == {2: 2}
    parquet(tmp_path / "data" / "test-0.parquet", [rows[0] | {"category": "chess"}])
    with pytest.raises(DataError, match="unknown subtask chess"):
        MME(tmp_path).items()


def test_mmbench_rotates_its_options(tmp_path: Path) -> None:
    picture = base64.b64encode(png() + bytes(300)).decode()
    header = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\n"
    rows = [f"7\tQ?\t\tx\ty\tz\t\tC\tcat\t{picture}\n", "1000007\tQ?\t\ty\tz\tx\t\tB\tcat\t7\n"]
    (tmp_path / "m.tsv").write_text(header + "".join(rows))
    items = MMBench(tmp_path / "m.tsv").items()
    assert [item.reference for item in items] == ["C", "B", "A"]
    assert [item.meta["choices"].split("\n") for item in items] == [list("xyz"), list("yzx"), list("zxy")]
    assert {item.cluster for item in items} == {"dev/7"}
    assert len(MMBench(tmp_path / "m.tsv", limit=1).items()) == 3


def test_alpaca_eval_keeps_the_rival_and_the_paper_s_first_300(tmp_path: Path) -> None:
    write(tmp_path / "a.json", [{"instruction": f"i{n}", "output": f"o{n}", "dataset": "d"} for n in range(805)])
    items = AlpacaEval(tmp_path / "a.json").items()
    assert (len(items), items[299].meta, items[0].scope) == (300, {"rival": "o299"}, "alpaca_eval[first=300]")
    assert len(AlpacaEval(tmp_path / "a.json", first=None).items()) == 805


def test_mm_vet_s_capabilities(tmp_path: Path) -> None:
    row = {"imagename": "v.png", "question": "Q?", "answer": "1<OR>2", "capability": ["ocr", "know"]}
    write(tmp_path / "mm-vet.json", {"v1_0": row})
    (item,) = MMVet(tmp_path).items()
    assert (item.group, item.reference) == ("know,ocr", "1<OR>2")
    write(tmp_path / "mm-vet.json", {"v1_0": {"question": "Q?"}})
    with pytest.raises(DataError, match="record 'v1_0': lacks imagename"):
        MMVet(tmp_path).items()
