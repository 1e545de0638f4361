"""What an executor is given: runs that one process does, and that a plain file can describe.

Nothing is returned: a run is done when its folder holds a valid record. Whoever is killed is sent
again, and finds what was finished.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.errors import UserError
from dihal_bench.files import short_hash, write_json
from dihal_bench.inputs import Inputs
from dihal_bench.job import Job, run
from dihal_bench.registry import include
from dihal_bench.resolve import flatten, resolve
from dihal_bench.training.phases import train_together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dihal_bench.config import RunConfig


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
        """Whether it has its record."""
        return (self.folder / "record.json").exists()


@dataclass(frozen=True, kw_only=True)
class Errand:
    """Runs of one process; where there are several, they are trained on one pass of the teacher.

    Attributes:
        runs: of one seed, text and budget where they are several.
        shared: folder of what runs have in common.
        command: the command line, for the records.
    """

    runs: tuple[Run, ...]
    shared: Path
    command: str

    @property
    def done(self) -> bool:
        """Whether all of them are."""
        return all(run.done for run in self.runs)

    @property
    def title(self) -> str:
        """For people."""
        return " and ".join(run.title for run in self.runs)

    def write(self, folder: Path) -> Path:
        """Write it to a file that another machine can read; return its path."""
        content = {
            "runs": [
                {"config": r.config.to_dict(), "folder": str(r.folder.resolve()), "title": r.title}
                for r in self.runs
            ],
            "shared": str(self.shared.resolve()),
            "command": self.command,
        }
        path = folder / f"{short_hash(content)}.json"
        write_json(path, content)
        return path

    @classmethod
    def read(cls, path: Path) -> Errand:
        """Read what ``write`` wrote.

        Raises:
            UserError: the file cannot be read.
        """
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            for file in content["runs"][0]["config"]["include"]:
                include(file)
            runs = tuple(
                Run(
                    config=resolve(values=flatten(own["config"])),
                    folder=Path(own["folder"]),
                    title=own["title"],
                )
                for own in content["runs"]
            )
            return cls(runs=runs, shared=Path(content["shared"]), command=content["command"])
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise UserError(
                f"{path} is no errand of a sweep ({error}); issue the sweep's command again."
            ) from error

    def perform(self, say: Callable[[str], None], inputs: Inputs | None = None) -> None:
        """Do what is not done yet.

        Args:
            say: takes one-line messages for a person.
            inputs: backbone and text, if they are loaded already.
        """
        todo = [one for one in self.runs if not one.done]
        if not todo:
            return
        inputs = inputs or Inputs(todo[0].config, say)
        if len(todo) > 1:
            self._train_together(todo, inputs, say)
        for one in todo:
            say(one.title)
            run(
                one.config,
                out=one.folder,
                shared=self.shared,
                inputs=inputs,
                command=self.command,
                say=say,
            )

    def _train_together(
        self, todo: Sequence[Run], inputs: Inputs, say: Callable[[str], None]
    ) -> None:
        """Train the phases of all runs side by side; each run finds its own done."""
        jobs = [Job(r.config, r.folder, say, shared=self.shared, inputs=inputs) for r in todo]
        jobs[0].collect([span for job in jobs for span in job.ends])
        train_together([(job.trainer, job.fitted()) for job in jobs])
