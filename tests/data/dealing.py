"""What tests of corpora share: texts, files, and what was dealt or refused."""

import json
from collections import Counter
from pathlib import Path

import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.data import Corpus, load_corpus


def some_texts(count: int) -> list[str]:
    return [f"here is one of the many documents, and it is called number {i}" for i in range(count)]


def json_lines(texts: list[str]) -> str:
    return "".join(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(texts))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def dealt(corpus: Corpus) -> dict[str, list[str]]:
    return {name: list(stream()) for name, stream in corpus.splits.items()}


def all_of(corpus: Corpus) -> Counter:
    return Counter(text for texts in dealt(corpus).values() for text in texts)


def refusal(name: object) -> str:
    with pytest.raises(UserError) as caught:
        load_corpus(str(name))
    message = str(caught.value)
    assert message.startswith(f"--corpus {name}: ")
    assert message.endswith(".")
    assert "\n" not in message
    return message
