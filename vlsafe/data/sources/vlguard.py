"""VLGuard's schema: pictures, each with one harmful pair, or with one harmless and one harmful pair.

Schema and converter: Zong et al., "Safety Fine-Tuning at (Almost) No Cost", ICML 2024, arXiv 2402.02207, and its
repository ys-zong/VLGuard.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from vlsafe.conversation import Conversation, ImageRef, assistant, user
from vlsafe.data.images import find_image
from vlsafe.data.problems import BadRecords, Policy, UniqueIds
from vlsafe.data.sources.base import Source, convert_all
from vlsafe.data.sources.fields import Fields
from vlsafe.data.sources.pictures import note_missing
from vlsafe.data.sources.rows import read_rows
from vlsafe.errors import ConfigError, DataError

Split = Literal["train", "test"]
Subset = Literal["unsafe", "safe_unsafe", "safe_safe"]

INSTRUCTIONS: dict[Subset, str] = {
    "unsafe": "instruction",
    "safe_safe": "safe_instruction",
    "safe_unsafe": "unsafe_instruction",
}
"""The key under which a pair of each subset keeps its instruction."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An instruction and its response. ``unsafe`` and ``safe_unsafe`` responses refuse, ``safe_safe`` ones answer."""

    subset: Subset
    instruction: str
    response: str


@dataclass(frozen=True, slots=True)
class VLGuardRecord:
    """One picture with its pairs in the file's order.

    ``folder`` names the set that the picture was taken from (``HOD``, ``bad_ads``, ...). Safe pictures carry no
    category: theirs is an empty string.
    """

    id: str
    image: ImageRef
    folder: str
    safe: bool
    category: str
    subcategory: str
    pairs: tuple[Pair, ...]

    def tags(self, subset: str, refusal: str) -> dict[str, str]:
        tags = {"subset": subset, "folder": self.folder, "refusal": refusal}
        return tags if self.safe else tags | {"category": self.category, "subcategory": self.subcategory}


class VLGuardSource(Source):
    """VLGuard's schema as Conversations.

    ``path`` holds ``<split>.json`` and the pictures in ``<split>/`` or ``<split>.zip``. With ``two_turn`` a safe
    picture becomes one Conversation of two turns, its pairs in the random order of the paper's converter (seed 0),
    tagged subset ``safe`` and refusal ``mixed``; without it, two Conversations of one turn, ``safe_safe`` and
    ``safe_unsafe``.
    The published training file gives 2,000 and 2,977 Conversations.

    ``subsets`` keeps only those subsets. Tags: ``subset``, ``folder``, ``refusal`` (``true``, ``false``, ``mixed``)
    and, for unsafe pictures only, ``category`` and ``subcategory``. Raises as :func:`read_records`, and ConfigError
    for a subset that does not exist.
    """

    def __init__(
        self,
        path: Path | str,
        split: Split = "train",
        two_turn: bool = True,
        subsets: list[str] | None = None,
        check_images: bool = True,
        name: str = "vlguard",
        on_bad_record: Policy = "error",
    ) -> None:
        self.name = name
        records, self.skipped = checked_records(path, split, check_images, on_bad_record)
        valid = ["safe", "unsafe"] if two_turn else list(INSTRUCTIONS)
        unknown = [subset for subset in subsets or [] if subset not in valid]
        if unknown or subsets == []:
            kind = "two-turn" if two_turn else "single-turn"
            raise ConfigError(f"unknown subsets {unknown} of {kind} VLGuard; valid subsets: {', '.join(valid)}")
        # ids and the order of pairs are fixed before the choice of subsets, so that the choice changes neither
        converted = two_turn_conversations(records, name) if two_turn else single_turn_conversations(records, name)
        self._conversations = [each for each in converted if subsets is None or each.tags["subset"] in subsets]
        if not self._conversations:
            raise DataError(f"{Path(path) / f'{split}.json'} holds no record of the subsets {subsets}")

    def __len__(self) -> int:
        return len(self._conversations)

    def __getitem__(self, index: int) -> Conversation:
        return self._conversations[index]


def two_turn_conversations(records: Iterable[VLGuardRecord], source: str) -> Iterator[Conversation]:
    order = random.Random(0)
    for record in records:
        pairs = list(record.pairs)
        if record.safe:
            order.shuffle(pairs)
        turns = [turn for pair in pairs for turn in (user(pair.instruction), assistant(pair.response))]
        turns[0] = user(record.image, pairs[0].instruction)
        tags = record.tags("safe", "mixed") if record.safe else record.tags("unsafe", "true")
        yield Conversation(record.id, source, tuple(turns), tags)


def single_turn_conversations(records: Iterable[VLGuardRecord], source: str) -> Iterator[Conversation]:
    for record in records:
        for pair in record.pairs:
            identity = f"{record.id}/{pair.subset}" if record.safe else record.id
            turns = (user(record.image, pair.instruction), assistant(pair.response))
            tags = record.tags(pair.subset, "false" if pair.subset == "safe_safe" else "true")
            yield Conversation(identity, source, turns, tags)


