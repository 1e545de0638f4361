"""The contract of an interface: where in the model a signal enters, and the way back to tokens.

A new interface states ``target``, ``condition`` and ``recover`` (and what it fits in closed form);
the trunk, the diffusion, losses, sampling, checkpoints and scores come with this class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dihal_bench.diffusion.noise import Noise
from dihal_bench.diffusion.schedule import Diffusion, DiffusionConfig
from dihal_bench.errors import UserError
from dihal_bench.registry import DENOISERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dihal_bench.backbone.model import Backbone
    from dihal_bench.diffusion.denoisers import Denoiser, DenoiserConfig
    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.statistics import SpanStatistics

_TRAINING_DRAWS = 1 << 30  # training and sampling never use the same noise


@dataclass(frozen=True, kw_only=True)
class Span:
    """The replaced blocks (a, b] of a backbone of ``blocks`` blocks."""

    a: int
    b: int
    blocks: int

    def __post_init__(self) -> None:
        if not 0 <= self.a < self.b <= self.blocks:
            raise UserError(
                f"the span ({self.a}, {self.b}] replaces no block of {self.blocks}; its ends must "
                "satisfy 0 <= a < b <= N."
            )

    @property
    def replaced(self) -> int:
        """How many blocks the interface stands in for."""
        return self.b - self.a


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Weights of the four losses (DiHAL, section 3.3).

    Attributes:
        diff: noise-level-weighted error of x0 at a random level.
        rec: unweighted error of the one-step estimate at t = T.
        ce: next-token cross-entropy of that estimate, recovered.
        kd: KL(teacher || recovered) of that estimate.
    """

    diff: float = 1.0
    rec: float = 1.0
    ce: float = 0.03
    kd: float = 0.03


@dataclass(frozen=True, kw_only=True)
class InterfaceConfig:
    """What an interface is built from.

    Attributes:
        residual: what a predictor of h_b predicts: "none" (the state) or "token-mean" (its
            difference from the token's mean state).
        denoiser: the trunk.
        diffusion: the process.
        losses: weights of the losses.
        seed: of the trunk's initial weights and of all noise.
    """

    residual: str
    denoiser: DenoiserConfig
    diffusion: DiffusionConfig
    losses: LossWeights
    seed: int


