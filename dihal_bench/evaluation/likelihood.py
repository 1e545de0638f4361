"""Teacher-forced scores: every position of a window in one pass, summed per document.

NLL, Brier-1, KL to the teacher and top-1 agreement of the teacher and of any interface, on the same
windows and the same targets: all next tokens in the causal regime, the first ones of blocks in the
sequence regime, where only those are predicted from all that came before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dihal_bench.core import distributed
from dihal_bench.core.devices import place
from dihal_bench.core.progress import progress
from dihal_bench.diffusion.layout import Layout
from dihal_bench.evaluation.token_scores import require_finite, token_scores
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from dihal_bench.data.tokens import Text, Windows
    from dihal_bench.evaluation.intervals import Array
    from dihal_bench.models.model import Backbone


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


@dataclass(frozen=True)
class ScoredBatch:
    """What single chains said of single targets in one batch, so that it can be looked at again.

    Attributes:
        index: of the batch.
        places: places whose next tokens are the targets, bool [B, T].
        teacher: the teacher's log-probabilities of the targets, float32 [targets].
        values: row -> the targets' log-probabilities, and the sums of squares of all tokens'
            probabilities, float32 [chains, 2, targets].
    """

    index: int
    places: NDArray[np.bool_]
    teacher: NDArray[np.float32]
    values: dict[Row, NDArray[np.float32]]


def score(
    rows: Sequence[Row],
    interfaces: Mapping[str, Interface],
    data: Text,
    backbone: Backbone,
    *,
    windows: Sequence[int],
    batch: int,
    block: int = 0,
    single: list[ScoredBatch] | None = None,
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
        single: takes what single chains said, of all processes, batch by batch.

    Returns:
        Sums per document: of those that the windows touch, in one order for all rows.

    Raises:
        UserError: a row's logits are not finite.
    """
    documents = np.unique(data.batch(list(windows)).documents)
    sums = {row: _Accumulator(documents) for row in rows}
    seen: list[ScoredBatch] = []
    with torch.no_grad(), progress("score", len(windows) * len(rows), unit="windows") as bar:
        for lo, counts in distributed.turns(range(0, len(windows), batch)):
            chosen = data.batch(windows[lo : lo + batch])
            shared, layout = _read(chosen, interfaces, backbone, block, shift(lo // batch, block))
            scored = (shared.followed & layout.first).cpu()  # the batch's one wait for a device
            places = _flat(scored, backbone.device)
            teacher = _log_probabilities(shared.teacher_logits, places)
            targets = shared.following(shared.tokens).flatten()[places]
            followers = np.roll(scored.numpy(), 1, axis=1)
            signals = _Signals(rows, interfaces, shared, layout)
            apart: dict[Row, NDArray[np.float32]] = {}
            for row, accumulator in sums.items():
                chains = (
                    iter((teacher,)) if row.subject == TEACHER else signals.predictions(row, places)
                )
                each: list[Tensor] = []
                scores, apart[row] = _on_host(token_scores(chains, teacher, targets, each), each)
                for name, values in scores.items():
                    require_finite(values, f"{row.subject} S={row.steps}", f"values of {name}")
                if counts:
                    accumulator.add(chosen, followers, scores)
                bar.update(len(chosen.tokens) * distributed.size())
            if counts and single is not None:
                own = teacher.gather(1, targets[:, None])[:, 0].cpu().numpy()
                seen.append(ScoredBatch(lo // batch, scored.numpy(), own, apart))
        for accumulator in sums.values():
            accumulator.add_others()
    if single is not None:
        single += distributed.gather(seen)
    return {row: accumulator.totals() for row, accumulator in sums.items()}


def _read(
    windows: Windows,
    interfaces: Mapping[str, Interface],
    backbone: Backbone,
    block: int,
    shift: int,
) -> tuple[Batch, Layout]:
    """Run the teacher once for all rows, and lay out the blocks."""
    layers = {layer for i in interfaces.values() for layer in i.layers}
    batch = Batch.of(windows, backbone, layers=layers, logits=True)
    return batch, Layout.of(batch.positions, block, shift)


@torch.no_grad()
def distributions(
    asked: Mapping[Row, Sequence[int]],
    interfaces: Mapping[str, Interface],
    backbone: Backbone,
    windows: Windows,
    places: NDArray[np.bool_],
    *,
    block: int,
    shift: int,
) -> Iterator[tuple[Row, int, Tensor]]:
    """Yield what single chains say follows some places of a batch, in the way that ``score`` goes.

    Args:
        asked: numbers of the chains that are asked for, by row.
        interfaces: all that are scored together.
        backbone: the teacher.
        windows: a batch.
        places: which are asked for, bool [B, T].
        block: tokens per block in the sequence regime.
        shift: see ``shift``.

    Yields:
        A row, the number of a chain, and the log-probabilities, float32 [places, V].
    """
    shared, layout = _read(windows, interfaces, backbone, block, shift)
    where = _flat(torch.from_numpy(places), backbone.device)
    signals = _Signals((), interfaces, shared, layout)
    for row, chains in asked.items():
        if row.subject == TEACHER:
            yield row, 0, _log_probabilities(shared.teacher_logits, where)
            continue
        for chain, log_q in zip(chains, signals.predictions(row, where, chains), strict=True):
            yield row, chain, log_q


def shift(index: int, block: int) -> int:
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

    def predictions(
        self, row: Row, places: Tensor, chosen: Sequence[int] | None = None
    ) -> Iterator[Tensor]:
        """Yield per chain the log-probabilities of what follows the places, [targets, V].

        Args:
            row: whose.
            places: of the flat batch, int64 [targets].
            chosen: numbers of the chains; None: all.
        """
        interface = self._interfaces[row.subject]
        drawn = self._of(row, interface) if chosen is None else self._some(row, interface, chosen)
        for x0 in drawn:
            yield _log_probabilities(interface.recover(x0, self._batch), places)

    def _some(self, row: Row, interface: Interface, chosen: Sequence[int]) -> Iterator[Tensor]:
        if row.signal != SAMPLED:
            drawn = self._of(row, interface)
            return (x0 for chain, x0 in enumerate(drawn) if chain in chosen)
        if type(interface).samples is not Interface.samples:
            drawn = self._draw(interface, row.steps, row.chains)
            return (x0 for chain, x0 in enumerate(drawn) if chain in chosen)
        return interface.samples(
            self._batch, steps=row.steps, count=row.chains, layout=self._layout, chosen=chosen
        )

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


def _flat(places: Tensor, device: torch.device) -> Tensor:
    """Return the numbers of places in a flat batch, int64 [targets], on a device; bool [B, T]."""
    return place(places.flatten().nonzero()[:, 0], device)


def _log_probabilities(logits: Tensor, places: Tensor) -> Tensor:
    """Log-probabilities of what follows the scored places, float32 [targets, V]."""
    return torch.log_softmax(logits.flatten(0, 1)[places].float(), dim=-1)


def _on_host(
    scores: dict[str, Tensor], each: Sequence[Tensor]
) -> tuple[dict[str, Tensor], NDArray[np.float32]]:
    """Return the values of a row, and of its single chains, in the host's memory, in one copy."""
    whole = torch.cat((torch.stack(list(scores.values())), *each)).cpu()
    single = whole[len(scores) :].reshape(len(each), 2, -1)
    return dict(zip(scores, whole, strict=False)), single.float().numpy()


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
