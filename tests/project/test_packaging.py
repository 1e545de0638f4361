"""What is installed is what stands in the tree, and importing it stays cheap."""

import ast
import itertools
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("dihal_bench", "baselines", "tasks")
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


def test_what_is_imported_is_declared():
    """A library that comes with another one only may be gone with its next version."""
    called = {"sklearn": "scikit-learn", "yaml": "pyyaml", "mauve": "mauve-text"}
    optional = PROJECT["project"]["optional-dependencies"]
    declared = [*PROJECT["project"]["dependencies"], *itertools.chain(*optional.values())]
    imported = {
        source.partition(".")[0]
        for folder in PRODUCT
        for file in (ROOT / folder).rglob("*.py")
        for source in _imported(ast.parse(file.read_text(encoding="utf-8")))
    }
    others = imported - sys.stdlib_module_names - {"dihal_bench"}
    wanted = {called.get(name, name).replace("_", "-") for name in others}
    assert wanted <= {_name(line).partition("[")[0] for line in declared}


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


def test_types_are_checked_in_every_file_that_is_installed():
    settings = PROJECT["tool"]["mypy"]
    assert settings["strict"]
    assert settings["files"] == list(PRODUCT)
    assert "exclude" not in settings
    files = [file for folder in PRODUCT for file in (ROOT / folder).rglob("*.py")]
    assert all((file.parent / "__init__.py").is_file() for file in files)  # else mypy skips it


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
        "import dihal_bench.cli.main, dihal_bench.runs.execute, dihal_bench.results.record\n"
        "from dihal_bench import Backbone, Record, RunConfig, run\n"
        "assert run is dihal_bench.runs.execute.run and callable(dihal_bench.run)\n"
        "assert not hasattr(dihal_bench, 'nothing')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
