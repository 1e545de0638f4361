"""Contextual decoding and its control: the same decoder, causal, with and without a signal."""

from dataclasses import replace

import pytest
import torch

from dihal_bench.baselines.c2d import C2DOptions
from dihal_bench.core.errors import UserError
from dihal_bench.diffusion.denoisers import DenoiserConfig
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.losses import token_losses
from dihal_bench.interfaces.recovery import recovery_accuracy
from dihal_bench.interfaces.settings import LossWeights, Step

from ..tiny import BLOCKS, CONFIG, HIDDEN, PROBE, SPAN, TEXT, VOCABULARY, backbone
from .shared import (
    RECOVERY,
    assert_blind_to_the_future,
    assert_parallel_is_the_loop,
    assert_target_stands_for_the_next_token,
    batch_for,
    fitted,
    logits_of,
    moved_by,
    redrawn,
    train,
)

NAMES = ("c2d", "lm-decoder")
DOUBLE = torch.float64


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_sizes(name: str) -> None:
    interface = fitted(name)
    batch = batch_for(interface, PROBE)
    x0 = interface.target(batch)
    assert interface.sizes == (HIDDEN, HIDDEN)
    assert interface.layers == (SPAN.a, BLOCKS - 2)
    assert x0.shape == (*PROBE.tokens.shape, HIDDEN)
    assert interface.recover(x0, batch).shape == (*PROBE.tokens.shape, VOCABULARY)


def test_target_is_the_standardised_next_state() -> None:
    interface = fitted("c2d", dtype=DOUBLE)
    batch = batch_for(interface, TEXT, DOUBLE)
    state = batch.hidden(interface.layers[-1])
    inside = state[:, 1:][batch.positions[:, 1:] > 0]
    expected = (inside - inside.mean(0)) / inside.std(0, correction=0)
    found = interface.target(batch)[batch.followed]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert_target_stands_for_the_next_token(redrawn("c2d"))


# --- locality -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [0, 4])
@pytest.mark.parametrize("name", NAMES)
def test_no_prediction_depends_on_later_tokens(name: str, block: int) -> None:
    assert_blind_to_the_future(redrawn(name, block=block))


@pytest.mark.parametrize("name", NAMES)
def test_a_parallel_pass_is_the_loop_over_prefixes(name: str) -> None:
    assert_parallel_is_the_loop(redrawn(name))


@torch.no_grad()
def test_the_decoder_hears_earlier_signals_of_the_document_and_no_later_one() -> None:
    interface = redrawn("c2d")
    batch = batch_for(interface, PROBE, DOUBLE)
    x0 = interface.target(batch)
    base = interface.recover(x0, batch)
    for place in range(x0.shape[1]):
        other = x0.clone()
        other[:, place] += 1
        moved = (interface.recover(other, batch) - base).abs().amax(-1) > 0
        later = torch.arange(x0.shape[1]) >= place
        document = batch.begins.cumsum(1)
        same = document == document[:, place, None]
        assert torch.equal(moved, same & later)


# --- the pair -------------------------------------------------------------------------------------


def pair() -> tuple[Interface, Interface]:
    with_signal, without = redrawn("c2d"), redrawn("lm-decoder")
    without.recovery.load_state_dict(with_signal.recovery.state_dict())
    return with_signal, without


def test_the_pair_starts_with_the_same_decoder() -> None:
    with_signal, without = fitted("c2d"), fitted("lm-decoder")
    first, second = with_signal.recovery.state_dict(), without.recovery.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert without.trunk is None
    assert without.phases == ("recovery",)
    assert without.section == "c2d"
    assert without.Options is with_signal.Options
    assert without.decoder_steps == with_signal.decoder_steps == 1


@torch.no_grad()
def test_the_pair_differs_in_the_signal_alone() -> None:
    with_signal, without = pair()
    batch = batch_for(with_signal, PROBE, DOUBLE)
    x0 = with_signal.target(batch)
    silence = torch.zeros_like(x0)
    expected = with_signal.recover(silence, batch)
    assert torch.equal(without.recover(x0, batch), expected)
    assert not torch.equal(with_signal.recover(x0, batch), expected)
    (chain,) = without.chains(batch, steps=3, count=1)
    assert torch.equal(chain, silence)
    assert torch.equal(logits_of(without, PROBE, steps=9), expected)


def test_the_pair_learns_alike_where_nothing_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    with_signal, without = pair()
    batch = batch_for(with_signal, TEXT, DOUBLE)
    apart = [i.losses(batch, RECOVERY) for i in (with_signal, without)]
    assert apart[0].keys() == apart[1].keys() == {"decoder_ce"}
    assert apart[0] != apart[1]
    monkeypatch.setattr("dihal_bench.baselines.c2d._SILENT", 1.0)
    torch.testing.assert_close(*(i.losses(batch, RECOVERY) for i in (with_signal, without)))


# --- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ce", "kd"), [(0.03, 0.03), (0.0, 0.0)])
@torch.no_grad()
def test_the_decoder_learns_by_cross_entropy_whatever_the_losses(ce: float, kd: float) -> None:
    """It hears what the teacher does not: the teacher's probabilities would be a wrong target."""
    interface = redrawn("lm-decoder", losses=LossWeights(ce=ce, kd=kd))
    batch = batch_for(interface, TEXT, DOUBLE)
    losses = interface.losses(batch, RECOVERY)
    plain = token_losses(
        interface.recover(interface.target(batch), batch), batch, ce=True, kd=False
    )
    assert losses.keys() == {"decoder_ce"}
    assert float(interface.total(losses)) == pytest.approx(float(plain["ce"]))


