"""Mean states per token id, shrunk as their number of occurrences deserves."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
