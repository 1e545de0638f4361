"""How varied samples are, in themselves, among each other, and beside the training text."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from dihal_bench.evaluation.intervals import Array

_WORD = re.compile(r"\w+|[^\w\s]")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FLOOR = 0.1  # matches that are counted where there are none (Chen and Cherry, 2014, method 1)
_ORDERS = 4


def words(text: str) -> list[str]:
    """Return words and punctuation marks."""
    return _WORD.findall(text)


def entropies(ids: Sequence[Sequence[int]]) -> Array:
    """Return per sample the entropy of its unigrams, nats; 0 for an empty one.

    A plug-in estimate: at most the logarithm of a sample's length, so that only samples of one
    length and one tokenizer can be compared.
    """
    return np.array([_entropy(row) for row in ids])


def _entropy(row: Sequence[int]) -> float:
    counts = np.array(list(Counter(row).values()), dtype=np.float64)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum()) if len(counts) else 0.0


def repetitions(ids: Sequence[Sequence[int]], n: int) -> Array:
    """Return rep-n per sample: the share of its n-grams that it has had before; NaN without any."""
    found = []
    for row in ids:
        grams = list(ngrams(row, n))
        found.append(1 - len(set(grams)) / len(grams) if grams else math.nan)
    return np.array(found)


def distinct(ids: Sequence[Sequence[int]], n: int) -> float:
    """Return distinct-n: different n-grams of all samples over their number (Li et al., 2016)."""
    grams = [gram for row in ids for gram in ngrams(row, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def duplicates(ids: Sequence[Sequence[int]]) -> Array:
    """Return per sample 1 if an earlier one has exactly its tokens, else 0."""
    seen: set[tuple[int, ...]] = set()
    found = []
    for row in map(tuple, ids):
        found.append(float(row in seen))
        seen.add(row)
    return np.array(found)


def ngrams(row: Sequence[int], n: int) -> Iterator[tuple[int, ...]]:
    """Yield the n-grams of a sequence."""
    return zip(*(row[i:] for i in range(n)), strict=False)


def self_bleu(rows: Sequence[Sequence[str]]) -> Array:
    """Return the BLEU-4 of every sample with all others as its references (Zhu et al., 2018).

    Equal to nltk's ``sentence_bleu`` with its first smoothing, without comparing every pair: of
    every n-gram the two largest counts are enough to know the largest in all other samples.

    Args:
        rows: samples as words, two or more.
    """
    lengths = np.array([len(row) for row in rows])
    logs = np.zeros(len(rows))
    for n in range(1, _ORDERS + 1):
        counts = [Counter(ngrams(row, n)) for row in rows]  # type: ignore[arg-type]
        best = _two_best(counts)
        for index, own in enumerate(counts):
            matched = sum(min(c, _elsewhere(best[gram], index)) for gram, c in own.items())
            if n == 1 and not matched:
                logs[index] = -math.inf
            logs[index] += math.log((matched or _FLOOR) / max(1, sum(own.values()))) / _ORDERS
    penalties = np.array([_brevity(lengths, index) for index in range(len(rows))])
    scores: Array = np.exp(logs) * penalties
    return scores


def _two_best(
    counts: Sequence[Counter[tuple[int, ...]]],
) -> dict[tuple[int, ...], tuple[int, int, int]]:
    """Return per n-gram its largest count, the sample that has it, and the second largest."""
    best: dict[tuple[int, ...], tuple[int, int, int]] = defaultdict(lambda: (0, -1, 0))
    for index, own in enumerate(counts):
        for gram, count in own.items():
            first, who, second = best[gram]
            if count > first:
                best[gram] = count, index, first
            elif count > second:
                best[gram] = first, who, count
    return best


def _elsewhere(best: tuple[int, int, int], index: int) -> int:
    first, who, second = best
    return second if who == index else first


def _brevity(lengths: NDArray[np.int64], index: int) -> float:
    """Return the brevity penalty against the other length that is closest, the shorter of two."""
    own, others = int(lengths[index]), np.delete(lengths, index)
    if not own:
        return 0.0
    closest = min(others.tolist(), key=lambda other: (abs(other - own), other))
    return 1.0 if own > closest else math.exp(1 - closest / own)


class Seen:
    """The n-grams of texts, as hashes, so that overlaps with them can be counted."""

    def __init__(self, texts: Sequence[NDArray[np.int64]], n: int):
        self.n = n
        self._hashes = np.unique(np.concatenate([gram_hashes(tokens, n) for tokens in texts]))

    def shares(self, ids: Sequence[Sequence[int]]) -> Array:
        """Return per sample the share of its n-grams that the text has; NaN without any."""
        found = []
        for row in ids:
            own = gram_hashes(np.asarray(row, dtype=np.int64), self.n)
            place = np.searchsorted(self._hashes, own).clip(max=len(self._hashes) - 1)
            found.append(float((self._hashes[place] == own).mean()) if len(own) else math.nan)
        return np.array(found)


def gram_hashes(tokens: NDArray[np.int64], n: int) -> NDArray[np.uint64]:
    """Hash every n-gram to 64 bits."""
    count = max(0, len(tokens) - n + 1)
    value = np.zeros(count, dtype=np.uint64)
    for shift in range(n):
        value ^= tokens[shift : shift + count].astype(np.uint64) + np.uint64(1)
        value *= _MULTIPLIER
        value ^= value >> np.uint64(29)
    return value
