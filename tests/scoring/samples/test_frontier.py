"""Rows are compared at one entropy, or not at all."""

from pathlib import Path

import pytest

from dihal_bench.scoring.samples.frontier import Point, at_entropy, draw


def curve(*pairs: tuple[float, float]) -> list[Point]:
    return [Point("row", 0.5 + i / 10, h, p) for i, (h, p) in enumerate(pairs)]


def test_the_logarithm_is_interpolated() -> None:
    assert at_entropy(curve((3.0, 10.0), (4.0, 1000.0)), 3.5) == pytest.approx(100.0)
    assert at_entropy(curve((3.0, 10.0), (4.0, 1000.0)), 4.0) == pytest.approx(1000.0)


@pytest.mark.parametrize("entropy", [2.9, 4.1])
def test_there_is_no_extrapolation(entropy: float) -> None:
    assert at_entropy(curve((3.0, 10.0), (4.0, 1000.0)), entropy) is None
    assert at_entropy(curve((3.0, 10.0)), entropy) is None


def test_of_several_crossings_the_worst_counts() -> None:
    points = curve((3.0, 10.0), (4.0, 20.0), (3.0, 50.0))
    assert at_entropy(points, 3.5) == pytest.approx((20 * 50) ** 0.5)


def test_points_may_come_in_any_order() -> None:
    points = curve((3.0, 10.0), (3.5, 100.0), (4.0, 1000.0))
    assert at_entropy(points[::-1], 3.25) == at_entropy(points, 3.25)


def test_the_figure_is_written_twice_with_the_same_bytes(tmp_path: Path) -> None:
    points = curve((3.0, 10.0), (4.0, 1000.0))
    one = draw(points, (3.4, 25.0), tmp_path / "one", title="t")
    two = draw(points, (3.4, 25.0), tmp_path / "two", title="t")
    assert [path.suffix for path in one] == [".png", ".svg"]
    assert [a.read_bytes() for a in one] == [b.read_bytes() for b in two]
