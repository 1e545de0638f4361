"""DiHAL's theory in numbers: each bound beside what it bounds, on laws with dialled geometry.

DiHAL, Section 3.1 (arXiv 2605.14368), motivates the proxies by four statements about laws exp(-U):
contraction of Langevin dynamics (Theorem 1), robustness to an error of the drift (Theorem 2), the
effective rank near a manifold (Lemma 1), and concentration (Theorem 3). Both sides of each are
computed here, in closed form on Gaussians and by quadrature on a line. Every statement has
controls: laws that lack its assumption, or a constant that only looks like the right one. There the
same inequality has to fail. None of this says that activations satisfy the assumptions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import stats

from dihal_bench.geometry.anatomy import ranks
from dihal_bench.studies.theory.line_laws import gaussian, gibbs, langevin, wasserstein

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dihal_bench.studies.theory.line_laws import Potential

    Array = NDArray[np.float64]

_SLACK = 1e-3  # relative: the error of a quadrature
_CURVATURES = (0.5, 2.0, 8.0)
_STIFFER = np.array([1.0, 1.5, 2.0, 3.0, 5.0, 10.0])  # precisions of a Gaussian over kappa
_SOFTEST = np.eye(len(_STIFFER))[0]
_BARRIER = 6.0  # h of the double well h (x^2 - 1)^2; in its wells the curvature is 8 h
_CELLS = 601
_ROWS = 4000


@dataclass(frozen=True, kw_only=True)
class Check:
    """A bound and what it bounds.

    Attributes:
        claim: "Theorem 1", "Theorem 2", "Lemma 1" or "Theorem 3".
        statement: the inequality.
        law: what it was computed for.
        dialled: the parameters that were set, by name.
        bound: the right-hand side.
        measured: the left-hand side.
        control: whether an assumption is broken, so that the inequality has to fail.
    """

    claim: str
    statement: str
    law: str
    dialled: dict[str, float]
    bound: float
    measured: float
    control: bool = False

    @property
    def holds(self) -> bool:
        """Whether the bound holds, up to the error of a quadrature."""
        return self.measured <= self.bound * (1 + _SLACK)

    @property
    def as_expected(self) -> bool:
        """Whether it holds where it has to, and fails where an assumption is broken."""
        return self.holds != self.control

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"holds": self.holds, "as_expected": self.as_expected}


def verify() -> list[Check]:
    """Return all checks; they take seconds, and are the same every time."""
    return [*contraction(), *drift_errors(), *manifold_ranks(), *concentration()]


# --- Theorem 1 ------------------------------------------------------------------------------------


def contraction() -> list[Check]:
    """Theorem 1: Langevin dynamics of a kappa-convex U come closer to exp(-U) as exp(-kappa t)."""
    found = []
    for kappa in _CURVATURES:
        found += [
            _gaussian_contraction("Gaussian, started wide and aside", kappa, 1 + 0 * _STIFFER, 2.0),
            _gaussian_contraction("Gaussian, moved in its softest direction", kappa, _SOFTEST, 1.0),
            _line_contraction("U = kappa x^2 / 2 + x^4 / 4", kappa, _quartic(kappa), (1.0, 0.5)),
        ]
    mean_precision = 1 / float(np.mean(1 / _STIFFER))
    law = "control: Gaussian, kappa read off the mean variance instead of the largest"
    found.append(_gaussian_contraction(law, mean_precision, _SOFTEST, 1.0, true_kappa=1.0))
    law = "control: double well, kappa read off its wells"
    return [*found, _line_contraction(law, 8 * _BARRIER, _double_well, (1.0, 0.1), control=True)]


def _gaussian_contraction(
    law: str, kappa: float, shift: Array, spread: float, true_kappa: float | None = None
) -> Check:
    """Started ``shift`` away with ``spread`` times the target's deviation in every direction.

    Every direction is an Ornstein-Uhlenbeck process of its own.
    """
    precision = _STIFFER * (true_kappa or kappa)
    t = 1 / kappa

    def distance(s: float) -> float:
        decay = np.exp(-precision * s)
        deviation = np.sqrt((1 + decay**2 * (spread**2 - 1)) / precision)
        return float(np.linalg.norm([decay * shift, deviation - precision**-0.5]))

    return Check(
        claim="Theorem 1",
        statement="W2(X_t, mu) <= exp(-kappa t) W2(X_0, mu)",
        law=law,
        dialled={"kappa": kappa, "t": t},
        bound=float(np.exp(-kappa * t)) * distance(0.0),
        measured=distance(t),
        control=true_kappa is not None,
    )


def _line_contraction(
    law: str, kappa: float, potential: Potential, start: tuple[float, float], control: bool = False
) -> Check:
    """Started from a Gaussian of that mean and deviation."""
    t, edges = 1 / kappa, _edges(potential)
    target, first = gibbs(potential, edges), gaussian(*start, edges)
    return Check(
        claim="Theorem 1",
        statement="W2(X_t, mu) <= exp(-kappa t) W2(X_0, mu)",
        law=law,
        dialled={"kappa": kappa, "t": t},
        bound=float(np.exp(-kappa * t)) * wasserstein(first, target),
        measured=wasserstein(langevin(potential, first, t), target),
        control=control,
    )


# --- Theorem 2 ------------------------------------------------------------------------------------


def drift_errors() -> list[Check]:
    """Theorem 2: a drift that is wrong by at most eps moves the invariant law by eps / kappa."""
    found = []
    for kappa in _CURVATURES:
        for eps in (0.1, 1.0):
            law = "Gaussian, a constant error in its softest direction"
            found += [
                _gaussian_drift(law, kappa, eps, _SOFTEST),
                _gaussian_drift(
                    "Gaussian, a constant error in all directions",
                    *(kappa, eps, 1 + 0 * _STIFFER),
                ),
                _line_drift("U = kappa x^2 / 2 + x^4 / 4", kappa, eps, _quartic(kappa), 3.0),
            ]
        found.append(_line_drift_in_time(kappa, 0.5))
    mean_precision = 1 / float(np.mean(1 / _STIFFER))
    law = "control: Gaussian, kappa read off the mean variance instead of the largest"
    found.append(_gaussian_drift(law, mean_precision, 1.0, _SOFTEST, true_kappa=1.0))
    law = "control: double well, kappa read off its wells"
    return [*found, _line_drift(law, 8 * _BARRIER, 0.3, _double_well, 0.0, control=True)]


def _gaussian_drift(
    law: str, kappa: float, eps: float, direction: Array, true_kappa: float | None = None
) -> Check:
    """A constant error moves the mean by covariance times error, and nothing else."""
    error = eps * direction / np.linalg.norm(direction)
    return Check(
        claim="Theorem 2",
        statement="W2(mu, mu_hat) <= eps / kappa",
        law=law,
        dialled={"kappa": kappa, "eps": eps},
        bound=eps / kappa,
        measured=float(np.linalg.norm(error / (_STIFFER * (true_kappa or kappa)))),
        control=true_kappa is not None,
    )


def _line_drift(
    law: str,
    kappa: float,
    eps: float,
    potential: Potential,
    frequency: float,
    control: bool = False,
) -> Check:
    """The drift is wrong by eps cos(frequency x): constant where the frequency is 0."""
    edges = _edges(potential)
    wrong = _disturbed(potential, eps, frequency)
    return Check(
        claim="Theorem 2",
        statement="W2(mu, mu_hat) <= eps / kappa",
        law=law,
        dialled={"kappa": kappa, "eps": eps, "frequency": frequency},
        bound=eps / kappa,
        measured=wasserstein(gibbs(potential, edges), gibbs(wrong, edges)),
        control=control,
    )


def _line_drift_in_time(kappa: float, eps: float) -> Check:
    """Both dynamics start from one law."""
    potential, t = _quartic(kappa), 0.5 / kappa
    edges = _edges(potential)
    start = gaussian(0.5, 0.5, edges)
    laws = (langevin(u, start, t) for u in (potential, _disturbed(potential, eps, 1.0)))
    return Check(
        claim="Theorem 2",
        statement="W2(X_t, X_hat_t) <= eps (1 - exp(-kappa t)) / kappa",
        law="U = kappa x^2 / 2 + x^4 / 4",
        dialled={"kappa": kappa, "eps": eps, "t": t, "frequency": 1.0},
        bound=float(-eps * np.expm1(-kappa * t) / kappa),
        measured=wasserstein(*laws),
    )


# --- Lemma 1 --------------------------------------------------------------------------------------


def manifold_ranks() -> list[Check]:
    """Lemma 1: near a d-dimensional manifold the effective rank is of order d.

    With m(X) on the manifold, tr Cov(m(X)) <= d s^2 and E|X - m(X)|^2 <= delta^2, Minkowski's
    inequality in L2 gives tr(Sigma) <= (sqrt(d) s + delta)^2. The dimension alone bounds nothing: a
    curve can visit every direction of the space.
    """
    found = []
    for d in (2, 8, 32):
        for delta in (0.0, 0.5, 4.0):
            rng = np.random.default_rng(d)
            flat = np.pad(rng.normal(size=(_ROWS, d)), ((0, 0), (0, 64 - d)))
            found.append(_manifold("a d-dimensional plane in 64 dimensions", flat, d, delta))
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(_ROWS, 3))
    torus = np.pad(np.concatenate([np.cos(angles), np.sin(angles)], axis=1), ((0, 0), (0, 58)))
    found.append(_manifold("a torus of 3 circles in 64 dimensions", torus, 3, 0.5))
    waves = angles[:, :1] * np.arange(1, 33)
    curve = np.concatenate([np.cos(waves), np.sin(waves)], axis=1)
    law = "control: a closed curve through 64 dimensions, s read off the largest variance"
    largest = float(np.linalg.eigvalsh(np.cov(curve.T))[-1])
    return [*found, _manifold(law, curve, 1, 0.0, spread=largest)]


def _manifold(law: str, points: Array, d: int, delta: float, spread: float | None = None) -> Check:
    """Points [rows, D] on the manifold, moved off it by ``delta`` (root mean square).

    s^2 is ``spread``, by default the points' own variance per dimension of the manifold.
    """
    noise = np.random.default_rng(1).normal(size=points.shape)
    noise *= delta / np.sqrt((noise**2).sum(axis=1).mean())
    s2 = float(points.var(axis=0).sum()) / d if spread is None else spread
    spectrum = np.linalg.eigvalsh(np.cov((points + noise).T, bias=True))
    return Check(
        claim="Lemma 1",
        statement="tr(Sigma) / lambda_max(Sigma) <= (sqrt(d) s + delta)^2 / lambda_max(Sigma)",
        law=law,
        dialled={"d": float(d), "delta": delta, "s": s2**0.5},
        bound=float((np.sqrt(d * s2) + delta) ** 2 / spectrum[-1]),
        measured=ranks(torch.from_numpy(spectrum))["stable"],
        control=spread is not None,
    )


# --- Theorem 3 ------------------------------------------------------------------------------------


def concentration() -> list[Check]:
    """Theorem 3: where U is kappa-convex, an L-Lipschitz function strays no more than 1 / kappa."""
    found = []
    for kappa in _CURVATURES:
        line = gibbs(_quartic(kappa), _edges(_quartic(kappa)))
        norm = stats.chi(df=64, scale=kappa**-0.5)
        found += [
            _variance("the softest direction of a Gaussian", kappa, 1 / kappa),
            _variance("U = kappa x^2 / 2 + x^4 / 4", kappa, line.variance),
            _variance("the norm of a Gaussian in 64 dimensions", kappa, float(norm.var())),
        ]
        for deviations in (1.0, 2.0, 4.0):
            r = deviations * kappa**-0.5
            beyond = norm.sf(norm.mean() + r) + norm.cdf(norm.mean() - r)
            found += [
                _tail(
                    "the softest direction of a Gaussian", kappa, r, 2 * stats.norm.sf(deviations)
                ),
                _tail("U = kappa x^2 / 2 + x^4 / 4", kappa, r, line.tail(r)),
                _tail("the norm of a Gaussian in 64 dimensions", kappa, r, float(beyond)),
            ]
    well = gibbs(_double_well, _edges(_double_well))
    law = "control: double well, kappa read off its wells"
    found.append(_variance(law, 8 * _BARRIER, well.variance, control=True))
    student = stats.t(df=3)
    law = "control: Student's t, kappa read off its variance"
    beyond = float(2 * student.sf(6 * student.std()))
    return [*found, _tail(law, float(1 / student.var()), float(6 * student.std()), beyond, True)]


def _variance(law: str, kappa: float, measured: float, control: bool = False) -> Check:
    return Check(
        claim="Theorem 3",
        statement="Var f(X) <= L^2 / kappa",
        law=law,
        dialled={"kappa": kappa, "L": 1.0},
        bound=1 / kappa,
        measured=measured,
        control=control,
    )


def _tail(law: str, kappa: float, r: float, measured: float, control: bool = False) -> Check:
    return Check(
        claim="Theorem 3",
        statement="P(|f(X) - E f(X)| > r) <= 2 exp(-kappa r^2 / (2 L^2))",
        law=law,
        dialled={"kappa": kappa, "L": 1.0, "r": r},
        bound=float(2 * np.exp(-kappa * r * r / 2)),
        measured=float(measured),
        control=control,
    )


# --- potentials on a line -------------------------------------------------------------------------


def _quartic(kappa: float) -> Potential:
    return lambda x: kappa * x**2 / 2 + x**4 / 4


def _double_well(x: Array) -> Array:
    return _BARRIER * (x**2 - 1) ** 2


def _disturbed(potential: Potential, eps: float, frequency: float) -> Potential:
    """U of a drift that is eps cos(frequency x) too large."""
    if frequency == 0:
        return lambda x: potential(x) - eps * x
    return lambda x: potential(x) - eps * np.sin(frequency * x) / frequency


def _edges(potential: Potential, energy: float = 60.0) -> Array:
    """Cells where U is below ``energy``: beyond is no mass that float64 could tell from none."""
    far = np.linspace(0, 20, 2001)
    reach = float(far[np.argmax(potential(far) > energy + potential(far).min())])
    edges: Array = np.linspace(-reach, reach, _CELLS + 1)
    return edges
