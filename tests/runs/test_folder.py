"""A run's folder: one process and one configuration at a time, and no traces of nothing."""

import fcntl
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dihal_bench.config.identity import identity
from dihal_bench.config.schema import RunConfig
from dihal_bench.core.errors import UserError
from dihal_bench.runs.folder import INPUTS, claimed, run_folder

CONFIG = RunConfig()
HOLD = """
import sys
from pathlib import Path
from dihal_bench.config.schema import RunConfig
from dihal_bench.runs.folder import claimed
with claimed(Path(sys.argv[1]), RunConfig()):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_usual_folder_is_named_by_interface_and_digest(tmp_path):
    assert run_folder(CONFIG) == Path("runs") / f"hidden-{identity(CONFIG).training}"
    assert run_folder(CONFIG, name="locate") == Path("runs") / f"locate-{identity(CONFIG).training}"
    assert run_folder(CONFIG, tmp_path) == tmp_path


def test_another_process_is_told_to_wait(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=r"--out .*run: another process works on this run"),
            claimed(tmp_path / "run", CONFIG),
        ):
            pass
        other.kill()  # not even then does the claim survive its process
    with claimed(tmp_path / "run", CONFIG):
        pass


def test_a_claim_ends_with_its_block(tmp_path):
    for _ in range(2):
        with claimed(tmp_path / "run", CONFIG):
            (tmp_path / "run" / "something").write_text("")


def test_a_claim_under_which_nothing_was_kept_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "deep" / "run", CONFIG):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with claimed(tmp_path, CONFIG):
        pass
    assert tmp_path.exists()  # it was there before


def test_what_was_kept_stays_and_belongs_to_its_configuration(tmp_path):
    with claimed(tmp_path / "run", CONFIG):
        (tmp_path / "run" / "half.json").write_text("{}")
    assert (tmp_path / "run" / "half.json").exists()
    with (
        pytest.raises(UserError, match="holds a run of another configuration"),
        claimed(tmp_path / "run", RunConfig(seed=1)),
    ):
        pass
    with claimed(tmp_path / "run", CONFIG):
        pass


def test_an_edited_file_is_another_configuration(tmp_path):
    (tmp_path / "mine.py").write_text("a = 1")
    config = RunConfig(include=(str(tmp_path / "mine.py"),))
    with claimed(tmp_path / "run", config):
        (tmp_path / "run" / "record.json").write_text("{}")
    (tmp_path / "mine.py").write_text("a = 2")
    with (
        pytest.raises(UserError, match="other code in an included file"),
        claimed(tmp_path / "run", config),
    ):
        pass


def test_a_lock_file_that_was_taken_away_is_not_held(tmp_path, monkeypatch):
    """Its folder is removed between another process's opening and locking: the lock is void."""
    flock = fcntl.flock

    def late(file, operation):
        Path(file.name).unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match="another process"), claimed(tmp_path / "run", CONFIG):
        pass


def test_what_lay_there_before_stays_and_nothing_comes_to_it(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with claimed(tmp_path, CONFIG):
        (tmp_path / INPUTS).write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    with claimed(tmp_path, CONFIG):
        (tmp_path / "result").write_text("")
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"note.txt", "result", ".lock", "config.json"}
    with claimed(tmp_path, CONFIG):
        pass
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_what_came_into_a_folder_below_keeps_the_claim(tmp_path):
    (tmp_path / "shared").mkdir()
    with claimed(tmp_path, CONFIG):
        (tmp_path / "shared" / "located").write_text("")
    assert (tmp_path / "config.json").exists()


def test_a_dry_claim_refuses_the_same_and_writes_nothing(tmp_path):
    with claimed(tmp_path / "new" / "run", CONFIG, dry=True):
        pass
    assert not list(tmp_path.iterdir())
    with claimed(tmp_path / "run", CONFIG), claimed(tmp_path / "run", CONFIG, dry=True):
        (tmp_path / "run" / "something").write_text("")  # another process may look meanwhile
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "run", tmp_path / "file", tmp_path / "file" / "run"):
        sentences = []
        for dry in (False, True):
            with (
                pytest.raises(UserError) as error,
                claimed(folder, replace(CONFIG, seed=1), dry=dry),
            ):
                pass
            sentences.append(str(error.value))
        assert sentences[0] == sentences[1]
