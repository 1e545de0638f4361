"""Corpora by name: what is read, how it is dealt, and what is said of what cannot be read."""

import gzip
import hashlib
import io
import itertools
import os
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dihal_bench.data import Corpus, bundled, decoding, documents, load_corpus, paragraphs, readers
from dihal_bench.data.documents import TENTH, content_hash, deal, twin_hash

from .dealing import all_of, dealt, json_lines, refusal, some_texts, write

# Dealing


def test_nine_to_one_by_content():
    texts = some_texts(5000)
    sets = [list(deal(texts, held_out=held_out)) for held_out in (False, True)]
    assert Counter(sets[0] + sets[1]) == Counter(texts)
    assert 0.08 < len(sets[1]) / 5000 < 0.12
    assert sorted(deal(reversed(texts), held_out=True)) == sorted(sets[1])


def test_the_hash_is_for_ever():
    """The sets of every corpus hang on it."""
    assert content_hash("añ漢") == 0x6ED6DF8542B5DFF1


def test_repeated_documents_count_once_and_blank_ones_pass():
    texts = [*some_texts(100), *some_texts(100), "", " ", ""]
    both = Counter([*deal(texts, held_out=False), *deal(texts, held_out=True)])
    assert both == Counter([*some_texts(100), "", " ", ""])


SAME = ["One Text, with “é”.", "one text,\r\nwith  “é”. ", "ONE TEXT, WITH “E\u0301”.\u2028"]


def test_documents_that_differ_in_white_space_form_or_case_are_one():
    assert len({twin_hash(text) for text in SAME}) == 1
    assert twin_hash("One Test, with “é”.") != twin_hash(SAME[0])
    for order in itertools.permutations(SAME):
        texts = [*some_texts(50), *order]
        sets = [list(deal(texts, held_out=held_out)) for held_out in (False, True)]
        assert Counter(sets[0] + sets[1]) == Counter([*some_texts(50), order[0]])
        assert (order[0] in sets[1]) == (content_hash(order[0]) < TENTH)


@given(st.text(st.sampled_from("aB é\u0301漢\n\u00a0ﬁİ"), max_size=60))
@settings(deadline=None, suppress_health_check=list(HealthCheck))
def test_hashes_do_not_depend_on_the_parts(monkeypatch, text):
    monkeypatch.setattr(documents, "_PART", 1 << 16)
    whole = twin_hash(text), content_hash(text)
    monkeypatch.setattr(documents, "_PART", 3)
    assert (twin_hash(text), content_hash(text)) == whole


def test_such_documents_change_the_fingerprint_and_no_others(tmp_path):
    """Fingerprints of corpora without any are what they were."""
    path = write(tmp_path / "a.jsonl", json_lines([*some_texts(20), *some_texts(3)]))
    files = hashlib.sha256(b"1" + bytes((1, 0)) + hashlib.sha256(path.read_bytes()).digest())
    assert load_corpus(str(path)).fingerprint == files.hexdigest()[:16]
    path = write(tmp_path / "b.jsonl", json_lines([*some_texts(20), *SAME]))
    files = hashlib.sha256(b"1" + bytes((1, 0)) + hashlib.sha256(path.read_bytes()).digest())
    corpus = load_corpus(str(path))
    assert corpus.fingerprint != files.hexdigest()[:16]
    assert corpus.notes["repeated"] == 2
    assert {name: len(part) for name, part in dealt(corpus).items()} == corpus.notes["documents"]


def test_streams_start_afresh(tmp_path):
    corpus = load_corpus(str(write(tmp_path / "a.jsonl", json_lines(some_texts(50)))))
    half_read = corpus.splits["train"]()
    next(half_read)
    assert dealt(corpus) == dealt(corpus)


# JSON lines


def test_json_lines(tmp_path):
    texts = [*some_texts(200), "漢字 🙂 \r\n kept as it is \n", "\ttoo  "]
    path = write(tmp_path / "a.jsonl", json_lines(texts))
    corpus = load_corpus(str(path))
    assert all_of(corpus) == Counter(texts)
    assert {name: len(part) for name, part in dealt(corpus).items()} == corpus.notes["documents"]
    assert corpus.notes["files"] == 1
    assert corpus.notes["bytes"] == path.stat().st_size
    assert corpus.name == str(path)


def test_blank_and_repeated_documents_are_noted(tmp_path):
    texts = ["", *some_texts(30), "  \n", *some_texts(10)]
    corpus = load_corpus(str(write(tmp_path / "a.jsonl", json_lines(texts))))
    assert (corpus.notes["blank"], corpus.notes["repeated"]) == (2, 10)
    assert sum(corpus.notes["documents"].values()) == 30


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "b.v1.JSONL", "a.jsonl.gz", "a.json.gz"])
def test_suffixes_of_json_lines(tmp_path, name):
    content = json_lines(some_texts(20)).encode()
    path = write(
        tmp_path / name, gzip.compress(content, mtime=0) if name.endswith("gz") else content
    )
    assert all_of(load_corpus(str(path))) == Counter(some_texts(20))


