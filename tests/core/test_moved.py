"""Included files of finished runs name modules where they were when the run was made."""

import importlib
import subprocess
import sys

import pytest

from dihal_bench.core.moved import MOVED

from ..conftest import Tiny, dihal

EARLIER = """
import dihal_bench.backbone.model
from dihal_bench import distributed
from dihal_bench.backbone.model import Backbone
from dihal_bench.diffusion.past import Past
from dihal_bench.errors import UserError
from dihal_bench.interfaces.batch import Batch
from dihal_bench.baselines.lookups import TokenMean
from dihal_bench.registry import INTERFACES
from dihal_bench.text.tokens import Windows


@INTERFACES.register("of-old")
class OfOld(TokenMean):
    "Predicts the token's mean state."

    def predict(self, batch):
        if not isinstance(self.backbone, Backbone) or distributed.size() != 1:
            raise UserError("a second copy of a module")
        return super().predict(batch)
"""


@pytest.mark.parametrize("old", MOVED)
def test_a_module_is_the_same_under_both_names(old):
    moved = importlib.import_module(f"dihal_bench.{old}")
    assert moved is importlib.import_module(f"dihal_bench.{MOVED[old]}")
    assert moved.__spec__.name == moved.__name__ == f"dihal_bench.{MOVED[old]}"


def test_the_modules_of_a_package_that_moved_are_the_same():
    old = importlib.import_module("dihal_bench.backbone.model")
    assert old is importlib.import_module("dihal_bench.models.model")
    with pytest.raises(ModuleNotFoundError, match=r"dihal_bench\.models\.nothing"):
        importlib.import_module("dihal_bench.backbone.nothing")


def test_it_does_not_matter_which_name_is_first():
    code = (
        "from dihal_bench.registry import INTERFACES as old; import dihal_bench\n"
        "assert old is dihal_bench.INTERFACES is dihal_bench.core.registry.INTERFACES"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("registries")
def test_a_run_with_an_included_file_of_an_earlier_version(tiny: Tiny, tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(EARLIER, encoding="utf-8")
    out = tmp_path / "run"
    flags = ["--include", str(mine), "--interface", "of-old", "--controls", "", "--out", str(out)]
    status, _, told = dihal("run", *flags, *tiny.flags())
    assert status == 0, told
    assert "of-old" in (out / "record.json").read_text(encoding="utf-8")
