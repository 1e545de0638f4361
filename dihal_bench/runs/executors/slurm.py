"""Errands as an array of jobs on a Slurm cluster, through submitit.

What is submitted is a command line, which a requeued job simply starts again: a pickled function
would tie a job to the process that sent it. Jobs outlive the command; issued again, it waits for
what is under way.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.files import undone_on_error
from dihal_bench.core.progress import progress, say
from dihal_bench.core.registry import EXECUTORS
from dihal_bench.runs.executor import Executor, WorkOutcome, at_least, option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dihal_bench.runs.inputs import Inputs
    from dihal_bench.runs.work_unit import WorkUnit

_POLL_SECONDS = 2.0
_MISSES = 30  # polls without a job or its record until it has failed: new files may show up late
_TIMEOUTS = 20  # times that a job which reached --minutes goes on in the queue
_REFUSED = "sbatch: error: "
_ERROR = "dihal-bench: error: "  # what the command line's own sentence begins with


@EXECUTORS.register("slurm")
@dataclass(frozen=True, kw_only=True)
class SlurmExecutor(Executor):
    """A Slurm cluster whose nodes see the same folders.

    Attributes:
        workers: jobs of the array that run at a time.
        cpus: of each job, which has as many threads.
        gpus: of each job; whole ones.
        minutes: after which a job is stopped, queued again, and goes on from its checkpoint.
        slurm: further options of sbatch, as KEY=VALUE, or KEY for those without a value.
        cluster: of submitit: "slurm", or "local" for processes of this machine.
    """

    workers: int = option(256, "jobs that run at a time (default: 256)", parse=int)
    cpus: int = option(1, "CPUs and threads of each job (default: 1)", parse=int)
    gpus: float = option(0.0, "GPUs of each job (default: 0)", parse=float)
    minutes: int = option(
        240, "of a job, which then queues again and goes on (default: 240)", parse=int
    )
    slurm: Sequence[str] = option(
        (),
        "an option of sbatch, such as partition=gpu (repeatable)",
        action="append",
        metavar="KEY=VALUE",
    )
    cluster: str = "slurm"

    def __post_init__(self) -> None:
        at_least(1, workers=self.workers, cpus=self.cpus, minutes=self.minutes)
        at_least(0, gpus=self.gpus)
        if not float(self.gpus).is_integer():
            raise UserError(f"--gpus {self.gpus:g}: a job of Slurm has whole GPUs; give 0, 1, ...")
        for item in self.slurm:
            if not item.partition("=")[0].strip("- "):
                raise UserError(f"--slurm {item}: write it as KEY=VALUE, such as partition=gpu.")

    def check(self) -> None:
        """Refuse a machine without submitit or Slurm."""
        _imported()
        missing = [name for name in _CLUSTERS[self.cluster].programs if which(name) is None]
        if missing:
            raise UserError(
                f"--executor slurm: there is no {missing[0]} here; start it on a machine of a "
                "Slurm cluster, or try --executor local."
            )

    def work_off(self, errands: Sequence[WorkUnit], folder: Path, inputs: Inputs) -> None:
        """Do what is not done; files and logs of the jobs lie in ``folder/jobs``."""
        from dihal_bench.runs.work_unit import write_work_unit

        todo = [errand for errand in errands if not errand.done]
        if not todo:
            return
        self.check()
        jobs_folder = (folder / "jobs").absolute()
        with undone_on_error(jobs_folder):
            executor = self._submitter(jobs_folder)
            commands = [self._command(write_work_unit(errand, jobs_folder)) for errand in todo]
            jobs = _submitted(executor, commands)
        say(f"slurm: jobs sent: {len(jobs)}, the first {jobs[0].job_id}; logs in {jobs_folder}")
        _wait(list(zip(todo, jobs, strict=True)), _CLUSTERS[self.cluster].ended)

    def _submitter(self, folder: Path) -> Any:
        executor = _imported().AutoExecutor(
            folder=folder, cluster=self.cluster, slurm_max_num_timeout=_TIMEOUTS
        )
        executor.update_parameters(
            name="dihal-bench",
            timeout_min=self.minutes,
            cpus_per_task=self.cpus,
            gpus_per_node=int(self.gpus) or None,
            slurm_array_parallelism=self.workers,
            slurm_additional_parameters={"requeue": True} | dict(map(_parsed, self.slurm)),
        )
        return executor

    def _command(self, file: Path) -> Any:
        from submitit.helpers import CommandFunction, DelayedSubmission

        class Command(CommandFunction):  # type: ignore[misc]
            """The same command again after a time limit: it goes on from its checkpoint."""

            def checkpoint(self) -> Any:
                return DelayedSubmission(self)

        threads = ["env", f"OMP_NUM_THREADS={self.cpus}"]
        return Command([*threads, sys.executable, "-m", "dihal_bench.cli.main", "work", str(file)])


def _submitted(executor: Any, commands: Sequence[Any]) -> list[Any]:
    try:
        with redirect_stderr(io.StringIO()), executor.batch():
            return [executor.submit(command) for command in commands]
    except Exception as error:  # submitit passes on what sbatch says in several classes
        raise UserError(
            f"--executor slurm: the jobs were refused ({_refusal(str(error))}); mend the options "
            "given by --slurm, --minutes, --cpus and --gpus."
        ) from error


def _imported() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise UserError(
            "--executor slurm needs the package submitit: pip install 'dihal-bench[slurm]'."
        ) from error
    return submitit


def _parsed(item: str) -> tuple[str, str | bool]:
    key, equals, value = item.partition("=")
    return key.strip("- "), value.strip() if equals else True


def _wait(left: list[tuple[WorkUnit, Any]], ended: Callable[[list[Any]], set[str]]) -> None:
    """Wait until every errand is done or its job has ended.

    Raises:
        UserError: some ended before they were done.
    """
    outcome, misses = WorkOutcome(len(left)), dict.fromkeys((job.job_id for _, job in left), 0)
    with progress("slurm", len(left), unit="jobs") as bar:
        while left:
            over = ended([job for _, job in left])
            still = []
            for errand, job in left:
                misses[job.job_id] += job.job_id in over
                if errand.done:
                    bar.update(1)
                elif misses[job.job_id] >= _MISSES:
                    outcome.fail(_sentence(errand, job))
                    bar.update(1)
                else:
                    still.append((errand, job))
            left = still
            if left:
                time.sleep(_POLL_SECONDS)
    outcome.close()


def _out_of_queue(jobs: list[Any]) -> set[str]:
    """Return the jobs that Slurm's queue has no longer; it is there without accounting, too."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if asked.returncode:  # the controller is busy or away
        return set()
    return {job.job_id for job in jobs} - set(asked.stdout.split())


def _finished(jobs: list[Any]) -> set[str]:
    return {job.job_id for job in jobs if job.done()}


@dataclass(frozen=True)
class _Cluster:
    """What has to be here for a cluster of submitit, and which of its jobs have ended."""

    programs: tuple[str, ...]
    ended: Callable[[list[Any]], set[str]]


_CLUSTERS = {
    "slurm": _Cluster(("sbatch", "srun", "squeue"), _out_of_queue),
    "local": _Cluster((), _finished),
}


def _sentence(errand: WorkUnit, job: Any) -> str:
    """Return why a job failed: what its command line said last, if anything."""
    path = Path(job.paths.stderr)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = [line.partition(_ERROR)[2] for line in lines if _ERROR in line]
    return said[-1] if said else f"{errand.title}: its job ended before it was done (log: {path})"


def _refusal(text: str) -> str:
    """Return sbatch's own words, else the last ones."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no reason given"]
    said = [line.removeprefix(_REFUSED) for line in lines if line.startswith(_REFUSED)]
    return "; ".join(said or lines[-1:])
