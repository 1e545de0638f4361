"""One checkout at a time: where ``baselines`` and ``tasks`` may lie, and where they may not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What setuptools installs for an editable checkout: found after all that lies on the path.
HOOK = """
import sys
from os.path import exists
from importlib.util import spec_from_file_location
folders, *search = sys.argv[1:4]
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
class Editable:
    @staticmethod
    def find_spec(name, path=None, target=None):
        file = f"{folders}/{name.rpartition('.')[2]}/__init__.py"
        if name in ("dihal_bench.baselines", "dihal_bench.tasks") and exists(file):
            return spec_from_file_location(name, file, submodule_search_locations=[])
sys.meta_path.append(Editable)
sys.path[:0] = search[:1]
"""
PLACE = (
    HOOK + "from dihal_bench.core.checkout import place_of; print(place_of('dihal_bench.tasks'))"
)
LIST = HOOK + "from dihal_bench.cli.main import main; sys.exit(main(['list']))"


def python(code: str, hooked: Path, searched: Path) -> subprocess.CompletedProcess[str]:
    """Run code where an editable install leads to one folder and the path to another."""
    command = [sys.executable, "-c", code, str(hooked), str(searched)]
    return subprocess.run(
        command, cwd=searched, capture_output=True, text=True, check=False, env=dict(os.environ)
    )


def checkout(folder: Path, *, inside: str = "") -> Path:
    """The parts of a checkout that matter here; ``inside`` dihal_bench as a wheel has it."""
    left = shutil.ignore_patterns("bundled", "assets", "__pycache__", "baselines", "tasks")
    shutil.copytree(ROOT / "dihal_bench", folder / "dihal_bench", ignore=left)
    for name in ("baselines", "tasks"):
        (folder / inside / name).mkdir()
        (folder / inside / name / "__init__.py").write_text("", encoding="utf-8")
    return folder


def linked(real: Path, folder: Path) -> Path:
    """A strict editable install: folders of links to the files of the checkout."""
    for file in real.rglob("*.py"):
        inner = file.relative_to(real)
        inner = inner if inner.parts[0] == "dihal_bench" else Path("dihal_bench") / inner
        (folder / inner).parent.mkdir(parents=True, exist_ok=True)
        (folder / inner).symlink_to(file)
    return folder


@pytest.mark.parametrize("layout", ["wheel", "editable", "strict", "link inside", "link to all"])
def test_every_way_to_install_one_checkout_is_accepted(tmp_path, layout):
    one = checkout(tmp_path / "one", inside="dihal_bench" if layout == "wheel" else "")
    searched = one
    if layout == "strict":
        searched = linked(one, tmp_path / "links")
    if layout == "link inside":
        (one / "dihal_bench" / "tasks").symlink_to("../tasks")
    if layout == "link to all":
        searched = tmp_path / "link"
        searched.symlink_to(one)
    done = python(PLACE, one, searched)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).name == "tasks"


def test_baselines_of_another_checkout_are_refused(tmp_path):
    """A second checkout with the first one's environment, as ``python -m`` in it starts it."""
    second = checkout(tmp_path / "second")
    done = python(LIST, ROOT, second)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for part in (str(second), str(ROOT / "baselines"), "pip install -e ."):
        assert part in line
    assert "another checkout" in python(PLACE, ROOT, second).stderr.splitlines()[-1]


def test_a_folder_of_links_to_another_checkout_is_refused(tmp_path):
    one, second = checkout(tmp_path / "one"), checkout(tmp_path / "second")
    (second / "dihal_bench" / "tasks").symlink_to(one / "tasks")
    assert "another checkout" in python(PLACE, second, second).stderr.splitlines()[-1]


def test_packages_that_are_nowhere_are_named(tmp_path):
    second = checkout(tmp_path / "second")
    (second / "tasks" / "__init__.py").unlink()
    line = python(PLACE, second, second).stderr.splitlines()[-1]
    assert "dihal_bench.tasks is missing" in line
    assert f"`pip install -e .` in {second}" in line
