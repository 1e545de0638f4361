"""Several processes do what one does: training, checkpoints, locating, scoring, and failing."""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from safetensors.torch import load_file

from dihal_bench.cli.main import main
from dihal_bench.core import distributed, files
from dihal_bench.core.errors import UserError
from dihal_bench.data.tokens import PackedTokens
from dihal_bench.results.record import Record
from dihal_bench.training import trainer as module
from dihal_bench.training.config import TrainConfig
from dihal_bench.training.shares import check_shares, passes_of
from dihal_bench.training.trainee import TrainState

from ..conftest import Tiny
from .processes import (
    CASES,
    INTERRUPTED,
    KILLED_AT,
    LONG,
    learn,
    measured,
    outcome,
    read,
    text,
)

HERE = Path(__file__).parents[2]
STOPPED_AT = 5
SECONDS = 300  # of patience with a launch
pytestmark = pytest.mark.alone


def launch(processes: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Start a module in several processes, as a user does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", *words]
    return subprocess.run(
        command, cwd=HERE, env=surroundings(), capture_output=True, text=True, timeout=SECONDS
    )


def start(processes: int, *words: str) -> list[tuple[int, str, str]]:
    """Start a module in several processes without torchrun; return status, output and errors."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=HERE,
            env=surroundings() | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        spoken = [process.communicate(timeout=SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(p.returncode, out, err) for p, (out, err) in zip(started, spoken, strict=True)]


def surroundings() -> dict[str, str]:
    """What a launched process is told: where the package lies, and one thread."""
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


# --- who trains on what ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("micro", [1, 2, 3, 4, 6, 12, 100])
def test_every_window_of_a_step_is_trained_on_once(size: int, micro: int) -> None:
    config = TrainConfig(batch=12, micro=micro)
    with mock.patch.object(distributed, "size", return_value=size):
        sharers = check_shares(config)
    dealt = [passes_of(config, rank, size, sharers) for rank in range(size)]
    assert sorted(place for own in dealt for one in own for place in one) == list(range(12))
    assert len({tuple(len(one) for one in own) for own in dealt}) == 1
    for own in dealt:  # a process's windows of a pass are those of one pass of one process
        assert all(one[0] // micro == one[-1] // micro for one in own)


def test_windows_that_do_not_go_round_are_refused() -> None:
    with mock.patch.object(distributed, "size", return_value=4):
        with pytest.raises(UserError, match=r"train\.batch=6 .* 4 processes; give a multiple of 4"):
            check_shares(TrainConfig(batch=6))
        with pytest.raises(UserError, match=r"train\.micro=5 cuts train\.batch=8 into passes"):
            check_shares(TrainConfig(batch=8, micro=5))


@pytest.mark.parametrize("count", [0, 1, 2, 5, 8, 9])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_work_is_dealt_once_in_order_and_in_equally_many_turns(count: int, size: int) -> None:
    dealt = []
    for rank in range(size):
        with (
            mock.patch.object(distributed, "size", return_value=size),
            mock.patch.object(distributed, "rank", return_value=rank),
        ):
            dealt.append(list(distributed.turns(range(count))))
    assert [item for own in dealt for item, counts in own if counts] == list(range(count))
    assert len({len(own) for own in dealt}) == 1


def test_without_a_launcher_nothing_is_joined() -> None:
    code = (
        "import sys; from dihal_bench import distributed, files\n"
        "with distributed.joined('run', parallel=False): pass\n"
        "assert distributed.on_main(lambda: 3) == 3 and distributed.gather([1]) == [1]\n"
        "distributed.barrier(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=HERE, env=surroundings(), check=True)


# --- what comes of it -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def data(folder: Path) -> PackedTokens:
    return text(folder / "cache")


@pytest.fixture(scope="module")
def killed(folder: Path, data: PackedTokens) -> Path:
    """The checkpoint of a training of two processes of which one was killed."""
    done = launch(2, "tests.training.processes", "victim", str(folder))
    assert done.returncode != 0
    assert "Signal 9" in done.stderr
    for name in ("interrupted-2", "interrupted-1"):
        shutil.copy(folder / "interrupted", folder / name)
    return folder / "interrupted"


@pytest.fixture(scope="module")
def stopped(folder: Path, data: PackedTokens, killed: Path) -> Path:
    """The same, after one process alone went on for a while."""
    update = TrainState.update

    def stop(self: TrainState, step: int, steps: int) -> None:
        if step == STOPPED_AT:
            raise KeyboardInterrupt
        return update(self, step, steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHECKPOINT_SECONDS", 0.0)
        patch.setattr(TrainState, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            learn(INTERRUPTED, data, folder / "interrupted-1", LONG)
    shutil.copy(folder / "interrupted-1", folder / "interrupted-4")
    return folder / "interrupted-4"


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.nightly)])
def report(
    request: pytest.FixtureRequest, folder: Path, killed: Path, stopped: Path
) -> dict[str, Any]:
    """What so many processes report."""
    done = launch(request.param, "tests.training.processes", "cases", str(folder))
    assert done.returncode == 0, done.stderr
    return read(folder / f"report-{request.param}.json")


@pytest.fixture(scope="module")
def alone(folder: Path, data: PackedTokens) -> dict[str, list[TrainState]]:
    """What one process comes to."""
    return {name: learn(case, data, folder / f"{name}-alone") for name, case in CASES.items()}


def same(one: Any, other: Any) -> bool:
    return bool(np.allclose(one, other, rtol=2e-5, atol=2e-6))


@pytest.mark.parametrize("name", CASES)
def test_the_losses_and_weights_are_those_of_one_process(
    name: str, report: dict[str, Any], alone: dict[str, list[TrainState]], folder: Path
) -> None:
    for trainee in alone[name]:
        facts, weights = outcome(trainee)
        theirs = report[f"{name}: {trainee.name}"]
        assert (theirs["steps"], theirs["tokens"]) == (facts["steps"], facts["tokens"])
        assert theirs["flops"] == facts["flops"]
        for one, other in zip(facts["curve"], theirs["curve"], strict=True):
            assert other == pytest.approx(one, rel=1e-5)
        kept = load_file(folder / f"{name} {trainee.name} {report['processes']}.safetensors")
        for key, value in weights.items():  # AdamW makes rounding of the smallest gradients large
            assert (value - kept[key]).norm() < 1e-4 * value.norm(), key


def test_how_windows_are_grouped_matters_here(
    alone: dict[str, list[TrainState]], data: PackedTokens
) -> None:
    """Processes that averaged their own means would be found out: the windows are uneven."""
    dealt, shared = (alone[name][0].curve for name in ("passes dealt", "passes shared"))
    assert any(abs(a["ce"] / b["ce"] - 1) > 1e-3 for a, b in zip(dealt, shared, strict=True))
    scored = [int(data.batch([i]).scored.sum()) for i in range(len(data))]
    assert max(scored) > 1.2 * min(scored)


def test_a_killed_process_costs_one_checkpoint_interval(
    report: dict[str, Any], folder: Path, data: PackedTokens, tmp_path: Path
) -> None:
    """Two processes, one of which was killed, went on as two; as one, and then as four."""
    first = {2: KILLED_AT, 4: STOPPED_AT}[report["processes"]]
    assert report["resumed"]["taken"] == list(range(first, LONG))
    whole = learn(INTERRUPTED, data, tmp_path / "whole", LONG)
    for one, other in zip(whole[0].curve, report["resumed"]["curve"], strict=True):
        assert other == pytest.approx(one, rel=1e-5)


def test_all_processes_hold_the_same_bits_and_one_writes(report: dict[str, Any]) -> None:
    assert len(report["digests"]) == 1
    assert report["writes"] == [True] + [False] * (report["processes"] - 1)


def test_what_is_dealt_is_what_one_process_measures(
    report: dict[str, Any], data: PackedTokens
) -> None:
    own = measured(data)
    assert own.keys() == report["measured"].keys()
    for name, values in own.items():
        assert same(values, report["measured"][name]), name


def test_a_spread_teacher_is_the_teacher(report: dict[str, Any]) -> None:
    """States, logits, and the gradient that distillation sends down through frozen blocks."""
    for found in report["sharded"]:
        assert found["sharded"]
        assert found["gradient"] > 0
        assert found["gap"] < 1e-5
        assert found["held"] == pytest.approx(1 / report["processes"], rel=0.05)


# --- the whole run --------------------------------------------------------------------------------


def test_a_whole_run_is_that_of_one_process(tiny: Tiny, tmp_path: Path) -> None:
    settings = {"train__optimizer": "adamw", "budget__diffusion_tokens": 512}
    flags = [*tiny.flags(**settings), "--layer", "2", "--controls", "regress,ridge"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        assert main(["run", *flags, "--out", str(tmp_path / "one")]) == 0
    words = ["run", *flags, "--shard-teacher", "--out", str(tmp_path / "two")]
    done = launch(2, "dihal_bench", *words)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(out.getvalue().splitlines())
    assert done.stderr.count("training hidden and regress: diffusion") == 1
    one, two = (Record.read(tmp_path / name / "record.json").data for name in ("one", "two"))
    assert two["environment"]["processes"] == 2
    assert one["environment"]["processes"] == 1
    assert one["backbone"] == two["backbone"]
    names = [{path.name for path in (tmp_path / n).glob("*")} for n in ("one", "two")]
    assert names[0] == names[1]
    values = [
        {(s["subject"], s["metric"], s["steps"], s["chains"]): s["value"] for s in record["scores"]}
        for record in (one, two)
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-3, abs=1e-5)
    assert two["locate"]["cells"]["paper"]["layers"] == one["locate"]["cells"]["paper"]["layers"]


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_batch_that_cannot_be_shared_is_said_once(tiny: Tiny, tmp_path: Path) -> None:
    flags = [*tiny.flags(train__batch=3), "--out", str(tmp_path / "run")]
    ends = start(2, "dihal_bench", "run", *flags)
    assert [status for status, *_ in ends] == [2, 2]
    said = "".join(err for *_, err in ends)
    assert said.count("dihal-bench: error: train.batch=3 cannot be shared by 2 processes") == 1
    assert said.count("error") == 1
    assert not (tmp_path / "run").exists()


def test_one_process_that_fails_ends_all_with_its_sentence() -> None:
    """The other one waits for it, and learns in the middle of an exchange that it is gone."""
    ends = start(2, "tests.training.failing", "lost")
    assert [status for status, *_ in ends] == [2, 2]
    said = "".join(err for *_, err in ends)
    assert said.count("this one has failed") == 1
    assert "Traceback" not in said


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIHAL_BENCH_TIMEOUT", "6")
    ends = start(2, "tests.training.failing", "late")
    assert [status for status, *_ in ends] == [2, 2]
    said = "".join(err for *_, err in ends)
    assert said.count("a process of this run has ended, or cannot be reached") == 1
    assert "Traceback" not in said


def test_machines_that_read_other_text_are_told(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    gather = distributed.gather

    def elsewhere(items: Any) -> Any:
        found = gather(items)
        if isinstance(items[0], dict) and "training text" in items[0]:
            found = [*found, items[0] | {"training text": "of another machine"}]
        return found

    monkeypatch.setattr(distributed, "gather", elsewhere)
    assert main(["run", *tiny.flags(), "--out", str(tmp_path / "run")]) == 2
    assert "read a different training text under the same name" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_processes_wait_for_a_lock_without_waiting_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits inside an exchange would be taken for dead where a training takes hours."""
    tries = iter([False, False, True])
    monkeypatch.setattr(files, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(files, "take", lambda file, wait: not wait and next(tries))
    with (
        mock.patch.object(distributed, "size", return_value=2),
        files.lock(tmp_path / "it", wait=True) as held,
    ):
        assert held
    assert next(tries, None) is None


def test_other_verbs_are_done_by_one_process(tmp_path: Path) -> None:
    ends = start(2, "dihal_bench", "compare", "--out", str(tmp_path / "run"))
    assert [status for status, *_ in ends] == [2, 2]
    assert "".join(err for *_, err in ends).count("compare is done by one process") == 1


def test_a_teacher_is_not_spread_over_one_process(tiny: Tiny, tmp_path: Path, capsys: Any) -> None:
    words = ["run", *tiny.flags(), "--shard-teacher", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "start it with torchrun -m dihal_bench" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
