"""What executors have in common, and how one is chosen on the command line.

An executor is a registered dataclass. Its fields are its flags, so that options live with it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.progress import say
from dihal_bench.core.registry import EXECUTORS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dihal_bench.runs.inputs import Inputs
    from dihal_bench.runs.work_unit import WorkUnit

DEFAULT = "local"


class Executor(ABC):
    """Where errands are done."""

    @abstractmethod
    def check(self) -> None:
        """Refuse at once what ``work_off`` would refuse after the work before it.

        Raises:
            UserError: what the executor needs is not here, or does not answer.
        """

    @abstractmethod
    def work_off(self, errands: Sequence[WorkUnit], folder: Path, inputs: Inputs) -> None:
        """Do every errand that is not done yet; one that fails does not keep others from it.

        Args:
            errands: of one command.
            folder: of the command; what an executor writes lies in its ``jobs``.
            inputs: backbone and text, for errands of the same in this process.

        Raises:
            UserError: errands failed, or the executor cannot be used.
        """


def option(
    default: Any,
    help: str,  # argparse's word
    *,
    parse: Callable[[str], Any] = str,
    **more: Any,
) -> Any:
    """Return a field of an executor that is a flag of the same name.

    Args:
        default: of the field; the flag's is None, which means not given.
        help: without the default.
        parse: of the flag's text.
        more: further arguments of argparse's ``add_argument``.
    """
    return field(default=default, metadata={"help": help, "flag": {"type": parse, **more}})


@dataclass
class WorkOutcome:
    """How the errands of a command went, as far as that is known.

    Attributes:
        total: errands that were to be done.
        failed: a sentence for each that failed.
    """

    total: int
    failed: list[str] = field(default_factory=list)

    def fail(self, sentence: str) -> None:
        """Keep in mind that an errand failed, and why; say so."""
        self.failed.append(sentence)
        if self.total > 1:
            say(f"failed: {sentence}")

    def close(self) -> None:
        """Tell what failed.

        Raises:
            UserError: something did.
        """
        if len(self.failed) == 1:
            raise UserError(self.failed[0])
        if self.failed:
            raise UserError(
                f"{len(self.failed)} of {self.total} jobs failed, the first: {self.failed[0]}"
            )


def execution_flags(parser: argparse.ArgumentParser) -> None:
    """Declare ``--executor`` and the flags of all executors."""
    group = parser.add_argument_group("where runs are done")
    names = ", ".join(EXECUTORS.names())
    group.add_argument("--executor", default=DEFAULT, help=f"{names} (default: {DEFAULT})")
    for flag, users in _flags().items():
        texts: dict[str, list[str]] = {}
        for name, own in users.items():
            texts.setdefault(own.metadata["help"], []).append(name)
        help = "; ".join(f"{', '.join(names)}: {text}" for text, names in texts.items())
        first = next(iter(users.values()))
        group.add_argument(f"--{flag}", help=help, **first.metadata["flag"])


def executor_of(arguments: argparse.Namespace) -> Executor:
    """Return the executor that the flags of ``execution_flags`` mean.

    Raises:
        UserError: there is none of that name, it has no such option, or a value is out of range.
    """
    name: str = arguments.executor
    kind = EXECUTORS.get(name)
    given = {
        flag: value for flag in _flags() if (value := getattr(arguments, flag, None)) is not None
    }
    for flag, users in _flags().items():
        if flag in given and name not in users:
            raise UserError(
                f"--{flag} {_typed(given[flag])}: --executor {name} has no such option; leave it "
                f"out, or choose --executor {' or '.join(users)}."
            )
    executor: Executor = kind(**given)
    return executor


def _typed(value: Any) -> str:
    """Return a flag's value as it was typed; of several the first."""
    first = value[0] if isinstance(value, list) else value
    return f"{first:g}" if isinstance(first, float) else str(first)


def _flags() -> dict[str, dict[str, Any]]:
    """Return flag -> executor -> its field."""
    found: dict[str, dict[str, Any]] = {}
    for name in EXECUTORS.names():
        for own in fields(EXECUTORS.get(name)):
            if "flag" in own.metadata:
                found.setdefault(own.name, {})[name] = own
    return found


def at_least(least: float, **values: float | None) -> None:
    """Refuse options below ``least``, and what is no finite number.

    Raises:
        UserError: one of them is.
    """
    for name, value in values.items():
        if value is not None and not least <= value < math.inf:
            raise UserError(f"--{name} {_typed(value)} must be {least:g} or more.")
