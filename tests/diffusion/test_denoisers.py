"""Denoisers are local: noise at one's own position only, condition of the past only."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from dihal_bench.diffusion.denoisers import (
    Context,
    Denoiser,
    DenoiserConfig,
    TransformerDenoiser,
    causal_mask,
)
from dihal_bench.errors import UserError
from dihal_bench.registry import DENOISERS

SIGNAL, CONDITION, LENGTH = 6, 5, 9
POSITIONS = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 0, 1]])
CONFIG = DenoiserConfig(width=16, heads=2)


class Peeking(TransformerDenoiser):
    """A mistake to be caught: the context stream sees one position ahead."""

    def encode(self, condition: Tensor, positions: Tensor) -> Context:
        return super().encode(condition.roll(-1, dims=1), positions)


class Mixing(TransformerDenoiser):
    """Another: the noised signal of the position before leaks in."""

    def forward(self, z: Tensor, t: Tensor, context: Context) -> Tensor:
        return super().forward(z + 1e-6 * z.roll(1, dims=1), t, context)


class Blurred(TransformerDenoiser):
    """Another: levels of other positions leak in."""

    def forward(self, z: Tensor, t: Tensor, context: Context) -> Tensor:
        return super().forward(z, t.mean().expand(t.shape), context)


class Crossing(TransformerDenoiser):
    """Another: attention crosses document starts."""

    def encode(self, condition: Tensor, positions: Tensor) -> Context:
        return super().encode(condition, torch.arange(positions.shape[1]).expand_as(positions))


def redrawn(kind: type[Denoiser], config: DenoiserConfig = CONFIG) -> Denoiser:
    """A denoiser of float64 parameters drawn anew: its outputs start at zero, which hides leaks."""
    denoiser = kind(SIGNAL, CONDITION, config).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
    return denoiser


@dataclass
class Inputs:
    z: Tensor
    t: Tensor
    condition: Tensor
    positions: Tensor


def inputs(positions: Tensor = POSITIONS) -> Inputs:
    generator = torch.Generator().manual_seed(5)
    rows, length = positions.shape

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Inputs(
        z=draw(rows, length, SIGNAL),
        t=torch.rand(rows, length, generator=generator),
        condition=draw(rows, length, CONDITION),
        positions=positions,
    )


@torch.no_grad()
def run(denoiser: Denoiser, given: Inputs) -> Tensor:
    return denoiser(given.z, given.t, denoiser.encode(given.condition, given.positions))


def influence(denoiser: Denoiser, what: str) -> Tensor:
    """[B, j, B, i]: by how much the output at (row, i) moves when ``what`` changes at (row, j)."""
    given = inputs()
    base, values = run(denoiser, given), getattr(given, what)
    rows, length = given.positions.shape
    moved = torch.zeros(rows, length, rows, length, dtype=torch.float64)
    for row in range(rows):
        for j in range(length):
            changed = values.clone()
            changed[row, j] = changed[row, j] / 2 + 0.3
            setattr(given, what, changed)
            moved[row, j] = (run(denoiser, given) - base).abs().amax(-1)
    return moved


def own() -> Tensor:
    """What may depend on the noised signal and its level: the very place."""
    places = POSITIONS.numel()
    return torch.eye(places, dtype=torch.bool).reshape(*POSITIONS.shape, *POSITIONS.shape)


def past() -> Tensor:
    """What may depend on the condition: the place and later ones of its document."""
    rows, length = POSITIONS.shape
    document = (POSITIONS == 0).cumsum(1) + 10 * torch.arange(rows)[:, None]
    order = torch.arange(length)
    later = order[None, :, None, None] <= order[None, None, None, :]
    return later & (document[:, :, None, None] == document[None, None])


def assert_local(denoiser: Denoiser) -> None:
    allowed = {"z": own(), "t": own(), "condition": past()}
    for what, may_move in allowed.items():
        moved = influence(denoiser, what)
        assert not (moved[~may_move] > 0).any(), f"{what} leaks"
        assert (moved[may_move] > 1e-6).all(), f"{what} is not heard"


@pytest.mark.parametrize("name", DENOISERS.names())
def test_locality(name: str) -> None:
    assert_local(redrawn(DENOISERS.get(name)))


@pytest.mark.parametrize(
    ("kind", "leak"),
    [(Peeking, "condition"), (Mixing, "z"), (Blurred, "t"), (Crossing, "condition")],
)
def test_a_denoiser_that_leaks_is_caught(kind: type[Denoiser], leak: str) -> None:
    with pytest.raises(AssertionError, match=f"{leak} leaks"):
        assert_local(redrawn(kind))


def test_a_denoiser_that_is_deaf_is_caught() -> None:
    with pytest.raises(AssertionError, match="z is not heard"):
        assert_local(TransformerDenoiser(SIGNAL, CONDITION, CONFIG).double())


@pytest.mark.parametrize("name", DENOISERS.names())
def test_outputs_start_at_zero(name: str) -> None:
    denoiser = DENOISERS.get(name)(SIGNAL, CONDITION, CONFIG).double()
    assert not run(denoiser, inputs()).any()


@pytest.mark.parametrize("name", DENOISERS.names())
def test_one_level_for_all_is_that_level_everywhere(name: str) -> None:
    denoiser, given = redrawn(DENOISERS.get(name)), inputs()
    given.t = torch.full(given.positions.shape, 0.3)
    everywhere = run(denoiser, given)
    given.t = torch.tensor(0.3)
    torch.testing.assert_close(run(denoiser, given), everywhere, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", DENOISERS.names())
@pytest.mark.parametrize("before", [1, 7, 500])
def test_a_document_does_not_depend_on_where_it_stands(name: str, before: int) -> None:
    denoiser, alone = redrawn(DENOISERS.get(name)), inputs(torch.arange(LENGTH)[None])
    expected = run(denoiser, alone)
    within = inputs(torch.cat((torch.arange(before), torch.arange(LENGTH)))[None])
    within.z[:, before:], within.t[:, before:] = alone.z, alone.t
    within.condition[:, before:] = alone.condition
    torch.testing.assert_close(run(denoiser, within)[:, before:], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", DENOISERS.names())
def test_distance_within_a_document_matters(name: str) -> None:
    """Positions are seen: the same conditions in another order give another answer at the end."""
    denoiser, given = redrawn(DENOISERS.get(name)), inputs(torch.arange(LENGTH)[None])
    expected = run(denoiser, given)
    given.condition[:, :-1] = given.condition[:, :-1].flip(1)
    assert float((run(denoiser, given) - expected)[0, -1].abs().max()) > 1e-6


@pytest.mark.parametrize("name", DENOISERS.names())
def test_rows_of_a_batch_and_prefixes_stand_alone(name: str) -> None:
    denoiser, given = redrawn(DENOISERS.get(name)), inputs()
    full = run(denoiser, given)
    for row in range(2):
        for length in (1, 5, LENGTH):
            part = Inputs(*(x[row : row + 1, :length] for x in vars(given).values()))
            torch.testing.assert_close(
                run(denoiser, part), full[row : row + 1, :length], rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("name", DENOISERS.names())
def test_gradients_reach_every_parameter(name: str) -> None:
    denoiser, given = redrawn(DENOISERS.get(name)), inputs()
    out = denoiser(given.z, given.t, denoiser.encode(given.condition, given.positions))
    out.square().sum().backward()
    for parameter_name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


def test_causal_mask() -> None:
    mask = causal_mask(torch.tensor([[0, 1, 0, 1]]))[0, 0]
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert mask.int().tolist() == expected


def test_an_odd_head_is_refused() -> None:
    with pytest.raises(UserError, match=r"denoiser\.width=100 must be an even multiple"):
        DenoiserConfig(width=100, heads=4)