def test_empty_lines_a_byte_order_mark_and_foreign_line_ends(tmp_path):
    content = "\ufeff" + json_lines(some_texts(20)).replace("\n", "\r\n\r\n \r\n")
    assert all_of(load_corpus(str(write(tmp_path / "a.jsonl", content)))) == Counter(some_texts(20))


def test_half_a_surrogate_pair_is_replaced(tmp_path):
    lines = json_lines(some_texts(5)) + '{"text": "broken \\ud83d and whole \\ud83d\\ude42"}\n'
    corpus = load_corpus(str(write(tmp_path / "a.jsonl", lines)))
    assert "broken \ufffd and whole 🙂" in all_of(corpus)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 3: not JSON"),
        ("[" * 100_000, "line 3: not JSON"),
        ("[", "line 3: not JSON"),
        ("plain", "line 3: not JSON"),
        ('["text"]', 'line 3: no string called "text"'),
        ('"text"', 'line 3: no string called "text"'),
        ('{"content": "a"}', 'line 3: no string called "text"'),
        ('{"text": null}', 'line 3: no string called "text"'),
        ('{"text": ["a"]}', 'line 3: no string called "text"'),
    ],
)
def test_a_line_that_is_no_document(tmp_path, line, reason):
    path = write(tmp_path / "a.jsonl", json_lines(some_texts(1)) + "\n" + line + "\n")
    message = refusal(path)
    assert f"{path}, {reason}" in message
    assert "write" in message or "--text-column" in message


def test_json_that_is_not_utf8(tmp_path):
    head = json_lines(some_texts(1)).encode()
    path = write(tmp_path / "a.jsonl", head + b'{"text": "\xff"}\n')
    assert f"{path}, byte {len(head) + 10}: not UTF-8" in refusal(path)


# Plain text


def test_paragraphs_are_gathered_into_documents(tmp_path):
    paragraphs = [f"Paragraph {i} of the book.\nIt has a second line." for i in range(1000)]
    path = write(tmp_path / "book.txt", "\n \n".join(paragraphs))
    documents = list(readers.read_documents("book", path))
    assert "\n\n".join(documents) == "\n\n".join(paragraphs)
    sizes = [len(text) for text in documents]
    assert max(sizes) <= 4000
    assert min(sizes[:-1]) > 3900
    assert all_of(load_corpus(str(path))) == Counter(documents)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.text", "a.txt.gz", "A.TXT.GZ"])
def test_suffixes_of_plain_text(tmp_path, name):
    content = "\n\n".join("a paragraph " * 300 for _ in range(4)).encode()
    path = write(
        tmp_path / name, gzip.compress(content, mtime=0) if name.lower().endswith("gz") else content
    )
    assert len(list(readers.read_documents(name, path))) == 4


def test_white_space_around_paragraphs():
    text = "\ufeff \n\t\n  indented\r\nline  \r\n\r\n\f\r\n\r\n next\rone\n   "
    assert list(paragraphs.plain_text(io.BytesIO(text.encode()))) == [
        "  indented\nline\n\n next\none"
    ]
    assert list(paragraphs.plain_text(io.BytesIO(b" \n\r\n\t"))) == []
    assert list(paragraphs.plain_text(io.BytesIO(b""))) == []


