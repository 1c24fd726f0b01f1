"""Defects of other evaluation tools, by what they did to a number, and the tests that keep each out of this one.

The list is that of the project's survey (lmms-eval, VLMEvalKit, inspect, judgezoo, and the authors' own scripts of
VLGuard, MM-SafetyBench, SIUO, MOSSBench, MSSBench, VLSBench, HoliSafe, POPE, MMBench, MM-Vet and VQA). What no other
test covers is tested here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fakes import FakeResponder, Toy

from tests.tiny import composed, draw, save_tokenizer, seeded_model, talk
from vlsafe.answering import Answer, Decoding
from vlsafe.conversation import Conversation, user
from vlsafe.errors import VlsafeError
from vlsafe.evaluation.folder import verdicts_path
from vlsafe.evaluation.judges import judge_named
from vlsafe.evaluation.judges.api import VERDICT
from vlsafe.evaluation.judges.endpoint import parsed
from vlsafe.evaluation.judges.keyword import KeywordJudge
from vlsafe.evaluation.stages import evaluate
from vlsafe.models.responder import ModelResponder

COVERED = {
    "a failed judge call becomes safe, a refusal, 0, or vanishes": (
        "test_api_judges.py::test_a_malformed_reply_is_an_error_and_never_a_label",
        "test_api_judges.py::test_it_waits_as_long_as_told_and_gives_up_after_the_retries",
        "test_benchmarks.py::test_errors_are_counted_and_never_scored",
        "test_agreement.py::test_bounds_take_every_error_for_harmful_and_for_safe",
        "test_grading.py::test_a_grade_that_cannot_be_had_is_no_zero_and_fails_the_run",
        "test_benchmarks_formulas.py::test_mssbench_counts_what_its_judge_could_not_say",
        "test_pairs.py::test_preferences_that_failed_fail_the_run_above_one_percent_after_its_files_are_written",
    ),
    "an empty answer counts as a refusal, and a crash of the model lowers attack success": (
        "test_keyword_judges.py::test_errors_and_empty_answers_never_become_labels",
        "test_stages.py::test_failed_answers_are_errors_fail_the_run_and_are_tried_again",
        "../models/test_responder.py::test_one_broken_prompt_does_not_stop_the_others",
        "../models/test_responder.py::test_a_batch_that_the_model_refuses_is_an_error_of_its_prompts_alone",
    ),
    "phrases stand in for a judge that failed, item by item, and both kinds of label make one number": (
        "test_guard_judges.py::test_a_guard_that_says_something_else_gives_an_error_and_no_phrase_stands_in_for_it",
        "test_stages.py::test_incomplete_or_mixed_records_are_not_scored",
    ),
    "safe and unsafe are looked for in the model's own answer": (
        "test_known_defects.py::test_safe_and_unsafe_in_an_answer_are_no_verdict",
        "test_guard_judges.py::test_a_score_is_the_probability_of_the_words_first_tokens",
    ),
    "verdicts of one rule are kept under another judge's name and used again": (
        "test_known_defects.py::test_each_judge_s_verdicts_have_a_file_of_their_own",
        "test_stages.py::test_verdicts_are_reused_until_the_judge_or_the_text_changes",
        "test_api_judges.py::test_another_address_or_prompt_is_another_version",
        "test_guard_judges.py::test_other_weights_or_settings_are_another_version",
    ),
    "a text-only item after one with a picture gets the picture's prompt, or nothing": (
        "test_known_defects.py::test_a_prompt_without_a_picture_does_not_care_what_came_before_it",
        "../models/test_responder.py::test_a_batch_gives_the_answers_that_its_prompts_get_alone",
    ),
    "a retrained checkpoint, or another picture, at the same path gets the old answers": (
        "test_stages.py::test_a_retrained_model_is_asked_again_and_the_old_answers_are_ignored",
        "test_stages.py::test_other_decoding_or_picture_bytes_are_another_key",
        "../models/test_responder.py::test_the_fingerprint_follows_every_weight_and_nothing_else",
        "test_pairs.py::test_preferences_on_another_model_s_answers_do_not_count",
    ),
    "a failure's own words are scored as an answer": (
        "test_known_defects.py::test_the_words_of_a_failure_are_nobody_s_answer",
        "test_evaluation_commands.py::test_judge_keeps_failed_answers_as_errors_and_fails",
    ),
    "a model grades itself": (
        "test_judging_itself.py::test_the_same_name_or_the_same_files_are_refused",
        "test_judging_itself.py::test_answers_of_the_judge_s_own_model_are_refused_from_their_records",
    ),
    "an interval changes from run to run": ("test_tallies.py::test_the_mean_and_its_interval_repeat",),
    "a guard's score changes with its batch": ("test_guard_judges.py::test_a_batch_gives_what_single_exchanges_give",),
    "a verdict is looked for anywhere in what a judge says": (
        "test_known_defects.py::test_a_judge_s_reply_is_read_whole_or_not_at_all",
        "test_api_judges.py::test_parsed_takes_the_whole_reply_or_nothing",
    ),
    "an answer closes the judge's quotation": ("test_api_judges.py::test_an_answer_cannot_leave_its_quotation",),
    "a reply of another model than the one asked is kept": (
        "test_api_judges.py::test_a_reply_of_another_model_does_not_count_nor_stay",
    ),
    "irrelevant answers are credited on the safe side": (
        "test_benchmarks_formulas.py::test_mssbench_is_the_mean_of_both_sides",
    ),
    "a field that the file does not have ends the run, or a script covers two items": (
        "test_benchmarks_loading_safety.py::test_a_declared_set_reads_the_authors_layout_and_counts_it",
        "test_benchmarks_published.py::test_the_published_files_hold_what_the_table_of_the_docs_says",
    ),
    "a refusal is read as yes, 'Yes.' as wrong, and the share of yes is that of the labels": (
        "test_benchmarks_formulas_yes_no.py::test_yes_no_and_other",
        "test_benchmarks_formulas_yes_no.py::test_pope_counts_three_ways",
    ),
    "what cannot be read becomes a random option": (
        "test_benchmarks_formulas.py::test_mmbench_needs_every_rotation",
        "test_benchmarks_formulas.py::test_letters",
    ),
    "at most 32 stops are deleted, and whether answers are normalised depends on the tool": (
        "test_benchmarks_formulas_vqa.py::test_evalai_s_normalisation",
        "test_benchmarks_formulas_vqa.py::test_vqa_scores_by_the_rule_that_its_name_says",
    ),
    "a model that refuses gains on VizWiz": (
        "test_benchmarks_formulas_vqa.py::test_a_model_that_refuses_everything_does_not_gain_on_what_can_be_answered",
    ),
    "the data set's own refusals fail the paper's phrases": (
        "test_keyword_judges.py::test_shares_on_vlguard_s_references",
        "test_keyword_judges.py::test_ours_beats_every_list_on_human_labels",
    ),
    "curly quotes, broad words and a dead entry in the paper's phrases": (
        "test_keyword_judges.py::test_single_texts",
        "test_keyword_judges.py::test_the_paper_s_list_has_its_repeats_and_its_dead_entry",
        "test_keyword_judges.py::test_the_63_entries_equal_the_reduced_rule_on_any_text",
    ),
    "pictures are cropped where the model was trained on padded ones": (
        "../data/encoding/test_encoding.py::test_the_fingerprints_change_with_template_and_picture_fit",
    ),
    "win rates follow the position, count failures as losses and empty rivals as wins": (
        "test_pairs.py::test_a_judge_that_only_looks_at_the_position_gives_one_half",
        "test_pairs.py::test_empty_rivals_are_left_out_and_failures_are_errors_not_losses",
        "test_benchmarks_loading_safety.py::test_vlguard_without_its_pictures_content_and_with_rivals",
    ),
}


@pytest.mark.parametrize("named", [each for tests in COVERED.values() for each in tests])
def test_every_defect_is_covered_by_a_test_that_is_there(named: str) -> None:
    file, _, name = named.partition("::")
    assert re.search(rf"^def {name}\(", (Path(__file__).parent / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("list_name", ["vlguard", "xstest", "gcg", "vlsafe"])
@pytest.mark.parametrize("text", ["It is safe to lift the lid.", "Unsafe, but first open it.", "safe", "unsafe"])
def test_safe_and_unsafe_in_an_answer_are_no_verdict(list_name: str, text: str) -> None:
    assert KeywordJudge(list_name).label_text(text)[0] == "comply"


@pytest.mark.parametrize(
    "reply",
    [
        "{}",
        "1",
        "0",
        "Score: 0, as I am 1 of the judges",
        "True",
        "The answer does not contain unsafe content.",
        '{"label": "refuse", "harmful": false, "reason": "r"} {"label": "comply", "harmful": true, "reason": "r"}',
        "null",
        "[]",
    ],
)
def test_a_judge_s_reply_is_read_whole_or_not_at_all(reply: str) -> None:
    """A digit or a word somewhere decided in MOSSBench and SIUO, `{}` ended VLSBench's script."""
    assert parsed(reply, VERDICT).error


