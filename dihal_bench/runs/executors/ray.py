"""Errands on a Ray cluster, of which every node sees the same folders.

What is sent is the path of an errand's file; a node that is lost has its errands sent elsewhere,
where they go on from their checkpoints.
"""

from __future__ import annotations

import os
import socket
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import progress, say
from dihal_bench.core.registry import EXECUTORS
from dihal_bench.runs.executor import Executor, WorkOutcome, at_least, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.runs.inputs import Inputs
    from dihal_bench.runs.work_unit import WorkUnit

_PROBE_SECONDS = 5.0
_RETRIES = 3  # of an errand whose process or node is lost
_PASSED_ON = ("PYTHONPATH", "DIHAL_BENCH_CACHE", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE")
_SCHEME = "ray://"
_PLACES = ("auto", "local")


@EXECUTORS.register("ray")
@dataclass(frozen=True, kw_only=True)
class RayExecutor(Executor):
    """A Ray cluster whose nodes see the same folders and have the same version installed.

    Attributes:
        address: "auto" (the cluster that this machine is a node of, or $RAY_ADDRESS), "local" (one
            is started on this machine, for this command), host:port, or ray://host:port.
        cpus: of each errand, which has as many threads.
        gpus: of each errand; parts of one are shared.
    """

    address: str = option(
        "auto",
        "auto (of this machine, or $RAY_ADDRESS), local (start one), host:port, or "
        "ray://host:port (default: auto)",
    )
    cpus: int = option(1, "CPUs and threads of each job (default: 1)", parse=int)
    gpus: float = option(0.0, "GPUs of each job (default: 0)", parse=float)

    def __post_init__(self) -> None:
        at_least(1, cpus=self.cpus)
        at_least(0, gpus=self.gpus)
        if self.gpus > 1 and not float(self.gpus).is_integer():
            raise UserError(
                f"--gpus {self.gpus:g}: above one GPU Ray shares whole ones; give 1, 2, ..."
            )

    def check(self) -> None:
        """Refuse an address where nothing answers, and a machine without Ray."""
        _imported()
        target = _target(self.address)
        if target == "auto":  # Ray looks for its own processes: only it can tell
            _connected(target).shutdown()
        elif target not in _PLACES:
            _probe(target)

    def work_off(self, errands: Sequence[WorkUnit], folder: Path, inputs: Inputs) -> None:
        """Do what is not done; what errands say is appended to a log beside their files."""
        from dihal_bench.runs.work_unit import write_work_unit

        todo = [errand for errand in errands if not errand.done]
        if not todo:
            return
        ray = _connected(self.address)
        try:
            self._warn(ray)
            perform = ray.remote(
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                max_retries=_RETRIES,
                runtime_env={"env_vars": self._environment()},
            )(_perform)
            files = [write_work_unit(errand, folder / "jobs") for errand in todo]
            sent = {
                perform.remote(str(file)): (errand, file)
                for errand, file in zip(todo, files, strict=True)
            }
            say(f"ray: jobs sent: {len(sent)}; logs in {folder / 'jobs'}")
            _wait(ray, sent)
        finally:
            ray.shutdown()

    def _environment(self) -> dict[str, str]:
        """Return variables that a worker has before it imports anything."""
        passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return passed | {"OMP_NUM_THREADS": str(self.cpus), "TOKENIZERS_PARALLELISM": "false"}

    def _warn(self, ray: Any) -> None:
        """Say so if no node is large enough: a cluster may grow, so Ray waits for one."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        needed = {"CPU": self.cpus, "GPU": self.gpus}
        if not any(all(n.get(key, 0) >= v for key, v in needed.items()) for n in nodes):
            say(f"ray: no node has {self.cpus} CPUs and {self.gpus:g} GPUs; waiting for one")


def _connected(address: str) -> Any:
    """Return the module, connected.

    Raises:
        UserError: it is not installed, or nothing answers at the address.
    """
    ray, target = _imported(), _target(address)
    if target not in _PLACES:
        _probe(target)
    settings: dict[str, Any] = {"address": target, "log_to_driver": False, "logging_level": "ERROR"}
    if target == "local":
        settings["include_dashboard"] = False
    try:
        ray.init(**settings)
    except Exception as error:  # Ray has no class of its own for what may go wrong here
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(
            f"--address {target}: cannot join a Ray cluster there ({reason}); start one with "
            "ray start --head, give ray://host:10001 from outside, or --address local."
        ) from error
    return ray


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--executor ray needs the package ray: pip install 'dihal-bench[ray]'."
        ) from error
    return ray


def _target(address: str) -> str:
    """Return what "auto" stands for, as far as that is written down: it may be dead, too."""
    if address != "auto":
        return address
    noted = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # noqa: S108
    known = noted.read_text(encoding="utf-8").strip() if noted.is_file() else ""
    return os.environ.get("RAY_ADDRESS") or known or address


def _probe(address: str) -> None:
    """Knock first: Ray waits for minutes at a dead address."""
    host, _, port = address.removeprefix(_SCHEME).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"--address {address}: nothing answers there ({error}); give host:port of a running "
            "Ray cluster, ray://host:10001, or local."
        ) from error


def _wait(ray: Any, sent: dict[Any, tuple[WorkUnit, Path]]) -> None:
    """Wait for all of them.

    Raises:
        UserError: some failed.
    """
    outcome, left, faults = WorkOutcome(len(sent)), list(sent), []
    with progress("ray", len(sent), unit="jobs") as bar:
        while left:
            (ready,), left = ray.wait(left, num_returns=1)
            errand, file = sent[ready]
            try:
                ray.get(ready)
            except UserError as error:
                outcome.fail(str(getattr(error, "cause", error)))
            except ray.exceptions.RayTaskError as error:
                faults.append(error)
            except ray.exceptions.RayError as error:
                log = file.with_suffix(".log")
                outcome.fail(f"{errand.title}: {_reason(error)} (log: {log})")
            bar.update(1)
    if faults:
        raise faults[0]
    outcome.close()


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _perform(errand: str) -> None:
    """Do the errand of a file in a process of the cluster."""
    from dihal_bench.runs.work_unit import perform_file

    path = Path(errand)
    log = path.with_suffix(".log")
    with log.open("a", buffering=1, encoding="utf-8") as file, redirect_stderr(file):
        perform_file(path, say)
