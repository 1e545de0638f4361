"""A frozen causal language model that can be entered and left at any layer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dihal_bench.models.model import Backbone, BackboneInfo

__all__ = ["Backbone", "BackboneInfo"]


def __getattr__(name: str) -> Any:
    """Imports the public names on first use, so that importing the package stays free of torch."""
    if name in __all__:
        return getattr(import_module("dihal_bench.models.model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
