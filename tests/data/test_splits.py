"""A folder's own sets: which file is of which, and what is left out or refused."""

import json

import pytest

from dihal_bench.data import load_corpus
from dihal_bench.data.splits import sets_of

from .dealing import dealt, json_lines, refusal, some_texts, write

SETS = {
    "train": [
        *("train.jsonl", "train-00000-of-00002.parquet", "data/train-00001-of-00002-a09b7.parquet"),
        *("train/a.txt", "Training.csv", "train1.jsonl", "train_part.jsonl", "fiction_train.txt"),
        *("wiki.train.txt", "test/train.txt", "train.jsonl.gz", "book-train-00001.txt"),
    ],
    "validation": [
        *("validation.jsonl", "valid.txt", "dev.json", "val/part/a.arrow", "fiction_val.txt"),
        *("wiki.valid.txt", "train/dev.txt", "validation-00000-of-00001.parquet", "en.dev.txt"),
    ],
    "test": ["test.jsonl", "data/test-00000-of-00001.parquet", "test/a.txt", "eval.csv"],
    "": ["a.txt", "trainer.txt", "latest.txt", "devil.txt", "data/a.jsonl", "restrain.txt"],
}


@pytest.mark.parametrize(
    ("label", "name"), [(k, name) for k, names in SETS.items() for name in names]
)
def test_the_set_that_a_name_says(tmp_path, label, name):
    file = tmp_path / name
    other = tmp_path / ("train/other.txt" if label else "other.txt")
    sets = sets_of("mine", tmp_path, [file, other])
    found = next((known for known, files in sets.items() if file in files), "test")
    assert found == (label or "train")


def folder_of(path, **sets):
    for name, texts in sets.items():
        write(path / f"{name}.jsonl", json_lines(texts))
    return path


def test_its_own_sets_are_kept(tmp_path):
    texts = some_texts(60)
    folder = folder_of(
        tmp_path / "a", train=[*texts[:40], texts[0]], validation=texts[40:], test=["never"]
    )
    corpus = load_corpus(str(folder))
    assert dealt(corpus) == {"train": [*texts[:40], texts[0]], "validation": texts[40:]}
    assert corpus.notes["documents"] == {"train": 41, "validation": 20}
    assert corpus.notes["files"] == 2


def test_training_text_that_is_in_the_validation_set_is_left_out(tmp_path):
    folder = folder_of(
        tmp_path / "a", train=["One  Text\r\n", "another", "more"], validation=["one text", "two"]
    )
    corpus = load_corpus(str(folder))
    assert dealt(corpus) == {"train": ["another", "more"], "validation": ["one text", "two"]}
    assert corpus.notes["in_validation"] == 1


def test_without_validation_the_training_text_is_dealt(tmp_path):
    texts = some_texts(60)
    folder = folder_of(tmp_path / "a", train=texts, test=["never"])
    alone = write(tmp_path / "b.jsonl", json_lines(texts))
    first, second = (load_corpus(str(path)) for path in (folder, alone))
    assert dealt(first) == dealt(second)
    assert first.fingerprint == second.fingerprint


def test_files_of_no_set_are_training_text_beside_a_validation_set(tmp_path):
    folder = folder_of(tmp_path / "a", book=["a", "b"], more=["c"], valid=["d", "e"])
    assert dealt(load_corpus(str(folder))) == {"train": ["a", "b", "c"], "validation": ["d", "e"]}


def test_the_sets_count_in_the_fingerprint(tmp_path):
    first = folder_of(tmp_path / "a", train=["a"], validation=["b"])
    second = folder_of(tmp_path / "b", train=["b"], validation=["a"])
    assert load_corpus(str(first)).fingerprint != load_corpus(str(second)).fingerprint


def test_a_set_that_cannot_be_told(tmp_path):
    folder = folder_of(tmp_path / "a", train=["a"], book=["b"])
    message = refusal(folder)
    assert "book.jsonl" in message


def test_no_training_text(tmp_path):
    assert "none is for training" in refusal(
        folder_of(tmp_path / "a", validation=["a"], test=["b"])
    )
    assert "none is for training" in refusal(folder_of(tmp_path / "b", test=["b"]))


def test_a_set_without_text(tmp_path):
    assert "validation" in refusal(folder_of(tmp_path / "a", train=["a"], validation=[" "]))
    assert "train" in refusal(folder_of(tmp_path / "b", train=["A"], validation=["a"]))


def test_what_lies_beside_the_text_is_left_out(tmp_path):
    texts = some_texts(30)
    folder = folder_of(tmp_path / "a", a=texts)
    for name in ("README.md", "LICENSE", "License.txt", "dataset_infos.json", "state.json", ".x"):
        write(folder / name, "not prose")
    write(folder / "sub" / "readme.txt", "not prose")
    found = dealt(load_corpus(str(folder)))
    assert sorted(found["train"] + found["validation"]) == sorted(texts)


@pytest.mark.parametrize("name", ["notes.xyz", "sub/script.py", "figure.png", "Makefile"])
def test_other_files_are_named(tmp_path, name):
    folder = folder_of(tmp_path / "a", a=some_texts(30))
    write(folder / name, "what is this")
    message = refusal(folder)
    assert str(folder / name) in message
    assert ".jsonl" in message


def test_only_what_lies_beside_text(tmp_path):
    write(tmp_path / "a" / "README.md", json.dumps({}))
    assert "no files" in refusal(tmp_path / "a")
