"""The corpus that every installation already has: English prose from the docstrings of its dependencies.

A document is the prose of one source file. Documents fall into three disjoint sets by a hash of the
file's name: ``models`` trains the bundled backbone and judge, ``train`` trains interfaces, and
``validation`` is evaluated on. No paragraph occurs twice, and none has a near-duplicate (8-gram Jaccard
index above one half) in a set that is looked at later than its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from dihal_bench.files import atomic_path, cache_folder
from dihal_bench.text.dedup import near_duplicates
from dihal_bench.text.documents import Corpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = 1  # of the extraction: a change of prose.py or of this file raises it
PACKAGES = {  # import name -> distribution; the standard library is left out: it changes with Python
    "diffusers": "diffusers",
    "networkx": "networkx",
    "nltk": "nltk",
    "numpy": "numpy",
    "pandas": "pandas",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "sympy": "sympy",
    "torch": "torch",
    "transformers": "transformers",
}
SHARES = {"validation": 0.07, "train": 0.15, "models": 0.78}  # in the order of precedence


def bundled_corpus() -> Corpus:
    """Return the bundled corpus, built at first use (seconds) and kept in the user's cache folder."""
    versions = {name: metadata.version(name) for name in PACKAGES.values()}
    key = _digest(json.dumps([VERSION, versions], sort_keys=True).encode())
    folder = cache_folder() / "corpus" / key
    facts_path = folder / "facts.json"
    if not facts_path.exists():
        _build(folder, versions)
    facts = json.loads(facts_path.read_text(encoding="utf-8"))
    splits = {name: partial(_read, folder / f"{name}.jsonl") for name in SHARES}
    return Corpus(name="bundled", fingerprint=facts["fingerprint"], splits=splits, notes=facts)


def _build(folder: Path, versions: dict[str, str]) -> None:
    sets, facts = _split(_unique(_scan()))
    hashes = []
    for name, documents in sets.items():
        content = "".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents).encode()
        hashes.append(_digest(content))
        with atomic_path(folder / f"{name}.jsonl") as temporary:
            temporary.write_bytes(content)
    facts |= {"fingerprint": _digest("".join(hashes).encode()), "versions": versions}
    with atomic_path(folder / "facts.json") as temporary:  # last: its presence says that all is there
        temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _scan() -> list[tuple[str, list[str]]]:
    """Read the prose of all source files in parallel processes, in an order independent of them."""
    workers = min(os.cpu_count() or 1, 8)

    def read(index: int) -> bytes:
        command = [sys.executable, "-m", "dihal_bench.text.prose", str(index), str(workers), *PACKAGES]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603

    with ThreadPoolExecutor(workers) as pool:
        lines = [line for output in pool.map(read, range(workers)) for line in output.splitlines()]
    return sorted(tuple(json.loads(line)) for line in lines)


def _unique(files: list[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Keep only the first occurrence of every paragraph."""
    seen: set[str] = set()
    for name, paragraphs in files:
        fresh = [p for p in paragraphs if not (p in seen or seen.add(p))]  # type: ignore[func-returns-value]
        if fresh:
            yield name, fresh


def _split(
    files: Iterator[tuple[str, list[str]]],
) -> tuple[dict[str, list[str]], dict[str, object]]:
    """Deal the files into the sets and drop paragraphs near those of a set with precedence."""
    members: dict[str, list[list[str]]] = {name: [] for name in SHARES}
    for name, paragraphs in files:
        members[_set_of(name)].append(paragraphs)
    kept: list[str] = []
    sets: dict[str, list[str]] = {}
    rates: dict[str, float] = {}
    for name, documents in members.items():
        flat = [p for paragraphs in documents for p in paragraphs]
        near = iter(near_duplicates(kept, flat).tolist())
        documents = [[p for p in paragraphs if not next(near)] for paragraphs in documents]
        sets[name] = ["\n".join(paragraphs) for paragraphs in documents if paragraphs]
        survivors = [p for paragraphs in documents for p in paragraphs]
        rates[name] = 1 - len(survivors) / max(len(flat), 1)
        kept += survivors
    facts: dict[str, object] = {
        "near_duplicates_removed": rates,
        "documents": {name: len(documents) for name, documents in sets.items()},
        "characters": {name: sum(map(len, documents)) for name, documents in sets.items()},
    }
    return sets, facts


def _set_of(name: str) -> str:
    draw = int(_digest(name.encode()), 16) / 16**16
    for label, share in SHARES.items():
        draw -= share
        if draw < 0:
            return label
    return "models"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _read(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
