"""Features of texts that no language model has a part in: what cannot be won by fooling one.

In the manner of Franca and Tong (arXiv 2606.08417), who compare such features by energy distance
and by how typical a text is among real ones.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.evaluation.samples.diversity import ngrams

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dihal_bench.evaluation.intervals import Array

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_SENTENCE = re.compile(r"[.!?]+(?:\s|$)")
_CONNECTIVES = frozenset(
    (
        *("also", "although", "because", "but", "finally", "first", "furthermore", "hence"),
        *("however", "if", "instead", "moreover", "nevertheless", "otherwise", "since", "so"),
        *("still", "then", "therefore", "though", "thus", "unless", "until", "when", "whereas"),
        *("whether", "while", "yet"),
    )
)


class _Text:
    """A text with what several features look at."""

    def __init__(self, text: str):
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        self.text = text
        self.tokens = text.split()
        self.words = [word.lower() for word in _WORD.findall(text)]
        self.lengths = np.array([len(word) for word in self.words] or [0])
        self.counts = Counter(self.words)
        pieces = [len(piece.split()) for piece in _SENTENCE.split(text) if piece.strip()]
        self.sentences = np.array(pieces or [0])
        self.stop_words = ENGLISH_STOP_WORDS

    def per_word(self, count: float) -> float:
        return count / max(1, len(self.words))

    def per_character(self, kind: Callable[[str], bool]) -> float:
        return sum(map(kind, self.text)) / max(1, len(self.text))

    def per_token(self, kind: Callable[[str], bool]) -> float:
        return sum(map(kind, self.tokens)) / max(1, len(self.tokens))

    def repeated(self, n: int) -> float:
        grams = list(ngrams(self.words, n))
        return 1 - len(set(grams)) / len(grams) if grams else 0.0


_FEATURES: dict[str, Callable[[_Text], float]] = {
    "characters": lambda t: float(len(t.text)),
    "mean word length": lambda t: float(t.lengths.mean()),
    "deviation of word length": lambda t: float(t.lengths.std()),
    "longest word": lambda t: float(t.lengths.max()),
    "different words": lambda t: t.per_word(len(t.counts)),
    "words that occur once": lambda t: t.per_word(sum(c == 1 for c in t.counts.values())),
    "share of the commonest word": lambda t: t.per_word(max(t.counts.values(), default=0)),
    "repeated bigrams": lambda t: t.repeated(2),
    "repeated trigrams": lambda t: t.repeated(3),
    "function words": lambda t: t.per_word(sum(w in t.stop_words for w in t.words)),
    "connectives": lambda t: t.per_word(sum(w in _CONNECTIVES for w in t.words)),
    "mean sentence length": lambda t: float(t.sentences.mean()),
    "deviation of sentence length": lambda t: float(t.sentences.std()),
    "capitalised": lambda t: t.per_token(lambda w: w[:1].isupper()),
    "with digits": lambda t: t.per_token(lambda w: any(map(str.isdigit, w))),
    "punctuation": lambda t: t.per_character(lambda c: c in string.punctuation),
    "commas": lambda t: t.per_character(lambda c: c == ","),
    "full stops": lambda t: t.per_character(lambda c: c == "."),
    "brackets and quotes": lambda t: t.per_character(lambda c: c in "()[]{}<>\"'`"),
    "upper case": lambda t: t.per_character(str.isupper),
    "white space": lambda t: t.per_character(str.isspace),
}
NAMES = tuple(_FEATURES)


def text_features(texts: Sequence[str]) -> Array:
    """Return the features of every text, [texts, features], in the order of ``NAMES``."""
    rows = [[feature(own) for feature in _FEATURES.values()] for own in map(_Text, texts)]
    return np.array(rows, dtype=np.float64).reshape(len(texts), len(_FEATURES))


def standardised(features: Array, reference: Array) -> tuple[Array, Array]:
    """Return both sets in standard deviations of the reference; what is constant there is left out.

    Args:
        features: [n, D].
        reference: [m, D].
    """
    std = reference.std(0)
    varies = std > 1e-12
    centre, scale = reference[:, varies].mean(0), std[varies]
    return (features[:, varies] - centre) / scale, (reference[:, varies] - centre) / scale