def test_what_the_decoder_hears_runs_from_the_signal_down_to_nothing() -> None:
    """Per place the best linear estimate at a uniform level; one window in ten hears nothing."""
    interface = fitted("c2d", dtype=DOUBLE)
    batch = batch_for(interface, TEXT, DOUBLE)
    x0 = interface.target(batch)
    heard = torch.stack(
        [interface.heard(batch, Step(index=i, phase="recovery")) for i in range(60)]
    )
    silent = (heard == 0).all(-1).all(-1)  # (steps, B)
    assert 0.05 < float(silent.double().mean()) < 0.15
    loud = heard[~silent]  # (windows, T, D)
    true = x0.expand_as(heard)[~silent]
    # E |alpha (alpha x0 + sigma eps)|^2 = alpha^4 |x0|^2 + alpha^2 sigma^2, and its mean alpha^2 x0
    alpha2 = interface.diffusion.alpha**2
    slope = (loud * true).mean() / true.square().mean()
    assert float(slope) == pytest.approx(float(alpha2.mean()), abs=0.02)
    energy = (alpha2**2).mean() * true.square().mean() + (alpha2 * (1 - alpha2)).mean()
    assert float(loud.square().mean()) == pytest.approx(float(energy), rel=0.05)
    closest = (loud - true).square().mean(-1).amin()
    faintest = loud.square().mean(-1).amin()
    assert max(float(closest), float(faintest)) < 1e-3
    assert torch.equal(heard[5], interface.heard(batch, Step(index=5, phase="recovery")))


@torch.no_grad()
def test_temperature_divides_the_logits_and_is_not_learnt_with() -> None:
    plain, warm = redrawn("c2d"), redrawn("c2d", options=C2DOptions(temperature=2.0))
    batch = batch_for(plain, PROBE, DOUBLE)
    x0 = plain.target(batch)
    torch.testing.assert_close(warm.recover(x0, batch), plain.recover(x0, batch) / 2)
    torch.testing.assert_close(warm.losses(batch, RECOVERY), plain.losses(batch, RECOVERY))


# --- phases ---------------------------------------------------------------------------------------


def test_what_each_phase_moves() -> None:
    interface = fitted("c2d")
    batch = batch_for(interface, TEXT)
    assert moved_by(interface, batch, "recovery") == {"recovery"}
    assert moved_by(interface, batch, "diffusion") == {"trunk"}
    recovery, diffusion = (
        {id(p) for p in interface.parameters_in(phase)} for phase in ("recovery", "diffusion")
    )
    assert not recovery & diffusion
    assert recovery | diffusion == {id(p) for p in interface.parameters()}
    alone = fitted("lm-decoder")
    assert alone.parameters_in("diffusion") == []
    assert moved_by(alone, batch, "recovery") == {"recovery"}


def test_recovery_learns_to_use_the_signal() -> None:
    interface = fitted("c2d", options=C2DOptions(width=32), losses=LossWeights(ce=1.0, kd=0.0))
    batch = batch_for(interface, TEXT)
    train(interface, batch, "recovery", 250)
    noise = torch.randn(*TEXT.tokens.shape, HIDDEN, generator=torch.Generator().manual_seed(0))
    true = recovery_accuracy(interface, batch)
    assert true > 0.9
    assert recovery_accuracy(interface, batch, noise) < true - 0.15


def test_the_control_cannot_tell_a_signal() -> None:
    interface = fitted("lm-decoder")
    batch = batch_for(interface, TEXT)
    train(interface, batch, "recovery", 5)
    noise = torch.randn(*TEXT.tokens.shape, HIDDEN)
    assert recovery_accuracy(interface, batch) == recovery_accuracy(interface, batch, noise)


# --- settings -------------------------------------------------------------------------------------


def test_sizes_are_the_denoisers_unless_set() -> None:
    key = fitted("c2d").recovery_key()
    assert (key["width"], key["heads"]) == (CONFIG.denoiser.width, CONFIG.denoiser.heads)
    wide = fitted("c2d", denoiser=replace(CONFIG.denoiser, width=32))
    assert wide.recovery_key() != key
    key = fitted("c2d", options=C2DOptions(width=24, heads=3)).recovery_key()
    assert (key["width"], key["heads"]) == (24, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, r"c2d\.layers=0 must be 1 or more"),
        ({"width": -1}, r"c2d\.width=-1 must be 0 or more"),
        ({"temperature": 0.0}, r"c2d\.temperature=0\.0 must be above 0"),
        ({"temperature": float("nan")}, r"c2d\.temperature=nan must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        C2DOptions(**settings)


def test_a_width_that_does_not_fit_the_heads_is_refused() -> None:
    with pytest.raises(UserError, match=r"c2d\.width=10 must be an even multiple of c2d\.heads=2"):
        fitted("c2d", options=C2DOptions(width=10))
    with pytest.raises(UserError, match=r"c2d\.heads=5"):
        fitted("c2d", options=C2DOptions(heads=5), denoiser=DenoiserConfig(width=16, heads=2))


def test_building_leaves_the_global_generator_alone() -> None:
    backbone()
    before = torch.get_rng_state()
    for name in NAMES:
        fitted(name)
    assert torch.equal(torch.get_rng_state(), before)
