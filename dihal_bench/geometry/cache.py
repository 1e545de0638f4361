"""Activations on disk: states of chosen layers, in shards that are checked, kept and read again.

A cache is a folder of safetensors files and a manifest. A shard holds the states of a few layers
for a block of windows, with the place of every token, and stands on its own. The manifest says
whose activations they are and the checksum of every finished shard; it is replaced as a whole
after each. So a process that is killed loses one block, and a shard that was damaged is known.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from dihal_bench.core import kept
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import atomic_path, lock
from dihal_bench.core.progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from dihal_bench.data.tokens import Text
    from dihal_bench.models.model import Backbone

PASS = 8  # windows per pass of the backbone
_LARGE = 2**25  # parameters from which on a pass over the text costs more than all that follows
PLACES = ("tokens", "documents", "offsets")  # of every token, int64

_SHARD = 2**27  # bytes of states in a shard; one pass of one layer is never divided
_MANIFEST = "manifest.json"
_FORMAT = 1


def is_large(backbone: Backbone) -> bool:
    """Whether a backbone is read with care for the time that it takes."""
    return backbone.info.parameters >= _LARGE


def read_states(
    backbone: Backbone,
    tokens: Tensor,
    positions: Tensor,
    layers: Sequence[int],
    *,
    autocast: bool,
) -> dict[int, Tensor]:
    """Return h_l [B, T, D] by layer from a pass that ends at the deepest of them.

    Args:
        backbone: the model.
        tokens: [B, T], on any device.
        positions: [B, T].
        layers: which of 0..N.
        autocast: whether a float32 backbone computes in bfloat16 where that is safe.
    """
    place = backbone.device
    cast = autocast and backbone.model.dtype == torch.float32
    with torch.no_grad(), torch.autocast(place.type, torch.bfloat16, enabled=cast):
        return backbone.states(tokens.to(place), positions.to(place), layers).hidden


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Where activations are kept, and of which layers.

    Attributes:
        folder: a folder of its own; made if it is missing.
        layers: which layers of 0..N are kept; None: those that are read.
    """

    folder: Path
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Shard:
    """States of some layers for the windows ``first`` .. ``first + count - 1`` of the cache."""

    first: int
    count: int
    layers: tuple[int, ...]

    @property
    def name(self) -> str:
        """The file's name."""
        return f"windows-{self.first}-layers-{self.layers[0]}-{self.layers[-1]}.safetensors"


