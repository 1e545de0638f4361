"""Two thousand records of real size: rendered in seconds, and within a gigabyte."""

import copy
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.results.record import Record

from .conftest import Make, reseed

RECORDS, SEEDS = 2000, 3
BYTES = 60_000  # of a record of the bundled text, about
SECONDS = 20.0  # on two cores that have nothing else to do
BUSY = 3.0  # how much longer it may take on a machine that has
GIGABYTE = 1e9 / 1024  # in units of the system
# What the system says a process took is, where it was forked, what its parent took.
RENDER = """if __name__ == "__main__":
    import sys
    from pathlib import Path
    from dihal_bench.cli.main import main
    status = main(sys.argv[1:])
    print(Path("/proc/self/status").read_text())
    sys.exit(status)
"""


def of_real_size(record: Record) -> dict[str, Any]:
    """A record with its documents repeated until it is as long as that of a real run."""
    data, length = copy.deepcopy(record.data), len(record.text())
    sums = data["sums"]
    numbers = len(str([list(row["sums"].values()) for row in sums["rows"]]))
    times = max(1, round((BYTES - length) / numbers) + 1)
    for counts in ("tokens", "words", "bytes"):
        sums[counts] = sums[counts] * times
    for row in sums["rows"]:
        row["sums"] = {name: own * times for name, own in row["sums"].items()}
    sums["documents"] *= times
    return data


@pytest.mark.nightly
def test_two_thousand_records_are_rendered_in_seconds(make: Make, tmp_path: Path) -> None:
    shapes = [of_real_size(make(name)) for name in ("hidden", "embedding")]
    written = []
    (tmp_path / "records").mkdir()
    for place in range(RECORDS):
        data = copy.deepcopy(shapes[place % len(shapes)])
        row, seed = divmod(place // len(shapes), SEEDS)
        data["run"] = f"{data['interface']['name']}-{place:012x}"
        data["config"]["losses"]["ce"] = 0.03 + row / 1e4  # what tells rows of a table apart
        reseed(data, seed)
        record = Record.of(data)
        path = tmp_path / "records" / f"{record.data['id']}.json"
        path.write_text(record.text(), encoding="utf-8")  # not synchronised: that takes minutes
        written.append(path.stat().st_size)
    assert BYTES / 2 < sum(written) / RECORDS < 2 * BYTES
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", RENDER, "leaderboard", "--dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stderr
    assert f"{RECORDS:,} runs" in done.stdout
    assert len(list((tmp_path / "runs").iterdir())) == RECORDS
    peak = re.findall(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert 0 < int(peak[0]) < GIGABYTE
    assert seconds < BUSY * SECONDS
