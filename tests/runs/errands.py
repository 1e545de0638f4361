"""Small errands, one of which waits until it is let go, so that it can be killed half-way."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from dihal_bench.config.identity import identity
from dihal_bench.config.resolve import resolve
from dihal_bench.runs.inputs import Inputs
from dihal_bench.runs.work_unit import Run, WorkUnit

from ..conftest import SETTINGS, Tiny

SHORT = {
    "budget.diffusion_tokens": 256,
    "score.tokens": 256,
    "score.oracle_tokens": 64,
    "score.steps": "2",
    "train.batch": 2,
}
WAITING = '''
import os
import time
from pathlib import Path

from dihal_bench.baselines.embedding import Embedding
from dihal_bench.core.registry import INTERFACES

GATE = Path({gate!r})


@INTERFACES.register("waiting")
class Waiting(Embedding):
    """Waits as long as there is a file."""

    def fit(self, statistics):
        super().fit(statistics)
        GATE.with_suffix(".pids").open("a").write(f"{{os.getpid()}}\\n")
        while GATE.exists():
            time.sleep(0.05)
'''


class Gate:
    """What an errand of the interface ``waiting`` waits at."""

    def __init__(self, folder: Path):
        self.file, self.code = folder / "gate", folder / "waiting.py"
        self.code.write_text(WAITING.format(gate=str(self.file)), encoding="utf-8")
        self.close()

    def close(self) -> None:
        self.file.touch()

    def open(self) -> None:
        self.file.unlink()

    def pids(self) -> list[int]:
        """Of the processes that came here, in order."""
        file = self.file.with_suffix(".pids")
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def kill(self, *, after: Callable[[], bool] = lambda: True, opened: bool = False) -> None:
        """Kill the process that waits, once there is one and ``after`` holds."""
        try:
            wait_for(lambda: bool(self.pids()) and after())
        except AssertionError:
            self.open()  # or who waits there would do so for ever
            raise
        if opened:
            self.open()  # for the next one
        os.kill(self.pids()[0], signal.SIGKILL)


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def config_for(tiny: Tiny, interface: str, **values: object):
    keys = {name.replace("__", "."): value for name, value in values.items()}
    places = {"backbone": str(tiny.backbone), "corpus": str(tiny.corpus)}
    return resolve(values={**SETTINGS, **SHORT, **places, "interface": interface, **keys})


def errand(tiny: Tiny, out: Path, interface: str, **values: object) -> WorkUnit:
    config = config_for(tiny, interface, **{"controls": [], **values})
    title = f"{interface} seed {config.seed}"
    one = Run(config=config, folder=out / "runs" / identity(config).training, title=title)
    return WorkUnit(runs=(one,), shared=out / "shared", command="dihal-bench test")


def inputs_of(errands: list[WorkUnit]) -> Inputs:
    return Inputs(errands[0].runs[0].config, lambda text: None)


def records(errands: list[WorkUnit]) -> dict[Path, int]:
    """When each record that is there was written, in nanoseconds."""
    files = [one.folder / "record.json" for errand in errands for one in errand.runs]
    return {file: file.stat().st_mtime_ns for file in files if file.exists()}
