"""Do a run, or what is left of it: locate, train, gate, score, record."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from dihal_bench.config.identity import evaluated_as
from dihal_bench.core import distributed
from dihal_bench.results.record import Record
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.folder import claimed, run_folder
from dihal_bench.runs.record_builder import RecordBuilder
from dihal_bench.training.shares import check_shares

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dihal_bench.config.schema import RunConfig
    from dihal_bench.geometry.locate import Located
    from dihal_bench.runs.inputs import Inputs


def run(
    config: RunConfig,
    *,
    out: Path | None = None,
    shared: Path | None = None,
    inputs: Inputs | None = None,
    command: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[Located], None] = lambda located: None,
) -> Record:
    """Do the whole job, or what is left of it.

    A run that is complete and was scored with other settings is scored anew; nothing is trained.

    Args:
        config: everything that decides the result.
        out: the run's folder; by default the one that ``run_folder`` says.
        shared: where lies what several runs have in common; by default in ``out``.
        inputs: backbone and text, if they are loaded already.
        command: the command line, for the record.
        say: takes one-line messages for a person.
        show: is called with the located layers, if any, before anything is trained.

    Returns:
        The record, read from the folder if the run was complete already.

    Raises:
        UserError: the configuration cannot be run, or the folder holds another run.
    """
    check_shares(config.train)
    folder = run_folder(config, out)
    job = RunContext(config, folder, say, shared=shared, inputs=inputs)
    with claimed(folder, config):
        done = folder / "record.json"
        earlier = Record.read(done) if distributed.on_main(done.exists) else None
        if earlier is not None and evaluated_as(earlier.data["config"], config):
            say(f"already complete: {done}")
            return earlier
        job.check_span()
        job.inputs.check(folder)
        if earlier is not None:
            say(f"trained already: {done} was scored with other settings, and is scored anew")
            job.finished = earlier
        elif job.locates:
            show(job.located)
        record = RecordBuilder(job).record(command or shlex.join(sys.argv))
        record.write(done)
        return record
