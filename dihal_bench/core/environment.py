"""What a run runs on: versions, threads, git state, and the process's memory."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

_PACKAGES = ("torch", "transformers", "diffusers", "numpy", "scipy", "safetensors", "tokenizers")
_ARITHMETIC = (  # of processors, by which products of matrices are rounded otherwise
    *("avx512_bf16", "avx512_fp16", "amx_bf16", "amx_fp16"),
    *("bf16", "sve", "sve2"),
)
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of glibc's mallopt


def keep_freed_memory() -> None:
    """Let the process keep what it frees, where its C library is glibc.

    By default every block above 32 MB, such as a batch's logits, goes back to the system at once,
    and the next one is faulted in page by page: up to a third of a training step on a CPU.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 2**26)


def describe(*, device: str, seed: int) -> dict[str, Any]:
    """Return the environment block of a record."""
    import torch

    from dihal_bench import __version__
    from dihal_bench.core import distributed

    return {
        "versions": {"dihal-bench": __version__, "python": platform.python_version()}
        | {name: metadata.version(name) for name in _PACKAGES},
        "git": _git(),
        "device": device,
        "machine": platform.machine(),
        "processor": _processor(torch.device(device)),
        "seed": seed,
        "threads": torch.get_num_threads(),
        "processes": distributed.size(),
    }


def _processor(device: torch.device) -> str:
    """Return what computes: on another kind of it the same seed gives other digits."""
    import torch

    if device.type != "cpu":
        named = getattr(torch.get_device_module(device), "get_device_name", None)
        return str(named(device)) if named else device.type
    has: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # a recent function
    vectors = torch.backends.cpu.get_cpu_capability()
    features = [name for name in _ARITHMETIC if has.get(name)]
    return " ".join([str(has.get("cpu_name", platform.machine())), vectors, *features])


def _git() -> str | None:
    """Return the source tree's commit, with "+" if it was changed; None outside a checkout."""
    here = Path(__file__).parent.parent
    if not (here.parent / ".git").exists():
        return None

    def ask(*question: str) -> str:
        command = ["git", "-C", str(here), *question]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        return ask("rev-parse", "HEAD")[:12] + ("+" if ask("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
