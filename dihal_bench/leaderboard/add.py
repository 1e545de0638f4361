"""Records of finished runs go into the leaderboard's folder, or are refused with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from dihal_bench.core.errors import UserError
from dihal_bench.leaderboard.store import LARGEST, blamed_on, file_of, read_named, read_stranger
from dihal_bench.leaderboard.verify import verify, within_budget

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.leaderboard.store import Store
    from dihal_bench.results.record import Record

_NEWER = ("tasks", "audits")  # what a run that is scored again has more of


def add(store: Store, runs: Sequence[Path], *, say: Callable[[str], None]) -> list[Path]:
    """Copy the records of runs, all or none of them.

    A record that is there already is left alone. One of the same run that was scored further takes
    the place of the earlier one.

    Args:
        store: where they go.
        runs: folders of runs, or files of records.
        say: takes one-line messages for a person.

    Returns:
        The files that are new.

    Raises:
        UserError: one is no valid record, contradicts itself, or is another record of a run that is
            there.
    """
    records = [_read(run) for run in runs]
    _refuse_two_of_a_run(records)
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--dir: {store.folder} cannot be made ({error.strerror}); give another folder."
        ) from error
    with store.locked():
        steps = [(record, _replaced(store, record)) for record in records]
        added = []
        for record, old in steps:
            place = store.place(record)
            state = _state(place, record)
            if state == "there":
                say(f"already there: {place}")
                continue
            record.write(place)
            for path in old:
                path.unlink()
                say(f"scored further: {place} instead of {path.name}")
            if state == "damaged":
                say(f"restored: {place}, which was damaged")
            elif not old:
                say(f"added: {place}")
            if not within_budget(record.data):
                say("  it did not keep to its budget, and stands in the section of unmatched runs")
            added.append(place)
    return added


def _state(place: Path, record: Record) -> Literal["free", "there", "damaged"]:
    """Return what is in a record's place: nothing, the same record, or what is none any more.

    Raises:
        UserError: it is no regular file, or another record.
    """
    if not place.exists() and not place.is_symlink():
        return "free"
    if place.is_symlink() or not place.is_file():
        raise UserError(f"{place} is no regular file; move it away, and add the record again.")
    try:
        there = read_stranger(place)
    except UserError:
        return "damaged"
    if there.data != record.data:
        raise UserError(f"{place} is another record of the same id; take one of the two away.")
    return "there"


def _read(run: Path) -> Record:
    path = file_of(run)
    with blamed_on(path, "verified"):
        record = read_named(path)
        verify(record)
    written = len(record.text().encode())
    if written > LARGEST:
        raise UserError(f"{path} takes {written:,} bytes, and a record at most {LARGEST:,}.")
    return record


def _refuse_two_of_a_run(records: Sequence[Record]) -> None:
    seen: dict[str, str] = {}
    for record in records:
        run, name = record.data["run"], record.data["id"]
        if seen.setdefault(run, name) != name:
            raise UserError(f"{seen[run]} and {name} are of one run; give the later one alone.")


def _replaced(store: Store, record: Record) -> list[Path]:
    """Return the earlier records of the run.

    Raises:
        UserError: one of them is no earlier state of this record.
    """
    own = [path for path in store.of_run(record.data["run"]) if path != store.place(record)]
    for path in own:
        earlier = read_stranger(path)
        field = _contradiction(earlier, record)
        if field is not None:
            raise UserError(
                f"{record.data['id']}: another record of the run {record.data['run']} is there, "
                f"{path.name}, and they differ in the field {field}; delete one of them."
            )
    return own


def _contradiction(earlier: Record, later: Record) -> str | None:
    """Return what an earlier record has otherwise, if it is no earlier state of the later one."""
    old, new = earlier.data, later.data
    for name in sorted({*old, *new} - {"id", "seal", "scores", *_NEWER}):
        if old.get(name) != new.get(name):
            return name
    own = list(earlier.own_scores)
    if own != list(later.own_scores):
        return "scores"
    for task in sorted(old.get("tasks", {})):
        field = _task_contradiction(old, new, task)
        if field is not None:
            return field
    return None


def _task_contradiction(old: Mapping[str, Any], new: Mapping[str, Any], task: str) -> str | None:
    """Return what of a task's scores an earlier record has and a later one has not.

    A task that was scored otherwise has another key, and keys say nothing of which came first. Of
    more rows all may be scored anew; of the same rows nothing changes.
    """
    own, kept = old["tasks"][task], new.get("tasks", {}).get(task)
    if kept is None or kept["key"] != own["key"]:
        return f"tasks.{task}"
    if any(row not in kept["rows"] for row in own["rows"]):
        return f"tasks.{task}.rows"
    if len(kept["rows"]) > len(own["rows"]):
        return None
    said = [score for score in old["scores"] if score["task"] == task]
    if any(score not in new["scores"] for score in said):
        return f"scores (task {task})"
    audits = [data.get("audits", {}).get(task) for data in (old, new)]
    return None if audits[0] == audits[1] else f"audits.{task}"
