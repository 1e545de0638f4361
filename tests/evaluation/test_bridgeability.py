"""Reconstruction errors against their definition, computed all at once."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dihal_bench.evaluation.reconstruction import bridgeability
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch

from ..tiny import redrawn
from .texts import Text

TEXT = Text([[(0, 3, 9), (1, 0, 15)], [(1, 15, 4), (2, 0, 20)], [(3, 0, 24)]])
WINDOWS = range(3)


def measured(interface: Interface, *, batch: int = 2, steps: int = 3):
    return bridgeability(interface, TEXT, windows=WINDOWS, batch=batch, steps=steps)


@torch.no_grad()
def errors(interface: Interface, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Truth and squared errors [tokens, D] in units of standard deviations, and the starts."""
    batch = Batch.of(TEXT.batch(WINDOWS), interface.backbone, layers=interface.layers)
    truth = batch.hidden(interface.span.b) / interface.std
    guess = interface.hidden(next(interface.chains(batch, steps=steps, count=1)), batch)
    return truth, (guess / interface.std - truth).square(), batch.positions == 0


@pytest.mark.parametrize("residual", ["none", "token-mean"])
@pytest.mark.parametrize("name", ["hidden", "ridge"])
def test_figures_are_those_of_the_definition(name, residual):
    interface = redrawn(name, residual=residual)
    found = measured(interface)
    truth, one, start = errors(interface, 1)
    variance = truth[~start].var(0, unbiased=False).mean().item()
    assert found.tokens == (~start).sum()
    assert found.mse_mmse == pytest.approx(one[~start].mean().item())
    assert found.fvu_mmse == pytest.approx(one[~start].mean().item() / variance)
    assert found.fvu_start == pytest.approx(one[start].mean().item() / variance)
    several = errors(interface, 3)[1][~start].mean().item()
    assert (found.mse_sample, found.steps) == (pytest.approx(several), 3)
    assert (found.mse_sample == found.mse_mmse) == (name == "ridge")


def test_the_batch_size_does_not_matter():
    interface = redrawn("hidden")
    one, other = (measured(interface, batch=size).to_dict() for size in (1, 3))
    assert one == pytest.approx(other)


def test_a_perfect_bridge_leaves_nothing_unexplained(monkeypatch):
    interface = redrawn("hidden")

    def perfect(batch: Batch, *, steps: int, count: int) -> Iterator[Tensor]:
        del steps, count
        yield interface.target(batch)

    monkeypatch.setattr(interface, "chains", perfect)
    found = measured(interface)
    assert (found.fvu_mmse, found.fvu_sample, found.fvu_start) == (0, 0, 0)


def test_the_mean_explains_no_variance_of_its_own_text():
    interface = redrawn("mean")
    truth, _, start = errors(interface, 1)
    interface.baseline.copy_((truth[~start].mean(0) * interface.std)[None])
    assert measured(interface, steps=1).fvu_mmse == pytest.approx(1)
