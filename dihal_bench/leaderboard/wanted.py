"""Rows that a leaderboard lacks: a list in the order in which they are wanted, and their making."""

from __future__ import annotations

import time
import tomllib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from dihal_bench.config.command_line import run_command
from dihal_bench.config.identity import identity, version_3_digest
from dihal_bench.config.resolve import resolve
from dihal_bench.config.schema import flatten
from dihal_bench.core.deadline import OutOfTime, until
from dihal_bench.core.errors import UserError
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.cost_estimate import Rater, checked, cost_of
from dihal_bench.runs.execute import run
from dihal_bench.runs.folder import folder_in
from dihal_bench.runs.inputs import Inputs
from dihal_bench.runs.work_unit import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.leaderboard.store import Store

_KEYS = {"name", "seeds", "keys"}  # of an entry
_RESERVE = 30.0  # seconds in which what was begun is put away, at most a tenth of the time


class State(StrEnum):
    """How far a wanted row is."""

    LISTED = "on the board"
    MADE = "made, to be added"
    BEGUN = "begun"
    WANTED = "wanted"


@dataclass(frozen=True)
class WantedRun:
    """One run of a wanted row.

    Attributes:
        run: its configuration, folder and title.
        state: how far it is.
    """

    run: Run
    state: State

    @property
    def left(self) -> bool:
        """Whether there is something to do."""
        return self.state in (State.BEGUN, State.WANTED)


def read_wanted(path: Path, store: Store, out: Path, *, device: str) -> list[WantedRun]:
    """Return the runs of a list, in its order, each with how far it is.

    Args:
        path: a TOML file: per ``[[row]]`` a ``name``, ``seeds``, and the configuration's ``keys``.
        store: records of the board.
        out: where runs are made.
        device: that they are made on, which is no part of what they are.

    Raises:
        UserError: the file cannot be read, or has what is no configuration.
    """
    runs = [
        Run(config=config, folder=folder_in(out, config), title=f"{name}, seed {config.seed}")
        for name, seed, keys in _entries(path)
        for config in [resolve(values={**keys, "seed": seed, "device": device})]
    ]
    return [WantedRun(own, _state(own, store)) for own in runs]


def _entries(path: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--wanted {path}: {error.strerror}; give a TOML file.") from error
    except ValueError as error:
        raise UserError(f"--wanted {path}: not valid TOML ({error}).") from error
    rows = content.pop("row", [])
    if content or not isinstance(rows, list):
        raise UserError(f"--wanted {path}: give it [[row]] tables, and nothing else.")
    for number, row in enumerate(rows, 1):
        whole = isinstance(row, dict) and row.keys() == _KEYS
        if not (whole and isinstance(row["seeds"], list) and isinstance(row["keys"], dict)):
            raise UserError(
                f"--wanted {path}: row {number} needs a name, a list of seeds, and keys."
            )
        for seed in row["seeds"]:
            yield str(row["name"]), seed, flatten(row["keys"])


def _state(own: Run, store: Store) -> State:
    config = own.config
    before = version_3_digest(replace(config, device="cpu").keys(), ())
    names = (f"{config.interface}-{digest}" for digest in (identity(config).training, before))
    if any(True for name in names for _ in store.of_run(name)):
        return State.LISTED
    if own.done:
        return State.MADE
    return State.BEGUN if own.folder.exists() else State.WANTED


def estimates(wanted: Iterable[WantedRun], say: Callable[[str], None]) -> Mapping[Path, float]:
    """Return folder -> seconds that a run would take from its beginning on this machine.

    What cannot be run here, as for want of its backbone, is said and left out.
    """
    jobs: dict[Path, RunContext] = {}
    for own in wanted:
        config = own.run.config
        near = next(reversed(jobs.values()), None)
        try:
            job = near or RunContext(config, own.run.folder, say)
            jobs[own.run.folder] = checked(config, job)
        except UserError as error:
            say(f"{own.run.title}: {error}")
    rater = Rater(jobs.values())
    return {folder: cost_of([[job]], rater).work.seconds for folder, job in jobs.items()}


@dataclass(frozen=True)
class RunsMade:
    """What came of it.

    Attributes:
        made: folders of runs that are complete now and were not before.
        stopped: title of the run that the time ended in; empty: none was under way.
        failed: a sentence for each run that cannot be made here.
    """

    made: list[Path]
    stopped: str
    failed: list[str]


def make(
    wanted: Sequence[WantedRun], *, shared: Path, minutes: float, say: Callable[[str], None]
) -> RunsMade:
    """Make what is left, one run after another, until the time is over.

    A run that the time ends in continues where it stopped when this is called again: training from
    its last step, anything else from the last row that was finished.

    Args:
        wanted: in order.
        shared: where lies what several runs have in common.
        minutes: from now on.
        say: takes one-line messages for a person.
    """
    end = time.monotonic() + 60 * minutes - min(_RESERVE, 6 * minutes)
    outcome = RunsMade([], "", [])
    inputs: Inputs | None = None
    for own in (each.run for each in wanted if each.left):
        if time.monotonic() >= end:
            break
        say(own.title)
        try:
            if inputs is None or not inputs.serve(own.config):
                inputs = Inputs(own.config, say)
            command = run_command(own.config.to_dict())
            with until(end):
                run(
                    own.config,
                    out=own.folder,
                    shared=shared,
                    inputs=inputs,
                    command=command,
                    say=say,
                )
        except OutOfTime:
            return replace(outcome, stopped=own.title)
        except UserError as error:
            outcome.failed.append(f"{own.title}: {error}")
        else:
            outcome.made.append(own.folder)
    return outcome
