"""More scores for a finished run: nothing is trained again, and nothing is scored twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dihal_bench.errors import UserError
from dihal_bench.files import short_hash
from dihal_bench.folder import claimed
from dihal_bench.records import Record
from dihal_bench.registry import INTERFACES
from dihal_bench.scoring.bench import Bench, Outcome, steps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dihal_bench.scoring.bench import Task
    from dihal_bench.scoring.evaluate import ScoreConfig
    from dihal_bench.trained import TrainedRun


def rescore(
    run: TrainedRun,
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
    with claimed(run.folder, run.kept):
        record = Record.read(run.folder / "record.json")
        for task in tasks:
            if task.name == f"{run.config.corpus}:validation":
                raise UserError(f"a task cannot be called {task.name}: that is the run's own text.")
            kept = _Kept.of(record, task)
            kept.say_replaced(say)
            todo = kept.todo(chosen, config)
            if not todo:
                say(f"task {task.name}: already scored")
                continue
            say(f"task {task.name}")
            if task.gated:
                _check_gates(record, todo)
            outcome = task.perform(_bench(run, todo, config, say))
            for name, write in outcome.files.items():
                write(run.folder / "samples" / name)
            record = kept.merged(outcome, todo, config)
            record.write(run.folder / "record.json")
    return record


@dataclass(frozen=True)
class _Kept:
    """What a record has of a task already, if the task is still the same.

    Attributes:
        record: of the run.
        task: what is asked for.
        key: digest of all that its scores depend on but who is scored.
        rows: (name, steps, chains) that were scored.
        other: whether the record has scores of another task of that name.
    """

    record: Record
    task: Task
    key: str
    rows: set[tuple[str, int, int]]
    other: bool

    @classmethod
    def of(cls, record: Record, task: Task) -> _Kept:
        key = short_hash(task.to_dict())
        done = record.data.get("tasks", {}).get(task.name)
        same = done is not None and done["key"] == key
        rows = {(name, steps, chains) for name, steps, chains in done["rows"]} if same else set()
        return cls(record, task, key, rows, other=done is not None and not same)

    def say_replaced(self, say: Callable[[str], None]) -> None:
        if self.other:
            say(f"task {self.task.name}: it was scored otherwise before; those scores go")

    def todo(self, names: Sequence[str], config: ScoreConfig) -> list[str]:
        """Return who has to be scored; where rows are compared in pairs, all of them together."""
        missing = [n for n in names if not _rows([n], config) <= self.rows]
        if not (missing and self.task.joint):
            return missing
        return list(dict.fromkeys([*(name for name, *_ in sorted(self.rows)), *names]))

    def merged(self, outcome: Outcome, names: Sequence[str], config: ScoreConfig) -> Record:
        """Return the record with what is new, and what it had of others."""
        data, name = self.record.data, self.task.name
        new = {(s.subject, s.steps, s.chains, s.signal) for s in outcome.scores}
        scores = [
            s
            for s in data["scores"]
            if s["task"] != name
            or (not self.other and (s["subject"], s["steps"], s["chains"], s["signal"]) not in new)
        ]
        rows = sorted(self.rows | _rows(names, config))
        audits = data.get("audits", {})
        audit = outcome.audit
        if not self.other and audit.get("frontier") is not None and name in audits:
            drawn = {point["row"] for point in audit["frontier"]}
            before = [p for p in audits[name]["frontier"] if p["row"] not in drawn]
            audit = {**audit, "frontier": before + audit["frontier"]}
        return Record(
            {
                **data,
                "scores": scores + [score.to_dict() for score in outcome.scores],
                "tasks": {
                    **data.get("tasks", {}),
                    name: {"key": self.key, "rows": [list(row) for row in rows]},
                },
                "audits": {**audits, name: audit},
            }
        )


def _rows(names: Sequence[str], config: ScoreConfig) -> set[tuple[str, int, int]]:
    """Return the rows that interfaces have."""
    return {
        (name, steps, config.chains if INTERFACES.get(name).stochastic else 1)
        for name in names
        for steps in steps_of(INTERFACES.get(name), config.steps)
    }


def _check_gates(record: Record, names: Sequence[str]) -> None:
    gates = record.data["gates"]["leak"]
    for name in names:
        if gates.get(name, {}).get("verdict") != "pass":
            raise UserError(
                f"{name} has no passed leak gate in this run, so no likelihood of it is scored; "
                "leave it out with --interfaces, or run it again."
            )


def _bench(
    run: TrainedRun, names: Sequence[str], own: ScoreConfig, say: Callable[[str], None]
) -> Bench:
    run.check()
    config, inputs = run.config, run.inputs
    return Bench(
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
    )
