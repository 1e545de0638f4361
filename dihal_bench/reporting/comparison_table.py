"""Tables of a comparison as text, Markdown and CSV."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dihal_bench.core.files import write_text
from dihal_bench.reporting.comparison_figure import draw
from dihal_bench.reporting.writers import csv, heading, text
from dihal_bench.results.metrics import BRIER1, DIFFUSION_GAIN, NLL, Shown
from dihal_bench.results.table import FEWER, FLAGS, OTHER_TASK, TIED, UNCONVERGED, Table
from dihal_bench.studies.comparison.columns import compared_columns, pair_columns, ranked_first
from dihal_bench.studies.comparison.paired import Paired, pairs
from dihal_bench.studies.comparison.plan import BLOCKS
from dihal_bench.studies.comparison.table import lines

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dihal_bench.studies.comparison.pool import SeedPool

LEGEND = (
    "Differences are minus hidden's at equal S and K (controls: minus a single chain of its "
    "headline), paired. Intervals: 95 %, over documents and seeds.",
    "Diffusion gain: NLL of the row's best control at no more evaluations minus its own. Rank: by "
    "Brier-1 at equal S among those that replace as many blocks, none below 3 seeds.",
    "FLOP ratio: of a chain over the replaced blocks. Oracle: agreement of what is recovered from "
    "the true signal with the text (hidden: with the teacher); σ½: noise that halves it. Brier-1 "
    "at shares of the diffusion budget: on a part of the text.",
    *(FLAGS[flag] for flag in (TIED, UNCONVERGED, FEWER, OTHER_TASK)),
)
_COSTS = (
    *("row", "budget", "seeds", "replaced", "retained", "flop_ratio", "diffusion_tokens"),
    *("recovery_tokens", "trunk", "recovery", "flops", "seconds", "oracle", "oracle_kl"),
    *("sigma_half", "course"),
)
_BESIDE = {NLL.name: "versus", BRIER1.name: "brier1_versus", DIFFUSION_GAIN.name: "gain_over"}


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a block of a comparison is shown as.

    Attributes:
        rows: scores and costs.
        pairs: interfaces against their own controls.
        origins: versions of the code that made them.
    """

    rows: Table
    pairs: Table
    origins: list[str]

    @classmethod
    def of(cls, pool: SeedPool, block: str, *, resamples: int) -> Tables:
        """Compute the tables of a block; if all of its interfaces were left out, they are empty."""
        paired = Paired(pool, resamples=resamples) if pool.totals else None
        return cls(
            rows=Table(columns=compared_columns(), rows=lines(paired, block) if paired else ()),
            pairs=Table(columns=pair_columns(), rows=pairs(paired, block) if paired else ()),
            origins=pool.origins(),
        )

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return plain values."""
        return {"rows": self.rows.flat(), "pairs": self.pairs.flat()}

    def shown(self) -> list[Table]:
        """Return what is read side by side: scores, pairs, and what it all cost."""
        single = {
            row.value("row"): row
            for row in self.rows.rows
            if row.value("role") in ("interface", "control") and row.value("chains") == 1
        }
        costs = replace(self.rows, rows=list(single.values()))
        names = [metric.name for metric in ranked_first(Shown.COMPARISON)]
        scores = [key for name in names for key in (name, _BESIDE.get(name, ""))]
        pairs = [column.key for column in self.pairs.columns if column.key != "block"]
        return [
            self.rows.only("row", "steps", "kind", "nfe", *scores, "rank"),
            self.pairs.only(*pairs),
            costs.only(*_COSTS),
        ]


def show(blocks: Mapping[str, Tables], *, form: str = "simple") -> str:
    """Return the tables of all blocks as text: scores, pairs, and what it all cost.

    Args:
        blocks: key of ``BLOCKS`` -> tables.
        form: of ``writers.text``: "simple", or "github" for Markdown.
    """
    parts = []
    for key, tables in blocks.items():
        head = heading(f"{BLOCKS[key].regime} regime, {BLOCKS[key].title}", form)
        parts += [head, *(text(table, form) for table in tables.shown())]
    origins = sorted({origin for tables in blocks.values() for origin in tables.origins})
    made = "made by " + "; ".join(origins)
    if len(origins) > 1:
        made += ": different code, which may give different numbers"
    return "\n\n".join([*parts, "\n".join(LEGEND), made])


def write(blocks: Mapping[str, Tables], folder: Path) -> list[Path]:
    """Write table.md, table.csv, pairs.csv and the figure; return their paths."""
    every = blocks.values()
    rows = Table(columns=compared_columns(), rows=[row for own in every for row in own.rows.rows])
    beside = Table(columns=pair_columns(), rows=[row for own in every for row in own.pairs.rows])
    contents = {
        "table.md": show(blocks, form="github") + "\n",
        "table.csv": csv(rows),
        "pairs.csv": csv(beside),
    }
    for name, content in contents.items():
        write_text(folder / name, content)
    figures = draw({key: tables.rows.rows for key, tables in blocks.items()}, folder / "brier")
    return [*(folder / name for name in contents), *figures]
