"""The README's blocks are what CI runs and what its example says."""

import re
from pathlib import Path

import pytest

from dihal_bench.registry import INTERFACES, include

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name):
    pattern = rf"<!-- {name} -->\n```\w+\n(.*?)```\n<!-- end -->"
    return re.search(pattern, README, re.DOTALL).group(1)


@pytest.mark.parametrize("name", ["run", "tests"])
def test_each_job_is_one_command(name):
    (line,) = block(name).splitlines()
    assert "-c constraints.txt" in line


def test_ci_runs_the_block_of_the_readme():
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_example_registers_what_it_says(tmp_path):
    file = tmp_path / "blend.py"
    file.write_text(block("example"), encoding="utf-8")
    include(file)
    assert INTERFACES.origin("blend").startswith(str(file))
    assert INTERFACES.help("blend") == "control: half token mean, half identity"
