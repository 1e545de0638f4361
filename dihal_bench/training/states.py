"""The teacher's states of training windows, kept on disk for whatever reads the same text again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dihal_bench.core import kept
from dihal_bench.core.files import short_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from dihal_bench.data.tokens import PackedTokens
    from dihal_bench.models.model import Backbone

FOLDER = "DIHAL_BENCH_STATES"
_IT = "state"


@dataclass(frozen=True)
class KeptStates:
    """A file per window and layer; a damaged or missing one is made anew.

    All states but h_0, which a look-up makes. Whatever reads the same windows again, in a later
    epoch, with another seed or in another run, needs no pass of the teacher up to a kept layer.

    Attributes:
        folder: of this teacher, text and arithmetic.
    """

    folder: Path

    @classmethod
    def of(cls, backbone: Backbone, data: PackedTokens, *, autocast: bool) -> KeptStates | None:
        """Return those in the folder that the environment names; None: it names none."""
        place = os.environ.get(FOLDER)
        if not place or backbone.sharded:
            return None
        info = backbone.info
        depends = [info.fingerprint, info.dtype, data.fingerprint, data.window, autocast]
        return cls(Path(place) / short_hash(depends))

    def read(self, windows: Sequence[int], layers: Iterable[int]) -> dict[int, Tensor]:
        """Return the states [B, T, D] of those layers of which all windows are there.

        Args:
            windows: indices in the text.
            layers: asked for.
        """
        found = {}
        for layer in layers:
            files = [self._file(window, layer) for window in windows]
            if layer and all(map(kept.usable, files)):
                found[layer] = torch.stack([kept.read_tensors(f).tensors[_IT] for f in files])
        return found

    def write(self, windows: Sequence[int], states: Mapping[int, Tensor]) -> None:
        """Keep states [B, T, D] by layer."""
        for layer, state in states.items():
            if layer:
                for window, own in zip(windows, state.cpu(), strict=True):
                    kept.write_tensors(self._file(window, layer), {_IT: own.contiguous()})

    def _file(self, window: int, layer: int) -> Path:
        return self.folder / f"{layer}" / f"{window}.safetensors"
