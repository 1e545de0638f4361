"""Data sets of the hub, without the hub: a stand-in, and the real library offline."""

import gzip
from collections import Counter

import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.data import hub, load_corpus, pack
from dihal_bench.data.documents import TENTH, content_hash

from .dealing import all_of, dealt, json_lines, refusal, some_texts, write

# The hub, without the hub


class Hub:
    """What ``HfApi`` would say of one data set, and the files in it."""

    def __init__(self, monkeypatch, sets=None, files=None, error=None):
        import datasets
        import huggingface_hub

        self.sets, self.files, self.error = sets or {}, files or {}, error
        self.asked = []
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(datasets, "load_dataset", self.load_dataset)

    def dataset_info(self, repository, timeout):
        from types import SimpleNamespace

        assert timeout <= 30
        if self.error:
            raise self.error
        files = [SimpleNamespace(rfilename=name) for name in self.files]
        return SimpleNamespace(id=repository, sha="abc", siblings=files)

    def hf_hub_download(self, repository, name, repo_type, revision):
        assert (repo_type, revision) == ("dataset", "abc")
        return str(self.files[name])

    def load_dataset(self, repository, config, revision, streaming):
        import datasets

        assert streaming
        self.asked.append((repository, config, revision))
        sets = {name: datasets.Dataset.from_dict(rows) for name, rows in self.sets.items()}
        return datasets.IterableDatasetDict(
            {
                name: rows.to_iterable_dataset(num_shards=min(3, len(rows)))
                for name, rows in sets.items()
            }
        )


def test_a_data_set_with_its_own_validation(monkeypatch):
    texts = some_texts(20)
    the_hub = Hub(
        monkeypatch,
        {"train": {"text": texts}, "validation": {"text": ["a", "a"]}, "test": {"text": ["c"]}},
    )
    corpus = load_corpus("owner/name:config")
    sets = dealt(corpus)
    assert the_hub.asked == [("owner/name", "config", "abc")]
    assert set(sets) == {"train", "validation"}
    assert Counter(sets["train"]) == Counter(texts)
    assert sets["validation"] == ["a", "a"]
    assert corpus.notes["revision"] == "abc"
    assert dealt(corpus) == sets


def test_a_data_set_without_validation_is_dealt(monkeypatch):
    texts = some_texts(300)
    Hub(monkeypatch, {"train": {"text": texts + texts}})
    sets = dealt(load_corpus("owner/name"))
    assert set(sets["validation"]) == {t for t in texts if content_hash(t) < TENTH}
    assert Counter(sets["train"] + sets["validation"]) == Counter(texts)


def test_the_fingerprint_is_of_the_revision(monkeypatch):
    Hub(monkeypatch, {"train": {"text": ["a", "b"]}})
    names = ["owner/name", "owner/name:config", "owner/other"]
    assert len({load_corpus(name).fingerprint for name in names}) == 3
    assert load_corpus(names[0]).fingerprint == load_corpus(names[0]).fingerprint


def test_a_data_set_without_training_set_or_text(monkeypatch):
    Hub(monkeypatch, {"test": {"text": ["a"]}})
    assert "no set called train (but test)" in refusal("owner/name")
    Hub(monkeypatch, {"train": {"content": ["a"], "label": [1]}})
    corpus = load_corpus("owner/name")
    with pytest.raises(UserError, match=r'"text".*the columns are content, label'):
        next(corpus.splits["train"]())
    assert next(load_corpus("owner/name", "content").splits["train"]()) == "a"


def test_the_column_and_the_deal_count_in_the_fingerprint(monkeypatch):
    Hub(monkeypatch, {"train": {"text": ["a", "b"], "content": ["c", "d"]}})
    dealt_text, other = (load_corpus("owner/name", column) for column in ("text", "content"))
    Hub(monkeypatch, {"train": {"text": ["a"]}, "validation": {"text": ["b"]}})
    published = load_corpus("owner/name")
    assert len({corpus.fingerprint for corpus in (dealt_text, other, published)}) == 3


def test_a_data_set_that_does_not_load(monkeypatch):
    the_hub = Hub(monkeypatch)

    def fail(*args, **kwargs):
        raise ValueError("BuilderConfig 'x' not found. Available: ['y']\nand more")

    monkeypatch.setattr("datasets.load_dataset", fail)
    assert "Available: ['y']" in refusal("owner/name:x")
    assert the_hub.asked == []


