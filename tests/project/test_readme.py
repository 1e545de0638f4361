"""The README's blocks are what CI runs and what its example says."""

import re
import shlex
from pathlib import Path

import pytest

from dihal_bench.cli.main import main
from dihal_bench.core.registry import INTERFACES, include

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name):
    pattern = rf"<!-- {name} -->\n```\w+\n(.*?)```\n<!-- end -->"
    return re.search(pattern, README, re.DOTALL).group(1)


def test_the_main_job_is_one_command():
    (line,) = block("run").splitlines()
    assert "-c constraints.txt" in line


def test_the_tests_are_run_with_what_is_pinned_and_none_is_left_out():
    install, run = block("tests").splitlines()
    assert "-c constraints.txt" in install
    assert run.count("pytest") == 2
    assert '-m "not alone"' in run
    assert "-m alone" in run


def test_ci_runs_the_block_of_the_readme():
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_example_registers_what_it_says(tmp_path):
    file = tmp_path / "blend.py"
    file.write_text(block("example"), encoding="utf-8")
    include(file)
    assert INTERFACES.origin("blend").startswith(str(file))
    assert INTERFACES.help("blend") == "control: half token mean, half identity"


@pytest.mark.usefixtures("registries")
def test_the_way_to_an_own_interface_works(tiny, tmp_path, monkeypatch, capsys):
    """Each command as it stands, on a small model and text: written, checked, trained, scored."""
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line, comments=True) for line in block("own").splitlines()]
    assert [words[:2] for words in commands] == [
        ["dihal-bench", verb] for verb in ("new", "check", "run")
    ]
    for _, verb, *words in commands:
        flags = tiny.flags() if verb == "run" else []
        assert main([verb, *words, *flags]) == 0
    shown = capsys.readouterr().out
    assert "my-interface: all checks pass" in shown
    assert re.search(r"^my-interface +4 +ensemble", shown, re.MULTILINE)
    assert len(list(tmp_path.glob("runs/*/record.json"))) == 1
