"""DiHAL: the hidden state at layer b is generated, and the frozen layers above go on from it.

Kong, Lee, Jo (arXiv 2605.14368), section 3.3: the bridge is conditioned on the embedding output of
the clean prefix (h_a here, a = 0 by default) and reconstructs h_b; the retained blocks map it to
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import INTERFACES
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.transform import STANDARD, Transform

if TYPE_CHECKING:
    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import InterfaceConfig, Span
    from dihal_bench.interfaces.statistics import SpanStatistics
    from dihal_bench.models.model import Backbone

RESIDUALS = ("none", "token-mean")


@dataclass(frozen=True, kw_only=True)
class HiddenOptions:
    """Settings of whatever predicts a state.

    Attributes:
        transform: the coordinates that are generated, as ``Transform`` reads them: "none"
            (standardised one by one), "identity", "rotate", "scale:NUMBER", "spectrum:POWER".
    """

    transform: str = STANDARD

    def __post_init__(self) -> None:
        Transform.parse(self.transform)


class HiddenSpace(Interface):
    """Signal h_b, standardised per dimension; recovery by the frozen blocks b+1..N and the head.

    With ``residual="token-mean"`` the signal is the difference of h_b from the token's mean state.
    With a transform it is A (h_b - mean) / r instead, for an invertible A.
    """

    Options: ClassVar[type | None] = HiddenOptions
    section: ClassVar[str] = "hidden"

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        if config.residual not in RESIDUALS:
            raise UserError(
                f"bridge.residual={config.residual} is unknown; "
                f"choose one of {', '.join(RESIDUALS)}."
            )
        super().__init__(backbone, span, config)
        size, vocabulary = backbone.hidden_size, backbone.vocab_size
        rows = vocabulary if config.residual == "token-mean" else 1
        zeros = torch.zeros(rows, size, dtype=torch.float32, device=backbone.device)
        self.register_buffer("baseline", zeros)
        self.register_buffer("scale", torch.ones_like(zeros[0]))
        self.register_buffer("std", torch.ones_like(zeros[0]))
        self._transform = Transform.parse(self.options.transform)
        self._transformed = self._transform.name != STANDARD
        if self._transformed:
            if config.residual != "none":
                raise UserError(
                    f"hidden.transform={self.options.transform} changes the coordinates of states, "
                    "not of their differences from a token's mean; set bridge.residual=none."
                )
            eye = torch.eye(size, dtype=torch.float32, device=backbone.device)
            self.register_buffer("there", eye)
            self.register_buffer("back", eye.clone())
            self.there: Tensor
            self.back: Tensor
        self.register_buffer("condition_mean", torch.zeros_like(zeros[0]))
        self.register_buffer("condition_std", torch.ones_like(zeros[0]))
        self.baseline: Tensor
        self.scale: Tensor
        self.std: Tensor
        self.condition_mean: Tensor
        self.condition_std: Tensor

    @property
    def sizes(self) -> tuple[int, int]:
        """Signal and condition are both as wide as the backbone."""
        return self.backbone.hidden_size, self.backbone.hidden_size

    @property
    def layers(self) -> tuple[int, ...]:
        """h_a is the condition and h_b the target."""
        return self.span.a, self.span.b

    def fit(self, statistics: SpanStatistics) -> None:
        """Keep the standardisation of target and condition, and the token table of the residual."""
        residual = self.config.residual == "token-mean"
        self.baseline.copy_(statistics.token_mean if residual else statistics.mean[None])
        self.scale.copy_(statistics.residual_std if residual else statistics.std)
        self.std.copy_(statistics.std)
        if self._transformed:
            self.scale.fill_(1.0)
            there, back = self._transform.maps(statistics.covariance, self.config.seed)
            self.there.copy_(there)
            self.back.copy_(back)
        self.condition_mean.copy_(statistics.condition_mean)
        self.condition_std.copy_(statistics.condition_std)

    def target(self, batch: Batch) -> Tensor:
        """Return (h_b - baseline) / scale, [B, T, D], or A (h_b - mean) / r."""
        return self.encode(batch.hidden(self.span.b).to(self.scale.dtype), batch)

    def condition(self, batch: Batch) -> Tensor:
        """Return the standardised h_a, [B, T, D]."""
        state = batch.hidden(self.span.a).to(self.scale.dtype)
        return (state - self.condition_mean) / self.condition_std

    def encode(self, state: Tensor, batch: Batch) -> Tensor:
        """Return the signal [B, T, D] of states h_b [B, T, D]."""
        signal = (state - self._baseline(batch)) / self.scale
        return _times(signal, self.there) if self._transformed else signal

    def hidden(self, x0: Tensor, batch: Batch) -> Tensor:
        """Return the state h_b [B, T, D] that a signal stands for: the inverse of ``encode``."""
        signal = _times(x0, self.back) if self._transformed else x0
        return signal * self.scale + self._baseline(batch)

    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        """Run the frozen blocks above b and the head on the signal's states."""
        return batch.upper(self.hidden(x0, batch), self.span.b)

    def signal(self, x0: Tensor, batch: Batch) -> Tensor:
        """Return the state in units of its standard deviation, whatever the residual."""
        return self.hidden(x0, batch) / self.std

    def _baseline(self, batch: Batch) -> Tensor:
        return self.baseline[batch.tokens] if len(self.baseline) > 1 else self.baseline[0]


def _times(states: Tensor, matrix: Tensor) -> Tensor:
    """Return A x for every row x, in the matrix's own precision: autocast would cost digits."""
    with torch.autocast(states.device.type, enabled=False):
        return states.to(matrix.dtype) @ matrix.mT


@INTERFACES.register("hidden")
class Hidden(HiddenSpace):
    """The DiHAL bridge: diffusion over h_b given the clean prefix's h_a."""

    section: ClassVar[str] = ""  # its own name

    controls: ClassVar[tuple[str, ...]] = ("regress", "token-mean", "ridge", "mean", "identity")
    slow_controls: ClassVar[tuple[str, ...]] = ("regress-loop",)
    help: ClassVar[str] = "DiHAL: diffusion over the hidden state at a layer, frozen upper layers"
