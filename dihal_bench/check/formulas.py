"""What denoisers cost by hand: a linear map of n weights 2n per place, attention 4 T W per query.

A backward pass costs twice the forward pass, but for maps of what needs no gradient once, and
attention two and a half times (the scores are computed again).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dihal_bench.diffusion.denoisers import Denoiser, MLPDenoiser, TransformerDenoiser

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class Work:
    """FLOPs of a trunk on a batch.

    Attributes:
        encode: of the clean context, once.
        evaluation: of the network, at one level for all places.
        step: forward and backward of both, at a level per place.
    """

    encode: float
    evaluation: float
    step: float


def by_hand(trunk: Denoiser, rows: int, length: int, *, blocks: bool) -> Work | None:
    """Return what a trunk costs on ``rows`` windows of ``length`` places; None: no formula."""
    formula = _FORMULAS.get(type(trunk))
    return formula(trunk, rows, length, blocks) if formula else None


def _transformer(trunk: Denoiser, rows: int, length: int, blocks: bool) -> Work:
    config, width, places = trunk.config, trunk.config.width, rows * length
    square, attention = width**2, 4 * rows * length**2 * width
    encoder = config.context_layers * 12 * square  # q, k, v, out: 4; feed-forward: 8
    first = trunk.condition * width + trunk.inputs * width  # of what needs no gradient
    keys = config.layers * 2 * square
    own = keys if blocks else 0  # of the noisy places of the block
    body = config.layers * 10 * square + own + width * trunk.outputs
    level, modulation = square, config.layers * 6 * square + 2 * square
    seen = config.layers * attention * (2 if blocks else 1)
    encode = 2 * places * (trunk.condition * width + encoder + keys)
    evaluate = 2 * places * (trunk.inputs * width + body)
    inner = encoder + keys + body + modulation
    step = 2 * places * (3 * inner + 2 * (first + level))
    return Work(
        encode=encode + config.context_layers * attention,
        evaluation=evaluate + 2 * (level + modulation) + seen,
        step=step + 3.5 * (config.context_layers * attention + seen),
    )


def _mlp(trunk: Denoiser, rows: int, length: int, blocks: bool) -> Work:
    del blocks
    config, width, places = trunk.config, trunk.config.width, rows * length
    square, attention = width**2, 4 * rows * length**2 * width
    encoder = config.context_layers * 12 * square
    body = config.layers * 11 * square + width * trunk.outputs  # feed-forward: 8, modulation: 3
    first, level, head = trunk.condition * width + trunk.inputs * width, square, 2 * square
    inner = encoder + body + head
    return Work(
        encode=2 * places * (trunk.condition * width + encoder) + config.context_layers * attention,
        evaluation=2 * places * (trunk.inputs * width + body) + 2 * (level + head),
        step=2 * places * (3 * inner + 2 * (first + level))
        + 3.5 * config.context_layers * attention,
    )


_FORMULAS: dict[type, Callable[[Denoiser, int, int, bool], Work]] = {
    TransformerDenoiser: _transformer,
    MLPDenoiser: _mlp,
}
