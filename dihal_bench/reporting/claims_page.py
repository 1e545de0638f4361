"""The page of all claims, a pure function of the evidence."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from dihal_bench.core.markdown import counted
from dihal_bench.reporting.writers import text
from dihal_bench.results.table import Table, words
from dihal_bench.studies.claims.rules import RULES
from dihal_bench.studies.theory.checks import verify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.studies.claims.claim import Claim, Finding
    from dihal_bench.studies.claims.evidence import Evidence
    from dihal_bench.studies.theory.checks import Check

_HEAD = (
    "# Claims, and what was found of them\n\n"
    "This page is written by `dihal-bench claims`; do not edit it. A claim *holds* where the 95 % "
    "interval of its statistic, or the exact test over backbones at 5 %, lies on its side; it "
    "*fails* where that lies on the other side, or no gain is left at all; otherwise it is "
    "*undecided*. Of fewer than three trainings no spread is known, so they decide nothing. "
    "The verdict of a claim is that of the rows that decide, which stand first, where they agree. "
    "Everything here is about the backbones that are named: small ones, trained on one kind of "
    "text. A verdict does not carry over to other sizes, families or budgets.\n"
)


def page(evidence: Evidence) -> str:
    """Return the page as Markdown."""
    claims = [rule(evidence) for rule in RULES]
    summary = Table.of(
        claims,
        (words("key", ""), lambda claim: claim.key),
        (words("claim", markup=True), lambda claim: claim.statement),
        (words("verdict", markup=True), lambda claim: f"**{claim.verdict}**"),
    )
    found = text(summary, "github")
    return "\n".join([_HEAD, found, "", *(_section(claim) for claim in claims), _theory()])


def _section(claim: Claim) -> str:
    commands = "\n".join(claim.commands)
    parts = [
        f"## {claim.key}. {claim.statement}",
        f"Verdict: **{claim.verdict}**",
        *claim.remarks,
        f"```bash\n{commands}\n```",
        *_tables(claim.findings),
    ]
    return "\n\n".join(parts) + "\n"


def _tables(findings: Sequence[Finding]) -> list[str]:
    """Return the findings that decide, and what else was found: folded away beside such ones."""
    leading = [finding for finding in findings if finding.leads]
    rest = [finding for finding in findings if not finding.leads]
    if not findings:
        return ["No results of this are here yet."]
    if not leading:
        return ["None of these rows decides the claim:", _table(rest)]
    count = f"{counted(len(rest), 'more row')}, which do not decide"
    folded = [f"<details><summary>{count}</summary>", _table(rest), "</details>"] if rest else []
    return [_table(leading), *folded]


def _table(findings: Sequence[Finding]) -> str:
    table = Table.of(
        findings,
        (words("scope"), lambda finding: finding.scope),
        (words("statistic"), lambda finding: finding.statistic),
        (words("value", "value [95 %]"), lambda finding: finding.value),
        (words("rival"), lambda finding: finding.rival or None),
        (words("verdict"), lambda finding: finding.verdict),
    )
    return text(table, "github")


def _theory() -> str:
    """Return what the theorems' two sides are on laws with dialled geometry, a row per law."""
    kinds: dict[tuple[str, bool, str, str], list[Check]] = defaultdict(list)
    for check in verify():
        kinds[check.claim, check.control, check.statement, check.law].append(check)
    largest = words("ratio", "largest measured / bound")
    table = Table.of(
        kinds.values(),
        (words("claim", ""), lambda some: some[0].claim),
        (words("inequality", markup=True), lambda some: f"`{some[0].statement}`"),
        (words("law"), lambda some: some[0].law),
        (words("settings"), lambda some: str(len(some))),
        (largest, lambda some: f"{max(check.measured / check.bound for check in some):.3g}"),
        (words("has to"), lambda some: "fail" if some[0].control else "hold"),
        (words("does"), lambda some: f"{sum(c.as_expected for c in some)} of {len(some)}"),
    )
    return "\n\n".join(
        [
            "## Theorems 1 to 3 and Lemma 1, in numbers",
            "Both sides of each inequality on laws whose curvature and rank are dialled. Controls "
            "lack an assumption, or use a constant that only looks right: there the inequality has "
            "to fail. None of this says that activations satisfy the assumptions.",
            text(table, "github") + "\n",
        ]
    )
