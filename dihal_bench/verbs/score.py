"""``dihal-bench score``: more scores for a finished run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.errors import UserError
from dihal_bench.progress import say
from dihal_bench.verbs.common import JSON, print_json

if TYPE_CHECKING:
    import argparse

    from dihal_bench.records import Record, Score
    from dihal_bench.scoring.bench import Task
    from dihal_bench.verbs.common import Verbs


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("score", help="score a finished run on more tasks")
    add = parser.add_argument
    add("run", type=Path, help="folder of the run")
    add("--tasks", required=True, help="comma-separated names, or paths of YAML files")
    add("--tasks-dir", type=Path, action="append", default=[], help="folder of further task files")
    add(
        "--interfaces", default="", help="who takes part (default: all of the run that are trained)"
    )
    add("--steps", default="", help="network evaluations per chain (default: the run's)")
    add(
        "--frontier",
        nargs="?",
        const="",
        metavar="T,T,...",
        help="generated text at these temperatures too (default: 0.5 to 1.2)",
    )
    add("--limit", type=int, help="documents of a task, at most (default: all)")
    add("--judge", help="bundled-judge, a folder, or a hub id (default: the task's)")
    add("--compat", help="generative perplexity as duo, bd3lms or hf-evaluate define it, besides")
    add("--device", help="torch device (default: that of the run)")
    add("--json", action="store_true", help=JSON)
    parser.set_defaults(work=_work)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.rescore import rescore
    from dihal_bench.scoring.tasks import built_in, load_task
    from dihal_bench.trained import TrainedRun

    folders = [*arguments.tasks_dir, built_in()]
    for folder in arguments.tasks_dir:
        if not folder.is_dir():
            raise UserError(
                f"--tasks-dir {folder}: there is no such folder; give one of YAML files."
            )
    names = [part.strip() for part in arguments.tasks.split(",") if part.strip()]
    if not names:
        raise UserError("--tasks names no task; give one, such as samples.")
    tasks = [_changed(load_task(name, folders), arguments) for name in names]
    run = TrainedRun(arguments.run, device=arguments.device, say=say)
    record = rescore(
        run,
        tasks,
        names=[part.strip() for part in arguments.interfaces.split(",") if part.strip()],
        steps=_numbers(arguments.steps, "--steps", int),
        say=say,
    )
    if arguments.json:
        print_json(record.data)
    else:
        print("\n\n".join(_shown(record, run.names, task) for task in tasks))
        print(f"record: {run.folder / 'record.json'}")
    return 0


def _changed(task: Task, arguments: argparse.Namespace) -> Task:
    """Return the task as the flags will have it; each is for one kind of task."""
    from dihal_bench.scoring.harness import HarnessTask
    from dihal_bench.scoring.samples.frontier import TEMPERATURES

    if isinstance(task, HarnessTask):
        return replace(task, limit=arguments.limit or 0)
    from dihal_bench.scoring.samples.task import SampleTask

    assert isinstance(task, SampleTask)
    changes: dict[str, Any] = {}
    if arguments.frontier is not None:
        given = tuple(_numbers(arguments.frontier, "--frontier", float))
        changes["temperatures"] = given or TEMPERATURES
    if arguments.judge:
        changes["judge"] = arguments.judge
    if arguments.compat:
        changes["compat"] = arguments.compat
    return replace(task, **changes)


def _numbers(text: str, flag: str, kind: Any) -> list[Any]:
    try:
        values = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UserError(f"{flag} {text}: give numbers, such as 1,16.") from error
    if any(not 0 < value < float("inf") for value in values):
        raise UserError(f"{flag} {text}: give numbers above 0.")
    return values


def _shown(record: Record, names: list[str], task: Task) -> str:
    from dihal_bench.scoring.samples.task import SampleTask

    scores = [score for score in record.scores if score.task == task.name]
    order = ["teacher", *names]
    if not isinstance(task, SampleTask):
        return f"{task.name}\n{_table(scores, order)}"
    from dihal_bench.scoring.samples.frontier import Point
    from dihal_bench.scoring.samples.show import show_frontier, show_samples

    audit = record.data["audits"][task.name]
    text = show_samples(scores, audit, order)
    points = [Point(**point) for point in audit["frontier"]]
    if points:
        text += "\n\n" + show_frontier(points, audit["data"]["entropy"]["value"])
    return text


def _table(scores: list[Score], order: list[str]) -> str:
    """Return the teacher-forced table, or lm-eval's metrics row by row."""
    from dihal_bench.scoring.render import render, render_plain

    teacher_forced = any(score.metric.endswith("nll") for score in scores)
    return render(scores, order) if teacher_forced else render_plain(scores, order)
