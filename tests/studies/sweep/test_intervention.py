"""Changes of coordinates: what ties, what moves, and what a planted effect looks like."""

import numpy as np
import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.studies.sweep.intervention import Geometry, Intervention
from dihal_bench.studies.sweep.outcomes import Outcomes
from dihal_bench.studies.sweep.plan import transform_axis

NAMES = ["identity", "rotate", "spectrum:0.5", "spectrum:1"]
LAYERS = [1, 2, 3]
SCORES = np.array([[0.0, 0.0, -1.0, -2.0], [0.0, 0.0, -1.0, -2.0], [0.0, 0.0, 2.0, 1.0]])


def of(losses: np.ndarray, scores: np.ndarray = SCORES, names: list[str] = NAMES) -> Intervention:
    axis = transform_axis(LAYERS, names)
    both = {"diffused": scores, "raw": scores}
    geometry = Geometry(
        layers=LAYERS,
        transforms=names,
        scores=both,
        draws={view: np.repeat(own[None], 4, 0) for view, own in both.items()},
    )
    outcomes = Outcomes(
        candidates=list(axis.candidates),
        seeds=list(range(len(losses))),
        losses={"kl": losses.reshape(len(losses), -1)},
        steps=1,
        budget={},
        costs=[],
        origins=[],
        rests_on={},
    )
    return Intervention.of(geometry, outcomes, resamples=300)


def test_a_loss_that_follows_the_score_is_found_whatever_the_layers_differ_by() -> None:
    depth = 10.0 * np.arange(3)[:, None]  # layers differ in more than geometry
    found = of(np.stack([depth - SCORES + 0.001 * seed for seed in range(3)])).tau["diffused"]["kl"]
    assert found.value == pytest.approx(1.0)  # ties of the score are ties of the loss
    against = of(np.stack([depth + SCORES] * 3)).tau["diffused"]["kl"]
    assert against.value == pytest.approx(-1.0)


def test_a_loss_that_does_not_covers_zero() -> None:
    noise = np.random.default_rng(0).normal(size=(6, 3, 4))
    found = of(noise).tau["diffused"]["kl"]
    assert found.lo < 0 < found.hi


def test_without_spread_of_the_score_there_is_no_correlation() -> None:
    found = of(np.random.default_rng(0).normal(size=(3, 3, 4)), np.zeros((3, 4)))
    assert found.tau["raw"]["kl"].value is None


def test_differences_are_in_pairs_with_an_interval_over_seeds() -> None:
    losses = np.random.default_rng(1).normal(size=(3, 1, 1)) + np.zeros((3, 3, 4))  # seeds differ
    losses[:, :, 1] += 0.5 + np.array([0.0, 0.01, 0.02])[:, None]
    found = of(losses).difference("rotate", "kl")
    assert found.value == pytest.approx(0.51)
    half = 4.302653 * 0.01 / np.sqrt(3)  # Student's t with two degrees of freedom
    assert (found.lo, found.hi) == pytest.approx((0.51 - half, 0.51 + half))
    assert of(losses).moved("rotate", "raw") == 0
    assert of(losses).moved("spectrum:1", "raw") == 2


def test_two_are_too_few() -> None:
    with pytest.raises(UserError, match="fewer than two"):
        of(np.zeros((2, 3, 2)), SCORES[:, :2], NAMES[:2])
