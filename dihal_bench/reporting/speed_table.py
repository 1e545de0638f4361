"""The table of ``dihal-bench speed``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.reporting.writers import text
from dihal_bench.results.table import Table, numbers, words

if TYPE_CHECKING:
    from dihal_bench.runs.speed import Speed, SpeedRow

_LEGEND = (
    "of peak: FLOP/s over those of a large matrix product here, in the same arithmetic",
    "of floor: time that products at that speed, or in generation one reading of the weights for "
    "each token, would take, over the real one",
    "waits: times the host reads a value off the device, in a training step or for a token",
    "*: a reference, not part of this package's work",
)


def show_speed(speed: Speed, form: str = "simple") -> str:
    """Return the table, with what it was measured on.

    Args:
        speed: measured.
        form: "simple" for a terminal, "github" for Markdown.
    """

    def share(value: float) -> float:
        return 100 * value

    def mebibytes(row: SpeedRow) -> float | None:
        return None if row.peak is None else row.peak / 2**20

    table = Table.of(
        speed.rows,
        (words("part"), lambda row: row.part),
        (words("what"), lambda row: row.what + " *" * row.reference),
        (numbers("s", type="significant", digits=3), lambda row: row.seconds),
        (words("tokens/s"), lambda row: f"{row.rate:,.{0 if row.rate >= 100 else 2}f}"),
        (numbers("GFLOP/s", type="significant", digits=3), lambda row: row.speed / 1e9),
        (numbers("of peak, %", digits=1), lambda row: share(row.of_ceiling)),
        (numbers("of floor, %", digits=1), lambda row: share(row.of_floor)),
        (numbers("peak, MiB", digits=0), mebibytes),
        (numbers("waits", type="significant", digits=3), lambda row: row.waits),
    )
    return "\n".join([_about(speed), "", text(table, form), "", *_LEGEND])


def _about(speed: Speed) -> str:
    own = speed.facts
    peaks = ", ".join(
        f"{value / 1e9:.0f} GFLOP/s {name}" for name, value in own["ceilings"].items()
    )
    return (
        f"{own['backbone']} ({own['parameters']:,} parameters) at layer {own['layer']}, windows of "
        f"{own['window']}, {own['batch']} a step; {own['dtype']}"
        f"{' under autocast' if own['autocast'] else ''}; {own['processor']}, {own['threads']} "
        f"threads: matrix products {peaks}, memory {own['bandwidth'] / 1e9:.0f} GB/s; {own['date']}"
    )
