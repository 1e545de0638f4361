"""Activations of all candidate layers from one pass over the text; only sampled rows are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dihal_bench.core import distributed
from dihal_bench.core.progress import progress, say
from dihal_bench.geometry.cache import (
    PASS,
    ActivationCache,
    CacheConfig,
    is_large,
    read_states,
)
from dihal_bench.geometry.crossfit import Scatter, covariance_half, crossed_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from dihal_bench.data.tokens import Text
    from dihal_bench.models.model import Backbone


def shrunk_token_means(
    token_sum: Tensor, token_count: Tensor, square_sum: Tensor, mean: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the empirical-Bayes means per token id and the variance within token ids.

    The weight of the prior, in tokens, is the ratio of the variance within token ids to that
    between them (one-way random-effects analysis of variance, pooled over dimensions).

    Args:
        token_sum: sums of states per token id, [V, D].
        token_count: occurrences per token id, [V]; an id that never occurs gets ``mean``.
        square_sum: sum of squared states over all tokens, [D].
        mean: what is shrunk to, [D].

    Returns:
        The table [V, D] and the variance within token ids per dimension [D].
    """
    total, seen = token_count.sum(), (token_count > 0).sum()
    means = token_sum / token_count.clamp(min=1)[:, None]
    within_square = square_sum - (token_count[:, None] * means.square()).sum(0)
    spare = (total - seen).clamp(min=1)
    within = within_square.sum() / spare
    groups = (token_count * (means - mean).square().sum(1)).sum()
    effective = total - token_count.square().sum() / total
    between = (groups - (seen - 1) * within) / effective
    prior = within / between.clamp(min=1e-12 * within + 1e-30)
    table = (token_sum + prior * mean) / (token_count + prior)[:, None]
    return table, within_square / spare


_PERMUTED = 2**20  # windows of a text that are drawn by shuffling them all


@dataclass(frozen=True)
class LayerSample:
    """One layer's sampled activations.

    Attributes:
        states: [rows, D]; row r is the same token at every layer.
        transformed: the same rows as the interface's target has them, [rows, D].
        inside: whether a row is no start of a document or window, bool [rows].
        crossed: whether a row is of the documents that make no covariance, [rows].
        scatter: of all tokens of the other documents; both None where nothing is cross-fitted.
    """

    states: Tensor
    transformed: Tensor
    inside: Tensor
    crossed: Tensor | None = None
    scatter: Scatter | None = None


