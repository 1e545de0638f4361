"""Every definition of the score, ranked: the one that knows is told from those that do not."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dihal_bench.reporting.sweep_table import show_cells
from dihal_bench.studies.protocol_grid.grid import Protocol
from dihal_bench.studies.ranking.agreement import kendall
from dihal_bench.studies.sweep.cells import Cells, draw

PROTOCOLS = [Protocol(neighbours=k, ridge=rho) for k in (20, 50) for rho in (1e-3, 1e-1)]
LOSS = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
SCORES = {
    PROTOCOLS[0]: -LOSS,
    PROTOCOLS[1]: LOSS,
    PROTOCOLS[2]: -np.arange(5.0),
    PROTOCOLS[3]: np.zeros(5),
}


def planted() -> Cells:
    grid = SimpleNamespace(
        cells=[SimpleNamespace(protocol=p) for p in PROTOCOLS],
        scores=lambda protocol, layers: SCORES[protocol][np.array(layers) - 1],
    )
    return Cells.of(grid, [1, 2, 3, 4, 5], {"kl": np.stack([LOSS, LOSS])})  # type: ignore[arg-type]


def test_each_cell_has_its_own_correlation() -> None:
    cells = planted()
    depth = float(kendall(-np.arange(5.0), -LOSS))
    np.testing.assert_allclose(cells.tau["kl"], [1, -1, depth, np.nan])
    assert (cells.paper("kl"), cells.depth["kl"]) == (1.0, pytest.approx(depth))
    rows = cells.table().flat()
    assert [row["tau_kl"] for row in rows[:2]] == [1.0, -1.0]
    assert rows[1]["ridge"] == 0.1


def test_only_cells_above_depth_count_as_above(tmp_path: Path) -> None:
    (summary,) = planted().summary().rows
    above = summary.value("cells above depth")
    assert above == 1 / 3  # of those that vary; equal to depth is not above
    assert "4 definitions" in show_cells(planted())
    assert all(path.stat().st_size > 1000 for path in draw(planted(), tmp_path / "grid"))
