"""DiHAL's interface and its controls: exact where they must be, blind to the future, trainable."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import INTERFACES
from dihal_bench.data.tokens import Windows
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch
from dihal_bench.interfaces.hidden import HiddenSpace
from dihal_bench.interfaces.losses import token_losses
from dihal_bench.interfaces.settings import LossWeights, Span, Step
from dihal_bench.interfaces.statistics import SpanStatistics
from dihal_bench.training.config import TrainConfig
from dihal_bench.training.trainee import TrainState

from ..tiny import (
    BLOCKS,
    CONFIG,
    PROBE,
    SPAN,
    TEXT,
    VOCABULARY,
    backbone,
    batch_of,
    build,
    logits_of,
    make_windows,
    redrawn,
    slice_windows,
    statistics,
)

TRAINED = ("hidden", "regress", "regress-loop")
LOOK_UPS = ("token-mean", "ridge", "mean", "identity")
RESIDUALS = ("none", "token-mean")
ROWS = [(name, residual) for name in TRAINED for residual in RESIDUALS] + [
    (name, "none") for name in LOOK_UPS
]
STEPS = 4


# --- target, recovery, oracle ---------------------------------------------------------------------


@pytest.mark.parametrize(("name", "residual"), ROWS)
def test_target_and_hidden_are_inverse(name: str, residual: str) -> None:
    interface, batch = build(name, residual=residual), batch_of(PROBE)
    assert isinstance(interface, HiddenSpace)
    state = batch.hidden(SPAN.b)
    torch.testing.assert_close(
        interface.hidden(interface.target(batch), batch), state, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        interface.signal(interface.target(batch), batch), state / statistics().std
    )


@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-6)])
def test_the_oracle_is_the_teacher(residual: str, dtype: torch.dtype, tolerance: float) -> None:
    interface = build("hidden", residual=residual)
    if dtype == torch.float64:
        interface = redrawn("hidden", residual=residual)
    batch = batch_of(PROBE, dtype)
    logits = interface.recover(interface.target(batch), batch)
    error = (logits - batch.teacher_logits).norm() / batch.teacher_logits.norm()
    assert float(error) < tolerance


@pytest.mark.parametrize("residual", RESIDUALS)
def test_targets_are_standardised_on_the_fitted_text(residual: str) -> None:
    interface, batch = build("hidden", residual=residual), batch_of(TEXT)
    inside = batch.positions > 0
    target, condition = interface.target(batch)[inside], interface.condition(batch)[inside]
    ones = torch.ones(target.shape[-1])
    torch.testing.assert_close(condition.mean(0), 0 * ones, rtol=0, atol=1e-4)
    torch.testing.assert_close(condition.std(0, correction=0), ones, rtol=1e-4, atol=0)
    atol = 1e-4 if residual == "none" else 0.15  # shrinkage and degrees of freedom
    torch.testing.assert_close(target.mean(0), 0 * ones, rtol=0, atol=atol)
    torch.testing.assert_close(target.std(0, correction=0), ones, rtol=0, atol=atol)


def test_an_unknown_residual_is_refused() -> None:
    with pytest.raises(UserError, match=r"bridge\.residual=mean is unknown; choose one of none, "):
        build("hidden", residual="mean")


# --- causality ------------------------------------------------------------------------------------


def changed(windows: Windows) -> Iterator[tuple[int, int, Windows]]:
    """Every token changed in turn."""
    for row, column in np.ndindex(windows.tokens.shape):
        tokens = windows.tokens.copy()
        tokens[row, column] = 2 + (tokens[row, column] + 3) % 50
        yield row, column, replace(windows, tokens=tokens)


class Peeking(HiddenSpace):
    """A mistake to be caught: the condition is that of the next token."""

    def condition(self, batch: Batch) -> Tensor:
        return super().condition(batch).roll(-1, dims=1)


def assert_blind_to_the_future(interface: Interface) -> None:
    base = logits_of(interface, PROBE)
    for row, column, windows in changed(PROBE):
        moved = (logits_of(interface, windows) - base).abs().amax(-1)
        same = PROBE.documents == PROBE.documents[row, column]
        same[np.arange(len(same)) != row] = False
        may_move = torch.from_numpy(same & (np.arange(same.shape[1]) >= column))
        assert float(moved[~may_move].max()) == 0.0, f"token {row}, {column} leaks"
        if interface.reads_tokens:
            assert float(moved[row, column]) > 1e-6, f"token {row}, {column} is not heard"
        else:
            assert float(moved.max()) == 0.0


@pytest.mark.parametrize(("name", "residual"), ROWS)
def test_no_prediction_depends_on_later_tokens(name: str, residual: str) -> None:
    assert_blind_to_the_future(redrawn(name, residual=residual))


def test_an_interface_that_peeks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(INTERFACES._entries, "peeking", Peeking)
    with pytest.raises(AssertionError, match="leaks"):
        assert_blind_to_the_future(redrawn("peeking"))


@pytest.mark.parametrize(("name", "residual"), ROWS)
def test_a_parallel_pass_is_the_loop_over_prefixes(name: str, residual: str) -> None:
    interface = redrawn(name, residual=residual)
    full = logits_of(interface, PROBE)
    for length in range(1, PROBE.tokens.shape[1] + 1):
        prefix = logits_of(interface, slice_windows(PROBE, columns=slice(length)))
        torch.testing.assert_close(prefix[:, -1], full[:, length - 1], rtol=0, atol=1e-8)


def test_rows_of_a_batch_do_not_meet() -> None:
    interface = redrawn("hidden")
    full = logits_of(interface, PROBE)
    for row in range(2):
        alone = logits_of(interface, slice_windows(PROBE, slice(row, row + 1)))
        torch.testing.assert_close(alone[0], full[row], rtol=0, atol=1e-8)


def test_a_document_is_read_alike_wherever_its_window_begins() -> None:
    """The same document alone, and behind another: same noise, same logits."""
    behind = make_windows([[(60, 0, 7), (61, 0, 9)]])
    alone = slice_windows(behind, columns=slice(7, None))
    interface = redrawn("hidden")
    expected = logits_of(interface, alone)
    torch.testing.assert_close(logits_of(interface, behind)[:, 7:], expected, rtol=0, atol=1e-8)


# --- chains ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TRAINED, *LOOK_UPS])
def test_chains_are_addressed_by_number(name: str) -> None:
    interface, batch = redrawn(name), batch_of(PROBE, torch.float64)
    with torch.no_grad():
        first = list(interface.chains(batch, steps=3, count=3))
        again = list(interface.chains(batch, steps=3, count=2))
    assert len(first) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=False))
    assert torch.equal(first[0], first[1]) != interface.stochastic
    assert torch.equal(first[1], first[2]) != interface.stochastic


def test_another_seed_gives_other_chains_and_weights() -> None:
    batch = batch_of(PROBE, torch.float64)
    with torch.no_grad():
        one, two = (
            next(redrawn("hidden", seed=seed).chains(batch, steps=2, count=1)) for seed in (0, 1)
        )
    assert float((one - two).abs().min()) > 0
    weights = [build("hidden", seed=seed).trunk.head.norm.weight for seed in (0, 1)]
    assert torch.equal(*weights)
    weights = [build("hidden", seed=seed).trunk.embed_signal.weight for seed in (0, 1)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("residual", RESIDUALS)
def test_one_pass_of_the_loop_is_the_regression(residual: str) -> None:
    once, loop = (redrawn(name, residual=residual) for name in ("regress", "regress-loop"))
    assert torch.equal(logits_of(once, PROBE, steps=8), logits_of(loop, PROBE, steps=1))
    assert not torch.equal(logits_of(loop, PROBE, steps=2), logits_of(loop, PROBE, steps=1))


def test_regression_is_the_denoiser_at_zero_and_the_last_level() -> None:
    interface, batch = redrawn("regress"), batch_of(PROBE, torch.float64)
    context = interface.trunk.encode(interface.condition(batch), interface.layout(batch))
    zeros = torch.zeros_like(interface.target(batch))
    with torch.no_grad():
        expected = interface.trunk(zeros, torch.ones(zeros.shape[:-1]), context)
        (found,) = interface.chains(batch, steps=5, count=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


# --- matched trunks and losses --------------------------------------------------------------------


def test_trunks_of_a_comparison_are_the_same() -> None:
    torch.manual_seed(99)  # initial weights depend on the configured seed alone
    first = dict(build("hidden").named_parameters())
    for name in ("regress", "regress-loop"):
        torch.manual_seed(5)
        other = dict(build(name).named_parameters())
        assert other.keys() == first.keys()
        assert all(torch.equal(other[key], first[key]) for key in first)


def test_building_a_trunk_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    build("hidden")
    assert torch.equal(torch.get_rng_state(), before)


@torch.no_grad()
def test_losses_of_an_untrained_trunk_in_closed_form() -> None:
    """It puts out zero: L_rec is the mean square of the target, and L_diff weighs it by level."""
    interface, batch = build("hidden"), batch_of(TEXT)
    step = Step(index=3)
    losses = interface.losses(batch, step)
    layout = interface.layout(batch)
    _, t = interface.training_input(interface.target(batch), batch, layout, step)
    weight = interface.diffusion.loss_weight(t)
    square = interface.target(batch).square().mean(-1)
    assert float(losses["rec"]) == pytest.approx(float(square.mean()), rel=1e-5)
    expected = (weight * square).mean()
    assert float(losses["diff"]) == pytest.approx(float(expected), rel=1e-5)
    mean = interface.recover(torch.zeros_like(interface.target(batch)), batch)
    assert float(losses["ce"]) == pytest.approx(
        float(token_losses(mean, batch, ce=True, kd=False)["ce"]), rel=1e-5
    )
    total = interface.total(losses)
    assert float(total) == pytest.approx(sum(float(v) for v in losses.values()), rel=1e-5)


def test_token_losses() -> None:
    batch = batch_of(PROBE)
    at_teacher = token_losses(batch.teacher_logits, batch, ce=True, kd=True)
    assert float(at_teacher["kd"]) == pytest.approx(0.0, abs=1e-6)
    flat = token_losses(torch.zeros_like(batch.teacher_logits), batch, ce=True, kd=True)
    assert float(flat["ce"]) == pytest.approx(np.log(VOCABULARY), rel=1e-6)
    targets = [
        (row, i) for row, i in np.ndindex(PROBE.tokens.shape) if i > 0 and PROBE.scored[row, i]
    ]
    logs = F.log_softmax(batch.teacher_logits, -1)
    nll = [-float(logs[row, i - 1, batch.tokens[row, i]]) for row, i in targets]
    entropy = [-float((logs[row, i - 1].exp() * logs[row, i - 1]).sum()) for row, i in targets]
    assert float(at_teacher["ce"]) == pytest.approx(np.mean(nll), rel=1e-5)
    assert float(flat["kd"]) == pytest.approx(np.log(VOCABULARY) - np.mean(entropy), rel=1e-4)


@torch.no_grad()
def test_weights_of_zero_leave_losses_out() -> None:
    batch = batch_of(PROBE)
    bare = build("hidden", losses=LossWeights(diff=2.0, rec=0.5, ce=0.0, kd=0.0))
    losses = bare.losses(batch, Step(index=0))
    assert losses.keys() == {"diff", "rec"}
    expected = 2.0 * float(losses["diff"]) + 0.5 * float(losses["rec"])
    assert float(bare.total(losses)) == pytest.approx(expected, rel=1e-6)
    regress = build("regress", losses=LossWeights(diff=2.0, rec=0.5, ce=0.0, kd=0.0))
    losses = regress.losses(batch, Step(index=0))
    assert losses.keys() == {"rec"}
    assert float(regress.total(losses)) == pytest.approx(2.5 * float(losses["rec"]), rel=1e-6)


def test_training_noise_is_fresh_at_every_step_and_never_that_of_a_chain() -> None:
    interface, batch = build("hidden"), batch_of(PROBE)
    zeros = torch.zeros_like(interface.target(batch))
    layout, steps = interface.layout(batch), (Step(index=0), Step(index=1))
    (z0, t0), (z1, t1) = (interface.training_input(zeros, batch, layout, s) for s in steps)
    (e0, _), (e1, _) = (interface.terminal_input(zeros, batch, None, s) for s in steps)
    assert not torch.equal(t0, t1)
    chains = [interface._normal(batch, chain).float() for chain in range(4)]
    scale = interface.diffusion.sigma[t0][..., None].float()
    streams = [z0 / scale, e0, e1, *chains]
    table = torch.stack([s.flatten() for s in streams])
    assert float((torch.corrcoef(table) - torch.eye(len(streams))).abs().max()) < 0.25
    assert torch.equal(interface.training_input(zeros, batch, layout, steps[0])[0], z0)
    assert not torch.equal(z0, z1)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("name", "residual"), ROWS[:6])
def test_gradients_reach_the_trunk_and_only_the_trunk(
    name: str, residual: str, autocast: bool
) -> None:
    """adaLN-zero opens from the output backwards: outputs, then gates, then what they gate."""
    interface, batch = build(name, residual=residual), batch_of(TEXT)
    trainee = TrainState(name, interface, TrainConfig(autocast=autocast))
    for step in range(2):
        values = trainee.learn(batch, Step(index=step))
        trainee.update(step, 10)
        assert all(torch.isfinite(value) for value in values.values())
    for step in range(2, 8):  # the loop's first pass cannot hear its input; others are as deep
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            total = interface.total(interface.losses(batch, Step(index=step)))
        total.backward()
    for key, parameter in interface.named_parameters():
        if name == "regress" and key == "trunk.embed_signal.weight":
            assert not parameter.grad.any()  # its input is always zero
            continue
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().max() > 0, key
    assert all(p.grad is None for p in backbone().model.parameters())
    assert not any(p.requires_grad for p in backbone().model.parameters())


def test_the_backbone_is_no_part_of_the_interface() -> None:
    interface = build("hidden")
    own = {id(p) for p in interface.parameters()} | set(interface.state_dict())
    assert not own & {id(p) for p in backbone().model.parameters()}
    assert all(key.startswith("trunk.") for key, _ in interface.named_parameters())
    interface.train()
    assert not backbone().model.training


@pytest.mark.parametrize("span", [(0, 1), (0, BLOCKS), (2, 3), (BLOCKS - 1, BLOCKS)])
def test_any_span_has_an_exact_oracle(span: tuple[int, int]) -> None:
    a, b = span
    place = Span(a=a, b=b, blocks=BLOCKS)
    batch = Batch.of(TEXT, backbone(), layers=(a, b), logits=True)
    interface = INTERFACES.get("hidden")(backbone(), place, CONFIG)
    interface.fit(SpanStatistics.collect([batch], a, b))
    logits = interface.recover(interface.target(batch), batch)
    error = (logits - batch.teacher_logits).norm() / batch.teacher_logits.norm()
    assert float(error) < 1e-4
    assert place.replaced == b - a
    assert interface.layers == (a, b)


@pytest.mark.parametrize(("a", "b"), [(2, 2), (3, 1), (-1, 2), (0, 9)])
def test_a_span_that_replaces_nothing_is_refused(a: int, b: int) -> None:
    with pytest.raises(UserError, match="replaces no block"):
        Span(a=a, b=b, blocks=4)
