"""Every format and compression gives the same documents; what cannot be read is one sentence."""

import bz2
import csv
import gzip
import io
import json
import lzma

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from dihal_bench.core.errors import UserError
from dihal_bench.data import load_corpus, pack, rows
from dihal_bench.data.readers import COMPRESSIONS, FORMATS, form_of, read_documents

from .dealing import refusal, write

TEXTS = ['One document.\r\nTwo lines, a comma and a "quote".', "Zwei: 漢字\n", "three", " 4\t"]
LABELLED = [{"label": i, "text": text, "meta": {"body": text}} for i, text in enumerate(TEXTS)]


def table(delimiter: str) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerows([["label", "text"], *([row["label"], row["text"]] for row in LABELLED)])
    return file.getvalue().encode()


def arrow(stream: bool) -> bytes:
    sink = io.BytesIO()
    data = pa.Table.from_pylist(LABELLED)
    with (ipc.new_stream if stream else ipc.new_file)(sink, data.schema) as writer:
        writer.write_table(data, max_chunksize=3)
    return sink.getvalue()


def parquet_bytes(data: list[dict]) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(data), sink)
    return sink.getvalue()


JSON_LINES = "".join(json.dumps(row) + "\n" for row in LABELLED).encode()
CONTENTS = {
    "a.jsonl": JSON_LINES,
    "a.ndjson": JSON_LINES,
    "a.json": json.dumps(LABELLED, indent=2).encode(),
    "b.json": b"\xef\xbb\xbf \n" + json.dumps(LABELLED, ensure_ascii=False).encode(),
    "a.csv": table(","),
    "b.csv": b"\xef\xbb\xbf" + table(","),
    "a.tsv": table("\t"),
    "a.parquet": parquet_bytes(LABELLED),
    "a.arrow": arrow(stream=True),
    "b.arrow": arrow(stream=False),
}


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("packed", ["", *PACKERS])
@pytest.mark.parametrize("name", CONTENTS)
def test_every_format_gives_the_same_documents(tmp_path, name, packed):
    content = PACKERS.get(packed, bytes)(CONTENTS[name])
    path = write(tmp_path / f"{name}{packed}", content)
    assert list(read_documents("mine", path)) == TEXTS


def test_the_cases_are_all_that_there_is():
    prose = {suffix for suffix, form in FORMATS.items() if form.rows is None}
    assert {f".{name.partition('.')[2]}" for name in CONTENTS} == FORMATS.keys() - prose
    assert PACKERS.keys() == COMPRESSIONS.keys()
    kinds = [(form.code, form.rows) for form in FORMATS.values()]
    assert len(set(kinds)) == len({code for code, _ in kinds})


def test_compressed_plain_text(tmp_path):
    for packed, pack_up in PACKERS.items():
        path = write(tmp_path / f"a.txt{packed}", pack_up(b"some text\n"))
        assert list(read_documents("mine", path)) == ["some text"]


def test_numbers_of_forms_are_for_ever(tmp_path):
    """The fingerprints of all corpora hang on them."""
    names = ["a.txt", "a.jsonl", "a.json.gz", "a.csv", "a.tsv", "a.parquet", "a.arrow.zst"]
    forms = [form_of(tmp_path / name) for name in names]
    assert forms == [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0), (5, 4)]


@pytest.mark.parametrize("size", [10, 70_000, 200_000])
def test_items_of_an_array_may_be_longer_than_what_is_read_at_a_time(tmp_path, size):
    texts = ["x" * size, "é" * size, "short"] * 3
    path = write(tmp_path / "a.json", json.dumps([{"text": t} for t in texts], ensure_ascii=False))
    assert list(read_documents("mine", path)) == texts


def test_a_long_cell(tmp_path):
    path = write(tmp_path / "a.csv", f"text\n{'x' * 300_000}\n")
    assert list(read_documents("mine", path)) == ["x" * 300_000]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "b.arrow"])
def test_a_nested_column(tmp_path, name):
    path = write(tmp_path / name, CONTENTS[name])
    assert list(read_documents("mine", path, "meta.body")) == TEXTS


