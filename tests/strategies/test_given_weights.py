"""A model cut over two processes starts from the adapter and the projector that it is given, as one process does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from family_llava import FAMILY as LLAVA
from fitting import POSTHOC, data, files, tensors, trainer
from processes import saved, together
from safetensors.torch import save_file
from short_run import SeededCheckpoint, strategy
from torch import Tensor

from vlsafe import SafetyFineTuning
from vlsafe.models.export import export_adapter
from vlsafe.strategies.shards import whole


def tuned(folder: Path, projector_weights: str | None = None, adapter: str | None = None) -> SafetyFineTuning:
    backbone = SeededCheckpoint(
        str(folder / "llava"), projector_weights=projector_weights, attention="sdpa", dtype="float32", **LLAVA.options
    )
    return SafetyFineTuning(backbone, POSTHOC, adapter=adapter, warmup_ratio=0.0)


def at_the_start(folder: Path, name: str, world: int, given: dict[str, str]) -> dict[str, Tensor]:
    """Every weight when training starts."""
    module = tuned(folder, **given)
    made = trainer(folder, devices=world, strategy=strategy(name), max_steps=0, precision="bf16-mixed")
    made.fit(module, datamodule=data(folder, batch_size=1))
    return {name: whole(tensor) for name, tensor in tensors(module).items()}


def each_of_two(folder: Path, given: dict[str, str]) -> None:
    torch.save(at_the_start(folder, "fsdp2", 2, given), folder / f"{torch.distributed.get_rank()}.pt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint; ``earlier``, an adapter and a projector all of 0.25; ``projector.safetensors``, all of 0.5."""
    files(tmp_path)
    (tmp_path / "llava").mkdir()
    LLAVA.write(tmp_path / "llava").save_pretrained(tmp_path / "llava")
    earlier = tuned(tmp_path)
    earlier.configure_model()
    assert earlier.model is not None
    with torch.no_grad():
        for parameter in earlier.model.parameters():
            if parameter.requires_grad:
                parameter.fill_(0.25)
    export_adapter(earlier, tmp_path / "earlier", "card")
    plain = earlier.backbone.load_model()
    half = {n: torch.full_like(p, 0.5) for n, p in plain.state_dict().items() if "multi_modal_projector" in n}
    save_file(half, tmp_path / "projector.safetensors", {"format": "pt"})
    return tmp_path


@pytest.mark.parametrize(
    ("given", "value", "where"),
    [
        ({"adapter": "earlier"}, 0.25, ("lora_", ".modules_to_save.")),
        ({"projector_weights": "projector.safetensors"}, 0.5, ("multi_modal_projector",)),
    ],
)
def test_what_is_given_is_what_training_starts_from(
    folder: Path, given: dict[str, str], value: float, where: tuple[str, ...]
) -> None:
    given = {name: str(folder / path) for name, path in given.items()}
    alone = at_the_start(folder, "single", 1, given)
    put = [tensor for name, tensor in alone.items() if any(part in name for part in where)]
    assert len(put) > 3 and all((tensor == value).all() for tensor in put)
    together(2, each_of_two, folder, given)
    for rank in (0, 1):
        found = saved(folder / f"{rank}.pt")
        assert found.keys() == alone.keys()
        assert [name for name, tensor in alone.items() if not torch.equal(found[name], tensor)] == []
