"""How trunks are trained."""

from __future__ import annotations

from dataclasses import dataclass

from dihal_bench.core.errors import UserError

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
