"""The conformance kit: which checks there are, and how they are run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from dihal_bench.check import accounts, anew, contract, leaks, learning
from dihal_bench.check.subject import FAIL, SKIPPED, Outcome, Subject
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress
from dihal_bench.core.registry import DENOISERS, INTERFACES
from dihal_bench.diffusion.schedule import DiffusionConfig
from dihal_bench.interfaces.validate import blamed, origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

FIRST = ("shapes and numbers", contract.shapes)  # without it nothing else can be said
CHECKS: tuple[tuple[str, Callable[[Subject], Outcome]], ...] = (
    FIRST,
    ("dtype", contract.dtypes),
    ("determinism", contract.determinism),
    ("standardisation", contract.standardisation),
    ("locality of the target", contract.target_locality),
    ("locality of the recovery", contract.recovery_locality),
    ("no leak: likelihood", leaks.future),
    ("no leak: scored anew", anew.scored_anew),
    ("no leak: generation", leaks.generation),
    ("no leak: caches", leaks.caches),
    ("no leak: neighbours", leaks.neighbours),
    ("no leak: padding", leaks.padding),
    ("no leak: document starts", leaks.document_starts),
    ("recovery hears its signal", learning.hearing),
    ("training moves what it should", learning.movement),
    ("ledger: parameters", accounts.parameters),
    ("ledger: passes", accounts.passes),
    ("ledger: FLOPs", accounts.flops),
    ("checkpoint", learning.checkpoint),
)


@dataclass(frozen=True, kw_only=True)
class CheckFinding:
    """Outcome of one check.

    Attributes:
        interface: registered name.
        regime: "causal" or "sequence".
        check: what was checked.
        verdict: "pass", "FAIL" or "n/a".
        sentence: on failure the method, what was expected, and what came.
    """

    interface: str
    regime: str
    check: str
    verdict: str
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def subjects(
    names: Sequence[str],
    denoiser: str,
    *,
    denoiser_options: Any = None,
    diffusion: DiffusionConfig | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Subject]:
    """Return what is to be checked: every interface in every regime that it and its trunk have.

    Args:
        names: registered interfaces.
        denoiser: registered name of their trunk.
        denoiser_options: the trunk's own settings; by default its defaults.
        diffusion: the process; by default the default one.
        options: interfaces' own settings, by section.

    Raises:
        UserError: a name is not registered, or an interface cannot use the denoiser.
    """
    own = options or {}
    return [
        replace(
            subject,
            denoiser_options=denoiser_options,
            diffusion=diffusion or DiffusionConfig(),
            options=own.get(subject.kind.section or subject.name),
        )
        for name in names
        for subject in _regimes(name, denoiser)
    ]


def examine(chosen: Sequence[Subject]) -> list[CheckFinding]:
    """Run all checks on all subjects."""
    findings: list[CheckFinding] = []
    with progress("check", len(chosen) * len(CHECKS), unit="checks") as bar:
        for subject in chosen:
            bar.note(f"{subject.name} {subject.regime}")
            for finding in _findings(subject):
                findings.append(finding)
                bar.update()
    return findings


def _findings(subject: Subject) -> Iterator[CheckFinding]:
    broken = False
    for name, check in CHECKS:
        outcome = Outcome(SKIPPED, "not run") if broken else _run(subject, check)
        broken |= (name, check) == FIRST and outcome.verdict == FAIL
        yield CheckFinding(
            interface=subject.name,
            regime=subject.regime,
            check=name,
            verdict=outcome.verdict,
            sentence=outcome.sentence,
        )


def _run(subject: Subject, check: Callable[[Subject], Outcome]) -> Outcome:
    """Return the outcome; whatever is raised is a failure of the method that raised it."""
    try:
        with blamed(subject.kind, DENOISERS.get(subject.denoiser)):
            outcome = check(subject)
    except UserError as error:
        outcome = Outcome(FAIL, str(error))
    place = origin(subject.kind)
    if outcome.verdict != FAIL or place.rpartition(":")[0] in outcome.sentence:
        return outcome
    return Outcome(FAIL, f"{place}: {outcome.sentence}")


def _regimes(name: str, denoiser: str) -> list[Subject]:
    kind, trunk = INTERFACES.get(name), DENOISERS.get(denoiser)
    both = [
        regime
        for regime in kind.regimes
        if regime in trunk.regimes or "diffusion" not in kind.phases
    ]
    if not both:
        raise UserError(
            f"--denoiser {denoiser} cannot be used by {name}: the regimes of one are "
            f"{', '.join(trunk.regimes)}, of the other {', '.join(kind.regimes)}; choose another."
        )
    return [Subject(name, kind, regime, denoiser) for regime in both]


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
