"""Activations of all candidate layers from one pass over the text; only sampled rows are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dihal_bench.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from dihal_bench.backbone.model import Backbone
    from dihal_bench.text.tokens import PackedTokens

_BATCH = 8  # windows per pass


@dataclass(frozen=True)
class LayerSample:
    """Sampled token activations.

    Attributes:
        states: layer -> [rows, D]; row r is the same token at every layer.
        tokens: token id of each row, [rows].
        token_sum: layer -> sum of states per distinct token id in ``tokens``, over all text seen,
            float64 [ids, D]; empty unless asked for.
        token_count: occurrences of those ids, [ids].
        token_row: index of each row's token in the above, [rows].
        mean: layer -> mean over all text seen, position 0 left out, [D].
        windows: windows seen.
    """

    states: dict[int, Tensor]
    tokens: Tensor
    token_sum: dict[int, Tensor]
    token_count: Tensor
    token_row: Tensor
    mean: dict[int, Tensor]
    windows: int


def sample_activations(
    backbone: Backbone,
    data: PackedTokens,
    layers: list[int],
    *,
    windows: int,
    per_window: int,
    token_tables: bool,
    seed: int,
) -> LayerSample:
    """Run the backbone over at most ``windows`` windows and keep ``per_window`` random tokens of each.

    Args:
        backbone: the model.
        data: text; windows are drawn without replacement.
        layers: which layers.
        windows: at most so many.
        per_window: tokens kept of each, without replacement.
        token_tables: also sum states per token id (for the residual of the token's mean).
        seed: of the choice.
    """
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(data))[:windows])
    places = np.stack([np.sort(generator.permutation(data.window)[:per_window]) for _ in chosen])
    tokens = torch.from_numpy(
        np.concatenate([data.batch([w]).tokens[0, p] for w, p in zip(chosen, places, strict=True)])
    )
    ids, token_row = torch.unique(tokens, return_inverse=True)
    lookup = torch.full((backbone.vocab_size,), -1, dtype=torch.int64)
    lookup[ids] = torch.arange(len(ids))
    size = backbone.hidden_size
    rows: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    sums = {layer: torch.zeros(len(ids) + 1, size, dtype=torch.float64) for layer in layers}
    totals = {layer: torch.zeros(size, dtype=torch.float64) for layer in layers}
    count, inside_count = torch.zeros(len(ids) + 1, dtype=torch.float64), 0
    with torch.no_grad(), progress("locate", len(chosen), unit="window") as bar:
        for lo in range(0, len(chosen), _BATCH):
            batch = data.batch(chosen[lo : lo + _BATCH])
            ids_here = torch.from_numpy(batch.tokens)
            positions = torch.from_numpy(batch.positions)
            hidden = backbone.states(
                ids_here.to(backbone.device), positions.to(backbone.device), layers
            ).hidden
            keep = torch.from_numpy(places[lo : lo + _BATCH])
            inside = positions > 0
            inside_count += int(inside.sum())
            slot = lookup[ids_here].flatten()  # -1, the spare last row, where the id was not sampled
            count.index_add_(0, slot % (len(ids) + 1), torch.ones(slot.numel(), dtype=torch.float64))
            for layer in layers:
                state = hidden[layer].float().cpu()
                rows[layer].append(state.gather(1, keep[..., None].expand(-1, -1, size)).flatten(0, 1))
                totals[layer] += state[inside].double().sum(0)
                if token_tables:
                    sums[layer].index_add_(0, slot % (len(ids) + 1), state.flatten(0, 1).double())
            bar.update(len(batch.tokens))
    return LayerSample(
        states={layer: torch.cat(parts) for layer, parts in rows.items()},
        tokens=tokens,
        token_sum={layer: s[:-1] for layer, s in sums.items()} if token_tables else {},
        token_count=count[:-1],
        token_row=token_row,
        mean={layer: (t / inside_count).float() for layer, t in totals.items()},
        windows=len(chosen),
    )
