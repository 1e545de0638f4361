"""Counts against closed forms, and against nltk."""

import math
import random

import numpy as np
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from dihal_bench.evaluation.samples.diversity import (
    Seen,
    distinct,
    duplicates,
    entropies,
    repetitions,
    self_bleu,
)

LOOP = [[i % 64 for i in range(128)]]


def test_a_loop_over_64_words_has_the_published_entropy_and_repetition() -> None:
    assert entropies(LOOP)[0] == pytest.approx(math.log(64), abs=1e-12)
    assert repetitions(LOOP, 2)[0] == pytest.approx(1 - 64 / 127, abs=1e-12)


def test_a_loop_cut_short_has_the_published_entropy() -> None:
    """Periodic-400 at 1,024 tokens: 224 words three times, 176 twice; 5.97 in the literature."""
    row = [i % 400 for i in range(1024)]
    shares = np.array([3 / 1024] * 224 + [2 / 1024] * 176)
    assert entropies([row])[0] == pytest.approx(-(shares * np.log(shares)).sum(), abs=1e-12)
    assert entropies([row])[0] == pytest.approx(5.972, abs=5e-4)


def test_entropy_of_one_word_and_of_none_is_nothing() -> None:
    assert entropies([[5, 5, 5], []]).tolist() == [0.0, 0.0]


def test_repetition_of_samples_too_short_is_no_number() -> None:
    found = repetitions([[1], [1, 2], [1, 1, 1]], 2)
    assert math.isnan(found[0])
    assert found[1:].tolist() == [0.0, 0.5]


def test_distinct_is_over_all_samples() -> None:
    assert distinct([[1, 2, 3], [1, 2, 4]], 1) == 4 / 6
    assert distinct([[1, 2, 3], [1, 2, 4]], 2) == 3 / 4
    assert math.isnan(distinct([[1], []], 2))


def test_duplicates_are_counted_from_the_second_on() -> None:
    assert duplicates([[1, 2], [3], [1, 2], [1, 2]]).tolist() == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("seed", range(3))
def test_self_bleu_is_that_of_nltk(seed: int) -> None:
    generator = random.Random(seed)
    rows = [
        [generator.choice("abcdefg") for _ in range(generator.randint(1, 14))] for _ in range(12)
    ]
    smooth = SmoothingFunction().method1
    expected = [
        sentence_bleu(rows[:i] + rows[i + 1 :], row, smoothing_function=smooth)
        for i, row in enumerate(rows)
    ]
    assert self_bleu(rows) == pytest.approx(expected, abs=1e-12)


def test_self_bleu_of_equal_samples_is_one_and_of_unlike_ones_almost_none() -> None:
    assert self_bleu([list("abcdef")] * 3).tolist() == pytest.approx([1.0] * 3)
    apart = self_bleu([list("abcde"), list("fghij"), []])
    assert apart.tolist() == [0.0, 0.0, 0.0]


def test_overlap_counts_the_n_grams_that_a_text_has() -> None:
    text = np.arange(100)
    seen = Seen([text[:50], text[47:]], 4)
    rows = [[10, 11, 12, 13, 14], [10, 11, 12, 13, 99], [7, 7, 7, 7, 7], [1, 2]]
    found = seen.shares(rows)
    assert found[:3].tolist() == [1.0, 0.5, 0.0]
    assert math.isnan(found[3])


def test_hashes_of_all_pairs_are_different() -> None:
    """A collision would count n-grams as seen that are not."""
    pairs = [[a, b] for a in range(300) for b in range(300)]
    known = [item for pair in pairs[: len(pairs) // 2] for item in (*pair, 1000)]
    seen = Seen([np.array(known)], 3)
    absent = [[*pair, 1000] for pair in pairs[len(pairs) // 2 :]]
    assert float(seen.shares(absent).max()) == 0.0
