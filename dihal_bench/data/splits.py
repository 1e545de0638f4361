"""The sets that a folder's files are of, by their names: those that ``datasets`` goes by too.

A file, or a folder that it lies in, is of a set if its name is that of the set, or begins or ends
with it, apart from the rest by a dot, a dash, an underscore, a space or a digit: ``train.jsonl``,
``data/train-00000-of-00002.parquet``, ``dev/a.txt``, ``book_val.txt``. The name next to the text
decides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import say
from dihal_bench.data.readers import check_suffix, is_beside

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_NAMES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}
_NAME = f"({'|'.join(_NAMES)})"
_FIRST = rf"{_NAME}(?:[-._ \d].*)?"
_LAST = rf".*[-._ ]{_NAME}[-._ \d]*(?:\.[a-z].*)?"
_NAMED = re.compile(f"{_FIRST}|{_LAST}", re.IGNORECASE)


def sets_of(corpus: str, folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files of each set, in their order: of training, and of validation where it is.

    Files about a data set, such as its card, and those of a test set are left out. Where no file is
    named as training text, all that are of no set are.

    Args:
        corpus: what the user calls the corpus, for errors.
        folder: that is read.
        files: in it.

    Raises:
        UserError: a file is of no format, or it is not clear which set one is of.
    """
    sets: dict[str, list[Path]] = {}
    for file in files:
        if not is_beside(file.name):
            check_suffix(corpus, file)
            sets.setdefault(_set_of(file.relative_to(folder).parts), []).append(file)
    others = sets.pop("", [])
    if others and TRAIN in sets:
        raise UserError(
            f"--corpus {corpus}: {others[0]} is of no set, and other files are named "
            f"{TRAIN}; name it by its set, or take it away."
        )
    if others:
        sets[TRAIN] = others
    if sets and TRAIN not in sets:
        raise UserError(
            f"--corpus {corpus}: all files are of a set for {' or '.join(sets)}, and none is for "
            f"training; add {TRAIN} files, or give one of the files itself."
        )
    if left := sets.pop(TEST, []):
        say(f"corpus: files of its test set are left out: {len(left)}")
    return sets


def _set_of(parts: Sequence[str]) -> str:
    """Return the set that a path is of; "" if none of its names says so."""
    for part in reversed(parts):
        if match := _NAMED.fullmatch(part):
            return _NAMES[(match[1] or match[2]).lower()]
    return ""
