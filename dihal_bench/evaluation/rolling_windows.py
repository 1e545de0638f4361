"""Documents in lm-eval's rolling windows, so that perplexities are those that lm-eval gives.

Every document stands alone and is predicted from its first token on, given the token that begins
documents; windows share one token, and the last one is filled up with context that was scored
before (lm-eval 0.4.13, ``HFLM.loglikelihood_rolling``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dihal_bench.core.errors import UserError
from dihal_bench.data.tokens import Windows, document_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

_PAD = 0


@dataclass(frozen=True)
class Document:
    """What is predicted, and what it counts for.

    Attributes:
        text: the target.
        words: of the original text, before any detokenisation.
        bytes: of it, too.
    """

    text: str
    words: int
    bytes: int


@dataclass(frozen=True)
class _Window:
    document: int
    offset: int  # of the first token in its document
    tokens: tuple[int, ...]
    first: int  # place of the first target
    opens: bool  # whether the document's counts belong here


class RollingText:
    """Windows of documents, each padded to one length; see ``PackedTokens``.

    Attributes:
        window: tokens per window, the one before the first target among them.
        documents: how many.
        skipped: blank ones, which were left out.
        fingerprint: of the windows.
    """

    def __init__(
        self,
        documents: Iterable[Document],
        tokenizer: PreTrainedTokenizerBase,
        *,
        window: int,
        whole: bool = True,
    ):
        """Cut documents up.

        Args:
            documents: in their order.
            tokenizer: of the model; beginning-of-text tokens are not added to what is scored.
            window: tokens per window; lm-eval's ``max_length`` is one less.
            whole: whether every token will be scored, so that words and bytes can be counted.

        Raises:
            UserError: all are blank, or the tokenizer has no token that begins a document.
        """
        prefix = document_prefix(tokenizer)[:1]
        if not prefix:
            raise UserError(
                "rolling perplexity needs a token that begins a document, and the tokenizer has "
                "neither BOS nor EOS."
            )
        self.window, self.skipped = window, 0
        self._windows: list[_Window] = []
        self._counts: list[tuple[int, int]] = []
        for document in documents:
            ids = tokenizer.encode(document.text, add_special_tokens=False)
            if not document.text.strip() or not ids:
                self.skipped += 1
                continue
            self._windows += _cut(len(self._counts), prefix + list(ids), window)
            self._counts.append((document.words, document.bytes) if whole else (0, 0))
        self.documents = len(self._counts)
        if not self.documents:
            raise UserError("all documents of the task are blank; nothing can be scored.")
        content = repr((self._windows, self._counts)).encode()
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._windows)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Windows:
        """Return windows; padding is text of a document of its own, which nothing hears of."""
        shape = len(indices), self.window
        tokens = np.full(shape, _PAD, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        documents, offsets, bytes_, words = (np.zeros(shape, dtype=np.int64) for _ in range(4))
        scored = np.zeros(shape, dtype=np.bool_)
        for row, index in enumerate(indices):
            own = self._windows[index]
            length = len(own.tokens)
            tokens[row, :length] = own.tokens
            place = np.arange(self.window)
            positions[row] = np.where(place < length, place, place - length)
            documents[row] = own.document
            offsets[row] = own.offset + place
            scored[row, own.first : length] = True
            if own.opens:
                words[row, own.first], bytes_[row, own.first] = self._counts[own.document]
        return Windows(
            tokens=tokens,
            positions=positions,
            documents=documents,
            offsets=offsets,
            scored=scored,
            bytes=bytes_,
            words=words,
        )


def _cut(document: int, tokens: list[int], window: int) -> list[_Window]:
    """Return the windows of a document that starts with its prefix token."""
    first = tuple(tokens[:window])
    found = [_Window(document, 0, first, 1, True)]
    done = len(first)
    while done < len(tokens):
        end = min(done + window - 1, len(tokens))
        start = max(0, end - window)
        found.append(_Window(document, start, tuple(tokens[start:end]), done - start, False))
        done = end
    return found
