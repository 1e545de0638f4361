"""The leak gate: no likelihood is written for weights whose predictions depend on the future.

Every token of a real window is changed in turn, under the same noise. Logits before it must not move;
logits from it on must, else the test was blind (a zero-initialised output passes any leak test).
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dihal_bench.backbone.model import Backbone
from dihal_bench.interfaces.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from dihal_bench.interfaces.base import Interface
    from dihal_bench.text.tokens import PackedTokens, Windows

TOLERANCE = 1e-10  # of a logit, in float64
_ROWS = 16  # changed copies per pass


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """Outcome for one interface.

    Attributes:
        verdict: "pass", "leak" or "inconclusive" (nothing moved at all).
        future: largest change of a logit before the changed token.
        others: largest change in another document of the window, or in another row of the batch.
        effect: smallest, over the tokens, of the largest change at or after the changed one.
        tokens: tokens changed.
        dtype: arithmetic of the test.
    """

    verdict: str
    future: float
    others: float
    effect: float
    tokens: int
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def leak_gate(interface: Interface, data: PackedTokens, *, length: int = 96, steps: int = 4) -> GateResult:
    """Test the trained weights of an interface in float64 on a window of the run's own text.

    Args:
        interface: trained or fitted; it is copied, not changed.
        data: where the window comes from; one with a document boundary is taken if there is any.
        length: tokens of the window that are used.
        steps: network evaluations of the sampler.
    """
    probe = _in_double(interface)
    window = _window_with_boundary(data, min(length, data.window))
    tokens = window.tokens.shape[1]
    base = _logits(probe, _repeat(window, 2), steps)[0]
    future, others, effect = 0.0, 0.0, float("inf")
    for lo in range(0, tokens, _ROWS - 1):
        places = range(lo, min(lo + _ROWS - 1, tokens))
        moved = (_logits(probe, _changed(window, places), steps) - base).abs().amax(-1).cpu().numpy()
        others = max(others, moved[-1].max())
        for row, place in enumerate(places):
            same = window.documents[0] == window.documents[0, place]
            after = np.arange(tokens) >= place
            future = max(future, moved[row, same & ~after].max(initial=0.0))
            others = max(others, moved[row, ~same].max(initial=0.0))
            effect = min(effect, moved[row, same & after].max())
    return GateResult(
        verdict=_verdict(max(future, others), effect, interface.reads_tokens),
        future=float(future),
        others=float(others),
        effect=float(effect),
        tokens=tokens,
        dtype="float64",
    )


def _verdict(leak: float, effect: float, reads_tokens: bool) -> str:
    if leak > TOLERANCE:
        return "leak"
    return "inconclusive" if reads_tokens and effect <= TOLERANCE else "pass"


def _in_double(interface: Interface) -> Interface:
    backbone = interface.backbone
    model = copy.deepcopy(backbone.model).double()
    double = Backbone.from_model(model, backbone.tokenizer, name=backbone.name)
    probe: Interface = copy.deepcopy(interface, {id(backbone): double}).double()
    return probe


def _window_with_boundary(data: PackedTokens, length: int) -> Windows:
    """Return [1, length] tokens with the end of one document and the start of the next, if there are any."""
    for index in range(len(data)):
        window = data.batch([index])
        inner = np.flatnonzero(window.offsets[0] == 0)
        inner = inner[(inner >= 2) & (inner <= data.window - 2)]
        if len(inner):
            return _cut(window, int(np.clip(inner[0] - length // 2, 0, data.window - length)), length)
    return _cut(data.batch([0]), 0, length)


def _cut(window: Windows, first: int, length: int) -> Windows:
    parts = {name: array[:, first : first + length].copy() for name, array in vars(window).items()}
    place = np.arange(length)
    starts = np.maximum.accumulate(np.where(parts["offsets"] == 0, place, 0), axis=1)
    parts["positions"] = place - starts
    parts["scored"] = parts["positions"] > 0
    return replace(window, **parts)


def _repeat(window: Windows, rows: int) -> Windows:
    return replace(window, **{n: np.repeat(array, rows, axis=0) for n, array in vars(window).items()})


def _changed(window: Windows, places: range) -> Windows:
    """Return one copy per place with the token there replaced, and an unchanged copy as their neighbour.

    The new token is the next different one of the window: a real one, which closed-form tables know.
    """
    batch = _repeat(window, len(places) + 1)
    for row, place in enumerate(places):
        later = np.roll(window.tokens[0], -place)
        batch.tokens[row, place] = later[np.flatnonzero(later != later[0])[0]]
    return batch


@torch.no_grad()
def _logits(interface: Interface, windows: Windows, steps: int) -> Tensor:
    batch = Batch.of(windows, interface.backbone, layers=interface.layers)
    x0 = next(iter(interface.chains(batch, steps=steps, count=1)))
    return interface.recover(x0, batch)
