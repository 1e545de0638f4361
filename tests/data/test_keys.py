"""The set of keys agrees with Python's, and does not stay in memory."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dihal_bench.data.dedup import Keys

numbers = st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1), st.sampled_from([0, 2**64 - 1]))


@given(st.lists(numbers, min_size=1, max_size=40), numbers)
def test_agrees_with_a_set(added, limit):
    keys, expected = Keys(), set()
    for key in added:
        assert keys.add(key) == (key not in expected)
        expected.add(key)
    assert len(keys) == len(expected)
    assert (keys.least, keys.greatest) == (min(expected), max(expected))
    assert keys.below(limit) == sum(key < limit for key in expected)


PROGRAM = """
import random, re, sys
from pathlib import Path
from dihal_bench.data import dedup as keys

keys._CACHE = 2**12
draw, seen = random.Random(0), keys.Keys()
for _ in range(int(sys.argv[1])):
    seen.add(draw.getrandbits(64))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_keys():
    def peak(keys: int) -> float:
        command = [sys.executable, "-c", PROGRAM, str(keys)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout) / 1024

    assert peak(800_000) - peak(200_000) < 4  # a set of 600,000 more takes 38 MiB
