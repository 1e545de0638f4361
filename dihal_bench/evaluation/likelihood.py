"""Teacher-forced scores: every position of a window in one pass, summed per document.

NLL, Brier-1, KL to the teacher and top-1 agreement of the teacher and of any interface, on the same
windows and the same targets: all next tokens in the causal regime, the first ones of blocks in the
sequence regime, where only those are predicted from all that came before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dihal_bench.core import distributed
from dihal_bench.core.devices import place
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress
from dihal_bench.diffusion.layout import Layout
from dihal_bench.interfaces.batch import Batch
from dihal_bench.results.metrics import METRICS, NLL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from dihal_bench.data.tokens import Text, Windows
    from dihal_bench.evaluation.intervals import Array
    from dihal_bench.interfaces.base import Interface
    from dihal_bench.models.model import Backbone


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


VERSION = 3  # of every score in this file
TEACHER = "teacher"
SAMPLED, ZEROED, SHUFFLED, TRUE = "sampled", "zeroed", "shuffled", "true"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a score table.

    Attributes:
        subject: the interface's or control's name, or "teacher".
        steps: network evaluations per chain (S).
        chains: parallel chains drawn.
        signal: what the recovery is given: "sampled", or for a trial "zeroed", "shuffled" (that of
            another row of the batch), or "true", which may know the next token: no likelihood.
    """

    subject: str
    steps: int = 1
    chains: int = 1
    signal: str = SAMPLED


@dataclass(frozen=True)
class Totals:
    """Sums per document, each array of shape [documents].

    Attributes:
        tokens: scored tokens.
        words: words they begin.
        bytes: UTF-8 bytes they cover.
        sums: metric -> sum over scored tokens. ``nll@K`` is the ensemble of K chains, averaged
            over the disjoint groups of K; ``kl``, ``kl_reverse`` and ``top1`` are of the mixture of
            all chains, ``kl_chain`` and ``top1_chain`` are means over single chains.
    """

    tokens: Array
    words: Array
    bytes: Array
    sums: dict[str, Array]

    def per_token(self, metric: str) -> tuple[Array, Array]:
        """Return the sums of a metric and of the tokens: numerator and denominator of its mean."""
        return self.sums[metric], self.tokens


