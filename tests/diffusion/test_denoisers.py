"""Denoisers are local: noise of one's own place or block only, condition of the past only."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS
from dihal_bench.diffusion.denoisers import (
    Context,
    Denoiser,
    DenoiserConfig,
    TransformerDenoiser,
)
from dihal_bench.diffusion.layout import Layout

INPUTS, OUTPUTS, CONDITION, LENGTH = 6, 4, 5, 9
POSITIONS = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 6, 0, 1]])
CONFIG = DenoiserConfig(width=16, heads=2)

CAUSAL = ("causal", 0, 0)
REGIMES = (CAUSAL, ("sequence", 3, 0), ("sequence", 3, 2))  # name, places per block, shift
SEQUENTIAL = [name for name in DENOISERS.names() if "sequence" in DENOISERS.get(name).regimes]
EVERY = [
    pytest.param(name, regime, id=f"{name}-{'-'.join(map(str, regime))}")
    for name in DENOISERS.names()
    for regime in REGIMES
    if regime[0] in DENOISERS.get(name).regimes
]
Regime = tuple[str, int, int]


class Peeking(TransformerDenoiser):
    """A mistake to be caught: the context stream sees one position ahead."""

    def encode(self, condition: Tensor, layout: Layout) -> Context:
        return super().encode(condition.roll(-1, dims=1), layout)


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

    def encode(self, condition: Tensor, layout: Layout) -> Context:
        positions = torch.arange(layout.positions.shape[1]).expand_as(layout.positions)
        return super().encode(condition, replace(layout, positions=positions))


class Advancing(TransformerDenoiser):
    """Another: the places of a block see clean context of their own block."""

    def encode(self, condition: Tensor, layout: Layout) -> Context:
        context = super().encode(condition, layout)
        return replace(context, masks=(layout.causal().context_mask(), layout.block_mask()))


class Current(TransformerDenoiser):
    """Another: the stream beside the noise is that of the place, not of its block's first."""

    def encode(self, condition: Tensor, layout: Layout) -> Context:
        context = super().encode(condition, layout)
        return replace(context, stream=self.encoder(condition, layout)[0])


class Alone(TransformerDenoiser):
    """Another: the places of a block do not see each other."""

    def encode(self, condition: Tensor, layout: Layout) -> Context:
        context = super().encode(condition, layout)
        return replace(context, masks=(context.masks[0], None))


def redrawn(kind: type[Denoiser], config: DenoiserConfig = CONFIG) -> Denoiser:
    """A denoiser of float64 parameters drawn anew: its outputs start at zero, which hides leaks."""
    denoiser = kind(INPUTS, OUTPUTS, CONDITION, config).double()
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
        z=draw(rows, length, INPUTS),
        t=torch.rand(rows, length, generator=generator),
        condition=draw(rows, length, CONDITION),
        positions=positions,
    )


def layout_of(positions: Tensor, regime: Regime) -> Layout:
    name, size, shift = regime
    return Layout(positions) if name == "causal" else Layout.blocks(positions, size, shift)


@torch.no_grad()
def run(denoiser: Denoiser, given: Inputs, regime: Regime = CAUSAL) -> Tensor:
    context = denoiser.encode(given.condition, layout_of(given.positions, regime))
    return denoiser(given.z, given.t, context)


def influence(denoiser: Denoiser, what: str, regime: Regime) -> Tensor:
    """[B, j, B, i]: by how much the output at (row, i) moves when ``what`` changes at (row, j)."""
    given = inputs()
    base, values = run(denoiser, given, regime), getattr(given, what)
    rows, length = given.positions.shape
    moved = torch.zeros(rows, length, rows, length, dtype=torch.float64)
    for row in range(rows):
        for j in range(length):
            changed = values.clone()
            changed[row, j] = changed[row, j] / 2 + 0.3
            setattr(given, what, changed)
            moved[row, j] = (run(denoiser, given, regime) - base).abs().amax(-1)
    return moved


def first_places(regime: Regime) -> list[list[int]]:
    """Per place the first place of its block, counted along the row; without blocks itself."""
    _, size, shift = regime
    rows = []
    for positions in POSITIONS.tolist():
        first: list[int] = []
        for i, position in enumerate(positions):
            starts = not size or position == 0 or (position + shift) % size == 0
            first.append(i if starts else first[-1])
        rows.append(first)
    return rows


def may_move(regime: Regime) -> tuple[Tensor, Tensor]:
    """[B, j, B, i]: which outputs may hear the noise and its level, and which the condition."""
    rows, length = POSITIONS.shape
    first, document = first_places(regime), (POSITIONS == 0).cumsum(1).tolist()
    noise = torch.zeros(rows, length, rows, length, dtype=torch.bool)
    condition = torch.zeros_like(noise)
    for row in range(rows):
        for j in range(length):
            for i in range(length):
                noise[row, j, row, i] = first[row][j] == first[row][i]
                condition[row, j, row, i] = (
                    document[row][j] == document[row][i] and j <= first[row][i]
                )
    return noise, condition


def assert_local(denoiser: Denoiser, regime: Regime = CAUSAL) -> None:
    noise, condition = may_move(regime)
    for what, allowed in {"z": noise, "t": noise, "condition": condition}.items():
        moved = influence(denoiser, what, regime)
        assert not (moved[~allowed] > 0).any(), f"{what} leaks"
        assert (moved[allowed] > 1e-6).all(), f"{what} is not heard"


