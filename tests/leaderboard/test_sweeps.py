"""Results of sweeps on the leaderboard: which are read, and in what order they stand."""

from pathlib import Path

import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.leaderboard.board import board_of, read_sweeps
from dihal_bench.leaderboard.render import refuse
from dihal_bench.studies.sweep.outcomes import SHORT

ROOT = Path(__file__).parents[2]


def test_a_sweep_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweep-layers.json").write_text("{}")
    found, problems = read_sweeps(tmp_path)
    assert found == []
    with pytest.raises(UserError, match=r"sweep-layers\.json is not a readable sweep"):
        refuse(problems, keep_going=False, left=True, say=print)
    said: list[str] = []
    refuse(problems, keep_going=True, left=True, say=said.append)
    assert len(said) == 1


def test_sweeps_of_equal_replaced_blocks_and_the_score_come_first() -> None:
    sweeps, problems = read_sweeps(ROOT / "leaderboards" / "geometry-tiny")
    assert not problems
    shown = board_of([], sweeps).sweeps
    assert len(shown) == len(sweeps) == 8
    assert [own["axis"] for own in shown] == ["span-2"] * 7 + ["layers"]
    assert shown[6]["backbone"] == "bundled"  # whose loss rises with every layer, as depth says
    for place, own in enumerate(shown):
        (depth,) = [
            row["kendall"]["value"]
            for row in own["correlations"]
            if (row["predictor"], row["loss"]) == ("depth", "KL")
        ]
        assert (depth == 1.0) == (place >= 6)
    for own in shown:
        first = own["correlations"][:3]
        assert [row["predictor"] for row in first] == ["score", "score, matched", "depth"]
        assert list(dict.fromkeys(row["loss"] for row in own["correlations"])) == list(
            SHORT.values()
        )
