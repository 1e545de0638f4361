"""Findings as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dihal_bench.check.outcome import FAIL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.check.kit import CheckFinding


def render(findings: Sequence[CheckFinding]) -> str:
    """Return a table per interface, a column per regime, and below it a line per failure."""
    names = dict.fromkeys(finding.interface for finding in findings)
    return "\n\n".join(
        _render(name, [finding for finding in findings if finding.interface == name])
        for name in names
    )


def _render(name: str, findings: Sequence[CheckFinding]) -> str:
    from tabulate import tabulate

    regimes = dict.fromkeys(finding.regime for finding in findings)
    verdicts = {(finding.check, finding.regime): finding.verdict for finding in findings}
    checks = dict.fromkeys(finding.check for finding in findings)
    rows = [[check, *(verdicts[check, regime] for regime in regimes)] for check in checks]
    failed = [finding for finding in findings if finding.verdict == FAIL]
    lines = [f"{f.regime}, {f.check}: {f.sentence}" for f in failed]
    summary = f"{name}: {len(failed)} of {len(findings)} checks fail" if failed else ""
    return "\n".join(
        [
            tabulate(rows, headers=[name, *regimes], tablefmt="simple"),
            "",
            summary or f"{name}: all checks pass",
            *lines,
        ]
    )
