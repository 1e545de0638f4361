"""A process that never held what this one holds, and does one thing with what it is given.

A server is started once, as a new interpreter: it imports the package and waits. For every request
it forks a child, so that a fresh process costs milliseconds and not the seconds of importing torch.
The server itself reads nothing but names of folders. What this process has in memory, in its
arguments or in variables of its environment that nobody knows has no way into a child.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_VARIABLES = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TZ", "USER", "VIRTUAL_ENV")
_FAMILIES = (  # of variables that decide how a library computes, or where it finds its files
    *("CUBLAS", "CUDA", "DIHAL_BENCH_", "GLIBC_", "GOMP_", "HF_", "HIP", "KMP_", "LC_", "LD_"),
    *(
        "MALLOC_",
        "MKL_",
        "NVIDIA_",
        "OMP_",
        "OPENBLAS_",
        "PYTHON",
        "PYTORCH_",
        "ROC",
        "TOKENIZERS_",
    ),
    *("TORCH", "TRANSFORMERS_", "XDG_"),
)
_PROGRAMS = (
    *("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"),
    *("pty.spawn", "subprocess.Popen"),
)
_CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind")
_SYSTEM = ("/proc/", "/sys/", "/dev/")
_SHARED = "/dev/shm/"  # noqa: S108 - nothing is written there
_SLACK = 0.02  # seconds that a file's clock may be behind
_ERROR, _REQUEST = "error.txt", "request.json"


def in_fresh_process(
    call: str,
    folder: Path,
    request: Mapping[str, Any],
    *,
    imports: tuple[str, ...],
    tick: Callable[[], object],
) -> None:
    """Call a function in a fresh process, and wait for it.

    Args:
        call: ``module:function``; it is given ``folder``, the request, and what it calls when a
            part is done. Its temporary files go into a folder of its own.
        folder: where it finds and leaves files.
        request: JSON values.
        imports: modules that the server imports when it starts, for speed.
        tick: is called whenever the function has done a part.

    Raises:
        UserError: the function raised it, or failed in another way; the message says which.
    """
    wanted = {"call": call, "environ": _environment(), "path": _path(), "cwd": str(Path.cwd())}
    (folder / _REQUEST).write_text(json.dumps({**wanted, "request": request}), encoding="utf-8")
    server = _server(os.getpid(), imports)
    try:
        status = server.ask(folder, tick)
    except BaseException:  # whoever asks next must not be given this answer
        server.close()
        _server.cache_clear()
        raise
    error = folder / _ERROR
    if error.exists():
        raise UserError(error.read_text(encoding="utf-8"))
    if status != 0:
        _server.cache_clear()
        raise UserError(
            f"the fresh process that scores anew ended with status {status}; if memory is short, "
            "give a smaller --set score.batch."
        )


def start(imports: tuple[str, ...]) -> None:
    """Start the server, if there is none, so that it is ready when it is asked."""
    _server(os.getpid(), imports)


def seal(since: float, *, but: Iterable[str] = ()) -> None:
    """From here on refuse programs, connections, and files that were written lately.

    What code remembers of an earlier process it may have left in a file. Only what is opened
    through Python is seen.

    Args:
        since: files that were changed after that time are not opened for reading, in seconds.
        but: files and folders that may be all the same.
    """
    files = {os.path.realpath(path) for path in but}
    folders = tuple(f"{path}{os.sep}" for path in files)

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _PROGRAMS or event in _CONNECTIONS:
            raise PermissionError(f"{event} is not allowed while likelihoods are scored anew")
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            known = path in files or path.startswith(folders)
            if not known and _is_new(path, since - _SLACK):
                raise PermissionError(
                    f"{path} was written after the run began, and is not read while likelihoods "
                    "are scored anew"
                )

    sys.addaudithook(refuse)


def _is_new(path: str, since: float) -> bool:
    if path.startswith(_SYSTEM) and not path.startswith(_SHARED):
        return False
    try:
        return os.stat(path).st_ctime > since  # noqa: PTH116 - pathlib would raise events again
    except OSError:
        return False  # it is being made


class _Server:
    """The clean interpreter, seen from the process that asks it."""

    def __init__(self, imports: tuple[str, ...]):
        environ = {**_environment(), "PYTHONPATH": os.pathsep.join(_path())}
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and our own modules
            [sys.executable, "-m", "dihal_bench.core.fresh", *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            text=True,
            process_group=0,
        )
        atexit.register(self.close)

    def ask(self, folder: Path, tick: Callable[[], object]) -> int | None:
        """Have the request in a folder done; return the status, None if the server is gone."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(f"{folder.resolve()}\n")
            stdin.flush()
        except OSError:
            return None
        for line in stdout:
            if line.strip() != ".":
                return int(line)
            tick()
        return None

    def close(self) -> None:
        """End the server, and what it has begun."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@functools.cache
def _server(pid: int, imports: tuple[str, ...]) -> _Server:
    """Return this process's server; one that was forked has a server of its own."""
    del pid
    return _Server(imports)


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _VARIABLES or name.startswith(_FAMILIES)
    }


def _path() -> list[str]:
    return [path for path in sys.path if Path(path or ".").exists()]


def _serve(imports: Iterable[str]) -> None:
    """Be the server, until the asking process ends."""
    for name in imports:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _work(Path(line.strip()))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _work(folder: Path) -> None:
    """Be the child: do what the request says, and end."""
    output = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    wanted = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))
    os.environ.clear()
    os.environ.update(wanted["environ"])
    sys.path[:], sys.argv[:] = wanted["path"], sys.argv[:1]
    os.chdir(wanted["cwd"])
    own = folder / "temporary"
    own.mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(own)
    status = 1
    try:
        module, _, name = wanted["call"].partition(":")
        function = getattr(importlib.import_module(module), name)
        function(folder, wanted["request"], lambda: os.write(output, b".\n"))
        status = 0
    except UserError as error:
        (folder / _ERROR).write_text(str(error), encoding="utf-8")
    except Exception as error:  # noqa: BLE001 - anybody's code; who asked tells it
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split()) or "without a message"
        (folder / _ERROR).write_text(
            f"the fresh process that scores anew failed ({type(error).__name__} in "
            f"{place.filename}:{place.lineno}: {said}); mend the code that it runs.",
            encoding="utf-8",
        )
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1:])
