"""The tests of ``on_accelerator``, in a process that has the pretended device from its start.

Autograd has no queue for a device that comes after a first backward pass, and other tests shall not
find one.
"""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone
HERE = Path(__file__).parent


def run(*words: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", *words, str(HERE / "on_accelerator.py")]
    found = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1])
    assert found.returncode == 0, found.stdout[-5000:] + found.stderr[-1000:]


def test_everything_runs_on_one_device_and_waits_no_more_than_it_must() -> None:
    run()


@pytest.mark.nightly
def test_whole_runs() -> None:
    run("-m", "nightly")
