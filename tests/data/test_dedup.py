"""The join finds exactly the pairs that a comparison of all with all finds."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dihal_bench.data.dedup import near_duplicates


def grams(text: str, order: int) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + order]) for i in range(len(words) - order + 1)}


def reference(kept: list[str], others: list[str], order: int, threshold: float) -> list[bool]:
    def near(a: set, b: set) -> bool:
        return bool(a | b) and len(a & b) / len(a | b) > threshold

    known = [grams(text, order) for text in kept]
    return [any(near(grams(text, order), other) for other in known) for text in others]


few_words = st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join)
some_texts = st.lists(few_words, max_size=8)


@given(some_texts, some_texts, st.integers(1, 3), st.sampled_from([0.2, 1 / 3, 0.5, 0.7, 0.9]))
@settings(max_examples=150, deadline=None)
def test_agrees_with_all_pairs(kept, others, order, threshold):
    found = near_duplicates(kept, others, order=order, threshold=threshold)
    assert found.tolist() == reference(kept, others, order, threshold)


def test_agrees_on_edited_paragraphs():
    """Longer texts: copies with a few words replaced, on both sides of the threshold."""
    draw = random.Random(0)
    vocabulary = [f"word{i}" for i in range(200)]
    kept = [" ".join(draw.choices(vocabulary, k=draw.randint(3, 60))) for _ in range(80)]
    others = []
    for _ in range(160):
        words = draw.choice(kept).split()
        for _ in range(draw.randint(0, 5)):
            words[draw.randrange(len(words))] = draw.choice(vocabulary)
        others.append(" ".join(words))
    expected = reference(kept, others, 8, 0.5)
    assert 0.2 < np.mean(expected) < 0.8
    assert near_duplicates(kept, others).tolist() == expected


def test_the_threshold_itself_is_not_near():
    """Two grams shared of four in all: a Jaccard index of exactly one half."""
    assert near_duplicates(["a b c d"], ["a b c e"], order=2).tolist() == [False]
    assert near_duplicates(["a b c d"], ["a b c d e"], order=2).tolist() == [True]


def test_half_at_order_eight():
    words = [f"w{i}" for i in range(30)]
    first, second = " ".join(words[:19]), " ".join(words[4:23])  # 12 grams each, 8 shared of 16
    assert near_duplicates([first], [second]).tolist() == [False]
    assert near_duplicates([first], [" ".join(words[3:22])]).tolist() == [True]  # 9 of 15


def test_short_texts_are_never_marked():
    text = "one two three four five six seven"
    assert near_duplicates([text], [text]).tolist() == [False]
    assert near_duplicates([text + " eight"], [text + " eight"]).tolist() == [True]


def test_case_and_white_space_do_not_count():
    text = "one two three four five six seven eight"
    assert near_duplicates([text], [text.upper().replace(" ", "\n\t")]).tolist() == [True]


def test_grams_do_not_cross_texts():
    """The words of two neighbours side by side are no gram of either."""
    kept = ["a b c d", "e f g h"]
    assert near_duplicates(kept, ["a b c d e f g h"], order=8).tolist() == [False]


@pytest.mark.parametrize(
    ("kept", "others"), [([], []), (["a"], []), ([], ["a"]), ([""], ["", " "])]
)
def test_nothing_to_compare(kept, others):
    assert near_duplicates(kept, others).tolist() == [False] * len(others)
