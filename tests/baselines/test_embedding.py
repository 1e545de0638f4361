"""Embedding diffusion and its control: exact where rows differ, blind to the future, trainable."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dihal_bench.baselines.embedding import EmbeddingOptions
from dihal_bench.core.errors import UserError
from dihal_bench.diffusion.schedule import DiffusionConfig
from dihal_bench.interfaces.recovery import recovery_accuracy
from dihal_bench.interfaces.settings import LossWeights
from dihal_bench.interfaces.tokens import embedding_rows

from ..tiny import HIDDEN, PROBE, TEXT, VOCABULARY, backbone
from .shared import (
    DIFFUSION,
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

NAMES = ("embedding", "lm")
WAYS = {
    "frozen": EmbeddingOptions(),
    "learned": EmbeddingOptions(learned=True),
    "nearest": EmbeddingOptions(rounding="nearest"),
    "clamped": EmbeddingOptions(learned=True, clamp=True),
}
AUX_NONE = LossWeights(ce=0.0, kd=0.0)


@pytest.mark.parametrize("way", WAYS)
def test_shapes_and_an_exact_oracle(way: str) -> None:
    interface = fitted("embedding", options=WAYS[way])
    batch = batch_for(interface, PROBE)
    x0 = interface.target(batch)
    assert x0.shape == (*PROBE.tokens.shape, HIDDEN)
    assert interface.sizes == (HIDDEN, HIDDEN)
    assert interface.recover(x0, batch).shape == (*PROBE.tokens.shape, VOCABULARY)
    square = x0.square().mean(-1)
    torch.testing.assert_close(square, torch.ones_like(square))
    assert recovery_accuracy(interface, batch) == 1.0


def test_rows_are_centred_before_they_are_normalised() -> None:
    rows = backbone().model.get_input_embeddings().weight
    expected = rows - rows.mean(0)
    found = embedding_rows(backbone())
    cosine = torch.nn.functional.cosine_similarity(found, expected, dim=-1)
    torch.testing.assert_close(cosine, torch.ones(VOCABULARY))
    assert abs(float((found @ found.T).fill_diagonal_(0).mean())) < 1.0  # of HIDDEN


@pytest.mark.parametrize("name", NAMES)
def test_target_is_the_next_token(name: str) -> None:
    assert_target_stands_for_the_next_token(redrawn(name))


@pytest.mark.parametrize("block", [0, 4])
@pytest.mark.parametrize("name", NAMES)
def test_no_prediction_depends_on_later_tokens(name: str, block: int) -> None:
    assert_blind_to_the_future(redrawn(name, block=block))


def test_clamping_lets_nothing_through() -> None:
    """Discrete estimates need not move with every token, but never with a later one."""
    interface = redrawn("embedding", options=WAYS["clamped"])
    base = logits_of(interface, PROBE)
    tokens = PROBE.tokens.copy()
    tokens[:, -1] = 9
    moved = (logits_of(interface, replace(PROBE, tokens=tokens)) - base).abs()
    assert float(moved[:, :-1].max()) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_a_parallel_pass_is_the_loop_over_prefixes(name: str) -> None:
    assert_parallel_is_the_loop(redrawn(name))


def test_the_clamp_trick_gives_rows_of_the_table() -> None:
    interface = redrawn("embedding", options=WAYS["clamped"])
    batch = batch_for(interface, PROBE, torch.float64)
    with torch.no_grad():
        (signal,) = interface.chains(batch, steps=3, count=1)
    distance = torch.cdist(signal.flatten(0, 1), interface.table).amin(-1)
    torch.testing.assert_close(distance, torch.zeros_like(distance), rtol=0, atol=1e-6)


@torch.no_grad()
def test_nearest_rounding_is_the_nearest_row() -> None:
    interface = redrawn("embedding", options=WAYS["nearest"])
    batch = batch_for(interface, PROBE, torch.float64)
    (signal,) = interface.chains(batch, steps=3, count=1)
    nearest = torch.cdist(signal.flatten(0, 1), interface.table).argmin(-1)
    logits = interface.recover(signal, batch)
    assert torch.equal(logits.argmax(-1).flatten(), nearest)
    best = logits.softmax(-1).amax(-1)
    torch.testing.assert_close(best, torch.ones_like(best))
    assert not interface.likelihood
    assert fitted("embedding").likelihood


def test_nearest_rounding_learns_by_the_readout() -> None:
    nearest, readout = (redrawn("embedding", options=WAYS[way]) for way in ("nearest", "frozen"))
    batch = batch_for(nearest, TEXT, torch.float64)
    torch.testing.assert_close(nearest.losses(batch, DIFFUSION), readout.losses(batch, DIFFUSION))


@pytest.mark.parametrize(
    ("way", "moved"),
    [("frozen", {"trunk", "readout"}), ("learned", {"trunk", "readout", "rows"})],
)
def test_what_is_trained(way: str, moved: set[str]) -> None:
    interface = fitted("embedding", options=WAYS[way])
    assert moved_by(interface, batch_for(interface, TEXT), "diffusion") == moved
    assert interface.parameters_in("recovery") == []


@pytest.mark.parametrize("losses", [LossWeights(ce=1.0, kd=1.0), AUX_NONE])
def test_learned_embeddings_do_not_collapse(losses: LossWeights) -> None:
    """The diffusion's error would be least for a single point; the readout keeps them apart."""
    interface = fitted("embedding", options=WAYS["learned"], losses=losses)
    batch = batch_for(interface, TEXT)
    seen = torch.unique(batch.tokens[batch.scored])
    before = torch.pdist(interface.table[seen].detach()).min()
    train(interface, batch, "diffusion", 100)
    table = interface.table[seen].detach()
    assert recovery_accuracy(interface, batch) == 1.0
    assert float(torch.pdist(table).min()) > 0.2 * float(before)
    square = table.square().mean(-1)
    torch.testing.assert_close(square, torch.ones_like(square))


