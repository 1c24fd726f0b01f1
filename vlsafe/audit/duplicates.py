"""What occurs twice: within a source, and in training and test data both. Texts and names; pictures by their content
are in :mod:`vlsafe.audit.pictures`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from vlsafe.audit.exchanges import Audited, Exchange, original_id, picture_name
from vlsafe.audit.findings import Finding, Severity
from vlsafe.evaluation.judges.keyword import normalised

Key = Callable[[Exchange], str]


def duplicates(source: Audited) -> list[Finding]:
    """Repeated ids, picture names and instructions of one source. ``matches`` names the first of each kind."""
    records = _records(source.exchanges)
    return [
        *_repeated(source, "duplicate_id", "warning", records, lambda each: original_id(each.record), "records", "id"),
        *_repeated(source, "duplicate_picture_name", "warning", records, picture_name, "records", "picture name"),
        *_repeated(source, "duplicate_instruction", "note", source.exchanges, wording, "exchanges", "instruction"),
    ]


def leaks(train: Audited, test: Audited) -> list[Finding]:
    """Ids, picture names, labels and instructions of ``test`` that ``train`` holds as well."""
    old, new = _records(train.exchanges), _records(test.exchanges)
    found = [
        *_shared("leaked_id", "note", train, test, old, new, lambda each: original_id(each.record), "ids"),
        *_shared("leaked_picture_name", "serious", train, test, old, new, picture_name, "picture names"),
        *_shared("leaked_instruction", "note", train, test, train.exchanges, test.exchanges, wording, "instructions"),
    ]
    return found + _other_label(train, test)


def wording(exchange: Exchange) -> str:
    """The instruction without differences of case, spacing, quotes and closing punctuation."""
    return normalised(exchange.instruction).lower().rstrip(".?! ")


def groups(items: Iterable[Exchange], key: Key) -> dict[str, list[Exchange]]:
    """Exchanges by key; those whose key is empty are left out."""
    found: dict[str, list[Exchange]] = defaultdict(list)
    for each in items:
        if value := key(each):
            found[value].append(each)
    return found


def _records(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """One exchange for each record."""
    first: dict[str, Exchange] = {}
    for each in exchanges:
        first.setdefault(each.record, each)
    return list(first.values())


def _repeated(
    source: Audited, code: str, severity: Severity, items: Sequence[Exchange], key: Key, of: str, name: str
) -> list[Finding]:
    named = _naming(of)
    matches = {
        named(each): [named(group[0])] for group in groups(items, key).values() for each in group[1:] if group[1:]
    }
    if not matches:
        return []
    what = f"{len(matches)} of {len(items)} {of} repeat the {name} of an earlier one"
    return [Finding(code, severity, source.label, len(matches), len(items), what, ids=list(matches), matches=matches)]


def _shared(
    code: str,
    severity: Severity,
    train: Audited,
    test: Audited,
    old: Sequence[Exchange],
    new: Sequence[Exchange],
    key: Key,
    name: str,
) -> list[Finding]:
    known, tested = groups(old, key), groups(new, key)
    both = [value for value in tested if value in known]
    if not both:
        return []
    named = _naming("exchanges" if key is wording else "records")
    matches = {named(each): [named(other) for other in known[value]] for value in both for each in tested[value]}
    what = f"{len(both)} of {len(tested)} different {name} are in {train.label} as well"
    return [
        Finding(code, severity, test.label, len(both), len(tested), what, ids=list(matches), matches=matches),
    ]


def _other_label(train: Audited, test: Audited) -> list[Finding]:
    """Pictures by name: the set of subsets that a picture is used in is its label."""
    known, tested = groups(train.exchanges, picture_name), groups(test.exchanges, picture_name)
    both = [name for name in tested if name in known]
    differing = [name for name in both if _label(known[name]) != _label(tested[name])]
    if not differing:
        return []
    matches = {each.record: sorted({old.record for old in known[name]}) for name in differing for each in tested[name]}
    what = f"{len(differing)} of the {len(both)} pictures shared with {train.label} are labelled otherwise there"
    return [
        Finding(
            "leaked_other_label",
            "serious",
            test.label,
            len(differing),
            len(both),
            what,
            ids=list(matches),
            matches=matches,
        )
    ]


def _label(exchanges: Sequence[Exchange]) -> set[tuple[str, bool]]:
    return {(each.subset, each.refuses) for each in exchanges}


def _naming(of: str) -> Callable[[Exchange], str]:
    return (lambda each: each.record) if of == "records" else (lambda each: each.id)
