"""Uploading a bridge: what arrives is what was agreed to, and whatever fails is one sentence."""

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from dihal_bench.cli.main import main
from dihal_bench.reporting.hub.card import card_of_run
from dihal_bench.runs.finished import FinishedRun

from .finished import PRIVATE_TEXT, finished, local_changes
from .stand_in import Hub, standing_in

TOKEN = "hf_ThisIsNotToBeSeen"
FILES = [
    "README.md",
    "config.json",
    "record.json",
    "weights/hidden.safetensors",
    "weights/regress.safetensors",
    "weights/ridge.safetensors",
]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, for a user who is logged in nowhere."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HF_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    agents = tmp_path / "agents.json"  # which the client would ask the hub for, and keep
    agents.write_text('{"harnesses": {}}')
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(agents))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between retries
    with standing_in() as own:
        monkeypatch.setattr(constants, "ENDPOINT", own.url)
        yield own


@pytest.fixture
def run(tmp_path) -> Path:
    return finished(tmp_path / "run")


@pytest.fixture
def token(tmp_path) -> list[str]:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return ["--token-file", str(tmp_path / "token")]


def push(run: Path, *flags: str) -> int:
    return main(["push", str(run), "--repo", "me/bridge", *flags])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    streams = capsys.readouterr()
    assert TOKEN not in streams.out + streams.err
    assert "Traceback" not in streams.err
    (line,) = [x for x in streams.err.splitlines() if x.startswith("dihal-bench: error: ")]
    assert streams.err.splitlines()[-1] == line
    return line.removeprefix("dihal-bench: error: ")


def test_what_arrives_is_what_the_run_has(hub: Hub, run, token, capsys):
    assert push(run, "--yes", *token) == 0
    streams = capsys.readouterr()
    assert sorted(hub.files) == FILES
    assert hub.commits == 1
    for name in FILES[1:]:
        assert hub.files[name] == (run / name).read_bytes()
    assert hub.files["README.md"] == card_of_run(run).encode()  # not what lay there
    assert b"not for others" not in b"".join([*hub.files.values(), *hub.blobs.values()])
    assert [c["name"] for c in hub.created] == ["bridge"]
    assert "private" not in str(hub.created)
    hrefs = {token for method, path, token in hub.asked if method == "PUT"}
    assert hrefs == {""}  # a token is not for storage elsewhere
    assert {token for method, _, token in hub.asked if method != "PUT"} == {TOKEN}
    assert TOKEN not in streams.out + streams.err
    assert f"uploaded: {hub.url}/me/bridge/commit/c0ffee" in streams.out
    for name in FILES:
        size = len(hub.files[name])
        assert any(f"{size:,}  {name}" in line for line in streams.out.splitlines())


def test_json_says_the_same(hub: Hub, run, token, capsys):
    assert push(run, "--yes", "--json", *token) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["uploaded"] is True
    assert said["commit"].endswith("/commit/c0ffee")
    assert said["files"] == [{"path": name, "bytes": len(hub.files[name])} for name in FILES]
    assert said["endpoint"] == hub.url
    assert push(run, "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned == {**said, "uploaded": False, "commit": None}


def test_a_dry_run_reads_a_token_that_it_is_given(hub: Hub, run, capsys, tmp_path):
    assert push(run, "--dry-run", "--token-file", str(tmp_path / "none")) == 2
    assert "cannot be read (No such file or directory)" in refused(capsys)


def test_a_dry_run_needs_no_token_and_asks_nobody(hub: Hub, run, capsys):
    assert push(run, "--dry-run", "--yes") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in FILES)
    assert f"to {hub.url}/me/bridge" in out
    assert hub.asked == []


def test_nothing_is_uploaded_unless_somebody_agrees(hub: Hub, run, token, capsys, monkeypatch):
    assert push(run, *token) == 2
    assert "this is no terminal; add --yes" in refused(capsys)
    answers = io.StringIO("y\nno\n\nyes\n")
    answers.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", answers)
    for _ in range(3):
        assert push(run, *token) == 1
        assert "nothing was uploaded" in capsys.readouterr().err
    assert hub.asked == []
    assert push(run, *token) == 0
    assert hub.commits == 1


def test_without_a_token_nothing_is_asked(hub: Hub, run, capsys):
    assert push(run, "--yes") == 2
    assert refused(capsys).startswith("there is no token for the hub; give --token-file FILE, set")
    assert hub.asked == []


def test_a_token_of_the_environment_or_of_a_login_does(hub: Hub, run, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert push(run, "--yes") == 0
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "login").write_text("hf_OfALogin")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "login"))
    assert push(run, "--yes") == 0
    assert {token for method, _, token in hub.asked if method != "PUT"} == {TOKEN, "hf_OfALogin"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory); give a file"),
        (b"\xff", "cannot be read (not text); give a file"),
        (b" \n", "is empty; give a file"),
        (f"{TOKEN}\n{TOKEN}".encode(), "is no token"),
        ("hf_ä".encode(), "is no token"),
    ],
)
def test_what_is_no_token_is_not_sent(hub: Hub, run, capsys, tmp_path, content, said):
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    assert push(run, "--yes", "--token-file", str(tmp_path / "token")) == 2
    assert said in refused(capsys)
    assert hub.asked == []


