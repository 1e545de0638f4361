"""my-interface: diffusion over the bits of the next token (Chen et al., "Analog bits", 2022).

An interface says what is generated (target), given what (condition), and how it becomes tokens
(recover). Training, sampling, scores, checkpoints and the leak gate come with the base class.
B windows of T places, D signal and C condition dimensions, V tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from dihal_bench import INTERFACES
from dihal_bench.interfaces.base import Interface

if TYPE_CHECKING:
    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import InterfaceConfig, Span
    from dihal_bench.interfaces.statistics import SpanStatistics
    from dihal_bench.models.model import Backbone


@INTERFACES.register("my-interface")
class MyInterface(Interface):
    """The signal at place i is token i + 1 in binary, as numbers -1 and +1."""

    bears_tokens: ClassVar[bool] = True  # it stands for the next token; all blocks above a go
    local_recovery: ClassVar[bool] = True  # recover reads a place's own signal alone
    controls: ClassVar[tuple[str, ...]] = ("lm",)  # what stands beside it in its table
    help: ClassVar[str] = "diffusion over the bits of the next token"

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        super().__init__(backbone, span, config)  # builds the trunk, from sizes
        device, ids = backbone.device, torch.arange(backbone.vocab_size)[:, None]
        bits = ids >> torch.arange(self.sizes[0]) & 1
        # Buffers and parameters are saved, moved and counted; plain tensors would not be. Modules
        # with weights to train come from the seed alone: self._built(lambda: nn.Linear(...)).
        self.register_buffer("codes", (2.0 * bits - 1).to(device))  # [V, D]
        self.register_buffer("mean", torch.zeros(backbone.hidden_size, device=device))
        self.register_buffer("std", torch.ones(backbone.hidden_size, device=device))
        self.codes: Tensor
        self.mean: Tensor
        self.std: Tensor

    @property
    def sizes(self) -> tuple[int, int]:
        """D: bits of a token; C: width of the teacher's states."""
        return max(1, (self.backbone.vocab_size - 1).bit_length()), self.backbone.hidden_size

    @property
    def layers(self) -> tuple[int, ...]:
        """The teacher's states that it asks for: h_a is the condition."""
        return (self.span.a,)

    def fit(self, statistics: SpanStatistics) -> None:
        """Keep how h_a is standardised, estimated once from the training text."""
        self.mean.copy_(statistics.condition_mean)
        self.std.copy_(statistics.condition_std)

    def target(self, batch: Batch) -> Tensor:
        """Return the clean signal [B, T, D], of unit scale; at i of tokens <= i + 1 only."""
        return self.codes[batch.following(batch.tokens)]

    def condition(self, batch: Batch) -> Tensor:
        """Return what the denoiser is given [B, T, C]; at i of tokens <= i only."""
        return (batch.hidden(self.span.a).to(self.std.dtype) - self.mean) / self.std

    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        """Return next-token logits [B, T, V]; at i of x0 and tokens at places <= i only.

        A number in (-1, 1) is read as the mean of its bit, whose log-odds are 2 atanh of it.
        """
        means = x0.clamp(-0.99, 0.99)  # certain bits would make infinite logits
        return torch.atanh(means) @ self.codes.T
