"""More scores for a finished run: nothing is trained again, and nothing is scored twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.files import short_hash
from dihal_bench.core.registry import INTERFACES
from dihal_bench.evaluation.context import EvalContext, TaskResult, steps_of
from dihal_bench.results.record import Record, own_task
from dihal_bench.runs.folder import claimed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dihal_bench.config.schema import ScoreConfig
    from dihal_bench.evaluation.context import Task
    from dihal_bench.runs.finished import FinishedRun


def rescore(
    run: FinishedRun,
    tasks: Sequence[Task],
    *,
    names: Sequence[str] = (),
    steps: Sequence[int] = (),
    chains: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Record:
    """Score a run on tasks, and write its record anew after each.

    Rows that were scored in the same way stay as they are, also where others are asked for.

    Args:
        run: complete.
        tasks: what is asked for.
        names: the interface and controls that take part; by default those that are trained.
        steps: network evaluations per chain; by default the run's own.
        chains: in the largest ensemble of teacher-forced scores; 0: as many as the run has.
        say: takes one-line messages for a person.

    Raises:
        UserError: a name has no part in the run, another process works on it, or a task cannot be
            done.
    """
    chosen = list(names) or [n for n in run.names if n == run.name or INTERFACES.get(n).phases]
    config = replace(
        run.config.score,
        steps=tuple(steps) or run.config.score.steps,
        chains=chains or run.config.score.chains,
    )
    with claimed(run.folder, None):
        record = Record.read(run.folder / "record.json")
        for task in tasks:
            if task.name == own_task(record.data):
                raise UserError(f"a task cannot be called {task.name}: that is the run's own text.")
            kept = _Kept.of(record, task, config)
            kept.say_replaced(say)
            todo = kept.todo([run.name, *chosen] if task.joint else chosen)
            if not todo:
                say(f"task {task.name}: already scored")
                continue
            say(f"task {task.name}")
            if task.generates:
                run.inputs.backbone.require_generation()
            if task.gated:
                _check_gates(record, todo)
            outcome = task.perform(_bench(run, todo, kept.config, say))
            for name, write in outcome.files.items():
                write(run.folder / "samples" / name)
            record = kept.merged(outcome, todo)
            record.write(run.folder / "record.json")
    return record


@dataclass(frozen=True)
class _Kept:
    """What a record has of a task already, if the task is still the same.

    Attributes:
        record: of the run.
        task: what is asked for.
        config: in how many steps and chains rows are scored; where rows are compared in pairs, in
            those that they were scored in as well.
        key: digest of all that its scores depend on but who is scored.
        rows: (name, steps, chains) that were scored.
        other: whether the record has scores of another task of that name.
    """

    record: Record
    task: Task
    config: ScoreConfig
    key: str
    rows: set[tuple[str, int, int]]
    other: bool

    @classmethod
    def of(cls, record: Record, task: Task, config: ScoreConfig) -> _Kept:
        key = short_hash(task.to_dict())
        done = record.data.get("tasks", {}).get(task.name)
        same = done is not None and done["key"] == key
        rows = {(name, steps, chains) for name, steps, chains in done["rows"]} if same else set()
        if task.joint:
            config = _widened(config, rows)
        return cls(record, task, config, key, rows, other=done is not None and not same)

    def say_replaced(self, say: Callable[[str], None]) -> None:
        if self.other:
            say(f"task {self.task.name}: it was scored otherwise before; those scores go")

    def todo(self, names: Sequence[str]) -> list[str]:
        """Return who has to be scored; where rows are compared in pairs, all of them together."""
        missing = [name for name in dict.fromkeys(names) if not self._of([name]) <= self.rows]
        if not (missing and self.task.joint):
            return missing
        return list(dict.fromkeys([*names, *(name for name, *_ in sorted(self.rows))]))

    def merged(self, outcome: TaskResult, names: Sequence[str]) -> Record:
        """Return the record with what is new, and what it had of others."""
        data, name = self.record.data, self.task.name
        new = {(s.subject, s.steps, s.chains, s.signal) for s in outcome.scores}
        goes = self.other or self.task.joint  # all rows are scored again, and all differences
        scores = [
            s
            for s in data["scores"]
            if s["task"] != name
            or (not goes and (s["subject"], s["steps"], s["chains"], s["signal"]) not in new)
        ]
        rows = sorted(self._of(names) if goes else self.rows | self._of(names))
        audits = data.get("audits", {})
        before = {} if self.other else audits.get(name, {})
        return Record.of(
            {
                **data,
                "scores": scores + [score.to_dict() for score in outcome.scores],
                "tasks": {
                    **data.get("tasks", {}),
                    name: {"key": self.key, "rows": [list(row) for row in rows]},
                },
                "audits": {**audits, name: _joined(before, outcome.audit)},
            }
        )

    def _of(self, names: Sequence[str]) -> set[tuple[str, int, int]]:
        """Return the rows that interfaces have."""
        chains = self.task.ensemble(self.config)
        return {
            (name, steps, chains if INTERFACES.get(name).stochastic else 1)
            for name in names
            for steps in steps_of(INTERFACES.get(name), self.config.steps)
        }


def _joined(before: Mapping[str, Any], audit: Mapping[str, Any]) -> dict[str, Any]:
    """Return an audit with what an earlier one of the same task has of rows that it has not."""
    joined = dict(audit)
    if "frontier" in before and "frontier" in audit:
        drawn = {point["row"] for point in audit["frontier"]}
        kept = [point for point in before["frontier"] if point["row"] not in drawn]
        joined["frontier"] = kept + audit["frontier"]
    if "excerpts" in before and "excerpts" in audit:
        known = {excerpt["prompt"]: excerpt["rows"] for excerpt in before["excerpts"]}
        joined["excerpts"] = [
            {**own, "rows": {**known.get(own["prompt"], {}), **own["rows"]}}
            for own in audit["excerpts"]
        ]
    return joined


def _widened(config: ScoreConfig, rows: set[tuple[str, int, int]]) -> ScoreConfig:
    """Return the configuration with the steps and chains of rows, of which pairs are made."""
    drawn = [row for row in rows if INTERFACES.get(row[0]).stochastic]
    steps = sorted({*config.steps, *(steps for _, steps, _ in drawn)})
    chains = max([config.chains, *(chains for *_, chains in drawn)])
    return replace(config, steps=tuple(steps), chains=chains)


def _check_gates(record: Record, names: Sequence[str]) -> None:
    gates = record.data["gates"]["leak"]
    for name in names:
        if gates.get(name, {}).get("verdict") != "pass":
            raise UserError(
                f"{name} has no passed leak gate in this run, so no likelihood of it is scored; "
                "leave it out with --interfaces, or run it again."
            )


def _bench(
    run: FinishedRun, names: Sequence[str], own: ScoreConfig, say: Callable[[str], None]
) -> EvalContext:
    run.check()
    run.check_text()
    run.inputs.check(run.folder)
    config, inputs = run.config, run.inputs
    return EvalContext(
        teacher=inputs.backbone,
        interfaces={name: run.interface(name) for name in names},
        trained_on=inputs.trained_on,
        validation=inputs.validation_text,
        window=config.text.window,
        regime=config.regime,
        block=config.block_size,
        dtype=config.dtype,
        config=own,
        seed=config.seed,
        folder=run.folder / "shared",
        say=say,
        prover=run.prover(names),
    )
