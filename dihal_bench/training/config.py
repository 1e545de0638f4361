"""How trunks are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.interfaces.settings import PHASES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.training.ledger import TrainingCost

OPTIMIZERS = ("muon", "adamw")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How trunks are trained.

    Attributes:
        batch: windows per step.
        micro: windows per pass, at most; the gradients of a step's passes are added.
        optimizer: "muon" (matrices by Muon, the rest by AdamW) or "adamw" (everything).
        lr: peak learning rate of AdamW.
        muon_lr: peak learning rate of Muon.
        weight_decay: decoupled, on matrices.
        warmup: share of the steps with a rising rate; afterwards a cosine falls to ``final`` of it.
        final: last learning rate over the peak.
        clip: largest gradient norm.
        ema: decay of the averaged weights, which are what is kept.
        autocast: compute in bfloat16 where that is safe; weights stay in float32.
    """

    batch: int = 8
    micro: int = 8
    optimizer: str = "muon"
    lr: float = 6e-3
    muon_lr: float = 0.04
    weight_decay: float = 0.01
    warmup: float = 0.05
    final: float = 0.02
    clip: float = 1.0
    ema: float = 0.98
    autocast: bool = True

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            known = ", ".join(OPTIMIZERS)
            raise UserError(f"train.optimizer={self.optimizer} is unknown; choose one of {known}.")


TOLERANCE = 0.01  # of the tokens of a phase
TRUNK_TOLERANCE = 0.05  # of the trunk's trainable parameters
MATCHES = ("diffusion", "total")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """Caps per phase, and which of them is held equal.

    Attributes:
        name: of the preset it comes from, as tables show it.
        diffusion_tokens: tokens seen while the trunk is trained.
        recovery_tokens: tokens seen while a recovery module is trained (interfaces that have one).
        matched: "diffusion": every phase that an interface declares has its own cap; "total": an
            interface that declares fewer phases spends all on those it has.
    """

    name: str = "tiny"
    diffusion_tokens: int = 524_288
    recovery_tokens: int = 262_144
    matched: str = "diffusion"

    def __post_init__(self) -> None:
        if self.matched not in MATCHES:
            raise UserError(
                f"budget.matched={self.matched} is unknown; choose one of {', '.join(MATCHES)}."
            )

    @property
    def caps(self) -> dict[str, int]:
        """Tokens per phase."""
        return {phase: int(getattr(self, f"{phase}_tokens")) for phase in PHASES}

    def plan(self, phases: tuple[str, ...]) -> dict[str, int]:
        """Return the tokens of each declared phase."""
        own = {phase: tokens for phase, tokens in self.caps.items() if phase in phases}
        if self.matched == "diffusion" or not own:
            return own
        share = sum(self.caps.values()) / sum(own.values())
        return {phase: round(share * tokens) for phase, tokens in own.items()}

    def check(self, phases: tuple[str, ...], spent: Mapping[str, TrainingCost]) -> dict[str, Any]:
        """Compare what was spent with what the declared phases may spend.

        Returns:
            {"within": bool, "<phase>": spent over cap}.
        """
        shares = {phase: spent[phase].tokens / cap for phase, cap in self.plan(phases).items()}
        return {"within": all(abs(share - 1) <= TOLERANCE for share in shares.values()), **shares}
