"""What ``trainer.strategy: auto`` takes, from the plan's numbers and from a config on machines that are not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import yaml

from vlsafe.cli import built
from vlsafe.errors import ConfigError
from vlsafe.planning.choosing import chosen_strategy, least_of, machine_here, recomputes
from vlsafe.planning.memory import GIB, Checkpointing, Machine, Needs, Strategy
from vlsafe.strategies.fsdp2 import FSDP2

ROWS: list[tuple[Strategy, Checkpointing, int]] = [
    ("ddp", "off", 100), ("ddp", "full", 60), ("hsdp", "off", 50), ("hsdp", "full", 30), ("fsdp2", "off", 40),
    ("fsdp2", "full", 20),
]  # fmt: skip


def needs(strategy: Strategy, checkpointing: Checkpointing, gib: int) -> Needs:
    return Needs(strategy, checkpointing, gib * GIB, 0, 0, 0, 0, 0, 0)


def machine(memory: float, gpus: int = 16) -> Machine:
    return Machine(gpus, 8, round(memory * GIB / 0.9), 1, 1)


@pytest.mark.parametrize(
    ("memory", "recomputing", "strategy", "why"),
    [
        (101, False, "ddp", "ddp: it needs 100.0 GiB of 101.0 GiB, and nothing need be shared"),
        (99, False, "hsdp", "hsdp: ddp would need 100.0 GiB of 99.0 GiB"),
        (99, True, "ddp", "ddp with checkpointing: it needs 60.0 GiB"),
        (45, False, "fsdp2", "fsdp2: ddp would need 100.0 GiB of 45.0 GiB; hsdp would need 50.0 GiB"),
        (45, True, "hsdp", "hsdp with checkpointing: ddp with checkpointing would need 60.0 GiB"),
        (25, False, "fsdp2", "activation_checkpointing: true needs less. fsdp2 is tried all the same"),
        (15, True, "fsdp2", "or adapters (train: lora). fsdp2 is tried all the same"),
    ],
)
def test_the_least_that_fits_with_the_runs_own_checkpointing(
    memory: float, recomputing: bool, strategy: str, why: str
) -> None:
    row, words = least_of([needs(*row) for row in ROWS], recomputing, machine(memory))
    assert row.strategy == strategy and why in words


@pytest.mark.parametrize(
    ("every", "expected"),
    [(True, True), (False, False), ({"language": 1}, True), ({"language": 2, "vision": 1}, False)],
)
def test_half_a_checkpointing_counts_as_none(every: bool | dict[str, int], expected: bool) -> None:
    assert recomputes(SimpleNamespace(activation_checkpointing=every)) is expected  # type: ignore[arg-type]


@pytest.fixture
def on_gpus(config: Path) -> Path:
    told = yaml.safe_load(config.read_text())
    told["trainer"] |= {"precision": "bf16-mixed"}
    config.write_text(yaml.safe_dump(told))
    return config


@pytest.mark.slow
def test_a_config_on_machines_that_are_not_there(on_gpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = built(["--config", str(on_gpus), "--trainer.precision=32-true", "--trainer.logger=false"])
    asked = run.parser.parse_args(["--config", str(on_gpus)]).trainer

    def chosen(there: Machine | None) -> FSDP2 | str:
        return chosen_strategy(run.model, run.datamodule, asked, there)

    assert chosen(None) == chosen(machine(1e-6, gpus=1)) == "auto"
    assert capsys.readouterr().err == ""
    assert chosen(Machine(2, 8, 80 * GIB, 1, 1)) == "ddp"
    assert "trainer.strategy auto: ddp: it needs" in capsys.readouterr().err
    sharded = chosen(Machine(8, 8, 1, 1, 1))  # a byte each
    assert isinstance(sharded, FSDP2) and sharded.replicas == 1
    assert "nothing fits" in " ".join(capsys.readouterr().err.split())
    with patch("vlsafe.planning.choosing.planned_run", side_effect=ConfigError("needs its weights")):
        assert chosen(Machine(2, 8, 1, 1, 1)) == "ddp"
    assert "there is no estimate: needs its weights" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("accelerator", "devices", "nodes", "expected"),
    [("auto", "auto", 1, (3, 3)), ("gpu", 2, 4, (8, 2)), ("cuda", "0,2", 1, (2, 2)), ("cpu", 2, 1, None)],
)
def test_the_machine_is_what_the_trainer_means(
    accelerator: str, devices: str | int, nodes: int, expected: tuple[int, int] | None
) -> None:
    asked = SimpleNamespace(accelerator=accelerator, devices=devices, num_nodes=nodes)
    with (
        patch("vlsafe.planning.choosing.CUDAAccelerator.is_available", return_value=True),
        patch(
            "vlsafe.planning.choosing.CUDAAccelerator.parse_devices", side_effect=lambda d: [0, 2][: d if d == 2 else 2]
        ),
        patch("torch.cuda.device_count", return_value=3),
        patch("torch.cuda.get_device_properties", side_effect=lambda i: SimpleNamespace(total_memory=(i + 5) * GIB)),
    ):
        found = machine_here(asked)
    assert (None if found is None else (found.gpus, found.per_node)) == expected
    assert found is None or found.memory == 5 * GIB  # the smallest of them


def test_without_gpus_nothing_is_chosen() -> None:
    with patch("vlsafe.planning.choosing.CUDAAccelerator.is_available", return_value=False):
        assert machine_here(SimpleNamespace(accelerator="auto", devices=2, num_nodes=1)) is None
