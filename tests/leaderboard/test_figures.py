"""Figures of the leaderboard: the same bytes again, and nothing of them is cut off."""

from pathlib import Path

from matplotlib.image import imread

from dihal_bench.leaderboard import figures
from dihal_bench.leaderboard.board import board_of

from .conftest import Make, configured

SWEEP = {
    **{"title": "one bridge per layer l", "axis": "span-2", "backbone": "b", "ranking": {}},
    **{"layers": [1, 2, 3], "candidates": ["1", "2", "3"]},
    "losses": {"fvu_mmse": [[0.1, 0.2, 0.3]], "kl": [[0.1, 0.2, 0.4]]},
    "predictions": {"score": [3.0, 2.0, 1.0]},
}


def test_figures_are_the_same_bytes(make: Make, tmp_path: Path) -> None:
    board = board_of([make(), make("embedding")], [])
    first = figures.draw(board, tmp_path / "one")
    second = figures.draw(board, tmp_path / "two")
    assert {p.name.partition("-")[0] for p in first} == {"brier1", "nll", "proxies", "recovery"}
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_nothing_touches_the_edge_of_a_figure(make: Make, tmp_path: Path) -> None:
    settings = {"bridge__residual": "none", "denoiser__name": "W" * 40, "train__optimizer": "adamw"}
    records = [configured(make(name), 1, **settings) for name in ("hidden", "embedding")]
    board = board_of([*records, make(), make("embedding")], [SWEEP])
    drawn = [path for path in figures.draw(board, tmp_path) if path.suffix == ".png"]
    assert {p.name.partition("-")[0] for p in drawn} >= {"brier1", "nll", "recovery", "layers"}
    for path in drawn:
        image = imread(path)[:, :, :3]
        for edge in (image[:4], image[-4:], image[:, :4], image[:, -4:]):
            assert edge.min() == 1.0, path.name
