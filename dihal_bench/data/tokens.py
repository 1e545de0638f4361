"""Documents -> tokens on disk -> fixed windows. Memory does not grow with the corpus.

A document is written as ``[BOS] tokens`` (``[EOS]`` behind it only where a language model is
trained). Every token carries the bytes and words of the text it covers, so that perplexity per
token, per word and per byte derive from the same sums.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dihal_bench.core import distributed, kept
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import atomic_path, cache_folder
from dihal_bench.core.progress import progress
from dihal_bench.data.columns import FileColumn, TextColumn
from dihal_bench.data.pieces import encoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from dihal_bench.data.documents import Corpus

_SCAN = 1 << 22  # tokens looked through at a time
_FACTS = "facts.json"  # written last: its presence says that all is there
_COLUMNS = ("tokens", "bytes", "words", "starts")
_CHECKED = "checked"  # an empty file, as old as the last check
_LARGE = 2**30  # bytes of columns, read through in about a second: larger ones once a day
_DAY = 24 * 3600.0  # seconds
_COUNT = np.uint32  # bytes and words of a token: an unknown word may be as long as its document


@dataclass(frozen=True, kw_only=True)
class Windows:
    """A batch of packed windows; every array has shape [B, T].

    Attributes:
        tokens: token ids, int64.
        positions: position ids, int64; 0 at a document's start and at the window's.
        documents: index of the document in the corpus, int64.
        offsets: place of the token in its document, int64 (does not depend on the windowing).
        scored: whether the token is a target: neither first in the window nor in its document.
        bytes: UTF-8 bytes of the text that the token covers, int64.
        words: words (maximal runs without white space) that begin in that text, int64.
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    documents: NDArray[np.int64]
    offsets: NDArray[np.int64]
    scored: NDArray[np.bool_]
    bytes: NDArray[np.int64]
    words: NDArray[np.int64]


class Text(Protocol):
    """Text in windows of one length, whatever it is made of."""

    window: int
    fingerprint: str

    def __len__(self) -> int:
        """Return the number of windows."""

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Windows:
        """Return the windows with the given indices, in that order."""


