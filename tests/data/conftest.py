"""A cache of its own for every test, and a tokenizer small enough to train on the spot."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps. A window holds tokens; a "
    "document holds sentences. Where there is white space, a word ends and another word begins."
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Nothing is read from the user's cache, or written to it."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(folder))
    return folder


def byte_level(entries: int) -> PreTrainedTokenizerFast:
    rules = Tokenizer(models.BPE())
    rules.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rules.train_from_iterator([TEXT], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def tokenizer():
    """Byte-level BPE of 300 entries."""
    return byte_level(300)


@pytest.fixture(scope="session")
def other_tokenizer():
    """The same rules with fewer merges."""
    return byte_level(270)
