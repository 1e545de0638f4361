"""Interfaces whose signals bear tokens, fitted to the layers that they ask for; shared checks."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from dihal_bench.core.registry import INTERFACES
from dihal_bench.data.tokens import Windows
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.settings import Step
from dihal_bench.interfaces.statistics import SpanStatistics

from ..tiny import CONFIG, PROBE, SPAN, TEXT, backbone, slice_windows

RECOVERY, DIFFUSION = Step(index=3, of=10, phase="recovery"), Step(index=3, of=10)


def batch_for(interface: Interface, windows: Windows, dtype: torch.dtype = torch.float32) -> Batch:
    return Batch.of(windows, backbone(dtype), layers=interface.layers, logits=True)


def fitted(name: str, *, dtype: torch.dtype = torch.float32, **settings: object) -> Interface:
    """An interface fitted to the statistics of its own layers, untrained."""
    kind = INTERFACES.get(name)
    interface: Interface = kind(backbone(dtype), SPAN, replace(CONFIG, **settings))
    batch = batch_for(interface, TEXT, dtype)
    interface.fit(SpanStatistics.collect([batch], interface.layers[0], interface.layers[-1]))
    return interface.to(dtype)


def redrawn(name: str, **settings: object) -> Interface:
    """A fitted interface in float64, its parameters drawn anew: untrained, it would hide leaks."""
    interface = fitted(name, dtype=torch.float64, **settings)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in interface.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
    return interface


@torch.no_grad()
def logits_of(interface: Interface, windows: Windows, *, steps: int = 3) -> torch.Tensor:
    """Next-token logits of one chain."""
    batch = batch_for(interface, windows, interface.backbone.model.dtype)
    (signal,) = interface.chains(batch, steps=steps, count=1)
    return interface.recover(signal, batch)


def changed(windows: Windows) -> Iterator[tuple[int, int, Windows]]:
    """Every token changed in turn."""
    for row, column in np.ndindex(windows.tokens.shape):
        tokens = windows.tokens.copy()
        tokens[row, column] = 2 + (tokens[row, column] + 3) % 50
        yield row, column, replace(windows, tokens=tokens)


def document_from(windows: Windows, row: int, column: int) -> torch.Tensor:
    """Places of that document from there on, bool [B, T]."""
    same = windows.documents == windows.documents[row, column]
    same[np.arange(len(same)) != row] = False
    return torch.from_numpy(same & (np.arange(same.shape[1]) >= column))


@torch.no_grad()
def assert_blind_to_the_future(interface: Interface, windows: Windows = PROBE) -> None:
    """Later tokens move nothing; the token itself moves its own prediction, or starts a block."""
    base = logits_of(interface, windows)
    block = interface.config.block
    for row, column, other in changed(windows):
        moved = (logits_of(interface, other) - base).abs().amax(-1)
        allowed = document_from(windows, row, column)
        assert float(moved[~allowed].max()) == 0.0, f"token {row}, {column} leaks"
        if not block or windows.positions[row, column] % block == 0:
            assert float(moved[row, column]) > 1e-6, f"token {row}, {column} is not heard"


@torch.no_grad()
def assert_parallel_is_the_loop(interface: Interface, windows: Windows = PROBE) -> None:
    full = logits_of(interface, windows)
    for length in range(1, windows.tokens.shape[1] + 1):
        prefix = logits_of(interface, slice_windows(windows, columns=slice(length)))
        torch.testing.assert_close(prefix[:, -1], full[:, length - 1], rtol=0, atol=1e-8)


@torch.no_grad()
def assert_target_stands_for_the_next_token(interface: Interface, windows: Windows = PROBE) -> None:
    """The target at i hears token i + 1 and none after it."""
    dtype = interface.backbone.model.dtype
    base = interface.target(batch_for(interface, windows, dtype))
    known = interface.known(batch_for(interface, windows, dtype))
    for row, column, other in changed(windows):
        moved = (interface.target(batch_for(interface, other, dtype)) - base).abs().amax(-1)
        allowed = document_from(windows, row, column)
        allowed[row, max(0, column - 1)] = True  # the place whose next token it is
        assert float((moved * known)[~allowed].max()) == 0.0
        if windows.positions[row, column] > 0:
            assert float(moved[row, column - 1]) > 1e-6


def train(interface: Interface, batch: Batch, phase: str, steps: int, *, lr: float = 3e-3) -> None:
    """A plain loop on what a phase trains."""
    optimizer = torch.optim.AdamW(interface.parameters_in(phase), lr=lr, weight_decay=0.0)
    for index in range(steps):
        losses = interface.losses(batch, Step(index=index, of=steps, phase=phase))
        optimizer.zero_grad()
        interface.total(losses).backward()
        optimizer.step()


def weights_of(interface: Interface) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in interface.named_parameters()}


def moved_by(interface: Interface, batch: Batch, phase: str) -> set[str]:
    """First parts of the names of the parameters that two steps of a phase move."""
    before = weights_of(interface)
    train(interface, batch, phase, 2)
    after = weights_of(interface)
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
