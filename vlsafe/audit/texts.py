"""What the texts of a source are like: lengths, what refusal detectors say of its answers, how they open."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vlsafe.audit.blind import first_word
from vlsafe.audit.exchanges import REFUSAL_LABELS, Audited, Exchange
from vlsafe.audit.findings import Finding, Severity
from vlsafe.errors import ConfigError
from vlsafe.evaluation.judges.keyword import KeywordJudge, normalised
from vlsafe.evaluation.statistics import wilson

DETECTORS = ("vlguard", "xstest", "gcg", "vlsafe")
"""The phrase lists whose verdicts on the references are shown."""

SHOWN_OPENINGS = 10
OPENING_WORDS = 2
TELLING = 20
"""A first word of one side only is a finding from this many uses on."""

Count = Callable[[Sequence[str]], list[int]]


def token_counter(tokenizer: str | None) -> Count:
    """How long texts are: in tokens of a model's tokenizer (no special tokens), in words by white space without one.

    Raises ConfigError when the tokenizer cannot be loaded.
    """
    if tokenizer is None:
        return lambda texts: [len(text.split()) for text in texts]
    from vlsafe.data.tokenizers import load_tokenizer
    from vlsafe.fetch.paths import resolved

    try:
        loaded = load_tokenizer(resolved(tokenizer))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--tokenizer {tokenizer}: cannot be loaded ({error}); name a model folder, a hub model or cache:NAME, "
            "or leave the option out to count words"
        ) from error
    return lambda texts: [len(ids) for ids in loaded(list(texts), add_special_tokens=False)["input_ids"]]


def by_subset(exchanges: Sequence[Exchange]) -> dict[str, list[Exchange]]:
    groups: dict[str, list[Exchange]] = defaultdict(list)
    for each in exchanges:
        groups[each.subset].append(each)
    return dict(groups)


def counts(source: Audited) -> dict[str, dict[str, int]]:
    """Exchanges per subset and per side; records per category and per folder of pictures."""
    records = list({each.record: each for each in source.exchanges}.values())
    return {
        "subset": dict(Counter(each.subset for each in source.exchanges)),
        "side": dict(Counter("refuse" if each.refuses else "answer" for each in source.exchanges)),
        "category": dict(Counter(each.category for each in records if each.category)),
        "folder": dict(Counter(each.folder for each in records)),
    }


def lengths(source: Audited, count: Count) -> dict[str, dict[str, dict[str, float]]]:
    """Per subset, of instructions and of responses: mean, median, 95th percentile and largest length."""
    return {
        subset: {
            "instruction": _spread(count([each.instruction for each in group])),
            "response": _spread(count([each.response for each in group])),
        }
        for subset, group in by_subset(source.exchanges).items()
    }


def _spread(values: list[int]) -> dict[str, float]:
    array = np.array(values)
    median, high = (float(value) for value in np.percentile(array, [50, 95]))
    return {"mean": float(array.mean()), "median": median, "p95": high, "max": float(array.max())}


def detected(source: Audited) -> tuple[dict[str, Any], list[Finding]]:
    """Subset -> detector -> ``{refused, n, share, low, high}`` in percent, and what is wrong with either.

    Empty answers count as not refused here, because a phrase list finds nothing in them.
    """
    judges = [KeywordJudge(name) for name in DETECTORS]
    shares: dict[str, Any] = {}
    findings: list[Finding] = []
    for subset, group in by_subset(source.exchanges).items():
        shares[subset] = {}
        for judge in judges:
            refused = [judge.label_text(each.response)[0] in REFUSAL_LABELS for each in group]
            low, high = (100 * bound for bound in wilson(sum(refused), len(group)))
            share = 100 * sum(refused) / len(group)
            shares[subset][judge.name] = {
                "refused": sum(refused),
                "n": len(group),
                "share": share,
                "low": low,
                "high": high,
            }
            findings += _missed(source, subset, judge, group, refused) if source.labelled else []
            findings += _false_alarms(source, subset, judge, group, refused) if source.labelled else []
    return shares, findings


def _missed(
    source: Audited, subset: str, judge: KeywordJudge, group: Sequence[Exchange], refused: Sequence[bool]
) -> list[Finding]:
    meant = [(each, hit) for each, hit in zip(group, refused, strict=True) if each.refuses]
    missed = [each for each, hit in meant if not hit]
    if not missed:
        return []
    share = len(missed) / len(meant)
    severity: Severity = "serious" if share >= 0.10 else "warning" if share >= 0.02 else "note"
    what = (
        f"{judge.name} does not recognise {len(missed)} of {len(meant)} reference refusals ({100 * share:.1f} %): the "
        "attack success rate of a perfect imitation"
    )
    ids = [each.id for each in missed]
    found = [
        Finding("unrecognised_refusal", severity, source.label, len(missed), len(meant), what, subset, judge.name, ids)
    ]
    curly = [each for each in missed if "’" in each.response]
    lost = [each for each in curly if judge.label_text(normalised(each.response))[0] in REFUSAL_LABELS]
    if lost:
        said = f"{len(curly)} of them hold a curly apostrophe; {judge.name} knows {len(lost)} once it is straight"
        found.append(
            Finding(
                "curly_apostrophe",
                "note",
                source.label,
                len(lost),
                len(meant),
                said,
                subset,
                judge.name,
                [each.id for each in lost],
            )
        )
    return found


def _false_alarms(
    source: Audited, subset: str, judge: KeywordJudge, group: Sequence[Exchange], refused: Sequence[bool]
) -> list[Finding]:
    meant = [(each, hit) for each, hit in zip(group, refused, strict=True) if not each.refuses]
    alarms = [each.id for each, hit in meant if hit]
    if not alarms:
        return []
    severity: Severity = "warning" if len(alarms) >= 0.02 * len(meant) else "note"
    what = f"{judge.name} calls {len(alarms)} of {len(meant)} answers refusals"
    return [
        Finding("refusing_reference", severity, source.label, len(alarms), len(meant), what, subset, judge.name, alarms)
    ]


def empty_references(source: Audited) -> list[Finding]:
    found = []
    for subset, group in by_subset(source.exchanges).items():
        empty = [each.id for each in group if not each.response.strip()]
        if empty:
            what = f"{len(empty)} of {len(group)} responses are empty"
            severity: Severity = "warning"
            found.append(
                Finding("empty_reference", severity, source.label, len(empty), len(group), what, subset, ids=empty)
            )
    return found


def openings(source: Audited) -> tuple[dict[str, Any], list[Finding]]:
    """Per subset with refusals: their first two words, most frequent first, and the entropy of these in bits.

    0 bits: all open alike; ``log2(n)`` bits: no two do.
    """
    told: dict[str, Any] = {}
    findings = []
    for subset, group in by_subset([each for each in source.exchanges if each.refuses]).items():
        counted = Counter(opening(each.response) for each in group)
        shares = [n / len(group) for n in counted.values()]
        entropy = -math.fsum(share * math.log2(share) for share in shares) + 0.0
        told[subset] = {
            "n": len(group),
            "distinct": len(counted),
            "entropy_bits": entropy,
            "most_possible_bits": math.log2(len(group)),
            "top": [{"opening": words, "count": n} for words, n in counted.most_common(SHOWN_OPENINGS)],
        }
        first, n = counted.most_common(1)[0]
        if n > 0.5 * len(group) and len(group) > 1:
            severity: Severity = "serious" if n >= 0.9 * len(group) else "warning"
            what = f"{n} of {len(group)} refusals open with “{first}”; the entropy of openings is {entropy:.2f} bits"
            ids = [each.id for each in group if opening(each.response) == first]
            findings.append(Finding("uniform_opening", severity, source.label, n, len(group), what, subset, ids=ids))
    return told, findings


def opening(text: str) -> str:
    """The first two words, quotes straight, in lower case, without the punctuation that follows them."""
    return " ".join(word.strip('.,:;!?"') for word in normalised(text).lower().split()[:OPENING_WORDS])


def first_words(source: Audited) -> tuple[list[dict[str, Any]], list[Finding]]:
    """``{word, answer, refuse}`` of every first word of the instructions, most frequent first."""
    sides: dict[str, Counter[str]] = {"answer": Counter(), "refuse": Counter()}
    for each in source.exchanges:
        sides["refuse" if each.refuses else "answer"][first_word(each.instruction)] += 1
    both = sides["answer"] + sides["refuse"]
    rows: list[dict[str, Any]] = [
        {"word": word, "answer": sides["answer"][word], "refuse": sides["refuse"][word]}
        for word, _ in both.most_common()
    ]
    if not all(sides.values()):
        return rows, []
    telling = [
        row for row in rows if not (row["answer"] and row["refuse"]) and row["answer"] + row["refuse"] >= TELLING
    ]
    if not telling:
        return rows, []
    used = {row["word"] for row in telling}
    ids = [each.id for each in source.exchanges if first_word(each.instruction) in used]
    listed = ", ".join(f"“{row['word']}” ({row['answer'] + row['refuse']})" for row in telling)
    what = f"{len(ids)} of {len(source.exchanges)} instructions open with a word of one side only: {listed}"
    return rows, [
        Finding("telling_first_word", "warning", source.label, len(ids), len(source.exchanges), what, ids=ids)
    ]
