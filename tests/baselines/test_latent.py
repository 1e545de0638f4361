"""Latents of the next token's state: local, standardised, and trained where they should be."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from dihal_bench.baselines.latent import LatentOptions, warm_up
from dihal_bench.core.errors import UserError
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.recovery import recovery_accuracy
from dihal_bench.interfaces.settings import LossWeights, Step

from ..tiny import BLOCKS, HIDDEN, PROBE, TEXT, VOCABULARY, backbone
from .shared import (
    DIFFUSION,
    RECOVERY,
    assert_blind_to_the_future,
    assert_parallel_is_the_loop,
    assert_target_stands_for_the_next_token,
    batch_for,
    fitted,
    moved_by,
    redrawn,
    train,
)

DIM = 12
OPTIONS = LatentOptions(dim=DIM, width=24)
JOINT = replace(OPTIONS, joint=True)


def settled(options: LatentOptions = OPTIONS, dtype: torch.dtype = torch.float64) -> Interface:
    interface = fitted("latent", options=options, dtype=dtype)
    interface.settle([batch_for(interface, TEXT, dtype)])
    return interface


def test_shapes_and_sizes() -> None:
    interface = settled()
    batch = batch_for(interface, PROBE, torch.float64)
    x0 = interface.target(batch)
    assert interface.sizes == (DIM, HIDDEN)
    assert x0.shape == (*PROBE.tokens.shape, DIM)
    assert interface.recover(x0, batch).shape == (*PROBE.tokens.shape, VOCABULARY)
    assert interface.layers == (1, BLOCKS - 2)


@pytest.mark.parametrize(
    ("options", "dim"),
    [
        (LatentOptions(), 64),
        (LatentOptions(states=True), HIDDEN),
        (LatentOptions(joint=True), HIDDEN),
        (LatentOptions(joint=True, dim=5), 5),
    ],
)
def test_default_dimensions(options: LatentOptions, dim: int) -> None:
    assert fitted("latent", options=options).sizes == (dim, HIDDEN)


def test_the_layer_is_a_setting() -> None:
    assert fitted("latent", options=replace(OPTIONS, layer=4)).layers == (1, 4)
    with pytest.raises(UserError, match=r"layer=5 of the signal is no block of 4; choose 1 to 4"):
        fitted("latent", options=replace(OPTIONS, layer=5))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"latent\.noise=-1 must be 0 or more"):
        LatentOptions(noise=-1)
    with pytest.raises(UserError, match=r"latent\.dim=-2 must be 0 or more"):
        LatentOptions(dim=-2)


# --- locality -------------------------------------------------------------------------------------


def test_target_is_the_next_tokens_latent() -> None:
    assert_target_stands_for_the_next_token(redrawn("latent", options=OPTIONS))


@pytest.mark.parametrize("block", [0, 4])
def test_no_prediction_depends_on_later_tokens(block: int) -> None:
    assert_blind_to_the_future(redrawn("latent", options=OPTIONS, block=block))


def test_a_parallel_pass_is_the_loop_over_prefixes() -> None:
    assert_parallel_is_the_loop(redrawn("latent", options=OPTIONS))


@torch.no_grad()
def test_the_decoder_sees_no_tokens() -> None:
    interface = settled()
    batch, other = (batch_for(interface, windows, torch.float64) for windows in (PROBE, TEXT))
    x0 = interface.target(batch)
    whole = interface.recover(x0, batch)
    assert torch.equal(interface.recover(x0, other), whole)
    torch.testing.assert_close(interface.recover(x0[:, 3:4], batch), whole[:, 3:4])


# --- standardisation ------------------------------------------------------------------------------


def test_settled_latents_are_standardised_on_known_places() -> None:
    interface = settled()
    batch = batch_for(interface, TEXT, torch.float64)
    x0 = interface.target(batch)[interface.known(batch)]
    ones = torch.ones(DIM, dtype=torch.float64)
    torch.testing.assert_close(x0.mean(0), 0 * ones, rtol=0, atol=1e-10)
    torch.testing.assert_close(x0.std(0, correction=0), ones)


@torch.no_grad()
def test_settling_changes_no_prediction() -> None:
    """What ``target`` standardises, ``recover`` takes back."""
    before, after = fitted("latent", options=OPTIONS, dtype=torch.float64), settled()
    batch = batch_for(before, PROBE, torch.float64)
    assert not torch.equal(before.target(batch), after.target(batch))
    torch.testing.assert_close(
        before.recover(before.target(batch), batch), after.recover(after.target(batch), batch)
    )


def test_settling_in_parts_is_settling_at_once() -> None:
    whole, parts = settled(), fitted("latent", options=OPTIONS, dtype=torch.float64)
    half = len(TEXT.tokens) // 2
    windows = [
        replace(TEXT, **{k: v[rows] for k, v in vars(TEXT).items()})
        for rows in (slice(half), slice(half, None))
    ]
    parts.settle(batch_for(parts, part, torch.float64) for part in windows)
    torch.testing.assert_close(parts.latent_mean, whole.latent_mean)
    torch.testing.assert_close(parts.latent_std, whole.latent_std)


def test_no_weights_change_the_scale_of_a_latent() -> None:
    interface = fitted("latent", options=OPTIONS)
    batch = batch_for(interface, PROBE)
    for factor in (1.0, 1e-4):
        with torch.no_grad():
            interface.recovery.encoder[-1].weight.mul_(factor)
            interface.recovery.encoder[-1].bias.mul_(factor)
        square = interface.target(batch).square().mean(-1)
        torch.testing.assert_close(square, torch.ones_like(square))


# --- losses ---------------------------------------------------------------------------------------


def test_recovery_losses_in_closed_form() -> None:
    """Without noise they are those of the autoencoder itself."""
    interface = fitted(
        "latent", options=replace(OPTIONS, noise=0.0, states=True), dtype=torch.float64
    )
    batch = batch_for(interface, PROBE, torch.float64)
    with torch.no_grad():
        losses = interface.losses(batch, RECOVERY)
        logits = interface.recover(interface.target(batch), batch)
        decoded = interface.recovery.state_decoder(interface.target(batch))
    places = batch.followed
    expected = F.cross_entropy(logits[places].float(), batch.following(batch.tokens)[places])
    assert float(losses["tokens"]) == pytest.approx(float(expected), rel=1e-5)
    error = (decoded - interface.next_state(batch))[places].square().mean()
    assert float(losses["states"]) == pytest.approx(float(error))
    assert float(interface.total(losses)) == pytest.approx(float(expected + error), rel=1e-5)


def gradients(interface: Interface, loss: torch.Tensor) -> set[str]:
    """Modules that a loss has a gradient for."""
    interface.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {
        name.removeprefix("recovery.").partition(".")[0]
        for name, p in interface.named_parameters()
        if p.grad is not None and p.grad.abs().max() > 0
    }


def test_the_tokens_loss_stops_at_the_state_that_comes_back() -> None:
    interface = redrawn("latent", options=JOINT)
    losses = interface.losses(batch_for(interface, TEXT, torch.float64), RECOVERY)
    assert gradients(interface, losses["tokens"]) == {"token_decoder", "readout"}
    assert gradients(interface, losses["states"]) == {"encoder", "state_decoder"}


def test_without_states_the_tokens_loss_trains_all_of_it() -> None:
    interface = redrawn("latent", options=OPTIONS)
    losses = interface.losses(batch_for(interface, TEXT, torch.float64), RECOVERY)
    assert losses.keys() == {"tokens"}
    modules = {"encoder", "state_decoder", "token_decoder", "readout"}
    assert gradients(interface, losses["tokens"]) == modules


@pytest.mark.parametrize(("options", "heard"), [(OPTIONS, False), (JOINT, True)])
def test_only_a_joint_encoder_hears_the_denoiser(options: LatentOptions, heard: bool) -> None:
    interface = redrawn("latent", options=options)
    losses = interface.losses(batch_for(interface, TEXT, torch.float64), DIFFUSION)
    for name in ("diff", "rec"):
        assert ("encoder" in gradients(interface, losses[name])) == heard
    assert "trunk" in gradients(interface, losses["diff"])


def test_joint_losses_warm_up() -> None:
    interface = redrawn("latent", options=JOINT, losses=LossWeights())
    batch = batch_for(interface, TEXT, torch.float64)
    fixed = redrawn("latent", options=replace(OPTIONS, states=True), losses=LossWeights())
    fixed.load_state_dict(interface.state_dict())
    for index in (0, 8):
        step = Step(index=index, of=10)
        with torch.no_grad():
            losses, plain = interface.losses(batch, step), fixed.losses(batch, step)
            recovery = interface.recovery_losses(batch, step)
        assert losses.keys() == plain.keys() | {"states", "tokens"}
        for name, value in plain.items():
            assert float(losses[name]) == pytest.approx(warm_up(index / 10) * float(value))
        for name, value in recovery.items():
            assert float(losses[name]) == float(value)


def test_warm_up_in_closed_form() -> None:
    assert warm_up(0.8) == 0.5
    assert warm_up(1.0) == pytest.approx(1 / (1 + math.exp(-2)))
    assert warm_up(0.0) < 1e-3


# --- phases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [OPTIONS, replace(OPTIONS, states=True), JOINT])
def test_what_each_phase_moves(options: LatentOptions) -> None:
    interface = fitted("latent", options=options)
    batch = batch_for(interface, TEXT)
    assert moved_by(interface, batch, "recovery") == {"recovery"}
    expected = {"trunk", "recovery"} if options.joint else {"trunk"}
    assert moved_by(interface, batch, "diffusion") == expected


@pytest.mark.parametrize("options", [OPTIONS, JOINT])
def test_parameters_of_the_phases(options: LatentOptions) -> None:
    interface = fitted("latent", options=options)
    recovery, diffusion = (
        {id(p) for p in interface.parameters_in(phase)} for phase in ("recovery", "diffusion")
    )
    every = {id(p) for p in interface.parameters()}
    assert recovery | diffusion == every
    assert recovery == {id(p) for p in interface.recovery.parameters()}
    assert (diffusion == every) if options.joint else not (recovery & diffusion)


@pytest.mark.parametrize("options", [LatentOptions(width=64), LatentOptions(width=64, states=True)])
def test_recovery_learns(options: LatentOptions) -> None:
    interface = fitted("latent", options=options)
    batch = batch_for(interface, TEXT)
    train(interface, batch, "recovery", 150)
    interface.settle([batch])
    assert recovery_accuracy(interface, batch) > 0.95
    noise = torch.randn(
        *TEXT.tokens.shape, interface.sizes[0], generator=torch.Generator().manual_seed(0)
    )
    assert recovery_accuracy(interface, batch, noise) < 0.3


def test_the_recovery_depends_on_its_own_settings_only() -> None:
    """Rows of several spans share it; the initial weights are a function of the seed."""
    interface, other = (fitted("latent", options=OPTIONS, block=b) for b in (0, 4))
    assert interface.recovery_key() == other.recovery_key() == {}
    first, second = interface.recovery.state_dict(), other.recovery.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_building_leaves_the_global_generator_alone() -> None:
    backbone()
    before = torch.get_rng_state()
    fitted("latent")
    assert torch.equal(torch.get_rng_state(), before)
