"""What is compared: interfaces, with denoisers, in the parts of a table."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dihal_bench.config.schema import AUTO
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS, INTERFACES
from dihal_bench.studies.study import Candidate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dihal_bench.config.schema import RunConfig

REFERENCE = "hidden"


@dataclass(frozen=True, kw_only=True)
class Block:
    """A part of a table whose rows may be compared with each other.

    Attributes:
        title: what it is called in the table.
        regime: of all of its rows.
        aux: whether cross-entropy and distillation losses have their weights; else those are 0.
        replaced: whether signals that bear tokens replace as many blocks as the others do.
        matched: what is held equal, as ``BudgetConfig.matched`` has it.
        slow: whether controls take part that are not in a run by default.
    """

    title: str
    regime: str = "causal"
    aux: bool = True
    replaced: bool = False
    matched: str = "diffusion"
    slow: bool = False


BLOCKS: dict[str, Block] = {
    "scratch": Block(title="from scratch, same diffusion tokens, aux=ce+kd", slow=True),
    "no-aux": Block(title="from scratch, same diffusion tokens, aux=none", aux=False),
    "replaced": Block(
        title="equal replaced blocks, same diffusion tokens, aux=ce+kd", replaced=True, slow=True
    ),
    "total": Block(title="from scratch, same total tokens, aux=ce+kd", matched="total"),
    "sequence": Block(
        title="blocks of tokens, same diffusion tokens, aux=ce+kd", regime="sequence"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Contender(Candidate):
    """An interface in a part of the table.

    Attributes:
        block: key of ``BLOCKS``.
        interface: name.
        denoiser: name.
    """

    block: str
    interface: str
    denoiser: str


def chosen_interfaces(names: Sequence[str]) -> list[str]:
    """Return the interfaces that are meant, the reference first; "all" is every one that diffuses.

    Raises:
        UserError: one of them is unknown or a control.
    """
    every = [name for name in INTERFACES.names() if INTERFACES.get(name).stochastic]
    found = every if list(names) == ["all"] else list(dict.fromkeys(names))
    for name in found:
        if not INTERFACES.get(name).stochastic:
            raise UserError(
                f"--interfaces {name} is a control, which stands beside its interface anyway; "
                f"choose among {', '.join(every)}."
            )
    return sorted(found, key=lambda name: name != REFERENCE)


def contenders(
    blocks: Sequence[str], denoisers: Sequence[str], interfaces: Sequence[str]
) -> list[Contender]:
    """Return everything that can be compared: block by block, as far as each has its regime.

    Args:
        blocks: keys of ``BLOCKS``.
        denoisers: names.
        interfaces: names, the reference first.
    """
    found = []
    for key, denoiser, name in itertools.product(blocks, denoisers, interfaces):
        regime = BLOCKS[key].regime
        if regime in DENOISERS.get(denoiser).regimes and regime in INTERFACES.get(name).regimes:
            label = f"{name} ({denoiser})" if len(denoisers) > 1 else name
            title = f"{label}, {BLOCKS[key].title}"
            own = Contender(label=label, title=title, block=key, interface=name, denoiser=denoiser)
            found.append(own)
    return found


def configure(
    base: RunConfig, own: Contender, *, seed: int, size: int, layer: int | None, depth: int
) -> RunConfig:
    """Return the configuration of a contender's run.

    Args:
        base: what all runs with its denoiser have in common.
        own: the contender.
        seed: of training, data order and noise.
        size: tokens per block in the sequence regime; 0: its default.
        layer: the upper end l of the span of interfaces that are entered at a layer; None: it is
            not known yet.
        depth: N, the backbone's blocks.
    """
    block, kind = BLOCKS[own.block], INTERFACES.get(own.interface)
    controls = [n for n in kind.controls if block.regime in INTERFACES.get(n).regimes]
    controls += kind.slow_controls if block.slow else ()
    bears = kind.bears_tokens
    return replace(
        base,
        interface=own.interface,
        controls=tuple(controls) if base.controls == (AUTO,) else base.controls,
        layer=AUTO if bears or layer is None else str(layer),
        from_layer=depth - (layer - base.from_layer)
        if bears and block.replaced and layer is not None
        else base.from_layer,
        regime=block.regime,
        block=size if block.regime == "sequence" else 0,
        seed=seed,
        losses=base.losses if block.aux else replace(base.losses, ce=0.0, kd=0.0),
        budget=replace(base.budget, matched=block.matched),
        options={k: v for k, v in base.options.items() if k in _sections(own.interface, controls)},
    )


def _sections(name: str, controls: Sequence[str]) -> set[str]:
    return {INTERFACES.get(n).section or n for n in (name, *controls)}
