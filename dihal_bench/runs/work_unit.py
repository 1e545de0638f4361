"""What an executor is given: runs that one process does, and that a plain file can describe.

Nothing is returned: a run is done when its folder holds its record. Whoever is killed is sent
again, and finds what was finished.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench import __version__
from dihal_bench.config.identity import evaluated_as, identity
from dihal_bench.config.resolve import kept
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import lock, short_hash, write_json
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.execute import run
from dihal_bench.runs.inputs import Inputs
from dihal_bench.training.phases import train_together

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dihal_bench.config.schema import RunConfig


_RECORD = "record.json"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        config: of the run.
        folder: where it is kept.
        title: for people.
    """

    config: RunConfig
    folder: Path
    title: str

    @property
    def done(self) -> bool:
        """Whether it has its record, scored as its configuration says."""
        path = self.folder / _RECORD
        return path.exists() and evaluated_as(_config(path), self.config)

    @property
    def trained(self) -> bool:
        """Whether it has a record, however it was scored."""
        return (self.folder / _RECORD).exists()


@dataclass(frozen=True, kw_only=True)
class WorkUnit:
    """Runs of one process; where there are several, they are trained on one pass of the teacher.

    Attributes:
        runs: of one text, optimiser and seed where they are several.
        shared: folder of what runs have in common.
        command: the command line, for the records.
    """

    runs: tuple[Run, ...]
    shared: Path
    command: str

    @property
    def done(self) -> bool:
        """Whether all of its runs are."""
        return all(one.done for one in self.runs)

    @property
    def title(self) -> str:
        """For people."""
        return " and ".join(one.title for one in self.runs)

    def perform(self, say: Callable[[str], None], inputs: Inputs | None = None) -> None:
        """Do what is not done yet; a run that fails does not keep others from being done.

        Args:
            say: takes one-line messages for a person.
            inputs: backbone and text, if they are loaded already.

        Raises:
            UserError: runs cannot be done.
        """
        todo = [one for one in self.runs if not one.done]
        if not todo:
            return
        if inputs is None or not inputs.serve(todo[0].config):
            inputs = Inputs(todo[0].config, say)
        untrained = [one for one in todo if not one.trained]
        if len(untrained) > 1:
            self._train(untrained, inputs, say)
        failed = [sentence for one in todo if (sentence := self._finish(one, inputs, say))]
        if len(failed) > 1:
            raise UserError(f"{len(failed)} of {len(todo)} runs failed, the first: {failed[0]}")
        if failed:
            raise UserError(failed[0])

    def _train(self, todo: Sequence[Run], inputs: Inputs, say: Callable[[str], None]) -> None:
        """Train runs side by side; each finds its phases done when its turn comes."""
        jobs = [
            RunContext(r.config, r.folder, say, shared=self.shared, inputs=inputs) for r in todo
        ]
        try:
            for job in jobs:
                job.check_span()
            jobs[0].collect([ends for job in jobs for ends in job.ends])
            train_together([(job.trainer, job.fitted()) for job in jobs])
        except UserError as error:
            say(f"{error} The runs go on one by one, so that the others are done.")

    def _finish(self, one: Run, inputs: Inputs, say: Callable[[str], None]) -> str | None:
        """Do what is left of a run; return why it failed, if it did."""
        try:
            run(
                one.config,
                out=one.folder,
                shared=self.shared,
                inputs=inputs,
                command=self.command,
                say=say,
            )
        except UserError as error:
            return f"{one.title}: {error}"
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values. Paths that are relative stay so."""
        runs = [
            {
                "config": own.config.to_dict(),
                "identity": identity(own.config).evaluation,
                "folder": str(own.folder),
                "title": own.title,
            }
            for own in self.runs
        ]
        return {"runs": runs, "shared": str(self.shared), "command": self.command}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> WorkUnit:
        """Make it from what ``to_dict`` returned; files of ``--include`` are run.

        Raises:
            UserError: an included file has changed since.
            LookupError, TypeError, ValueError: the values are no errand.
        """
        runs = []
        for own in content["runs"]:
            config, title = kept(dict(own["config"])), str(own["title"])
            if identity(config).evaluation != own["identity"]:
                raise UserError(
                    f"{title}: an included file has changed since this was planned; issue the "
                    "command again."
                )
            runs.append(Run(config=config, folder=Path(own["folder"]), title=title))
        if not runs:
            raise ValueError("no runs")
        return cls(runs=tuple(runs), shared=Path(content["shared"]), command=content["command"])


def _config(path: Path) -> dict[str, Any]:
    """Return the configuration in a record, whose other fields are of no interest here.

    Raises:
        UserError: the file is no record.
    """
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["config"]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no record ({error}); restore it, or delete it.") from error
    return config


def write_work_unit(errand: WorkUnit, folder: Path) -> Path:
    """Write an errand to a file that another machine can read; return the file's full path.

    Raises:
        UserError: the folder cannot be written.
    """
    content = errand.to_dict()
    whence = {"version": __version__, "directory": str(Path.cwd())}
    path = folder.absolute() / f"{short_hash(content)}.json"
    write_json(path, content | whence)
    return path


def perform_file(path: Path, say: Callable[[str], None]) -> None:
    """Do the errand of a file, from the directory that it was sent from.

    A second process that is given the file waits until the first has ended: one that outlived the
    command which sent it is not done twice.

    Args:
        path: what ``write_work_unit`` returned.
        say: takes one-line messages for a person.

    Raises:
        UserError: the file is no errand, is of another version, or names folders that are not here;
            or a run cannot be done.
    """
    path = path.absolute()
    content = _read(path)
    with contextlib.ExitStack() as stack:
        _enter(stack, content["directory"])
        if not stack.enter_context(lock(path, wait=False)):
            say("another process is at this job; waiting for it")
            stack.enter_context(lock(path, wait=True))
        try:
            errand = WorkUnit.from_dict(content)
        except (LookupError, TypeError, ValueError) as error:
            raise _no_errand(path, error) from error
        say(errand.title)
        errand.perform(say)


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, _ = content["version"], content["directory"]
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise _no_errand(path, error) from error
    if version != __version__:
        raise UserError(
            f"{path} was written by dihal-bench {version}, and this is {__version__}; install the "
            "same version on all machines."
        )
    return content


def _enter(stack: contextlib.ExitStack, directory: str) -> None:
    try:
        stack.enter_context(contextlib.chdir(directory))
    except (OSError, TypeError) as error:
        raise UserError(
            f"the working directory {directory} is not found here; it and the run's folders must "
            "be seen by all machines."
        ) from error


def _no_errand(path: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return UserError(
        f"{path} is not a job file ({reason}); compare and sweep write them, issue their command "
        "again."
    )