class Interface(nn.Module, ABC):
    """A signal x0 that is generated given the clean prefix, and its way back to next-token logits.

    Shapes: B windows, T positions, D signal dimensions, C condition dimensions, V vocabulary.

    Attributes:
        trainable: whether there is anything to train by gradient.
        stochastic: whether different chains give different signals.
        iterative: whether the number of network evaluations is its user's to choose.
        reads_tokens: whether predictions are meant to depend on the tokens at all.
        phases: the training phases it declares, each with a budget of its own.
        help: one line for ``dihal-bench list``.
    """

    trainable: ClassVar[bool] = True
    stochastic: ClassVar[bool] = True
    iterative: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = True
    phases: ClassVar[tuple[str, ...]] = ("diffusion",)
    help: ClassVar[str] = ""

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        super().__init__()
        self.__dict__["backbone"] = backbone  # the frozen teacher is not a submodule
        self.backbone: Backbone
        self.span = span
        self.config = config
        self.noise = Noise(config.seed)
        self.diffusion = Diffusion.create(config.diffusion)
        self.trunk: Denoiser | None = self._new_trunk() if self.trainable else None

    # --- what an interface must state -------------------------------------------------------------

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """Signal dimensions D and condition dimensions C."""

    @property
    @abstractmethod
    def layers(self) -> tuple[int, ...]:
        """Layers whose teacher states ``target`` and ``condition`` ask for."""

    @abstractmethod
    def target(self, batch: Batch) -> Tensor:
        """Return the clean, standardised signal x0 [B, T, D]; at i of tokens <= i + 1 only."""

    @abstractmethod
    def condition(self, batch: Batch) -> Tensor:
        """Return the condition [B, T, C]; at i a function of tokens <= i."""

    @abstractmethod
    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        """Return next-token logits [B, T, V]; at i of x0 and tokens at positions <= i only."""

    def fit(self, statistics: SpanStatistics) -> None:
        """Keep what is estimated in closed form from the training text, if anything."""

    def signal(self, x0: Tensor, batch: Batch) -> Tensor:
        """Return the signal [B, T, D] in the space where errors are reported; x0 by default."""
        del batch
        return x0

    # --- what comes with the contract -------------------------------------------------------------

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Return the unweighted losses of a training batch by name; its noise is the step's."""
        assert self.trunk is not None
        weights, x0 = self.config.losses, self.target(batch)
        context = self.trunk.encode(self.condition(batch), batch.positions)
        losses = {}
        if weights.diff:
            z, t = self.training_input(x0, batch, step)
            error = (self.estimate(z, t, context) - x0).square().mean(-1)
            losses["diff"] = (self.diffusion.loss_weight(t).to(error.dtype) * error).mean()
        z, t = self.terminal_input(x0, batch, step)
        estimate = self.estimate(z, t, context)
        losses["rec"] = (estimate - x0).square().mean()  # starts as well: all later states see them
        if weights.ce or weights.kd:
            losses |= token_losses(self.recover(estimate, batch), batch)
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses."""
        weights = self.config.losses
        terms = [getattr(weights, name) * value for name, value in losses.items()]
        return torch.stack(terms).sum()

    def training_input(self, x0: Tensor, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Return the noised signal [B, T, D] and its levels [B, T], drawn per position."""
        draw = _TRAINING_DRAWS + 2 * step
        uniform = self.noise.uniform(batch.documents, batch.offsets, draw=draw)
        t = self.diffusion.draw_level(uniform)
        return self.diffusion.corrupt(x0, self._normal(batch, draw), t), t

    def terminal_input(self, x0: Tensor, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """Return the signal at the last level, t = T: pure noise where the terminal SNR is zero."""
        t = torch.full(batch.tokens.shape, self.diffusion.terminal, device=x0.device)
        eps = self._normal(batch, _TRAINING_DRAWS + 2 * step + 1)
        return self.diffusion.corrupt(x0, eps, t), t

    def estimate(self, z: Tensor, t: Tensor, context: Any) -> Tensor:
        """Return the network's estimate of x0 [B, T, D] at levels ``t``, [B, T] or []."""
        assert self.trunk is not None
        level = (t + 1).to(torch.float32) / self.diffusion.config.train_steps
        z = z.to(self.dtype)
        output = self.trunk(self.diffusion.network_input(z, t), level, context)
        return self.diffusion.to_x0(output, z, t)

    def chains(self, batch: Batch, *, steps: int, count: int) -> Iterator[Tensor]:
        """Yield ``count`` independent samples [B, T, D], of ``steps`` evaluations each."""
        assert self.trunk is not None
        context = self.trunk.encode(self.condition(batch), batch.positions)
        for chain in range(count):
            yield self.diffusion.sample(
                lambda z, t: self.estimate(z, t, context),
                lambda step, chain=chain: self._normal(batch, chain, step),  # type: ignore[misc]
                steps,
            ).to(self.dtype)

    @property
    def closed_form_parameters(self) -> int:
        """Numbers estimated without gradients: tables, means, scales."""
        return sum(buffer.numel() for buffer in self.buffers())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the trunk's weights."""
        return next((p.dtype for p in self.parameters()), self.backbone.model.dtype)

    def _normal(self, batch: Batch, draw: int, step: int = 0) -> Tensor:
        return self.noise.normal(
            batch.documents, batch.offsets, self.sizes[0], draw=draw, step=step
        )

    def _new_trunk(self) -> Denoiser:
        signal, condition = self.sizes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            trunk: Denoiser = DENOISERS.get(self.config.denoiser.name)(
                signal, condition, self.config.denoiser
            )
        return trunk.to(self.backbone.device)


def token_losses(logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Return cross-entropy and KL(teacher || logits), means over the scored next tokens."""
    scored = batch.scored[:, 1:]  # a mask, not an index: the gradient of indexing is serial on CPU
    student = F.log_softmax(logits[:, :-1].float(), dim=-1)  # (B, T - 1, V)
    teacher, entropy = batch.teacher  # KL = cross-entropy - entropy: no logarithm is taken again
    ce = -student.gather(-1, batch.tokens[:, 1:, None])[..., 0]
    kd = -torch.linalg.vecdot(teacher[:, :-1], student) - entropy[:, :-1]
    count = scored.sum()
    return {"ce": (ce * scored).sum() / count, "kd": (kd * scored).sum() / count}