def test_a_data_set_that_does_not_exist(monkeypatch):
    from huggingface_hub.errors import RepositoryNotFoundError

    response = type("Response", (), {"headers": {}, "request": None, "status_code": 404})()
    Hub(monkeypatch, error=RepositoryNotFoundError("404", response=response))
    message = refusal("owner/name")
    assert "no such public data set" in message
    assert "hf auth login" in message


def test_files_listed_by_address(monkeypatch, tmp_path):
    """A script in the repository is not run; the list beside it is enough."""
    addresses = []
    for number in range(20):
        path = tmp_path / f"{number}.json.gz"
        texts = some_texts(400)[20 * number :][:20]
        addresses.append(str(write(path, gzip.compress(json_lines(texts).encode()))))
    files = {
        "name.py": None,
        "README.md": None,
        "urls/v1.txt": write(tmp_path / "v1.txt", "\n".join(addresses) + "\n"),
        "urls/v2.txt": None,
    }
    the_hub = Hub(monkeypatch, files=files)
    assert "owner/name:v1, owner/name:v2" in refusal("owner/name")
    corpus = load_corpus("owner/name:v1")
    assert the_hub.asked == []
    assert all_of(corpus) == Counter(some_texts(400))
    first = [int(text.split()[-1]) // 20 for text in list(corpus.splits["train"]())[:10]]
    assert len(set(first)) > 8  # files are read side by side
    assert dealt(corpus) == dealt(corpus)
    write(tmp_path / "3.json.gz", gzip.compress(b"{}\n"))
    with pytest.raises(UserError, match=r'3\.json\.gz, line 1: no string called "text"'):
        dealt(corpus)
    (tmp_path / "3.json.gz").unlink()
    with pytest.raises(UserError, match="No such file"):
        dealt(corpus)


def test_a_data_set_once_streamed_needs_no_hub_for_its_tokens(offline, monkeypatch, tokenizer):
    with monkeypatch.context() as online:
        Hub(online, {"train": {"text": some_texts(300)}})
        first = load_corpus("owner/name")
        data = pack(first, "train", tokenizer, window=8)
    again = load_corpus("owner/name")
    assert again.fingerprint == first.fingerprint
    assert again.notes == first.notes
    assert pack(again, "train", tokenizer, window=8).fingerprint == data.fingerprint
    with pytest.raises(UserError, match="cannot be reached"):
        pack(again, "validation", tokenizer, window=8)


@pytest.mark.parametrize("name", ["owner..name", "owner/name.git"])
def test_a_name_that_the_hub_would_not_have(name):
    assert "no such public data set" in refusal(name)


def test_lanes_take_turns():
    assert list(hub._in_turn([iter("abc"), iter(""), iter("d")])) == ["a", "d", "b", "c"]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, and a cache of our own."""
    import datasets
    from huggingface_hub.errors import OfflineModeIsEnabled

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    Hub(monkeypatch, error=OfflineModeIsEnabled("offline"))
    return tmp_path / "hub"


def test_offline_and_not_cached(offline):
    message = refusal("owner/my_name:some-config")
    assert "cannot be reached" in message
    assert "give a local file or folder" in message
    assert "datasets.load_dataset('owner/my_name', 'some-config')" in message


def test_offline_but_cached(offline, monkeypatch):
    import datasets
    from datasets.arrow_writer import ArrowWriter

    texts = some_texts(50)
    folder = offline / "owner___my_name" / "default" / "0.0.0" / "abc"
    folder.mkdir(parents=True)
    with ArrowWriter(path=str(folder / "my_name-train.arrow")) as writer:
        for text in texts:
            writer.write({"text": text})
        writer.finalize()
    info = datasets.DatasetInfo(
        dataset_name="my_name",
        config_name="default",
        features=datasets.Features({"text": datasets.Value("string")}),
        splits={"train": {"name": "train", "num_examples": 50, "dataset_name": "my_name"}},
    )
    info.write_to_directory(str(folder))
    corpus = load_corpus("owner/my_name")
    assert all_of(corpus) == Counter(texts)
    assert corpus.notes["revision"] == "abc"
    Hub(monkeypatch, {"train": {"text": texts}})  # the hub is back
    assert load_corpus("owner/my_name").fingerprint == corpus.fingerprint
