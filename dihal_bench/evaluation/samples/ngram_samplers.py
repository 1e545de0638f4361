"""Samplers without a model: what a metric must not rank above one.

Franca and Tong (arXiv 2606.08417): four samplers that know the training text's counts and nothing
else, one of which, a loop over 64 words, beats trained models in generative perplexity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.evaluation.samples.diversity import gram_hashes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

GRID = {
    "top": (1, 8, 32, 64, 100, 400),
    "mirror": (8, 64, 400, 5000),
    "periodic": (1, 8, 32, 64, 100, 400),
    "phrase": (1, 10, 100, 1000, 5000),
}
PUBLISHED = (("top", 32), ("mirror", 5000), ("periodic", 64), ("phrase", 1000))
_PHRASE = 5  # tokens


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the samplers know of a text.

    Attributes:
        tokens: from the most to the least frequent, int64 [V].
        shares: their relative frequencies, [V].
        phrases: the most frequent 5-grams, int64 [P, 5].
    """

    tokens: NDArray[np.int64]
    shares: NDArray[np.float64]
    phrases: Rows

    @classmethod
    def of(cls, text: NDArray[np.int64], *, without: Collection[int], most: int = 5000) -> Counts:
        """Count.

        Args:
            text: tokens, documents one after the other.
            without: special tokens, which neither occur nor lie inside a phrase.
            most: phrases to keep.
        """
        special = np.isin(text, list(without))
        tokens, counts = np.unique(text[~special], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        windows = np.lib.stride_tricks.sliding_window_view(text, _PHRASE)
        inside = ~np.lib.stride_tricks.sliding_window_view(special, _PHRASE).any(1)
        hashes = gram_hashes(text, _PHRASE)[inside]
        _, where, times = np.unique(hashes, return_index=True, return_counts=True)
        frequent = np.lexsort((where, -times))[:most]
        shares = counts[order] / counts.sum()
        phrases = windows[np.flatnonzero(inside)[where[frequent]]]
        return cls(tokens=tokens[order], shares=shares, phrases=phrases)

    def draw(self, name: str, size: int, *, rows: int, tokens: int, seed: int) -> Rows:
        """Return samples of one of the samplers, int64 [rows, tokens].

        Args:
            name: a key of ``GRID``.
            size: k tokens, or m phrases; fewer if the text has no more.
            rows: samples.
            tokens: of a sample.
            seed: of what is drawn.
        """
        generator = np.random.Generator(np.random.Philox(key=[seed, size]))
        return _SAMPLERS[name](self, size, rows, tokens, generator)


def _top(c: Counts, k: int, rows: int, tokens: int, generator: np.random.Generator) -> Rows:
    """Draw independently from the k most frequent tokens."""
    shares = c.shares[:k] / c.shares[:k].sum()
    return generator.choice(c.tokens[:k], size=(rows, tokens), p=shares)


def _mirror(c: Counts, k: int, rows: int, tokens: int, generator: np.random.Generator) -> Rows:
    """Draw half a sample so, and say it twice; the second half is longer where that is odd."""
    half = _top(c, k, rows, tokens // 2 + tokens % 2, generator)
    return np.concatenate((half[:, : tokens // 2], half), axis=1)


def _periodic(c: Counts, k: int, rows: int, tokens: int, generator: np.random.Generator) -> Rows:
    """Loop over the k most frequent tokens, in their order."""
    del generator
    return np.tile(np.resize(c.tokens[:k], tokens), (rows, 1))


def _phrase(c: Counts, m: int, rows: int, tokens: int, generator: np.random.Generator) -> Rows:
    """String together phrases, drawn uniformly from the m most frequent."""
    bank = c.phrases[:m]
    drawn = generator.integers(0, len(bank), size=(rows, -(-tokens // _PHRASE)))
    return bank[drawn].reshape(rows, -1)[:, :tokens]


_SAMPLERS: dict[str, Callable[[Counts, int, int, int, np.random.Generator], Rows]] = {
    "top": _top,
    "mirror": _mirror,
    "periodic": _periodic,
    "phrase": _phrase,
}
