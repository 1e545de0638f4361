"""Controls without diffusion for ``hidden``: the same trunk, losses and tokens, no noise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from dihal_bench.core.registry import INTERFACES
from dihal_bench.interfaces.hidden import HiddenSpace
from dihal_bench.interfaces.noiseless import Noiseless

if TYPE_CHECKING:
    from torch import Tensor

    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import InterfaceConfig, Span, Step
    from dihal_bench.models.model import Backbone


_STRIDE = 7  # prime to the number of passes: all depths in turn, neighbours far apart


@INTERFACES.register("regress")
class Regress(Noiseless, HiddenSpace):
    """Regression to h_b: the denoiser at z = 0, t = T, once."""

    help: ClassVar[str] = "control: the same trunk regresses the hidden state (z = 0, t = T)"

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        # Without noise the two squared errors are one and the same; it takes the weight of both.
        merged = replace(config.losses, diff=0.0, rec=config.losses.diff + config.losses.rec)
        super().__init__(backbone, span, replace(config, losses=merged))


@INTERFACES.register("regress-loop")
class RegressLoop(Regress):
    """Regression refined in S weight-tied passes: as many as the sampler makes, still no noise.

    Trained by recycling: some passes without gradient, then one with it. Their number runs through
    0 to 15 in turn, so that what a step costs on average is known after sixteen.
    """

    iterative: ClassVar[bool] = True
    help: ClassVar[str] = "control: regression in S weight-tied passes, equal NFE to the sampler"
    passes: ClassVar[int] = 16  # while training, at most
    period: ClassVar[int] = passes

    def terminal_input(
        self, x0: Tensor, batch: Batch, context: Any, step: Step
    ) -> tuple[Tensor, Tensor]:
        """Return the previous pass's estimate after some passes, and its level."""
        del batch
        with torch.no_grad():
            depth = step.index * _STRIDE % self.passes
            z = self._refine(torch.zeros_like(x0), context, depth, self.passes)
        return z, self._level(depth, self.passes, z.device)

    def draw(self, batch: Batch, context: Any, *, chain: int, steps: int) -> Tensor:
        """Return the prediction after ``steps`` passes."""
        del chain
        return self._refine(self._zeros(batch), context, steps, steps)

    def _refine(self, z: Tensor, context: object, count: int, of: int) -> Tensor:
        for index in range(count):
            z = self.estimate(z, self._level(index, of, z.device), context)
        return z

    def _level(self, index: int, of: int, device: torch.device) -> Tensor:
        """Level of pass ``index`` (from 0) of ``of``: where the sampler would stand."""
        return torch.full((), self.diffusion.levels(of)[index], device=device)
