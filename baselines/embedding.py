"""Diffusion over token embeddings, and its control without diffusion.

Li et al. (Diffusion-LM, arXiv 2205.14217): learned embeddings, rounding by the nearest one, the
clamp trick; Strudel et al. (SED, arXiv 2211.04236): frozen pretrained embeddings, their rows
normalised to the square root of D, a linear readout trained at a small noise, self-conditioning
(``--set diffusion.self_conditioning=true``). Unlike theirs, the rows are centred beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import INTERFACES
from dihal_bench.interfaces.losses import token_losses
from dihal_bench.interfaces.noiseless import Noiseless
from dihal_bench.interfaces.tokens import (
    TokenSpace,
    embedding_rows,
    new_readout,
    normalised,
    token_shares,
)

if TYPE_CHECKING:
    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import InterfaceConfig, Span, Step
    from dihal_bench.models.model import Backbone

ROUNDINGS = ("readout", "nearest")
_FAR = 1e4  # nats between the nearest token and all others


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """Settings of ``embedding``.

    Attributes:
        learned: the embeddings are trained, from the backbone's (Diffusion-LM; there from random
            ones), instead of frozen (SED).
        rounding: "readout" (a trained linear map) or "nearest": then a signal stands for one token
            and samples can be scored, but there is no likelihood.
        clamp: the sampler replaces every estimate of x0 by the nearest embedding (Diffusion-LM).
        sigma0: noise at which the readout is trained, in units of the embeddings (SED: 0.01). It
            is also what keeps learned ones apart: the diffusion's error alone would be least if
            they were all the same, and two that are closer than this noise cannot be told apart.
    """

    learned: bool = False
    rounding: str = "readout"
    clamp: bool = False
    sigma0: float = 0.01

    def __post_init__(self) -> None:
        if self.rounding not in ROUNDINGS:
            raise UserError(
                f"embedding.rounding={self.rounding} is unknown; "
                f"choose one of {', '.join(ROUNDINGS)}."
            )
        if self.sigma0 < 0:
            raise UserError(f"embedding.sigma0={self.sigma0} must be 0 or more.")


class EmbeddingSpace(TokenSpace):
    """Signal E[x_{i+1}], rows of norm sqrt(D); recovery by a linear readout that starts as E."""

    local_recovery: ClassVar[bool] = True
    Options: ClassVar[type | None] = EmbeddingOptions
    rows: Tensor

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        super().__init__(backbone, span, config)
        rows = embedding_rows(backbone)
        if self.options.learned:
            self.rows = nn.Parameter(rows)
        else:  # the backbone's: no need to keep them beside it
            self.register_buffer("rows", rows, persistent=False)
        self.readout = new_readout(backbone)

    @property
    def sizes(self) -> tuple[int, int]:
        """The signal is as wide as the embeddings, the condition as the hidden states."""
        width: int = self.backbone.model.get_input_embeddings().weight.shape[1]
        return width, self.backbone.hidden_size

    @property
    def likelihood(self) -> bool:
        """Nearest-neighbour rounding puts all its trust in one token."""
        return bool(self.options.rounding == "readout")

    @property
    def rounds(self) -> bool:
        """Both kinds of rounding take the nearest embedding."""
        return bool(self.options.clamp or not self.likelihood)

    @property
    def closed_form_parameters(self) -> int:
        """Numbers estimated without gradients; frozen embeddings are the backbone's own."""
        frozen = 0 if self.options.learned else self.rows.numel()
        return super().closed_form_parameters - frozen

    @property
    def table(self) -> Tensor:
        """Embeddings, rows of norm sqrt(D), [V, D]."""
        return normalised(self.rows) if self.options.learned else self.rows

    def target(self, batch: Batch) -> Tensor:
        """Return E[x_{i+1}], [B, T, D]."""
        return F.embedding(batch.following(batch.tokens), self.table)

    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        """Map a signal to logits: linearly, or all to the nearest embedding.

        Rounding to the nearest has no gradient: where one is asked for, the readout is used.
        """
        del batch
        if self.likelihood or torch.is_grad_enabled():
            logits: Tensor = self.readout(x0)
            return logits
        nearest = self._nearest(x0)
        far = x0.new_full((*nearest.shape, len(self.rows)), -_FAR)
        return far.scatter(-1, nearest[..., None], 0.0)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Return the shared losses and that of the readout: cross-entropy near the embeddings."""
        losses = super().losses(batch, step)
        x0 = self.target(batch)
        noise = self._recovery_normal(batch, x0.shape[-1], step).to(x0.dtype)
        logits = self.readout(x0 + self.options.sigma0 * noise)
        losses["readout"] = token_losses(logits, batch, ce=True, kd=False)["ce"]
        return losses

    def refine(self, x0: Tensor) -> Tensor:
        """Return the estimate, or with the clamp trick the nearest embedding."""
        return F.embedding(self._nearest(x0), self.table) if self.options.clamp else x0

    def _nearest(self, x0: Tensor) -> Tensor:
        """Return the token of the nearest embedding, [B, T]; all rows have one norm."""
        return (x0 @ self.table.T).argmax(-1)


@INTERFACES.register("embedding")
class Embedding(EmbeddingSpace):
    """Embedding diffusion."""

    controls: ClassVar[tuple[str, ...]] = ("lm",)
    help: ClassVar[str] = "Diffusion-LM, SED: diffusion over the next token's embedding"


@INTERFACES.register("lm")
class LanguageModel(Noiseless, EmbeddingSpace):
    """The same trunk as a language model: one pass, cross-entropy, no noise.

    Where the interfaces learn from the teacher's probabilities, so does it, in their proportion.
    """

    Options: ClassVar[type | None] = None
    help: ClassVar[str] = "control: the same trunk trained as a language model (z = 0, t = T)"

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        losses = replace(config.losses, diff=0.0, rec=0.0, **token_shares(config.losses))
        super().__init__(backbone, span, replace(config, losses=losses, options=EmbeddingOptions()))

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Return the token losses alone: the readout is trained by them."""
        return TokenSpace.losses(self, batch, step)