def test_the_readout_learns_near_the_embeddings_alone() -> None:
    """Its loss hears neither condition nor noise of the diffusion; it is in closed form at 0."""
    interface = fitted("embedding", options=EmbeddingOptions(sigma0=0.0), losses=AUX_NONE)
    batch = batch_for(interface, TEXT)
    with torch.no_grad():
        losses = interface.losses(batch, DIFFUSION)
        logs = (interface.table @ interface.readout.weight.T).log_softmax(-1).diagonal()
    assert losses.keys() == {"diff", "rec", "readout"}
    expected = -logs[batch.tokens[batch.scored]].mean()
    assert float(losses["readout"]) == pytest.approx(float(expected), rel=1e-4)


def test_the_language_model_is_the_trunk_at_zero() -> None:
    interface = redrawn("lm")
    batch = batch_for(interface, PROBE, torch.float64)
    assert interface.trunk is not None
    with torch.no_grad():
        context = interface.trunk.encode(interface.condition(batch), interface.layout(batch))
        zeros = torch.zeros_like(interface.target(batch))
        state = interface.trunk(zeros, torch.ones(zeros.shape[:-1]), context)
        expected = interface.readout(state)
    torch.testing.assert_close(logits_of(interface, PROBE, steps=5), expected)
    assert torch.equal(logits_of(interface, PROBE, steps=1), logits_of(interface, PROBE, steps=8))


@pytest.mark.parametrize(
    ("ce", "kd", "shares"),
    [(0.03, 0.03, (1, 1)), (0.0, 0.0, (1, 0)), (0.1, 0.0, (1, 0)), (0.01, 0.04, (0.25, 1))],
)
def test_the_language_model_learns_by_token_losses(
    ce: float, kd: float, shares: tuple[float, float]
) -> None:
    interface = redrawn("lm", losses=LossWeights(ce=ce, kd=kd))
    batch = batch_for(interface, TEXT, torch.float64)
    losses = interface.losses(batch, DIFFUSION)
    expected = sum(
        share * float(losses[name].detach())
        for name, share in zip(("ce", "kd"), shares, strict=True)
        if share
    )
    assert float(interface.total(losses).detach()) == pytest.approx(expected)


def test_trunks_of_a_comparison_start_alike() -> None:
    torch.manual_seed(99)
    first = fitted("embedding").state_dict()
    torch.manual_seed(5)
    second = fitted("lm").state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_building_leaves_the_global_generator_alone() -> None:
    backbone()
    before = torch.get_rng_state()
    for name in NAMES:
        fitted(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_frozen_embeddings_are_neither_kept_nor_counted() -> None:
    frozen, learned = (fitted("embedding", options=WAYS[way]) for way in ("frozen", "learned"))
    assert "rows" not in frozen.state_dict()
    assert "rows" in learned.state_dict()
    assert frozen.closed_form_parameters == learned.closed_form_parameters == 2 * HIDDEN


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"embedding\.rounding=best is unknown; choose one of"):
        EmbeddingOptions(rounding="best")
    with pytest.raises(UserError, match=r"embedding\.sigma0=-1 must be 0 or more"):
        EmbeddingOptions(sigma0=-1)


def test_self_conditioning_trains() -> None:
    interface = fitted("embedding", diffusion=DiffusionConfig(self_conditioning=True))
    batch = batch_for(interface, TEXT)
    losses = interface.losses(batch, DIFFUSION)
    assert all(np.isfinite(float(value.detach())) for value in losses.values())
    assert logits_of(interface, PROBE).shape == (*PROBE.tokens.shape, VOCABULARY)
