"""What every interface may spend, whatever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.training.ledger import Spent

TOLERANCE = 0.01  # of the tokens of a phase


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """Caps per phase.

    Attributes:
        name: of the preset it comes from, as tables show it.
        diffusion_tokens: tokens seen while the trunk is trained.
        recovery_tokens: tokens seen while a recovery module is trained (interfaces that have one).
    """

    name: str = "tiny"
    diffusion_tokens: int = 524_288
    recovery_tokens: int = 0

    def tokens(self, phase: str) -> int:
        """Return the cap of a phase ("diffusion" or "recovery")."""
        return int(getattr(self, f"{phase}_tokens"))

    def check(self, phases: tuple[str, ...], spent: Mapping[str, Spent]) -> dict[str, Any]:
        """Compare what was spent with the caps of the declared phases.

        Returns:
            {"within": bool, "<phase>": spent over cap}.
        """
        shares = {phase: spent[phase].tokens / self.tokens(phase) for phase in phases}
        return {"within": all(abs(share - 1) <= TOLERANCE for share in shares.values()), **shares}
