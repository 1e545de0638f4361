"""How long locating will take, from one pass and one matrix."""

import pytest
import torch

from dihal_bench.geometry import cache, pool, seconds
from dihal_bench.geometry.locate import LocateConfig
from dihal_bench.geometry.seconds import pass_seconds, pass_tokens, proxy_seconds

from ..tiny import backbone

CONFIG = LocateConfig(
    neighbours=5, pairs=50, windows=20, per_window=4, sample=60, resamples=10, stability_resamples=0
)


def test_a_pool_that_is_shared_is_formed_once_per_layer_and_view(monkeypatch):
    monkeypatch.setattr(seconds, "_timed", lambda *_: 1.0)
    monkeypatch.setattr(pool, "_LOOKUP", 0)
    pools = proxy_seconds.__wrapped__(CONFIG, 3, 90)
    assert pools == pytest.approx(2 * 3 * ((80 / 60) ** 2 + 10))
    monkeypatch.setattr(pool, "_LOOKUP", 100)
    assert proxy_seconds.__wrapped__(CONFIG, 3, 90) == 2 * 3 * 10


def test_tokens_that_are_run_are_those_up_to_the_last_kept_one(monkeypatch):
    assert pass_tokens(backbone(), CONFIG, 99) == 20 * 99
    monkeypatch.setattr(cache, "_LARGE", 1)
    assert pass_tokens(backbone(), CONFIG, 99) == 20 * 80  # the mean of the largest of 4 of 1..99
    lasts = torch.stack([torch.randperm(99)[:4].amax() + 1.0 for _ in range(2000)])
    assert float(lasts.mean()) == pytest.approx(80, rel=0.03)


def test_a_pass_takes_as_long_as_all_its_windows(monkeypatch):
    monkeypatch.setattr(seconds.time, "thread_time", iter([0.0, 5.0, 10.0, 12.0]).__next__)
    options = {"residual": "none", "autocast": False}
    found = pass_seconds.__wrapped__(backbone(), CONFIG, 32, **options)
    assert found == pytest.approx(2.0 * 20 / cache.PASS)  # the first is to get warm
