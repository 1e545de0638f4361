"""Tables of a comparison as text, Markdown and CSV."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dihal_bench.core.files import atomic_path
from dihal_bench.reporting.comparison_figure import draw
from dihal_bench.results.metrics import BLOCK_BOUND, BRIER1, DIFFUSION_GAIN, NLL
from dihal_bench.studies.comparison.paired import Pair, Paired, pairs
from dihal_bench.studies.comparison.plan import BLOCKS
from dihal_bench.studies.comparison.table import Line, compared, lines

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dihal_bench.evaluation.intervals import Estimate
    from dihal_bench.results.metrics import Metric
    from dihal_bench.studies.comparison.pool import SeedPool

LEGEND = (
    "ΔNLL, ΔBrier: minus hidden's at equal S and K (controls: minus a single chain of its "
    "headline), paired; †: hidden replaces another number of blocks there, which is another task; "
    "intervals: 95 %, over documents and seeds; ~: not converged, doubling K still moves NLL by "
    "0.02 or more; diffusion gain: NLL of the row's best control at no more evaluations minus its "
    "own, ‡: that control was trained on fewer tokens; rank: by Brier-1 at equal S among those "
    "that replace as many blocks, ties share one, none below 3 seeds; FLOPs/replaced: of a chain "
    "over those of the replaced blocks; oracle: agreement of what is recovered from the true "
    "signal with the text (hidden: with the teacher), σ½: noise that halves it; Brier-1 at shares "
    "of the diffusion budget: on a part of the text; !: outside its budget"
)


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a block of a comparison is shown as.

    Attributes:
        rows: scores and costs.
        pairs: interfaces against their own controls.
        origins: versions of the code that made them.
    """

    rows: list[Line]
    pairs: list[Pair]
    origins: list[str]

    @classmethod
    def of(cls, pool: SeedPool, block: str, *, resamples: int) -> Tables:
        """Compute the tables of a block."""
        if not pool.totals:  # all of its interfaces were left out
            return cls(rows=[], pairs=[], origins=[])
        paired = Paired(pool, resamples=resamples)
        return cls(rows=lines(paired, block), pairs=pairs(paired, block), origins=pool.origins())

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """Return plain values."""
        return {
            "rows": [line.to_dict() for line in self.rows],
            "pairs": [pair.to_dict() for pair in self.pairs],
        }


def show(blocks: Mapping[str, Tables], *, form: str = "simple") -> str:
    """Return the tables of all blocks as text: scores, pairs, and what it all cost.

    Args:
        blocks: key of ``BLOCKS`` -> tables.
        form: of tabulate: "simple", or "github" for Markdown.
    """
    from tabulate import tabulate

    parts = []
    for key, tables in blocks.items():
        block = BLOCKS[key]
        title = f"{block.regime} regime, {block.title}"
        head = f"### {title}" if form == "github" else f"== {title} =="
        trained = [line for line in tables.rows if line.role in ("interface", "control")]
        costs = list({line.row: _costs(line) for line in trained if line.chains == 1}.values())
        scores = [_scores(line, block.regime) for line in tables.rows]
        all_of_it = (
            tabulate(rows, headers="keys", tablefmt=form, disable_numparse=True)
            for rows in (scores, [_pair(pair) for pair in tables.pairs], costs)
        )
        parts += [head, "", *(f"{table}\n" for table in all_of_it)]
    origins = sorted({origin for tables in blocks.values() for origin in tables.origins})
    made = "made by " + "; ".join(origins)
    if len(origins) > 1:
        made += ": different code, which may give different numbers"
    return "\n".join([*parts, LEGEND, "", made])


