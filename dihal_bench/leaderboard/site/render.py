"""The leaderboard's static site: pages that need no server, no network, and trust no record.

All text of a board is written by strangers. Templates escape it, data files hold it as JSON in
which nothing can end a script, names of files are checked, and a content security policy forbids
every script that is not one of the site's own.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.files import is_plain
from dihal_bench.core.markdown import counted
from dihal_bench.leaderboard.colours import interfaces
from dihal_bench.leaderboard.site.pages import (
    SIZES,
    about,
    curve_points,
    estimate,
    flattened,
    geometry,
    gigabytes,
    layer_rows,
    number,
    own_command,
    pairs,
    parts,
    score_tables,
    thinned_record,
)
from dihal_bench.leaderboard.site.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from jinja2 import Environment

_HERE = Path(__file__).parent
_ESCAPES = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&"}  # the rest of JSON is ASCII already
_SUMMARY = (
    "id",
    "interface",
    "label",
    "regime",
    "backbone",
    "corpus",
    "budget",
    "seed",
    "layer",
    "replaced",
    "table",
    "within",
)


def render_site(board: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the site of a board; the same board gives the same bytes.

    Args:
        board: tables, runs and sweeps as plain JSON values.
        folder: where the site is put, best a fresh one: what else lies there stays, and a site that
            cannot be finished is left as it is.

    Returns:
        All files of the site, in the order of their names.

    Raises:
        UserError: an id cannot be a file's name or occurs twice, a number is not finite, or the
            folder cannot be written.
    """
    _check_ids(board)
    written = [*_assets(folder), *_data(board, folder), *_pages(board, folder)]
    return sorted(written)


def _check_ids(board: Mapping[str, Any]) -> None:
    for part in ("tables", "runs", "sweeps"):
        ids = [entry["id"] for entry in board[part]]
        for name in ids:
            _check_id(name, part)
        twice = sorted(name for name, count in Counter(ids).items() if count > 1)
        if twice:
            raise UserError(f"{part}: the id {twice[0]} occurs twice; keep one of the two.")
    known = {run["id"] for run in board["runs"]}
    linked = {run for table in board["tables"] for row in table["rows"] for run in row["runs"]}
    missing = sorted(linked - known)
    if missing:
        raise UserError(f"a row names the run {missing[0]}, which is not among the board's runs.")


def _check_id(name: Any, where: str) -> None:
    if not is_plain(name):
        raise UserError(
            f"{where}: the id {name!r} cannot be a file's name; use letters, digits, '.', '_' and "
            "'-', a letter or digit first, and no '..'."
        )


def _assets(folder: Path) -> Iterator[Path]:
    for source in sorted((_HERE / "assets").rglob("*")):
        if source.is_file():
            path = folder / "assets" / source.relative_to(_HERE / "assets")
            yield _put(path, source.read_bytes())


def _data(board: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    summaries = [{key: run.get(key) for key in _SUMMARY} for run in _sorted_runs(board)]
    path = folder / "data" / "board.js"
    shown = {
        **{"tables": board["tables"], "sweeps": board["sweeps"], "runs": summaries},
        "interfaces": interfaces(board["runs"]),
    }
    yield _put(path, f"window.dihalBoard = {_parsed(shown, 'the board')};\n".encode())
    for run, summary in zip(_sorted_runs(board), summaries, strict=True):
        path = folder / "data" / "runs" / f"{run['id']}.js"
        own = _parsed({**summary, **thinned_record(run["record"])}, run["id"])
        start = "(window.dihalRuns ??= Object.create(null))"
        yield _put(path, f"{start}[{json.dumps(run['id'])}] = {own};\n".encode())


def _parsed(value: Any, where: str) -> str:
    """Return a JavaScript expression of a JSON value: parsed, so that no key is a prototype."""
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise UserError(f"{where}: a number is not finite; score the run anew.") from error
    return f"JSON.parse({json.dumps(text)})".translate(_ESCAPES)


def _pages(board: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    templates = _environment()
    runs = _sorted_runs(board)
    facts = {"board": board, "runs": runs, "generated_by": board["generated_by"], "sizes": SIZES}
    for name in ("index", "compare"):
        text = templates.get_template(f"{name}.html.j2").render(**facts, root="")
        yield _put(folder / f"{name}.html", text.encode())
    page = templates.get_template("run.html.j2")
    titles = {table["id"]: table["title"] for table in board["tables"]}
    for run in runs:
        text = page.render(**facts, run=run, titles=titles, root="../")
        yield _put(folder / "runs" / f"{run['id']}.html", text.encode())


def _put(path: Path, content: bytes) -> Path:
    try:
        path.write_bytes(content)
    except FileNotFoundError:  # asked of every file, this would be a fifth of the site's time
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def _sorted_runs(board: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return sorted(board["runs"], key=lambda run: str(run["id"]))


@cache
def _environment() -> Environment:
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=ChainableUndefined,  # records of strangers may lack any part
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "about": about,
        "counted": counted,
        "curve_points": curve_points,
        "estimate": estimate,
        "flattened": flattened,
        "geometry": geometry,
        "gigabytes": gigabytes,
        "layer_rows": layer_rows,
        "number": number,
        "own_command": own_command,
        "pairs": pairs,
        "parts": parts,
        "score_tables": score_tables,
        "verdict": verdict,
    }
    return templates
