"""Packing: windows are a partition of the stream, and counts do not depend on how it is cut."""

import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dihal_bench.core.errors import UserError
from dihal_bench.data import Corpus, PackedTokens, Windows, pack, pieces
from dihal_bench.data.documents import TENTH, content_hash
from dihal_bench.data.tokens import document_prefix, tokenizer_fingerprint

TEXTS = [
    "Plain words, one after the other.",
    "  white space in front and behind \n\t ",
    "Übergröße, naïve café — “quoted”…",
    "漢字とかな、그리고 한글 ideographic\u3000space",
    "emoji 👩‍👩‍👧‍👦 and flags 🇩🇪🇯🇵 in a row 🙂🙂",
    "line\r\nends\rof\nall\x0bkinds\x0cand\x85more\u2028here",
    "zero\u200bwidth no\u00a0break nul\x00byte",
    "a" * 500,
]


def corpus_of(texts: list[str], fingerprint: str = "f") -> Corpus:
    opened = Counter()

    def stream():
        opened["train"] += 1
        return iter(texts)

    notes = {"opened": opened}
    return Corpus(name="mine", fingerprint=fingerprint, splits={"train": stream}, notes=notes)


def everything(data: PackedTokens) -> Windows:
    return data.batch(range(len(data)))


def flat(data: PackedTokens) -> dict[str, np.ndarray]:
    return {name: array.ravel() for name, array in vars(everything(data)).items()}


def test_windows_partition_the_stream(tokenizer):
    data = pack(corpus_of(TEXTS), "train", tokenizer, window=16)
    expected = []
    for text in TEXTS:
        expected += [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False).input_ids]
    assert data.tokens == len(expected)
    assert len(data) == len(expected) // 16
    windows = everything(data)
    assert windows.tokens.shape == (len(data), 16)
    assert windows.tokens.ravel().tolist() == expected[: len(data) * 16]
    assert data.documents == len(TEXTS)


def test_positions_restart_and_first_tokens_are_not_scored(tokenizer):
    windows = everything(pack(corpus_of(TEXTS), "train", tokenizer, window=16))
    starts = windows.offsets == 0
    assert starts.sum() > 3
    assert (windows.positions[starts] == 0).all()
    assert (windows.positions[:, 0] == 0).all()
    inner = windows.positions[:, 1:]
    assert ((inner == windows.positions[:, :-1] + 1) | starts[:, 1:]).all()
    assert (windows.scored == (windows.positions > 0)).all()
    assert (windows.tokens[starts] == tokenizer.bos_token_id).all()
    assert (np.diff(windows.documents.ravel()) == starts.ravel()[1:]).all()


def test_documents_and_offsets_do_not_depend_on_the_window(tokenizer):
    corpus = corpus_of(TEXTS)
    one, other = (flat(pack(corpus, "train", tokenizer, window=window)) for window in (8, 48))
    shared = min(len(one["tokens"]), len(other["tokens"]))
    for name in ("tokens", "documents", "offsets", "bytes", "words"):
        assert (one[name][:shared] == other[name][:shared]).all()
    assert (one["positions"][:shared] != other["positions"][:shared]).any()


def sums(data: PackedTokens) -> list[tuple[int, int]]:
    """(bytes, words) of every document."""
    parts = flat(data)
    counts = [np.bincount(parts["documents"], parts[name]) for name in ("bytes", "words")]
    return [tuple(map(int, pair)) for pair in zip(*counts, strict=True)]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_and_words_add_up(tokenizer, text):
    data = pack(corpus_of([text]), "train", tokenizer, window=1)
    assert sums(data) == [(len(text.encode()), len(text.split()))]
    assert flat(data)["bytes"][0] == flat(data)["words"][0] == 0  # BOS covers nothing


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=2), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_bytes_and_words_add_up_for_any_text(tokenizer, texts):
    texts = ["ab", *texts]
    data = pack(corpus_of(texts, repr(texts)), "train", tokenizer, window=1)
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    kept = [t for t, i in zip(texts, ids, strict=True) if t.strip() and len(i) > 1]
    assert sums(data) == [(len(text.encode()), len(text.split())) for text in kept]
    assert data.skipped == len(texts) - len(kept)


