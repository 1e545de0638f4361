"""The block's bound: closed forms, and tight where the denoiser is the exact posterior mean."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.block_bound import block_bound
from dihal_bench.interfaces.base import Interface

from ..tiny import CONFIG, TEXT, batch_of, build, redrawn
from .texts import Text

ROWS = Text([[(r, 3, 9), (20 + r, 0, 15)] for r in range(12)])
BLOCK = {"block": 4, "diffusion": replace(CONFIG.diffusion, train_steps=1000)}


def bound_of(interface: Interface, **settings: float) -> tuple[np.ndarray, np.ndarray]:
    options = {"snr": 1.0, "draws": 4} | settings
    return block_bound(interface, ROWS, windows=range(12), batch=5, **options)


def unigram() -> torch.Tensor:
    """Log-probabilities of the tokens of the text, [V]."""
    weights = torch.full((64,), 1e-12, dtype=torch.float64)
    weights[1] = 1e-3
    weights[2:60] = 1 / torch.arange(1, 59)
    return (weights / weights.sum()).log()


class Exact:
    """The exact posterior mean of independent tokens in place of the trained network."""

    def __init__(self, interface: Interface):
        self.interface = interface

    def __call__(self, z, t, context, previous=None):
        process, table = self.interface.diffusion, self.interface.table.double()
        alpha, sigma = process.alpha[t][..., None], process.sigma[t][..., None]
        inner = alpha * (z.double() @ table.T) - alpha**2 * table.square().sum(-1) / 2
        return (unigram() + inner / sigma**2).softmax(-1) @ table


def test_of_an_untrained_trunk_it_is_a_closed_form() -> None:
    """Its estimate is zero: every level costs |x0|^2 = D, and recovery decodes a zero."""
    interface = build("embedding", **BLOCK)
    nats, tokens = bound_of(interface)
    process = interface.diffusion
    ratios = (process.alpha / process.sigma) ** 2
    least = int((ratios > 1).sum())
    diffusion = float(ratios[least] - ratios[-1]) / 2 * interface.sizes[0]
    batch = batch_of(ROWS.batch(range(12)))
    zeros = interface.recover(torch.zeros_like(interface.target(batch)), batch)
    targets = batch.following(batch.tokens)[batch.followed]
    decoding = F.cross_entropy(zeros[batch.followed].double(), targets)
    assert nats.sum() / tokens.sum() == pytest.approx(
        diffusion + float(decoding.detach()), rel=1e-5
    )
    assert tokens.sum() == int(batch.followed.sum())


def test_with_the_exact_denoiser_it_is_the_likelihood(monkeypatch) -> None:
    interface = redrawn("embedding", **BLOCK)
    monkeypatch.setattr(interface, "estimate", Exact(interface))
    monkeypatch.setattr(interface, "recover", lambda x0, batch: 50 * x0 @ interface.table.T)
    batch = batch_of(ROWS.batch(range(12)), torch.float64)
    nll = -unigram()[batch.following(batch.tokens)[batch.followed]]
    nats, tokens = bound_of(interface, snr=8.0, draws=64)
    per_token, exact = nats.sum() / tokens.sum(), float(nll.mean())
    assert per_token == pytest.approx(exact, rel=0.05)
    loose, _ = bound_of(build("embedding", **BLOCK), snr=8.0)
    assert loose.sum() / tokens.sum() > 2 * exact


def test_more_draws_estimate_the_same(monkeypatch) -> None:
    interface = redrawn("embedding", **BLOCK)
    monkeypatch.setattr(interface, "estimate", Exact(interface))
    few, many = (bound_of(interface, draws=draws)[0].sum() for draws in (8, 64))
    assert few == pytest.approx(many, rel=0.1)


@pytest.mark.parametrize("name", ["hidden", "lm"])
def test_what_has_no_such_bound_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="a variational bound of blocks needs"):
        bound_of(build(name, block=4))


def test_missing_next_tokens_are_no_hint() -> None:
    """The last place of a window knows no next token; its signal must not repeat a known one."""
    interface, batch = build("embedding", **BLOCK), batch_of(TEXT)
    clean = interface.clean(batch)
    assert not clean[~batch.followed].any()
    assert torch.equal(clean[batch.followed], interface.target(batch)[batch.followed])
    assert math.isclose(float(clean[batch.followed].square().mean()), 1.0, rel_tol=1e-5)
