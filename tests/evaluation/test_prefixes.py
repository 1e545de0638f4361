"""Windows known up to a place: nothing of the answers is left, and all else is as it was."""

import numpy as np
import pytest

from dihal_bench.data.tokens import Windows
from dihal_bench.evaluation.likelihood import TEACHER, Row, ScoredBatch
from dihal_bench.evaluation.prefixes import NOWHERE, Prefixes, digest, draw

from .texts import Text

TEXT = Text(
    [
        [(0, 3, 20), (1, 0, 20)],
        [(2, 0, 40)],
        [(3, 7, 5), (4, 0, 15), (5, 0, 20)],
        [(6, 0, 30), (7, 0, 10)],
    ]
)
FILLER = np.arange(100, 180)  # the text has no such token
ROW = Row(subject="it", steps=4, chains=8)


def scored(
    *, seed: int = 0, batches: int = 2, gain: tuple[int, int] | None = None
) -> list[ScoredBatch]:
    """Two rows a batch, in which all chains say what chance says; one gains at one target."""
    generator, found = np.random.default_rng(seed), []
    for index in range(2):
        places = np.zeros((2, TEXT.window), dtype=bool)
        places[:, :-1] = TEXT.all.scored[2 * index : 2 * index + 2, 1:]
        count = int(places.sum())
        values = generator.normal(-3, 0.1, (ROW.chains, 2, count)).astype(np.float32)
        if gain and gain[0] == index:
            values[5, 0, gain[1]] = -0.01
        teacher = np.full(count, -3, dtype=np.float32)
        found.append(
            ScoredBatch(index, places, teacher, {Row(subject=TEACHER): values[:1], ROW: values})
        )
    return found


def windows() -> list[Windows]:
    return [TEXT.batch([2 * index, 2 * index + 1]) for index in range(2)]


def drawn(*, block: int = 0, share: float = 1.0, **changes: object) -> list[Prefixes]:
    return draw(scored(**changes), windows(), FILLER, block=block, share=share)


@pytest.mark.parametrize("block", [0, 4])
@pytest.mark.parametrize("seed", range(5))
def test_nothing_of_the_answer_is_left(block, seed):
    for own in drawn(block=block, seed=seed):
        true = windows()[own.index]
        for row, place in enumerate(own.places):
            end = place + 1 if place != NOWHERE else 1
            assert (own.windows.tokens[row, end:] >= FILLER[0]).all()
            for name in ("tokens", "positions", "documents", "offsets", "scored"):
                before, after = getattr(true, name)[row], getattr(own.windows, name)[row]
                np.testing.assert_array_equal(before[:end], after[:end])
        assert not own.windows.bytes.any()
        assert not own.windows.words.any()


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_keeps_its_shape_and_its_documents_begin_elsewhere(seed):
    """So that a pass over documents laid out apart has the same kernels."""
    moved = 0
    for own in drawn(seed=seed):
        true, other = windows()[own.index].positions, own.windows.positions
        np.testing.assert_array_equal((true == 0).sum(1), (other == 0).sum(1))
        assert true.max() == other.max()
        moved += int((true != other).any())
        address = own.windows.documents * 1000 + own.windows.offsets
        assert len(np.unique(address)) == address.size  # no noise is drawn twice
        inside = other[:, 1:] > 0
        assert (np.diff(own.windows.offsets)[inside] == 1).all()
        assert (np.diff(own.windows.documents)[inside] == 0).all()
    assert moved


def test_a_block_is_as_long_as_it_was():
    for seed in range(8):
        for own in drawn(block=4, seed=seed):
            true = windows()[own.index]
            for row, place in enumerate(own.places):
                start = true.positions[row, place]
                same = true.positions[row, place : place + 4] == start + np.arange(4)[: 40 - place]
                np.testing.assert_array_equal(
                    own.windows.positions[row, place : place + 4][~same] == 0,
                    true.positions[row, place : place + 4][~same] == 0,
                )


def test_places_follow_from_what_was_scored_and_from_nothing_else():
    def places(**changes: object) -> list[list[int]]:
        return [own.places.tolist() for own in drawn(**changes)]

    assert places(seed=1) == places(seed=1) != places(seed=2)
    assert digest(scored(seed=1)) != digest(scored(seed=2))


def test_where_somebody_gains_most_is_a_place_of_every_second_row():
    """Of one chain of eight, at one target of a batch of 74."""
    hits = 0
    for target in range(20):
        row, place = np.argwhere(scored()[0].places)[target]
        own = next(one for one in drawn(gain=(0, target)) if one.index == 0)
        hits += own.places[row] == place
    assert hits >= 5


def test_first_last_and_other_chains_are_asked_for():
    asked = [own.asked[ROW] for own in drawn()]
    assert all({0, 7} < set(chains) for chains in asked)
    assert len({tuple(chains) for chains in asked}) == len(asked)


def test_a_row_that_shows_the_answer_of_another_is_left_out():
    """As windows of one document that overlap do."""
    overlapping = Text([[(0, 0, 24)], [(0, 8, 24)]])
    places = np.zeros((2, 24), dtype=bool)
    places[:, :-1] = True
    values = np.zeros((ROW.chains, 2, 46), dtype=np.float32)
    batch = ScoredBatch(0, places, values[0, 0], {ROW: values})
    (own,) = draw([batch], [overlapping.all], FILLER, block=0, share=1.0)
    assert sorted(own.places == NOWHERE) == [False, True]
    left_out = int(np.flatnonzero(own.places == NOWHERE)[0])
    assert (own.windows.tokens[left_out, 1:] >= FILLER[0]).all()
