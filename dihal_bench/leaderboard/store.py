"""The folder of records: read with suspicion, for records come from strangers."""

from __future__ import annotations

from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dihal_bench.core.errors import UserError
from dihal_bench.core.files import is_plain, lock
from dihal_bench.leaderboard.parallel import spread
from dihal_bench.results.document_sums import COUNTS
from dihal_bench.results.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path


_REPORT = "report this: the field that it comes from should have been refused by name"


@contextmanager
def blamed_on(record: Path | str, what: str) -> Iterator[None]:
    """Turn whatever goes wrong into one sentence that names the record and the kind of failure.

    What a record may hold is said where it is read; this is for what nobody thought of there.

    Args:
        record: its file or id.
        what: was to be done with it, as a participle.

    Raises:
        UserError: something was raised; the cause is kept.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # records of strangers may make anything fail
        raise UserError(_sentence(str(record), what, error)) from error


def culprits(
    records: Sequence[Record], attempt: Callable[[Sequence[Record]], object], what: str
) -> dict[str, str]:
    """Find the records that something fails for when they are alone.

    Args:
        records: of which some, or all together, fail.
        attempt: does it for some records, or raises.
        what: it is, as a participle.

    Returns:
        Id -> a sentence that names the record and the kind of failure. Nothing: no single record is
        to blame.
    """
    try:
        attempt(records)
    except Exception as error:  # noqa: BLE001 (the same as above)
        if len(records) == 1:
            name = str(records[0].data["id"])
            return {name: _sentence(f"{name}.json", what, error)}
        half = len(records) // 2
        first = culprits(records[:half], attempt, what)
        return first | culprits(records[half:], attempt, what)
    return {}


def _sentence(record: str, what: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:200].rstrip(".") or "without a message"
    return f"{record} cannot be {what} ({type(error).__name__}: {said}); {_REPORT}."


LARGEST = 2**24  # bytes of a record
_RECORD = "record.json"  # in the folder of a run


@dataclass(frozen=True)
class Store:
    """The records of a leaderboard, one file each, named by its id.

    Attributes:
        folder: that holds them.
    """

    folder: Path

    def read(self) -> tuple[list[Record], list[str]]:
        """Read all records.

        Returns:
            The valid ones in the order of their ids, their sums as arrays and without seals, and
            a sentence for each of the others.
        """
        found = spread(_attempt, self.paths(), label="records", least=200, chunk=25)
        records = [own for own in found if isinstance(own, Record)]
        return records, [own for own in found if isinstance(own, str)]

    def paths(self) -> list[Path]:
        """Return the files of records.

        Raises:
            UserError: there is no such folder.
        """
        if not self.folder.is_dir():
            raise UserError(
                f"{self.folder} does not exist; add a first run by dihal-bench leaderboard add RUN."
            )
        return sorted(path for path in self.folder.iterdir() if not path.name.startswith("."))

    def of_run(self, run: str) -> Iterator[Path]:
        """Return the files of records of a run."""
        return (p for p in self.folder.glob("*.json") if p.stem.rpartition("-")[0] == run)

    def locked(self) -> AbstractContextManager[bool]:
        """Hold the folder against other processes."""
        return lock(self.folder, wait=True)

    def place(self, record: Record) -> Path:
        """Return where a record is kept."""
        return self.folder / f"{record.data['id']}.json"


def read_stranger(path: Path) -> Record:
    """Read one record file that anybody may have written.

    Raises:
        UserError: it is a link or no file, too large, not named by its id, or no valid record; the
            sentence names the file, and the field.
    """
    if path.is_symlink() or not path.is_file():
        raise UserError(f"{path} is no regular file; only records belong there.")
    record = read_named(path)
    name = record.data["id"]
    if path.name != f"{name}.json":
        raise UserError(f"{path}: the field id is {name}; name the file {name}.json.")
    return record


def read_named(path: Path) -> Record:
    """Read one record file that a person named; it may be called anything.

    Raises:
        UserError: it is too large, or no valid record; the sentence names the file, and the field.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise UserError(
            f"{path} has {size:,} bytes, and a record has at most {LARGEST:,}; take out of it what "
            "is no record."
        )
    record = Record.read(path)
    name = record.data["id"]
    if not is_plain(name):
        raise UserError(
            f"{path}: the field id is {name[:80]!r}; names have letters, digits, '.', '_' and '-', "
            "and begin with one of the first two."
        )
    return record


def file_of(named: Path) -> Path:
    """Return the record file that a person names: by itself, or by the folder of its run.

    Raises:
        UserError: there is none.
    """
    path = named / _RECORD if named.is_dir() else named
    if path.exists():
        return path
    if any(named.glob("*-*.json")):
        raise UserError(
            f"{named} is no folder of a run (there is no {_RECORD}); for the records in it give "
            f"the files: {named}/*.json."
        )
    raise UserError(
        f"{named} holds no complete run (there is no {_RECORD}); give the folder that dihal-bench "
        "run named, or finish that run first."
    )


def _attempt(path: Path) -> Record | str:
    """Return a record, its sums packed, or what is wrong with it."""
    try:
        with blamed_on(path, "read"):
            return _packed(read_stranger(path))
    except UserError as error:
        return str(error)


def _packed(record: Record) -> Record:
    """Return a record with arrays for the lists of its sums, without its seal, which was checked.

    It takes a quarter of the memory.
    """
    sums = {
        name: array("d", value) if name in COUNTS else value
        for name, value in record.data["sums"].items()
    }
    sums["rows"] = [
        {**row, "sums": {name: array("d", values) for name, values in row["sums"].items()}}
        for row in sums["rows"]
    ]
    kept, written = (
        {name: value for name, value in data.items() if name not in ("seal", "sums")}
        for data in (record.data, record.written or {})
    )
    return Record({**kept, "sums": sums}, written or None)
