"""Locate: three geometric proxies of every layer, and the score that selects one."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dihal_bench.geometry.proxies import LayerProxies, layer_proxies, sample_pairs
    from dihal_bench.geometry.score import (
        PROXIES,
        LayerScore,
        ResampledScore,
        layer_scores,
        resolve_layer,
        summarise,
        zscore,
    )

__all__ = [
    "PROXIES",
    "LayerProxies",
    "LayerScore",
    "ResampledScore",
    "layer_proxies",
    "layer_scores",
    "resolve_layer",
    "sample_pairs",
    "summarise",
    "zscore",
]

_NEED_TORCH = ("LayerProxies", "layer_proxies", "sample_pairs")


def __getattr__(name: str) -> Any:
    """Imports the public names on first use, so that importing the package stays free of torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "proxies" if name in _NEED_TORCH else "score"
    return getattr(import_module(f"{__name__}.{module}"), name)
