"""Corpora that lm-eval's task files can name: those that dihal-bench finds by name."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset


def validation(corpus: str, documents: int = 0, **_: object) -> dict[str, Dataset]:
    """Return the validation set of a corpus of dihal-bench as a data set with the column "text".

    Args:
        corpus: "bundled", a file, a folder, or a data set of the hub.
        documents: how many, at most; 0: all.
    """
    from datasets import Dataset

    from dihal_bench.data.sources import load_corpus

    texts = load_corpus(corpus).splits["validation"]()
    return {"validation": Dataset.from_dict({"text": list(islice(texts, documents or None))})}
