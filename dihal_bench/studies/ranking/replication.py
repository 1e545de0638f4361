"""The backbone is the unit of replication: what holds over several, tested exactly.

Layers of one backbone are no sample of anything: their curves are smooth. Backbones are few but
independent, so a difference (of a score's rank correlation to that of a rival) is tested by turning
the signs of all of them in every possible way.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST = 20  # differences whose signs are all turned: a million ways
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class SignFlip:
    """What an exact sign-flip test found.

    Attributes:
        mean: of the differences.
        p: share of sign assignments whose mean is at least as large: one-sided, "greater".
        least: the smallest p that so many differences can give.
        count: how many differences there are.
    """

    mean: float
    p: float
    least: float
    count: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def sign_flip(differences: Sequence[float]) -> SignFlip:
    """Test whether differences are above zero, if under the null each is symmetric about it.

    Args:
        differences: one per unit of replication.

    Raises:
        UserError: there are none, or too many to turn all signs.
    """
    if not 1 <= len(differences) <= LARGEST:
        raise UserError(
            f"{len(differences)} differences: the exact sign-flip test takes 1 to {LARGEST}."
        )
    own = np.asarray(differences, dtype=np.float64)
    signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(own))))
    means = signs @ own / len(own)
    mean = float(own.mean())
    p = float((means >= mean - _ROUNDING * max(1.0, abs(mean))).mean())
    return SignFlip(mean=mean, p=p, least=1 / len(signs), count=len(own))
