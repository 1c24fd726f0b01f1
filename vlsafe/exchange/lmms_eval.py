"""Sample logs of lmms-eval: JSON Lines, one file a task, as its ``--log_samples`` writes them.

A row holds ``doc_id``, ``doc`` (the record without pictures), ``target``, what was asked (``arguments``, in newer
releases ``input``), ``resps`` and ``filtered_resps``, and hashes (EvolvingLMMs-Lab/lmms-eval, evaluator.py).
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from vlsafe.errors import DataError
from vlsafe.evaluation.folder import Folder
from vlsafe.evaluation.records import Item, Response, Side, numbered_rows, write_text
from vlsafe.exchange import LOG

_KEPT = (
    "id",
    "benchmark",
    "variant",
    "side",
    "question",
    "group",
    "cluster",
    "instruction_for_judge",
    "meta",
    "system",
)
"""Fields of an Item that go into ``doc``, so that our own logs come back as the same items."""


def write(folder: Folder, out: Path) -> list[Path]:
    """One file a scope, ``samples_<scope>.jsonl`` in ``out``; verdicts stand in each row as ``vlsafe``."""
    answers = {response.id: response for response in folder.responses}
    labels = {verdict.id: verdict for verdict in folder.verdicts}
    by_scope: dict[str, list[Item]] = {}
    for item in folder.items:
        by_scope.setdefault(item.scope, []).append(item)
    files = []
    for scope, items in by_scope.items():
        rows = []
        for number, item in enumerate(items):
            verdict = labels[item.id]
            judged = {"judge": verdict.judge, "label": verdict.label, "score": verdict.score}
            rows.append(_row(number, item, answers[item.id]) | {"vlsafe": judged})
        file = out / f"samples_{re.sub(r'[^A-Za-z0-9=._-]+', '_', scope).strip('_')}.jsonl"
        write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        files.append(file)
    return files


def _row(number: int, item: Item, answer: Response) -> dict[str, Any]:
    doc = {key: getattr(item, key) for key in _KEPT} | {"image_sha256": answer.image_sha256, "error": answer.error}
    return {
        "doc_id": number,
        "doc": doc,
        "target": item.reference,
        "input": item.question,
        "arguments": [item.question, answer.decoding, number, item.benchmark, item.variant],
        "resps": [[answer.text]],
        "filtered_resps": [answer.text],
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(item.question),
        "target_hash": _hash(item.reference),
    }


def read(file: Path, benchmark: str, side: Side) -> tuple[list[Item], list[Response]]:
    """Items and answers of one log. Of a log of ours they are the very items; of any other, all are of ``benchmark``
    and ``side``, and named by ``doc_id``. Pictures are not in such logs.

    Raises DataError naming every row that lacks ``doc_id``, what was asked, or exactly one answer.
    """
    problems: list[str] = []
    items, answers = [], []
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for where, row in numbered_rows(file, problems):
        question, text = _question(row), _answer(row)
        if row.get("doc_id") is None or question is None or text is None:
            problems.append(f"{where}: needs doc_id, input or arguments, and one answer in filtered_resps or resps")
            continue
        doc = row["doc"] if isinstance(row.get("doc"), dict) else {}
        ours = "vlsafe" in row and set(_KEPT) <= set(doc)
        facts = {key: doc[key] for key in _KEPT} if ours else _facts(row, benchmark, side, question)
        item = Item(**facts, reference=row["target"] if isinstance(row.get("target"), str) else "")
        items.append(item)
        answers.append(_response(item, text, str(doc.get("error") or "") if ours else "", doc if ours else {}, digest))
    if problems or not items:
        raise DataError(problems or f"{file}: no rows")
    return items, answers


def _facts(row: dict[str, Any], benchmark: str, side: Side, question: str) -> dict[str, Any]:
    return {
        "id": f"{benchmark}/{row['doc_id']}",
        "benchmark": benchmark,
        "variant": "",
        "side": side,
        "question": question,
        "meta": {LOG: "lmms-eval"},
    }


def _response(item: Item, text: str, error: str, doc: dict[str, Any], digest: str) -> Response:
    model = {"imported": digest}
    key = hashlib.sha256(json.dumps([model, item.id, item.question, text]).encode()).hexdigest()
    finish, picture = "error" if error else "eos", str(doc.get("image_sha256", ""))
    return Response(
        key, item.id, item.benchmark, item.variant, item.question, text, "", 0, finish, error, picture, {}, model
    )


def _question(row: dict[str, Any]) -> str | None:
    """What was asked, without the placeholder of a picture; in older logs the first text among the arguments."""
    asked = row.get("input") if isinstance(row.get("input"), str) else _first_text(row.get("arguments"))
    return None if asked is None else asked.replace("<image>", "").strip()


def _answer(row: dict[str, Any]) -> str | None:
    for key in ("filtered_resps", "resps"):
        found = row.get(key)
        if isinstance(found, list) and len(found) == 1:
            return _first_text(found)
    return None


def _first_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        return _first_text(value[0])
    return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
