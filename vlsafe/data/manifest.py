"""A manifest: what a mixture may draw, record by record, and the rule that puts it in order; written, and replayed.

A manifest is JSON::

    {"format": 1, "vlsafe": "0.1.0", "rule": "...", "seed": 0, "samples": 7000, "share_of": "samples",
     "order_sha256": "...",
     "parts": {"safety": {"source": "vlguard:cache:vlguard#train", "licence": "MIT ...", "repeat": 1, "weight": 2,
                          "records": {"Ads_364812": "sha256 of its text and pictures", ...}}}}

``records`` are in the order in which draws number them, so that a replay gives the same samples whatever the order and
number of the records in the source may be by then. Every later pass follows from the same rule.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import vlsafe
from vlsafe.conversation import Conversation, ImageRef
from vlsafe.data.images import image_bytes
from vlsafe.data.mixture import Mixture, Part
from vlsafe.data.selection import SelectedSource
from vlsafe.data.sources import Source, parse_spec
from vlsafe.errors import ConfigError, DataError
from vlsafe.fetch.paths import resolved
from vlsafe.licences import licence_of

FORMAT = 1
RULE = (
    "The part of step k is Tijdeman's solution of the chairman assignment problem for the integer weights; its j-th "
    "draw is place (j mod n) of the permutation of its n records that numpy's "
    "default_rng([seed, crc32('<part>/pass<j div n>')]) gives."
)


def content_hash(conversation: Conversation) -> str:
    """sha256 of roles, texts and the bytes of the pictures, in reading order. Names, ids and tags are not part of it.

    Raises DataError when a picture cannot be read.
    """
    turns = [[turn.role, [_content(piece) for piece in turn.content]] for turn in conversation.turns]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()


def _content(piece: str | ImageRef) -> Any:
    if isinstance(piece, ImageRef):
        return {"picture": hashlib.sha256(image_bytes(piece)).hexdigest()}
    return piece


def describe(mixture: Mixture, sources: Mapping[str, Source], parts: Mapping[str, Part], share_of: str) -> dict:
    """The manifest of a mixture over opened sources. Reads every record that may be drawn, and its pictures."""
    described = {}
    for name, part in parts.items():
        records = {}
        for place in mixture.pools[name]:
            conversation = sources[name][int(place)]
            records[conversation.id] = content_hash(conversation)
        described[name] = {
            "source": part.source,
            "licence": _licence(part.source),
            **_choice(part),
            "weight": mixture.weights[name],
            "records": records,
        }
    return {
        "format": FORMAT,
        "vlsafe": vlsafe.__version__,
        "rule": RULE,
        "seed": mixture.seed,
        "samples": mixture.samples,
        "share_of": share_of,
        "order_sha256": _order_hash(mixture),
        "parts": described,
    }


def replay(
    path: Path,
    sources: Mapping[str, Source],
    parts: Mapping[str, Part],
    samples: int | None,
    seed: int,
    share_of: str,
) -> tuple[Mixture, dict[str, Source]]:
    """The mixture that the manifest describes, and the sources it draws from, in the manifest's order.

    Raises:
        ConfigError: the config asks for other parts, amounts or another seed than the manifest records.
        DataError: the file is no manifest; records are missing or differ from what it recorded, all of them named.
    """
    manifest = _read(path)
    _check_request(path, manifest, parts, {"samples": samples, "seed": seed, "share_of": share_of})
    chosen: dict[str, Source] = {}
    problems: list[str] = []
    for name, source in sources.items():
        recorded: dict[str, str] = manifest["parts"][name]["records"]
        places = {conversation.id: place for place, conversation in enumerate(source)}
        for identity, recorded_hash in recorded.items():
            if identity not in places:
                problems.append(f"part {name!r}, record {identity!r}: not in its source any more")
            elif content_hash(source[places[identity]]) != recorded_hash:
                problems.append(f"part {name!r}, record {identity!r}: its text or a picture is not what was recorded")
        chosen[name] = SelectedSource(source, [places.get(identity, 0) for identity in recorded])
    if problems:
        raise DataError([*problems, f"{path} cannot be replayed; bring back the data it was written from"])
    weights = {name: manifest["parts"][name]["weight"] for name in parts}
    pools = {name: len(source) for name, source in chosen.items()}
    mixture = Mixture.planned(weights, pools, manifest["samples"], seed)
    if _order_hash(mixture) != manifest["order_sha256"]:
        raise DataError(
            f"{path} was written by vlsafe {manifest['vlsafe']}, which put the same records in another order; "
            "replay it with that version"
        )
    return mixture, chosen


def _order_hash(mixture: Mixture) -> str:
    """sha256 of part and place in the part's ``records`` of every step of one pass."""
    place = {name: {int(record): n for n, record in enumerate(pool)} for name, pool in mixture.pools.items()}
    digest = hashlib.sha256()
    for step in range(mixture.samples):
        name, record = mixture.at(step)
        digest.update(f"{name}\t{place[name][record]}\n".encode())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"missing manifest {path}; write one with `python -m vlsafe data manifest`") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a manifest: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path} is not a manifest of format {FORMAT}; write one with `python -m vlsafe data manifest`")
    return manifest


def _check_request(path: Path, manifest: dict, parts: Mapping[str, Part], request: Mapping[str, Any]) -> None:
    problems = []
    if list(manifest["parts"]) != list(parts):
        raise ConfigError(f"{path} has the parts {', '.join(manifest['parts'])}, this config {', '.join(parts)}")
    for key, wanted in request.items():
        if wanted is not None and manifest[key] != wanted:
            problems.append(f"{path}: {key} is {manifest[key]!r}, in this config {wanted!r}")
    for name, part in parts.items():
        recorded = manifest["parts"][name]
        for key in _CHOICE:
            if recorded.get(key) != getattr(part, key):
                now = getattr(part, key)
                problems.append(f"{path}: {key} of part {name!r} is {recorded.get(key)!r}, in this config {now!r}")
    if problems:
        raise ConfigError(problems)


_CHOICE = ("share", "count", "repeat", "where", "without", "balance")


def _choice(part: Part) -> dict[str, Any]:
    return {key: value for key, value in asdict(part).items() if key in _CHOICE and value is not None}


def _licence(source: str | dict) -> str:
    return licence_of(resolved(str((parse_spec(source) if isinstance(source, str) else source)["path"])))
