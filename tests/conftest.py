"""What every test shares: it reaches nothing but this machine, and uses no account of whoever runs it."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  # its log keeps the stream that it finds: not that of one test
import pytest
from hypothesis import settings

from tests.tiny_run import tiny_run

ROOT = Path(__file__).parents[1]

# The same examples on every run and machine: a change that is green here is green in CI.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def _this_machine_only() -> Iterator[None]:
    """Connections of this process beyond the loopback are refused; W&B writes offline runs."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not _is_loopback(address[0]):
            raise ConnectionRefusedError(f"tests may only reach this machine, not {address[0]}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_API_KEY", raising=False)
        yield


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host.partition("%")[0]).is_loopback


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The config of a whole run on a tiny model, in ``tmp_path``; its run directory is ``tmp_path / "run"``."""
    return tiny_run(tmp_path)


@pytest.fixture
def shared_data() -> Path:
    """Real benchmark files, kept beside the checkout and never in it; tests that need them skip without."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared benchmark files are not beside this checkout")
    return folder