def test_a_column_with_a_dot_in_its_name(tmp_path):
    content = [{"a.b": "whole", "a": {"b": "nested"}}]
    for name, written in {
        "a.jsonl": json.dumps(content[0]),
        "a.parquet": parquet_bytes(content),
    }.items():
        assert list(read_documents("mine", write(tmp_path / name, written), "a.b")) == ["whole"]


def test_a_data_set_saved_to_disk(tmp_path):
    import datasets

    texts = [f"document {i}" for i in range(40)]
    whole = datasets.Dataset.from_dict({"text": texts})
    whole.save_to_disk(tmp_path / "one", num_shards=3)
    write(tmp_path / "one" / "cache-0123456789abcdef.arrow", b"what map made")
    sets = {"train": whole, "validation": datasets.Dataset.from_dict({"text": ["held", "out"]})}
    datasets.DatasetDict(sets).save_to_disk(tmp_path / "several")
    one, several = (load_corpus(str(tmp_path / name)) for name in ("one", "several"))
    assert sorted([*one.splits["train"](), *one.splits["validation"]()]) == sorted(texts)
    assert list(several.splits["train"]()) == texts
    assert list(several.splits["validation"]()) == ["held", "out"]


# Columns


def test_the_column_counts_in_the_fingerprint(tmp_path):
    path = write(tmp_path / "a.jsonl", JSON_LINES)
    first, second = (load_corpus(str(path), column) for column in ("text", "meta.body"))
    assert list(first.splits["train"]()) == list(second.splits["train"]())
    assert first.fingerprint != second.fingerprint


def fault(path, column="text") -> str:
    with pytest.raises(UserError) as caught:
        load_corpus(str(path), column)
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith(".")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.arrow", "a.json"])
def test_no_such_column(tmp_path, name):
    message = fault(write(tmp_path / name, CONTENTS[name]), "content")
    assert '"content"' in message
    assert "label, text" in message
    assert "--text-column" in message


def test_a_column_of_plain_text_or_of_the_bundled_corpus(tmp_path):
    assert "no column body" in fault(write(tmp_path / "a.txt", "text\n"), "body")
    with pytest.raises(UserError, match="no columns"):
        load_corpus("bundled", "body")


def test_a_column_that_is_no_string(tmp_path):
    path = write(tmp_path / "a.parquet", parquet_bytes([{"text": "a"}, {"text": None}]))
    assert "row 2" in fault(path)
    assert "row 1" in fault(write(tmp_path / "b.parquet", parquet_bytes([{"text": 1}])))


# What is broken


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"[1, 2, 3]", "item 1"),
        ("a.json", b'["a", "b"]', "item 1"),
        ("a.json", b'[{"text": "a"}, {"text": 2}]', "item 2"),
        ("a.json", b'[{"text": "a"}, {"text": "b"', "item 2: not JSON"),
        ("a.json", b'[{"text": "a"} {"text": "b"}]', "item 2: not JSON"),
        ("a.json", b'[{"text": "a"},', "item 2: not JSON"),
        ("a.json", b'[{"text": "\xff"}]', "byte 11: not UTF-8"),
        ("a.json", b"{}", "line 1"),
        ("a.json", b"[]", "no text in it"),
        ("a.csv", b"", "no text in it"),
        ("a.csv", b"text\n", "no text in it"),
        ("a.csv", b"label\n1\n", '"text"'),
        ("a.csv", b"text,label\na,1\nb\n", "line 3: 1 cells under 2 columns"),
        ("a.csv", b"text,label\na,b,1\n", "line 2: 3 cells under 2 columns"),
        ("a.csv", b'text\n"begun\nand never ended', "line 3: no table"),
        ("a.csv", b"text\na\n\xff\n", "byte 7: not UTF-8"),
        ("a.tsv", b'text\n"a" b\n', "line 2: no table"),
        ("a.parquet", b"", "cannot be read"),
        ("a.parquet", b"PAR1 and more", "cannot be read"),
        ("a.parquet", CONTENTS["a.parquet"][:-20], "cannot be read"),
        ("a.arrow", CONTENTS["a.arrow"][:200], "cannot be read"),
        ("a.arrow", b"no arrow at all", "cannot be read"),
        ("a.jsonl.gz", gzip.compress(JSON_LINES)[:-9], "cannot be read"),
        ("a.jsonl.bz2", bz2.compress(JSON_LINES)[:-9], "cannot be read"),
        ("a.jsonl.xz", lzma.compress(JSON_LINES)[:-9], "cannot be read"),
        ("a.jsonl.zst", zstd(JSON_LINES)[:-9], "cannot be read"),
        ("a.parquet.zst", b"nothing of the kind", "cannot be read"),
        ("a.txt.xz", b"nothing of the kind", "cannot be read"),
        ("a.txt.bz2", b"nothing of the kind", "cannot be read"),
    ],
)
def test_a_broken_file(tmp_path, name, content, said):
    path = write(tmp_path / name, content)
    message = refusal(path)
    assert said in message
    assert str(path) in message


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.pdf", "a.gz", "a.xyz.gz", "LICENSE"])
def test_an_unknown_suffix(tmp_path, name):
    path = write(tmp_path / name, "text,label\n")
    message = refusal(path)
    assert f"{path} has none of the suffixes" in message
    assert all(suffix in message for suffix in (*FORMATS, *COMPRESSIONS))


