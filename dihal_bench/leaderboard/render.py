"""The leaderboard's files, a pure function of its records: written anew, or only compared."""

from __future__ import annotations

import re
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.files import BUNDLED, PLAIN
from dihal_bench.core.markdown import escaped
from dihal_bench.leaderboard import figures
from dihal_bench.leaderboard.board import board_of, read_sweeps
from dihal_bench.leaderboard.site.render import render_site
from dihal_bench.leaderboard.store import Store, culprits
from dihal_bench.reporting import writers
from dihal_bench.results.metrics import main_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dihal_bench.leaderboard.board import Board
    from dihal_bench.results.record import Record
    from dihal_bench.results.table import Table

RECORDS = "records"
_MANIFEST = Path("assets/rendered.txt")  # the names of all rendered files
_OWNED = ("tables", "figures", "runs", "data", "assets", "index.html", "compare.html")
_NAME = re.compile(rf"(?=.{{1,255}}\Z){PLAIN}")  # of a file or folder that is rendered
_MARKED = re.compile(r"(<!-- leaderboard -->\n)(?:.*?\n)?(<!-- end -->)", re.DOTALL)
_HEADLINE = ("row", "rank", "gain_over", "flop_ratio", "steps", "nfe", "kind", "seeds", "n")


@contextmanager
def rendered(
    folder: Path, *, beside: bool, keep_going: bool, say: Callable[[str], None]
) -> Iterator[tuple[Board, Path, int]]:
    """Read a leaderboard's records and sweeps, compute its tables, and render everything.

    Args:
        folder: the leaderboard.
        beside: whether files are rendered in that folder, from where they can be put in their
            place; else elsewhere, and nothing is written in it.
        keep_going: leave out what cannot be read or rendered.
        say: takes one-line messages for a person.

    Yields:
        The board, a folder that holds what was rendered until this ends, and the number of files
        that were left out.

    Raises:
        UserError: a record or sweep cannot be read or rendered, and it is not to go on without it,
            or no record would be left.
    """
    store = Store(folder / RECORDS)
    records, problems = store.read()
    sweeps, more = read_sweeps(folder)
    out = [*problems, *more]
    refuse(out, keep_going=keep_going, left=bool(records) or not problems, say=say)
    with _scratch(folder if beside else None) as fresh:
        try:
            board = _board(records, sweeps, fresh)
        except OSError:  # of the disk, no record's
            raise
        except Exception:  # whatever a record may bring about
            records, _ = store.read()
            blamed = culprits(records, _alone, "rendered")
            if not blamed or 1 < len(records) == len(blamed):  # then it is no single record's
                raise
            records = [record for record in records if record.data["id"] not in blamed]
            refuse(list(blamed.values()), keep_going=keep_going, left=bool(records), say=say)
            out += blamed.values()
        else:
            yield board, fresh, len(out)
            return
    with _scratch(folder if beside else None) as fresh:
        yield _board(records, sweeps, fresh), fresh, len(out)


def _board(records: list[Record], sweeps: Sequence[Mapping[str, Any]], out: Path) -> Board:
    """Render a board of records, which are let go of once it is computed: they are large."""
    board = board_of(records, sweeps)
    records.clear()
    _render(board, out)
    return board


def _alone(records: Sequence[Record]) -> None:
    """Render some records, for nobody to see."""
    with _scratch(None) as out:
        _board(list(records), [], out)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".render-") as temporary:
        yield Path(temporary)


def refuse(
    problems: Sequence[str], *, keep_going: bool, left: bool, say: Callable[[str], None]
) -> None:
    """Stop at files that are not what they should be, or say what is left out.

    Args:
        problems: a sentence for each of them.
        keep_going: leave them out.
        left: whether there are records beside them: an empty board is nobody's wish.
        say: takes one-line messages for a person.

    Raises:
        UserError: there are some, and it is not to go on without them, or nothing would be left.
    """
    if problems and not (keep_going and left):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        without = "or leave it out with --keep-going" if left else "without it no record is left"
        raise UserError(f"{problems[0].rstrip('.')}{more}; {without}; nothing was written.")
    for problem in problems:
        say(f"left out: {problem}")


def put(fresh: Path, folder: Path) -> list[Path]:
    """Put what was rendered beside a leaderboard in the place of what was rendered before.

    Returns:
        The files that are new or have changed, and those that are gone, relative to the folder.

    Raises:
        UserError: something is in the way that this did not write; nothing was written then. Or the
            system refuses to write.
    """
    changed = differences(fresh, folder)
    _refuse_foreign(changed, folder)
    for path in changed:
        source, place = fresh / path, folder / path
        try:
            if source.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                source.replace(place)
            else:
                place.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"{place} cannot be written ({error.strerror}); mend that, and render again."
            ) from error
    return changed