@pytest.mark.parametrize(("name", "regime"), EVERY)
def test_locality(name: str, regime: Regime) -> None:
    assert_local(redrawn(DENOISERS.get(name)), regime)


@pytest.mark.parametrize(
    ("kind", "leak"),
    [(Peeking, "condition"), (Mixing, "z"), (Blurred, "t"), (Crossing, "condition")],
)
@pytest.mark.parametrize("regime", REGIMES[:2], ids=["causal", "sequence"])
def test_a_denoiser_that_leaks_is_caught(kind: type[Denoiser], leak: str, regime: Regime) -> None:
    with pytest.raises(AssertionError, match=f"{leak} leaks"):
        assert_local(redrawn(kind), regime)


@pytest.mark.parametrize("kind", [Advancing, Current])
def test_a_block_that_sees_its_own_clean_context_is_caught(kind: type[Denoiser]) -> None:
    assert_local(redrawn(kind))  # without blocks it is no mistake
    with pytest.raises(AssertionError, match="condition leaks"):
        assert_local(redrawn(kind), REGIMES[1])


def test_a_block_whose_places_are_denoised_apart_is_caught() -> None:
    with pytest.raises(AssertionError, match="z is not heard"):
        assert_local(redrawn(Alone), REGIMES[1])


def test_a_denoiser_that_is_deaf_is_caught() -> None:
    with pytest.raises(AssertionError, match="z is not heard"):
        assert_local(TransformerDenoiser(INPUTS, OUTPUTS, CONDITION, CONFIG).double())


@pytest.mark.parametrize(("name", "regime"), EVERY)
def test_outputs_start_at_zero(name: str, regime: Regime) -> None:
    denoiser = DENOISERS.get(name)(INPUTS, OUTPUTS, CONDITION, CONFIG).double()
    out = run(denoiser, inputs(), regime)
    assert out.shape == (*POSITIONS.shape, OUTPUTS)
    assert not out.any()


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_blocks_of_one_place_are_the_causal_regime(name: str) -> None:
    denoiser, given = redrawn(DENOISERS.get(name)), inputs()
    expected = run(denoiser, given)
    found = run(denoiser, given, ("sequence", 1, 0))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("name", "regime"), EVERY)
def test_one_level_for_all_is_that_level_everywhere(name: str, regime: Regime) -> None:
    denoiser, given = redrawn(DENOISERS.get(name)), inputs()
    given.t = torch.full(given.positions.shape, 0.3)
    everywhere = run(denoiser, given, regime)
    given.t = torch.tensor(0.3)
    torch.testing.assert_close(run(denoiser, given, regime), everywhere, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "regime"), EVERY)
@pytest.mark.parametrize("before", [1, 7, 500])
def test_a_document_does_not_depend_on_where_it_stands(
    name: str, regime: Regime, before: int
) -> None:
    denoiser, alone = redrawn(DENOISERS.get(name)), inputs(torch.arange(LENGTH)[None])
    expected = run(denoiser, alone, regime)
    within = inputs(torch.cat((torch.arange(before), torch.arange(LENGTH)))[None])
    within.z[:, before:], within.t[:, before:] = alone.z, alone.t
    within.condition[:, before:] = alone.condition
    found = run(denoiser, within, regime)[:, before:]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "regime"), EVERY)
def test_distance_within_a_document_matters(name: str, regime: Regime) -> None:
    """Positions are seen: the same conditions in another order give another answer at the end."""
    denoiser, given = redrawn(DENOISERS.get(name)), inputs(torch.arange(LENGTH)[None])
    start = int(layout_of(given.positions, regime).at_start(torch.arange(LENGTH)[None])[0, -1])
    expected = run(denoiser, given, regime)
    given.condition[:, :start] = given.condition[:, :start].flip(1)
    assert float((run(denoiser, given, regime) - expected)[0, -1].abs().max()) > 1e-6


@pytest.mark.parametrize(("name", "regime"), EVERY)
def test_rows_of_a_batch_and_prefixes_stand_alone(name: str, regime: Regime) -> None:
    """Prefixes that end where a block does: without blocks, all of them."""
    denoiser, given = redrawn(DENOISERS.get(name)), inputs()
    full = run(denoiser, given, regime)
    for row, first in enumerate(first_places(regime)):
        ends = [*sorted(set(first) - {0}), LENGTH]
        for length in (ends[0], ends[len(ends) // 2], LENGTH):
            part = Inputs(*(x[row : row + 1, :length] for x in vars(given).values()))
            torch.testing.assert_close(
                run(denoiser, part, regime), full[row : row + 1, :length], rtol=0, atol=1e-12
            )


@pytest.mark.parametrize(("name", "regime"), EVERY)
def test_gradients_reach_every_parameter(name: str, regime: Regime) -> None:
    denoiser, given = redrawn(DENOISERS.get(name)), inputs()
    context = denoiser.encode(given.condition, layout_of(given.positions, regime))
    denoiser(given.z, given.t, context).square().sum().backward()
    for parameter_name, parameter in denoiser.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", DENOISERS.names())
def test_under_autocast_it_computes_about_the_same(name: str) -> None:
    denoiser, given = redrawn(DENOISERS.get(name)).float(), inputs()
    given.z, given.condition = given.z.float(), given.condition.float()
    exact = run(denoiser, given)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = run(denoiser, given)
    assert float((rounded - exact).norm() / exact.norm()) < 0.1


def test_an_odd_head_is_refused() -> None:
    with pytest.raises(UserError, match=r"denoiser\.width=100 must be an even multiple"):
        DenoiserConfig(width=100, heads=4)
