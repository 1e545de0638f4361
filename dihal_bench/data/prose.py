"""English prose in the docstrings of Python source: docstring -> paragraphs.

Triple-quoted strings are found by a regular expression rather than by ``ast``: fifteen times
faster, and it also sees docstrings attached at run time (``add_docstr``). The expression can lose
step with the quotes and return code; the prose filter discards that.

Run as a module it is one worker of the corpus builder: ``python -m dihal_bench.data.prose I N
PACKAGES`` writes one JSON line per source file (every N-th file from the I-th) to standard output.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_DOCSTRING = re.compile(r'^[ \t]*[rRuUbB]{0,2}("""|\'\'\')(.*?)\1', re.DOTALL | re.MULTILINE)
_ROLE = re.compile(r":(?:[a-z]+:)?[a-z]+:`~?\.?|``|\[?`~")  # cross-references and literals -> `
_BULLET = re.compile(r"(?:[-*+•]|\d+[.)]|\(\w{1,3}\))\s+(?=\S)")
_FIELD = re.compile(  # "name (type, *optional*): ", ":param name: ", "name : "
    r"(?::[^:]+:|[\w`*., /]+(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?\s*:)(?:\s+(?=\S)|$)"
)
_CODE = re.compile(
    r">>>|^\.\.\.|[|\\{}<>~^=]{2,}|::|-{3,}|https?:|^\.\. |```|@|\$"
    r"|(?:self|torch|np)\.\w+[ (]|^def |^class |^import |^from \w+ import"
)
_FUNCTION_WORDS = frozenset(
    "the a an of to is in and for that this be are as with by on it if or not from which can at "  # noqa: SIM905
    "when will has have was".split()
)
_MIN_CHARACTERS, _MAX_CHARACTERS, _MIN_WORDS = 32, 2400, 6
_MIN_LETTERS, _MIN_FUNCTION_WORDS = 0.80, 0.08  # shares of characters and of words


def source_files(packages: Sequence[str]) -> list[tuple[str, Path]]:
    """List the Python files of installed packages, sorted: (name relative to site-packages, path).

    Args:
        packages: import names; one that is not installed is passed over.
    """
    found = []
    for package in packages:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            root = Path(folder)
            found += [(p.relative_to(root.parent).as_posix(), p) for p in root.rglob("*.py")]
    return sorted(found)


def prose_paragraphs(source: str) -> Iterator[str]:
    """Yield the paragraphs of English prose in the docstrings of one source file, in order."""
    if '"""' not in source and "'''" not in source:
        return
    for match in _DOCSTRING.finditer(source):
        for lines in _blocks(_ROLE.sub("`", match.group(2)).expandtabs()):
            text = " ".join(" ".join(lines).split())
            if _is_prose(text):
                yield text


def _blocks(docstring: str) -> Iterator[list[str]]:
    """Split at blank lines, at list items and fields, and where a body leaves its header."""
    block: list[str] = []
    indent = 0
    for line in docstring.split("\n"):
        body = line.strip()
        if not body:
            if block:
                yield block
            block = []
            continue
        depth = len(line) - len(line.lstrip())
        item = _BULLET.match(body) or _FIELD.match(body)
        ends = depth < indent or (item and depth <= indent) or _is_header(block, depth - indent)
        if block and ends:
            yield block
            block = []
        if not block and item and item.end() < len(body):
            body = body[item.end() :]
        block.append(body)
        indent = depth
    if block:
        yield block


def _is_header(block: list[str], indented_by: int) -> bool:
    """Tell whether a single line ("Args:", "x : array_like") is only the header of what follows."""
    if indented_by <= 0 or len(block) != 1:
        return False
    return block[0][-1] == ":" or not block[0][0].isupper()


def _is_prose(text: str) -> bool:
    if not _MIN_CHARACTERS <= len(text) <= _MAX_CHARACTERS or text[-1] not in ".!?:":
        return False
    if not (text[0].isalpha() or text[0] in "`'\"("):
        return False
    words = text.lower().split()
    if len(words) < _MIN_WORDS or _CODE.search(text):
        return False
    letters = sum(map(str.isalpha, text)) + len(words) - 1
    functional = sum(word in _FUNCTION_WORDS for word in words)
    return letters >= _MIN_LETTERS * len(text) and functional >= _MIN_FUNCTION_WORDS * len(words)


def _worker(index: int, workers: int, packages: Sequence[str]) -> None:
    for name, path in source_files(packages)[index::workers]:
        paragraphs = list(prose_paragraphs(path.read_text(encoding="utf-8", errors="replace")))
        if paragraphs:
            sys.stdout.write(json.dumps([name, paragraphs], ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    _worker(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
