"""A site on loopback, and a progress display that shows nothing."""

from __future__ import annotations

from collections.abc import Iterator

import huggingface_hub.constants
import pytest
from rich.progress import Progress

from tests.fetch.loopback import Hub, Site
from tests.loopback import serving
from vlsafe.fetch.kinds import url


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(url, "FIRST_PAUSE_SEC", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    offered = Site()
    with serving(offered.respond) as offered.address:
        yield offered


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    offered = Hub()
    with serving(offered.respond) as address:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield offered


@pytest.fixture
def progress() -> Progress:
    return Progress(disable=True)
