"""A Ray cluster of two nodes on this machine, with a worker killed on the way."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dihal_bench.cli.main import main
from dihal_bench.core.errors import UserError
from dihal_bench.runs.executors.ray import RayExecutor

from ..conftest import Tiny
from .errands import Gate, errand, inputs_of, records

pytestmark = pytest.mark.alone

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'dihal-bench[ray]'")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster of two nodes, of one CPU each."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000},
    )
    nodes.add_node(num_cpus=1, object_store_memory=80_000_000)
    yield nodes.address
    nodes.shutdown()


@pytest.mark.usefixtures("registries")
def test_a_killed_worker_is_replaced_and_a_failure_is_told(
    cluster: str, tiny: Tiny, tmp_path, capsys
) -> None:
    gate = Gate(tmp_path)
    errands = [
        errand(tiny, tmp_path, "hidden", layer="9"),
        errand(tiny, tmp_path, "waiting", include=[str(gate.code)]),
        errand(tiny, tmp_path, "embedding"),
    ]
    killer = threading.Thread(
        target=gate.kill, kwargs={"after": lambda: errands[2].done, "opened": True}
    )
    killer.start()
    executor, inputs = RayExecutor(address=cluster), inputs_of(errands)
    with pytest.raises(UserError) as caught:
        executor.work_off(errands, tmp_path, inputs)
    killer.join()
    assert str(caught.value).startswith("hidden seed 0: --layer 9 is layer 9, outside")
    assert "\n" not in str(caught.value)
    assert [own.done for own in errands] == [False, True, True]
    assert len(set(gate.pids())) == 2
    record = json.loads((errands[2].runs[0].folder / "record.json").read_text())
    assert record["environment"]["threads"] == 1
    logs = [file.read_text() for file in (tmp_path / "jobs").glob("*.log")]
    assert sum("training waiting: diffusion" in log for log in logs) == 1
    before = records(errands)
    with pytest.raises(UserError, match="--layer 9"):
        executor.work_off(errands, tmp_path, inputs)
    assert records(errands) == before
    assert "scoring" not in capsys.readouterr().err  # that is in the logs


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_dead_address_is_refused_within_seconds(
    scheme: str, tiny: Tiny, tmp_path: Path, capsys
) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    words = ["compare", *tiny.flags(), "--executor", "ray", "--address", address]
    begun = time.monotonic()
    assert main([*words, "--out", str(tmp_path / "it")]) == 2
    assert time.monotonic() - begun < 20
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--address {address}: nothing answers there" in line
    assert not (tmp_path / "it").exists()


def test_a_cluster_of_this_machine_that_is_gone_is_refused_too(tmp_path, monkeypatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)  # of one that was killed
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=f"--address {address}: nothing answers there"):
        RayExecutor().check()
    monkeypatch.setenv("RAY_ADDRESS", other := f"127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match=f"--address {other}: nothing answers there"):
        RayExecutor().check()


def test_where_no_cluster_is_nothing_is_left(tiny: Tiny, tmp_path, monkeypatch, capsys) -> None:
    def none(*_: object, **__: object) -> None:  # that of another test may still run here
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr("ray.init", none)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "none"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ["sweep", *tiny.flags(), "--layers", "1", "--executor", "ray"]
    assert main([*words, "--out", str(tmp_path / "it")]) == 2
    assert "cannot join a Ray cluster there" in capsys.readouterr().err
    assert not (tmp_path / "it").exists()


@pytest.mark.parametrize("address", ["here", "host:port", "ray://", "127.0.0.1:99999999"])
def test_an_address_has_a_host_and_a_port(address: str) -> None:
    with pytest.raises(UserError, match="nothing answers there"):
        RayExecutor(address=address).check()
