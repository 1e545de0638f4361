"""The bundled corpus: disjoint sets, nothing near across them, built once, the same for all."""

import json
import os
import random
import resource
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from dihal_bench.data import Corpus, bundled
from dihal_bench.data.bundled import bundled_corpus

from ..damages import DAMAGES

SMALL = {"networkx": "networkx", "nltk": "nltk"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The corpus of two small packages, and the folder that keeps it."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundled, "PACKAGES", SMALL)
        patch.setenv("DIHAL_BENCH_CACHE", str(folder))
        return bundled_corpus(), folder


@pytest.fixture
def small(built, monkeypatch):
    """The same packages and folder, for another call."""
    monkeypatch.setattr(bundled, "PACKAGES", SMALL)
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(built[1]))
    return built[0]


def paragraphs(corpus: Corpus) -> dict[str, list[str]]:
    return {
        name: [paragraph for document in stream() for paragraph in document.split("\n")]
        for name, stream in corpus.splits.items()
    }


def grams(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}


def test_sets_are_disjoint_and_hold_their_shares(small):
    documents = {name: list(stream()) for name, stream in small.splits.items()}
    assert set(documents) == {"models", "train", "validation"}
    for one, other in combinations(documents.values(), 2):
        assert not set(one) & set(other)
    total = sum(map(len, documents.values()))
    assert total > 200
    for name, share in bundled.SHARES.items():
        assert abs(len(documents[name]) / total - share) < 0.1
    assert small.notes["documents"] == {name: len(part) for name, part in documents.items()}
    assert small.notes["characters"] == {n: sum(map(len, part)) for n, part in documents.items()}


def test_no_paragraph_occurs_twice(small):
    every = [paragraph for part in paragraphs(small).values() for paragraph in part]
    assert len(set(every)) == len(every) > 2000


def test_nothing_near_across_the_sets(small):
    """All pairs of a sample; and some pairs are near within the largest set, so the search sees."""
    sets = {
        name: [
            known
            for known in map(grams, random.Random(0).sample(part, min(len(part), 300)))
            if known
        ]
        for name, part in paragraphs(small).items()
    }
    for one, other in combinations(sets.values(), 2):
        assert all(2 * len(a & b) <= len(a | b) for a in one for b in other)
    assert sum(small.notes["near_duplicates_removed"].values()) > 0


def test_the_second_call_reads_the_cache(small, monkeypatch):
    def scan():
        raise AssertionError("built again")

    monkeypatch.setattr(bundled, "_scan", scan)
    again = bundled_corpus()
    assert again.fingerprint == small.fingerprint
    assert again.notes == small.notes
    assert set(again.notes["versions"]) == set(SMALL.values())


def test_another_build_is_the_same(small, tmp_path, monkeypatch):
    """Also with another number of parts, and from a folder with modules of the same names."""
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    (tmp_path / "nltk").mkdir()
    (tmp_path / "nltk" / "__init__.py").write_text('"""This is what the user is at work on."""')
    (tmp_path / "json.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(Path(bundled.__file__).parents[2])
    monkeypatch.chdir(tmp_path)
    again = bundled_corpus()
    assert again.fingerprint == small.fingerprint
    assert paragraphs(again) == paragraphs(small)


def test_a_build_cut_short_is_done_again(small, built, tmp_path, monkeypatch):
    """Without facts.json, written last, the rest does not count."""
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path))
    (folder,) = (built[1] / "corpus").iterdir()
    broken = tmp_path / "corpus" / folder.name
    broken.mkdir(parents=True)
    (broken / "train.jsonl").write_text('"half a li')
    monkeypatch.setattr(
        bundled, "_scan", lambda: [(f"p/{i}.py", [f"Text {i}."]) for i in range(99)]
    )
    corpus = bundled_corpus()
    assert sum(map(len, paragraphs(corpus).values())) == 99
    assert not [path for path in broken.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["train.jsonl", "models.jsonl", "facts.json"])
def test_what_is_damaged_is_named_and_built_again(tmp_path, monkeypatch, capsys, name, damage):
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(
        bundled, "_scan", lambda: [(f"p/{i}.py", [f"Text {i}."]) for i in range(99)]
    )
    whole = bundled_corpus()
    (path,) = (tmp_path / "corpus").rglob(name)
    damage(path)
    again = bundled_corpus()
    assert (again.fingerprint, again.notes) == (whole.fingerprint, whole.notes)
    assert paragraphs(again) == paragraphs(whole)
    assert str(path if name == "facts.json" else path.parent) in capsys.readouterr().err


@pytest.mark.nightly
def test_the_full_corpus(tmp_path, capsys):
    """Processor time, since other work on the machine is not the corpus's fault."""
    script = (
        "import json; from dihal_bench.data.bundled import bundled_corpus; c = bundled_corpus(); "
        "print(json.dumps([c.notes, c.fingerprint]))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    output = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, stdout=subprocess.PIPE
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    notes, fingerprint = json.loads(output)
    with capsys.disabled():
        print(f" [bundled corpus {fingerprint} in {seconds:.1f} processor seconds] ", end="")
    assert seconds < 60
    assert sum(notes["characters"].values()) > 10_000_000
    assert all(count > 200 for count in notes["documents"].values())
