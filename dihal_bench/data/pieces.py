"""Documents -> tokens with the bytes and words that they cover; a long document in pieces.

A document is tokenised in overlapping windows, which is faster than as a whole, takes memory for
the windows alone, and is done by all cores. The tokens are those of the whole document. Two windows
are joined between two tokens where both have the same tokens at the same places, far from their
ends. For byte-pair encoding that is a proof: a sequence is the encoding of its text if and only if
every two neighbours are the encoding of theirs (van Antwerpen and Neubeck, "So many tokens, so
little time", 2024), and all neighbours lie in one window or the other. Where two windows have no
such place, as inside a word of thousands of letters, the first grows until it has one.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.core.errors import UserError
from dihal_bench.data.rows import Chat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

_OVERLAP = 512  # characters that two windows of a document share
_STRIDE = 4096 - _OVERLAP  # from one to the next; longer windows take more time per character
_ALIKE = 16  # tokens on either side of a joint that agree
_BATCH = 1 << 19  # characters per call of the tokenizer
_PARALLEL = "TOKENIZERS_PARALLELISM"
_LAST_SPACE = 0x3000
_IS_SPACE = np.array([chr(code).isspace() for code in range(_LAST_SPACE + 1)] + [False])


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some tokens of a document, in order.

    Attributes:
        ids: of the tokens, int64 [tokens].
        bytes: UTF-8 bytes of the text that each covers, int64 [tokens].
        words: words that begin in that text, int64 [tokens].
        first: whether the document begins with it.
        last: whether the document ends with it.
    """

    ids: NDArray[np.int64]
    bytes: NDArray[np.int64]
    words: NDArray[np.int64]
    first: bool
    last: bool


@dataclass(frozen=True)
class _Window:
    """Characters begin .. end of a document."""

    text: str
    begin: int
    end: int


@dataclass(frozen=True)
class _Tokens:
    """The tokens of a window: ids, and the places of their text in the document, int64 [tokens]."""

    window: _Window
    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def index(self, character: int) -> int:
        """Return the first token whose text begins at a character or behind it."""
        return int(np.searchsorted(self.starts, character))


def encoded(
    name: str, documents: Iterable[str], tokenizer: PreTrainedTokenizerBase
) -> Iterator[Piece]:
    """Tokenise documents, each into one piece or several; a blank one into a piece of no tokens.

    Args:
        name: of the text, for the error.
        documents: texts and chats.
        tokenizer: a fast one.

    Raises:
        UserError: a document is a chat that the tokenizer has no template for.
    """
    rules = tokenizer.backend_tokenizer
    rules.no_truncation()  # some come with a limit; a call of ``tokenizer`` sets its own anyway
    rules.no_padding()
    texts = (_rendered(name, text, tokenizer) for text in documents)
    joined: _Joined | None = None
    for batch in _batches(texts):
        for tokens in _tokenised(rules, batch):
            if joined is None or tokens.window.begin == 0:
                joined = _Joined(rules, tokens)
            else:
                yield from joined.add(tokens)
            if tokens.window.end == len(tokens.window.text):
                yield joined.finish()


class _Joined:
    """The tokens of a document, of which the windows come one after the other."""

    def __init__(self, rules: Any, first: _Tokens):
        self._rules = rules
        self._tokens = first  # of the latest window
        self._done = 0  # characters of the document whose tokens are out
        self._covered = 0  # characters that these cover: the next token's text begins there

    def add(self, tokens: _Tokens) -> Iterator[Piece]:
        """Take the next window; yield the tokens in front of it."""
        if tokens.window.end <= self._tokens.window.end:
            return  # it has grown over this one
        joint = _joint(self._tokens, tokens)
        if joint is None:
            own = self._tokens.window
            end = max(tokens.window.end, 2 * own.end - own.begin)
            grown = _Window(own.text, own.begin, min(end, len(own.text)))
            (self._tokens,) = _tokenised(self._rules, [grown])
            return
        yield self._piece(joint)
        self._tokens, self._done = tokens, joint

    def finish(self) -> Piece:
        """Return the rest of the document."""
        return self._piece(None)

    def _piece(self, stop: int | None) -> Piece:
        """Return the tokens that begin before a character, and are not out yet."""
        tokens, text = self._tokens, self._tokens.window.text
        here = slice(tokens.index(self._done) if self._done else 0, stop and tokens.index(stop))
        ends = np.maximum.accumulate(np.maximum(tokens.ends[here], self._covered))
        if stop is None:
            ends[-1:] = len(text)
        sizes, words = _coverage(text, self._covered, ends)
        self._covered = int(ends[-1]) if len(ends) else self._covered
        return Piece(
            ids=tokens.ids[here],
            bytes=sizes,
            words=words,
            first=not self._done,
            last=stop is None,
        )


