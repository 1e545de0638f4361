"""More scores for a finished run: nothing is trained again, and nothing is scored twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dihal_bench.files import atomic_path, short_hash
from dihal_bench.folder import claimed
from dihal_bench.records import Record
from dihal_bench.registry import INTERFACES
from dihal_bench.scoring.evaluate import traits_of
from dihal_bench.scoring.likelihood import TEACHER
from dihal_bench.scoring.samples.frontier import draw
from dihal_bench.scoring.samples.measure import VERSION
from dihal_bench.scoring.samples.task import Source, Written, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dihal_bench.interfaces.base import Interface
    from dihal_bench.scoring.samples.task import SampleTask
    from dihal_bench.trained import TrainedRun


def rescore(
    run: TrainedRun,
    tasks: Sequence[SampleTask],
    *,
    names: Sequence[str] = (),
    steps: Sequence[int] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Record:
    """Score a run on tasks, and write its record anew after each.

    Args:
        run: complete.
        tasks: what is asked for.
        names: the interface and controls that take part; by default those that are trained.
        steps: network evaluations per chain; by default the run's own.
        say: takes one-line messages for a person.

    Raises:
        UserError: a name has no part in the run, another process works on it, or a task cannot be
            done.
    """
    names = list(names) or [n for n in run.names if n == run.name or INTERFACES.get(n).phases]
    steps = list(steps) or list(run.config.score.steps)
    with claimed(run.folder, run.kept):
        record = Record.read(run.folder / "record.json")
        for task in tasks:
            key = short_hash([task.to_dict(), names, steps, VERSION])
            done: dict[str, str] = record.data.get("tasks", {})
            if done.get(task.name) == key:
                say(f"task {task.name}: already scored")
                continue
            say(f"task {task.name}")
            written = _write(run, task, names, steps, say)
            _keep_samples(run.folder, task, written)
            others = [s for s in record.data["scores"] if s["task"] != task.name]
            record = Record(
                {
                    **record.data,
                    "scores": others + [score.to_dict() for score in written.scores],
                    "tasks": {**done, task.name: key},
                    "audits": {**record.data.get("audits", {}), task.name: written.audit()},
                }
            )
            record.write(run.folder / "record.json")
    return record


def _write(
    run: TrainedRun,
    task: SampleTask,
    names: Sequence[str],
    steps: Sequence[int],
    say: Callable[[str], None],
) -> Written:
    run.check()
    teacher = run.inputs.backbone
    sources = [Source(TEACHER, teacher, 1, None)]
    for name in names:
        interface = run.interface(name)
        sources += [
            Source(name, interface, count, traits_of(interface))
            for count in _steps(interface, steps)
        ]
    return write(
        task,
        sources,
        teacher,
        training=run.inputs.training_text,
        validation=run.inputs.validation_text,
        regime=run.config.regime,
        dtype=run.config.dtype,
        say=say,
    )


def _steps(interface: Interface, steps: Sequence[int]) -> list[int]:
    if interface.stochastic:
        return sorted(set(steps))
    return [max(steps)] if interface.iterative else [1]


def _keep_samples(folder: Path, task: SampleTask, written: Written) -> None:
    """Write every row's samples as JSON lines, and the frontier as a figure."""
    for (subject, steps), samples in written.samples.items():
        path = folder / "samples" / f"{task.name}-{subject}-S{steps}.jsonl"
        lines = [
            json.dumps({"prompt": prompt, "text": text, **samples.about}, ensure_ascii=False)
            for prompt, text in zip(samples.prompts, samples.texts, strict=True)
        ]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    if written.points:
        data = written.data["entropy"].value, written.data["gen_ppl"].value
        draw(written.points, data, folder / "samples" / f"{task.name}-frontier", task.name)
