"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass

PASS, FAIL, SKIPPED = "pass", "FAIL", "n/a"


@dataclass(frozen=True)
class Outcome:
    """Of one check of one interface in one regime.

    Attributes:
        verdict: "pass", "FAIL", or "n/a" where there is nothing to check.
        sentence: on failure what was expected of which method, and what came; else empty, or why
            there is nothing to check.
    """

    verdict: str = PASS
    sentence: str = ""


def fail(sentence: str) -> Outcome:
    """Return a failure."""
    return Outcome(FAIL, sentence)


def skip(reason: str) -> Outcome:
    """Return that there is nothing to check."""
    return Outcome(SKIPPED, reason)


PASSED = Outcome()