def _joint(left: _Tokens, right: _Tokens) -> int | None:
    """Return a character that a token begins with in both windows, amid tokens that agree."""
    begin, end = right.window.begin, left.window.end
    for share in (8, 6, 10, 4, 12, 7, 9, 5, 11):  # sixteenths of the overlap; the middle is best
        at = begin + (end - begin) * share // 16
        i, j = left.index(at), right.index(at)
        if min(i, j) < _ALIKE or min(len(left.ids) - i, len(right.ids) - j) < _ALIKE:
            continue
        near, other = slice(i - _ALIKE, i + _ALIKE), slice(j - _ALIKE, j + _ALIKE)
        if (
            np.array_equal(left.ids[near], right.ids[other])
            and np.array_equal(left.starts[near], right.starts[other])
            and np.array_equal(left.ends[near], right.ends[other])
        ):
            return int(left.starts[i])
    return None


def _batches(texts: Iterable[str]) -> Iterator[list[_Window]]:
    """Yield windows of all texts, so many that every core has some, and memory does not grow."""
    batch: list[_Window] = []
    size = 0
    for text in texts:
        for begin in range(0, max(1, len(text) - _OVERLAP), _STRIDE):
            end = min(begin + _STRIDE + _OVERLAP, len(text))
            batch.append(_Window(text, begin, end))
            size += end - begin
            if size > _BATCH:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _tokenised(rules: Any, windows: list[_Window]) -> Iterator[_Tokens]:
    """Yield the tokens of every window, all made at once."""
    texts = [window.text[window.begin : window.end] for window in windows]
    with _all_cores():
        encodings = rules.encode_batch(texts, add_special_tokens=False)
    for window, encoding in zip(windows, encodings, strict=True):
        ids = np.array(encoding.ids, dtype=np.int64)
        flat = np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * len(ids))
        starts, ends = flat[::2] + window.begin, flat[1::2] + window.begin
        yield _Tokens(window, ids, np.maximum.accumulate(starts), ends)


@contextmanager
def _all_cores() -> Iterator[None]:
    """Let the tokenizer use all cores; elsewhere it must not, for processes may be forked."""
    before = os.environ.get(_PARALLEL)
    os.environ[_PARALLEL] = "true"
    try:
        yield
    finally:
        os.environ[_PARALLEL] = before or "false"


def _rendered(name: str, document: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a document's text: of a chat, what the tokenizer's template makes of it."""
    if not isinstance(document, Chat):
        return document if document.strip() else ""
    if tokenizer.chat_template is None:
        raise UserError(
            f"{name} holds chats, and the backbone's tokenizer has no chat template; choose an "
            "instruct model, or another --text-column."
        )
    from jinja2 import TemplateError

    try:
        text = str(tokenizer.apply_chat_template(document.messages, tokenize=False))
    except TemplateError as error:
        raise UserError(
            f"{name}: the tokenizer's chat template refuses a chat ({error}); take it away, or "
            "choose another --text-column."
        ) from error
    return text.removeprefix(tokenizer.bos_token or "")  # every document begins with it anyway


def _coverage(
    text: str, begin: int, ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Share bytes and words from a character on among tokens: each covers up to its last one."""
    part = text[begin : int(ends[-1])] if len(ends) else ""
    codes = np.frombuffer(part.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    width = 1 + (codes >= 0x80).astype(np.uint8) + (codes >= 0x800) + (codes >= 0x10000)
    space = _IS_SPACE[np.minimum(codes, _LAST_SPACE + 1)]
    in_front = text[begin - 1].isspace() if begin else True
    starts = ~space & np.concatenate(([in_front], space))[:-1]

    def shares(counts: NDArray[Any]) -> NDArray[np.int64]:
        until = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        return np.diff(until[ends - begin], prepend=0)

    return shares(width), shares(starts)
