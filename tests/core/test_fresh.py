"""A fresh process knows what it is given, and nothing of what this one holds."""

import json
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.core.fresh import in_fresh_process

PROBE = """
import json, os, socket, subprocess, sys, tempfile, time
from pathlib import Path

from dihal_bench.core.errors import UserError
from dihal_bench.core.fresh import seal

CALLS = []


def look(folder, request, tick):
    CALLS.append(1)
    tick()
    tick()
    found = {
        "environ": dict(os.environ),
        "arguments": sys.argv[1:],
        "temporary": os.listdir(tempfile.gettempdir()),
        "request": request,
        "calls": len(CALLS),
        "input": sys.stdin.read(),
    }
    (folder / "found.json").write_text(json.dumps(found))


def complain(folder, request, tick):
    raise UserError("one sentence.")


def fail(folder, request, tick):
    raise KeyError("something")


def end(folder, request, tick):
    sys.exit(3)


def attempt(folder, request, tick):
    seal(request["since"], but=[str(folder)])
    found = {}
    for name, work in {
        "old": lambda: Path(request["old"]).read_text(),
        "new": lambda: Path(request["new"]).read_text(),
        "own": lambda: Path(request["request"]).read_text(),
        "program": lambda: subprocess.run(["true"], check=True),
        "system": lambda: os.system("true"),
        "connection": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
    }.items():
        try:
            work()
            found[name] = "done"
        except PermissionError as error:
            found[name] = str(error)
    (folder / "found.json").write_text(json.dumps(found))
"""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    modules, folder = tmp_path / "modules", tmp_path / "folder"
    modules.mkdir()
    folder.mkdir()
    (modules / "probe_of_fresh.py").write_text(PROBE)
    monkeypatch.syspath_prepend(str(modules))
    ticks: list[int] = []

    def ask(name: str, **request: Any) -> dict[str, Any]:
        for old in folder.glob("error.txt"):
            old.unlink()
        in_fresh_process(
            f"probe_of_fresh:{name}", folder, request, imports=(), tick=lambda: ticks.append(1)
        )
        return {**json.loads((folder / "found.json").read_text()), "ticks": len(ticks)}

    return ask


def test_nothing_but_the_request_goes_over(ask, monkeypatch):
    monkeypatch.setenv("REMEMBERED", "the answer")
    monkeypatch.setenv("DIHAL_BENCH_CACHE", "/somewhere")
    monkeypatch.setattr("sys.argv", ["dihal-bench", "the answer"])
    for _ in range(2):
        found = ask("look", given=[1, "two"])
        assert found["request"] == {"given": [1, "two"]}
        assert "REMEMBERED" not in found["environ"]
        assert found["environ"]["DIHAL_BENCH_CACHE"] == "/somewhere"
        assert (found["arguments"], found["temporary"], found["input"]) == ([], [], "")
        assert found["calls"] == 1  # a process of its own for each
    assert found["ticks"] == 4


def test_faults_are_told_in_a_sentence_and_end_nothing_else(ask):
    with pytest.raises(UserError, match=r"^one sentence\.$"):
        ask("complain")
    with pytest.raises(UserError, match=r"KeyError in .*probe_of_fresh\.py:\d+: 'something'"):
        ask("fail")
    with pytest.raises(UserError, match="ended with status 1"):
        ask("end")
    assert ask("look")["calls"] == 1


def test_a_sealed_process_reads_nothing_new_and_reaches_nobody(ask, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    since = old.stat().st_ctime + 0.05
    while True:
        new.write_text("new")
        if new.stat().st_ctime > since:
            break
    request = {"since": since, "old": str(old), "new": str(new)}
    found = ask("attempt", **request, request=str(tmp_path / "folder" / "request.json"))
    assert (found["old"], found["own"]) == ("done", "done")
    assert "was written after the run began" in found["new"]
    for name in ("program", "system", "connection"):
        assert "is not allowed" in found[name]


def test_whoever_asks_after_an_interruption_is_given_an_answer_of_his_own(ask, monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = ask("look")
    with monkeypatch.context() as patch:
        patch.setattr("dihal_bench.core.fresh._Server.ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask("look")
    assert ask("look", given=2)["request"] == {"given": 2} != before["request"]
