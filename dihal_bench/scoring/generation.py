"""Generation: tokens one by one, or block by block, by the very law that teacher forcing scores.

A token is drawn from the logits that its chain gives it, and the chain's noise has the address
(document, offset, chain) that it has in scoring. So the text that was generated, read in parallel,
gives the logits that it was drawn from: ``forced_logits`` is there to see that it does.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dihal_bench.diffusion.noise import Noise
from dihal_bench.errors import UserError
from dihal_bench.interfaces.batch import Batch
from dihal_bench.text.tokens import Windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from dihal_bench.interfaces.base import Interface

    Choose = Callable[[Tensor, int], Tensor]  # logits [B, V], offset of the token -> tokens [B]


def generate(
    interface: Interface,
    prompts: Tensor,
    *,
    new: int,
    steps: int,
    temperature: float = 1.0,
    chain: int = 0,
    documents: Tensor | None = None,
    seed: int = 0,
    placeholder: int = 0,
) -> Tensor:
    """Continue prompts: by single tokens in the causal regime, by blocks in the sequence regime.

    A row depends on its own prompt and document number alone: neither on how many rows there are
    nor on ``new``, of which a smaller one gives the same text, cut short.

    Args:
        interface: trained.
        prompts: starts of documents, int64 [B, T0].
        new: tokens to add.
        steps: network evaluations per chain.
        temperature: divides the final logits and nothing else; 0: the likeliest token.
        chain: number of the chain; others are independent.
        documents: number of every row's document, which addresses its noise, int64 [B]; None:
            0, 1, ...
        seed: of the tokens' noise; that of the signals is the interface's own.
        placeholder: token that stands where none is generated yet; nothing depends on it.

    Returns:
        Prompts and what follows them, int64 [B, T0 + new].

    Raises:
        UserError: an argument is out of range.
    """
    if temperature < 0:
        raise UserError(f"a temperature of {temperature} makes no distribution; give 0 or more.")
    noise, rows = Noise(seed), _numbers(prompts, documents)

    def choose(logits: Tensor, offset: int) -> Tensor:
        if not temperature:
            return logits.argmax(-1)
        places = torch.full_like(rows, offset)
        gumbel = noise.gumbel(rows, places, logits.shape[-1], draw=chain)
        return (logits.double() / temperature + gumbel).argmax(-1)

    return _decode(
        interface,
        prompts,
        choose,
        new=new,
        steps=steps,
        chain=chain,
        documents=rows,
        placeholder=placeholder,
    )


def forced_logits(
    interface: Interface,
    text: Tensor,
    *,
    start: int,
    steps: int,
    chain: int = 0,
    documents: Tensor | None = None,
    placeholder: int = 0,
) -> Tensor:
    """Return what the tokens of ``text`` [B, T] would have been drawn from, had they been drawn.

    Args:
        interface: trained.
        text: prompt and continuation.
        start: tokens of the prompt.
        steps: network evaluations per chain.
        chain: number of the chain.
        documents: number of every row's document.
        placeholder: token that stands where none is generated yet.

    Returns:
        Logits of tokens start, ..., T - 1, [B, T - start, V].
    """
    seen: list[Tensor] = []

    def choose(logits: Tensor, offset: int) -> Tensor:
        seen.append(logits)
        return text[:, offset]

    _decode(
        interface,
        text[:, :start],
        choose,
        new=text.shape[1] - start,
        steps=steps,
        chain=chain,
        documents=_numbers(text, documents),
        placeholder=placeholder,
    )
    return torch.stack(seen, dim=1)


@torch.no_grad()
def _decode(
    interface: Interface,
    prompts: Tensor,
    choose: Choose,
    *,
    new: int,
    steps: int,
    chain: int,
    documents: Tensor,
    placeholder: int,
) -> Tensor:
    """Add ``new`` chosen tokens; the causal regime is that of blocks of one place."""
    if prompts.ndim != 2 or not prompts.shape[1] or new < 1:
        raise UserError("generation needs prompts [B, T] of a token or more, and one to add.")
    size, start = max(1, interface.config.block), prompts.shape[1]
    shift = -(start - 1) % size  # so that a block begins at the prompt's last token
    tokens = prompts
    for first in range(start, start + new, size):
        empty = tokens.new_full((len(tokens), size - 1), placeholder)
        batch = _batch(interface, torch.cat((tokens, empty), dim=1), documents)
        current = torch.full_like(documents, first - 1)
        x0 = _signal(interface, batch, steps, chain, shift, current)
        logits = interface.recover(x0, batch)
        for offset in range(first, min(first + size, start + new)):
            if interface.decoder_steps and offset > first:  # it reads the tokens of the block
                known = torch.cat((tokens, empty[:, offset - first :]), dim=1)
                logits = interface.recover(x0, _batch(interface, known, documents))
            chosen = choose(logits[:, offset - 1], offset)
            tokens = torch.cat((tokens, chosen[:, None]), dim=1)
    return tokens


def _signal(
    interface: Interface, batch: Batch, steps: int, chain: int, shift: int, current: Tensor
) -> Tensor:
    """Return the signal [B, T, D] of the chain of that number."""
    layout = interface.layout(batch, shift)
    samples = interface.samples(batch, steps=steps, count=chain + 1, layout=layout, current=current)
    return next(islice(samples, chain, None))


def rows_as_windows(tokens: Tensor, documents: Tensor) -> Windows:
    """Return rows of one document each as the windows that scoring reads.

    Args:
        tokens: int64 [B, T], from the documents' first tokens on.
        documents: numbers of the documents, int64 [B].
    """
    shape, rows = tokens.shape, documents.cpu().numpy()
    place = np.broadcast_to(np.arange(shape[1]), shape).copy()
    zeros = np.zeros(shape, dtype=np.int64)
    return Windows(
        tokens=tokens.cpu().numpy(),
        positions=place,
        documents=np.broadcast_to(rows[:, None], shape).copy(),
        offsets=place,
        scored=place > 0,
        bytes=zeros,
        words=zeros,
    )


def _batch(interface: Interface, tokens: Tensor, documents: Tensor) -> Batch:
    return Batch.of(rows_as_windows(tokens, documents), interface.backbone)


def _numbers(rows: Tensor, documents: Tensor | None) -> Tensor:
    return torch.arange(len(rows), device=rows.device) if documents is None else documents
