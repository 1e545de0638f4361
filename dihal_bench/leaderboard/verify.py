"""What a record says of itself, held against itself: scores against sums, spent against budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.errors import UserError
from dihal_bench.leaderboard.store import read_stranger
from dihal_bench.progress import progress
from dihal_bench.scoring.likelihood import TEACHER, Row
from dihal_bench.scoring.sums import from_plain
from dihal_bench.scoring.table import Measured, Traits, scores_of
from dihal_bench.training.budget import TOLERANCE, TRUNK_TOLERANCE, BudgetConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.records import Record, Score
    from dihal_bench.scoring.likelihood import Totals

_RELATIVE = 1e-6  # sums are kept to ten digits, and scores of many tokens add them up
_ABSOLUTE = 1e-7
_SUMMED = ("nll", "brier1", "kl")  # no such score without its sums
_Name = tuple[str, str, int, int, str]


def verify(record: Record) -> None:
    """Compute anew what can be computed from the record alone.

    Scores on the run's own text follow from its sums per document, with their intervals if no
    documents were added up; whether it kept to its budget follows from what it spent.

    Raises:
        UserError: a number is not what the rest of the record says; names the field.
    """
    data = record.data
    for problem in (*_scores(record), *_budget(data)):
        raise UserError(
            f"{data['id']}: {problem}; a record that contradicts itself is not taken: run and "
            "score anew."
        )


def within_budget(data: Mapping[str, Any]) -> bool:
    """Whether the interface spent what its budget gives, as far as the record's numbers say."""
    return not list(_overspent(data))


def own_task(data: Mapping[str, Any]) -> str:
    """Return what the run's scores on its own text are filed under."""
    return f"{data['config']['corpus']}:validation"


def _scores(record: Record) -> Iterator[str]:
    data = record.data
    totals = from_plain(data["sums"])
    known = _known(record, totals)
    whole = data["sums"]["documents"] == len(data["sums"]["tokens"])
    for index, score in enumerate(record.scores):
        own = score.task == own_task(data) and score.metric.endswith(_SUMMED)
        if own and _name(score) not in known:
            name = f"{score.subject} {score.metric}"
            yield f"scores[{index}] ({name}) has no sums that it follows from"
    for index, score in enumerate(record.scores):
        again = known.get(_name(score))
        if again is None or score.task != own_task(data):
            continue
        parts = ("value", "lo", "hi") if whole else ("value",)
        for part in parts:
            said, found = getattr(score, part), getattr(again, part)
            if said is None or abs(said - found) > _ABSOLUTE + _RELATIVE * abs(found):
                yield (
                    f"scores[{index}].{part} ({score.subject} {score.metric}) is {said}, and its "
                    f"sums say {found:.10g}"
                )
        if score.n != again.n:
            yield f"scores[{index}].n is {score.n}, and its sums are of {again.n} tokens"


def _known(record: Record, totals: Mapping[Row, Totals]) -> dict[_Name, Score]:
    """Return the scores that follow from the sums."""
    data = record.data
    own = [score for score in record.scores if score.task == own_task(data)]
    subjects = {row.subject for row in totals} - {TEACHER}
    first = data["interface"]["name"]
    if first not in subjects or Row(subject=TEACHER) not in totals:
        raise UserError(f"{data['id']}: the field sums has no rows of {first} and of the teacher.")
    traits = {
        name: Traits(
            stochastic=any(s.kind == "ensemble" for s in own if s.subject == name),
            likelihood=any(s.metric.endswith("nll") for s in own if s.subject == name),
            decoder_steps=max(
                (s.nfe // s.chains - s.steps for s in own if s.subject == name and s.steps),
                default=0,
            ),
        )
        for name in subjects
    }
    mine = [row for row in totals if row.subject == first and row.signal == "sampled"]
    measured = Measured(
        task=own_task(data),
        regime=data["regime"],
        dtype=data["config"]["dtype"],
        resamples=data["config"]["score"]["resamples"],
        seed=data["config"]["seed"],
    )
    found = scores_of(dict(totals), traits, measured, reference=mine[-1])
    # In blocks a signal may be drawn once more, which decides what controls a gain may refer to.
    skipped = {measured.metric("diffusion_gain")} if data["regime"] != "causal" else set()
    return {_name(score): score for score in found if score.metric not in skipped}


def _name(score: Score) -> _Name:
    return score.subject, score.metric, score.steps, score.chains, score.signal


def _budget(data: Mapping[str, Any]) -> Iterator[str]:
    problems = list(_overspent(data))
    if data["budget"].get("within") is True:
        yield from problems


def _overspent(data: Mapping[str, Any]) -> Iterator[str]:
    """Say where the interface spent more or less than it may."""
    name = data["interface"]["name"]
    spent = data["spent"].get(name, {})
    budget = data["config"]["budget"]
    allowed = BudgetConfig(**budget).plan(tuple(spent))
    for phase, cap in allowed.items():
        tokens = spent[phase]["tokens"]
        if abs(tokens / cap - 1) > TOLERANCE:
            yield f"spent.{name}.{phase}.tokens is {tokens:,}, and the budget gives {cap:,}"
    trunk = data["budget"].get("trunk", 1.0)
    if abs(trunk - 1) > TRUNK_TOLERANCE:
        yield f"budget.trunk is {trunk:.3g} of what a trunk may have"


def verify_all(paths: Sequence[Path]) -> list[str]:
    """Return a sentence for every record file that cannot be read or contradicts itself."""
    problems = []
    with progress("verify", len(paths), unit="records") as bar:
        for path in paths:
            try:
                verify(read_stranger(path))
            except UserError as error:
                problems.append(str(error))
            bar.update(1)
    return problems
