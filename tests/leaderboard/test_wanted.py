"""Rows that the board lacks: which they are, and their making in several goes."""

import json
from pathlib import Path

import pytest

from dihal_bench.core.deadline import Deadline, OutOfTime, until
from dihal_bench.core.kept import read_tensors
from dihal_bench.core.progress import progress
from dihal_bench.leaderboard.store import Store
from dihal_bench.leaderboard.wanted import State, read_wanted
from dihal_bench.training.trainee import TrainState

from ..conftest import SETTINGS, Tiny, dihal

STEPS = 2  # of training, after which the time is over
COMMITTED = Path(__file__).parents[2] / "leaderboards"


def listed(tiny: Tiny, folder: Path, *interfaces: str) -> list[str]:
    """Write a list of small runs beside an empty board; return the flags that name both."""
    keys = {**SETTINGS, "backbone": tiny.backbone, "corpus": tiny.corpus, "dtype": "float32"}
    lines = [f'"{key}" = "{value}"' for key, value in keys.items()]
    rows = [
        "\n".join(
            (
                f'[[row]]\nname = "a {name}"\nseeds = [3]\n[row.keys]\ninterface = "{name}"',
                'layer = "2"' if name == "hidden" else "",
                'controls = "regress"' if name == "hidden" else 'controls = "lm"',
                *lines,
            )
        )
        for name in interfaces
    ]
    (folder / "board" / "records").mkdir(parents=True, exist_ok=True)
    (folder / "board" / "wanted.toml").write_text("\n\n".join(rows))
    return ["--dir", str(folder / "board"), "--out", str(folder / "out")]


def states(*flags: str) -> list[str]:
    status, out, err = dihal("reproduce", "--dry-run", "--json", *flags)
    assert status == 0, err
    return [row["state"] for row in json.loads(out)]


def test_what_shows_its_progress_ends_when_the_time_is_over() -> None:
    with until(0.0), progress("work", 3, unit="things") as bar, pytest.raises(OutOfTime):
        bar.update()
    with progress("work", 1, unit="things") as bar:
        bar.update()
    assert not Deadline.passed()


def test_rows_are_made_in_several_goes_to_the_same_end(tiny: Tiny, tmp_path: Path) -> None:
    flags = listed(tiny, tmp_path, "hidden", "embedding")
    assert states(*flags) == ["wanted", "wanted"]
    with pytest.MonkeyPatch.context() as patch:
        taken: list[int] = []
        update = TrainState.update
        patch.setattr(
            TrainState, "update", lambda own, step, of: taken.append(step) or update(own, step, of)
        )
        patch.setattr(Deadline, "passed", lambda: STEPS in taken)
        status, out, err = dihal("reproduce", *flags)
    assert status == 0, err
    assert "a hidden, seed 3" in out
    assert "0 made, 2 left" in out
    assert states(*flags) == ["begun", "wanted"]
    (checkpoint,) = (tmp_path / "out").rglob("training-*.safetensors")
    assert read_tensors(checkpoint).facts["training"]["step"] == STEPS + 1

    status, out, err = dihal("reproduce", *flags)
    assert status == 0, err
    assert "2 made, 0 left" in out
    assert states(*flags) == ["made, to be added"] * 2
    (command,) = [line for line in out.splitlines() if line.startswith("add them: ")]
    words = command.removeprefix("add them: dihal-bench ").split()
    assert dihal(*words, "--dir", str(tmp_path / "board"))[0] == 0
    assert states(*flags) == ["on the board"] * 2

    whole = tmp_path / "whole"
    alone = ["--interface", "hidden", "--layer", "2", "--controls", "regress", "--seed", "3"]
    assert dihal("run", *alone, *tiny.flags(), "--out", str(whole))[0] == 0
    (made,) = (tmp_path / "out").glob("hidden-*/record.json")
    one, other = (json.loads(path.read_text()) for path in (made, whole / "record.json"))
    assert one["run"] == other["run"]
    assert one["sums"] == other["sums"]


def test_no_time_begins_nothing(tiny: Tiny, tmp_path: Path) -> None:
    flags = listed(tiny, tmp_path, "hidden")
    status, out, _ = dihal("reproduce", *flags, "--minutes", "1e-9")
    assert status == 0
    assert "0 made, 1 left" in out
    assert states(*flags) == ["wanted"]


def test_what_cannot_be_made_here_keeps_nothing_else(tiny: Tiny, tmp_path: Path) -> None:
    flags = listed(tiny, tmp_path, "embedding", "embedding")
    path = tmp_path / "board" / "wanted.toml"
    path.write_text(path.read_text().replace(str(tiny.backbone), str(tmp_path / "none"), 1))
    status, out, _ = dihal("reproduce", *flags)
    assert status == 1
    assert str(tmp_path / "none") in out
    assert "1 made, 1 left" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("[[row", "TOML"),
        ("row = 3", "[[row]]"),
        ("device = 'cuda'", "[[row]]"),
        ("[[row]]\nname = 'x'\nseeds = [0]", "row 1"),
        ("[[row]]\nname = 'x'\nseeds = ['a']\nkeys = {}", "--seed"),
        ("[[row]]\nname = 'x'\nseeds = 0\nkeys = {}", "row 1"),
        ("[[row]]\nname = 'x'\nseeds = [0]\nkeys = 0", "row 1"),
        ("[[row]]\nname = 'x'\nseeds = [0]\nkeys = {nothing = 1}", "nothing"),
    ],
)
def test_a_list_that_is_none_is_one_sentence(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "wanted.toml"
    if text is not None:
        path.write_text(text)
    status, _, err = dihal("reproduce", "--wanted", str(path), "--dir", str(tmp_path), "--dry-run")
    assert status == 2
    assert said in err.splitlines()[-1]


def test_the_committed_list_can_be_made(tmp_path: Path) -> None:
    path, store = COMMITTED / "wanted.toml", Store(COMMITTED / "records")
    wanted = read_wanted(path, store, tmp_path, device="cpu")
    assert wanted
    assert len({own.run.folder for own in wanted}) == len(wanted)
    elsewhere = read_wanted(path, store, tmp_path, device="cuda")
    assert [own.run.folder for own in elsewhere] == [own.run.folder for own in wanted]
    assert all(own.state in (State.LISTED, State.WANTED) for own in wanted)
