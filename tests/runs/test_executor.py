"""An executor is chosen by name, and takes its own options only."""

import argparse
import subprocess
import sys

import pytest

from dihal_bench.cli.main import main
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import EXECUTORS
from dihal_bench.runs.executor import WorkOutcome, execution_flags, executor_of
from dihal_bench.runs.executors.local import LocalExecutor
from dihal_bench.runs.executors.ray import RayExecutor
from dihal_bench.runs.executors.slurm import SlurmExecutor

from ..conftest import Tiny


def chosen(*words: str):
    parser = argparse.ArgumentParser()
    execution_flags(parser)
    return executor_of(parser.parse_args(words))


def test_flags_make_executors() -> None:
    assert chosen() == LocalExecutor(workers=None)
    assert chosen("--workers", "3") == LocalExecutor(workers=3)
    assert chosen("--executor", "ray") == RayExecutor(address="auto", cpus=1, gpus=0.0)
    words = ["--executor", "ray", "--address", "ray://a:1", "--cpus", "2", "--gpus", "0.5"]
    assert chosen(*words) == RayExecutor(address="ray://a:1", cpus=2, gpus=0.5)
    words = ["--executor", "slurm", "--workers", "4", "--gpus", "1", "--minutes", "9"]
    words += ["--slurm", "partition=gpu", "--slurm", "exclusive"]
    assert chosen(*words) == SlurmExecutor(
        workers=4, gpus=1.0, minutes=9, slurm=["partition=gpu", "exclusive"]
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--executor", "lokal"], "no executor called 'lokal'; did you mean 'local'?"),
        (["--address", "auto"], "--address auto: --executor local has no such option"),
        (["--gpus", "2"], "--gpus 2: --executor local has no such option"),
        (["--slurm", "a=b"], "--slurm a=b: --executor local has no such option"),
        (["--executor", "ray", "--workers", "2"], "choose --executor local or slurm"),
        (["--workers", "0"], "--workers 0 must be 1 or more"),
        (["--executor", "ray", "--gpus", "-1"], "--gpus -1 must be 0 or more"),
        (["--executor", "ray", "--gpus", "nan"], "--gpus nan must be 0 or more"),
        (["--executor", "ray", "--gpus", "1.5"], "above one GPU Ray shares whole ones"),
        (["--executor", "slurm", "--gpus", "inf"], "--gpus inf must be 0 or more"),
        (["--executor", "slurm", "--gpus", "0.5"], "a job of Slurm has whole GPUs"),
        (["--executor", "slurm", "--minutes", "0"], "--minutes 0 must be 1 or more"),
        (["--executor", "slurm", "--slurm", "=x"], "--slurm =x: write it as KEY=VALUE"),
    ],
)
def test_options_are_checked(words, sentence, tiny: Tiny, tmp_path, capsys) -> None:
    out = tmp_path / "it"
    assert main(["compare", *tiny.flags(), *words, "--out", str(out)]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures("registries")
def test_an_executor_of_ones_own_has_its_flags_in_the_help(capsys) -> None:
    from dataclasses import dataclass

    from dihal_bench.runs.executor import Executor, option

    @EXECUTORS.register("nowhere")
    @dataclass(frozen=True, kw_only=True)
    class Nowhere(Executor):
        depth: int = option(1, "how deep (default: 1)", parse=int)
        workers: int = option(1, "none at all", parse=int)

        def check(self) -> None: ...

        def work_off(self, errands, folder, inputs) -> None: ...

    assert chosen("--executor", "nowhere", "--depth", "7") == Nowhere(depth=7)
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "nowhere: how deep (default: 1)" in text
    assert "nowhere: none at all" in text


def test_flags_import_nothing_heavy() -> None:
    code = (
        "import sys, dihal_bench.cli.main as c\nc._parser()\n"
        "sys.exit(bool({'torch', 'ray', 'submitit', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_failures_are_one_sentence(capsys) -> None:
    outcome = WorkOutcome(total=1)
    outcome.close()
    outcome.fail("it broke; mend it.")
    with pytest.raises(UserError, match=r"^it broke; mend it\.$"):
        outcome.close()
    outcome = WorkOutcome(total=3)
    outcome.fail("it broke; mend it.")
    outcome.fail("so did this.")
    with pytest.raises(UserError, match=r"^2 of 3 jobs failed, the first: it broke"):
        outcome.close()
    assert "failed: so did this." in capsys.readouterr().err
