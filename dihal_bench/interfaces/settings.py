"""What an interface is built from: the span it replaces, the weights of its losses, its regime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from dihal_bench.diffusion.denoisers import DenoiserConfig
    from dihal_bench.diffusion.schedule import DiffusionConfig

PHASES = ("recovery", "diffusion")  # in the order in which they are trained
REGIMES = ("causal", "sequence")


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
    """Weights of the four losses (DiHAL, section 3.3); what an interface adds of its own weighs 1.

    Attributes:
        diff: noise-level-weighted error of x0 at a random level.
        rec: unweighted error of the one-step estimate at t = T.
        ce: next-token cross-entropy of that estimate, recovered.
        kd: KL(teacher || recovered) of that estimate.
        token_share: share of the windows that ce and kd are taken on, divided by it: their
            gradients are the same on average. For the others no layer above the state is run.
    """

    diff: float = 1.0
    rec: float = 1.0
    ce: float = 0.03
    kd: float = 0.03
    token_share: float = 1.0

    @property
    def learns(self) -> bool:
        """Whether any loss has a weight."""
        return any((self.diff, self.rec, self.ce, self.kd))


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
        block: tokens that are denoised jointly, in the sequence regime; 0 in the causal regime.
        options: the interface's own settings, of its ``Options``; None: their defaults.
    """

    residual: str
    denoiser: DenoiserConfig
    diffusion: DiffusionConfig
    losses: LossWeights
    seed: int
    block: int = 0
    options: Any = None

    @property
    def regime(self) -> str:
        """Either "causal" or "sequence"."""
        return REGIMES[self.block > 0]


@dataclass(frozen=True, kw_only=True)
class Step:
    """Where training stands.

    Attributes:
        index: the step, from 0; all of its noise is a function of it.
        of: how many there are in the phase.
        phase: "recovery" or "diffusion".
        taught: rows of the batch that ce and kd are taken on; None: all of them.
    """

    index: int
    of: int = 1
    phase: str = "diffusion"
    taught: tuple[int, ...] | None = None
