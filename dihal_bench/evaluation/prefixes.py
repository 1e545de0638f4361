"""Windows known up to one place each: what a reader of the prefix has, and nothing of the rest.

The places are drawn after scoring, from a digest of all that was scored. Behind a place stands
other text, cut into as many documents as before but elsewhere: the batch keeps its shape, and the
numbers their bits, however a pass lays documents out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.diffusion.layout import Layout
from dihal_bench.evaluation.likelihood import SAMPLED, TEACHER, ZEROED, Row, shift

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from dihal_bench.data.tokens import Windows
    from dihal_bench.evaluation.likelihood import ScoredBatch

    Ints = NDArray[np.int64]

NOWHERE = -1
_TESTED = (SAMPLED, ZEROED)  # signals; others are made of the truth, or of other rows
_TRIES = 20


@dataclass(frozen=True)
class Prefixes:
    """A batch of which every row is known up to its place.

    Attributes:
        index: of the batch among those that were scored.
        windows: the prefixes, with other text behind them.
        places: of each row the place whose next token is asked for; -1: none.
        asked: numbers of the chains that are asked for, by row of the table.
    """

    index: int
    windows: Windows
    places: Ints
    asked: dict[Row, list[int]]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The places, bool [B, T]."""
        place = np.arange(self.windows.tokens.shape[1])
        return np.equal(place, self.places[:, None])


def tested(row: Row) -> bool:
    """Return whether what a row gets is a likelihood that a prefix decides."""
    return row.signal in _TESTED and row.subject != TEACHER


def digest(scored: Sequence[ScoredBatch]) -> int:
    """Return a number that nobody knows before everything is scored."""
    whole = hashlib.sha256()
    for batch in scored:
        for row in sorted(batch.values, key=repr):
            whole.update(batch.values[row].tobytes())
    return int.from_bytes(whole.digest())


def draw(
    scored: Sequence[ScoredBatch],
    windows: Sequence[Windows],
    filler: Ints,
    *,
    block: int,
    share: float,
) -> list[Prefixes]:
    """Choose batches, a place in each of their rows, and chains; and cut the rows off there.

    Args:
        scored: everything, in the order of the batches.
        windows: the batch of each.
        filler: tokens of other text.
        block: tokens per block in the sequence regime.
        share: of the scored chains that are computed again, about.
    """
    generator = np.random.default_rng(digest(scored))
    rows = [row for row in scored[0].values if tested(row)]
    most = max(row.chains for row in rows)
    count = int(share * len(scored) * most / min(most, 3))
    chosen = _batches(scored, rows, min(max(1, count), len(scored)), generator)
    middles = {row: generator.permutation(np.arange(1, max(1, row.chains - 1))) for row in rows}
    taken = _Taken()
    places = [_places(scored[i], windows[i], rows, generator, taken) for i in chosen]
    return [
        Prefixes(
            index=i,
            windows=_cut_off(windows[i], own, filler, block, scored[i].index, generator),
            places=own,
            asked={Row(subject=TEACHER): [0]}
            | {row: _chains(row, middles[row], turn) for row in rows},
        )
        for turn, (i, own) in enumerate(zip(chosen, places, strict=True))
    ]


def _chains(row: Row, middles: Ints, turn: int) -> list[int]:
    """Return the first chain, the last, and one of the others, another one every time."""
    chosen = {0, row.chains - 1}
    if len(middles):
        chosen.add(int(middles[turn % len(middles)]))
    return sorted(chosen)


def _gains(batch: ScoredBatch, row: Row) -> NDArray[np.float32]:
    """Return by how much the best chain exceeds the teacher at each target, nats."""
    gain: NDArray[np.float32] = batch.values[row][:, 0].max(0) - batch.teacher
    return gain


def _batches(
    scored: Sequence[ScoredBatch], rows: Sequence[Row], count: int, generator: np.random.Generator
) -> list[int]:
    """Return batches by turns: one by chance, one in which some row gains most over the teacher."""
    able = [index for index, batch in enumerate(scored) if batch.places.any()]
    by_chance = [able[place] for place in generator.permutation(len(able))]
    mean = np.array([[_gains(scored[index], row).mean() for row in rows] for index in able])
    by_gain = [able[place] for place in np.argsort(-(mean - mean.mean(0)).max(1), kind="stable")]
    order = [index for pair in zip(by_chance, by_gain, strict=True) for index in pair]
    return list(dict.fromkeys(order))[:count]


class _Taken:
    """Tokens that are answers of some place: no other row may show them."""

    def __init__(self) -> None:
        self._shown: set[tuple[int, int]] = set()
        self._answers: set[tuple[int, int]] = set()

    def take(self, windows: Windows, row: int, place: int) -> bool:
        """Return whether a row may be known up to a place, and note it if so."""
        names = list(
            zip(windows.documents[row].tolist(), windows.offsets[row].tolist(), strict=True)
        )
        shown, answers = set(names[: place + 1]), set(names[place + 1 :])
        if shown & self._answers or answers & self._shown:
            return False
        self._shown |= shown
        self._answers |= answers
        return True


