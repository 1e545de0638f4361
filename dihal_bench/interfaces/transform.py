"""Invertible changes of a state's coordinates: the geometry moves, what is in the state does not.

A bridge generates A (h - mean) / r instead of h, and A is undone before the frozen upper blocks:
information, network and depth are the same, so what changes is owed to the geometry (or, for A that
weighs directions differently, to the squared error that follows it). One number r, the root mean
square of a coordinate, stands for the standardisation per dimension, which would undo part of A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

STANDARD = "none"  # no transform: standardised per dimension, as ever
_FLOOR = 1e-6  # of the largest variance: what varies less is rounding


@dataclass(frozen=True)
class Transform:
    """A change of coordinates, written "name" or "name:number".

    Attributes:
        name: "none" (none, and coordinates are standardised one by one), "identity" (A = I),
            "rotate" (a random rotation: the null), "scale" (A = number I), or "spectrum"
            (A = U diag(lambda^(-number / 2)) U': 0 is the identity, 1 whitens).
        number: of scale and spectrum.
    """

    name: str
    number: float

    @classmethod
    def parse(cls, text: str) -> Transform:
        """Read "rotate", "scale:4", "spectrum:0.5" and the like.

        Raises:
            UserError: the name is unknown, or its number is missing, superfluous or out of range.
        """
        name, colon, written = text.partition(":")
        if name not in _KINDS:
            raise UserError(
                f"transform {text} is unknown; choose none, identity, rotate, scale:NUMBER or "
                "spectrum:POWER."
            )
        kind = _KINDS[name]
        try:
            number = float(written) if colon else math.nan
        except ValueError:
            number = math.nan
        if kind.takes_number != math.isfinite(number) or kind.takes_number != bool(colon):
            asks = "needs a number, as in" if kind.takes_number else "takes no number: write"
            raise UserError(f"transform {text} {asks} {kind.example}.")
        if kind.takes_number and not kind.least <= number <= kind.most:
            raise UserError(
                f"transform {text}: the number must be between {kind.least:g} and {kind.most:g}."
            )
        return cls(name, number)

    def matrix(self, covariance: Tensor, seed: int) -> Tensor:
        """Return A, float64 [D, D].

        Args:
            covariance: of the states, [D, D].
            seed: of the rotation.
        """
        return _KINDS[self.name].matrix(covariance.double(), self.number, seed)

    def maps(self, covariance: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return A / r and its inverse, float64 [D, D] each.

        Args:
            covariance: of the states, [D, D].
            seed: of the rotation.
        """
        a = self.matrix(covariance, seed)
        r = (a @ covariance.double() @ a.mT).trace().div(len(a)).sqrt()
        return a / r, torch.linalg.inv(a) * r


def _identity(covariance: Tensor, number: float, seed: int) -> Tensor:
    del number, seed
    return torch.eye(len(covariance), dtype=torch.float64, device=covariance.device)


def _rotation(covariance: Tensor, number: float, seed: int) -> Tensor:
    """Uniform over all rotations and reflections (Haar): QR of a Gaussian matrix, signs fixed."""
    del number
    drawn = np.random.default_rng(seed).standard_normal(covariance.shape)
    q, r = torch.linalg.qr(torch.from_numpy(drawn))
    rotation: Tensor = (q * r.diagonal().sign()).to(covariance.device)
    return rotation


def _scale(covariance: Tensor, number: float, seed: int) -> Tensor:
    return number * _identity(covariance, number, seed)


def _spectrum(covariance: Tensor, number: float, seed: int) -> Tensor:
    del seed
    values, vectors = torch.linalg.eigh(covariance)
    powers = values.clamp(min=_FLOOR * float(values[-1])) ** (-number / 2)
    matrix: Tensor = (vectors * powers) @ vectors.mT
    return matrix


@dataclass(frozen=True, kw_only=True)
class _Kind:
    matrix: Callable[[Tensor, float, int], Tensor]
    example: str
    takes_number: bool = False
    least: float = 0.0
    most: float = 0.0


_KINDS: Mapping[str, _Kind] = {
    STANDARD: _Kind(matrix=_identity, example="none"),
    "identity": _Kind(matrix=_identity, example="identity"),
    "rotate": _Kind(matrix=_rotation, example="rotate"),
    "scale": _Kind(matrix=_scale, example="scale:4", takes_number=True, least=1e-6, most=1e6),
    "spectrum": _Kind(
        matrix=_spectrum, example="spectrum:0.5", takes_number=True, least=-2.0, most=2.0
    ),
}
