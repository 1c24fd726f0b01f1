"""``preview``: decoded training samples with what is supervised in colour, before anything is trained (pitfalls A9)."""

from __future__ import annotations

import argparse
import re

from rich.console import Console
from rich.text import Text

from vlsafe.cli import built
from vlsafe.data.encoding import IGNORE, Encoded, Encoding


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="vlsafe preview",
        usage="vlsafe preview --config C [--config OVERLAY] [--a.b=c] [-n N] [--start START]",
        description="Reads a config and its data, loads no weights. Writes what was found in the backbone, then the "
        "first samples of the mixture as text: supervised tokens in green and between « », the others dim.",
    )
    parser.add_argument("-n", type=int, default=3, help="samples to show (default 3)")
    parser.add_argument("--start", type=int, default=0, help="first step of the mixture to show (default 0)")
    options, rest = parser.parse_known_args(argv)
    run = built(rest)
    mixture = run.datamodule.open(run.model.backbone)
    encoding = run.datamodule.encoding(run.model.backbone)
    console = Console()
    for line in run.model.backbone.inferred():
        console.print(line, highlight=False, markup=False)
    for name, source in run.datamodule.sources.items():
        for kind, count in source.changes.items():
            console.print(
                f"{name}, not taken as it stands: {kind}: {count:,}", highlight=False, markup=False, soft_wrap=True
            )
    for step in range(options.start, options.start + options.n):
        part, record = mixture.at(step)
        conversation = run.datamodule.sources[part][record]
        encoded = encoding.sample(conversation)
        console.rule(f"step {step}: {part}, record {conversation.id}", align="left")
        for image in conversation.images:
            console.print(f"picture: {image}", style="cyan", highlight=False, markup=False)
        console.print(marked(encoded, encoding))
        console.print(f"{len(encoded.input_ids)} tokens, {encoded.supervised} supervised", style="bold")
        changed = [*conversation.changes, *(f"{kind}: {count:,}" for kind, count in encoded.changes.items())]
        for line in changed:
            console.print(
                f"not taken as it stands: {line}", style="yellow", highlight=False, markup=False, soft_wrap=True
            )
    return 0


def marked(encoded: Encoded, encoding: Encoding) -> Text:
    """The decoded sample, supervised spans in green and between « »; runs of picture tokens shortened."""
    text = Text()
    runs: list[tuple[bool, list[int]]] = []
    for token, label in zip(encoded.input_ids.tolist(), encoded.labels.tolist(), strict=True):
        supervised = label != IGNORE
        if not runs or runs[-1][0] != supervised:
            runs.append((supervised, []))
        runs[-1][1].append(token)
    pictures = encoding.tokenizer.convert_ids_to_tokens(encoding.processor.image_token_ids)
    repeated = re.compile(f"({'|'.join(map(re.escape, pictures))})\\1+")
    for supervised, tokens in runs:
        words = repeated.sub(lambda m: f"{m[1]} x {len(m[0]) // len(m[1])} ", encoding.tokenizer.decode(tokens))
        text.append(f"«{words}»" if supervised else words, style="green" if supervised else "dim")
    return text