def read_records(path: Path | str, split: Split = "train", check_images: bool = True) -> list[VLGuardRecord]:
    """The records of a split in the file's order, their ids made unique (``x``, ``x#2``).

    An empty response is an error in the training split. In the test split, whose responses are only references, it
    is kept: 17 of the published ones are empty, which is for the audit to say and for scorers to leave out.
    Raises DataError with all malformed records or all missing pictures, ConfigError for an unknown split.
    """
    return checked_records(path, split, check_images)[0]


def checked_records(
    path: Path | str, split: Split = "train", check_images: bool = True, on_bad_record: Policy = "error"
) -> tuple[list[VLGuardRecord], int]:
    """As :func:`read_records`; how much is wrong with the records that ``on_bad_record="skip"`` left out."""
    if split not in get_args(Split):
        raise ConfigError(f"unknown split {split!r} of VLGuard; valid splits: {', '.join(get_args(Split))}")
    file = Path(path) / f"{split}.json"
    rows = read_rows(file)
    root, prefix = _picture_root(Path(path), split, rows)

    def convert(row: Any, index: int) -> VLGuardRecord:
        return _record(row, index, root, prefix, may_lack_response=split == "test")

    bad, ids = BadRecords(file, on_bad_record), UniqueIds(file)
    records = {number: replace(one, id=ids.unique(one.id)) for number, one in convert_all(rows, convert, bad)}
    ids.report()
    pictures = ((number, record.id, (record.image,)) for number, record in records.items())
    lacking = note_missing(pictures, bad) if check_images else set()
    bad.done()
    kept = [record for number, record in records.items() if number not in lacking]
    if not kept:
        raise DataError(f"{file}: every record was left out by on_bad_record: skip; see the log for why")
    return kept, bad.count


def counts(records: Sequence[VLGuardRecord]) -> dict[str, dict[str, int]]:
    """Records per ``folder``, pairs per ``subset``, unsafe records per ``category`` and per ``subcategory``.

    A subcategory is named ``category / subcategory``, because names such as "other" mean nothing alone.
    """
    unsafe = [record for record in records if not record.safe]
    return {
        "folder": dict(Counter(record.folder for record in records)),
        "subset": dict(Counter(pair.subset for record in records for pair in record.pairs)),
        "category": dict(Counter(record.category for record in unsafe)),
        "subcategory": dict(Counter(f"{record.category} / {record.subcategory}" for record in unsafe)),
    }


def _record(row: Any, index: int, root: Path, prefix: str, may_lack_response: bool) -> VLGuardRecord:
    fields = Fields(row)
    identity, name, safe = fields.identity(index), fields.text("image"), fields.flag("safe")
    image = fields.image(root, prefix + name) if name else ImageRef(root, name)
    category = "" if safe else fields.text("harmful_category")
    subcategory = "" if safe else fields.text("harmful_subcategory")
    pairs = [_pair(each, fields, may_lack_response) for each in fields.items("instr-resp")]
    found = sorted(pair.subset for pair in pairs if pair is not None)
    if found != (["safe_safe", "safe_unsafe"] if safe else ["unsafe"]):
        expected = "one 'safe_instruction' and one 'unsafe_instruction'" if safe else "one 'instruction'"
        fields.note(f"the 'instr-resp' of {'a safe' if safe else 'an unsafe'} picture must hold {expected} pair")
    fields.done()
    complete = tuple(pair for pair in pairs if pair is not None)
    return VLGuardRecord(identity, image, name.rpartition("/")[0], safe, category, subcategory, complete)


def _pair(row: Any, record: Fields, may_lack_response: bool) -> Pair | None:
    fields = Fields(row)
    subset = next((subset for subset, key in INSTRUCTIONS.items() if key in fields.row), None)
    pair = None
    if subset is not None:
        response = fields.text("response", empty=may_lack_response)
        pair = Pair(subset, fields.text(INSTRUCTIONS[subset]), response)
    record.reasons += [f"'instr-resp': {reason}" for reason in fields.reasons]
    return pair


def _picture_root(path: Path, split: str, rows: Iterable[Any]) -> tuple[Path, str]:
    """The folder or zip file of the pictures, and what its names begin with.

    A zip file may hold the pictures at its top or in a folder named like the split; the first picture found tells.
    """
    folder, archive = path / split, path / f"{split}.zip"
    if folder.is_dir() or not archive.exists():
        return folder, ""
    names = (row.get("image") for row in rows if isinstance(row, dict))
    for name in (name for name in names if isinstance(name, str)):
        for prefix in ("", f"{split}/"):
            try:
                find_image(ImageRef(archive, prefix + name))
            except DataError:  # missing pictures are reported later, all together
                continue
            return archive, prefix
    return archive, ""
