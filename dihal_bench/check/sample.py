"""A tiny random teacher and a text of random tokens, in memory: what an interface is checked on."""

from __future__ import annotations

import functools
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dihal_bench.data.columns import ArrayColumn
from dihal_bench.data.tokens import PackedTokens
from dihal_bench.models.model import Backbone
from dihal_bench.models.packing import Documents, Positions

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCKS, HIDDEN, VOCABULARY, CONTEXT = 4, 32, 64, 64
WINDOW, WINDOWS = 32, 48
_BOS, _USED = 1, 60  # ids from here on never occur
_SEED = 20


class SampleText(PackedTokens):
    """Documents of 4 to 30 tokens, drawn independently, packed into windows as any text is.

    Nothing about a token can be told from those before it: what a recovery knows of it, the signal
    told it.
    """

    def __init__(self) -> None:
        generator = np.random.default_rng(_SEED)
        lengths = generator.integers(4, 31, size=WINDOWS * WINDOW // 4)
        lengths = lengths[: 1 + np.searchsorted(np.cumsum(lengths), WINDOWS * WINDOW)]
        shares = 1 / np.arange(1, _USED - 1)
        total = int(lengths.sum())
        self.window = WINDOW
        self.fingerprint = "sample"
        self.documents, self.skipped = len(lengths), 0
        starts = np.cumsum(lengths) - lengths
        tokens = generator.choice(np.arange(2, _USED), total, p=shares / shares.sum())
        tokens[starts] = _BOS
        self._starts, self._tokens = ArrayColumn(starts), ArrayColumn(tokens)
        self._bytes = self._words = ArrayColumn(np.ones(total, dtype=np.int64))
        self._orders = {}


@functools.cache
def text() -> SampleText:
    """Return the text."""
    return SampleText()


def new_teacher(dtype: torch.dtype = torch.float32) -> Backbone:
    """Return a Llama with random weights, the same at every call and in any precision."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        bos_token_id=_BOS,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = LlamaForCausalLM(config)
    return Backbone.from_model(model.to(dtype), None, name="sample")


def rows_of(lengths: tuple[int, ...], count: int, *, seed: int) -> Tensor:
    """Return ``count`` rows of documents of so many tokens each, int64 [count, sum(lengths)]."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(2, _USED, (count, sum(lengths)), generator=generator)
    starts = torch.tensor((0, *lengths[:-1])).cumsum(0)
    tokens[:, starts] = _BOS
    return tokens


class PieceByPiece(Backbone):
    """The same teacher, fed through key-value caches a few places at a time, as in generation."""

    def __init__(self, whole: Backbone) -> None:
        self.__dict__.update(vars(whole))

    def lower(
        self, tokens: Tensor, layer: int, positions: Positions = None, *, cache: Any = None
    ) -> Tensor:
        """See ``Backbone.lower``; every row is one document."""
        assert cache is None
        run = partial(super().lower, layer=layer, cache=self.new_cache())
        return _in_pieces(run, tokens, positions)

    def upper(
        self, hidden: Tensor, layer: int, positions: Positions = None, *, cache: Any = None
    ) -> Tensor:
        """See ``Backbone.upper``; every row is one document."""
        assert cache is None
        run = partial(super().upper, layer=layer, cache=self.new_cache())
        return _in_pieces(run, hidden, positions)

    def span(
        self, hidden: Tensor, a: int, b: int, positions: Positions = None, *, cache: Any = None
    ) -> Tensor:
        """See ``Backbone.span``; every row is one document."""
        assert cache is None
        run = partial(super().span, a=a, b=b, cache=self.new_cache())
        return _in_pieces(run, hidden, positions)


def _in_pieces(run: Callable[[Tensor], Tensor], entry: Tensor, positions: Positions) -> Tensor:
    """Feed places 0, 1-3, 4, 5-7, ... one after the other."""
    assert Documents.find(positions) is None if isinstance(positions, Tensor) else positions is None
    places = list(range(entry.shape[1]))
    pieces: list[Tensor] = []
    while places:
        size = 3 if len(pieces) % 2 else 1
        pieces.append(run(entry[:, places[:size]]))
        places = places[size:]
    return torch.cat(pieces, dim=1)
