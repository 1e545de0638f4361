"""What a record says of itself, held against itself: scores against sums, spent against budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress
from dihal_bench.evaluation.aggregate import Measured, Traits, scores_of
from dihal_bench.evaluation.document_sums import from_plain
from dihal_bench.evaluation.likelihood import SAMPLED, TEACHER, TRUE, VERSION, Row
from dihal_bench.leaderboard.store import blamed_on, read_stranger
from dihal_bench.leaderboard.verify_texts import off_the_frontier
from dihal_bench.results.metrics import (
    BLOCK_BOUND,
    DIFFUSION_GAIN,
    METRICS,
    NLL,
    SEQUENCE_PREFIX,
    base_name,
)
from dihal_bench.results.record import REMEDY, own_task
from dihal_bench.training.config import TOLERANCE, TRUNK_TOLERANCE, BudgetConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.evaluation.likelihood import Totals
    from dihal_bench.results.record import Record, Score

_RELATIVE = 1e-6  # sums are kept to ten digits, and scores of many tokens add them up
_ABSOLUTE = 1e-7
_ROUNDING = 1e-3  # of a value at an end of its metric's range, added up in float32
_SAME = ("n", "kind", "unit", "dtype", "regime", "version", "nfe")
_Name = tuple[str, str, int, int, str]


@dataclass(frozen=True)
class Verified:
    """What could not be computed anew of a record.

    Attributes:
        taken: scores that follow from nothing in it: of other tasks, and bounds of blocks.
        unknown: metrics and sums on its own text that are not declared here: of a newer version,
            or of a plug-in.
    """

    taken: int
    unknown: frozenset[str] = frozenset()


def verify(record: Record) -> Verified:
    """Compute anew what can be computed from the record alone.

    Scores on the run's own text follow from its sums per document, with their intervals if no
    documents were added up; perplexities at the entropy of real text follow from the points of the
    frontier; whether it kept to its budget follows from what it spent; what learnt from tokens was
    seen to hear of them by its leak gate. A record must have the metrics that its version promises;
    others are computed anew where it has their sums.

    Raises:
        UserError: a number is not what the rest of the record says; names the field.
    """
    data = record.data
    followed: set[int] = set()  # places of scores that could be computed
    texts = off_the_frontier(record, followed)
    scores = (*_scores(record, followed), *_outside(record))
    for problem in (*scores, *texts, *_budget(data), *_gates(data)):
        raise UserError(
            f"{data['id']}: {problem}; a record that contradicts itself is not taken: {REMEDY}."
        )
    return Verified(len(record.scores) - len(followed), frozenset(_unknown(record)))


def within_budget(data: Mapping[str, Any]) -> bool:
    """Whether the interface spent what its budget gives, as far as the record's numbers say."""
    return not list(_overspent(data))


def _unknown(record: Record) -> Iterator[str]:
    """Yield the names of what is measured on the run's own text and not declared here."""
    for score in record.own_scores:
        if base_name(score.metric) not in METRICS:
            yield score.metric
    for row in record.data["sums"]["rows"]:
        yield from row["sums"].keys() - METRICS.sums(row["chains"]).keys()


def _outside(record: Record) -> Iterator[str]:
    """Say which scores are none that their metric can have."""
    for index, score in enumerate(record.scores):
        low, high = METRICS.named(score.metric).range
        if not low - _ROUNDING <= score.value <= high + _ROUNDING:
            yield (
                f"scores[{index}].value ({score.subject} {score.metric}) is {score.value:g}, and "
                f"it is from {low:g} to {high:g}"
            )


def _scores(record: Record, followed: set[int]) -> Iterator[str]:
    data = record.data
    totals = from_plain(data["sums"])
    known = _known(record, totals)
    whole = data["sums"]["documents"] == len(data["sums"]["tokens"])
    for index, score in enumerate(record.scores):
        if score.task != own_task(data):
            continue
        name, own = f"{score.subject} {score.metric}", _IN_BLOCKS.get(score.metric)
        if base_name(score.metric) not in METRICS:
            continue
        if score.metric != BLOCK_BOUND.key:
            followed.add(index)
        if own is not None and data["regime"] == "sequence":
            yield from (f"scores[{index}] ({name}) {problem}" for problem in own(score, totals))
            continue
        again = known.get(_name(score))
        if again is None:
            yield (
                f"scores[{index}] ({name}, S={score.steps}, K={score.chains}) follows from no sums"
            )
            continue
        for part in ("value", "lo", "hi") if whole else ("value",):
            said, found = getattr(score, part), getattr(again, part)
            if said is None or not _near(said, found):
                yield f"scores[{index}].{part} ({name}) is {said}, and its sums say {found:.10g}"
        for part in _SAME:
            said, found = getattr(score, part), getattr(again, part)
            if said != found and not (part == "version" and said < found):
                yield (
                    f"scores[{index}].{part} ({name}) is {said!r}, and the rest of the record says "
                    f"{found!r}"
                )
        for part, found in again.details.items():
            said = score.details.get(part)
            if not _agrees(part, said, found):
                yield (
                    f"scores[{index}].details.{part} ({name}) is {said!r}, and the rest of the "
                    f"record says {found!r}"
                )
    yield from _dropped(record, known)


