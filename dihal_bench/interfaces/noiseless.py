"""Controls without diffusion: the same trunk, once, at z = 0 and t = T."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from dihal_bench.interfaces.base import Interface

if TYPE_CHECKING:
    from torch import Tensor

    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import Step


class Noiseless(Interface):
    """An interface whose trunk sees no noise, in training and afterwards."""

    stochastic: ClassVar[bool] = False
    iterative: ClassVar[bool] = False

    def terminal_input(
        self, x0: Tensor, batch: Batch, context: Any, step: Step
    ) -> tuple[Tensor, Tensor]:
        """Return zeros at the last level."""
        del context, step
        return torch.zeros_like(x0), self._last_level(batch)

    def draw(self, batch: Batch, context: Any, *, chain: int, steps: int) -> Tensor:
        """Return the one prediction, a single evaluation whatever ``steps``."""
        del chain, steps
        last = torch.full((), self.diffusion.terminal, device=batch.tokens.device)
        return self.estimate(self._zeros(batch), last, context)

    def _zeros(self, batch: Batch) -> Tensor:
        shape = (*batch.tokens.shape, self.sizes[0])
        return torch.zeros(shape, dtype=self.dtype, device=batch.tokens.device)

    def _last_level(self, batch: Batch) -> Tensor:
        return torch.full(batch.tokens.shape, self.diffusion.terminal, device=batch.tokens.device)
