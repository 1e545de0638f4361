"""Processes of one machine: whoever is killed, the same command does what is left."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from dihal_bench.cli.main import main
from dihal_bench.core.errors import UserError
from dihal_bench.runs.executors.local import LocalExecutor
from dihal_bench.training import phases

from ..conftest import SETTINGS, Tiny
from .errands import SHORT, Gate, errand, inputs_of, records, wait_for

pytestmark = pytest.mark.alone


@pytest.mark.usefixtures("registries")
def test_a_killed_worker_costs_its_own_errand_only(tiny: Tiny, tmp_path, monkeypatch) -> None:
    gate = Gate(tmp_path)
    errands = [
        errand(tiny, tmp_path, "waiting", include=[str(gate.code)]),
        errand(tiny, tmp_path, "embedding"),
    ]
    first = [errands[1]]
    killer = threading.Thread(
        target=gate.kill, kwargs={"after": lambda: errands[1].done, "opened": True}
    )
    killer.start()
    executor, inputs = LocalExecutor(workers=2), inputs_of(errands)
    with pytest.raises(UserError, match="a process of a run was killed"):
        executor.work_off(errands, tmp_path, inputs)
    killer.join()
    before = records(errands)
    assert list(before) == list(records(first))
    executor.work_off(errands, tmp_path, inputs)
    assert all(own.done for own in errands)
    assert records(first) == before
    assert len(set(gate.pids())) == 2  # the one that was killed, and this one
    monkeypatch.setattr(phases, "train", None)
    executor.work_off(errands, tmp_path, inputs)


@pytest.mark.usefixtures("registries")
def test_workers_end_with_the_command_and_it_goes_on(tiny: Tiny, tmp_path, capsys) -> None:
    gate, out = Gate(tmp_path), tmp_path / "it"
    sets = [f"--set={key}={value}" for key, value in {**SETTINGS, **SHORT}.items()]
    words = ["compare", "--backbone", str(tiny.backbone), "--corpus", str(tiny.corpus), *sets]
    words += ["--interfaces", "embedding,waiting", "--blocks", "scratch", "--workers", "2"]
    words += ["--include", str(gate.code), "--set", "controls=mean", "--out", str(out)]
    command = subprocess.Popen([sys.executable, "-m", "dihal_bench", *words])
    wait_for(lambda: bool(gate.pids()) and len(list(out.glob("runs/*/record.json"))) == 1)
    (record,) = out.glob("runs/*/record.json")
    before = record.stat().st_mtime_ns
    command.send_signal(signal.SIGKILL)
    command.wait()
    wait_for(lambda: not _alive(gate.pids()[0]), seconds=10)
    gate.open()
    assert main([*words[:-6], "--workers", "1", *words[-6:]]) == 0, capsys.readouterr().err
    assert record.stat().st_mtime_ns == before
    assert len(list(out.glob("runs/*/record.json"))) == 2


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_keeps_nobody_else_from_it_and_threads_are_shared_out(
    workers: int, tiny: Tiny, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # what a process would begin with
    errands = [
        errand(tiny, tmp_path, "hidden", layer="9"),
        errand(tiny, tmp_path, "embedding"),
        errand(tiny, tmp_path, "hidden", layer="8"),
    ]
    executor = LocalExecutor(workers=workers)
    with pytest.raises(UserError, match="2 of 3 jobs failed, the first: hidden seed 0: --layer"):
        executor.work_off(errands, tmp_path, inputs_of(errands))
    assert [own.done for own in errands] == [False, True, False]
    record = json.loads((errands[1].runs[0].folder / "record.json").read_text())
    assert record["environment"]["threads"] == 2 // workers
    assert os.environ["OMP_NUM_THREADS"] == "2"
