"""What is installed is what stands in the tree, and importing it stays cheap."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_listed_packages_are_those_of_the_tree():
    own = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for file in ROOT.glob("dihal_bench/**/__init__.py")
    }
    beside = {f"dihal_bench.{name}" for name in ("baselines", "tasks")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == own | beside


def test_constraints_pin_every_dependency_exactly():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    pins = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert all("==" in line and "+" not in line for line in lines)
    wanted = {name.split("[")[0] for name in map(_name, PROJECT["project"]["dependencies"])}
    assert wanted <= pins


def _name(requirement: str) -> str:
    for mark in "<>=!~ ":
        requirement = requirement.partition(mark)[0]
    return requirement.lower().replace("_", "-")


def test_version_is_that_of_the_distribution():
    import dihal_bench

    assert dihal_bench.__version__ == metadata.version("dihal-bench")


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, dihal_bench.cli.main; heavy = {'torch', 'transformers', 'diffusers', "
        "'datasets', 'scipy', 'matplotlib'} & set(sys.modules); sys.exit(bool(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_are_there_whatever_was_imported_before():
    code = (
        "import sys, dihal_bench\nassert 'torch' not in sys.modules\n"
        "assert {'Backbone', 'Record', 'RunConfig', 'run'} <= set(dir(dihal_bench))\n"
        "import dihal_bench.cli.main, dihal_bench.runs.context, dihal_bench.results.record\n"
        "from dihal_bench import Backbone, Record, RunConfig, run\n"
        "assert run is dihal_bench.runs.context.run and callable(dihal_bench.run)\n"
        "assert not hasattr(dihal_bench, 'nothing')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_file_is_longer_than_four_hundred_lines():
    files = [p for d in ("dihal_bench", "baselines", "tests") for p in (ROOT / d).rglob("*.py")]
    assert {p.name: n for p in files if (n := len(p.read_text().splitlines())) > 400} == {}