# Chats

CHATS = [
    [{"role": "user", "content": f"Say {i} — “now”."}, {"role": "assistant", "content": f"{i}."}]
    for i in range(9)
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
)


@pytest.fixture
def chatting(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    return tokenizer


def ids(data) -> list[int]:
    return data.stream(10**6).tolist()


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_chats_through_the_template(tmp_path, chatting, name):
    content = [{"messages": chat} for chat in CHATS]
    lines = "\n".join(map(json.dumps, content))
    path = write(tmp_path / name, lines if name == "a.jsonl" else parquet_bytes(content))
    corpus = load_corpus(str(path), "messages")
    chats = [document.messages for document in corpus.splits["train"]()]
    assert all(chat in CHATS for chat in chats)
    expected = []
    for chat in chats:
        text = "".join(f"{m['role']}: {m['content']}\n" for m in chat)
        expected += [chatting.bos_token_id, *chatting(text, add_special_tokens=False).input_ids]
    assert ids(pack(corpus, "train", chatting, window=8)) == expected


def test_another_template_makes_other_tokens(tmp_path, chatting, monkeypatch):
    lines = "\n".join(json.dumps({"messages": chat}) for chat in CHATS)
    corpus = load_corpus(str(write(tmp_path / "a.jsonl", lines)), "messages")
    first = pack(corpus, "train", chatting, window=8)
    monkeypatch.setattr(chatting, "chat_template", TEMPLATE.replace(": ", " - "))
    assert pack(corpus, "train", chatting, window=8).fingerprint != first.fingerprint


def test_chats_without_a_template(tmp_path, tokenizer):
    lines = "\n".join(json.dumps({"messages": chat}) for chat in CHATS)
    corpus = load_corpus(str(write(tmp_path / "a.jsonl", lines)), "messages")
    with pytest.raises(UserError, match="no chat template"):
        pack(corpus, "train", tokenizer, window=8)


def test_a_chat_that_the_template_refuses(tmp_path, chatting):
    chats = [[{"role": "system", "content": str(i)}] for i in range(5)]
    lines = "\n".join(json.dumps({"messages": chat}) for chat in chats)
    corpus = load_corpus(str(write(tmp_path / "a.jsonl", lines)), "messages")
    with pytest.raises(UserError, match="no system role"):
        pack(corpus, "train", chatting, window=8)


@pytest.mark.parametrize(
    "value", [[], [1], [{"role": "user"}], [{"role": "user", "content": None}], {"role": "user"}]
)
def test_what_is_no_chat(value):
    with pytest.raises(rows.Flaw, match="line 1"):
        list(rows.documents([("line 1", {"messages": value})], "messages"))