def score(
    rows: Sequence[Row],
    interfaces: Mapping[str, Interface],
    data: Text,
    backbone: Backbone,
    *,
    windows: Sequence[int],
    batch: int,
    block: int = 0,
) -> dict[Row, Totals]:
    """Score all rows on the same windows, which are dealt to all processes.

    Args:
        rows: what to score; "teacher" is the backbone itself.
        interfaces: by the names that rows use.
        data: the evaluation text.
        backbone: the teacher.
        windows: indices of the windows.
        batch: windows per pass.
        block: tokens per block in the sequence regime; the blocks of every pass start elsewhere.

    Returns:
        Sums per document: of those that the windows touch, in one order for all rows.

    Raises:
        UserError: a row's logits are not finite.
    """
    documents = np.unique(data.batch(list(windows)).documents)
    layers = {layer for i in interfaces.values() for layer in i.layers}
    sums = {row: _Accumulator(documents) for row in rows}
    with torch.no_grad(), progress("score", len(windows) * len(rows), unit="windows") as bar:
        for lo, counts in distributed.turns(range(0, len(windows), batch)):
            chosen = data.batch(windows[lo : lo + batch])
            shared = Batch.of(chosen, backbone, layers=layers, logits=True)
            layout = Layout.of(shared.positions, block, _shift(lo // batch, block))
            scored = (shared.followed & layout.first).cpu()  # the batch's one wait for a device
            places = place(scored.flatten().nonzero()[:, 0], backbone.device)
            teacher = _log_probabilities(shared.teacher_logits, places)
            targets = shared.following(shared.tokens).flatten()[places]
            followers = np.roll(scored.numpy(), 1, axis=1)
            signals = _Signals(rows, interfaces, shared, layout)
            for row, accumulator in sums.items():
                chains = (
                    iter((teacher,)) if row.subject == TEACHER else signals.predictions(row, places)
                )
                scores = _on_host(token_scores(chains, teacher, targets))
                for name, values in scores.items():
                    require_finite(values, f"{row.subject} S={row.steps}", f"values of {name}")
                if counts:
                    accumulator.add(chosen, followers, scores)
                bar.update(len(chosen.tokens) * distributed.size())
        for accumulator in sums.values():
            accumulator.add_others()
    return {row: accumulator.totals() for row, accumulator in sums.items()}


def token_scores(chains: Iterator[Tensor], teacher: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Score the chains' predictions of every target.

    Args:
        chains: per chain the log-probabilities [targets, V].
        teacher: the teacher's, [targets, V].
        targets: the true tokens, int64 [targets].

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
        square = square + (2 * log_q).exp().sum(-1).double()
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


def _shift(index: int, block: int) -> int:
    """Return where the blocks of a pass start: the golden ratio spreads the passes evenly."""
    return int(index * 0.6180339887 % 1 * block)


class _Signals:
    """Draws the signals of a batch; trials take those that their row has drawn."""

    def __init__(
        self,
        rows: Sequence[Row],
        interfaces: Mapping[str, Interface],
        batch: Batch,
        layout: Layout,
    ):
        self._interfaces, self._batch, self._layout = interfaces, batch, layout
        self._wanted = {
            replace(row, signal=SAMPLED, chains=0): row.chains
            for row in rows
            if row.signal == SHUFFLED
        }
        self._drawn: dict[Row, list[Tensor]] = {}

    def predictions(self, row: Row, places: Tensor) -> Iterator[Tensor]:
        """Yield per chain the log-probabilities of what follows the places, [targets, V].

        Args:
            row: whose.
            places: of the flat batch, int64 [targets].
        """
        interface = self._interfaces[row.subject]
        for x0 in self._of(row, interface):
            yield _log_probabilities(interface.recover(x0, self._batch), places)

    def _of(self, row: Row, interface: Interface) -> Iterator[Tensor]:
        key = replace(row, signal=SAMPLED, chains=0)
        drawn = self._drawn.get(key, [])
        if row.signal == ZEROED:
            (like,) = self._draw(interface, 1, 1)
            yield from [torch.zeros_like(like)] * row.chains
        elif row.signal == TRUE:
            yield interface.clean(self._batch)
        elif row.signal == SHUFFLED:
            enough = len(drawn) >= row.chains
            some = drawn[: row.chains] if enough else self._draw(interface, row.steps, row.chains)
            yield from map(_shuffle, some)
        else:
            kept = self._drawn.setdefault(key, [])
            for x0 in self._draw(interface, row.steps, row.chains):
                if len(kept) < self._wanted.get(key, 0):
                    kept.append(x0)
                yield x0

    def _draw(self, interface: Interface, steps: int, count: int) -> Iterator[Tensor]:
        return iter(interface.samples(self._batch, steps=steps, count=count, layout=self._layout))


def _shuffle(x0: Tensor) -> Tensor:
    """Return signals of other rows of the batch; of earlier places, or none, if a row is alone."""
    if len(x0) == 1:  # those of later places would know what comes next
        half = x0.shape[1] // 2
        return torch.cat((torch.zeros_like(x0[:, :half]), x0[:, : x0.shape[1] - half]), dim=1)
    flat = x0.flatten(0, 1)
    return flat.roll(len(flat) // 2, dims=0).reshape(x0.shape)


def _log_probabilities(logits: Tensor, places: Tensor) -> Tensor:
    """Log-probabilities of what follows the scored places, float32 [targets, V]."""
    return torch.log_softmax(logits.flatten(0, 1)[places].float(), dim=-1)


def _on_host(scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values in the host's memory, in one copy."""
    return dict(zip(scores, torch.stack(list(scores.values())).cpu(), strict=True))


class _Accumulator:
    """Sums per document of one row."""

    def __init__(self, documents: NDArray[np.int64]):
        self._documents = documents
        self._sums: dict[str, Array] = {}

    def add(self, windows: Windows, scored: NDArray[np.bool_], scores: dict[str, Tensor]) -> None:
        place = np.searchsorted(self._documents, windows.documents[scored])
        counts = {
            "tokens": scored[scored],
            "words": windows.words[scored],
            "bytes": windows.bytes[scored],
        }
        for name, value in {**counts, **{n: v.numpy() for n, v in scores.items()}}.items():
            self._sums.setdefault(name, np.zeros(len(self._documents)))
            self._sums[name] += np.bincount(place, value, len(self._documents))

    def add_others(self) -> None:
        """Add the sums of the other processes, if there are any."""
        found = distributed.gather([self._sums])
        self._sums = {
            name: sum((own[name] for own in found[1:] if name in own), start=values)
            for name, values in found[0].items()
        }

    def totals(self) -> Totals:
        sums = dict(self._sums)
        return Totals(sums.pop("tokens"), sums.pop("words"), sums.pop("bytes"), sums)
