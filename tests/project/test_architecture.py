"""The structure of the code: imports go one way, and the rules of the house that can be counted."""

import ast
import functools
import graphlib
import itertools
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
# From the top down; a package imports from lower floors only, and not from its neighbours.
FLOORS = (
    ("cli",),
    ("leaderboard",),
    ("reporting",),
    ("studies",),
    ("runs", "check"),
    ("evaluation",),
    ("config",),
    ("training", "baselines"),
    ("interfaces",),
    ("geometry",),
    ("models", "tasks"),
    ("data", "diffusion", "results"),
    ("core",),
)
LEVEL = {package: -level for level, packages in enumerate(FLOORS) for package in packages}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Full name -> what is written there, of all that is installed."""
    found = {}
    for folder in ("dihal_bench", "baselines", "tasks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            inner = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(part for part in inner if part not in ("dihal_bench", "__init__"))
            found[f"dihal_bench.{name}".rstrip(".")] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def imports(name: str) -> set[str]:
    """Modules of the project that one imports anywhere, for types and inside functions too."""
    tree, found = modules()[name], set()
    if name == "dihal_bench":  # its public names are imported when somebody asks for one
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parent = name.split(".")[: -node.level] if node.level else []
            source = ".".join([*parent, *filter(None, [node.module])])
            full = {f"{source}.{alias.name}" for alias in node.names}
            found |= {module if module in modules() else source for module in full}
    return {module for module in found if module in modules()} - {name}


def package(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_every_package_has_a_floor_and_no_module_lies_loose():
    inner = [path for path in (ROOT / "dihal_bench").iterdir() if path.name != "__pycache__"]
    loose = {path.name for path in inner if path.is_file()}
    assert loose == {"__init__.py", "__main__.py", "py.typed"}
    packages = {path.name for path in inner if path.is_dir()} | {"baselines", "tasks"}
    assert packages == set(LEVEL)


def test_imports_go_down():
    upwards = [
        (name, other)
        for name in modules()
        for other in imports(name)
        if package(name) != package(other)
        and {package(name), package(other)} <= set(LEVEL)
        and LEVEL[package(other)] >= LEVEL[package(name)]
    ]
    assert upwards == []


def test_no_modules_import_each_other_in_a_circle():
    order = graphlib.TopologicalSorter({name: imports(name) for name in modules()})
    order.prepare()  # raises CycleError, which names the modules


def test_class_names_are_given_once():
    names = Counter(
        node.name
        for tree in modules().values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    twice = {name for name, count in names.items() if count > 1}
    assert len(twice) <= 4, twice


def test_whoever_catches_everything_says_why():
    blind = re.compile(r"\s*except( \(?(Base)?Exception\b.*)?:\s*$")
    assert [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for folder in ("dihal_bench", "baselines", "tasks")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if blind.match(line)
    ] == []


def test_no_file_is_longer_than_four_hundred_lines():
    folders = ("dihal_bench", "baselines", "tasks", "tests")
    files = itertools.chain.from_iterable((ROOT / folder).rglob("*.py") for folder in folders)
    lines = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {name: count for name, count in lines.items() if count > 400} == {}