def differences(fresh: Path, folder: Path) -> list[Path]:
    """Return the rendered files, relative to both folders, that differ or are in one of them alone.

    What else lies in the folder is nobody's business.
    """
    new = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    return sorted(
        path
        for path in new | _listed(folder)
        if path not in new
        or not (folder / path).is_file()
        or (fresh / path).read_bytes() != (folder / path).read_bytes()
    )


def _listed(folder: Path) -> set[Path]:
    """Return what was rendered here before, of a list that anybody may have edited, and is there.

    Lines that this never writes, such as ways out of the folder, are left alone.
    """
    try:
        lines = (folder / _MANIFEST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    parts = {line: line.split("/") for line in lines}
    ours = [Path(line) for line, own in parts.items() if own[0] in _OWNED and all(map(_part, own))]
    return {path for path in ours if _is_there(folder / path)}


def _part(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and ".." not in name


def _is_there(path: Path) -> bool:
    """Whether a file or link is there, under whatever name."""
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _refuse_foreign(changed: Sequence[Path], folder: Path) -> None:
    """Refuse to write through links, or over what was not rendered here.

    Raises:
        UserError: names what is in the way.
    """
    known = {_MANIFEST, *_listed(folder)}
    for path in changed:
        above = [folder / own for own in path.parents if own.name]
        blocked = [step for step in above if step.is_symlink() or step.is_file()]
        place = folder / path
        if place.is_symlink() or place.is_dir() or (place.exists() and path not in known):
            blocked.append(place)
        if blocked:
            raise UserError(
                f"{blocked[0]} was not written by this command; move it away, or give another "
                "--dir. Nothing was written."
            )


def _render(board: Board, out: Path) -> None:
    tables = out / "tables"
    tables.mkdir()
    forms = {"md": writers.markdown, "csv": writers.csv, "tex": writers.latex}
    for table in board.tables:
        for suffix, form in forms.items():
            (tables / f"{table.id}.{suffix}").write_text(form(table), encoding="utf-8")
    (tables / "README.md").write_text(_index(board.tables), encoding="utf-8")
    plain = board.to_dict()
    with ThreadPoolExecutor(1) as beside:  # many figures are drawn by processes of their own
        drawn = beside.submit(figures.draw, plain, out / "figures")
        render_site(plain, out)
        drawn.result()
    names = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    lines = sorted(str(name) for name in {*names, _MANIFEST})
    (out / _MANIFEST).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _index(tables: Sequence[Table]) -> str:
    """Return the page that names all tables."""
    parts = ["# Tables\n\nWritten by `dihal-bench leaderboard` from `../records`; do not edit."]
    for section in ("matched", "unmatched"):
        own = [table for table in tables if table.section == section]
        if own:
            parts.append(f"## {section.capitalize()} budgets")
            parts += [
                f"- {escaped(t.title)}: [Markdown]({t.id}.md), [CSV]({t.id}.csv), "
                f"[LaTeX]({t.id}.tex)"
                for t in own
            ]
    return "\n\n".join(parts[:1] + parts[1:2]) + "\n\n" + "\n".join(parts[2:]) + "\n"


def headline(board: Board) -> str:
    """Return a table's main columns, for a README: the largest ensembles alone.

    It is the first matched one of the bundled backbone, else the first: nobody's name comes before.
    """
    matched = [t for t in board.tables if t.kind == "likelihood" and not t.reason]
    if not matched:
        return "No runs yet."
    bundled = [t for t in matched if t.facts["backbone"] == BUNDLED]
    table = (bundled or matched)[0]
    largest: dict[tuple[str, int], int] = {}
    for row in table.rows:
        key = row.value("row"), row.value("steps")
        largest[key] = max(largest.get(key, 0), row.value("chains"))
    rows = [
        row
        for row in table.rows
        if row.value("role") != "trial"
        and largest[row.value("row"), row.value("steps")] == row.value("chains")
    ]
    kept = {*_HEADLINE, *(metric.name for metric in main_metrics())}
    columns = [column for column in table.columns if column.key in kept]
    return writers.excerpt(replace(table, rows=rows, columns=columns))


def fill_readme(path: Path, board: Board) -> str:
    """Return a README with the headline table between its markers.

    Raises:
        UserError: there is no such file, or it has no markers.
    """
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--readme {path}: {error}; give a Markdown file in UTF-8.") from error
    if not _MARKED.search(content):
        raise UserError(
            f"--readme {path} has no <!-- leaderboard --> and <!-- end --> for the table to stand "
            "between; add them where it belongs, each on a line of its own."
        )
    return _MARKED.sub(
        lambda found: f"{found[1]}\n{headline(board)}\n\n{found[2]}", content, count=1
    )
