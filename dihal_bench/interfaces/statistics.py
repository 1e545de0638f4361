"""Closed-form statistics of hidden states over training text: one pass, memory independent of its length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dihal_bench.interfaces.batch import Batch

_RIDGE = 1e-4  # times the mean variance of the condition


@dataclass(frozen=True)
class SpanStatistics:
    """What look-ups and standardisation need to know of h_a -> h_b.

    Attributes:
        mean: mean of h_b per dimension, [D].
        std: standard deviation of h_b per dimension, [D].
        condition_mean: the same of h_a, [C].
        condition_std: the same of h_a, [C].
        token_mean: mean of h_b per token id, shrunk to ``mean`` as empirical Bayes has it, [V, D].
        residual_std: standard deviation of h_b - token_mean[x] per dimension, [D].
        ridge_weight: [D, C].
        ridge_bias: [D].
        tokens: number of tokens they were estimated from, [].
    """

    mean: Tensor
    std: Tensor
    condition_mean: Tensor
    condition_std: Tensor
    token_mean: Tensor
    residual_std: Tensor
    ridge_weight: Tensor
    ridge_bias: Tensor
    tokens: Tensor

    @classmethod
    def collect(cls, batches: Iterable[Batch], a: int, b: int) -> SpanStatistics:
        """Accumulate in float64 over ``batches`` and solve.

        Document starts are left out of means, variances and the ridge fit (massive activations live
        there) but not out of the token table, which is what serves them.
        """
        sums = _Sums()
        for batch in batches:
            sums.add(batch, batch.hidden(a), batch.hidden(b))
        return sums.solve()


class _Sums:
    """Running float64 sums of one pass."""

    def __init__(self) -> None:
        self.ready = False

    def _start(self, x: Tensor, y: Tensor, vocabulary: int) -> None:
        wide = {"dtype": torch.float64, "device": x.device}
        c, d = x.shape[-1], y.shape[-1]
        self.count = 0
        self.sum_x, self.sum_y = torch.zeros(c, **wide), torch.zeros(d, **wide)
        self.square_y = torch.zeros(d, **wide)
        self.xx, self.xy = torch.zeros(c, c, **wide), torch.zeros(c, d, **wide)
        self.token_count = torch.zeros(vocabulary, **wide)
        self.token_sum = torch.zeros(vocabulary, d, **wide)
        self.all_square = torch.zeros(d, **wide)
        self.ready = True

    def add(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        """Add one batch of states x = h_a [B, T, C] and y = h_b [B, T, D]."""
        if not self.ready:
            self._start(x, y, batch.backbone.vocab_size)
        every = y.flatten(0, 1).double()
        ids = batch.tokens.flatten()
        self.token_count.index_add_(0, ids, torch.ones_like(ids, dtype=torch.float64))
        self.token_sum.index_add_(0, ids, every)
        self.all_square += every.square().sum(0)
        inside = (batch.positions > 0).flatten()
        x64, y64 = x.flatten(0, 1)[inside].double(), every[inside]
        self.count += len(x64)
        self.sum_x += x64.sum(0)
        self.sum_y += y64.sum(0)
        self.square_y += y64.square().sum(0)
        self.xx += x64.T @ x64
        self.xy += x64.T @ y64

    def solve(self) -> SpanStatistics:
        """Turn the sums into statistics, float32."""
        n = self.count
        mean_x, mean_y = self.sum_x / n, self.sum_y / n
        cov_x = self.xx / n - torch.outer(mean_x, mean_x)
        cov_xy = self.xy / n - torch.outer(mean_x, mean_y)
        ridge = _RIDGE * cov_x.diagonal().mean() * torch.eye(len(cov_x), dtype=cov_x.dtype).to(cov_x.device)
        weight = torch.linalg.solve(cov_x + ridge, cov_xy).T
        table, residual = self._token_table(mean_y)
        parts = {
            "mean": mean_y,
            "std": _root(self.square_y / n - mean_y.square()),
            "condition_mean": mean_x,
            "condition_std": _root(cov_x.diagonal()),
            "token_mean": table,
            "residual_std": _root(residual),
            "ridge_weight": weight,
            "ridge_bias": mean_y - weight @ mean_x,
            "tokens": torch.tensor(float(n)),
        }
        return SpanStatistics(**{name: value.float().contiguous() for name, value in parts.items()})

    def _token_table(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shrunk table [V, D] and the residual variance per dimension [D].

        The weight of the prior, in tokens, is the ratio of the variance within token ids to that
        between them (one-way random-effects analysis of variance, pooled over dimensions).
        """
        count, seen = self.token_count, self.token_count > 0
        total = count.sum()
        means = self.token_sum / count.clamp(min=1)[:, None]
        within_square = self.all_square - (count[:, None] * means.square()).sum(0)  # [D]
        spare = (total - seen.sum()).clamp(min=1)
        within = within_square.sum() / spare
        groups = (count * (means - mean).square().sum(1)).sum()
        effective = total - count.square().sum() / total
        between = ((groups - (seen.sum() - 1) * within) / effective).clamp(min=1e-12 * within + 1e-30)
        prior = within / between
        table = (self.token_sum + prior * mean) / (count + prior)[:, None]
        return table, within_square / spare


def _root(variance: Tensor) -> Tensor:
    """Standard deviation; a dimension that never varies keeps its scale (1) instead of dividing by zero."""
    floor = 1e-10 * variance.max().clamp(min=1e-30)
    return torch.where(variance > floor, variance.clamp(min=0).sqrt(), torch.ones_like(variance))
