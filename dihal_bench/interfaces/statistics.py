"""Closed-form statistics of hidden states over training text, in one pass and constant memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dihal_bench.core import distributed
from dihal_bench.geometry.activations import shrunk_token_means

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dihal_bench.interfaces.batch import Batch

_RIDGE = 1e-4  # times the mean variance of the condition


@dataclass(frozen=True)
class SpanStatistics:
    """What look-ups and standardisation need to know of h_a -> h_b.

    Attributes:
        mean: mean of h_b per dimension, [D].
        std: standard deviation of h_b per dimension, [D].
        covariance: of h_b, [D, D].
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
    covariance: Tensor
    condition_mean: Tensor
    condition_std: Tensor
    token_mean: Tensor
    residual_std: Tensor
    ridge_weight: Tensor
    ridge_bias: Tensor
    tokens: Tensor

    @classmethod
    def collect(cls, batches: Iterable[Batch], a: int, b: int) -> SpanStatistics:
        """Accumulate in float64 over ``batches``, those of all processes, and solve.

        Starts of documents and windows are left out: massive activations live there. Only a token
        that occurs nowhere else (BOS) has its mean state at the start of documents in the table.
        """
        return cls.collect_spans(batches, [(a, b)])[a, b]

    @classmethod
    def collect_spans(
        cls, batches: Iterable[Batch], spans: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], SpanStatistics]:
        """Do so for several spans (a, b] in one pass; each costs 3 D^2 float64 of memory."""
        sums = {span: _Sums() for span in spans}
        for batch in batches:
            for (a, b), own in sums.items():
                own.add(batch, batch.hidden(a), batch.hidden(b))
        for own in sums.values():
            own.add_others()
        return {span: own.solve() for span, own in sums.items()}


class _Sums:
    """Running float64 sums of one pass."""

    def __init__(self) -> None:
        self.ready = False

    def _start(self, c: int, d: int, vocabulary: int, device: torch.device) -> None:
        self.sizes = c, d, vocabulary, device.type
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        self.count = 0
        self.sum_x, self.sum_y = zeros(c), zeros(d)
        self.square_y = zeros(d)
        self.xx, self.xy, self.yy = zeros(c, c), zeros(c, d), zeros(d, d)
        self.token_count = zeros(vocabulary)
        self.token_sum = zeros(vocabulary, d)
        self.start_sum: dict[int, Tensor] = {}
        self.start_count: Counter[int] = Counter()
        self.ready = True

    def add(self, batch: Batch, x: Tensor, y: Tensor) -> None:
        """Add one batch of states x = h_a [B, T, C] and y = h_b [B, T, D]."""
        if not self.ready:
            self._start(x.shape[-1], y.shape[-1], batch.backbone.vocab_size, x.device)
        inside = batch.positions > 0
        ids = batch.tokens[inside]  # (n)
        x64, y64 = x[inside].double(), y[inside].double()  # (n, C), (n, D)
        self.token_count.index_add_(0, ids, torch.ones_like(ids, dtype=torch.float64))
        self.token_sum.index_add_(0, ids, y64)
        self.count += len(x64)
        self.sum_x += x64.sum(0)
        self.sum_y += y64.sum(0)
        self.square_y += y64.square().sum(0)
        self.xx += x64.T @ x64
        self.xy += x64.T @ y64
        self.yy += y64.T @ y64
        starts = batch.begins
        for token, state in zip(batch.tokens[starts].tolist(), y[starts].double(), strict=True):
            self.start_count[token] += 1
            self.start_sum[token] = self.start_sum.get(token, 0) + state

    def add_others(self) -> None:
        """Add the sums of the other processes, if there are any."""
        if distributed.size() == 1:
            return
        sizes = distributed.gather([self.sizes] if self.ready else [])
        if not self.ready:  # it was dealt no batch
            c, d, vocabulary, kind = sizes[0]
            self._start(c, d, vocabulary, torch.device(distributed.device(kind)))
        tensors = [value for value in vars(self).values() if isinstance(value, Tensor)]
        distributed.add_up(*tensors)
        self.count = sum(distributed.gather([self.count]))
        own = {token: state.cpu() for token, state in self.start_sum.items()}
        starts = distributed.gather([(self.start_count, own)])
        self.start_count, self.start_sum = Counter(), {}
        for counts, sums in starts:
            self.start_count.update(counts)
            for token, state in sums.items():
                self.start_sum[token] = self.start_sum.get(token, 0) + state.to(self.xx.device)

    def solve(self) -> SpanStatistics:
        """Turn the sums into statistics, float32."""
        n = self.count
        mean_x, mean_y = self.sum_x / n, self.sum_y / n
        cov_x = self.xx / n - torch.outer(mean_x, mean_x)
        cov_xy = self.xy / n - torch.outer(mean_x, mean_y)
        ridge = _RIDGE * cov_x.diagonal().mean() * torch.eye(len(cov_x)).to(cov_x)
        weight = torch.linalg.solve(cov_x + ridge, cov_xy).T
        table, residual = shrunk_token_means(
            self.token_sum, self.token_count, self.square_y, mean_y
        )
        for token, count in self.start_count.items():
            if not self.token_count[token]:
                table[token] = self.start_sum[token] / count
        parts = {
            "mean": mean_y,
            "std": _root(self.square_y / n - mean_y.square()),
            "covariance": self.yy / n - torch.outer(mean_y, mean_y),
            "condition_mean": mean_x,
            "condition_std": _root(cov_x.diagonal()),
            "token_mean": table,
            "residual_std": _root(residual),
            "ridge_weight": weight,
            "ridge_bias": mean_y - weight @ mean_x,
            "tokens": torch.tensor(float(n)),
        }
        return SpanStatistics(**{name: value.float().contiguous() for name, value in parts.items()})


def _root(variance: Tensor) -> Tensor:
    """Return the standard deviation, 1 for a dimension that never varies."""
    floor = 1e-10 * variance.max().clamp(min=1e-30)
    return torch.where(variance > floor, variance.clamp(min=0).sqrt(), torch.ones_like(variance))
