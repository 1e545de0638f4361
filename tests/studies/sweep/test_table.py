"""What a sweep's table says of itself: with what, of how many, and when it ranks nothing."""

import itertools
import math

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dihal_bench.reporting import sweep_figure as figure
from dihal_bench.reporting.sweep_table import show_sweep as show
from dihal_bench.studies.ranking.agreement import Prediction
from dihal_bench.studies.sweep.outcomes import DRAWN, SHORT, TITLES, Outcomes
from dihal_bench.studies.sweep.plan import layer_axis
from dihal_bench.studies.sweep.replicate import over_layers
from dihal_bench.studies.sweep.table import SweepTable

PROXIES = ("curvature", "stiffness", "-effective rank")


def planted(count: int, seeds: int = 3) -> SweepTable:
    """A score that knows the losses, and rivals that do not."""
    axis = layer_axis(list(range(1, count + 1)), start=0, span=None)
    draw = np.random.default_rng(0)
    truth = draw.permutation(count).astype(float)
    losses = {
        name: 0.3 * (size + 1) + truth / 7 + draw.normal(scale=0.02, size=(seeds, count))
        for size, name in enumerate(TITLES)
    }
    outcomes = Outcomes(
        candidates=list(axis.candidates),
        seeds=list(range(seeds)),
        losses=losses,
        steps=16,
        budget={},
        costs=[{"ratio": 2.0}] * count,
        origins=["a version"],
        rests_on={},
        setting="backbone: planted (9 blocks); seeds: 0, 1, 2",
    )

    def told(values: np.ndarray) -> Prediction:
        return Prediction.of(values, values + draw.normal(scale=0.2, size=(10, count)))

    names = [f"{name}{view}" for view in ("", ", matched") for name in ("score", *PROXIES)]
    predictions = {name: told(draw.normal(size=count)) for name in names}
    predictions["score"] = told(-truth)
    predictions["depth"] = Prediction.of([-float(n) for n in range(count)])
    predictions["log norm"] = Prediction.of(draw.normal(size=count))
    predictions |= {p: Prediction.choice(i, count) for i, p in ((0, "early"), (count - 1, "late"))}
    predictions |= {
        f"{name} FVU": Prediction.of(draw.normal(size=count)) for name in ("ridge", "token-mean")
    }
    return SweepTable(axis.title, outcomes, predictions, sample=None, resamples=100)


def test_under_the_title_stands_what_it_was_made_with() -> None:
    for form in ("simple", "github"):
        title, setting, *_ = show(planted(4), form=form).split("\n\n")
        assert "one bridge per layer" in title
        assert setting == "backbone: planted (9 blocks); seeds: 0, 1, 2"


@pytest.mark.parametrize("count", [3, 4, 5])
def test_few_candidates_have_few_orders(count: int) -> None:
    text = show(planted(count))
    chance = f"by chance τ is 1 once in {math.factorial(count)} times"
    assert (chance in text) == (count <= 4)


@pytest.mark.parametrize("count", [3, 4])
def test_all_of_three_are_among_the_best_three(count: int) -> None:
    assert ("in top 3" in show(planted(count))) == (count > 3)


def test_fewer_than_three_are_not_ranked_and_it_is_said() -> None:
    for count in (1, 2):
        text = show(planted(count))
        assert "fewer than 3 candidates have no ranking" in text
        assert "Kendall" not in text
    assert "no ranking" not in show(planted(3))


@pytest.mark.parametrize("count", [3, 12])
def test_the_figure_has_a_column_per_loss_and_nothing_lies_over_anything(
    count: int, tmp_path, monkeypatch
) -> None:
    drawn = []
    monkeypatch.setattr(figure, "save", lambda own, stem: drawn.append(own) or [])
    figure.draw(planted(count), tmp_path / "it")
    (own,) = drawn
    renderer = FigureCanvasAgg(own).get_renderer()
    own.draw(renderer)
    assert len(own.axes) == 2 * (1 + len(DRAWN))
    titles = [axis.get_title(loc="left") for axis in own.axes]
    for loss in DRAWN:
        assert TITLES[loss] in titles
        assert any(title.startswith(f"score against {SHORT[loss]}: τ") for title in titles)
    boxes = [axis.get_tightbbox(renderer) for axis in own.axes]
    for i, one in enumerate(boxes):
        assert own.bbox.padded(1).contains(*one.min)
        assert own.bbox.padded(1).contains(*one.max)
        for other in boxes[:i]:
            assert not one.overlaps(other.padded(-1))


def test_the_p_values_of_a_replication_stand_beside_the_dots(tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(figure, "save", lambda own, stem: drawn.append(own) or [])
    rows = over_layers({name: planted(7) for name in "abc"})
    figure.draw_replicated(rows, tmp_path / "it")
    (own,) = drawn
    renderer = FigureCanvasAgg(own).get_renderer()
    own.draw(renderer)
    assert len(own.axes) == len(DRAWN)
    boxes = [axis.get_tightbbox(renderer) for axis in own.axes]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    for axis in own.axes:
        said = [text.get_window_extent(renderer) for text in axis.texts]
        assert len(said) == 2  # the score, and the score beyond depth
        assert all(box.x0 > axis.bbox.x1 for box in said)
        bottom, top = axis.get_ylim()
        assert bottom < 0.5 < 1 <= len(axis.get_yticks()) < top - 0.5
