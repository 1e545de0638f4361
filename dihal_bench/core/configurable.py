"""Classes that may have settings of their own: interfaces, denoisers, samplers."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from typing import Any, ClassVar

from dihal_bench.core.errors import UserError


class Configurable:
    """A registered class whose objects may have settings of their own.

    Attributes:
        Options: frozen keyword-only dataclass of these settings, each with a default; None: there
            are none.
        options: an object's settings, of that class.
    """

    Options: ClassVar[type | None] = None
    options: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse settings whose values cannot tell one run from another."""
        super().__init_subclass__(**kwargs)
        if cls.Options is not None and not _is_plain(cls.Options):
            raise UserError(
                f"{cls.__qualname__}.Options must be a frozen dataclass whose fields all have "
                "defaults; write @dataclass(frozen=True, kw_only=True) over it."
            )

    @classmethod
    def with_defaults(cls, given: Any) -> Any:
        """Return the given settings, or the defaults where there are none."""
        return given or (cls.Options() if cls.Options else None)


def _is_plain(kind: Any) -> bool:
    if not is_dataclass(kind) or kind.__hash__ is None:  # only a frozen one has a hash
        return False
    return not any(f.default is f.default_factory is MISSING for f in fields(kind))
