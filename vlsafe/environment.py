"""What a run was made with, for its ``environment.json``: versions and devices, never names or secrets."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import vlsafe

PACKAGES = (
    "torch",
    "lightning",
    "transformers",
    "peft",
    "accelerate",
    "torchmetrics",
    "datasets",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "jsonargparse",
    "omegaconf",
    "wandb",
    "numpy",
    "pillow",
    "gguf",
    "sentencepiece",
    "flash-attn",
    "torchvision",
)


def describe() -> dict[str, Any]:
    """JSON-serialisable facts that a result may depend on.

    No host, user or path names and no environment variables, so that the file can be shared as it is.
    Memory in GiB. A package that is not installed has version None.
    """
    from vlsafe.strategies import attention

    return {
        "vlsafe": vlsafe.__version__,
        "git": git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "cpu": _cpu(),
        "gpu": _gpu(),
        "attention": attention.available(),
    }


def git_revision() -> dict[str, Any] | None:
    """``{"commit", "dirty"}`` when vlsafe runs from a git checkout, None when it is an installed package."""
    root = Path(vlsafe.__file__).parent.parent
    if not (root / ".git").exists():  # never the revision of some other checkout around an installed package
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):  # no git here, no commit yet, or not our repository
        return None
    return {"commit": commit, "dirty": dirty}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def package_versions() -> dict[str, str | None]:
    """Name -> installed version, None where it is not installed. Imports nothing of them."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    import psutil
    import torch

    return {
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _gpu() -> dict[str, Any]:
    import torch

    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "cuda": torch.version.cuda,
        "devices": [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in devices],
        "mps": torch.backends.mps.is_available(),
    }
