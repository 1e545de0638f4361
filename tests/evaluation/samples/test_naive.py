"""Samplers without a model do what they are published to do."""

import numpy as np
import pytest

from dihal_bench.evaluation.samples.ngram_samplers import GRID, PUBLISHED, Counts

TEXT = np.concatenate(
    [[1, *([5] * 4), *([6] * 3), 7, 8, 9, 10, 11], [1, 7, 8, 9, 10, 11, 5, 6, 12]]
)
COUNTS = Counts.of(TEXT, without=[1])


def draw(name: str, size: int, *, rows: int = 4, tokens: int = 9, seed: int = 0) -> np.ndarray:
    return COUNTS.draw(name, size, rows=rows, tokens=tokens, seed=seed)


def test_counts_leave_special_tokens_out() -> None:
    assert COUNTS.tokens[:2].tolist() == [5, 6]
    assert COUNTS.shares[0] == pytest.approx(5 / 20)
    assert 1 not in COUNTS.tokens
    assert 1 not in COUNTS.phrases
    assert COUNTS.phrases[0].tolist() == [7, 8, 9, 10, 11]  # the only one that occurs twice


def test_top_draws_by_frequency_from_the_most_frequent() -> None:
    drawn = draw("top", 2, rows=400, tokens=20)
    assert set(drawn.ravel().tolist()) == {5, 6}
    assert (drawn == 5).mean() == pytest.approx(5 / 9, abs=0.02)


@pytest.mark.parametrize("tokens", [8, 9])
def test_mirror_says_everything_twice(tokens: int) -> None:
    drawn = draw("mirror", 100, tokens=tokens)
    assert drawn.shape == (4, tokens)
    half = tokens // 2
    assert np.array_equal(drawn[:, :half], drawn[:, half : 2 * half])


def test_periodic_loops_over_words_in_the_order_of_their_frequency() -> None:
    assert draw("periodic", 2, rows=2, tokens=5).tolist() == [[5, 6, 5, 6, 5]] * 2


def test_phrases_are_drawn_uniformly() -> None:
    drawn = draw("phrase", 2, rows=500, tokens=10).reshape(-1, 5)
    banks = [phrase.tolist() for phrase in COUNTS.phrases[:2]]
    counts = [sum(row.tolist() == bank for row in drawn) for bank in banks]
    assert sum(counts) == len(drawn)
    assert counts[0] / len(drawn) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("name", sorted(GRID))
def test_sizes_beyond_the_text_and_seeds(name: str) -> None:
    first = draw(name, 5000)
    assert first.shape == (4, 9)
    assert np.array_equal(first, draw(name, 5000))
    if name != "periodic":
        assert not np.array_equal(first, draw(name, 5000, seed=1))


def test_the_grid_has_what_is_published() -> None:
    assert all(size in GRID[name] for name, size in PUBLISHED)
