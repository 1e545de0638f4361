"""Names that files, tables and records may have."""

from __future__ import annotations

import re

BUNDLED = "bundled"  # a backbone or corpus that comes with the installation
PLAIN = "[A-Za-z0-9][A-Za-z0-9._-]*"
_LONGEST = 128


def is_plain(name: object) -> bool:
    """Whether a name can be that of a file in the same folder, on every system."""
    fits = isinstance(name, str) and len(name) <= _LONGEST and ".." not in name
    return fits and re.fullmatch(PLAIN, str(name)) is not None
