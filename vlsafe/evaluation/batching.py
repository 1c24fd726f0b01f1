"""Whether answers in a batch are those that the same items get alone: padding must not change what is measured."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlsafe.answering import Decoding, Responder
from vlsafe.evaluation.benchmarks.base import rate
from vlsafe.evaluation.folder import metric_row
from vlsafe.evaluation.records import Item, write_text
from vlsafe.evaluation.sharing import ALONE, Processes
from vlsafe.evaluation.stages import generate

logger = logging.getLogger(__name__)

FILE = "batching.json"


def check_batching(
    items: Sequence[Item],
    batched: Responder,
    alone: Responder,
    decoding: Decoding,
    out: Path,
    count: int = 32,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """Ask ``count`` items in batches and one by one, and write ``batching.json``: ``{value, low, high, n, n_error,
    flipped}``, the share of answers that differ in percent, and their ids.

    The batched answers are the run's own and are not asked again; those made alone are kept in ``alone.jsonl``. Items
    scored by likelihood have no answer that could flip. In fp32 nothing should; in bf16 some do.
    """
    written = [item for item in items if not item.options]
    chosen = sorted(written, key=lambda item: hashlib.sha256(item.id.encode()).digest())[:count]
    together = generate(chosen, batched, decoding, out / "responses.jsonl", processes=processes, shown="check, batched")
    single = generate(chosen, alone, decoding, out / "alone.jsonl", processes=processes, shown="check, one by one")
    differs = {
        one.id: None if one.error or many.error else one.text != many.text
        for one, many in zip(single, together, strict=True)
    }
    flipped = sorted(item_id for item_id, flip in differs.items() if flip)
    found = metric_row(rate(differs.values())) | {"flipped": flipped}
    if processes.first:
        write_text(out / FILE, json.dumps(found, indent=1, allow_nan=False) + "\n")
    if flipped and processes.first:
        logger.warning(
            "%d of %d answers in a batch differ from those given alone, the first is %s; batch size 1 gives the latter",
            len(flipped),
            len(chosen),
            flipped[0],
        )
    return found


def read_batching(out: Path) -> dict[str, Any]:
    """What :func:`check_batching` wrote; empty where it was not run."""
    file = out / FILE
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
