"""What a run ran on: versions, threads, git state."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "transformers", "diffusers", "numpy", "scipy", "safetensors", "tokenizers")


def describe(*, device: str, seed: int) -> dict[str, Any]:
    """Return the environment block of a record."""
    from dihal_bench import __version__

    return {
        "versions": {"dihal-bench": __version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in _PACKAGES},
        "git": _git(),
        "device": device,
        "machine": platform.machine(),
        "seed": seed,
        "threads": torch.get_num_threads(),
    }


def _git() -> str | None:
    """Return the source tree's commit, with "+" if it was changed; None outside a checkout."""
    here = Path(__file__).parent
    if not (here.parent / ".git").exists():
        return None

    def ask(*question: str) -> str:
        command = ["git", "-C", str(here), *question]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        return ask("rev-parse", "HEAD")[:12] + ("+" if ask("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
