"""The data of a rehearsal: the first records of the config's own sources, or made-up ones where theirs are missing."""

from __future__ import annotations

import inspect
import pydoc
from pathlib import Path
from typing import Any

from vlsafe.data.sources import SOURCES, parse_spec
from vlsafe.errors import MissingDataError
from vlsafe.evaluation.benchmarks.base import Benchmark
from vlsafe.fetch.paths import resolved
from vlsafe.rehearsal.draft import Draft, classes
from vlsafe.rehearsal.excerpts import FIRST, first_records
from vlsafe.rehearsal.items import MADE_UP as MADE_UP_ITEMS
from vlsafe.rehearsal.records import MADE_UP as MADE_UP_RECORDS
from vlsafe.rehearsal.records import VLGUARD

_MOST = len(VLGUARD)
"""Of a counted part: so many made-up records are left whatever its ``where`` and ``without`` say."""


def supply(draft: Draft, folder: Path) -> None:
    """Replace sources and benchmarks by small ones in ``folder``."""
    draft.phase = "open data"
    _sources(draft, folder)
    draft.phase = "evaluate before"
    _evaluation(draft)
    _benchmarks(draft, folder)


def _sources(draft: Draft, folder: Path) -> None:
    data = draft.get("data.init_args")
    for name, part in data["parts"].items():
        part["source"] = _source(draft, name, part["source"], folder)
        if part.get("count") is not None and part["count"] > _MOST:
            draft.tell(f"part {name}, count {part['count']}", str(_MOST), "a rehearsal is short")
            part["count"] = _MOST
    for name, source in (data.get("validation") or {}).items():
        data["validation"][name] = _source(draft, f"validation {name}", source, folder)
    if data.get("prompts") is not None:
        data["prompts"] = _source(draft, "prompts", data["prompts"], folder)
    if data.get("manifest") is not None:
        draft.put("data.init_args.manifest", None, "its records are not those of a rehearsal")
        draft.leave_out("the replay of a manifest")


def _source(draft: Draft, name: str, source: Any, folder: Path) -> Any:
    options = dict(parse_spec(source)) if isinstance(source, str) else dict(source)
    kind = options.pop("kind", "")
    into = folder / name.replace(" ", "_")
    path = options.get("path")
    if path is None or kind not in SOURCES:
        return source  # opening it says what is wrong
    real = _there(str(path))
    if real is None and kind in MADE_UP_RECORDS:
        long = _longest(draft)
        made = MADE_UP_RECORDS[kind](into, options, long)
        why = "it is not on this machine" + ("" if long > 8 else "; none too long, for too_long is error")
        draft.tell(f"{name}: {kind}:{path}", "made-up records of the same schema", why)
        return {"kind": kind, **made}
    few = None if real is None else first_records(kind, options, real, into)
    if few is None:
        return source
    draft.tell(f"{name}: {kind}:{path}", f"its first records ({FIRST} at most)", "a rehearsal is short")
    return {"kind": kind, **few}


def _longest(draft: Draft) -> int:
    """Words of the longest answer: more than fit, where the config cuts those."""
    options = draft.get("data.init_args")
    limit = options.get("max_length", 2048)
    return limit + 1 if limit is not None and options.get("too_long") == "truncate" else 8


def _there(path: str) -> Path | None:
    try:
        found = Path(resolved(path))
    except MissingDataError:
        return None
    return found if found.exists() else None


def _evaluation(draft: Draft) -> None:
    draft.put("evaluation.max_new_tokens", min(draft.get("evaluation.max_new_tokens", 256), 8), "a rehearsal is short")
    judge = draft.get("evaluation.judge", "")
    if judge and not judge.startswith("keyword:"):
        draft.put("evaluation.judge", "keyword:vlsafe", "no weights and no server in a rehearsal")
        draft.leave_out(f"judge {judge}")


def _benchmarks(draft: Draft, folder: Path) -> None:
    """Wherever a benchmark is named, two items of each of its variants."""
    for number, each in enumerate(list(classes(draft.content))):
        kind = pydoc.locate(each["class_path"])
        if not (isinstance(kind, type) and issubclass(kind, Benchmark)):
            continue
        arguments = each.setdefault("init_args", {})
        path = arguments.get("path")
        name = arguments.get("name") or kind.__name__
        if "limit" in inspect.signature(kind).parameters:
            arguments["limit"] = min(arguments.get("limit") or 2, 2)
        if path is None or _there(str(path)) is not None:
            draft.tell(f"benchmark {name}", "two of its items of each variant", "a rehearsal is short")
        elif kind in MADE_UP_ITEMS:
            arguments |= MADE_UP_ITEMS[kind](folder / f"items_{number}", arguments)
            draft.tell(f"benchmark {name}: {path}", "made-up items of the same format", "it is not on this machine")
        # any other says itself how it is to be got