REFUSALS = {
    ("/api/", 401): "does not accept the token (401); make one",
    ("/api/", 403): "does not let this token write there (403); give one",
    ("/preupload/", 404): "knows no such place (404); check --repo",
    ("/commit/", 409): "is being changed by somebody else",
    ("/objects/batch", 413): "takes no files of that size (413)",
    ("/api/repos/create", 429): "has had too many requests (429)",
    ("/api/repos/create", 500): "has a fault of its own (500); try again later",
    ("/preupload/", 503): "has a fault of its own (503)",
    ("/put/", 502): "has a fault of its own (502)",
    ("/commit/", 418): "refused (418: teapot *** no, *** no tags)",
    ("/validate-yaml", 400): "refused (400: Invalid metadata in README.md. - no tags)",
}


@pytest.mark.parametrize(("where", "status"), REFUSALS)
def test_what_the_hub_refuses_is_one_sentence(hub: Hub, run, token, capsys, where, status):
    hub.refuse[where] = status, {"X-Error-Message": f"teapot {TOKEN}"}
    assert push(run, "--yes", *token) == 2
    said = refused(capsys)
    assert said.startswith("me/bridge: the ")
    assert REFUSALS[where, status] in said
    assert said.endswith(".")
    assert hub.commits == 0


def test_a_hub_that_is_not_there_is_one_sentence(hub: Hub, run, token, capsys, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens: discard
    assert push(run, "--yes", *token) == 2
    assert refused(capsys) == (
        "me/bridge: the hub cannot be reached; check the connection and try again."
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert push(run, "--yes", *token) == 2
    assert refused(capsys) == "me/bridge: HF_HUB_OFFLINE forbids to ask the hub; unset it."


def test_private_stays_private(hub: Hub, run, token, capsys):
    assert push(run, "--yes", "--private", *token) == 0
    assert hub.created[0]["visibility"] == "private"
    capsys.readouterr()
    hub.public = True
    assert push(run, "--yes", "--private", *token) == 2
    assert "me/bridge is there already and public, so --private cannot hold" in refused(capsys)
    assert hub.commits == 1


@pytest.mark.parametrize("name", ["bridge", "a/b/c", "me/", "me/br idge", "me/--x", "é/x"])
def test_a_name_that_is_none_is_refused(hub: Hub, run, token, capsys, name):
    assert main(["push", str(run), "--repo", name, "--yes", *token]) == 2
    assert "is no name of a repository; give NAME/MODEL" in refused(capsys)
    assert hub.asked == []


def test_paths_of_the_machine_are_named_before_anything_is_uploaded(hub: Hub, tmp_path, capsys):
    run = finished(tmp_path / "run", **local_changes())
    assert push(run, "--dry-run", "--json") == 0
    streams = capsys.readouterr()
    warnings = json.loads(streams.out)["warnings"]
    home = f"/{PRIVATE_TEXT}"
    assert warnings == [
        f"config.json and record.json name the local backbone {home}/models/small",
        f"config.json and record.json name the local corpus {home}/my text.jsonl",
        f"config.json and record.json hold the local path {home}/my.toml",
        f"config.json and record.json hold the local path {home}/own.py",
        f"config.json and record.json hold the local path {home}/vae",
        f"others need the code in {home}/own.py, which is not uploaded",
    ]
    assert all(f"warning: {warning}" in streams.err for warning in warnings)


def test_a_run_of_public_things_has_no_warnings(hub: Hub, run, capsys):
    assert push(run, "--dry-run") == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["record.json", "config.json", "weights/hidden.safetensors"])
def test_a_run_that_is_not_complete_is_refused(hub: Hub, run, token, capsys, name):
    (run / name).unlink()
    assert push(run, "--yes", *token) == 2
    assert name in refused(capsys)
    assert hub.asked == []


@pytest.mark.parametrize("text", ["{", "[]", '{"seed": 7, "backbone": "/elsewhere/model"}'])
def test_a_configuration_that_is_not_the_record_s_is_refused(hub: Hub, run, token, capsys, text):
    (run / "config.json").write_text(text)
    assert push(run, "--yes", *token) == 2
    assert re.search(r"config\.json is (cut off or damaged|not the configuration)", refused(capsys))
    assert hub.asked == []


def test_it_works_as_a_process_of_its_own(hub: Hub, run, token, tmp_path):
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")}
    environment = {**os.environ, **own, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [
        sys.executable,
        "-m",
        "dihal_bench.cli.main",
        "push",
        str(run),
        "--repo",
        "me/bridge",
    ]
    done = subprocess.run(
        [*command, *token, "--yes"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(hub.files) == FILES
    assert TOKEN not in done.stdout + done.stderr


def test_what_was_uploaded_writes_text(hub: Hub, token, tiny, tmp_path, capsys):
    run, bridge = tmp_path / "run", tmp_path / "bridge"
    small = tiny.flags(score__tokens=128, score__steps=1)
    layer = ["--layer", "middle", "--controls", "mean"]
    assert main(["run", *layer, "--out", str(run), *small]) == 0
    assert push(run, "--yes", *token) == 0
    for name, content in hub.files.items():
        (bridge / name).parent.mkdir(parents=True, exist_ok=True)
        (bridge / name).write_bytes(content)
    capsys.readouterr()
    written = []
    for folder in (run, bridge):
        assert main(["generate", str(folder), "--tokens", "8", "--prompt", "ba", "--json"]) == 0
        written.append(json.loads(capsys.readouterr().out)["text"])
    assert written[0] == written[1]
    assert FinishedRun(bridge).interface("hidden") is not None
