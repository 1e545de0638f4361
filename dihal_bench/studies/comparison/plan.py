"""What is compared: interfaces, with denoisers, in the parts of a table."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dihal_bench.config.schema import AUTO
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS, INTERFACES, include
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.cost_estimate import checked
from dihal_bench.studies.study import Candidate, Entry, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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


def planned(
    bases: Mapping[str, RunConfig],
    out: Path,
    *,
    interfaces: Sequence[str],
    seeds: Sequence[int],
    blocks: Sequence[str],
    size: int,
    dry: bool,
    say: Callable[[str], None],
) -> tuple[list[Entry[Contender]], RunContext]:
    """Choose the layer and return the runs, with the job of what they have in common.

    Args:
        bases: denoiser -> what all runs with it have in common.
        out: the comparison's folder.
        interfaces: names, or "all".
        seeds: of training, data order and noise.
        blocks: keys of ``BLOCKS``.
        size: tokens per block in the sequence regime; 0: its default.
        dry: do nothing that takes long: a layer that would have to be located stays "auto".
        say: takes one-line messages for a person.

    Raises:
        UserError: a name is unknown, or the configuration cannot be run.
    """
    base = next(iter(bases.values()))
    for path in base.include:
        include(path)
    for key in blocks:
        if key not in BLOCKS:
            raise UserError(
                f"--blocks {key} is unknown; choose among {', '.join(BLOCKS)}, or leave it out."
            )
    if not seeds or not interfaces:
        raise UserError("--seeds and --interfaces must name one or more.")
    names = chosen_interfaces(interfaces)
    first = replace(base, seed=seeds[0], interface=REFERENCE, controls=(AUTO,))
    job = RunContext(first, out, say, shared=out / "shared")
    entered = [name for name in names if not INTERFACES.get(name).bears_tokens]
    layer = None
    if entered or any(BLOCKS[key].replaced for key in blocks):
        job.check_span()
        layer = job.entered(REFERENCE, dry=dry)
    depth = job.inputs.backbone.blocks

    def of(own: Contender, seed: int) -> RunConfig:
        base = bases[own.denoiser]
        return configure(base, own, seed=seed, size=size, layer=layer, depth=depth)

    entries = plan(contenders(blocks, list(bases), names), seeds, of, out)
    for config in {entry.run.folder: entry.run.config for entry in entries}.values():
        checked(config, job)
    for line in _left_out(entries, names, blocks, list(bases)):
        say(line)
    return entries, job


def _left_out(
    entries: Sequence[Entry[Contender]],
    names: Sequence[str],
    blocks: Sequence[str],
    denoisers: Sequence[str],
) -> list[str]:
    """Return a line for whatever was asked for and has no run, because its regime is another."""
    planned = {(own.block, own.interface, own.denoiser) for own in (e.candidate for e in entries)}
    asked = [(key, name, denoiser) for key in blocks for name in names for denoiser in denoisers]
    return [
        f"left out: {name} with {denoiser} in {key}, whose regime is {BLOCKS[key].regime}"
        for key, name, denoiser in asked
        if (key, name, denoiser) not in planned
    ]
