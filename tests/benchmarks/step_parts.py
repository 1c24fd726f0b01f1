"""What single changes to a training step would bring, each held to the step as it is: same loss, same gradients.

    python tests/benchmarks/step_parts.py --model quickstart --repeats 10

Ways that leave out a technique of vlsafe's tell what it brings: padded rows, logits at every position, one
block-diagonal mask instead of each sample's attention on its own. One process, LoRA, the same few batches again and
again; the ways take turns. What is told is the median over the repeats of *a way's processor time over that of the step
as it is, of the same repeat*: a busy machine takes no processor time from either. Set OMP_WAIT_POLICY=PASSIVE, so that
waiting threads use none. A change that does not pay stays here and not in ``vlsafe/``: docs/performance.md keeps the
account.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm

sys.path[:0] = [str(Path(__file__).parents[2])]

from peer_work import Work, build  # noqa: E402

from vlsafe.data.collate import Batch, Collate  # noqa: E402
from vlsafe.objectives.sft import SFT  # noqa: E402
from vlsafe.strategies.segments import SEGMENTED_SDPA  # noqa: E402

TOLERANCE = 1e-4
"""Of gradients, relative to the largest one of their tensor."""


def fused_norm(self: LlamaRMSNorm, hidden_states: Tensor) -> Tensor:
    """torch's own kernel instead of five element-wise operations."""
    return F.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


def fused_adapter(self: Linear, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Scaling and addition inside the second matrix product instead of two passes over the layer's output."""
    result = self.base_layer(x)
    low = self.lora_A["default"](x)
    up = self.lora_B["default"].weight.T
    return torch.addmm(result.flatten(0, -2), low.flatten(0, -2), up, alpha=self.scaling["default"]).view_as(result)


NORM = (LlamaRMSNorm, "forward", fused_norm)
ADAPTER = (Linear, "forward", fused_adapter)


@dataclass(frozen=True)
class Way:
    """What is other than in the step as it is: functions put in the place of a class's own, or a technique left out."""

    patches: Sequence[tuple[type, str, Callable[..., Tensor]]] = ()
    padded: bool = False
    logits: Literal["supervised", "all"] = "supervised"
    attention: str = SEGMENTED_SDPA
    backward: bool = True


WAYS = {
    "as it is": Way(),
    "padded rows": Way(padded=True),
    "logits at every position": Way(logits="all"),
    "one mask for the row": Way(attention="sdpa"),
    "all three": Way(padded=True, logits="all", attention="sdpa"),
    "rms_norm of torch": Way([NORM]),
    "LoRA scaling in addmm": Way([ADAPTER]),
    "both": Way([NORM, ADAPTER]),
    "no backward at all": Way(backward=False),
}


@contextmanager
def changed(way: Way, model: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for owner, name, function in way.patches:
            stack.enter_context(patch.object(owner, name, function))
        model.set_attn_implementation({"text_config": way.attention})
        yield
    model.set_attn_implementation({"text_config": SEGMENTED_SDPA})


def step(work: Work, layouts: dict[bool, list[Batch]], way: Way) -> tuple[float, list[float], list[Tensor]]:
    """Seconds of processor time, the loss of every batch, and the gradients of all of them together. ``layouts``: the
    batches padded (True) or in one row each."""
    module, objective = work.module, SFT(way.logits)
    module.zero_grad(set_to_none=True)
    losses = []
    with changed(way, module._plain()):
        before = time.process_time()
        for batch in layouts[way.padded]:
            loss = objective(module.model, batch).loss
            if way.backward:
                loss.backward()
            losses.append(loss.detach())
        seconds = time.process_time() - before
    return seconds, [float(x) for x in losses], [p.grad.clone() for p in module.parameters() if p.grad is not None]


def check(way: str, losses: list[float], gradients: list[Tensor], reference: tuple[list[float], list[Tensor]]) -> None:
    """Raises SystemExit unless loss and gradients are those of the step as it is."""
    for ours, theirs in zip(losses, reference[0], strict=True):
        if abs(ours - theirs) > TOLERANCE * abs(theirs):
            raise SystemExit(f"{way}: loss {ours}, not {theirs}")
    if not WAYS[way].backward:
        return
    for mine, other in zip(gradients, reference[1], strict=True):
        gap = float((mine - other).abs().max() / other.abs().max().clamp(min=1e-12))
        if gap > TOLERANCE:
            raise SystemExit(f"{way}: a gradient differs by {gap:.1e} of its largest value")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "30m", "quickstart"), default="30m")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--batches", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = build(options.model, "lora", options.batches, Path(folder))
        work.module.train()
        with torch.no_grad():  # B is 0 at the start, and A would get no gradient to compare
            for name, parameter in work.module.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.02)
        size = work.data.batch_size
        samples = [work.dataset[i] for i in range(work.samples)]
        layouts = {
            padded: [
                Collate(work.collate.pad_id, padding_free=not padded)(samples[first : first + size])
                for first in range(0, work.samples, size)
            ]
            for padded in (False, True)
        }
        shares: dict[str, list[float]] = {way: [] for way in WAYS}
        _, *reference = step(work, layouts, WAYS["as it is"])
        for repeat in range(options.repeats):
            names = list(WAYS) if repeat % 2 else list(reversed(WAYS))
            times = {}
            for way in names:
                times[way], losses, gradients = step(work, layouts, WAYS[way])
                check(way, losses, gradients, (reference[0], reference[1]))
            for way, seconds in times.items():
                shares[way].append(seconds / times["as it is"])
            print(f"repeat {repeat + 1}: {times['as it is']:.2f} s as it is", file=sys.stderr, flush=True)
    for way, values in shares.items():
        low, high = min(values), max(values)
        print(f"{way:24} {statistics.median(values):6.3f} of the step as it is   {low:.3f} to {high:.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
