"""The stages of an evaluation: items -> responses -> verdicts -> metrics. Each skips what its file already holds.

A response is found again by its key, the hash of all that determines it, so a retrained model or a changed picture
never meets old answers. Errors are kept as errors and tried again by the next run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from vlsafe.answering import Answer, Decoding, Responder
from vlsafe.conversation import ImageRef
from vlsafe.data.images import image_bytes
from vlsafe.errors import DataError, VlsafeError
from vlsafe.evaluation.benchmarks.base import Benchmark, check_unique
from vlsafe.evaluation.folder import verdicts_path, write_manifest, write_metrics
from vlsafe.evaluation.judges.base import Judge, item_of
from vlsafe.evaluation.judges.itself import refuse_judged
from vlsafe.evaluation.pairs import PairJudge, Preference, compare_pairs, preferences_path, read_preferences, rivalled
from vlsafe.evaluation.records import Item, Metric, Response, Verdict, to_json, write_text
from vlsafe.evaluation.scoring import benchmark_classes, check_errors, check_sides, score
from vlsafe.evaluation.sharing import ALONE, Processes


def write_items(items: Sequence[Item], path: Path) -> None:
    """Replace ``path`` by these items. Raises DataError when two of them share an id."""
    check_unique(items, str(path))
    write_text(path, "".join(to_json(item) + "\n" for item in items))


def response_key(model: Mapping[str, Any], question: str, image_sha256: str, decoding: Mapping[str, Any]) -> str:
    """sha256 over everything that determines an answer."""
    whole = json.dumps([model, question, image_sha256, decoding], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(whole.encode("utf-8", "backslashreplace")).hexdigest()


def generate(
    items: Sequence[Item],
    responder: Responder,
    decoding: Decoding,
    path: Path,
    batch: int = 16,
    processes: Processes = ALONE,
    shown: str = "answers",
) -> list[Response]:
    """The responses to ``items``, in their order; only those that ``path`` lacks are generated, behind a progress bar
    named ``shown``.

    Answers are appended to ``path`` in groups of ``batch`` as they come, so a kill costs at most one group. Rows of
    another model, picture or decoding stay in the file and are ignored. Each of ``processes`` answers its share, and
    gets the responses of all. Raises DataError for pictures that cannot be read (before anything is generated) and
    VlsafeError when the responder does not answer each prompt exactly once.
    """
    model = responder.identity()
    hashes = _image_hashes(items)
    how = {item.id: decoding_of(item, decoding) for item in items}
    models = {item.id: model | {"system_prompt": item.system} if item.system else model for item in items}
    keys = {
        item.id: response_key(models[item.id], item.question, hashes[item.image], asdict(how[item.id]))
        for item in items
    }
    stored = {(row.id, row.key): row for row in processes.collected(path, Response) if not row.error}
    missing = [item for item in items if (item.id, keys[item.id]) not in stored]

    def response(item: Item, answer: Answer) -> Response:
        return Response(
            key=keys[item.id],
            id=item.id,
            benchmark=item.benchmark,
            variant=item.variant,
            question=item.question,
            text="" if answer.error else answer.text,
            prompt=answer.prompt,
            n_tokens=answer.n_tokens,
            finish="error" if answer.error else answer.finish,
            error=answer.error,
            image_sha256=hashes[item.image],
            decoding=asdict(how[item.id]),
            model=models[item.id],
        )

    if processes.first and 0 < len(missing) < len(items):
        kept = len(items) - len(missing)
        Console(stderr=True).print(f"{shown}: {kept} of {len(items)} are there, {len(missing)} are asked", markup=False)
    answers = _answers(processes.share(missing), responder, how, shown if processes.first else "")
    made = processes.kept((response(item, answer) for item, answer in answers), path, batch)
    if processes.number > 1:
        made = processes.collected(path, Response)
    stored |= {(row.id, row.key): row for row in made}
    return [stored[item.id, keys[item.id]] for item in items]


def decoding_of(item: Item, decoding: Decoding) -> Decoding:
    """The run's decoding with what the item asks for itself: its options and its own limit."""
    return replace(
        decoding,
        options=item.options,
        max_new_tokens=decoding.max_new_tokens if item.max_new_tokens is None else item.max_new_tokens,
    )


def _answers(
    items: Sequence[Item], responder: Responder, how: Mapping[str, Decoding], shown: str
) -> Iterator[tuple[Item, Answer]]:
    """The responder's answers behind a progress bar of that name on standard error, none without a name; each item
    exactly once. Items that are decoded alike are asked together."""
    if not items:
        return
    alike: dict[Decoding, list[Item]] = {}
    for item in items:
        alike.setdefault(how[item.id], []).append(item)
    with Progress(console=Console(stderr=True), disable=not shown) as progress:
        task = progress.add_task(shown, total=len(items))
        for decoding, members in alike.items():
            for index, answer in _each_once(responder.respond([item.prompt() for item in members], decoding), members):
                progress.advance(task)
                yield members[index], answer


