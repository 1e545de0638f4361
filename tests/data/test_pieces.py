"""A long document in pieces has the tokens, bytes and words that it has as a whole."""

import random
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dihal_bench.data import pieces
from dihal_bench.data.pieces import encoded
from dihal_bench.models import loading


def prose(characters: int) -> str:
    """Words, names, numbers, code, blank lines, long runs, and scripts without spaces."""
    draw = random.Random(0)
    parts = []
    while sum(map(len, parts)) < characters:
        kind = draw.randrange(12)
        letters = string.ascii_lowercase if kind < 9 else string.printable
        word = "".join(draw.choices(letters, k=draw.randint(1, 9)))
        special = ["\n\n", " " * draw.randint(2, 40), "漢字とかな", "naïve—“ß”"]
        special += ["🙂👩‍👧", "e\u0301"]
        parts.append(draw.choice([word, word + ".", *(special if kind == 0 else ["the", "and"])]))
        parts.append(" ")
    return "".join(parts)[:characters]


TEXT = prose(12_000)
ODD = {
    "a word of thousands of letters": "begin " + "abc" * 3000 + " and an end",
    "one letter": "a" * 5000,
    "white space": "word" + " " * 5000 + "word\n" * 20,
    "line ends": "\r\n" * 3000 + "word",
    "emoji": "👩‍👩‍👧‍👦" * 600,
    "accents": "e" + "\u0301" * 3000,
    "special tokens": "text <s> and </s> more " * 300,
}
_ENTRIES = 400


def trained(rules: Tokenizer, trainer: trainers.Trainer) -> Tokenizer:
    rules.train_from_iterator([TEXT], trainer)
    return rules


def split_bpe() -> Tokenizer:
    """A regular expression with what newer models' have: digits by three, spaces before words."""
    rules = Tokenizer(models.BPE(ignore_merges=True))
    pattern = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    pattern += r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    rules.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_ENTRIES,
        initial_alphabet=alphabet,
        special_tokens=["<s>", "</s>"],
        show_progress=False,
    )
    return trained(rules, trainer)


def whole_text_bpe() -> Tokenizer:
    """Llama's: no pre-tokenizer, a mark in front of everything, spaces as marks."""
    rules = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    rules.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=_ENTRIES,
        special_tokens=["<unk>", "<s>", "</s>"],
        max_token_length=16,
        limit_alphabet=60,
        show_progress=False,
    )
    words = [part + " " for part in TEXT.split(" ")]
    rules.train_from_iterator(words, trainer)
    return rules


def metaspace(kind: str) -> Tokenizer:
    if kind == "unigram":
        rules = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=_ENTRIES,
            special_tokens=["<unk>", "<s>"],
            unk_token="<unk>",
            show_progress=False,
        )
    else:
        rules = Tokenizer(models.BPE(unk_token="<unk>"))
        trainer = trainers.BpeTrainer(
            vocab_size=_ENTRIES, special_tokens=["<unk>", "<s>"], show_progress=False
        )
    rules.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    return trained(rules, trainer)


def word_pieces() -> Tokenizer:
    rules = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    rules.normalizer = normalizers.BertNormalizer()
    rules.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=_ENTRIES, special_tokens=["[UNK]"], show_progress=False
    )
    return trained(rules, trainer)


def bundled() -> Tokenizer:
    folder = Path(loading.__file__).parent / "bundled" / "backbone"
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


KINDS = {
    "bundled": bundled,
    "split-bpe": split_bpe,
    "whole-text-bpe": whole_text_bpe,
    "metaspace-bpe": lambda: metaspace("bpe"),
    "metaspace-unigram": lambda: metaspace("unigram"),
    "word-pieces": word_pieces,
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=KINDS[request.param]())


def arrays(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[list[np.ndarray], int]:
    """Ids, bytes and words of documents end to end, and how many pieces these came in."""
    found = list(encoded("mine", texts, tokenizer))
    assert sum(piece.first for piece in found) == sum(piece.last for piece in found) == len(texts)
    parts = [(piece.ids, piece.bytes, piece.words) for piece in found]
    return [np.concatenate(column) for column in zip(*parts, strict=True)], len(found)


def check(tokenizer, texts, monkeypatch, stride: int, overlap: int) -> int:
    """Compare pieces with whole documents; return the number of pieces."""
    monkeypatch.setattr(pieces, "_STRIDE", 1 << 30)
    whole, count = arrays(tokenizer, texts)
    assert count == len(texts)
    rules = tokenizer.backend_tokenizer
    ids = [i for text in texts for i in rules.encode(text, add_special_tokens=False).ids]
    assert whole[0].tolist() == ids
    monkeypatch.setattr(pieces, "_STRIDE", stride)
    monkeypatch.setattr(pieces, "_OVERLAP", overlap)
    cut, count = arrays(tokenizer, texts)
    for one, other in zip(cut, whole, strict=True):
        assert one.tolist() == other.tolist()
    return count


@pytest.mark.parametrize(("stride", "overlap"), [(700, 200), (997, 256), (4000, 1024)])
def test_pieces_are_the_whole(kind, monkeypatch, stride, overlap):
    count = check(kind, [TEXT, "short", TEXT[5000:]], monkeypatch, stride, overlap)
    assert count > 3


@pytest.mark.parametrize("name", ODD)
def test_odd_texts(kind, monkeypatch, name):
    check(kind, [ODD[name], f"{TEXT[:2000]} {ODD[name]} {TEXT[:2000]}"], monkeypatch, 700, 200)


PARTS = ["a", "ab", " ", "the ", "\n", "é", "🙂", "1", "zzzz"]


@given(st.lists(st.sampled_from(PARTS), max_size=800))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text(kind, monkeypatch, parts):
    text = "x" + "".join(parts) + "x"
    check(kind, [text], monkeypatch, 150, 80)


def test_few_windows_are_tokenised_twice(kind, monkeypatch):
    """On text as it is, the first try joins."""
    calls = []
    tokenised = pieces._tokenised

    def counted(rules, windows):
        calls.append(len(windows))
        return tokenised(rules, windows)

    monkeypatch.setattr(pieces, "_tokenised", counted)
    text = "Some sentence of a book, and another one. " * 4000
    list(encoded("mine", [text], kind))
    assert len(calls) == 1


def test_the_tokenizer_works_on_all_cores_meanwhile_only(tokenizer, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    list(encoded("mine", ["a text"], tokenizer))
    assert pieces.os.environ["TOKENIZERS_PARALLELISM"] == "false"
