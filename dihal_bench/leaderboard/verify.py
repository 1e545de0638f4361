"""What a record says of itself, held against itself: scores against sums, spent against budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dihal_bench.errors import UserError
from dihal_bench.leaderboard.store import read_stranger
from dihal_bench.progress import progress
from dihal_bench.scoring.likelihood import SAMPLED, TEACHER, Row
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
_SAME = ("n", "kind", "unit", "dtype", "regime", "version", "nfe")
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
    known = _known(record, from_plain(data["sums"]))
    whole = data["sums"]["documents"] == len(data["sums"]["tokens"])
    free = {_prefixed(data, name) for name in ("block_bound", *_unchecked(data))}
    for index, score in enumerate(record.scores):
        if score.task != own_task(data) or score.metric in free:
            continue
        again = known.get(_name(score))
        if again is None:
            yield (
                f"scores[{index}] ({score.subject} {score.metric}, S={score.steps}, "
                f"K={score.chains}) follows from no sums"
            )
            continue
        for part in ("value", "lo", "hi") if whole else ("value",):
            said, found = getattr(score, part), getattr(again, part)
            if said is None or abs(said - found) > _ABSOLUTE + _RELATIVE * abs(found):
                yield (
                    f"scores[{index}].{part} ({score.subject} {score.metric}) is {said}, and its "
                    f"sums say {found:.10g}"
                )
        for part in _SAME:
            said, found = getattr(score, part), getattr(again, part)
            if said != found and not (part == "version" and said < found):
                yield (
                    f"scores[{index}].{part} ({score.subject} {score.metric}) is {said!r}, and the "
                    f"rest of the record says {found!r}"
                )


def _unchecked(data: Mapping[str, Any]) -> tuple[str, ...]:
    """In blocks a signal may be drawn once more, which decides what a gain may refer to."""
    return () if data["regime"] == "causal" else ("diffusion_gain",)


def _prefixed(data: Mapping[str, Any], name: str) -> str:
    plain = Measured(task="", regime=data["regime"], dtype="", resamples=1, seed=0)
    return name if name == "block_bound" else plain.metric(name)


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
            stochastic=any(row.chains > 1 for row in totals if row.subject == name),
            likelihood=any(s.metric.endswith("nll") for s in own if s.subject == name),
            decoder_steps=max(
                (s.nfe // s.chains - s.steps for s in own if s.subject == name and s.steps),
                default=0,
            ),
        )
        for name in subjects
    }
    mine = [row for row in totals if row.subject == first and row.signal == SAMPLED]
    measured = Measured(
        task=own_task(data),
        regime=data["regime"],
        dtype=data["config"]["dtype"],
        resamples=data["config"]["score"]["resamples"],
        seed=data["config"]["seed"],
    )
    found = scores_of(dict(totals), traits, measured, reference=mine[-1])
    return {_name(score): score for score in found}


def _name(score: Score) -> _Name:
    return score.subject, score.metric, score.steps, score.chains, score.signal


def _budget(data: Mapping[str, Any]) -> Iterator[str]:
    problems = list(_overspent(data))
    if data["budget"].get("within") is True:
        yield from problems


def _overspent(data: Mapping[str, Any]) -> Iterator[str]:
    """Say where the interface or a control spent more or less than it may."""
    name, budget = data["interface"]["name"], BudgetConfig(**data["config"]["budget"])
    drawn = any(row["chains"] > 1 for row in data["sums"]["rows"] if row["subject"] == name)
    if drawn and "diffusion" not in data["spent"].get(name, {}):
        yield f"spent.{name} has no diffusion phase, and its chains differ"
    for subject, spent in data["spent"].items():
        for phase, cap in budget.plan(tuple(spent)).items():
            tokens = spent[phase]["tokens"]
            if abs(tokens / cap - 1) > TOLERANCE:
                yield f"spent.{subject}.{phase}.tokens is {tokens:,}, the budget gives {cap:,}"
    trunk = data["budget"]["trunk"]
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