def _places(
    batch: ScoredBatch,
    windows: Windows,
    rows: Sequence[Row],
    generator: np.random.Generator,
    taken: _Taken,
) -> Ints:
    """Return a place per row: by turns where somebody gains most, and by chance, early and late."""
    first = np.concatenate(([0], np.cumsum(batch.places.sum(1))))
    size = len(batch.places)
    quantile = (generator.permutation(size) + generator.random(size)) / size
    start = int(generator.integers(len(rows)))
    found = np.full(size, NOWHERE)
    for number, index in enumerate(generator.permutation(size)):
        able = np.flatnonzero(batch.places[index])
        if not len(able):
            continue
        gains = _gains(batch, rows[(start + number // 2) % len(rows)])
        if number % 2:
            place = able[gains[first[index] : first[index + 1]].argmax()]
        else:
            opening = able[windows.positions[index][able] == 0]
            some = opening if number % 8 == 0 and len(opening) else able
            place = some[int(quantile[index] * len(some))]
        if taken.take(windows, int(index), int(place)):
            found[index] = place
    return found


def _cut_off(
    windows: Windows,
    places: Ints,
    filler: Ints,
    block: int,
    index: int,
    generator: np.random.Generator,
) -> Windows:
    """Return the windows with other text, in other documents, behind the places.

    The next token stays in its document, and in the sequence regime its block as long as it was:
    that is part of what is asked.
    """
    import torch

    size = windows.tokens.shape[1]
    layout = Layout.of(torch.from_numpy(windows.positions), block, shift(index, block))
    ends = places + 2
    if layout.starts is not None:
        starts = layout.starts.numpy()
        ends = np.where(places >= 0, places + (starts == places[:, None]).sum(1), 1)
    ends = np.where(places >= 0, np.maximum(ends, places + 2), 1).clip(max=size)
    if layout.starts is not None:  # a block that its document ends is as short as before
        opens = windows.positions[np.arange(len(ends)), ends.clip(max=size - 1)] == 0
        ends = (ends + (opens & (places >= 0))).clip(max=size)
    longest = int(windows.positions.max())
    keeper = int(windows.positions.max(1).argmax())  # at least one document is as long as before
    if len(places) == 1 or windows.positions[keeper].argmax() < ends[keeper]:
        keeper = NOWHERE
    parts = {name: array.copy() for name, array in vars(windows).items()}
    number, at = int(windows.documents.max()) + 1, int(generator.integers(len(filler)))
    for row, (place, end) in enumerate(zip(places.tolist(), ends.tolist(), strict=True)):
        later = np.arange(place + 1 if place >= 0 else 1, size)
        parts["tokens"][row, later] = filler[(at + np.arange(len(later))) % len(filler)]
        at += len(later)
        positions = windows.positions[row]
        if row != keeper:
            positions = _elsewhere(positions, end, longest, generator)
        for start, stop in _documents(positions, end):
            own = slice(max(start, end), stop)
            parts["documents"][row, own] = windows.documents[row, start] if start < end else number
            offset = windows.offsets[row, start] if start < end else 0
            parts["offsets"][row, own] = offset + positions[own] - positions[start]
            number += start >= end
        parts["positions"][row] = positions
        parts["scored"][row, end:] = positions[end:] > 0
        parts["bytes"][row], parts["words"][row] = 0, 0
    return replace(windows, **parts)


def _documents(positions: Ints, end: int) -> Iterator[tuple[int, int]]:
    """Yield start and stop of the documents of a row that reach beyond ``end``."""
    starts = [0, *(np.flatnonzero(positions[1:] != positions[:-1] + 1) + 1).tolist()]
    for start, stop in zip(starts, [*starts[1:], len(positions)], strict=True):
        if stop > end:
            yield start, stop


def _elsewhere(positions: Ints, end: int, longest: int, generator: np.random.Generator) -> Ints:
    """Return position ids with as many starts from ``end`` on, at other places if they can be."""
    size = len(positions)
    starts = np.flatnonzero(positions[end:] == 0) + end
    for _ in range(_TRIES if len(starts) else 0):
        drawn = np.sort(generator.choice(np.arange(end, size), len(starts), replace=False))
        if np.array_equal(drawn, starts):
            continue
        place = np.arange(size)
        begins = np.zeros(size, dtype=np.int64)
        begins[drawn] = drawn
        last = np.maximum.accumulate(begins)
        other: Ints = np.where(last > 0, place - last, positions[end - 1] + 1 + place - end)
        other[:end] = positions[:end]
        if other.max() <= max(longest, positions[:end].max()):
            return other
    return positions
