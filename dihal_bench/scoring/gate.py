"""The leak gate: no likelihood is written for weights whose predictions depend on the future.

Every token of a real window is changed in turn, under the same noise. Logits before it must not
move; logits from it on must, else the test was blind (a zero-initialised output passes any leak
test).
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
    from dihal_bench.scoring.intervals import Array
    from dihal_bench.text.tokens import PackedTokens, Windows

TOLERANCE = 1e-10  # of a logit, in float64
_ROWS = 16  # changed copies per pass


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """Outcome for one interface.

    Attributes:
        verdict: "pass", "leak" or "inconclusive" (some change moved nothing, or logits are no
            numbers).
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


def leak_gate(
    interface: Interface, data: PackedTokens, *, length: int = 96, steps: int = 4
) -> GateResult:
    """Test the trained weights of an interface in float64 on a window of the run's own text.

    Args:
        interface: trained or fitted; it is copied, not changed.
        data: where the window comes from; one with a document boundary is taken if there is any.
        length: tokens of the window that are used.
        steps: network evaluations of the sampler.
    """
    window = _window_with_boundary(data, min(length, data.window))
    moved, neighbour = _movements(_in_double(interface), window, steps)
    document, place = window.documents[0], np.arange(len(moved))
    same = document[:, None] == document
    after = place >= place[:, None]
    future = np.max(moved, where=same & ~after, initial=0.0)
    others = max(np.max(moved, where=~same, initial=0.0), neighbour)
    effect = np.max(moved, where=same & after, initial=0.0, axis=1).min()
    return GateResult(
        verdict=_verdict(moved, max(future, others), effect, interface.reads_tokens),
        future=float(future),
        others=float(others),
        effect=float(effect),
        tokens=len(moved),
        dtype="float64",
    )


def _movements(interface: Interface, window: Windows, steps: int) -> tuple[Array, float]:
    """Return how far changing token i moves the logits at j, [T, T], and those of another row."""
    tokens = window.tokens.shape[1]
    base = _logits(interface, _repeat(window, 2), steps)[0]
    moved, neighbour = [], 0.0
    for lo in range(0, tokens, _ROWS - 1):
        places = range(lo, min(lo + _ROWS - 1, tokens))
        logits = _logits(interface, _changed(window, places), steps)
        distances = (logits - base).abs().amax(-1).cpu().numpy()
        moved.append(distances[:-1])
        neighbour = max(neighbour, float(distances[-1].max()))
    return np.concatenate(moved), neighbour


def _verdict(moved: Array, leak: float, effect: float, reads_tokens: bool) -> str:
    if not np.isfinite(moved).all():
        return "inconclusive"
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
    """Return [1, length] tokens: the end of a document and the next one's start, if there are."""
    for index in range(len(data)):
        window = data.batch([index])
        inner = np.flatnonzero(window.offsets[0] == 0)
        inner = inner[(inner >= 2) & (inner <= data.window - 2)]
        if len(inner):
            return _cut(
                window, int(np.clip(inner[0] - length // 2, 0, data.window - length)), length
            )
    return _cut(data.batch([0]), 0, length)


def _cut(window: Windows, first: int, length: int) -> Windows:
    parts = {name: array[:, first : first + length].copy() for name, array in vars(window).items()}
    place = np.arange(length)
    starts = np.maximum.accumulate(np.where(parts["offsets"] == 0, place, 0), axis=1)
    parts["positions"] = place - starts
    parts["scored"] = parts["positions"] > 0
    return replace(window, **parts)


def _repeat(window: Windows, rows: int) -> Windows:
    return replace(
        window, **{n: np.repeat(array, rows, axis=0) for n, array in vars(window).items()}
    )


def _changed(window: Windows, places: range) -> Windows:
    """Return one copy per place with the token there replaced, and an unchanged copy as neighbour.

    The new token is the window's commonest other one: closed-form tables know it.
    """
    tokens, counts = np.unique(window.tokens, return_counts=True)
    common = [*tokens[np.argsort(-counts, kind="stable")][:2], 0, 1]
    batch = _repeat(window, len(places) + 1)
    for row, place in enumerate(places):
        batch.tokens[row, place] = next(t for t in common if t != window.tokens[0, place])
    return batch


@torch.no_grad()
def _logits(interface: Interface, windows: Windows, steps: int) -> Tensor:
    batch = Batch.of(windows, interface.backbone, layers=interface.layers)
    x0 = next(iter(interface.chains(batch, steps=steps, count=1)))
    return interface.recover(x0, batch)
