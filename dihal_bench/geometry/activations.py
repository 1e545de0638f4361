"""Activations of all candidate layers from one pass over the text; only sampled rows are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dihal_bench import distributed
from dihal_bench.geometry.token_means import shrunk_token_means
from dihal_bench.progress import progress

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from dihal_bench.backbone.model import Backbone
    from dihal_bench.text.tokens import PackedTokens

_BATCH = 8  # windows per pass


@dataclass(frozen=True)
class LayerSample:
    """One layer's sampled activations.

    Attributes:
        states: [rows, D]; row r is the same token at every layer.
        transformed: the same rows as the interface's target has them, [rows, D].
    """

    states: Tensor
    transformed: Tensor


def sample_activations(
    backbone: Backbone,
    data: PackedTokens,
    layers: list[int],
    *,
    windows: int,
    per_window: int,
    residual: str,
    seed: int,
) -> dict[int, LayerSample]:
    """Run the backbone once over ``windows`` windows; keep ``per_window`` random tokens of each.

    The windows are dealt to all processes, and all have the rows of all windows in the end.

    Args:
        backbone: the model.
        data: text; windows are drawn without replacement.
        layers: which layers.
        windows: at most so many, fewer where the text is shorter.
        per_window: tokens kept of each window, without replacement.
        residual: what the target subtracts before it is standardised: "none" (the mean) or
            "token-mean".
        seed: of the choice.
    """
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(data))[:windows])
    places = np.stack([np.sort(generator.permutation(data.window)[:per_window]) for _ in chosen])
    kept = np.concatenate(
        [data.batch([w]).tokens[0, p] for w, p in zip(chosen, places, strict=True)]
    )
    tables = {layer: _Table(kept, backbone, by_token=residual == "token-mean") for layer in layers}
    none = torch.zeros(0, backbone.hidden_size)
    rows: dict[int, list[Tensor]] = {layer: [none] for layer in layers}
    with torch.no_grad(), progress("locate", len(chosen), unit="windows") as bar:
        for lo, counts in distributed.turns(range(0, len(chosen), _BATCH)):
            batch = data.batch(chosen[lo : lo + _BATCH])
            tokens, positions = torch.from_numpy(batch.tokens), torch.from_numpy(batch.positions)
            states = backbone.states(
                tokens.to(backbone.device), positions.to(backbone.device), layers
            )
            for layer in layers if counts else ():
                state = states.hidden[layer].float().cpu()
                tables[layer].add(tokens, positions, state)
                rows[layer].append(_pick(state, places[lo : lo + _BATCH]))
            bar.update(len(tokens) * distributed.size())
    samples = {}
    for layer, parts in rows.items():
        states_here = distributed.gather_rows(torch.cat(parts))
        tables[layer].add_others()
        samples[layer] = LayerSample(states_here, tables[layer].transform(states_here))
    return samples


def _pick(state: Tensor, places: NDArray[np.int64]) -> Tensor:
    """Return the rows at ``places`` [B, k] of ``state`` [B, T, D], as [B * k, D]."""
    index = torch.from_numpy(places)[..., None].expand(-1, -1, state.shape[-1])
    return state.gather(1, index).flatten(0, 1)


class _Table:
    """Sums of a layer's states over all text seen, by sampled token id: for its transform."""

    def __init__(self, kept: NDArray[np.int64], backbone: Backbone, *, by_token: bool):
        self._ids, self._row = torch.unique(torch.from_numpy(kept), return_inverse=True)
        if not by_token:  # one pseudo-id for all
            self._ids, self._row = (
                torch.zeros(1, dtype=torch.int64),
                torch.zeros(len(kept), dtype=torch.int64),
            )
        slots = torch.full(
            (backbone.vocab_size,), len(self._ids)
        )  # the spare last row: not sampled
        slots[self._ids] = torch.arange(len(self._ids))
        self._slots = slots if by_token else torch.zeros_like(slots)
        size = (len(self._ids) + 1, backbone.hidden_size)
        self._sum, self._square = (
            torch.zeros(size, dtype=torch.float64),
            torch.zeros(size, dtype=torch.float64),
        )
        self._count = torch.zeros(size[0], dtype=torch.float64)
        self._inside_sum = torch.zeros(size[1], dtype=torch.float64)
        self._inside_square, self._inside = torch.zeros_like(self._inside_sum), 0

    def add(self, tokens: Tensor, positions: Tensor, state: Tensor) -> None:
        """Add states [B, T, D]; position 0 counts for its token but not for the overall mean."""
        slot = self._slots[tokens].flatten()
        flat = state.flatten(0, 1).double()
        self._sum.index_add_(0, slot, flat)
        self._square.index_add_(0, slot, flat.square())
        self._count.index_add_(0, slot, torch.ones(len(slot), dtype=torch.float64))
        inside = (positions > 0).flatten()
        self._inside_sum += flat[inside].sum(0)
        self._inside_square += flat[inside].square().sum(0)
        self._inside += int(inside.sum())

    def add_others(self) -> None:
        """Add the sums of the other processes, if there are any."""
        inside = torch.tensor(self._inside)
        sums = (self._sum, self._square, self._count, self._inside_sum, self._inside_square)
        distributed.add_up(*sums, inside)
        self._inside = int(inside)

    def transform(self, states: Tensor) -> Tensor:
        """Return (h - baseline) / standard deviation for the sampled rows [rows, D]."""
        mean = self._inside_sum / self._inside
        if len(self._ids) == 1:
            table, variance = mean[None], self._inside_square / self._inside - mean.square()
        else:
            table, variance = shrunk_token_means(
                self._sum[:-1], self._count[:-1], self._square[:-1].sum(0), mean
            )
        scale = torch.where(variance > 0, variance.clamp(min=0).sqrt(), torch.ones_like(variance))
        return ((states.double() - table[self._row]) / scale).float()
