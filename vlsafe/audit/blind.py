"""Image-blind classifiers: how well the words of a request alone predict whether it is refused.

Naive Bayes with Laplace smoothing (add one), because it has no setting to tune: on the first word it is a look-up
in a table, on the bag of words it counts every different word once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlsafe.audit.exchanges import Audited, Exchange
from vlsafe.audit.findings import Finding, Severity
from vlsafe.evaluation.statistics import wilson

FOLDS = 5
SEED = 0
TOLERANCE = 0.05
"""A classifier within five points of the majority rate is not called a shortcut."""

_WORD = re.compile(r"[^\W_]+(?:['’/-][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class BlindScore:
    """``correct`` of ``n`` requests predicted right; ``majority`` of them are on the larger side.

    ``subsets``: subset -> (correct, n). ``predicted``: the ids predicted right. ``folds``: in how many parts one source
    was cross-validated; 0 when learnt on another.
    """

    classifier: str
    train: str
    test: str
    correct: int
    n: int
    majority: int
    subsets: dict[str, tuple[int, int]]
    predicted: tuple[str, ...]
    folds: int

    def row(self) -> dict[str, object]:
        """As ``audit.json`` holds it; shares in percent."""
        low, high = wilson(self.correct, self.n)
        return {
            "classifier": self.classifier,
            "train": self.train,
            "test": self.test,
            "folds": self.folds,
            "correct": self.correct,
            "n": self.n,
            "accuracy": 100 * self.correct / self.n,
            "low": 100 * low,
            "high": 100 * high,
            "majority": 100 * self.majority / self.n,
            "subsets": {
                name: {"correct": right, "n": n, "accuracy": 100 * right / n}
                for name, (right, n) in self.subsets.items()
            },
        }


def words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("’", "'"))


def first_word(text: str) -> str:
    """The first word in lower case, or an empty string."""
    found = _WORD.search(text.lower().replace("’", "'"))
    return found.group() if found else ""


FEATURES: dict[str, Callable[[str], list[str]]] = {
    "first word": lambda text: [first_word(text)],
    "bag of words": lambda text: sorted(set(words(text))),
}


def blind_scores(sources: Sequence[Audited]) -> list[BlindScore]:
    """Learnt on the first source and tested on each other; a single one is cross-validated, its records kept whole.

    Empty where the source to learn from only answers or only refuses.
    """
    train, *tests = sources
    if len({each.refuses for each in train.exchanges}) < 2:
        return []
    if tests:
        return [_learnt(name, train, test) for test in tests for name in FEATURES]
    return [_cross_validated(name, train) for name in FEATURES] if len(train.records) >= FOLDS else []


def blind_findings(scores: Sequence[BlindScore]) -> list[Finding]:
    found = []
    for score in scores:
        low, high = wilson(score.correct, score.n)
        majority = score.majority / score.n
        severity: Severity = "note"
        if low > majority + TOLERANCE:
            severity = "serious" if score.classifier == "first word" else "warning"
        how = f"learnt on {score.train}" if not score.folds else f"{score.folds}-fold within the source"
        what = (
            f"{score.classifier}, {how}: {100 * score.correct / score.n:.1f} % right "
            f"[{100 * low:.1f}, {100 * high:.1f}]; always the larger side: {100 * majority:.1f} %"
        )
        code = f"{score.classifier.replace(' ', '_')}_shortcut"
        found.append(Finding(code, severity, score.test, score.correct, score.n, what, ids=score.predicted))
    return found


def naive_bayes(
    train: Sequence[Sequence[str]], refuses: Sequence[bool], test: Sequence[Sequence[str]]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each test document is predicted to be refused. Words that training does not hold say nothing."""
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(word for doc in train for word in doc))}
    counts = np.ones((2, len(vocabulary)))
    for doc, label in zip(train, refuses, strict=True):
        counts[int(label), [vocabulary[word] for word in doc]] += 1
    weight = np.log(counts / counts.sum(axis=1, keepdims=True))
    margin = weight[1] - weight[0]
    labels = np.asarray(refuses)
    prior = float(np.log(labels.sum()) - np.log((~labels).sum()))
    known = ([vocabulary[word] for word in doc if word in vocabulary] for doc in test)
    return np.array([prior + margin[indices].sum() > 0 for indices in known], dtype=bool)


def _learnt(name: str, train: Audited, test: Audited) -> BlindScore:
    predicted = _predicted(name, train.exchanges, test.exchanges)
    return _scored(name, train.label, test, predicted, folds=0)


def _cross_validated(name: str, source: Audited) -> BlindScore:
    order = np.random.default_rng(SEED).permutation(len(source.records))
    fold = {record: int(place) % FOLDS for record, place in zip(source.records, order, strict=True)}
    folds = np.array([fold[each.record] for each in source.exchanges])
    predicted = np.zeros(len(source.exchanges), dtype=bool)
    for number in range(FOLDS):
        learnt = [each for each, of in zip(source.exchanges, folds, strict=True) if of != number]
        held_out = [each for each, of in zip(source.exchanges, folds, strict=True) if of == number]
        predicted[folds == number] = _predicted(name, learnt, held_out)
    return _scored(name, source.label, source, predicted, folds=FOLDS)


def _predicted(
    name: str, train: Sequence[Exchange], test: Sequence[Exchange]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    features = FEATURES[name]
    labels = [each.refuses for each in train]
    if len(set(labels)) == 1:  # a fold of a tiny source
        return np.full(len(test), labels[0])
    documents = [features(each.instruction) for each in train]
    return naive_bayes(documents, labels, [features(each.instruction) for each in test])


def _scored(name: str, train: str, test: Audited, predicted: np.ndarray, folds: int) -> BlindScore:
    by_subset: dict[str, list[bool]] = defaultdict(list)
    right = []
    for each, refused in zip(test.exchanges, predicted, strict=True):
        by_subset[each.subset].append(bool(refused) == each.refuses)
        if bool(refused) == each.refuses:
            right.append(each.id)
    n = len(test.exchanges)
    refusing = sum(each.refuses for each in test.exchanges)
    subsets = {subset: (sum(values), len(values)) for subset, values in by_subset.items()}
    return BlindScore(name, train, test.label, len(right), n, max(refusing, n - refusing), subsets, tuple(right), folds)
