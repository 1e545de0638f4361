"""Figures of the leaderboard: the same bytes again, and nothing of them is cut off."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from dihal_bench.leaderboard import figures
from dihal_bench.leaderboard.board import board_of
from dihal_bench.results.record import Record

from .conftest import Make, configured, told

SWEEP = {
    **{"title": "one bridge per layer l", "axis": "span-2", "backbone": "b", "ranking": {}},
    **{"layers": [1, 2, 3], "candidates": ["1", "2", "3"]},
    "losses": {"fvu_mmse": [[0.1, 0.2, 0.3]], "kl": [[0.1, 0.2, 0.4]]},
    "predictions": {"score": [3.0, 2.0, 1.0]},
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_figures_are_the_same_bytes(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = board_of([make(), make("embedding")], []).to_dict()
    first = figures.draw(board, tmp_path / "one")
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path / "another"))
    second = figures.draw(board, tmp_path / "two")
    assert {p.name.partition("-")[0] for p in first} == {"brier1", "nll", "proxies", "recovery"}
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_a_figure_is_drawn_again_only_if_it_shows_something_else(
    make: Make, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [make(), make("embedding")]
    board = board_of(records[:1], []).to_dict()
    first = figures.draw(board, tmp_path / "one")
    damaged = next((own_cache / "figures").glob("*.json"))
    drawn: list[str] = []
    save = figures.save
    monkeypatch.setattr(
        figures, "save", lambda own, stem: drawn.append(stem.name) or save(own, stem)
    )
    second = figures.draw(board, tmp_path / "two")
    assert not drawn
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    figures.draw(board_of(records, []).to_dict(), tmp_path / "more")
    assert {name.partition("-")[0] for name in drawn} == {"brier1", "nll", "recovery"}
    drawn.clear()
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"         ")
    third = figures.draw(board, tmp_path / "three")
    assert len(drawn) == 1
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in third]


def test_nothing_touches_the_edge_of_a_figure(make: Make, tmp_path: Path) -> None:
    settings = {"bridge__residual": "none", "denoiser__name": "W" * 40, "train__optimizer": "adamw"}
    records = [configured(make(name), 1, **settings) for name in ("hidden", "embedding")]
    board = board_of([*records, make(), make("embedding")], [SWEEP]).to_dict()
    drawn = [path for path in figures.draw(board, tmp_path) if path.suffix == ".png"]
    assert {p.name.partition("-")[0] for p in drawn} >= {"brier1", "nll", "recovery", "layers"}
    for path in drawn:
        image = imread(path)[:, :, :3]
        for edge in (image[:4], image[-4:], image[:, :4], image[:, -4:]):
            assert edge.min() == 1.0, path.name


def test_a_frontier_is_the_mean_of_trainings_beside_real_text(make: Make, tmp_path: Path) -> None:
    def audited(seed: int, perplexities: tuple[float, float]) -> Record:
        points = [
            {"row": row, "temperature": t, "entropy": 3 + t + seed / 10, "gen_ppl": value}
            for row in ("teacher", "hidden S=4", "regress S=1")
            for t, value in zip((0.8, 1.0), perplexities, strict=True)
        ]
        one = {"value": 5.0, "lo": None, "hi": None, "n": 1}
        audit = {
            "frontier": points,
            "data": {"entropy": {**one, "value": 4.0}, "gen_ppl": one},
            "impostors": [
                {"name": name, "published": said, "measures": {"entropy": at, "gen_ppl": one}}
                for name, said, at in (
                    ("loop", True, one),
                    ("other", False, one),
                    ("below the teacher", False, {**one, "value": 3.95 + seed / 10}),
                )
            ],
        }
        data = told(make(), 40.0, seed).data
        return Record.of({**data, "audits": {"samples": audit}})

    board = board_of([audited(0, (10.0, 40.0)), audited(1, (40.0, 40.0))], []).to_dict()
    (own,) = (what for kind, _, what in figures._wanted(board) if kind == "frontier")
    assert own["beside"] == {"real text": (4.0, 5.0), "loop": (5.0, 5.0)} | {
        "below the teacher": (3.95, 5.0)
    }
    lines = {line["name"]: line for line in own["lines"]}
    assert list(lines) == ["teacher", "hidden (0, 2] S=4", "regress S=1 (beside hidden (0, 2])"]
    assert [line["role"] for line in lines.values()] == ["teacher", "interface", "control"]
    cold, warm = lines["hidden (0, 2] S=4"]["points"]
    assert cold == pytest.approx((3.85, np.log(20.0)))
    assert warm == pytest.approx((4.05, np.log(40.0)))
    drawn = figures.draw(board, tmp_path)
    assert (
        sum(p.name.startswith("frontier-") and p.name.endswith("-samples.png") for p in drawn) == 1
    )