def test_a_token_may_cover_more_than_two_bytes_can_count():
    """One unknown word of 100,000 characters is one token."""
    rules = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    rules.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=rules, unk_token="<unk>")
    data = pack(corpus_of(["a " + "x" * 100_000 + " a \n\n"]), "train", words, window=3)
    windows = everything(data)
    assert windows.tokens.tolist() == [[1, 0, 1]]
    assert windows.bytes.tolist() == [[1, 100_001, 5]]  # with white space in front; all at the end
    assert windows.words.tolist() == [[1, 1, 1]]
    assert document_prefix(words) == []


def test_end_of_document(tokenizer):
    corpus = corpus_of(TEXTS)
    data = pack(corpus, "train", tokenizer, window=1, end_of_document=True)
    parts = flat(data)
    last = np.append(parts["offsets"][1:] == 0, True)
    assert (parts["tokens"][last] == tokenizer.eos_token_id).all()
    assert (parts["bytes"][last] == 0).all()
    assert data.tokens == pack(corpus, "train", tokenizer, window=1).tokens + len(TEXTS)


def test_end_of_document_needs_a_token():
    rules = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words = PreTrainedTokenizerFast(tokenizer_object=rules)
    with pytest.raises(UserError, match="EOS"):
        pack(corpus_of(["a a"]), "train", words, window=1, end_of_document=True)


def test_the_second_call_reads_the_cache(tokenizer, cache):
    corpus = corpus_of(TEXTS)
    first = pack(corpus, "train", tokenizer, window=16)
    second = pack(corpus, "train", tokenizer, window=24)
    assert corpus.notes["opened"] == {"train": 1}
    assert first.fingerprint == second.fingerprint
    assert len(list((cache / "tokens").iterdir())) == 1


def test_what_changes_the_tokens_changes_the_folder(tokenizer, other_tokenizer, cache):
    corpus = corpus_of(TEXTS)
    pack(corpus, "train", tokenizer, window=16)
    pack(corpus, "train", other_tokenizer, window=16)
    pack(corpus, "train", tokenizer, window=16, max_tokens=40)
    pack(corpus, "train", tokenizer, window=16, end_of_document=True)
    pack(corpus_of(TEXTS, "g"), "train", tokenizer, window=16)
    assert len(list((cache / "tokens").iterdir())) == 5
    assert corpus.notes["opened"] == {"train": 4}


def test_max_tokens_ends_with_a_document(tokenizer):
    whole = pack(corpus_of(TEXTS), "train", tokenizer, window=1)
    part = pack(corpus_of(TEXTS), "train", tokenizer, window=1, max_tokens=40)
    assert 40 <= part.tokens < whole.tokens
    assert part.documents < whole.documents
    assert (flat(part)["tokens"] == flat(whole)["tokens"][: part.tokens]).all()
    following = flat(whole)["offsets"][part.tokens]
    assert following == 0


def test_a_limit_or_padding_of_the_tokenizer_is_not_applied(tokenizer):
    limited = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), bos_token="<s>"
    )
    limited.backend_tokenizer.enable_truncation(5)
    limited.backend_tokenizer.enable_padding(length=64)
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), bos_token="<s>"
    )
    assert tokenizer_fingerprint(limited) == tokenizer_fingerprint(plain)
    data = pack(corpus_of(TEXTS), "train", limited, window=1)
    assert data.tokens == pack(corpus_of(TEXTS, "g"), "train", plain, window=1).tokens


def test_blank_and_single_token_documents_are_skipped_and_counted(tokenizer):
    texts = ["one two", "", " \n\n \t \u3000 ", "a", "three four"]
    data = pack(corpus_of(texts), "train", tokenizer, window=1)
    assert (data.documents, data.skipped) == (2, 3)


@pytest.mark.parametrize("texts", [[], ["", "  "], ["a"]])
def test_nothing_to_pack(tokenizer, cache, texts):
    with pytest.raises(UserError, match="--corpus mine: its set 'train' has no document"):
        pack(corpus_of(texts), "train", tokenizer, window=1)
    assert not [path for path in (cache / "tokens").rglob("*") if path.is_file()]


