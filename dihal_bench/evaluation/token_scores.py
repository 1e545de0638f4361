"""What predictions of one token are worth: NLL of ensembles, Brier-1, KL to the teacher, top-1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dihal_bench.core.errors import UserError
from dihal_bench.results.metrics import METRICS, NLL

if TYPE_CHECKING:
    from collections.abc import Iterator


def require_finite(values: Tensor, whose: str, what: str) -> None:
    """Make sure that all values are finite.

    Args:
        values: of any shape.
        whose: the row or model that they are of, for the message.
        what: they are.

    Raises:
        UserError: some are NaN or infinite; the message says how many.
    """
    wrong = int((~torch.isfinite(values)).sum())
    if wrong:
        raise UserError(
            f"{whose}: {wrong} of {values.numel()} {what} are not finite numbers, so it cannot be "
            "scored; compute in a wider dtype, or look at its weights and its recover."
        )


def require_law(logits: Tensor, whose: str) -> None:
    """Make sure that logits [..., V] are those of a distribution: some may be -inf, not all.

    Raises:
        UserError: in some place the largest is NaN or infinite; the message says in how many.
    """
    require_finite(logits.amax(-1), whose, "places' logits")


def token_scores(
    chains: Iterator[Tensor],
    teacher: Tensor,
    targets: Tensor,
    each: list[Tensor] | None = None,
) -> dict[str, Tensor]:
    """Score the chains' predictions of every target.

    Args:
        chains: per chain the log-probabilities [targets, V].
        teacher: the teacher's, [targets, V].
        targets: the true tokens, int64 [targets].
        each: takes per chain the log-probabilities of the targets and the sums of squares of all
            tokens' probabilities, [2, targets].

    Returns:
        Metric -> value per target, float64 [targets]; the names are those of ``Totals.sums``.
    """
    index = targets[:, None]
    own: list[Tensor] = []  # log-probability of the target per chain
    log_sum = teacher.new_full((), -torch.inf)
    square = kl = top1 = torch.zeros(())
    best, prior = teacher.argmax(-1), teacher.exp()
    single: dict[str, Tensor] = {}
    for log_q in chains:
        own.append(log_q.gather(1, index)[:, 0].double())
        log_sum = torch.logaddexp(log_sum, log_q)
        squares = (2 * log_q).exp().sum(-1).double()
        square = square + squares
        if each is not None:
            each.append(torch.stack((own[-1], squares)))
        kl = kl + (prior * (teacher - log_q)).sum(-1).double()
        top1 = top1 + (log_q.argmax(-1) == best).double()
        for name, value in _declared(log_q, teacher, targets).items():
            single[name] = single.get(name, 0) + value
    count, log_p = len(own), torch.stack(own)
    log_mixture = log_sum - math.log(count)
    mixture = log_mixture.exp()
    collision = _collision(mixture.square().sum(-1).double(), square, count)
    return _ensembles(log_p) | {
        "brier1": 2 * log_p.exp().mean(0) - collision,
        "kl": (prior * (teacher - log_mixture)).sum(-1).double(),
        "kl_reverse": (mixture * (log_mixture - teacher)).sum(-1).double(),
        "kl_chain": kl / count,
        "top1": (mixture.argmax(-1) == best).double(),
        "top1_chain": top1 / count,
        **_declared(log_mixture, teacher, targets),
        **{METRICS[name].single: value / count for name, value in single.items()},
    }


def _declared(log_q: Tensor, teacher: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the metrics that others declared with the function that computes them."""
    return {
        metric.key: metric.mean.compute(log_q, teacher, targets).double()
        for metric in METRICS
        if metric.mean and metric.mean.compute
    }


def _collision(mixture: Tensor, square: Tensor, count: int) -> Tensor:
    """Mean over pairs of distinct chains of sum_v p(v) p'(v); of one chain with itself if alone.

    Args:
        mixture: sum_v of the squared mean of the chains.
        square: sum_v of the squared chains, summed over chains.
        count: how many chains.
    """
    if count == 1:
        return square
    return (mixture * count**2 - square) / (count * (count - 1))


def _ensembles(own: Tensor) -> dict[str, Tensor]:
    """NLL of ensembles of K = 1, 2, 4, ... chains, each averaged over the disjoint groups of K."""
    scores = {}
    count, size = len(own), 1
    while size <= count:
        whole = own[: count - count % size]
        groups = whole.reshape(-1, size, own.shape[1])  # (groups, K, targets)
        scores[NLL.at(size)] = -(torch.logsumexp(groups, 1) - math.log(size)).mean(0)
        size *= 2
    return scores