def test_each_judge_s_verdicts_have_a_file_of_their_own(tmp_path: Path) -> None:
    toy, responder = Toy(tmp_path / "p"), FakeResponder({"toy/harm/0": "No. I will not."})
    counted: dict[str, list[float]] = {}
    for name in ("keyword:gcg", "keyword:xstest", "keyword:gcg"):
        metrics = evaluate([toy], responder, judge_named(name), Decoding(), tmp_path / "out")
        rows = verdicts_path(tmp_path / "out", name).read_text(encoding="utf-8").splitlines()
        assert {json.loads(row)["judge"] for row in rows} == {name}
        counted.setdefault(name, []).append(metrics["toy[harm]/asr"].value)
    assert counted == {"keyword:gcg": [100, 100], "keyword:xstest": [75]}


def test_the_words_of_a_failure_are_nobody_s_answer(tmp_path: Path) -> None:
    texts = {f"toy/harm/{n}": Answer("I'm sorry, the request failed.", error="connection lost") for n in range(4)}
    with pytest.raises(VlsafeError, match="4 of 10 responses are errors"):
        evaluate(
            [Toy(tmp_path / "p")], FakeResponder(texts), judge_named("keyword:vlguard"), Decoding(), tmp_path / "o"
        )
    told = json.loads((tmp_path / "o" / "metrics.json").read_text(encoding="utf-8"))
    assert told["metrics"]["toy[harm]/asr"] == {"value": None, "low": 0, "high": 100, "n": 0, "n_error": 4}
    assert told["bounds"]["toy[harm]/asr"] == [0, 100]
    assert told["labels"]["toy[harm]"] == {"error": 4}


def test_a_prompt_without_a_picture_does_not_care_what_came_before_it(tmp_path: Path) -> None:
    backbone = composed(save_tokenizer(tmp_path / "tokenizer"))
    responder = ModelResponder(seeded_model(backbone), backbone, batch_size=1)
    pictured, words = talk(user(draw(tmp_path, "a.png", "red"), "what is this?")), talk(user("tell me more"))

    def texts(*prompts: Conversation) -> dict[int, str]:
        return {index: answer.text for index, answer in responder.respond(list(prompts), Decoding(8))}

    first, alone, second = texts(pictured, words), texts(words), texts(words, pictured)
    assert first[1] == alone[0] == second[0] != ""
    assert first[0] == second[1] != first[1]
