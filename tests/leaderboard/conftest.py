"""A small finished run, and copies of its record that say something else."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.files import short_hash
from dihal_bench.records import Record

from ..conftest import Tiny, dihal

Make = Callable[..., Record]


@pytest.fixture(scope="session")
def finished(
    _tiny: Tiny, _tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Folders of a run of two interfaces with controls."""
    folder = tmp_path_factory.mktemp("leaderboard")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIHAL_BENCH_CACHE", str(_tiny_cache))
        for interface, controls in (("hidden", "regress,token-mean"), ("embedding", "lm")):
            found[interface] = folder / interface
            words = ("--interface", interface, "--controls", controls, "--layer", "2")
            status, _, err = dihal("run", *_tiny.flags(), *words, "--out", str(folder / interface))
            assert status == 0, err
    return found


def reseed(data: dict[str, Any], seed: int) -> None:
    """Make a record that of another training, which came out a little different."""
    data["config"]["seed"] = data["environment"]["seed"] = seed
    for row in data["sums"]["rows"]:
        if row["chains"] > 1:
            scale = 1 + 1e-6 * seed
            row["sums"] = {name: [scale * v for v in own] for name, own in row["sums"].items()}


@pytest.fixture(scope="session")
def make(finished: dict[str, Path]) -> Make:
    """Return a function that makes records like those of the runs."""
    known = {name: Record.read(folder / "record.json") for name, folder in finished.items()}

    def again(interface: str = "hidden", *, seed: int = 0, **changes: Any) -> Record:
        """Return a sealed copy, with another seed, and whole fields replaced."""
        data = copy.deepcopy(known[interface].data) | changes
        if seed:
            data["run"] = f"{interface}-{seed:012x}"
            reseed(data, seed)
        return Record.of(data)

    return again


def configured(record: Record, seed: int, **changes: Any) -> Record:
    """The same run with other settings; "a__b" is the key a.b."""
    data = copy.deepcopy(record.data)
    for name, value in changes.items():
        place = data["config"]
        *sections, last = name.split("__")
        for section in sections:
            place = place[section]
        place[last] = value
    reseed(data, seed)
    data["run"] = f"{data['interface']['name']}-{short_hash([seed, changes])}"
    return Record.of(data)
