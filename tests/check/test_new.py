"""The scaffold writes a short, clean file of an interface that trains and passes the kit."""

import subprocess
import sys

import pytest

from dihal_bench.cli.main import main
from dihal_bench.core.registry import INTERFACES, include

pytestmark = pytest.mark.usefixtures("registries")


def test_it_writes_a_file_named_as_the_interface(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "bits-of-mine"]) == 0
    text = (tmp_path / "bits_of_mine.py").read_text(encoding="utf-8")
    assert capsys.readouterr().out.splitlines()[0] == "wrote bits_of_mine.py"
    assert len(text.splitlines()) < 80
    assert "my-interface" not in text
    assert "MyInterface" not in text
    include(tmp_path / "bits_of_mine.py")
    assert INTERFACES.get("bits-of-mine").__name__ == "BitsOfMine"


def test_out_says_where(tmp_path):
    file = tmp_path / "folder" / "x.py"
    assert main(["new", "mine", "--out", str(file)]) == 0
    include(file)
    assert INTERFACES.get("mine").bears_tokens


def test_the_file_is_clean(tmp_path):
    ruff = pytest.importorskip("ruff")
    assert main(["new", "mine", "--out", str(tmp_path / "mine.py")]) == 0
    settings = (
        "--line-length=100",
        "--select=E,F,W,I,UP,B,C4,SIM,RUF,D",
        "--ignore=D105,D107",
        "--config=lint.pydocstyle.convention='google'",
        "--config=lint.isort.known-first-party=['dihal_bench']",
    )
    command = [sys.executable, "-m", ruff.__name__, "check", "--isolated", *settings, "."]
    subprocess.run(command, cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Mine", "new Mine: an interface is named by lower-case words joined by hyphens"),
        ("my_interface", "new my_interface: an interface is named by"),
        ("a/b", "new a/b: an interface is named by"),
        ("my-", "new my-: an interface is named by"),
        ("teacher", "new teacher: the word has a meaning of its own"),
        ("hidden", "new hidden: the name is taken, by "),
    ],
)
def test_a_name_that_is_none_or_taken(name, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new", name]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"dihal-bench: error: {expected}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "expected"), [("there.py", "the file exists already"), ("x.txt", "must end in .py")]
)
def test_a_file_that_cannot_be_written(file, expected, tmp_path, capsys):
    (tmp_path / "there.py").write_text("kept", encoding="utf-8")
    assert main(["new", "mine", "--out", str(tmp_path / file)]) == 2
    assert expected in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["there.py"]
    assert (tmp_path / "there.py").read_text(encoding="utf-8") == "kept"
