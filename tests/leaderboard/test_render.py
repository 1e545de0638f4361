"""The leaderboard through the command line: rendered, checked, and nothing half-written."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from dihal_bench.leaderboard import board as board_module
from dihal_bench.leaderboard.groups import Group
from dihal_bench.leaderboard.template import page
from dihal_bench.results.record import Record

from ..conftest import dihal
from .conftest import Make

ROOT = Path(__file__).parents[2]


@pytest.fixture
def board(make: Make, tmp_path: Path) -> Path:
    """A leaderboard of six records."""
    folder = tmp_path / "board"
    for name in ("hidden", "embedding"):
        for seed in (1, 2, 3):
            record = make(name, seed=seed)
            record.write(folder / "records" / f"{record.data['id']}.json")
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time, and are what others are about."""
    monkeypatch.setattr("dihal_bench.leaderboard.figures.draw", lambda board, folder: [])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_records_give_the_same_bytes(board: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(board, tmp_path / "again"))
    for folder in (board, again):
        status, out, err = dihal("leaderboard", "--dir", str(folder))
        assert status == 0, err
        assert "6 runs, 1 table; " in out
    first = contents(board)
    assert first == contents(again)
    kinds = {Path(name).suffix for name in first}
    assert kinds >= {".md", ".csv", ".tex", ".png", ".svg", ".html", ".js", ".css", ".json"}
    assert len([name for name in first if name.startswith("runs/")]) == 6
    linked = set(re.findall(r'href="(tables/[^"]+)"', first["index.html"].decode()))
    assert linked == {name for name in first if name.startswith("tables/")}
    assert 'href="records/"' in first["index.html"].decode()
    status, out, _ = dihal("leaderboard", "--dir", str(board), "--check")
    assert (status, out) == (0, "everything is what the records say\n")
    assert "0 files changed" in dihal("leaderboard", "--dir", str(board))[1]
    assert contents(board) == first


@pytest.mark.usefixtures("undrawn")
def test_what_differs_is_named(board: Path) -> None:
    dihal("leaderboard", "--dir", str(board))
    (table,) = (board / "tables").glob("*.csv")
    table.write_text(table.read_text().replace("hidden", "hidden!"))
    old = board / "runs" / "old.html"
    manifest = board / "assets" / "rendered.txt"
    old.write_text("old")
    (board / "runs" / "mine.txt").write_text("not rendered, and nobody's business")
    manifest.write_text(manifest.read_text() + "runs/old.html\n../../etc/passwd\n")
    (board / "index.html").unlink()
    before = contents(board)
    status, out, _ = dihal("leaderboard", "--dir", str(board), "--check")
    assert status == 1
    named = {Path(line.split()[0]).name for line in out.splitlines()[:-1]}
    assert named == {table.name, "old.html", "index.html", "rendered.txt"}
    assert contents(board) == before  # looked at, not touched
    assert "4 files changed" in dihal("leaderboard", "--dir", str(board))[1]
    assert not old.exists()
    assert (board / "runs" / "mine.txt").exists()


