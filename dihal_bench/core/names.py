"""Names that files, tables and records may have."""

from __future__ import annotations

import re

from dihal_bench.core.files import short_hash

BUNDLED = "bundled"  # a backbone or corpus that comes with the installation
PLAIN = "[A-Za-z0-9][A-Za-z0-9._-]*"
_LONGEST = 128
_KEPT = 80  # letters of a name that is longer


def is_plain(name: object) -> bool:
    """Whether a name can be that of a file in the same folder, on every system."""
    fits = isinstance(name, str) and len(name) <= _LONGEST and ".." not in name
    return fits and re.fullmatch(PLAIN, str(name)) is not None


def safe(name: str) -> str:
    """Return a name for a file; of a long one the beginning, and a hash."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "unnamed"
    return plain if len(plain) <= _KEPT else f"{plain[:_KEPT]}-{short_hash(name)}"
