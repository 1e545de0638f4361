"""Sampled rows are the states of the tokens that they stand for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.geometry import activations
from dihal_bench.geometry import cache as cache_module
from dihal_bench.geometry.activations import sample_activations
from dihal_bench.geometry.cache import CacheConfig, read_states

from ..tiny import TEXT, backbone


class Rows:
    """Windows by index, as a text has them."""

    window = TEXT.tokens.shape[1]
    fingerprint = "rows"

    def __len__(self):
        return len(TEXT.tokens)

    def batch(self, rows):
        rows = np.asarray(rows)
        return replace(TEXT, **{name: values[rows] for name, values in vars(TEXT).items()})


def sampled(per_window, **options):
    return sample_activations(
        backbone(),
        Rows(),
        [1, 3],
        windows=len(TEXT.tokens),
        per_window=per_window,
        **{"residual": "none", "seed": 0, **options},
    )


def test_all_rows_know_whether_they_start_a_window_or_a_document():
    for sample in sampled(Rows.window).values():
        np.testing.assert_array_equal(sample.inside, TEXT.positions.flatten() > 0)


def test_a_sampled_row_is_inside_where_its_token_is():
    whole, some = sampled(Rows.window), sampled(8)
    for layer, sample in some.items():
        assert 0 < int((~sample.inside).sum()) < len(sample.states) / 2
        places = torch.cdist(sample.states, whole[layer].states).topk(2, largest=False)
        clear = places.values[:, 1] > 1e-3  # a token that repeats itself has the same state again
        assert clear.float().mean() > 0.8
        assert torch.equal(sample.inside[clear], whole[layer].inside[places.indices[clear, 0]])


@pytest.fixture
def large(monkeypatch):
    """The tiny backbone is read as a large one."""
    monkeypatch.setattr(cache_module, "_LARGE", 1)


def test_a_large_backbone_reads_no_farther_than_the_last_token_that_is_kept(large, monkeypatch):
    read = []

    def counted(backbone, tokens, *arguments, **options):
        read.append(tokens.shape)
        return read_states(backbone, tokens, *arguments, **options)

    monkeypatch.setattr(activations, "read_states", counted)
    found = sampled(3, cross_fit=True)
    monkeypatch.undo()
    whole = sampled(3, cross_fit=True)
    assert sum(rows * length for rows, length in read) < 0.95 * TEXT.tokens.size
    assert [length for _, length in read] == sorted((n for _, n in read), reverse=True)
    for layer, sample in found.items():
        torch.testing.assert_close(sample.states, whole[layer].states, rtol=1e-4, atol=1e-4)
        assert torch.equal(sample.inside, whole[layer].inside)
        assert torch.equal(sample.crossed, whole[layer].crossed)
        assert 0 < sample.scatter.n < whole[layer].scatter.n


@pytest.mark.parametrize("residual", ["none", "token-mean"])
def test_a_large_backbone_is_read_alike_with_a_cache(large, tmp_path, residual):
    options = {"residual": residual, "cross_fit": True}
    cached = sampled(3, cache=CacheConfig(folder=tmp_path / "kept"), **options)
    for layer, sample in sampled(3, **options).items():
        for name in ("states", "transformed"):
            own, theirs = getattr(sample, name), getattr(cached[layer], name)
            torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)
        assert sample.scatter.n == cached[layer].scatter.n


def test_under_autocast_states_are_those_of_bfloat16_products():
    plain, cast = sampled(3), sampled(3, autocast=True)
    for layer, sample in cast.items():
        off = (sample.states - plain[layer].states).norm() / plain[layer].states.norm()
        assert 1e-5 < off < 0.05
        assert sample.states.dtype == torch.float32


def test_a_cache_under_autocast_is_another(tmp_path):
    kept = CacheConfig(folder=tmp_path / "kept")
    sampled(3, cache=kept, autocast=True)
    with pytest.raises(UserError, match="autocast"):
        sampled(3, cache=kept)