@pytest.mark.usefixtures("undrawn")
def test_nothing_is_written_over_what_is_not_rendered(board: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.txt").write_text("mine")
    (board / "tables").symlink_to(elsewhere)
    status, _, err = dihal("leaderboard", "--dir", str(board))
    assert status == 2
    assert "tables was not written by this command" in err
    (board / "tables").unlink()
    (board / "index.html").write_text("mine")
    status, _, err = dihal("leaderboard", "--dir", str(board))
    assert status == 2
    assert "index.html was not written by this command" in err
    (board / "index.html").unlink()
    (board / "index.html").mkdir()
    assert dihal("leaderboard", "--dir", str(board))[0] == 2
    assert [p.name for p in elsewhere.iterdir()] == ["precious.txt"]
    assert {p.name for p in board.iterdir() if not p.name.startswith(".")} == {
        "records",
        "index.html",
    }


@pytest.mark.usefixtures("undrawn")
def test_a_record_edited_by_hand_stops_everything(board: Path) -> None:
    path = min((board / "records").iterdir())
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"metric": "nll"', '"metric": "kll"', 1), encoding="utf-8")
    before = contents(board)
    status, _, err = dihal("leaderboard", "--dir", str(board))
    assert status == 2
    assert "Traceback" not in err
    assert f"{path.name}: the field scores[" in err
    assert "nothing was written" in err
    assert contents(board) == before
    status, out, err = dihal("leaderboard", "--dir", str(board), "--keep-going")
    assert status == 0
    assert "5 runs" in out
    assert out.splitlines()[0].endswith("files changed; 1 file left out")
    assert "left out: " in err
    status, out, _ = dihal("leaderboard", "--dir", str(board), "--keep-going", "--check")
    assert (status, out) == (1, "1 file left out; the rest is what the other records say\n")
    (board / "index.html").write_text("edited")
    status, out, _ = dihal("leaderboard", "--dir", str(board), "--keep-going", "--check")
    assert (status, out.splitlines()[-1]) == (1, "1 file left out; 1 file differs")
    assert dihal("leaderboard", "verify", "--dir", str(board))[0] == 1


@pytest.mark.usefixtures("undrawn")
def test_a_board_is_not_emptied(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dihal("leaderboard", "--dir", str(board))
    first, *others = sorted((board / "records").iterdir())
    for path in others:
        path.write_text("{}", encoding="utf-8")
    whole = first.read_bytes()
    first.write_text("{}", encoding="utf-8")
    before = contents(board)
    for flags in ((), ("--check",)):
        status, out, err = dihal("leaderboard", "--dir", str(board), "--keep-going", *flags)
        assert (status, out) == (2, "")
        assert f"{first}: its schema is None" in err
        assert "(and 5 more); without it no record is left; nothing was written." in err
    assert contents(board) == before
    first.write_bytes(whole)
    failing(monkeypatch, first.stem)
    status, out, err = dihal("leaderboard", "--dir", str(board), "--keep-going")
    assert (status, out) == (2, "")
    assert f"{first.name} cannot be rendered (KeyError: 'kl')" in err


def failing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have the board fail over records of these ids, in a way that no field was refused for."""
    sound = board_module._run

    def fails(label: str, record: Record, group: Group) -> dict[str, Any]:
        if record.data["id"] in names:
            raise KeyError("kl")
        return sound(label, record, group)

    monkeypatch.setattr(board_module, "_run", fails)


@pytest.mark.usefixtures("undrawn")
def test_a_record_that_cannot_be_rendered_is_named_and_left_out(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = sorted(path.stem for path in (board / "records").iterdir())[1::3]
    failing(monkeypatch, *bad)
    before = contents(board)
    status, _, err = dihal("leaderboard", "--dir", str(board))
    assert status == 2
    assert f"{bad[0]}.json cannot be rendered (KeyError: 'kl'); report this" in err
    assert "(and 1 more)" in err
    assert err.rstrip().endswith("nothing was written.")
    assert contents(board) == before
    status, out, err = dihal("leaderboard", "--dir", str(board), "--keep-going")
    assert status == 0
    assert "4 runs, 1 table; " in out
    assert all(f"left out: {name}.json cannot be rendered" in err for name in bad)
    assert not [path for path in (board / "runs").iterdir() if path.stem in bad]


@pytest.mark.usefixtures("undrawn")
def test_what_fails_over_every_record_is_no_records_fault(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, *(path.stem for path in (board / "records").iterdir()))
    with pytest.raises(KeyError):
        dihal("leaderboard", "--dir", str(board), "--keep-going")
    assert {path.name for path in board.iterdir()} == {"records"}


@pytest.mark.usefixtures("undrawn")
def test_a_failure_that_needs_several_records_is_not_hidden(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(records: Sequence[Record], sweeps: object) -> board_module.Board:
        if len(records) > 1:
            raise ZeroDivisionError
        return board_module.board_of(records, [])

    monkeypatch.setattr("dihal_bench.leaderboard.render.board_of", fails)
    with pytest.raises(ZeroDivisionError):
        dihal("leaderboard", "--dir", str(board), "--keep-going")


NEVER_RENDERED = (
    *("index.html/foo", "tables/README.md/foo", "tables", "assets/rendered.txt/x", "", "records"),
    *("runs//old.html", "runs/./old.html", "/runs/old.html", "runs/../records/one.json"),
    *(f"runs/{'x' * 300}.html", "/".join(["runs", *["x" * 250] * 20]), "runs/a\0b.html"),
    *("runs/.hidden", "runs/gone.html"),
)


@pytest.mark.usefixtures("undrawn")
def test_lines_that_were_never_rendered_are_left_alone(board: Path) -> None:
    dihal("leaderboard", "--dir", str(board))
    before = contents(board)
    manifest = board / "assets" / "rendered.txt"
    manifest.write_text(manifest.read_text() + "".join(f"{line}\n" for line in NEVER_RENDERED))
    mine = {f"runs/{name}": b"mine" for name in (".hidden", "old.html")}
    for name, content in mine.items():
        (board / name).write_bytes(content)
    status, out, err = dihal("leaderboard", "--dir", str(board), "--check")
    assert (status, err) == (1, "")
    assert out.splitlines()[-1] == "1 file differs"
    assert "1 file changed" in dihal("leaderboard", "--dir", str(board))[1]
    assert contents(board) == before | mine


@pytest.mark.usefixtures("undrawn")
def test_a_list_that_is_none_is_no_list(board: Path) -> None:
    dihal("leaderboard", "--dir", str(board))
    before = contents(board)
    (board / "assets" / "rendered.txt").write_bytes(b"\0no names\xff")
    table = next((board / "tables").glob("*.csv"))
    table.write_text("edited")
    status, _, err = dihal("leaderboard", "--dir", str(board))
    assert status == 2
    assert f"{table} was not written by this command" in err
    assert contents(board).keys() == before.keys()


@pytest.mark.usefixtures("undrawn")
def test_a_file_where_a_folder_belongs_is_named(board: Path) -> None:
    (board / "tables").write_text("mine")
    before = contents(board)
    status, _, err = dihal("leaderboard", "--dir", str(board))
    assert status == 2
    assert "tables was not written by this command" in err
    assert contents(board) == before


@pytest.mark.usefixtures("undrawn")
def test_the_readme_has_the_headline(board: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# x\n\n<!-- leaderboard -->\nold\n<!-- end -->\n\nrest\n")
    flags = ("leaderboard", "--dir", str(board), "--readme", str(readme))
    assert dihal(*flags)[0] == 0
    text = readme.read_text()
    assert "Brier-1" in text
    assert "old" not in text
    assert text.endswith("<!-- end -->\n\nrest\n")
    assert dihal(*flags, "--check")[0] == 0
    readme.write_text(text.replace("hidden", "bridge"))
    assert dihal(*flags, "--check")[0] == 1
    for between in ("", "\n"):
        readme.write_text(f"# x\n\n<!-- leaderboard -->\n{between}<!-- end -->\n")
        assert dihal(*flags)[0] == 0
        assert readme.read_text() == text.removesuffix("\nrest\n")
    readme.write_text("# x\n")
    status, _, err = dihal(*flags)
    assert status == 2
    assert "has no <!-- leaderboard -->" in err


@pytest.mark.parametrize("before", [True, False])
def test_the_folder_may_be_named_before_and_after_the_action(
    finished: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = ("--dir", "mine")

    def act(*words: str) -> tuple[int, str, str]:
        return (
            dihal("leaderboard", *folder, *words)
            if before
            else dihal("leaderboard", *words, *folder)
        )

    status, _, err = act("add", str(finished["hidden"]))
    assert status == 0, err
    assert len(list((tmp_path / "mine" / "records").glob("*.json"))) == 1
    assert act("verify")[1] == "1 of 1 records say the same as their sums\n"
    assert not (tmp_path / "leaderboards").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--check", "--hub-card", "RUN"), "leaderboard --hub-card has no use for --check"),
        (("--dir", "x", "--hub-card", "RUN"), "leaderboard --hub-card has no use for --dir"),
        (("--check", "verify"), "leaderboard verify has no use for --check"),
        (("--keep-going", "verify"), "leaderboard verify has no use for --keep-going"),
        (("--readme", "x", "add", "RUN"), "leaderboard add has no use for --readme"),
        (("--hub-card", "RUN", "add", "RUN"), "leaderboard add has no use for --hub-card"),
        (("--dir", "x", "submit-template"), "leaderboard submit-template has no use for --dir"),
        (("--dir", "x", "verify", "y.json"), "leaderboard verify RECORD has no use for --dir"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(
    finished: dict[str, Path], words: tuple[str, ...], said: str
) -> None:
    run = str(finished["embedding"])
    status, out, err = dihal("leaderboard", *(run if word == "RUN" else word for word in words))
    assert (status, out) == (2, "")
    assert f"{said}; leave it out." in err
    assert not (finished["embedding"] / "README.md").exists()


def test_locks_are_not_committed() -> None:
    git = ["git", "-C", str(ROOT), "check-ignore", "-q", "leaderboards/.records.lock"]
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    assert subprocess.run(git, check=False).returncode == 0


def test_an_empty_leaderboard_says_how_to_begin(tmp_path: Path) -> None:
    status, _, err = dihal("leaderboard", "--dir", str(tmp_path / "none"))
    assert status == 2
    assert "dihal-bench leaderboard add RUN" in err


def test_a_run_goes_all_the_way(finished: dict[str, Path], tmp_path: Path) -> None:
    folder = ("--dir", str(tmp_path / "board"))
    status, out, _ = dihal("leaderboard", "add", str(finished["hidden"]), *folder)
    assert status == 0
    assert out.startswith("added: ")
    assert (
        dihal("leaderboard", "verify", *folder)[1] == "1 of 1 records say the same as their sums\n"
    )
    assert dihal("leaderboard", *folder)[0] == 0
    status, out, _ = dihal("leaderboard", "--hub-card", str(finished["hidden"]))
    assert status == 0
    assert (finished["hidden"] / "README.md").read_text().startswith("---\n")


def test_the_template_names_the_places_of_rivals() -> None:
    said = " ".join(page().split())
    assert "dihal-bench run --interface NAME --from 7 --layer 8 --seed 0" in said
    assert "ranked among interfaces that replace as many blocks" in said
    assert "A run that declares another has a table of its own, among the matched ones" in said


def test_the_template_is_what_continuous_integration_does() -> None:
    status, out, _ = dihal("leaderboard", "submit-template")
    assert (status, out) == (0, page())
    shown = out.split("```yaml\n")[1].split("```")[0].split("\n", 1)[1]
    committed = (ROOT / ".github" / "workflows" / "leaderboard.yml").read_text(encoding="utf-8")
    assert shown == committed
    steps = yaml.safe_load(committed)["jobs"]["records"]["steps"]
    said = [step["run"] for step in steps if "run" in step]
    assert "dihal-bench leaderboard verify" in said
