"""Models and data sets on the Hugging Face hub, through its own client, which resumes and checks file by file."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.progress import Progress

from vlsafe.fetch.asset import Asset, FetchError

OTHER_FRAMEWORKS = ["*.msgpack", "*.h5", "*.ot", "*.onnx", "*.tflite"]
PICKLES = ["*.bin", "*.pth", "*.pt"]


def obtain(asset: Asset, downloads: Path, raw: Path, progress: Progress) -> dict[str, str]:
    """Download a snapshot (all of it, or the catalogue's parts) and return the commit that came.

    Raises FetchError saying which conditions to accept and how to log in for gated repositories, and what to check
    when a repository, a revision or the hub itself cannot be reached.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/{'' if asset.kind == 'hub-model' else 'datasets/'}{asset.where}"
    progress.stop()  # the client draws bars of its own
    try:
        commit = _snapshot(asset, raw)
    except GatedRepoError as error:
        raise FetchError(f"{asset.name}: {_gated_words(asset, page)}") from error
    except RevisionNotFoundError as error:
        raise FetchError(
            f"{asset.name}: {page} has no revision {asset.revision}; was its history rewritten?"
        ) from error
    except RepositoryNotFoundError as error:
        also = f" {_gated_words(asset, page)}." if asset.gated else ""
        raise FetchError(
            f"{asset.name}: the hub shows no {page} to you: it was moved or removed, or it is private or gated.{also} "
            "Log in with `hf auth login`, or set HF_TOKEN, and fetch again"
        ) from error
    except OfflineModeIsEnabled as error:
        raise FetchError(f"{asset.name}: HF_HUB_OFFLINE is set; unset it to fetch {page}") from error
    except (HTTPError, LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise FetchError(
            f"{asset.name}: {page} could not be fetched ({_first_line(error)}). Check the network (HF_ENDPOINT names a "
            "mirror); what came is kept, run the same command again to go on"
        ) from error
    finally:
        progress.start()
    shutil.rmtree(raw / ".cache", ignore_errors=True)  # the client's notes on how far it got
    return {"commit": commit}


def _snapshot(asset: Asset, raw: Path) -> str:
    from huggingface_hub import HfApi, snapshot_download

    repo_type = "model" if asset.kind == "hub-model" else "dataset"
    commit = HfApi().repo_info(asset.where, repo_type=repo_type, revision=asset.revision).sha or asset.revision
    names = HfApi().list_repo_files(asset.where, repo_type=repo_type, revision=commit)
    snapshot_download(
        asset.where,
        repo_type=repo_type,
        revision=commit,
        local_dir=raw,
        allow_patterns=[part.source for part in asset.parts] or None,
        ignore_patterns=_unwanted(names) if asset.kind == "hub-model" else None,
    )
    return commit


def _unwanted(names: list[str]) -> list[str]:
    """Copies of the weights for other frameworks, and pickled weights where the same exist as safetensors."""
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    return OTHER_FRAMEWORKS + (PICKLES if has_safetensors else [])


def _gated_words(asset: Asset, page: str) -> str:
    conditions = asset.gated or "Accept its conditions."
    return (
        f"{page} is gated, and you have no access yet. {conditions} Open {page} in a browser while logged in, then log "
        "in here with `hf auth login`, or set HF_TOKEN, and fetch again"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
