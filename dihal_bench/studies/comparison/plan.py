"""Which runs a comparison consists of: blocks of a table, interfaces, denoisers, seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dihal_bench.config.schema import AUTO
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS, INTERFACES
from dihal_bench.runs.folder import folder_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

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
class ComparisonEntry:
    """One run of a comparison.

    Attributes:
        block: key of ``BLOCKS``.
        label: what its rows are called: the interface, and the denoiser if several are compared.
        config: of the run.
        folder: where it is kept; runs of several blocks with one configuration are one.
    """

    block: str
    label: str
    config: RunConfig
    folder: Path


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


def plan(
    bases: Mapping[str, RunConfig],
    out: Path,
    *,
    interfaces: Sequence[str],
    seeds: Sequence[int],
    blocks: Sequence[str],
    size: int,
    layer: int | None,
    depth: int,
) -> list[ComparisonEntry]:
    """Return the runs of a comparison, seed by seed, so that an early stop leaves whole seeds.

    Args:
        bases: denoiser -> what all runs with it have in common.
        out: the comparison's folder.
        interfaces: names, the reference first.
        seeds: of training, data order and noise.
        blocks: keys of ``BLOCKS``.
        size: tokens per block in the sequence regime; 0: its default.
        layer: the upper end l of the span of interfaces that are entered at a layer; None: it is
            not known yet.
        depth: N, the backbone's blocks.
    """
    entries = []
    for seed in seeds:
        for key in blocks:
            for denoiser, base in bases.items():
                if BLOCKS[key].regime not in DENOISERS.get(denoiser).regimes:
                    continue
                for name in interfaces:
                    if BLOCKS[key].regime not in INTERFACES.get(name).regimes:
                        continue
                    config = _config(base, BLOCKS[key], name, seed, size, layer, depth)
                    folder = folder_in(out / "runs", config)
                    label = f"{name} ({denoiser})" if len(bases) > 1 else name
                    entries.append(
                        ComparisonEntry(block=key, label=label, config=config, folder=folder)
                    )
    return entries


def _config(
    base: RunConfig,
    block: Block,
    name: str,
    seed: int,
    size: int,
    layer: int | None,
    depth: int,
) -> RunConfig:
    kind = INTERFACES.get(name)
    controls = [n for n in kind.controls if block.regime in INTERFACES.get(n).regimes]
    controls += kind.slow_controls if block.slow else ()
    bears = kind.bears_tokens
    return replace(
        base,
        interface=name,
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
        options={k: v for k, v in base.options.items() if k in _sections(name, controls)},
    )


def _sections(name: str, controls: Sequence[str]) -> set[str]:
    return {INTERFACES.get(n).section or n for n in (name, *controls)}
