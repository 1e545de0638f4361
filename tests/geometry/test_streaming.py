"""Locating reads a text of any length in the same memory."""

import subprocess
import sys

import numpy as np
import pytest

from dihal_bench.geometry.activations import chosen_windows

PROGRAM = """
import re, sys
from pathlib import Path
import numpy as np
from dihal_bench.models.model import Backbone
from dihal_bench.geometry.locate import LocateConfig, locate
from dihal_bench.data.tokens import Windows

folder, length = sys.argv[1], int(sys.argv[2])


class Long:
    "Random text, made where it is read."

    window, fingerprint = 32, "long"

    def __len__(self):
        return length

    def batch(self, indices):
        indices = np.asarray(indices)
        tokens = np.stack([np.random.default_rng(i).integers(300, size=32) for i in indices])
        positions = np.tile(np.arange(32), (len(indices), 1))
        return Windows(
            tokens=tokens, positions=positions, documents=np.tile(indices[:, None], 32),
            offsets=positions, scored=positions > 0, bytes=tokens, words=tokens,
        )


config = LocateConfig(windows=64, sample=200, resamples=1, stability_sample=100,
                      stability_resamples=1, pairs=100)
locate(Backbone.load(folder), Long(), config, residual="token-mean", seed=0)
status = Path("/proc/self/status").read_text()
print(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1])
"""


def peak(backbone, windows):
    """Peak resident memory of a process that locates in a text of so many windows, in MiB."""
    command = [sys.executable, "-c", PROGRAM, str(backbone), str(windows)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_text(tiny):
    short, long = peak(tiny.backbone, 20_000_000), peak(tiny.backbone, 200_000_000)
    print(f"\npeak: {short:.0f} MiB for 20 million windows, {long:.0f} MiB for 200 million")
    assert long - short < 20  # one byte per window more would be 172 MiB


@pytest.mark.parametrize("length", [5, 100, 3 * 2**20], ids=str)
def test_windows_are_drawn_once_each_and_from_the_whole_text(length):
    drawn = chosen_windows(range(length), 50, np.random.default_rng(0))
    assert len(drawn) == len(set(drawn.tolist())) == min(50, length)
    assert (np.diff(drawn) > 0).all()
    assert drawn[0] >= 0
    assert drawn[-1] < length
    if length > 100:
        many = [chosen_windows(range(length), 50, np.random.default_rng(i)) for i in range(200)]
        counts = np.histogram(np.concatenate(many), bins=10, range=(0, length))[0]
        assert counts == pytest.approx(1000, rel=0.15)
