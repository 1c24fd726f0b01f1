"""One recipe of each kind goes through, by the command as a user calls it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from tests.recipes import ROOT, rehearsals
from tests.rehearsal.conftest import Rehearsed, rehearse
from vlsafe.rehearsal import journal
from vlsafe.rehearsal.phases import PHASES

BASE = "experiments/llava15_7b.yaml"
KINDS = {
    "lora": "experiments/llava15_7b_posthoc_lora.yaml",
    "full": "experiments/llava15_7b_posthoc_full.yaml",
    "stage1": "experiments/llava15_7b_stage1.yaml",
    "mixed": "experiments/llava15_7b_mixed_lora.yaml",
    "minigpt": "experiments/paper/shared/minigpt_v2.yaml,experiments/paper/minigpt_v2_posthoc.yaml",
    "swapped": "experiments/pretrain_projector_swap_siglip2.yaml",
    "fsdp2": "experiments/llava15_7b_mixed_full.yaml,{eight}",
}
NUMBER = {kind: number for number, kind in enumerate(KINDS)}


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    eight = tmp_path_factory.mktemp("overlay") / "eight.yaml"
    eight.write_text(yaml.safe_dump({"trainer": {"devices": 8, "strategy": "fsdp2"}}))
    runs = [f"{BASE},{kind.format(eight=eight)}" for kind in KINDS.values()]
    return rehearse(tmp_path_factory.mktemp("kinds") / "kept", "--workers=2", *runs)


def folder(kinds: Rehearsed, kind: str) -> Path:
    return kinds.folder / f"{NUMBER[kind]:02d}"


def test_each_passes_every_phase(kinds: Rehearsed) -> None:
    failed = {name: [p for p in result.phases if p.state == "failed"] for name, result in kinds.results.items()}
    assert kinds.status == 0, failed
    assert "7 of 7 rehearsals passed" in kinds.printed
    for result in kinds.results.values():
        assert tuple(phase.name for phase in result.phases) == PHASES
        assert {phase.state for phase in result.phases} <= {"passed", "nothing to do"}


def test_only_stage_one_has_nothing_to_evaluate(kinds: Rehearsed) -> None:
    idle = {name: [p.name for p in r.phases if p.state != "passed"] for name, r in kinds.results.items()}
    assert {name: phases for name, phases in idle.items() if phases} == {
        KINDS["stage1"]: ["evaluate before", "evaluate after", "report"]
    }


def test_the_config_is_the_recipes_own(kinds: Rehearsed) -> None:
    """Precision, strategy, components, clipping and callbacks as written; what was replaced is told."""
    kept = yaml.safe_load((folder(kinds, "fsdp2") / "run" / "config.yaml").read_text())
    assert kept["trainer"]["precision"] == "bf16-mixed" and kept["trainer"]["strategy"] == "fsdp2"
    assert kept["model"]["init_args"]["components"]["language"]["train"] == "full"
    assert kept["model"]["init_args"]["activation_checkpointing"] is True
    assert kept["evaluation"]["judge"] == "keyword:vlguard" and len(kept["evaluation"]["benchmarks"]) == 3
    told = {(c.what, c.by) for c in kinds.results[next(n for n in kinds.results if "eight" in n)].changes}
    assert ("8 GPUs", "2 CPU processes over gloo") in told
    assert ("trainer.accumulate_grad_batches 32", "2") in told
    assert "8 GPUs -> 2 CPU processes over gloo" in " ".join(kinds.printed.split())
    assert "not rehearsed: GPU kernels (flash-attn, fused ones), NCCL" in kinds.printed


def test_it_was_killed_and_went_on_with_the_same_step(kinds: Rehearsed) -> None:
    for rank in (0, 1):
        killed, resumed = (
            journal.read(folder(kinds, "fsdp2") / f"{name}.steps.{rank}") for name in ("first", "second")
        )
        assert [row["step"] for row in killed] == [1, 2] and [row["step"] for row in resumed] == [2]
        assert killed[1] == resumed[0] and killed[0]["weights"] != killed[1]["weights"]
        assert len(killed[1]["ids"]) == 8  # two micro-batches of four
    for kind in KINDS:
        with (folder(kinds, kind) / "run" / "metrics.csv").open(newline="") as file:
            steps = [int(row["step"]) for row in csv.DictReader(file) if row.get("train/loss")]
        assert steps == [0, 1], kind


def test_the_mixed_recipe_starts_from_the_stage_one_that_was_rehearsed(kinds: Rehearsed) -> None:
    kept = yaml.safe_load((folder(kinds, "mixed") / "run" / "config.yaml").read_text())
    made = folder(kinds, "stage1") / "run" / "model"
    assert kept["model"]["init_args"]["backbone"]["init_args"]["checkpoint"] == str(made)
    assert (made / "model.safetensors").is_file()


def test_made_up_records_are_of_every_sort(kinds: Rehearsed) -> None:
    """Pictures of several shapes, words alone, two turns, and one record that is cut."""
    (records,) = (folder(kinds, "mixed") / "data" / "helpful").glob("records.json")
    rows = json.loads(records.read_text())
    turns = {len(row["conversations"]) for row in rows}
    words = max(len(row["conversations"][-1]["value"].split()) for row in rows)
    assert turns == {2, 4} and {"image" in row for row in rows} == {True, False} and words > 2048


def test_exports_come_back_in_plain_transformers_and_peft(kinds: Rehearsed) -> None:
    notes = {kind: shown(kinds, kind) for kind in KINDS}
    assert notes["lora"].startswith("without vlsafe; PEFT adapter on its base: logits within")
    assert notes["full"] == notes["stage1"] == notes["swapped"] == notes["fsdp2"] == "without vlsafe"
    assert notes["minigpt"].startswith("after `import vlsafe.models.encoders`") and "PEFT" in notes["minigpt"]


def shown(kinds: Rehearsed, kind: str) -> str:
    told = json.loads((folder(kinds, kind) / "result.json").read_text())
    return next(phase["note"] for phase in told["phases"] if phase["name"] == "reload")


def test_the_configs_own_run_directories_are_not_touched(kinds: Rehearsed) -> None:
    asked = {yaml.safe_load((ROOT / kind.partition(",")[0]).read_text()).get("run_dir") for kind in KINDS.values()}
    kept = [yaml.safe_load(path.read_text())["run_dir"] for path in kinds.folder.glob("*/run/config.yaml")]
    assert len(kept) == len(KINDS) and all(Path(each).is_relative_to(kinds.folder) for each in kept)
    assert not asked & set(kept)


def test_every_recipe_and_sweep_is_rehearsed_before_a_change_is_accepted() -> None:
    """`.ci/run` gives `rehearse` this list: every YAML under experiments/, last or under another, and every sweep."""
    named = {path for run in rehearsals() for path in run.split(",")}
    for run in list(named):
        content = yaml.safe_load((ROOT / run).read_text())
        named |= set(content.get("stage", {}).get("configs", []))
    files = {str(path.relative_to(ROOT)) for path in ROOT.glob("experiments/**/*.yaml")}
    assert files - named == {"experiments/story/shared/tiny.yaml"}  # laid over all by `study run --config`
    assert {str(path.relative_to(ROOT)) for path in ROOT.glob("sweeps/*.yaml")} <= named
    ci = (ROOT / ".ci" / "run").read_text()
    assert "-m vlsafe rehearse --workers 2 $($python -m tests.recipes)" in ci
