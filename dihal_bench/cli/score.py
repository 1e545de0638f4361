"""``dihal-bench score``: more scores for a finished run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.cli.common import JSON, place_flags, places, print_json
from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import say

if TYPE_CHECKING:
    import argparse

    from dihal_bench.cli.common import Verbs
    from dihal_bench.evaluation.context import Task
    from dihal_bench.results.record import Record, Score
    from dihal_bench.runs.finished import FinishedRun

_LEAST = 2  # chains
_TASKS = "comma-separated names, or paths of YAML files; see dihal-bench list"


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verbs.add_parser("score", help="score a finished run on more tasks")
    add = parser.add_argument
    add("run", type=Path, help="folder of the run")
    task_flags(parser, required=True)
    add(
        "--interfaces",
        help="who takes part (default: all of the run that are trained); where rows are compared "
        "in pairs, the run's own takes part too",
    )
    add("--steps", help="network evaluations per chain (default: the run's)")
    add("--chains", type=int, help="of the largest ensemble of rolling tasks (default: the run's)")
    add(
        "--frontier",
        nargs="?",
        const="",
        metavar="T,T,...",
        help="generated text at these temperatures too (default: 0.5 to 1.2)",
    )
    add(
        "--limit",
        type=int,
        help="at most so many documents of a task of lm-eval, samples of every row (default: all)",
    )
    add("--judge", help="bundled-judge, a folder, or a hub id (default: the task's)")
    add("--compat", help="generative perplexity as duo, bd3lms or hf-evaluate define it, besides")
    place_flags(parser)
    add("--json", action="store_true", help=JSON)
    parser.set_defaults(work=_work, parallel=True)


def task_flags(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Declare the flags that name tasks."""
    add = parser.add_argument
    add("--tasks", required=required, help=_TASKS)
    add("--tasks-dir", type=Path, action="append", default=[], help="folder of further task files")


def tasks_of(arguments: argparse.Namespace) -> list[Task]:
    """Return the tasks that the flags name.

    Raises:
        UserError: there are none, a folder is missing, or a file cannot be used.
    """
    from dihal_bench.evaluation.tasks import built_in, load_task

    for folder in arguments.tasks_dir:
        if not folder.is_dir():
            raise UserError(
                f"--tasks-dir {folder}: there is no such folder; give one of YAML files."
            )
    names = _list(arguments.tasks)
    if not names:
        raise UserError("--tasks names no task; give one, such as samples.")
    return [load_task(name, [*arguments.tasks_dir, built_in()]) for name in names]


def show_tasks(record: Record, run: FinishedRun, tasks: list[Task]) -> str:
    """Return the tables of tasks that a run was scored on."""
    order = ["teacher", *run.names]
    return "\n\n".join(_shown(record, order, task) for task in tasks)


def _work(arguments: argparse.Namespace) -> int:
    from dihal_bench.evaluation.lm_eval_task import LmEvalTask
    from dihal_bench.runs.finished import FinishedRun
    from dihal_bench.runs.rescore import rescore

    if arguments.chains is not None and arguments.chains < _LEAST:
        raise UserError(f"--chains {arguments.chains} must be a power of two, {_LEAST} or more.")
    tasks = _changed(tasks_of(arguments), arguments)
    rolling = [task for task in tasks if isinstance(task, LmEvalTask) and task.joint]
    if arguments.chains is not None and not rolling:
        raise UserError(
            f"--chains is for none of the tasks {arguments.tasks}: ensembles are of rolling tasks; "
            "leave it out (samples have a setting of their own in their task file)."
        )
    run = FinishedRun(arguments.run, say=say, **places(arguments))
    record = rescore(
        run,
        tasks,
        names=_list(arguments.interfaces),
        steps=_numbers(arguments.steps, "--steps", int),
        chains=arguments.chains or 0,
        say=say,
    )
    if arguments.json:
        print_json(record.data)
    else:
        print(show_tasks(record, run, tasks))
        print(f"record: {run.folder / 'record.json'}")
    return 0


def _changed(tasks: list[Task], arguments: argparse.Namespace) -> list[Task]:
    """Return tasks as the flags will have them; each flag is for tasks of one kind.

    Raises:
        UserError: a flag is for none of them.
    """
    from dihal_bench.evaluation.lm_eval_task import LmEvalTask
    from dihal_bench.evaluation.samples.frontier import TEMPERATURES
    from dihal_bench.evaluation.samples.task import SampleTask

    changes: dict[str, dict[type, dict[str, Any]]] = {}  # flag -> kind of task -> what it changes
    if arguments.limit is not None:
        changes["limit"] = {LmEvalTask: {"limit": arguments.limit}, SampleTask: {}}
        tasks = [_fewer(task, arguments.limit) for task in tasks]
    if arguments.frontier is not None:
        given = tuple(_numbers(arguments.frontier, "--frontier", float))
        changes["frontier"] = {SampleTask: {"temperatures": given or TEMPERATURES}}
    for name in ("judge", "compat"):
        if getattr(arguments, name) is not None:
            changes[name] = {SampleTask: {name: getattr(arguments, name)}}
    for flag, kinds in changes.items():
        if not any(type(task) in kinds for task in tasks):
            raise UserError(f"--{flag} is for none of the tasks {arguments.tasks}; leave it out.")
        tasks = [replace(task, **kinds.get(type(task), {})) for task in tasks]  # type: ignore[type-var]
    return tasks


def _fewer(task: Task, limit: int) -> Task:
    """Return a task of samples with at most so many of every row, others as they are."""
    from dihal_bench.evaluation.samples.task import SampleTask

    if not isinstance(task, SampleTask):
        return task
    return replace(task, count=min(task.count, limit or task.count))


def _list(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _numbers(text: str | None, flag: str, kind: Any) -> list[Any]:
    try:
        values = [kind(part) for part in _list(text)]
    except ValueError as error:
        raise UserError(f"{flag} {text}: give numbers, such as 1,16.") from error
    if any(not 0 < value < float("inf") for value in values):
        raise UserError(f"{flag} {text}: give numbers above 0.")
    return values


def _shown(record: Record, order: list[str], task: Task) -> str:
    from dihal_bench.evaluation.samples.task import SampleTask

    scores = [score for score in record.scores if score.task == task.name]
    if not isinstance(task, SampleTask):
        return f"{task.name}\n{_table(scores, order)}"
    from dihal_bench.evaluation.samples.frontier import Point
    from dihal_bench.reporting.samples_table import show_frontier, show_samples
    from dihal_bench.results.metrics import ENTROPY

    audit = record.data["audits"][task.name]
    text = f"{task.name}\n{show_samples(scores, audit, order)}"
    points = [Point(**point) for point in audit["frontier"]]
    if points:
        text += "\n\n" + show_frontier(scores, points, audit["data"][ENTROPY.key]["value"])
    return text


def _table(scores: list[Score], order: list[str]) -> str:
    """Return the teacher-forced table, or other metrics row by row."""
    from dihal_bench.reporting.run_table import run_table, task_table
    from dihal_bench.reporting.writers import text
    from dihal_bench.results.metrics import NLL, base_name

    teacher_forced = any(base_name(score.metric) == NLL.key for score in scores)
    return text((run_table if teacher_forced else task_table)(scores, order))
