"""More scores for a finished run: nothing is trained again, and nothing is scored twice."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dihal_bench.errors import UserError
from dihal_bench.files import short_hash
from dihal_bench.folder import claimed
from dihal_bench.records import Record
from dihal_bench.registry import INTERFACES
from dihal_bench.scoring.bench import Bench

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
    bench: Bench | None = None
    with claimed(run.folder, run.kept):
        record = Record.read(run.folder / "record.json")
        for task in tasks:
            key = short_hash([task.to_dict(), chosen, list(config.steps), config.chains])
            done: dict[str, str] = record.data.get("tasks", {})
            if done.get(task.name) == key:
                say(f"task {task.name}: already scored")
                continue
            say(f"task {task.name}")
            if task.gated:
                _check_gates(record, chosen)
            bench = bench or _bench(run, chosen, config, say)
            outcome = task.perform(bench)
            for name, write in outcome.files.items():
                write(run.folder / "samples" / name)
            others = [s for s in record.data["scores"] if s["task"] != task.name]
            record = Record(
                {
                    **record.data,
                    "scores": others + [score.to_dict() for score in outcome.scores],
                    "tasks": {**done, task.name: key},
                    "audits": {**record.data.get("audits", {}), task.name: outcome.audit},
                }
            )
            record.write(run.folder / "record.json")
    return record


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
        training=inputs.training_text,
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
