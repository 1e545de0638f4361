"""The corpus that every installation already has: English prose from its dependencies' docstrings.

A document is the prose of one source file. Documents fall into three disjoint sets by a hash of the
file's name: ``models`` trains the bundled backbone and judge, ``train`` trains interfaces, and
``validation`` is evaluated on. No paragraph occurs twice, and none has a near-duplicate (8-gram
Jaccard index above one half) in another set.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core import kept
from dihal_bench.core.files import atomic_path, cache_folder
from dihal_bench.core.progress import progress, say
from dihal_bench.data.dedup import near_duplicates
from dihal_bench.data.documents import Corpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VERSION = 1  # of the extraction: a change of prose.py or of this file raises it
PACKAGES = {  # import name -> distribution; not the standard library, which changes with Python
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
_DIGITS = 16  # of a digest


def bundled_corpus() -> Corpus:
    """Return the bundled corpus, built at first use (seconds) and kept in the cache folder."""
    versions = {name: metadata.version(name) for name in PACKAGES.values()}
    key = _digest(json.dumps([VERSION, versions], sort_keys=True).encode())
    folder = cache_folder() / "corpus" / key
    facts_path = folder / "facts.json"
    if not kept.usable(facts_path) or not _whole(folder, kept.read_json(facts_path)):
        _build(folder, versions)
    facts = kept.read_json(facts_path)
    splits = {name: partial(_read, folder / f"{name}.jsonl") for name in SHARES}
    return Corpus(name="bundled", fingerprint=facts["fingerprint"], splits=splits, notes=facts)


def _whole(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Return whether the sets are those that the fingerprint is of; where not, say so."""
    there = all((folder / f"{name}.jsonl").exists() for name in SHARES)
    if there and _fingerprint(folder) == facts["fingerprint"]:
        return True
    say(f"{folder}: its *.jsonl do not match the corpus's fingerprint: they are made anew")
    return False


def _fingerprint(folder: Path) -> str:
    hashes = [kept.sha256(folder / f"{name}.jsonl")[:_DIGITS] for name in SHARES]
    return _digest("".join(hashes).encode())


def _build(folder: Path, versions: dict[str, str]) -> None:
    sets, facts = _split(_unique(_scan()))
    for name, documents in sets.items():
        content = "".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents).encode()
        with atomic_path(folder / f"{name}.jsonl") as temporary:
            temporary.write_bytes(content)
    facts |= {"fingerprint": _fingerprint(folder), "versions": versions}
    kept.write_json(folder / "facts.json", facts)  # last: its presence says that all is there


def _scan() -> list[tuple[str, list[str]]]:
    """Read the prose of all source files in parallel processes, in an order independent of them."""
    workers = min(os.cpu_count() or 1, 8)
    # The packages of this process, and not what happens to lie in the working folder (-P).
    paths = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    command = [sys.executable, "-P", "-m", "dihal_bench.data.prose"]

    def read(index: int) -> list[tuple[str, list[str]]]:
        task = [*command, str(index), str(workers), *PACKAGES]
        environment = {**os.environ, "PYTHONPATH": paths}
        output = subprocess.run(task, check=True, stdout=subprocess.PIPE, env=environment).stdout  # noqa: S603
        return [tuple(json.loads(line)) for line in output.splitlines()]

    files: list[tuple[str, list[str]]] = []
    with (
        ThreadPoolExecutor(workers) as pool,
        progress("read docstrings", None, unit="files") as bar,
    ):
        for part in pool.map(read, range(workers)):
            files += part
            bar.update(len(part))
    return sorted(files)


def _unique(files: list[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Keep only the first occurrence of every paragraph."""
    seen: set[str] = set()
    for name, paragraphs in files:
        fresh = [p for p in dict.fromkeys(paragraphs) if p not in seen]
        seen.update(fresh)
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
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def _read(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
