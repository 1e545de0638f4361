"""What an interface costs: parameters by kind, FLOPs against those of the replaced blocks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from dihal_bench.interfaces.batch import Batch
from dihal_bench.training.ledger import count_flops

if TYPE_CHECKING:
    from dihal_bench.data.tokens import PackedTokens
    from dihal_bench.interfaces.base import Interface


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one interface.

    Attributes:
        trunk_parameters: of the denoiser, trained.
        recovery_parameters: of what is trained in the recovery phase.
        other_parameters: trained beside the trunk (readouts, learned embeddings).
        closed_form_parameters: estimated without gradients.
        steps: network evaluations of the chain that FLOPs are counted of.
        flops_per_token: of that chain for a token, with the way back to tokens if it is its own.
        replaced_flops_per_token: of the blocks that it stands in for.
        ratio: the former over the latter.
    """

    trunk_parameters: int
    recovery_parameters: int
    other_parameters: int
    closed_form_parameters: int
    steps: int
    flops_per_token: float
    replaced_flops_per_token: float
    ratio: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


@torch.no_grad()
def cost(interface: Interface, data: PackedTokens, *, steps: int) -> Cost:
    """Count parameters, and the FLOPs of a real chain on a window."""
    batch = Batch.of(data.batch([0]), interface.backbone, layers=interface.layers)
    tokens, span, backbone = batch.tokens.numel(), interface.span, interface.backbone
    used = steps if interface.stochastic or interface.iterative else 1

    def generate() -> None:
        x0 = next(iter(interface.samples(batch, steps=used, count=1)))
        if interface.bears_tokens:
            interface.recover(x0, batch)

    def replaced() -> None:
        state = batch.hidden(span.a)
        if interface.bears_tokens:
            backbone.upper(state, span.a, batch.positions)
        else:
            backbone.span(state, span.a, span.b, batch.positions)

    own, theirs = count_flops(generate) / tokens, count_flops(replaced) / tokens
    trunk, recovery = _count(interface.trunk), _count(interface.recovery)
    return Cost(
        trunk_parameters=trunk,
        recovery_parameters=recovery,
        other_parameters=_count(interface) - trunk - recovery,
        closed_form_parameters=interface.closed_form_parameters,
        steps=used,
        flops_per_token=own,
        replaced_flops_per_token=theirs,
        ratio=own / theirs,
    )


def _count(module: torch.nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters() if p.requires_grad)
