"""Noise is a function of its address: published numbers, right distributions, nothing shared."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from dihal_bench.diffusion import noise as module
from dihal_bench.diffusion.noise import Noise, philox

KNOWN_ANSWERS = [  # counter, key, output: Random123's kat_vectors for philox4x32-10
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]
SEED = 3
KINDS = ("normal", "uniform", "gumbel")


def places(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Documents and offsets [rows, columns]: row r is document 10 + r."""
    documents = (10 + torch.arange(rows))[:, None].expand(rows, columns)
    return documents, torch.arange(columns).expand(rows, columns)


def draw(
    kind: str,
    documents: Tensor,
    offsets: Tensor,
    *,
    seed: int = SEED,
    size: int = 5,
    draw: int = 2,
    **step: int,
) -> Tensor:
    """Numbers [..., size] of any kind; uniform ones have size 1."""
    source = Noise(seed)
    if kind == "uniform":
        return source.uniform(documents, offsets, draw=draw)[..., None]
    return getattr(source, kind)(documents, offsets, size, draw=draw, **step)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_published_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    words = philox([torch.tensor([word]) for word in counter], (key[0], key[1]))
    assert [int(word) for word in words] == expected


def test_multiplication_has_64_bits() -> None:
    extremes = [0, 1, 0xFFFF, 0x10000, 0xFFFFFFFE, 0xFFFFFFFF]
    for factor in (*module._MULTIPLIERS, 0xFFFFFFFF):
        high, low = module._multiply(torch.tensor(extremes), factor)
        products = [(h << 32) + w for h, w in zip(high.tolist(), low.tolist(), strict=True)]
        assert products == [a * factor for a in extremes]


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_has_the_same_numbers_wherever_it_stands(kind: str) -> None:
    documents, offsets = places(4, 6)
    full = draw(kind, documents, offsets)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    shuffled = draw(kind, documents.flatten()[order], offsets.flatten()[order])
    assert torch.equal(shuffled, full.flatten(0, 1)[order])
    assert torch.equal(draw(kind, documents[2:3, 4:], offsets[2:3, 4:]), full[2:3, 4:])
    assert torch.equal(draw(kind, documents[1, 3], offsets[1, 3]), full[1, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_loop_equals_the_window(kind: str) -> None:
    documents, offsets = places(2, 7)
    full = draw(kind, documents, offsets)
    for length in range(1, 8):
        prefix = draw(kind, documents[:, :length], offsets[:, :length])
        assert torch.equal(prefix, full[:, :length])


@pytest.mark.parametrize("kind", ["normal", "gumbel"])
def test_more_dimensions_do_not_change_the_first(kind: str) -> None:
    documents, offsets = places(2, 3)
    wide = draw(kind, documents, offsets, size=11)
    for size in range(1, 11):
        assert torch.equal(draw(kind, documents, offsets, size=size), wide[..., :size])


def test_whatever_differs_gives_unrelated_numbers() -> None:
    documents, offsets = places(20, 50)
    documents = documents + 100
    source, size = Noise(SEED), 20
    streams = {
        "base": source.normal(documents, offsets, size, draw=2),
        "draw": source.normal(documents, offsets, size, draw=3),
        "step": source.normal(documents, offsets, size, draw=2, step=1),
        "last step": source.normal(documents, offsets, size, draw=2, step=4095),
        "seed": Noise(SEED + 1).normal(documents, offsets, size, draw=2),
        "high seed": Noise(SEED + 2**32).normal(documents, offsets, size, draw=2),
        "document": source.normal(documents + 20, offsets, size, draw=2),
        "far document": source.normal(documents + 2**31, offsets, size, draw=2),
        "offset": source.normal(documents, offsets + 50, size, draw=2),
        "swapped": source.normal(offsets, documents, size, draw=2),
        "purpose": source.gumbel(documents, offsets, size, draw=2),
        "level": source._uniform(module.LEVEL, documents, offsets, size, 2, 0),
    }
    table = torch.stack([stream.flatten() for stream in streams.values()])
    assert len(table.unique()) == table.numel()
    correlations = torch.corrcoef(table) - torch.eye(len(streams))
    assert float(correlations.abs().max()) < 5 / table.shape[1] ** 0.5


def test_within_a_stream_nothing_is_related() -> None:
    documents, offsets = places(40, 25)
    numbers = Noise(SEED).normal(documents, offsets, 12, draw=0)  # (40, 25, 12)
    dimensions = torch.corrcoef(numbers.flatten(0, 1).T) - torch.eye(12)
    assert float(dimensions.abs().max()) < 5 / 1000**0.5
    here, next_place, next_row = numbers[:, :-1], numbers[:, 1:], numbers[:, :-1].roll(1, 0)
    streams = torch.stack([x.flatten() for x in (here, next_place, next_row)])
    neighbours = torch.corrcoef(streams) - torch.eye(3)
    assert float(neighbours.abs().max()) < 5 / streams.shape[1] ** 0.5


@pytest.mark.parametrize(
    ("kind", "law"),
    [("normal", stats.norm()), ("uniform", stats.uniform()), ("gumbel", stats.gumbel_r())],
)
def test_distributions(kind: str, law: stats.rv_continuous) -> None:
    size = 1 if kind == "uniform" else 100
    documents, offsets = places(50, 2000 // size)
    numbers = draw(kind, documents, offsets, size=size).flatten().numpy()
    assert numbers.dtype == np.float64
    assert stats.kstest(numbers, law.cdf).pvalue > 1e-3
    mean, variance, skew, kurtosis = (float(m) for m in law.stats("mvsk"))
    n = len(numbers)
    assert numbers.mean() == pytest.approx(mean, abs=5 * (variance / n) ** 0.5)
    assert numbers.var() == pytest.approx(variance, rel=5 * ((kurtosis + 2) / n) ** 0.5)
    assert stats.skew(numbers) == pytest.approx(skew, abs=0.1)


def test_squared_norms_are_chi_squared() -> None:
    documents, offsets = places(50, 40)
    numbers = Noise(SEED).normal(documents, offsets, 7, draw=1)
    norms = numbers.square().sum(-1).flatten().numpy()
    assert stats.kstest(norms, stats.chi2(7).cdf).pvalue > 1e-3


@pytest.mark.parametrize("word", [0, 0xFFFFFFFF])
def test_extreme_words_give_finite_numbers(monkeypatch: pytest.MonkeyPatch, word: int) -> None:
    monkeypatch.setattr(module, "philox", lambda *_: (torch.full((1, 4), word),) * 4)
    at = torch.zeros(1, dtype=torch.long)
    uniform = Noise(SEED).uniform(at, at, draw=0)
    assert 0.0 < float(uniform) < 1.0
    assert torch.isfinite(Noise(SEED).normal(at, at, 16, draw=0)).all()
    assert torch.isfinite(Noise(SEED).gumbel(at, at, 8, draw=0)).all()
    for total in (2, 3, 513, 1000, 1023, 4096):
        assert 0 <= int(uniform * total) < total


def test_vocabularies_of_large_models_fit() -> None:
    at = torch.zeros(1, dtype=torch.long)
    assert Noise(SEED).gumbel(at, at, 262_144, draw=0).shape == (1, 262_144)
    with pytest.raises(AssertionError):
        Noise(SEED).normal(at, at, 1, draw=0, step=4096)  # it would run into the next document


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    documents, offsets = places(2, 2)
    for kind in KINDS:
        draw(kind, documents, offsets)
    assert torch.equal(torch.get_rng_state(), before)