def chosen_windows(data: Text, windows: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw windows without replacement, in memory that does not grow with the text.

    Args:
        data: the text.
        windows: how many; all of a text that has fewer.
        generator: `locate` starts with ``numpy.random.default_rng(seed)``.

    Returns:
        Their indices, ascending, [at most windows].
    """
    if len(data) <= max(_PERMUTED, windows):
        return np.sort(generator.permutation(len(data))[:windows])
    return np.sort(generator.choice(len(data), size=windows, replace=False, shuffle=False))


def kept_tokens(data: Text, windows: int, per_window: int) -> int:
    """Return how many tokens `sample_activations` keeps."""
    return min(windows, len(data)) * min(per_window, data.window)


def sample_activations(
    backbone: Backbone,
    data: Text,
    layers: list[int],
    *,
    windows: int,
    per_window: int,
    residual: str,
    seed: int,
    cross_fit: bool = False,
    cache: CacheConfig | None = None,
    autocast: bool = False,
) -> dict[int, LayerSample]:
    """Run the backbone once over ``windows`` windows; keep ``per_window`` random tokens of each.

    The windows are dealt to all processes, and all have the rows of all windows in the end. Those
    of a large backbone end with their last token that is kept, and what is summed up over all
    tokens is summed over these.

    Args:
        backbone: the model.
        data: text; windows are drawn without replacement.
        layers: which layers.
        windows: at most so many, fewer where the text is shorter.
        per_window: tokens kept of each window, without replacement.
        residual: what the target subtracts before it is standardised: "none" (the mean) or
            "token-mean".
        seed: of the choice.
        cross_fit: sum up the covariance of one half of the documents too.
        cache: where states are kept; what it holds is read and not computed.
        autocast: as `read_states` takes it.

    Raises:
        UserError: the cache holds something else, or cannot be written.
    """
    generator = np.random.default_rng(seed)
    chosen = chosen_windows(data, windows, generator)
    read = _reader(backbone, data, chosen, layers, cache, autocast=autocast)
    places = np.stack([np.sort(generator.permutation(data.window)[:per_window]) for _ in chosen])
    lengths = places.max(axis=1) + 1 if is_large(backbone) else np.full(len(chosen), data.window)
    order = np.arange(len(chosen))  # of the passes
    if cache is None:
        order = np.argsort(-lengths, kind="stable")
    kept = _kept(data, chosen, places)
    tables = {
        layer: _Table(kept[0], backbone, by_token=residual == "token-mean") for layer in layers
    }
    scatters = _scatters(backbone, layers) if cross_fit else {}
    none = torch.zeros(0, backbone.hidden_size)
    rows: dict[int, list[Tensor]] = {layer: [none] for layer in layers}
    inside: list[Tensor] = [torch.zeros(0, dtype=torch.bool)]
    with torch.no_grad(), progress("locate", int(lengths.sum()), unit="tokens") as bar:
        for lo, counts in distributed.turns(range(0, len(order), PASS)):
            here = order[lo : lo + PASS]
            batch, longest = data.batch(chosen[here]), int(lengths[here].max())
            tokens, positions, documents = (
                torch.from_numpy(array[:, :longest])
                for array in (batch.tokens, batch.positions, batch.documents)
            )
            states = read(lo, tokens, positions)
            bar.update(int(lengths[here].sum()) * distributed.size())
            if not counts:
                continue
            read_on = torch.arange(longest) < torch.from_numpy(lengths[here])[:, None]
            half = covariance_half(documents) & read_on
            inside.append(_at(positions > 0, places[here]))
            for layer, hidden in states.items():
                if layer in scatters:
                    scatters[layer].add(hidden[half.to(hidden.device)])
                state = hidden.float().cpu()
                tables[layer].add(tokens[read_on], positions[read_on], state[read_on])
                rows[layer].append(_pick(state, places[here]))
    back = torch.from_numpy(_rows_of(np.argsort(order), places.shape[1]))
    crossed = ~covariance_half(torch.from_numpy(kept[1])) if cross_fit else None
    starts = distributed.gather_rows(torch.cat(inside))[back]
    return {
        layer: _sample(
            rows.pop(layer), back, tables.pop(layer), scatters.get(layer), starts, crossed
        )
        for layer in layers
    }


def _sample(
    rows: list[Tensor],
    back: Tensor,
    table: _Table,
    scatter: Scatter | None,
    starts: Tensor,
    crossed: Tensor | None,
) -> LayerSample:
    """Return what all processes found of a layer, its rows in the order of the windows.

    Args:
        rows: of this process, in the order of the passes.
        back: number of the row that belongs at each place.
        table: what the target subtracts.
        scatter: of one half of the documents, if it is wanted.
        starts: whether a row is inside its document, bool [rows].
        crossed: which rows are of the other half, bool [rows].
    """
    states = distributed.gather_rows(torch.cat(rows))[back]
    table.add_others()
    if scatter is not None:
        scatter.add_others()
    return LayerSample(states, table.transform(states), starts, crossed, scatter)


def _rows_of(windows: NDArray[np.int64], per_window: int) -> NDArray[np.int64]:
    """The rows of windows, in their order, where each has so many, [windows * per_window]."""
    return (windows[:, None] * per_window + np.arange(per_window)).flatten()


def _kept(
    data: Text, chosen: NDArray[np.int64], places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids and documents of the sampled rows, [rows] each."""
    tokens, documents = [], []
    for window, place in zip(chosen, places, strict=True):
        batch = data.batch([window])
        tokens.append(batch.tokens[0, place])
        documents.append(batch.documents[0, place])
    return np.concatenate(tokens), np.concatenate(documents)


def _scatters(backbone: Backbone, layers: list[int]) -> dict[int, Scatter]:
    """An empty covariance per layer that is cross-fitted, where float64 products are fastest."""
    place = backbone.device if backbone.device.type == "cuda" else "cpu"
    size = backbone.hidden_size
    return {layer: Scatter(size, place) for layer in crossed_layers(layers, size)}


def _reader(
    backbone: Backbone,
    data: Text,
    chosen: NDArray[np.int64],
    layers: list[int],
    config: CacheConfig | None,
    *,
    autocast: bool,
) -> Callable[[int, Tensor, Tensor], Mapping[int, Tensor]]:
    """What gives the states of a pass: a filled cache, and the backbone for other layers."""
    cache = None
    if config is not None:
        cache = filled_cache(backbone, data, chosen, layers, config, autocast=autocast)
    kept = [layer for layer in layers if cache is not None and layer in cache.layers]
    rest = [layer for layer in layers if layer not in kept]

    def read(first: int, tokens: Tensor, positions: Tensor) -> Mapping[int, Tensor]:
        found = {} if cache is None else cache.states(first, len(tokens), kept)
        found = {layer: state[:, : tokens.shape[1]] for layer, state in found.items()}
        if rest:
            found |= read_states(backbone, tokens, positions, rest, autocast=autocast)
        return found

    return read


def filled_cache(
    backbone: Backbone,
    data: Text,
    chosen: NDArray[np.int64],
    layers: list[int],
    config: CacheConfig,
    *,
    autocast: bool = False,
) -> ActivationCache:
    """Open the cache of these windows, by default of these layers, and fill what it lacks.

    Raises:
        UserError: it holds something else, or cannot be written.
    """
    own = layers if config.layers is None else config.layers
    cache = ActivationCache(config.folder, backbone, data, chosen, own, autocast=autocast, say=say)
    cache.fill()
    return cache


def _at(values: Tensor, places: NDArray[np.int64]) -> Tensor:
    """Return the values at ``places`` [B, k] of ``values`` [B, T], as [B * k]."""
    return values.gather(1, torch.from_numpy(places)).flatten()


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
        self._sum = torch.zeros(size, dtype=torch.float64)
        self._square = torch.zeros(size[1], dtype=torch.float64)  # over all sampled ids
        self._count = torch.zeros(size[0], dtype=torch.float64)
        self._inside_sum = torch.zeros(size[1], dtype=torch.float64)
        self._inside_square, self._inside = torch.zeros_like(self._inside_sum), 0

    def add(self, tokens: Tensor, positions: Tensor, state: Tensor) -> None:
        """Add states [rows, D]; position 0 counts for its token but not for the overall mean."""
        slot = self._slots[tokens]
        flat = state.double()
        self._sum.index_add_(0, slot, flat)
        self._square += flat[slot < len(self._ids)].square().sum(0)
        self._count.index_add_(0, slot, torch.ones(len(slot), dtype=torch.float64))
        inside = positions > 0
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
                self._sum[:-1], self._count[:-1], self._square, mean
            )
        scale = torch.where(variance > 0, variance.clamp(min=0).sqrt(), torch.ones_like(variance))
        return ((states.double() - table[self._row]) / scale).float()
