"""Signals that bear the next token: the blocks above a are replaced, head and all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dihal_bench.core.errors import UserError
from dihal_bench.interfaces.base import Interface

if TYPE_CHECKING:
    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import InterfaceConfig, LossWeights, Span
    from dihal_bench.interfaces.statistics import SpanStatistics
    from dihal_bench.models.model import Backbone


class TokenSpace(Interface):
    """The signal at i stands for token i + 1; the condition is the standardised h_a.

    Subclasses add ``sizes``, ``target`` and ``recover``.
    """

    bears_tokens: ClassVar[bool] = True

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        super().__init__(backbone, span, config)
        zeros = torch.zeros(backbone.hidden_size, dtype=torch.float32, device=backbone.device)
        self.register_buffer("condition_mean", zeros)
        self.register_buffer("condition_std", torch.ones_like(zeros))
        self.condition_mean: Tensor
        self.condition_std: Tensor

    @property
    def layers(self) -> tuple[int, ...]:
        """h_a is the condition; the signal needs no state of the teacher."""
        return (self.span.a,)

    def fit(self, statistics: SpanStatistics) -> None:
        """Keep the standardisation of the condition."""
        self.condition_mean.copy_(statistics.condition_mean)
        self.condition_std.copy_(statistics.condition_std)

    def condition(self, batch: Batch) -> Tensor:
        """Return the standardised h_a, [B, T, C]."""
        state = batch.hidden(self.span.a).to(self.condition_std.dtype)
        return (state - self.condition_mean) / self.condition_std


class NextState(TokenSpace):
    """The signal at i is made of the teacher's state h_L of the next token, h_L(i + 1).

    L is ``options.layer``; 0: the last block but two, at least 1.
    """

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        super().__init__(backbone, span, config)
        if not 0 <= self.options.layer <= backbone.blocks:
            raise UserError(
                f"layer={self.options.layer} of the signal is no block of {backbone.blocks}; "
                f"choose 1 to {backbone.blocks}, or 0 for the default."
            )
        zeros = torch.zeros(backbone.hidden_size, dtype=torch.float32, device=backbone.device)
        self.register_buffer("mean", zeros)
        self.register_buffer("std", torch.ones_like(zeros))
        self.mean: Tensor
        self.std: Tensor

    @property
    def layers(self) -> tuple[int, ...]:
        """h_a is the condition, h_L of the next token the signal."""
        return self.span.a, self.options.layer or max(1, self.span.blocks - 2)

    def fit(self, statistics: SpanStatistics) -> None:
        """Keep the standardisations of condition and state."""
        super().fit(statistics)
        self.mean.copy_(statistics.mean)
        self.std.copy_(statistics.std)

    def next_state(self, batch: Batch) -> Tensor:
        """Return the standardised h_L(i + 1), [B, T, hidden]."""
        state = batch.following(batch.hidden(self.layers[-1])).to(self.std.dtype)
        return (state - self.mean) / self.std


def normalised(rows: Tensor) -> Tensor:
    """Return rows of norm sqrt(D), [..., D]."""
    out: Tensor = F.normalize(rows, dim=-1) * math.sqrt(rows.shape[-1])
    return out


def embedding_rows(backbone: Backbone) -> Tensor:
    """Return the backbone's token embeddings, centred, rows of norm sqrt(D), float32 [V, D].

    Embeddings of language models share a component (in the bundled one, two rows have a mean cosine
    of 0.7), which every signal would have, and all differences be that much smaller than the noise.
    """
    weight: Tensor = backbone.model.get_input_embeddings().weight
    rows = weight.detach()[: backbone.vocab_size].float()
    return normalised(rows - rows.mean(0))


def new_readout(backbone: Backbone) -> nn.Linear:
    """Return a linear map to logits whose rows start as the embeddings', with norm 1.

    An embedding of ``embedding_rows`` so has the logit sqrt(D) for its own token.
    """
    rows = embedding_rows(backbone)
    readout = nn.Linear(rows.shape[1], rows.shape[0], bias=False, device="meta")
    readout.weight = nn.Parameter(rows / math.sqrt(rows.shape[1]))
    return readout


def token_shares(weights: LossWeights) -> dict[str, float]:
    """Return the configured proportion of the token losses, the larger at 1; without any, CE's.

    What is trained by token losses alone learns with it from what its rivals learn from.
    """
    most = max(weights.ce, weights.kd)
    if not most:
        return {"ce": 1.0, "kd": 0.0}
    return {"ce": weights.ce / most, "kd": weights.kd / most}