def _dropped(record: Record, known: Mapping[_Name, Score]) -> Iterator[str]:
    """Say which scores are not there although their sums are, so that nobody keeps to the good.

    An older scorer may have had fewer metrics, but those that it had of every row.
    """
    own = [score for score in record.scores if score.task == own_task(record.data)]
    older = any(score.version < VERSION for score in own)
    metrics = {score.metric for score in own}
    for name in sorted(known.keys() - {_name(score) for score in own}):
        subject, metric, steps, chains, _ = name
        if not older or metric in metrics:
            row = f"{subject} (S={steps}, K={chains})"
            yield f"scores has no {metric} of {row}, which its sums give"


def _near(said: float, found: float) -> bool:
    return abs(said - found) <= _ABSOLUTE + _RELATIVE * abs(found)


def _agrees(part: str, said: Any, found: Any) -> bool:
    """Whether a detail is what it was found to be."""
    if isinstance(found, bool):  # of a number that is compared itself, which may lie at the limit
        return part == "converged" and isinstance(said, bool)
    if isinstance(found, float):
        return isinstance(said, int | float) and _near(said, found)
    return bool(said == found)


def _bound(score: Score, totals: Mapping[Row, Totals]) -> Iterator[str]:
    """Say what is wrong with a bound of blocks: of its sums a record has nothing."""
    rows = {(row.subject, row.steps) for row in totals if row.signal == SAMPLED}
    if (score.subject, score.steps) not in rows or (score.signal, score.chains) != (SAMPLED, 1):
        yield "is of no row"
    if score.kind != "bound" or score.value < 0:
        yield f"is {score.kind} {score.value}, and no bound"


def _gain(score: Score, totals: Mapping[Row, Totals]) -> Iterator[str]:
    """Say what is wrong with a gain in blocks, over the control that it names.

    Which control is the best at no more evaluations is not to be known there: a signal may be drawn
    once more, and a record does not say of whom.
    """
    name, steps = score.details.get("control"), score.details.get("control_steps")
    rows = {(row.subject, row.steps): row for row in totals if row.signal == SAMPLED}
    row, control = rows.get((score.subject, score.steps)), rows.get((str(name), steps or 0))
    nll = NLL.at(score.chains)
    if row is None or control is None or nll not in totals[row].sums:
        yield f"is of no row, or over none: {name} in {steps} steps"
        return
    pairs = totals[control].per_token(NLL.at(1)), totals[row].per_token(nll)
    over, own = (float(above.sum() / below.sum()) for above, below in pairs)
    if not _near(score.value, over - own):
        yield f"is {score.value}, and its sums say {over - own:.10g} over {name}"


_IN_BLOCKS = {  # what follows from no sums
    BLOCK_BOUND.key: _bound,
    f"{SEQUENCE_PREFIX}{DIFFUSION_GAIN.key}": _gain,
}


def _known(record: Record, totals: Mapping[Row, Totals]) -> dict[_Name, Score]:
    """Return the scores that follow from the sums."""
    data = record.data
    own = [
        score for score in record.own_scores if score.metric != BLOCK_BOUND.key
    ]  # has an NFE of its own
    subjects = {row.subject for row in totals} - {TEACHER}
    first = data["interface"]["name"]
    traits = {
        name: Traits(
            stochastic=any(
                row.chains > 1 or row.signal == TRUE for row in totals if row.subject == name
            ),
            likelihood=name != first  # of a control always: gains are over the best of them
            or any(base_name(s.metric) == NLL.key for s in own if s.subject == name),
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
    documents = {"documents": data["sums"]["documents"]}  # of which the sums may be of several
    return {
        _name(score): replace(score, details=score.details | documents)
        if "documents" in score.details
        else score
        for score in found
    }


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


def _gates(data: Mapping[str, Any]) -> Iterator[str]:
    """Say whose gate saw no effect of any token, although it was trained on tokens."""
    for name, gate in data["gates"]["leak"].items():
        if data["spent"].get(name) and gate["effect"] <= gate["tolerance"]:
            yield (
                f"gates.leak.{name}.effect is {gate['effect']:g}, so that its test saw nothing move"
            )


def verify_all(
    paths: Sequence[Path], read: Callable[[Path], Record] = read_stranger
) -> tuple[list[str], Verified]:
    """Verify record files.

    Args:
        paths: of the files.
        read: reads one.

    Returns:
        A sentence for every file that cannot be read or contradicts itself, and what could not be
        computed anew of the others.
    """
    problems, found = [], []
    with progress("verify", len(paths), unit="records") as bar:
        for path in paths:
            try:
                with blamed_on(path, "verified"):
                    found.append(verify(read(path)))
            except UserError as error:
                problems.append(str(error))
            bar.update(1)
    unknown = frozenset[str]().union(*(own.unknown for own in found))
    return problems, Verified(sum(own.taken for own in found), unknown)
