"""What an audit finds: the kinds of findings, why each matters, what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Severity = Literal["serious", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")


class Kind(NamedTuple):
    title: str
    why: str
    remedy: str


KINDS: dict[str, Kind] = {
    "first_word_shortcut": Kind(
        "The first word tells refuse from answer",
        "A classifier that sees neither the picture nor the rest of the request predicts whether it is refused. A "
        "model can learn that rule instead of safety: a harmful request that opens like a harmless one is then "
        "answered, a harmless one that opens like a harmful one refused.",
        "train on the output of `vlsafe data balance`, and measure with first words swapped",
    ),
    "bag_of_words_shortcut": Kind(
        "The words alone tell refuse from answer",
        "A classifier that never sees the picture predicts whether a request is refused. Part of that is meaning, part "
        "is wording; what it predicts cannot show that a model looks at the picture.",
        "read the score beside that of a text-only baseline; add pairs in which only the picture differs",
    ),
    "telling_first_word": Kind(
        "First words on one side only",
        "A request that opens with such a word is always refused, or always answered, in this data.",
        "use the word on both sides; `vlsafe data balance` does",
    ),
    "unrecognised_refusal": Kind(
        "Reference refusals that a detector does not recognise",
        "A model that gave exactly these reference answers would be scored as attacked: the share is the detector's "
        "own error, and the floor of any attack success rate measured with it.",
        "score with a second detector and report both",
    ),
    "curly_apostrophe": Kind(
        "Refusals lost to a curly apostrophe",
        "The detector's list is written with straight apostrophes, so these refusals are missed for their typography.",
        "use a detector that normalises quotes, such as keyword:vlsafe",
    ),
    "refusing_reference": Kind(
        "Answers that a detector calls refusals",
        "On the helpful side these are references that refuse a harmless request, or false alarms of the detector; "
        "either teaches or measures over-refusal wrongly.",
        "read them; drop or mend what really refuses",
    ),
    "empty_reference": Kind(
        "Empty references",
        "Nothing can be compared with an empty answer: in a win rate such items are decided by the judge's habits.",
        "leave these items out of comparisons, and say how many",
    ),
    "uniform_opening": Kind(
        "Refusals open alike",
        "A model learns the opening as the refusal. It is then brittle (an attack need only suppress a few first "
        "tokens), and a phrase list that knows it reports near-perfect safety.",
        "vary them: `vlsafe data balance --vary-refusals`",
    ),
    "duplicate_id": Kind(
        "Ids used more than once",
        "Results joined by id mix different records, or count one record twice.",
        "drop the copy, or rename it; sources read the second x as x#2",
    ),
    "duplicate_picture_name": Kind(
        "Pictures named by more than one record",
        "The same picture weighs more than the others, and cannot be held out on its own.",
        "drop the copy, or group by picture when splitting and when computing intervals",
    ),
    "duplicate_picture": Kind(
        "The same picture under several names",
        "Byte for byte the same file: the picture weighs more than the others, and splits by name do not separate it.",
        "drop the copies",
    ),
    "similar_picture": Kind(
        "Pictures that look the same",
        "Rescaled or recompressed copies, by a 64-bit difference hash; names and file hashes do not show them. Flat or "
        "typographic pictures can look alike without being copies.",
        "look at the pairs; drop real copies",
    ),
    "duplicate_instruction": Kind(
        "Instructions used more than once",
        "Frequent wordings weigh more than others; where all of their answers refuse, the wording alone decides.",
        "no need to act where the picture changes the right answer",
    ),
    "leaked_id": Kind(
        "Ids in both training and test data", "The test repeats training records.", "leave them out of the test"
    ),
    "leaked_picture_name": Kind(
        "Picture names in both training and test data",
        "The model has seen the test's pictures, so the test partly measures memory.",
        "leave them out of the test, or out of training",
    ),
    "leaked_picture": Kind(
        "Pictures in both training and test data, byte for byte",
        "The model has seen the test's pictures, so the test partly measures memory.",
        "leave them out of the test, or out of training",
    ),
    "leaked_similar_picture": Kind(
        "Pictures in training and test data that look the same",
        "Rescaled or recompressed copies, by a 64-bit difference hash: the test partly measures memory.",
        "look at the pairs; leave real copies out",
    ),
    "leaked_other_label": Kind(
        "Pictures whose label differs between training and test data",
        "Training teaches one label and the test asks for the other: at least one is wrong.",
        "look at the picture; correct or drop the record",
    ),
    "leaked_instruction": Kind(
        "Instructions of the test that training data holds word for word",
        "These items do not test new wordings.",
        "report them apart where wording matters",
    ),
    "missing_picture": Kind(
        "Pictures that are not there",
        "Records without their picture cannot be trained on or measured; copies by content could not be looked for.",
        "fetch the pictures (the set may be gated), or point the source at the root that holds them",
    ),
    "broken_picture": Kind(
        "Pictures that cannot be opened",
        "Training stops at them.",
        "fetch the files again, or drop the records",
    ),
    "no_category": Kind(
        "Records without a category",
        "A view by category leaves them out; filtering by category drops them.",
        "say so beside any table by category",
    ),
    "guessed_labels": Kind(
        "Which answers refuse is guessed",
        "The source does not say so; the list keyword:vlsafe did. Tables of answer and refuse rest on its judgement.",
        "tag the records, or read the tables with that in mind",
    ),
    "licence": Kind(
        "Licence", "It decides what may be done with the data and with models trained on it.", "read it before use"
    ),
    "gated": Kind(
        "Access is gated",
        "Others cannot reproduce a result without accepting the terms; copies must not be passed on.",
        "name the terms beside results",
    ),
}
"""Code -> what it means. Codes are a promise to scripts that read ``audit.json``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``count`` of ``total`` things in ``source`` (in ``subset``, by ``detector``, if any); ``what`` says it in words.

    ``ids`` are those of ``source``; ``matches`` names for an id what it was found to equal.
    """

    code: str
    severity: Severity
    source: str
    count: int
    total: int
    what: str
    subset: str = ""
    detector: str = ""
    ids: Sequence[str] = ()
    matches: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def row(self) -> dict[str, object]:
        """As ``audit.json`` holds it."""
        kind = KINDS[self.code]
        return {
            "code": self.code,
            "severity": self.severity,
            "title": kind.title,
            "source": self.source,
            "subset": self.subset,
            "detector": self.detector,
            "count": self.count,
            "total": self.total,
            "what": self.what,
            "why": kind.why,
            "remedy": kind.remedy,
            "ids": list(self.ids),
            "matches": {identity: list(others) for identity, others in self.matches.items()},
        }


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """The serious ones first; within a severity in the order of :data:`KINDS`, then by share."""
    codes = list(KINDS)
    return sorted(
        findings,
        key=lambda each: (
            SEVERITIES.index(each.severity),
            codes.index(each.code),
            -each.count / max(1, each.total),
        ),
    )
