"""What lies in a model's folder: all that is needed, nothing unused, and no more than memory holds.

Only names and headers are read here; weights are read by transformers.
"""

import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dihal_bench.core.errors import UserError

_ADAPTERS = ("adapter_config.json", "adapter_model.*")
_WHOLE, _INDEX, _SUFFIX = "model.safetensors", "model.safetensors.index.json", "*.safetensors"
_SAME = "consolidated*"  # the same weights under their makers' own names
_DENSE = ("F64", "F32", "F16", "BF16")
# Buffers that older versions saved, which follow from the configuration.
_HARMLESS = re.compile(r"(rotary_emb\.inv_freq|\b(attn|attention)\.(masked_)?bias|position_ids)$")
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_GB = 1e9


@dataclass(frozen=True)
class Header:
    """A tensor in a file.

    Attributes:
        name: its key.
        dtype: as the format calls it, such as ``BF16``.
        size: number of its entries.
    """

    name: str
    dtype: str
    size: int


def check_folder(name: str, folder: Path) -> None:
    """Refuse a folder that lacks configuration or weights, or holds what would not be used.

    Raises:
        UserError: it does.
    """
    if not (folder / "config.json").is_file():
        raise UserError(
            f"backbone folder {name!r} has no config.json: give a folder made by save_pretrained"
        )
    if not any(folder.glob(_SUFFIX)):
        raise UserError(
            f"backbone folder {name!r} has no *.safetensors weights: save the model with "
            "save_pretrained of transformers 5 (pickled .bin files are never opened)"
        )
    adapters = [path for pattern in _ADAPTERS for path in sorted(folder.glob(pattern))]
    if adapters:
        raise adapter_error(name, adapters[0].name)
    known = {path.name for path in (*weight_files(folder), *folder.glob(_SAME))}
    strays = sorted(path.name for path in folder.glob(_SUFFIX) if path.name not in known)
    if strays and known:
        raise UserError(
            f"backbone folder {name!r} holds {strays[0]}, which is not read beside "
            f"{min(known)}: keep one set of weights there"
        )


def adapter_error(name: str, file: str) -> UserError:
    """The error that refuses a model with an adapter beside it."""
    return UserError(
        f"backbone {name!r} holds an adapter ({file}), which would be left out: merge it into the "
        "weights (merge_and_unload of peft), or move it elsewhere to benchmark the model without it"
    )


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads: the whole, or else what the index lists."""
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    try:
        listed = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        return [folder / file for file in sorted(set(listed))]
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return []  # transformers says what is wrong with it


def check_weights(name: str, folder: Path, config: Any, dtype: torch.dtype) -> None:
    """Refuse weights that cannot be read as numbers, or that memory cannot hold.

    Args:
        name: of the backbone.
        folder: where its files lie; those that are not there yet are not looked at.
        config: of the model.
        dtype: that the weights will have.

    Raises:
        UserError: they are quantised and no configuration says how, or too large.
    """
    headers = [header for path in weight_files(folder) for header in _headers(path)]
    packed = next((h for h in headers if h.name.endswith("weight") and h.dtype not in _DENSE), None)
    if packed and not getattr(config, "quantization_config", None):
        raise UserError(
            f"backbone {name!r} has weights in {packed.dtype} ({packed.name}) but no "
            "quantization_config that says how to read them: give the config.json that belongs to "
            "them, or dense weights"
        )
    check_memory(name, sum(header.size for header in headers), dtype)


def check_memory(name: str, parameters: int, dtype: torch.dtype) -> None:
    """Refuse a model whose weights exceed the memory that is free.

    Raises:
        UserError: they do.
    """
    needed, free = parameters * dtype.itemsize, free_memory()
    if free is not None and needed > free:
        smaller = "give --dtype bfloat16, " if dtype.itemsize > torch.bfloat16.itemsize else "give "
        raise UserError(
            f"the weights of backbone {name!r} take {needed / _GB:.1f} GB in "
            f"{str(dtype).removeprefix('torch.')}, and {free / _GB:.1f} GB of memory are free: "
            f"{smaller}a smaller backbone, or a machine with more memory"
        )


def free_memory() -> int | None:
    """Bytes that this process can still take; None where the system does not say."""
    return min(filter(None, (_of_machine(), _of_container())), default=None)


def check_used(name: str, unexpected: Collection[str]) -> None:
    """Refuse weights that no parameter of the model takes.

    Raises:
        UserError: there are some.
    """
    unused = sorted(key for key in unexpected if not _HARMLESS.search(key))
    if unused:
        more = f" and {len(unused) - 1} more" * (len(unused) > 1)
        raise UserError(
            f"backbone {name!r} has weights that no parameter of its configuration takes "
            f"({unused[0]}{more}), so that it would be another model: give the config.json that "
            "belongs to them, or save it without them"
        )


def _headers(path: Path) -> Iterator[Header]:
    """Names, dtypes and sizes of the tensors in a file; none of one that cannot be read."""
    try:
        with path.open("rb") as file:
            entries = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        entries.pop("__metadata__", None)
        found = [Header(key, own["dtype"], math.prod(own["shape"])) for key, own in entries.items()]
    except (OSError, ValueError, LookupError, AttributeError, TypeError, MemoryError):
        return  # transformers says what is wrong with it
    yield from found


def _of_machine() -> int | None:
    """Bytes that Linux calls available."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(encoding="ascii"))
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _of_container() -> int | None:
    """Bytes that are left of a control group's limit, beside those of files that can go."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        files = re.search(
            r"^inactive_file (\d+)", (_CGROUP / "memory.stat").read_text(), re.MULTILINE
        )
    except (OSError, ValueError):
        return None
    return int(limit) - used + int(files[1] if files else 0) if limit.isdigit() else None
