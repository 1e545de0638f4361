"""Prepare a comparison: names looked up, the layer chosen, the runs laid out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dihal_bench.config.schema import AUTO
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS, INTERFACES, include
from dihal_bench.diffusion.denoisers import UNetConfig
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.cost_estimate import checked
from dihal_bench.studies.comparison.plan import (
    BLOCKS,
    REFERENCE,
    Contender,
    chosen_interfaces,
    configure,
    contenders,
)
from dihal_bench.studies.study import Entry, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dihal_bench.config.schema import RunConfig


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
    bases = {name: _for(name, own, len(bases)) for name, own in bases.items()}
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


def _for(denoiser: str, base: RunConfig, count: int) -> RunConfig:
    """Return the configuration without what is meant for other denoisers than this one."""
    if count == 1 or DENOISERS.get(denoiser).reads_unet:
        return base
    return replace(base, denoiser=replace(base.denoiser, unet=UNetConfig()))


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