def write(blocks: Mapping[str, Tables], folder: Path) -> list[Path]:
    """Write table.md, table.csv, pairs.csv and the figure; return their paths."""
    import pandas

    plain = [tables.to_dict() for tables in blocks.values()]
    contents = {"table.md": show(blocks, form="github") + "\n"}
    for name, part in (("table.csv", "rows"), ("pairs.csv", "pairs")):
        rows = [row for tables in plain for row in tables[part]]
        contents[name] = pandas.DataFrame(rows).to_csv(index=False, lineterminator="\n")
    for name, text in contents.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    figures = draw({key: tables.rows for key, tables in blocks.items()}, folder / "brier")
    return [*(folder / name for name in contents), *figures]


def _scores(line: Line, regime: str) -> dict[str, str]:
    first = "first-token " if regime == "sequence" else ""
    other = " †" if line.other_task else ""
    shown = {
        "row": _indented(line),
        "S": "-" if line.kind == "exact" and line.steps == 1 else str(line.steps),
        "K": "-" if line.kind == "exact" else str(line.chains),
        "NFE": str(line.nfe or "-"),
    }
    marks = {
        NLL.name: " ~" if line.converged is False else "",
        DIFFUSION_GAIN.name: f" ({line.gain_over}{' ‡' if line.gain_fewer else ''})",
    }
    versus = {
        BRIER1.name: ("ΔBrier", line.brier1_versus, BRIER1.digits),
        NLL.name: ("ΔNLL", line.versus, NLL.digits),
    }
    for metric in compared():
        head = f"{first}{metric.title}" if metric is NLL else metric.title
        shown[head] = _marked(_estimate(metric, line), marks.get(metric.name, ""))
        if metric.name in versus:
            head, difference, digits = versus[metric.name]
            shown[head] = _marked(_with_interval(difference, f"+.{digits}f"), other)
    shown["rank"] = f"{line.rank}/{line.ranked}" if line.rank else ""
    if regime == "sequence":
        shown[BLOCK_BOUND.title] = _number(line.bound, f".{BLOCK_BOUND.digits}f")
    return shown


def _estimate(metric: Metric, line: Line) -> str:
    own = line.estimates.get(metric.name)
    form = f"{'+' if metric.signed else ''}.{metric.digits}f"
    return _with_interval(own, form) if metric.wide or metric.ranked else _value(own, form)


def _pair(pair: Pair) -> dict[str, str]:
    return {
        "row": pair.row,
        "S": str(pair.steps),
        "K": str(pair.chains),
        "against": pair.against,
        "NLL minus its": _with_interval(pair.nll, "+.3f"),
        "Brier-1 minus its": _with_interval(pair.brier1, "+.4f"),
    }


def _costs(line: Line) -> dict[str, str]:
    return {
        "row": _indented(line) + ("" if line.within is not False else " !"),
        "seeds": str(line.seeds),
        "replaced": str(line.replaced),
        "retained": str(line.retained),
        "FLOPs/replaced": "" if line.flop_ratio is None else f"{line.flop_ratio:.2f}",
        "diffusion tokens": f"{line.diffusion_tokens:,}",
        "recovery tokens": f"{line.recovery_tokens:,}",
        "trunk": f"{line.trunk:,}",
        "recovery parameters": f"{line.recovery:,}",
        "training FLOPs": f"{line.flops:.3g}",
        "seconds": f"{line.seconds:.0f}",
        "oracle": _number(line.oracle, ".4f"),
        "oracle KL": _number(line.oracle_kl, ".1g"),
        "σ½": _number(line.sigma_half, ".2f"),
        "Brier-1 at 25/50/100 %": "/".join(f"{value:.3f}" for value in line.course),
    }


def _marked(text: str, mark: str) -> str:
    return text + mark if text else ""


def _indented(line: Line) -> str:
    return line.row if line.role in ("teacher", "interface") else f"· {line.row}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _value(estimate: Estimate | None, form: str) -> str:
    return "" if estimate is None else f"{estimate.value:{form}}"


def _with_interval(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return ""
    return f"{estimate.value:{form}} [{estimate.lo:{form}}, {estimate.hi:{form}}]"
