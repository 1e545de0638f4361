"""An interface's author who errs gets one sentence: the file, the method, what was expected."""

import pytest

from dihal_bench.cli.main import main

from ..conftest import Tiny

FILE = """
import torch
from dihal_bench.interfaces.hidden import HiddenSpace
from dihal_bench.core.registry import INTERFACES


@INTERFACES.register("mine")
class Mine(HiddenSpace):
    {}
"""
FAULTS = {
    "shape": (
        "def target(self, batch): return super().target(batch)[:, :-1]",
        r"Mine.target must give a float tensor [2, 32, 32], and gave float32 [2, 31, 32]",
    ),
    "NaN": (
        "def recover(self, x0, batch): return super().recover(x0, batch) * float('nan')",
        "Mine.recover must give a float tensor [2, 32, 320] of finite numbers, and gave",
    ),
    "raises": (
        "def condition(self, batch): return batch.nothing",
        "Mine.condition raised AttributeError",
    ),
    "no tensor": (
        "def condition(self, batch): return 3",
        "Mine.condition must give a float tensor [2, 32, 32], and gave int",
    ),
    "constructor": (
        "def __init__(self, *parts): raise TypeError('no')",
        "Mine.__init__ raised TypeError: no",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_stops_before_training(fault, tiny: Tiny, tmp_path, capsys, registries) -> None:
    body, sentence = FAULTS[fault]
    (tmp_path / "mine.py").write_text(FILE.format(body))
    flags = ["--include", str(tmp_path / "mine.py"), "--interface", "mine", "--controls", ""]
    out = tmp_path / "run"
    assert main(["run", *tiny.flags(), *flags, "--layer", "2", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.strip().splitlines()[-1]
    assert sentence in last
    assert "mine.py:" in last
    assert not list(out.glob("training*"))


def test_a_denoiser_that_cannot_be_used_is_refused(tiny: Tiny, tmp_path, capsys) -> None:
    flags = ["--interface", "embedding", "--regime", "sequence", "--denoiser", "mlp"]
    assert main(["run", *tiny.flags(), *flags, "--out", str(tmp_path / "run")]) == 2
    assert "--denoiser mlp sees one place at a time" in capsys.readouterr().err
    flags = ["--interface", "ridge", "--regime", "sequence", "--controls", ""]
    assert main(["run", *tiny.flags(), *flags, "--out", str(tmp_path / "run")]) == 2
    assert "ridge has no sequence regime" in capsys.readouterr().err
