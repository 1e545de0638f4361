"""A small finished run, copies of its record that say something else, and sites in a browser."""

import copy
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.core.files import short_hash
from dihal_bench.leaderboard.site.render import render_site
from dihal_bench.results.record import Record

from ..conftest import Tiny, dihal
from .boards import board
from .browsing import Watched

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


def told(record: Record, value: float, seed: int, fooled: tuple[str, ...] = ()) -> Record:
    """A record with generated text that has a score."""
    data = copy.deepcopy(record.data)
    name = data["interface"]["name"]
    score = {
        **next(s for s in data["scores"] if s["subject"] == name and s["steps"] == 4),
        **{"metric": "gen_ppl", "value": value, "lo": value - 1, "hi": value + 1, "unit": "per t"},
        **{"kind": "estimate", "task": "samples", "signal": "generated", "chains": 1},
        "details": {"fooled_by": list(fooled)},
    }
    entropy = {**score, "metric": "entropy", "value": 4.2, "lo": 4.2, "hi": 4.2, "details": {}}
    data["scores"] += [score, entropy]
    data["tasks"] = {"samples": {"key": "k", "rows": []}}
    reseed(data, seed)
    data["run"] = f"{name}-{seed}"
    return Record.of(data)


@pytest.fixture(scope="module")
def browser():
    """A Chromium; whoever asks for it is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        own = started.chromium.executable_path
        found = os.environ.get("CHROMIUM") or shutil.which("chromium")
        path = found or (own if Path(own).exists() else None)
        if path is None:
            pytest.skip("no Chromium: apt-get install chromium, or playwright install chromium")
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Open pages of a site; none of them may have had a problem in the end."""
    opened = []

    def of(folder, **context):
        opened.append(Watched(browser, folder, **context))
        return opened[-1]

    yield of
    problems = [problem for watched in opened for problem in watched.problems]
    for watched in opened:
        watched.context.close()
    assert problems == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a site of 24 runs, and their ids."""
    given = board(24)
    folder = tmp_path_factory.mktemp("site")
    render_site(given, folder)
    return folder, [run["id"] for run in given["runs"]]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The same with markup in every text."""
    given = board(24, hostile=True)
    folder = tmp_path_factory.mktemp("hostile")
    render_site(given, folder)
    return folder, [run["id"] for run in given["runs"]]