@pytest.mark.parametrize("size", [3999, 4000, 4001, 8000, 123_456])
@pytest.mark.parametrize("tail", ["", "\n", "\n\n\n"])
def test_a_long_paragraph_is_cut_at_white_space(size, tail):
    text = ("word and wörd\n" * (size // 10))[:size].strip() + tail
    pieces = list(paragraphs.plain_text(io.BytesIO(text.encode())))
    assert all(len(piece) <= 4000 for piece in pieces)
    assert [word for piece in pieces for word in piece.split()] == text.split()
    assert (len(pieces) == 1) == (size <= 4000)
    assert all(len(piece) > 3980 for piece in pieces[:-1])


def test_a_text_without_white_space_is_cut_all_the_same():
    pieces = list(paragraphs.plain_text(io.BytesIO(("漢" * 200_000).encode())))
    assert "".join(pieces) == "漢" * 200_000
    assert {len(piece) for piece in pieces} == {4000}


@given(
    st.text(st.sampled_from("ab é漢🙂 \n\r\t\f"), max_size=120),
    st.integers(1, 9),
    st.integers(5, 30),
)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_chunks_do_not_show(monkeypatch, text, chunk, limit):
    """However the file is read, the same documents come out, and no character is lost."""
    monkeypatch.setattr(paragraphs, "_DOCUMENT", limit)
    results = []
    for size in (chunk, 1 << 16):
        monkeypatch.setattr(decoding, "CHUNK", size)
        results.append(list(paragraphs.plain_text(io.BytesIO(text.encode()))))
    assert results[0] == results[1]
    assert "".join("".join(results[0]).split()) == "".join(text.split())
    assert all(len(piece) <= limit and piece.strip() for piece in results[0])


@pytest.mark.parametrize("offset", [0, 5, (1 << 16) - 1, 1 << 16, 100_001])
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3("])
def test_plain_text_that_is_not_utf8(tmp_path, offset, bad):
    path = write(tmp_path / "a.txt", b"x" * offset + bad + b"more")
    assert f"{path}, byte {offset}: not UTF-8" in refusal(path)


def test_plain_text_that_ends_inside_a_character(tmp_path):
    path = write(tmp_path / "a.txt", b"x" * 70_000 + b"\xe6\xbc")
    assert f"{path}, byte 70000: not UTF-8" in refusal(path)


# Sets of files


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_few_documents_still_make_two_sets(tmp_path, count):
    for start in range(12):
        texts = some_texts(100)[start * 7 :][:count]
        path = write(tmp_path / f"{start}.jsonl", json_lines(texts))
        sets = dealt(load_corpus(str(path)))
        assert sets["train"]
        assert sets["validation"]
        assert Counter(sets["train"] + sets["validation"]) == Counter(texts)


def test_many_documents_are_dealt_at_a_tenth(tmp_path):
    texts = some_texts(400)
    corpus = load_corpus(str(write(tmp_path / "a.jsonl", json_lines(texts))))
    assert set(dealt(corpus)["validation"]) == {t for t in texts if content_hash(t) < TENTH}


def test_a_folder(tmp_path):
    folder = tmp_path / "folder"
    texts = some_texts(60)
    write(folder / "b" / "two.jsonl", json_lines(texts[:30]))
    write(folder / "a.jsonl.gz", gzip.compress(json_lines(texts[20:]).encode()))
    write(folder / "c.txt", "One paragraph of text.\n\nAnd another one.\n")
    write(folder / ".hidden", b"\xff")
    write(folder / ".git" / "object", b"\xff")
    corpus = load_corpus(str(folder))
    assert all_of(corpus) == Counter([*texts, "One paragraph of text.\n\nAnd another one."])
    assert corpus.notes["files"] == 3
    assert corpus.notes["repeated"] == 10


def test_the_fingerprint_is_of_the_bytes(tmp_path):
    content = json_lines(some_texts(20))
    fingerprints = [
        load_corpus(str(write(path, text))).fingerprint
        for path, text in [
            (tmp_path / "a.jsonl", content),
            (tmp_path / "elsewhere" / "b.jsonl", content),
            (tmp_path / "c.jsonl", content + "\n"),
            (tmp_path / "d.txt", content.replace("\n", "\n\n") + "\n\n" + "more words " * 1000),
        ]
    ]
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


def test_a_changed_file_is_read_again(tmp_path, cache):
    path = write(tmp_path / "a.jsonl", json_lines(some_texts(20)))
    first = load_corpus(str(path))
    assert load_corpus(str(path)).fingerprint == first.fingerprint
    assert len(list((cache / "sources").iterdir())) == 1
    time.sleep(0.01)
    write(path, json_lines(some_texts(20)).replace("called", "CALLED"))
    assert load_corpus(str(path)).fingerprint != first.fingerprint


# What cannot be read


@pytest.mark.parametrize(
    "name",
    ["./nowhere", "/no/such/file", "~/no/such", "a/b/c", "missing.txt", "my/missing.jsonl", ""],
)
def test_no_such_path(name):
    message = refusal(name)
    assert "there is no such file or folder" in message
    assert "OWNER/NAME" in message
    assert "'bundled'" in message


@pytest.mark.parametrize("content", [b"", b"\n \n\t", b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path, content):
    assert "there is no text in it" in refusal(write(tmp_path / "a.txt", content))


def test_json_lines_without_text(tmp_path):
    assert "there is no text in it" in refusal(write(tmp_path / "a.jsonl", json_lines(["", " "])))


def test_an_empty_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "no files" in refusal(folder)
    write(folder / ".hidden", "text")
    assert "no files" in refusal(folder)


def test_one_document_is_too_little(tmp_path):
    assert "all its text is one document" in refusal(write(tmp_path / "a.txt", "A paragraph."))
    assert "all its text is one document" in refusal(
        write(tmp_path / "a.jsonl", json_lines(["a"] * 9))
    )


def test_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize(
    "content", [b"plain", gzip.compress(b"text " * 99, mtime=0)[:-4], b"\x1f\x8b\x08" + b"x" * 40]
)
def test_a_broken_archive(tmp_path, content):
    path = write(tmp_path / "a.txt.gz", content)
    assert f"{path} cannot be read" in refusal(path)


def test_a_closed_file_or_folder(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    path = write(folder / "a.txt", "text")
    if os.geteuid() == 0:  # nothing is closed to root

        def closed(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "open", closed)
    else:
        path.chmod(0)
    assert f"{path} cannot be read (Permission denied)" in refusal(path)
    assert f"{path} cannot be read (Permission denied)" in refusal(folder)


def test_a_name_too_long():
    assert "cannot be read" in refusal("./" + "x" * 5000)


def test_bundled_by_name(monkeypatch):
    corpus = Corpus(name="bundled", fingerprint="f", splits={}, notes={})
    monkeypatch.setattr(bundled, "bundled_corpus", lambda: corpus)
    assert load_corpus("bundled") is corpus
