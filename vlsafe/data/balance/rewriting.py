"""Rows of VLGuard's schema in, rows of the same schema out, each change written beside what it changed."""

from __future__ import annotations

import copy
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlsafe.data.balance.refusals import varied
from vlsafe.data.balance.wording import AS_IT_IS, openings, table
from vlsafe.data.sources.vlguard import INSTRUCTIONS

SEED = 0
NOTE = "balance"
"""The key, in each pair, of what was changed and from what. Readers of VLGuard's schema leave it aside."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Balanced:
    """The rewritten rows in the source's order, added ones last, and what was done: counts by name."""

    rows: list[Row]
    summary: dict[str, Any]


def balanced(rows: Sequence[Row], same_request: bool = True, vary_refusals: bool = False) -> Balanced:
    """Give every subset the same openings, equally often; deterministic.

    The harmless and the harmful request about one picture get the same introduction, so that only their meaning
    differs. ``same_request`` adds records in which a harmless request that fits any picture is asked of a harmful one,
    refused in that picture's own words. ``vary_refusals`` rewrites the openings of refusals too. Ids, pictures, labels
    and all other fields stay. ``rows`` must be well-formed, as :func:`vlsafe.data.sources.vlguard.read_records` checks.
    """
    result = copy.deepcopy(list(rows))
    safe = _shuffled([row for row in result if row["safe"]])
    unsafe = _shuffled([row for row in result if not row["safe"]])
    fitting = [row for row in safe if _fits_any_picture(_pair(row, "safe_instruction")["safe_instruction"])]
    chosen = {id(row) for row in fitting}
    safe = fitting + [row for row in safe if id(row) not in chosen]  # first, so that they get all openings evenly
    for group in (safe, unsafe):
        for place, row in enumerate(group):
            _introduce(row, *divmod(place, len(openings())))
    added = _same_requests(fitting, unsafe) if same_request else []
    result += added
    if vary_refusals:
        _vary(result)
    return Balanced(result, _summary(result, added))


def _introduce(row: Row, turn: int, opening: int) -> None:
    pairs = row["instr-resp"]
    keys = [_key(pair) for pair in pairs]
    originals = [pair[key] for pair, key in zip(pairs, keys, strict=True)]
    introduced = openings()[opening].introduce(originals, turn)
    for pair, key, original, new in zip(pairs, keys, originals, introduced, strict=True):
        pair[key] = new.text
        pair[NOTE] = {
            "opening": openings()[opening].word,
            "template": new.template,
            "voice": new.voice,
            "instruction_was": original,
        }


def _same_requests(fitting: Sequence[Row], unsafe: Sequence[Row]) -> list[Row]:
    """As many for each opening: a further one here or there would make that opening tell something."""
    eligible = [row for row in unsafe if _harm_is_in_the_picture(row)]
    most = min(len(fitting), len(eligible)) // len(openings()) * len(openings())
    added = []
    for asked, shown in zip(fitting[:most], eligible, strict=False):
        request, refused = _pair(asked, "safe_instruction"), _pair(shown, "instruction")
        row = {key: value for key, value in shown.items() if key != "instr-resp"}
        row["id"] = f"{shown['id']}~same-request-as-{asked['id']}"
        note = {
            **request[NOTE],
            "added": "same request, unsafe picture",
            "request_from": asked["id"],
            "picture_and_response_from": shown["id"],
        }
        row["instr-resp"] = [{"instruction": request["safe_instruction"], "response": refused["response"], NOTE: note}]
        added.append(row)
    return added


def _vary(rows: Sequence[Row]) -> None:
    turns: Counter[str] = Counter()
    for row in rows:
        for pair in row["instr-resp"]:
            key = _key(pair)
            if key == INSTRUCTIONS["safe_safe"]:
                continue
            original = pair["response"]
            pair["response"], template = varied(original, turns[key])
            if template:
                turns[key] += 1
                pair[NOTE] |= {"response_template": template, "response_was": original}


def _fits_any_picture(request: str) -> bool:
    rule = table("templates.toml")["same_request"]
    text = " ".join(request.lower().split()).rstrip(".?! ")
    return any(re.fullmatch(each.replace("{PICTURE}", rule["picture"]), text) for each in rule["requests"])


def _harm_is_in_the_picture(row: Row) -> bool:
    rule = table("templates.toml")["same_request"]
    kind = [row["harmful_category"], row["harmful_subcategory"]]
    response = _pair(row, "instruction")["response"]
    return kind in rule["harmful_pictures"] and re.fullmatch(rule["refusal"], response.strip(), re.DOTALL) is not None


def _pair(row: Row, key: str) -> dict[str, Any]:
    return next(pair for pair in row["instr-resp"] if key in pair)


def _key(pair: dict[str, Any]) -> str:
    return next(key for key in INSTRUCTIONS.values() if key in pair)


def _shuffled(rows: list[Row]) -> list[Row]:
    random.Random(SEED).shuffle(rows)
    return rows


def _summary(rows: Sequence[Row], added: Sequence[Row]) -> dict[str, Any]:
    notes = [pair[NOTE] for row in rows for pair in row["instr-resp"]]
    return {
        "templates_version": table("templates.toml")["version"],
        "refusals_version": table("refusals.toml")["version"],
        "seed": SEED,
        "records": len(rows),
        "requests": len(notes),
        "rewritten": sum(note["template"] != AS_IT_IS for note in notes),
        "added_same_request": len(added),
        "pictures_with_both_requests": sum(row["safe"] for row in rows),
        "refusals_varied": sum("response_template" in note for note in notes),
        "openings": dict(Counter(note["opening"] for note in notes)),
    }
