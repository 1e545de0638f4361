"""Rows are compared at one entropy, or not at all."""

from pathlib import Path

import numpy as np
import pytest

from dihal_bench.evaluation.intervals import DocumentBootstrap
from dihal_bench.evaluation.samples.frontier import Point, Swept, at_entropy, draw

SAMPLES = 40
BOOTSTRAP = DocumentBootstrap(SAMPLES, resamples=400)


def curve(*pairs: tuple[float, float], spread: float = 0.0) -> list[Swept]:
    """Points (entropy, perplexity), the same of all samples but for a spread of the entropies."""
    noise = np.linspace(-spread, spread, SAMPLES)
    tokens = np.full(SAMPLES, 7.0)
    return [
        Swept(0.5 + i / 10, h + noise, tokens * np.log(p), tokens) for i, (h, p) in enumerate(pairs)
    ]


def value(*pairs: tuple[float, float], at: float) -> float | None:
    found = at_entropy(curve(*pairs), at, BOOTSTRAP)
    return None if found is None else found.value


def test_the_logarithm_is_interpolated() -> None:
    assert value((3.0, 10.0), (4.0, 1000.0), at=3.5) == pytest.approx(100.0)
    assert value((3.0, 10.0), (4.0, 1000.0), at=4.0) == pytest.approx(1000.0)


@pytest.mark.parametrize("entropy", [2.9, 4.1])
def test_there_is_no_extrapolation(entropy: float) -> None:
    assert value((3.0, 10.0), (4.0, 1000.0), at=entropy) is None
    assert value((3.0, 10.0), at=entropy) is None


def test_of_several_crossings_the_worst_counts() -> None:
    found = value((3.0, 10.0), (4.0, 20.0), (3.0, 50.0), at=3.5)
    assert found == pytest.approx((20 * 50) ** 0.5)


def test_points_may_come_in_any_order() -> None:
    points = curve((3.0, 10.0), (3.5, 100.0), (4.0, 1000.0))
    assert at_entropy(points[::-1], 3.25, BOOTSTRAP) == at_entropy(points, 3.25, BOOTSTRAP)


def test_the_interval_is_that_of_what_the_samples_say() -> None:
    """Entropies shift together by their mean's error, and log-perplexity by ln 100 times that."""
    points = curve((3.0, 10.0), (4.0, 1000.0), spread=0.6)
    found = at_entropy(points, 3.5, BOOTSTRAP)
    assert found is not None
    error = points[0].entropy.std() / SAMPLES**0.5
    half = np.log(100) * 1.96 * error
    assert np.log(found.hi / found.value) == pytest.approx(half, rel=0.25)
    assert np.log(found.value / found.lo) == pytest.approx(half, rel=0.25)


def test_the_figure_is_written_twice_with_the_same_bytes(tmp_path: Path) -> None:
    points = [Point("row", 0.5, 3.0, 10.0), Point("row", 1.0, 4.0, 1000.0)]
    one = draw(points, (3.4, 25.0), tmp_path / "one", title="t")
    two = draw(points, (3.4, 25.0), tmp_path / "two", title="t")
    assert [path.suffix for path in one] == [".png", ".svg"]
    assert [a.read_bytes() for a in one] == [b.read_bytes() for b in two]