class PackedTokens:
    """One set of documents, tokenised, laid end to end on disk and cut into windows.

    Attributes:
        window: tokens per window.
        fingerprint: short hash of the tokens.
        documents: number of documents.
        skipped: number of documents left out: blank ones, and those of a single token.
    """

    def __init__(self, folder: Path, window: int):
        facts = kept.read_json(folder / _FACTS)
        self.window = window
        self.fingerprint: str = facts["fingerprint"]
        self.documents: int = facts["documents"]
        self.skipped: int = facts["skipped"]
        self._tokens: TextColumn = FileColumn(folder / "tokens", facts["dtype"])
        self._bytes: TextColumn = FileColumn(folder / "bytes", _COUNT)
        self._words: TextColumn = FileColumn(folder / "words", _COUNT)
        self._starts: TextColumn = FileColumn(folder / "starts", np.int64)
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}

    def __len__(self) -> int:
        """Return the number of whole windows; the tail shorter than one is left out."""
        return len(self._tokens) // self.window

    @property
    def tokens(self) -> int:
        """Number of tokens on disk."""
        return len(self._tokens)

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Windows:
        """Return the windows with the given indices, in that order."""
        first = (np.asarray(indices, dtype=np.int64) * self.window).tolist()
        at = np.array(first, dtype=np.int64)[:, None] + np.arange(self.window)
        documents, starts = self._places(at)
        positions = at - np.maximum(starts, at[:, :1])

        def rows(column: TextColumn) -> NDArray[np.int64]:
            return np.stack([column.read(place, self.window) for place in first])

        return Windows(
            tokens=rows(self._tokens),
            positions=positions,
            documents=documents,
            offsets=at - starts,
            scored=positions > 0,
            bytes=rows(self._bytes),
            words=rows(self._words),
        )

    def _places(self, at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Documents of the tokens at ``at`` [B, T], consecutive in a row, and where they start."""
        documents, starts = np.empty_like(at), np.empty_like(at)
        for row, places in enumerate(at):
            first = bisect_right(self._starts, int(places[0])) - 1
            nearby = self._starts.read(first, self.window + 1)
            own = np.searchsorted(nearby, places, side="right") - 1
            documents[row], starts[row] = first + own, nearby[own]
        return documents, starts

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every document, int64 [documents]."""
        return np.diff(self._starts.read(0, len(self._starts)), append=len(self._tokens))

    def document(self, index: int) -> NDArray[np.int64]:
        """Return all tokens of a document, int64 [length]."""
        start, end = [*self._starts.read(index, 2).tolist(), len(self._tokens)][:2]
        return self._tokens.read(start, end - start)

    def stream(self, most: int) -> NDArray[np.int64]:
        """Return the first tokens of all documents, end to end, int64 [at most ``most``]."""
        return self._tokens.read(0, most)

    def first_of(self, least: int) -> tuple[int, int] | None:
        """Return the first token with an id of ``least`` or more, and its document, if any."""
        for start in range(0, self.tokens, _SCAN):
            ids = self._tokens.read(start, min(_SCAN, self.tokens - start))
            places = np.flatnonzero(ids >= least)
            if len(places):
                return int(ids[places[0]]), bisect_right(self._starts, start + int(places[0])) - 1
        return None

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the shuffled window indices of one epoch; a function of its arguments alone."""
        if (seed, epoch) not in self._orders:
            generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
            self._orders = {(seed, epoch): generator.permutation(len(self))}  # the latest is kept
        return self._orders[seed, epoch]

    def draw(self, seed: int, first: int, count: int) -> Windows:
        """Return the windows at places ``first``.. of the endless stream of shuffled epochs."""
        return self.batch(self.drawn(seed, first, count))

    def drawn(self, seed: int, first: int, count: int) -> list[int]:
        """Return the indices of the windows that ``draw`` returns."""
        places = range(first, first + count)
        return [int(self.order(seed, p // len(self))[p % len(self)]) for p in places]


def pack(
    corpus: Corpus,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    window: int,
    end_of_document: bool = False,
    max_tokens: int | None = None,
) -> PackedTokens:
    """Tokenise one set of a corpus (at first use; kept in the cache folder), and cut it up.

    Args:
        corpus: the documents.
        split: name of the set.
        tokenizer: a fast tokenizer (the bytes of a token come from its offsets).
        window: tokens per window.
        end_of_document: write EOS behind every document.
        max_tokens: stop after this many tokens; required in effect for streamed corpora.

    Raises:
        UserError: no usable document, fewer tokens than one window, or a tokenizer without offsets.
    """
    if not tokenizer.is_fast:
        raise UserError("the tokenizer gives no character offsets; use the model's fast tokenizer.")
    if end_of_document and tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no token for the end of a document; give it EOS.")
    rules = tokenizer_fingerprint(tokenizer)
    key = [2, corpus.fingerprint, split, rules, end_of_document, max_tokens]
    key += [tokenizer.chat_template] if tokenizer.chat_template else []  # of chats it makes text
    folder = cache_folder() / "tokens" / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    name = f"--corpus {corpus.name}: its set {split!r}"
    if not _whole(folder):
        _write(folder, name, corpus.splits[split](), tokenizer, end_of_document, max_tokens)
    data = PackedTokens(folder, window)
    if len(data) == 0:
        raise UserError(
            f"{name} has {data.tokens} tokens, fewer than one window of {window}; give more text "
            "or a smaller --set text.window."
        )
    return data


def _whole(folder: Path) -> bool:
    """Return whether everything is there as it was written; what is not is named."""
    if not kept.usable(folder / _FACTS):
        return False
    facts = kept.read_json(folder / _FACTS)
    digests = facts.get("columns", {"tokens": facts["fingerprint"]})  # version 3: of tokens alone
    if _checked_lately(folder):
        return True
    damaged = [name for name, own in digests.items() if not kept.same(folder / name, own)]
    if not damaged and distributed.writes():
        with contextlib.suppress(OSError):  # somebody else's cache: it is checked at every start
            (folder / _CHECKED).touch()
    return not damaged


def _checked_lately(folder: Path) -> bool:
    """Return whether columns are so large, and checked so lately, that they are not read again."""
    paths = [folder / name for name in (*_COLUMNS, _CHECKED)]
    if not all(path.exists() for path in paths):
        return False
    *columns, checked = (path.stat() for path in paths)
    newest = max(state.st_mtime for state in columns)
    lately = checked.st_mtime > max(newest, time.time() - _DAY)
    return lately and sum(state.st_size for state in columns) > _LARGE


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a short hash of the tokenizer's rules and special tokens."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules.pop("truncation", None)
    rules.pop("padding", None)
    content = json.dumps([rules, tokenizer.bos_token_id, tokenizer.eos_token_id], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def document_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens in front of a document: BOS if there is one, else EOS, else none."""
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return [] if first is None else [int(first)]


def _write(
    folder: Path,
    name: str,
    documents: Iterable[str],
    tokenizer: PreTrainedTokenizerBase,
    end_of_document: bool,
    max_tokens: int | None,
) -> None:
    dtype = np.min_scalar_type(max(tokenizer.get_vocab().values()))
    prefix = np.array(document_prefix(tokenizer), dtype=dtype)
    suffix = np.array([tokenizer.eos_token_id] if end_of_document else [], dtype=dtype)
    total = skipped = written = 0
    digest = hashlib.sha256()
    with (
        atomic_path(folder / "tokens") as tokens_path,
        atomic_path(folder / "bytes") as bytes_path,
        atomic_path(folder / "words") as words_path,
        atomic_path(folder / "starts") as starts_path,
        tokens_path.open("wb") as tokens_file,
        bytes_path.open("wb") as bytes_file,
        words_path.open("wb") as words_file,
        starts_path.open("wb") as starts_file,
        progress("tokenise", max_tokens, unit="tokens") as bar,
    ):
        for piece in encoded(name, documents, tokenizer):
            if piece.first and piece.last and len(piece.ids) < 2:
                skipped += 1
                continue
            if piece.first:
                starts_file.write(np.int64(total).tobytes())
                written += 1
            front, back = prefix[: piece.first * len(prefix)], suffix[: piece.last * len(suffix)]
            row = np.concatenate((front, piece.ids.astype(dtype), back))
            pad = (len(front), len(back))
            tokens_file.write(row.tobytes())
            bytes_file.write(np.pad(piece.bytes.astype(_COUNT), pad).tobytes())
            words_file.write(np.pad(piece.words.astype(_COUNT), pad).tobytes())
            digest.update(row.tobytes())
            total += len(row)
            bar.update(len(row))
            if piece.last and max_tokens is not None and total >= max_tokens:
                break
        if not written:
            raise UserError(f"{name} has no document of two tokens or more; give more text.")
    facts = {"dtype": dtype.name, "documents": written, "skipped": skipped}
    facts |= {"columns": {name: kept.sha256(folder / name) for name in _COLUMNS}}
    kept.write_json(folder / _FACTS, facts | {"fingerprint": digest.hexdigest()[:16]})


def evaluation_windows(data: PackedTokens, tokens: int) -> list[int]:
    """Choose evenly spaced windows with about ``tokens`` tokens; a function of the sizes alone.

    Raises:
        UserError: they lie in a single document, and intervals need several.
    """
    count = len(data)
    wanted = max(1, min(count, round(tokens / data.window)))
    windows = [int(index) for index in np.unique(np.linspace(0, count - 1, wanted).round())]
    if len(np.unique(data.batch(windows).documents)) < 2:
        raise UserError(
            f"score.tokens={tokens} are of a single validation document, and an interval needs "
            "several; give more, or text of more documents."
        )
    return windows
