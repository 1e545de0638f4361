"""Corpora: documents from anywhere, tokenised, packed and cut into windows."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dihal_bench.data.documents import Corpus
    from dihal_bench.data.sources import load_corpus
    from dihal_bench.data.tokens import PackedTokens, Windows, pack

__all__ = ["Corpus", "PackedTokens", "Windows", "load_corpus", "pack"]

_HOMES = {
    "Corpus": "documents",
    "PackedTokens": "tokens",
    "Windows": "tokens",
    "load_corpus": "sources",
    "pack": "tokens",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use: importing the package costs nothing."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
