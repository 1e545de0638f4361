"""The token losses of a step of diffusion: of all windows, or of some that stand for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import Tensor

from dihal_bench.interfaces.batch import taken
from dihal_bench.interfaces.losses import scored_places, token_losses
from dihal_bench.interfaces.part import mean_of_part

if TYPE_CHECKING:
    from dihal_bench.diffusion.layout import Layout
    from dihal_bench.diffusion.noise import Noise
    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import InterfaceConfig, Step

Drawn: TypeAlias = tuple[Tensor, Tensor, Tensor]


class Recovers(Protocol):
    """What is asked of an interface here; see there."""

    config: InterfaceConfig
    noise: Noise
    trunk: Any

    @property
    def redraws(self) -> bool: ...  # noqa: D102

    def condition(self, batch: Batch) -> Tensor: ...  # noqa: D102

    def estimate(self, z: Tensor, t: Tensor, context: Any) -> Tensor: ...  # noqa: D102

    def recover(self, x0: Tensor, batch: Batch) -> Tensor: ...  # noqa: D102


def losses_of_tokens(
    interface: Recovers, drawn: Drawn, batch: Batch, layout: Layout, step: Step, *, draw: int
) -> dict[str, Tensor]:
    """Return cross-entropy and KL, as far as they have weights, of one-step estimates.

    Those of some windows are divided by the share of the windows that have them, and by the places
    of all windows: on average over the choice they are those of all.

    Args:
        interface: recovers.
        drawn: estimate [B, T, D], and what it was made of: z [B, T, D] and levels [B, T] or [].
        batch: all windows of the pass.
        layout: of its blocks.
        step: says which windows have token losses.
        draw: of the step's noise.
    """
    weights, current = interface.config.losses, _current(interface, batch, layout, draw)
    asked = {"ce": weights.ce > 0, "kd": weights.kd > 0}
    if step.taught is None:
        read = _read(interface, drawn, batch, layout, current)
        where = _until(current, layout)
        return token_losses(
            interface.recover(read, batch), batch, ce=asked["ce"], kd=asked["kd"], where=where
        )
    over = scored_places(batch, _until(current, layout)).sum()
    if not step.taught:  # the processes that share a pass ask for the same means
        nothing = torch.zeros((), device=over.device)
        return {name: mean_of_part(nothing, over) for name, wanted in asked.items() if wanted}
    part, rows = batch.part(step.taught), batch.rows(step.taught)
    drawn, layout, current = taken((drawn, layout, current), rows)
    read = _read(interface, drawn, part, layout, current)
    return token_losses(
        interface.recover(read, part),
        part,
        ce=asked["ce"],
        kd=asked["kd"],
        where=_until(current, layout),
        over=over,
        share=weights.token_share,
    )


def _current(interface: Recovers, batch: Batch, layout: Layout, draw: int) -> Tensor | None:
    """Return the first place of the one block per row that is being generated, int64 [B, 1].

    None where signals are not drawn again: then all blocks are.
    """
    if not interface.redraws:
        return None
    assert layout.starts is not None
    uniform = batch.coin(interface.noise, draw=draw)
    place = (uniform * batch.tokens.shape[1]).long().clamp(max=batch.tokens.shape[1] - 1)
    return layout.starts.gather(1, place)


def _until(current: Tensor | None, layout: Layout) -> Tensor | None:
    """Return where logits count, bool [B, T]: what comes after the block is not there yet."""
    return None if current is None or layout.starts is None else layout.starts <= current


def _read(
    interface: Recovers, drawn: Drawn, batch: Batch, layout: Layout, current: Tensor | None
) -> Tensor:
    """Return what recovery reads in a training step, [B, T, D]: before the block, what is known."""
    estimate, z, t = drawn
    if current is None:
        return estimate
    assert interface.trunk is not None
    context = interface.trunk.encode(interface.condition(batch), layout.causal())
    again = interface.estimate(z, t, context)
    return torch.where(layout.kept(current[:, 0])[..., None], estimate, again)
