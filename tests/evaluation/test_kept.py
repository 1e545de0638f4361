"""What was scored once is read again: for the very same weights, and for nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dihal_bench.evaluation import cache as kept
from dihal_bench.evaluation.cache import ScoreCache, fingerprint
from dihal_bench.evaluation.likelihood import SHUFFLED, TEACHER, ZEROED, Row, _shuffle

from ..tiny import backbone, redrawn
from .texts import Text

TEXT = Text([[(0, 3, 9), (1, 0, 15)], [(2, 0, 24)]])
ROWS = [Row(subject=TEACHER), Row(subject="it", steps=3, chains=2), Row(subject="it")]


def scorer(folder: Path | None) -> ScoreCache:
    return ScoreCache(
        data=TEXT, backbone=backbone(torch.float64), windows=range(2), batch=2, folder=folder
    )


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Rows that were computed."""
    seen: list[Row] = []
    score = kept.score

    def watched(rows, *arguments, **settings):
        seen.extend(rows)
        return score(rows, *arguments, **settings)

    monkeypatch.setattr(kept, "score", watched)
    return seen


def test_rows_are_computed_once_and_read_the_same(tmp_path: Path, computed: list[Row]) -> None:
    interface = {"it": redrawn("hidden")}
    first = scorer(tmp_path).score(ROWS[:2], interface)
    again = scorer(tmp_path).score(ROWS, interface)
    plain = scorer(None).score(ROWS, interface)
    assert computed == [*ROWS[:2], ROWS[2], *ROWS]
    assert list(again) == ROWS
    for row in ROWS:
        assert again[row].sums.keys() == plain[row].sums.keys()
        for name, sums in plain[row].sums.items():
            np.testing.assert_array_equal(again[row].sums[name], sums)
            if row in first:
                np.testing.assert_array_equal(first[row].sums[name], sums)


def test_other_weights_settings_or_windows_are_computed(
    tmp_path: Path, computed: list[Row]
) -> None:
    interface = redrawn("hidden")
    scorer(tmp_path).score(ROWS, {"it": interface})
    with torch.no_grad():
        next(interface.parameters()).add_(1e-9)
    scorer(tmp_path).score(ROWS, {"it": interface})
    assert computed == [*ROWS, *ROWS[1:]]  # the teacher is the same
    scorer(tmp_path).score(ROWS, {"it": redrawn("hidden", seed=5)})
    scorer(tmp_path).on([0]).score(ROWS[:1], {"it": interface})
    assert computed[5:] == [*ROWS[1:], ROWS[0]]


def test_facts_are_measured_once(tmp_path: Path) -> None:
    interface, calls = redrawn("hidden"), []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"value": 0.1 + len(calls)}

    found = [scorer(tmp_path).facts("oracle", interface, measure) for _ in range(2)]
    assert found == [{"value": 1.1}] * 2
    assert scorer(None).facts("oracle", interface, measure) == {"value": 2.1}
    assert scorer(tmp_path).facts("bridge", interface, measure) == {"value": 3.1}


def test_a_fingerprint_is_of_code_settings_and_weights() -> None:
    assert fingerprint(redrawn("hidden")) == fingerprint(redrawn("hidden"))
    kinds = [redrawn("hidden"), redrawn("regress"), redrawn("hidden", block=4)]
    assert len({fingerprint(kind) for kind in kinds}) == 3
    other = redrawn("hidden")
    other.trunk.__class__ = type("Other", (type(other.trunk),), {})  # its denoiser's code
    assert fingerprint(other) != fingerprint(redrawn("hidden"))
    half = redrawn("hidden").to(torch.bfloat16)
    assert fingerprint(half) != fingerprint(redrawn("hidden"))


def test_the_shuffled_signal_of_a_lone_window_knows_no_later_place() -> None:
    x0 = torch.arange(1.0, 7.0).reshape(1, 6, 1)
    assert _shuffle(x0)[0, :, 0].tolist() == [0, 0, 0, 1, 2, 3]
    rows = torch.arange(3.0)[:, None, None].expand(3, 4, 1)
    assert not bool((_shuffle(rows) == rows).any())


def test_trials_take_the_signals_that_their_row_has_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same scores as when each is drawn anew, from a third of the chains."""
    interface = redrawn("c2d")
    drawn: list[tuple[int, int]] = []
    real = interface.samples

    def watched(batch, *, steps, count, **settings):
        drawn.append((steps, count))
        return real(batch, steps=steps, count=count, **settings)

    monkeypatch.setattr(interface, "samples", watched)
    whole = Row(subject="it", steps=3, chains=4)
    trials = [Row(subject="it", steps=3, chains=2, signal=s) for s in (ZEROED, SHUFFLED)]
    together = scorer(None).score([whole, *trials], {"it": interface})
    assert drawn == [(3, 4), (1, 1)]
    for row in trials:
        alone = scorer(None).score([row], {"it": interface})[row]
        for name, sums in alone.sums.items():
            np.testing.assert_array_equal(together[row].sums[name], sums)
    assert together[trials[0]].sums["nll@1"] == pytest.approx(together[trials[0]].sums["nll@2"])
    assert not np.allclose(together[trials[1]].sums["nll@1"], together[whole].sums["nll@1"])