def _each_once(answers: Iterator[tuple[int, Answer]], items: Sequence[Item]) -> Iterator[tuple[int, Answer]]:
    open_ones = set(range(len(items)))
    for index, answer in answers:
        if index not in open_ones:
            raise VlsafeError(f"the responder gave index {index} twice or outside 0..{len(items) - 1}")
        open_ones.remove(index)
        yield index, answer
    if open_ones:
        raise VlsafeError(
            f"the responder left {len(open_ones)} of {len(items)} prompts unanswered, "
            f"the first is {items[min(open_ones)].id!r}; a failure must be an Answer with its error"
        )


def _image_hashes(items: Iterable[Item]) -> dict[ImageRef | None, str]:
    hashes: dict[ImageRef | None, str] = {None: ""}
    problems: list[str] = []
    for item in items:
        if item.image is None or item.image in hashes:
            continue
        try:
            hashes[item.image] = hashlib.sha256(image_bytes(item.image)).hexdigest()
        except DataError as error:
            hashes[item.image] = ""
            problems.append(f"item {item.id!r}: {error}")
    if problems:
        raise DataError(problems)
    return hashes


def judge_responses(
    responses: Sequence[Response],
    items: Sequence[Item],
    judge: Judge,
    path: Path,
    batch: int = 256,
    processes: Processes = ALONE,
) -> list[Verdict]:
    """The judge's verdicts on ``responses``, in their order; only those that ``path`` lacks are asked for, by each of
    ``processes`` its share. Raises ConfigError where the judge is the model that answered."""
    refuse_judged(judge, responses)
    by_id = {item.id: item for item in items}
    basis = {each.id: judge.basis(each, item_of(each, by_id)) for each in responses}
    # Of several rows the last counts, here and for whoever reads the file, so a superseded one is never revived.
    last = {(row.id, row.key): row for row in processes.collected(path, Verdict)}
    stored = {pair: row for pair, row in last.items() if row.label != "error" and row.basis == basis.get(row.id)}
    missing = [each for each in responses if (each.id, each.key) not in stored]
    made = processes.kept(judge.judge(processes.share(missing), by_id), path, batch)
    if processes.number > 1:
        made = processes.collected(path, Verdict)
    stored |= {(row.id, row.key): row for row in made}
    if missing and processes.first and judge.told():
        Console(stderr=True).print(judge.told(), markup=False)
    return [stored[each.id, each.key] for each in responses]


def evaluate(
    benchmarks: Sequence[Benchmark],
    responder: Responder,
    judge: Judge,
    decoding: Decoding,
    out: Path,
    processes: Processes = ALONE,
    pair_judge: PairJudge | None = None,
) -> dict[str, Metric]:
    """All four stages into the folder ``out``; returns what ``metrics.json`` holds, in each of ``processes``.

    ``pair_judge`` compares answers with the rivals' that items bring; its preferences are kept beside the verdicts.
    Run again, on any number of processes, it does only what is missing. Raises DataError or ConfigError before anything
    is generated when the benchmarks cannot be read, share a name or lack the harm or the benign side; VlsafeError, with
    all files written, when more than 1 % of the responses, verdicts or preferences are errors.
    """
    items = [item for benchmark in benchmarks for item in benchmark.items()]
    classes = benchmark_classes(benchmarks)
    check_sides(items)
    if pair_judge is not None:
        rivalled(items)  # raises before anything is generated
    if processes.first:
        write_items(items, out / "items.jsonl")
    responses = generate(items, responder, decoding, out / "responses.jsonl", processes=processes)
    verdicts = judge_responses(responses, items, judge, verdicts_path(out, judge.name), processes=processes)
    preferences: list[Preference] = []
    if pair_judge is not None:
        if processes.first:
            by_id = {response.id: response for response in responses}
            compare_pairs(items, by_id, pair_judge, preferences_path(out, pair_judge.name))
        processes.wait()
        keys = {response.id: response.key for response in responses}
        preferences = [each for each in read_preferences(out) if each.key == keys.get(each.item_id)]
    metrics = score(items, responses, verdicts, classes, preferences)
    if processes.first:
        write_manifest(out, responses, judge, classes)
        write_metrics(out, judge.name, metrics, items, verdicts, classes)
    check_errors(responses, verdicts, preferences)
    return metrics
