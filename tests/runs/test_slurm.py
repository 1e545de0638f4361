"""Jobs of submitit: as processes of this machine, and on a Slurm cluster where there is one."""

import os
import subprocess
import threading
from pathlib import Path

import pytest

from dihal_bench.cli.main import main
from dihal_bench.core.errors import UserError
from dihal_bench.runs.executors import slurm
from dihal_bench.runs.executors.slurm import SlurmExecutor

from ..conftest import Tiny
from . import slurmd
from .errands import Gate, errand, inputs_of, records, wait_for

pytestmark = pytest.mark.alone

pytest.importorskip("submitit", reason="submitit is missing: pip install 'dihal-bench[slurm]'")


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "_POLL_SECONDS", 0.3)
    monkeypatch.setattr(slurm, "_MISSES", 3)


def test_local_jobs_and_one_that_fails(tiny: Tiny, tmp_path, capsys) -> None:
    errands = [errand(tiny, tmp_path, "hidden", layer="9"), errand(tiny, tmp_path, "embedding")]
    executor, inputs = SlurmExecutor(cluster="local", cpus=1), inputs_of(errands)
    with pytest.raises(UserError) as caught:
        executor.work_off(errands, tmp_path, inputs)
    assert str(caught.value).startswith("hidden seed 0: --layer 9 is layer 9, outside")
    assert "\n" not in str(caught.value)
    assert [own.done for own in errands] == [False, True]
    before = records(errands)
    executor.work_off(errands[1:], tmp_path, inputs)
    assert records(errands) == before
    logs = [file.read_text() for file in (tmp_path / "jobs").glob("*_0_log.err")]
    assert sum("training embedding: diffusion" in log for log in logs) == 1


def test_a_job_that_says_nothing_is_told_too(tiny: Tiny, tmp_path, monkeypatch) -> None:
    import submitit

    class Job:
        job_id = "7_0"
        paths = submitit.core.utils.JobPaths(tmp_path, "7_0")

    one = errand(tiny, tmp_path, "embedding")
    with pytest.raises(
        UserError, match=r"embedding seed 0: its job ended before it was done \(log"
    ):
        slurm._wait([(one, Job())], lambda jobs: {"7_0"})


def test_without_slurm_it_is_refused_at_once(tiny: Tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch here; start it on a machine of a"):
        SlurmExecutor().check()


def test_jobs_that_are_refused_leave_nothing(tiny: Tiny, tmp_path, monkeypatch, capsys) -> None:
    for name in ("sbatch", "srun", "squeue"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\necho 'sbatch: error: no such partition' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    words = ["sweep", *tiny.flags(), "--layers", "1", "--executor", "slurm"]
    assert main([*words, "--out", str(tmp_path / "it")]) == 2
    assert "the jobs were refused (no such partition)" in capsys.readouterr().err
    assert not (tmp_path / "it").exists()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if reason := slurmd.missing():
        pytest.skip(f"no Slurm: {reason}")
    (tmp_path / "slurm").mkdir()
    with slurmd.running(tmp_path / "slurm") as config:
        monkeypatch.setenv("SLURM_CONF", str(config))
        yield


@pytest.mark.usefixtures("registries", "cluster")
def test_an_array_of_which_one_is_requeued_and_one_fails(tiny: Tiny, tmp_path, capsys) -> None:
    gate = Gate(tmp_path)
    errands = [
        errand(tiny, tmp_path, "waiting", include=[str(gate.code)]),
        errand(tiny, tmp_path, "embedding"),
        errand(tiny, tmp_path, "hidden", layer="9"),
    ]

    def requeue() -> None:
        wait_for(lambda: bool(gate.pids()) and errands[1].done)
        ask = ["squeue", "--noheader", "--array", "--states=running", "--format=%i"]
        found = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()
        subprocess.run(["scontrol", "requeue", next(i for i in found if i.endswith("_0"))])
        gate.open()

    other = threading.Thread(target=requeue)
    other.start()
    executor = SlurmExecutor(workers=2, minutes=30, slurm=["comment=a test", "overcommit"])
    with pytest.raises(UserError) as caught:
        executor.work_off(errands, tmp_path, inputs_of(errands))
    other.join()
    assert str(caught.value).startswith("hidden seed 0: --layer 9 is layer 9, outside")
    assert [own.done for own in errands] == [True, True, False]
    assert len(set(gate.pids())) == 2
    with pytest.raises(UserError, match="refused \\(invalid partition specified: nowhere; Batch"):
        SlurmExecutor(slurm=["partition=nowhere"]).work_off(errands, tmp_path, inputs_of(errands))
