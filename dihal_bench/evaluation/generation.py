"""Generation: tokens one by one, or block by block, by the very law that teacher forcing scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dihal_bench.core.errors import UserError
from dihal_bench.diffusion.noise import Noise
from dihal_bench.evaluation.incremental import decoder_of
from dihal_bench.evaluation.token_scores import require_law

if TYPE_CHECKING:
    from collections.abc import Callable

    from dihal_bench.evaluation.incremental import IncrementalDecoder
    from dihal_bench.interfaces.base import Interface


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a token is drawn from its distribution.

    Attributes:
        temperature: divides the final logits and nothing else; 0: the likeliest token.
        top_p: the likeliest tokens that together have this much probability are drawn from.
        seed: of the tokens' noise, a function of (document, offset); that of signals is the
            interface's own.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(
                f"a temperature of {self.temperature} makes no distribution; give 0 or more."
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"top-p of {self.top_p} leaves no tokens; give more than 0, at most 1.")

    def draw(self, logits: Tensor, documents: Tensor, offset: int, chain: int = 0) -> Tensor:
        """Return a token [B] per row of logits [B, V], in float64 (Gumbel's maximum).

        In float32 the noise's tail is cut off, which lowers the temperature without saying so
        (Zheng et al., arXiv 2409.02908).

        Raises:
            UserError: the logits are no distribution.
        """
        wide = logits.double()
        require_law(wide, f"token {offset}")
        if not self.temperature:
            return wide.argmax(-1)
        wide = self._nucleus(wide / self.temperature)
        places = torch.full_like(documents, offset)
        gumbel = Noise(self.seed).gumbel(documents, places, wide.shape[-1], draw=chain)
        return (wide + gumbel).argmax(-1)

    def _nucleus(self, logits: Tensor) -> Tensor:
        """Leave out what is less likely than the first tokens that reach ``top_p`` together."""
        if self.top_p == 1:
            return logits
        ordered, index = torch.softmax(logits, dim=-1).sort(dim=-1, descending=True, stable=True)
        late = ordered.cumsum(-1) - ordered >= self.top_p
        return logits.masked_fill(torch.zeros_like(late).scatter(-1, index, late), -torch.inf)


def generate(
    interface: Interface,
    prompts: Tensor,
    *,
    new: int,
    steps: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    chain: int = 0,
    chains: int = 1,
    documents: Tensor | None = None,
    seed: int = 0,
    placeholder: int = 0,
) -> Tensor:
    """Continue prompts of one length, each a document from its first token on.

    A row depends on its own prompt and document number alone: neither on how many rows there are
    nor on ``new``, of which a smaller one gives the same text, cut short.

    Args:
        interface: trained.
        prompts: starts of documents, int64 [B, T0].
        new: tokens to add.
        steps: network evaluations per chain.
        temperature: see ``Choice``.
        top_p: see ``Choice``.
        chain: number of the first chain; others are independent.
        chains: chains whose mean is drawn from.
        documents: number of every row's document, which addresses its noise, int64 [B]; None:
            0, 1, ...
        seed: of the tokens' noise.
        placeholder: token that stands where none is generated yet; nothing depends on it.

    Returns:
        Prompts and what follows them, int64 [B, T0 + new].

    Raises:
        UserError: an argument is out of range, or logits are not numbers.
    """
    rows, choice = (
        _numbers(prompts, documents),
        Choice(temperature=temperature, top_p=top_p, seed=seed),
    )
    reader = decoder_of(
        interface, rows, steps=steps, chain=chain, chains=chains, placeholder=placeholder
    )

    def choose(logits: Tensor, offset: int) -> Tensor:
        return choice.draw(logits, rows, offset, chain)

    return decode(reader, prompts, choose, new=new)


def forced_logits(
    interface: Interface,
    text: Tensor,
    *,
    start: int,
    steps: int,
    chain: int = 0,
    chains: int = 1,
    documents: Tensor | None = None,
    placeholder: int = 0,
) -> Tensor:
    """Return what the tokens of ``text`` [B, T] would have been drawn from, had they been drawn.

    Args:
        interface: trained.
        text: prompt and continuation.
        start: tokens of the prompt.
        steps: network evaluations per chain.
        chain: number of the first chain.
        chains: chains whose mean is the law.
        documents: number of every row's document.
        placeholder: token that stands where none is generated yet.

    Returns:
        Logits of tokens start, ..., T - 1, [B, T - start, V].
    """
    seen: list[Tensor] = []

    def choose(logits: Tensor, offset: int) -> Tensor:
        seen.append(logits)
        return text[:, offset]

    rows = _numbers(text, documents)
    reader = decoder_of(
        interface, rows, steps=steps, chain=chain, chains=chains, placeholder=placeholder
    )
    decode(reader, text[:, :start], choose, new=text.shape[1] - start)
    return torch.stack(seen, dim=1)


@torch.no_grad()
def decode(
    reader: IncrementalDecoder,
    prompts: Tensor,
    choose: Callable[[Tensor, int], Tensor],
    *,
    new: int,
    lengths: Tensor | None = None,
    until: Callable[[Tensor], bool] = lambda tokens: False,
    tick: Callable[[int], object] = lambda tokens: None,
) -> Tensor:
    """Add tokens to prompts as a reader and a choice will have it.

    Args:
        reader: fresh.
        prompts: int64 [B, T0].
        choose: takes logits [B, V] of the token at an offset; returns tokens [B].
        new: tokens to add to the longest prompt.
        lengths: of the prompts, which shorter ones exceed: int64 [B]. All rows start together where
            the shortest ends, and what is left of a longer one is read, not chosen: no padding.
        until: whether the text so far, [B, T], is enough.
        tick: is told how many tokens were added.

    Returns:
        int64 [B, T], T at most T0 + new.

    Raises:
        UserError: there is no token to begin with, or none to add.
    """
    first = prompts.shape[-1] if lengths is None else int(lengths.min())
    if prompts.ndim != 2 or first < 1 or new < 1:
        raise UserError("generation needs prompts [B, T] of a token or more, and one to add.")
    tokens, end = prompts[:, :first], prompts.shape[1] + new
    unread = tokens
    for offset in range(first, end):
        unread = choose(reader.read(unread), offset)[:, None]
        if lengths is not None and offset < prompts.shape[1]:
            given = (offset < lengths)[:, None]
            unread = torch.where(given, prompts[:, offset : offset + 1], unread)
        tokens = torch.cat((tokens, unread), dim=1)
        tick(len(tokens))
        if until(tokens):
            break
    return tokens


def _numbers(rows: Tensor, documents: Tensor | None) -> Tensor:
    return torch.arange(len(rows), device=rows.device) if documents is None else documents
