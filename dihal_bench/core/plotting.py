"""How figures look, and how they are written: PNG and SVG of fixed bytes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from dihal_bench.core.files import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#1f6f8b", "#d1603d", "#8a8a8a"  # told apart without colour vision as well
DPI = 160  # of PNG files
GREEN = "#9bbf85"  # lighter than these


@contextmanager
def style() -> Iterator[None]:
    """Use the project's type size and nobody's own settings, and make SVG reproducible."""
    import matplotlib as mpl

    settings = {"svg.hashsalt": "dihal-bench", "svg.fonttype": "path", "font.size": 9.5}
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def bare(axis: Axes, grid: str) -> None:
    """Take the box away, and draw faint lines across the axis "x" or "y"."""
    axis.grid(axis="x" if grid == "x" else "y", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem``.png and ``stem``.svg; return their paths."""
    figure.draw_without_rendering()  # lays out, once for both
    figure.set_layout_engine("none")
    paths = []
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        path = stem.with_suffix(f".{suffix}")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=suffix, dpi=DPI, metadata=metadata)
        paths.append(path)
    return paths