class ActivationCache:
    """h_l [B, T, D] of chosen layers and windows: filled by the backbone, then read without it.

    Windows are run in passes of `PASS`, in their order: what is read back is, bit for bit and in
    the backbone's dtype, what `Backbone.states` returns for the same pass.

    Attributes:
        folder: where it lies.
        layers: the layers that it keeps, ascending.
        shards: all its shards, finished or not.
    """

    def __init__(
        self,
        folder: Path,
        backbone: Backbone,
        data: Text,
        windows: NDArray[np.int64],
        layers: Sequence[int],
        *,
        autocast: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ):
        """Open a cache, or plan one; nothing is written before `fill`.

        Args:
            folder: an empty or missing folder, or one that holds these activations.
            backbone: whose activations.
            data: the text.
            windows: indices into ``data``, in the order in which they are run, [W].
            layers: which layers; a cache that keeps more of them is as good.
            autocast: as `read_states` takes it.
            say: takes one-line messages for a person.

        Raises:
            UserError: the folder holds something else, or the backbone has no such layer.
        """
        self.folder, self._backbone, self._data, self._say = folder, backbone, data, say
        self._windows, self._autocast = windows, autocast
        self._dtype: torch.dtype = backbone.model.dtype
        self.layers = tuple(sorted(set(layers)))
        self._check_layers()
        self._sums: dict[str, str] = {}
        self._adopt()
        self.shards = self._plan()

    @property
    def bytes(self) -> int:
        """What the shards take on disk, headers excluded."""
        return sum(self._bytes(shard) for shard in self.shards)

    @property
    def complete(self) -> bool:
        """Whether the manifest lists every shard; `fill` also verifies them."""
        return all(shard.name in self._sums for shard in self.shards)

    def fill(self) -> None:
        """Verify what is finished, and run the backbone for the rest.

        A shard that does not match its checksum is computed again, which is said.

        Raises:
            UserError: the disk is too small or full, or another process fills the same cache. What
                was finished is kept.
        """
        with self._held():
            found = self._verified()
            missing = [shard for shard in self.shards if shard.name not in found]
            if not missing:
                self._say(f"activations: all {len(self.shards)} shards are in {self.folder}")
                return
            self._announce(missing)
            self._sums = found
            self._write_manifest()
            tokens = sum({s.first: s.count for s in missing}.values()) * self._data.window
            with progress("cache activations", tokens, unit="tokens") as bar:
                for first in sorted({shard.first for shard in missing}):
                    self._compute([s for s in missing if s.first == first], bar.update)

    def states(self, first: int, count: int, layers: Sequence[int]) -> dict[int, Tensor]:
        """Read h_l [count, T, D] by layer, on the CPU, for the cache's windows from ``first`` on.

        Args:
            first: counts the cache's windows.
            count: windows; all of one pass, so that they lie in one block.
            layers: a selection of `layers`.
        """
        read: dict[int, Tensor] = {}
        for shard in self.shards:
            wanted = [layer for layer in layers if layer in shard.layers]
            if wanted and shard.first <= first < shard.first + shard.count:
                rows = slice(first - shard.first, first - shard.first + count)
                with safe_open(self.folder / shard.name, framework="pt") as file:
                    read |= {layer: file.get_slice(f"h{layer}")[rows] for layer in wanted}
        return read

    def places(self, first: int, count: int) -> dict[str, Tensor]:
        """Read "tokens", "documents" and "offsets" [count, T] of the same windows, int64."""
        shard = next(s for s in self.shards if s.first <= first < s.first + s.count)
        rows = slice(first - shard.first, first - shard.first + count)
        with safe_open(self.folder / shard.name, framework="pt") as file:
            return {name: file.get_slice(name)[rows] for name in PLACES}

    # --- what it holds ----------------------------------------------------------------------------

    def _check_layers(self) -> None:
        blocks = self._backbone.blocks
        wrong = [layer for layer in self.layers if not 0 <= layer <= blocks]
        if wrong or not self.layers:
            raise UserError(
                f"--cache-layers {','.join(map(str, wrong))}: {self._backbone.name} has layers 0 "
                f"to {blocks}; choose among those."
            )

    def _adopt(self) -> None:
        """Take over what the folder's manifest says, if it is of the same activations."""
        if self.folder.exists() and not self.folder.is_dir():
            raise self._refusal("it is a file")
        path = self.folder / _MANIFEST
        if not path.exists():
            self._check_empty()
            return
        manifest = kept.read_json(path, remedy="give another folder")
        try:
            held, sums = dict(manifest["holds"]), dict(manifest["shards"])
        except (KeyError, TypeError) as error:
            raise self._refusal(f"its {_MANIFEST} cannot be read ({error})") from error
        ours = self._identity()
        for name, own in ours.items():
            theirs = held.get(name)
            same = set(own) <= set(theirs or ()) if name == "layers" else theirs == own
            if not same:
                raise self._refusal(f"it holds activations of {name} {theirs}, not of {own}")
        self.layers, self._sums = tuple(held["layers"]), sums

    def _identity(self) -> dict[str, Any]:
        info = self._backbone.info
        dtype = f"{info.dtype} under autocast" if self._autocast else info.dtype
        return {
            "format": _FORMAT,
            "backbone": f"{info.name} ({info.fingerprint[:16]}, {dtype})",
            "text": self._data.fingerprint,
            "window length": self._data.window,
            "windows": f"{len(self._windows)} ({_digest(self._windows.tobytes())[:16]})",
            "layers": list(self.layers),
        }

    def _check_empty(self) -> None:
        if self.folder.is_dir() and any(p.name[0] != "." for p in self.folder.iterdir()):
            raise self._refusal("it holds files that are no activations")

    def _refusal(self, why: str) -> UserError:
        return UserError(f"--cache-activations {self.folder}: {why}; give another folder.")

    # --- shards -----------------------------------------------------------------------------------

    def _plan(self) -> list[Shard]:
        """Blocks of whole passes; the layers of one pass are divided where they are too large."""
        of_pass = PASS * self._data.window * self._backbone.hidden_size * self._dtype.itemsize
        passes = max(1, _SHARD // (of_pass * len(self.layers)))
        together = len(self.layers) if passes > 1 else max(1, _SHARD // of_pass)
        total, block = len(self._windows), passes * PASS
        return [
            Shard(first, min(block, total - first), self.layers[lo : lo + together])
            for first in range(0, total, block)
            for lo in range(0, len(self.layers), together)
        ]

    def _bytes(self, shard: Shard) -> int:
        of_states = len(shard.layers) * self._backbone.hidden_size * self._dtype.itemsize
        return shard.count * self._data.window * (of_states + len(PLACES) * 8)

    def _verified(self) -> dict[str, str]:
        """The checksums of the finished shards that still have them."""
        listed = [shard for shard in self.shards if shard.name in self._sums]
        found = {}
        with progress("verify activations", sum(map(self._bytes, listed)), unit="bytes") as bar:
            for shard in listed:
                path = self.folder / shard.name
                if path.exists() and kept.sha256(path) == self._sums[shard.name]:
                    found[shard.name] = self._sums[shard.name]
                else:
                    self._say(
                        f"activations: {path} is missing or does not match its checksum, and is "
                        "computed again"
                    )
                bar.update(self._bytes(shard))
        return found

    def _announce(self, missing: list[Shard]) -> None:
        """Say what will be written, and refuse what does not fit."""
        needed, free = sum(map(self._bytes, missing)), shutil.disk_usage(self.folder).free
        done = len(self.shards) - len(missing)
        self._say(
            f"activations: {size(needed)} to {self.folder} (layers "
            f"{', '.join(map(str, self.layers))} of {len(self._windows)} windows of "
            f"{self._data.window} tokens; shards: {len(missing)} to write, {done} kept); "
            f"{size(free)} free there"
        )
        if needed > free:
            raise UserError(
                f"--cache-activations {self.folder}: {size(needed)} are needed and {size(free)} "
                "are free; give a folder on a larger disk, or fewer --cache-layers or "
                "--set locate.windows."
            )

    def _compute(self, shards: list[Shard], done: Callable[[float], object]) -> None:
        """Run the backbone over the windows of one block, and write its shards."""
        block = shards[0]
        windows = self._data.batch(self._windows[block.first : block.first + block.count])
        layers = sorted({layer for shard in shards for layer in shard.layers})
        shape = (*windows.tokens.shape, self._backbone.hidden_size)
        states = {layer: torch.empty(shape, dtype=self._dtype) for layer in layers}
        for lo in range(0, block.count, PASS):
            here = slice(lo, lo + PASS)
            tokens, positions = (
                torch.from_numpy(array[here]) for array in (windows.tokens, windows.positions)
            )
            found = read_states(self._backbone, tokens, positions, layers, autocast=self._autocast)
            for layer in layers:
                states[layer][here] = found[layer]
            done(tokens.numel())
        places = {name: torch.from_numpy(getattr(windows, name)) for name in PLACES}
        for shard in shards:
            self._write(shard, {f"h{layer}": states[layer] for layer in shard.layers} | places)

    def _write(self, shard: Shard, tensors: dict[str, Tensor]) -> None:
        content = save(tensors)
        try:
            with atomic_path(self.folder / shard.name) as temporary:
                temporary.write_bytes(content)
            self._sums[shard.name] = _digest(content)
            self._write_manifest()
        except OSError as error:
            self._sums.pop(shard.name, None)
            raise UserError(
                f"--cache-activations {self.folder}: {error.strerror or error} after "
                f"{len(self._sums)} of {len(self.shards)} shards, which are kept; make room and "
                "repeat the command."
            ) from error

    def _write_manifest(self) -> None:
        identity = self._identity() | {"layers": list(self.layers)}
        kept.write_json(self.folder / _MANIFEST, {"holds": identity, "shards": self._sums})

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the folder against other processes; what a killed one was writing is removed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with lock(self.folder / _MANIFEST, wait=False) as held:
                if not held:
                    raise self._refusal("another process fills it")
                for rest in self.folder.glob(".*.safetensors.*"):
                    rest.unlink()
                yield
        except OSError as error:
            raise self._refusal(str(error.strerror or error)) from error


def size(count: float) -> str:
    """Bytes as a person reads them."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:,.1f} GiB"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