def test_too_short_for_a_window(tokenizer):
    with pytest.raises(UserError, match=r"--corpus mine: .* fewer than one window of 4096"):
        pack(corpus_of(TEXTS), "train", tokenizer, window=4096)


def test_a_failure_leaves_nothing_behind(tokenizer, cache):
    def broken():
        yield from ["one two three"] * 300
        raise OSError("the wire is cut")

    corpus = Corpus(name="mine", fingerprint="f", splits={"train": broken}, notes={})
    with pytest.raises(OSError, match="the wire is cut"):
        pack(corpus, "train", tokenizer, window=8)
    assert not [path for path in (cache / "tokens").rglob("*") if path.is_file()]
    whole = Corpus(name="mine", fingerprint="f", splits={"train": lambda: iter(TEXTS)}, notes={})
    assert pack(whole, "train", tokenizer, window=8).documents == len(TEXTS)


def test_files_without_the_last_one_are_written_again(tokenizer, cache):
    """A process killed between two files leaves a folder without facts."""
    corpus = corpus_of(TEXTS)
    first = flat(pack(corpus, "train", tokenizer, window=8))
    (facts,) = (cache / "tokens").rglob("facts.json")
    assert json.loads(facts.read_text())["documents"] == len(TEXTS)
    os.truncate(facts.parent / "tokens", 10)
    facts.unlink()
    again = flat(pack(corpus, "train", tokenizer, window=8))
    assert all((first[name] == again[name]).all() for name in first)


def test_many_documents_and_long_ones_are_batched(tokenizer, monkeypatch):
    monkeypatch.setattr(pieces, "_BATCH", 4096)
    texts = [f"document {i} " + "and more " * (500 if i % 60 == 0 else 1) for i in range(300)]
    data = pack(corpus_of(texts), "train", tokenizer, window=1)
    assert sums(data) == [(len(text.encode()), len(text.split())) for text in texts]


def test_draw_is_a_permutation_per_epoch(tokenizer):
    data = pack(corpus_of(TEXTS), "train", tokenizer, window=16)
    n = len(data)
    assert n > 8
    assert sorted(data.order(0, 0)) == list(range(n))
    both = data.draw(0, 0, 2 * n).tokens
    for epoch, rows in enumerate((both[:n], both[n:])):
        assert (rows == data.batch(data.order(0, epoch)).tokens).all()
    assert not (both[:n] == both[n:]).all()
    assert not (data.draw(1, 0, n).tokens == both[:n]).all()


def test_draw_does_not_depend_on_what_was_drawn_before(tokenizer):
    corpus = corpus_of(TEXTS)
    data, fresh = (pack(corpus, "train", tokenizer, window=16) for _ in range(2))
    n = len(data)
    whole = data.draw(7, 0, 3 * n).tokens
    pieces = [data.draw(7, first, 5).tokens for first in range(0, 3 * n - 5, 5)]
    assert (np.concatenate(pieces) == whole[: 5 * len(pieces)]).all()
    assert (fresh.draw(7, n - 2, 4).tokens == whole[n - 2 : n + 2]).all()


PEAK = """
import json, resource, sys
from dihal_bench.data import load_corpus, pack
from transformers import PreTrainedTokenizerFast
tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[1])
pack(load_corpus(sys.argv[2]), "train", tokenizer, window=8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="units of the peak differ")
def test_one_long_document_takes_little_more_memory_than_its_text(tokenizer, tmp_path):
    rules = tmp_path / "tokenizer.json"
    tokenizer.backend_tokenizer.save(str(rules))
    text = "Some words of one long document, the same again. " * 400_000  # 20 MB

    def peak(texts: list[str]) -> float:
        path = tmp_path / "text" / f"{len(texts)}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        command = [sys.executable, "-c", PEAK, str(rules), str(path)]
        return float(subprocess.run(command, capture_output=True, check=True).stdout)

    size = len(text) // 20
    many = [f"{i} {text[i * size : (i + 1) * size]}" for i in range(20)]
    short = next(f"short {i}" for i in range(99) if content_hash(f"short {i}") < TENTH)
    long = next(f"{i} {text}" for i in range(99) if content_hash(f"{i} {text}") >= TENTH)
    assert peak([long, short]) < peak(many) + 120  # the line, its text, and the text's bytes
