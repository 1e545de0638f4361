"""The quick test of the leak gate: tokens are changed, and what must not move does not.

Every token of a part of a real window is changed in turn, and of the whole window a few, so that no
distance is left out, under the same noise. Logits before a changed token must not move; logits from
it on must, else the test was blind (a zero-initialised output passes any leak test). In float64
"not move" means 1e-10. Of a model too large for that a few tokens of a short part are changed, in
the run's own arithmetic, where it means no more than an unchanged row moves between batches; the
main test (``rescoring.py``) looks over all distances.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dihal_bench.diffusion.layout import Layout
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import Step
from dihal_bench.models.model import Backbone
from dihal_bench.results.fields import LOOSEST, TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from dihal_bench.data.tokens import PackedTokens, Windows
    from dihal_bench.evaluation.intervals import Array
    from dihal_bench.interfaces.base import Interface

VERSION = 1  # of this test
LARGEST_IN_DOUBLE = 20_000_000  # parameters
_ROWS, _FEWER = 16, 8  # copies per pass
_WORK = 2e10  # parameters times tokens of a pass of a larger model
LENGTH, _SHORTEST = 96, 16  # tokens
_MEMORY, _ALIVE = 3e9, 4  # bytes of logits, of which so many copies exist at a time


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """Outcome for one interface.

    Attributes:
        verdict: "pass", "leak" or "inconclusive" (some change moved nothing, logits are no numbers,
            or unchanged rows move further than roundings).
        future: largest change of a logit before the changed token.
        others: largest change in another document of the window, or in another row of the batch.
        effect: smallest, over the tokens that some place must hear of, of the largest change at or
            after the changed one.
        tolerance: largest movement that counts as none.
        tokens: tokens of the part, each of which was changed.
        reach: tokens of the whole window, the longest distance that was looked over.
        dtype: arithmetic of the test.
    """

    verdict: str
    future: float
    others: float
    effect: float
    tolerance: float
    tokens: int
    reach: int
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def leak_gates(
    interfaces: Mapping[str, Interface],
    data: PackedTokens,
    *,
    length: int = LENGTH,
    steps: int = 4,
    largest: int = LARGEST_IN_DOUBLE,
) -> dict[str, GateResult]:
    """Test the trained weights of interfaces of one backbone on a window of the run's own text.

    Args:
        interfaces: trained or fitted, by name; they are copied, not changed.
        data: where the window comes from; one with a document boundary is taken if there is any.
        length: tokens of the part of the window in which every token is changed.
        steps: network evaluations of the sampler.
        largest: parameters of the largest backbone that is tested in float64, unless it is spread
            over several processes.
    """
    backbone = next(iter(interfaces.values())).backbone
    count = sum(p.numel() for p in backbone.model.parameters())
    small = count <= largest and not backbone.sharded
    if not small:
        length = min(length, max(_SHORTEST, int(_WORK / count / _FEWER)))
    part = _window_with_boundary(data, min(length, data.window))
    whole = _window_with_boundary(data, data.window)
    probes = _in_double(interfaces) if small else interfaces
    return {
        name: _gate(probe, part, whole if small and probe.phases else None, steps, small)
        for name, probe in probes.items()
    }


def _gate(
    interface: Interface, part: Windows, whole: Windows | None, steps: int, every: bool
) -> GateResult:
    """Test one interface.

    Args:
        interface: in the arithmetic of the test.
        part: a short window.
        whole: a long one; None: none, as of what was fitted in closed form, or is large.
        steps: of the sampler.
        every: whether every token of the part is changed, or few.
    """
    dtype = interface.backbone.model.dtype
    arithmetic = str(dtype).removeprefix("torch.")
    tokens = part.tokens.shape[1]
    reach = tokens if whole is None else whole.tokens.shape[1]
    shift = interface.config.block // 2  # of the blocks, if there are any
    seen = [_moves(interface, part, range(tokens) if every else _few(tokens, _FEWER), steps, 0)]
    if whole is not None:
        seen.append(_moves(interface, whole, _few(reach, _ROWS), steps, shift))
    unchanged = max(moves.unchanged for moves in seen)
    tolerance = TOLERANCE if dtype == torch.float64 else max(TOLERANCE, unchanged)
    future, others = max(moves.future for moves in seen), max(moves.others for moves in seen)
    effect = min(moves.effect for moves in seen)
    return GateResult(
        verdict=_verdict(
            seen,
            max(future, others),
            effect,
            tolerance,
            LOOSEST[arithmetic],
            interface.reads_tokens,
        ),
        future=future,
        others=others,
        effect=effect,
        tolerance=tolerance,
        tokens=tokens,
        reach=reach,
        dtype=arithmetic,
    )


def tested_tokens(backbone: Backbone, window: int, *, trained: bool) -> int:
    """Return how many tokens `leak_gates` runs through one interface, those of copies included.

    Args:
        backbone: of the interface.
        window: tokens of a window.
        trained: whether the interface has phases.
    """
    count = sum(p.numel() for p in backbone.model.parameters())
    if count > LARGEST_IN_DOUBLE or backbone.sharded:
        return 2 * _FEWER * min(LENGTH, window, max(_SHORTEST, int(_WORK / count / _FEWER)))
    short = min(LENGTH, window)
    passes = 1 + math.ceil(short / (_ROWS - 1))
    return _ROWS * (passes * short + 2 * window * trained)


def tested_bytes(backbone: Backbone, window: int) -> float:
    """Return the bytes of logits that `leak_gates` holds at most."""
    return float(min(_MEMORY, _ALIVE * _ROWS * window * backbone.vocab_size * 8))


def _few(tokens: int, rows: int) -> list[int]:
    """Return places that are spread over a window, as many as a pass of so many rows takes."""
    return [int(place) for place in np.unique(np.linspace(0, tokens - 1, rows - 1).round())]


def _rows(interface: Interface, tokens: int) -> int:
    """Return how many copies of a window are run at a time: as many as memory allows."""
    model = interface.backbone.model
    one = tokens * interface.backbone.vocab_size * model.dtype.itemsize * _ALIVE
    count = _ROWS if model.dtype == torch.float64 else _FEWER
    return int(np.clip(_MEMORY // one, 3, count))


@dataclass(frozen=True)
class _Moves:
    """How far logits moved: the fields of ``GateResult``, of one window.

    Attributes:
        unchanged: from row to row of an unchanged batch.
        finite: whether all of them are numbers.
    """

    future: float
    others: float
    effect: float
    unchanged: float
    finite: bool


def _moves(
    interface: Interface, window: Windows, places: Sequence[int], steps: int, shift: int
) -> _Moves:
    """Change the tokens at ``places`` in turn."""
    rows = _rows(interface, window.tokens.shape[1])
    unchanged = _logits(interface, _changed(window, [], rows), steps, shift)
    base = unchanged[-1]
    batches, neighbour = [], 0.0
    for lo in range(0, len(places), rows - 1):
        some = places[lo : lo + rows - 1]
        logits = _logits(interface, _changed(window, some, rows), steps, shift)
        distances = _distances(logits, base)
        batches.append(distances[: len(some)])
        neighbour = max(neighbour, float(distances[-1].max()))
    moved = np.concatenate(batches)  # (places, T)
    document, at = window.documents[0], np.array(places)[:, None]
    same, after = document[at] == document, np.arange(len(document)) >= at
    heard = _heard(interface, window, shift)[places]
    return _Moves(
        future=float(np.max(moved, where=same & ~after, initial=0.0)),
        others=max(float(np.max(moved, where=~same, initial=0.0)), neighbour),
        effect=float(np.max(moved, where=same & after, initial=0.0, axis=1)[heard].min()),
        unchanged=float(_distances(unchanged, base).max()),
        finite=bool(np.isfinite(moved).all()),
    )


def _heard(interface: Interface, window: Windows, shift: int) -> NDArray[np.bool_]:
    """Return which tokens some place must hear of, bool [T]: those before the last block starts."""
    place = np.arange(window.tokens.shape[1])
    layout = Layout.of(torch.from_numpy(window.positions), interface.config.block, shift)
    starts = place if layout.starts is None else layout.starts[0].numpy()
    document = window.documents[0]
    last = {d: starts[document == d].max() for d in np.unique(document)}
    return np.array([p <= last[d] for p, d in zip(place, document, strict=True)])


def _distances(logits: Tensor, base: Tensor) -> Array:
    """Largest difference per row and position, [R, T]."""
    return np.asarray((logits - base).abs().amax(-1).double().cpu().numpy())


def _verdict(
    seen: Sequence[_Moves],
    leak: float,
    effect: float,
    tolerance: float,
    loosest: float,
    reads_tokens: bool,
) -> str:
    if not all(moves.finite for moves in seen) or tolerance > loosest:
        return "inconclusive"
    if leak > tolerance:
        return "leak"
    return "inconclusive" if reads_tokens and effect <= tolerance else "pass"


def _in_double(interfaces: Mapping[str, Interface]) -> dict[str, Interface]:
    """Copy interfaces and their one backbone into float64."""
    backbone = next(iter(interfaces.values())).backbone
    model = copy.deepcopy(backbone.model).double()
    double = Backbone.from_model(model, backbone.tokenizer, name=backbone.name)
    copies = copy.deepcopy(dict(interfaces), {id(backbone): double})
    return {name: interface.double() for name, interface in copies.items()}


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


def _changed(window: Windows, places: Sequence[int], rows: int) -> Windows:
    """Return one copy per place with the token there replaced, and unchanged copies as neighbours.

    Every batch has the same number of rows: kernels may round differently in another. The new token
    is the window's commonest other one: closed-form tables know it.
    """
    tokens, counts = np.unique(window.tokens, return_counts=True)
    common = [*tokens[np.argsort(-counts, kind="stable")][:2], 0, 1]
    batch = _repeat(window, rows)
    for row, place in enumerate(places):
        batch.tokens[row, place] = next(t for t in common if t != window.tokens[0, place])
    return batch


@torch.no_grad()
def _logits(interface: Interface, windows: Windows, steps: int, shift: int) -> Tensor:
    batch = Batch.of(windows, interface.backbone, layers=interface.layers)
    layout = interface.layout(batch, shift)
    x0 = next(iter(interface.samples(batch, steps=steps, count=1, layout=layout)))
    logits = interface.recover(x0, batch)
    if not interface.rounds or interface.trunk is None:
        return logits
    # few changes are large enough to round to another token: what is not rounded yet is watched too
    context = interface.trunk.encode(interface.condition(batch), layout)
    z, t = interface.terminal_input(x0, batch, context, Step(index=0))
    seen = (logits, x0, interface.estimate(z, t, context))
    return torch.cat([x.to(logits.dtype) for x in seen], dim=-1)
