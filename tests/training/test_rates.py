"""Learning rates over a training."""

import itertools

import numpy as np
import pytest

from dihal_bench.training.config import TrainConfig
from dihal_bench.training.trainee import learning_rate


def test_learning_rate() -> None:
    config = TrainConfig(warmup=0.05, final=0.02)
    rates = [learning_rate(step, 200, config) for step in range(200)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[105] == pytest.approx((1 + 0.02) / 2)  # halfway down the cosine
    assert rates[199] == pytest.approx(0.02, abs=1e-3)
    assert learning_rate(200, 200, config) == pytest.approx(0.02)
    assert learning_rate(0, 1, config) == 1.0
