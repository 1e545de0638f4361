"""Recovery from the true signal, and where noise halves it."""

import math

import numpy as np
import pytest

from dihal_bench.evaluation.reconstruction import SIGMAS, _half, oracle

from ..tiny import build
from .texts import Text

ROWS = Text([[(r, 3, 9), (20 + r, 0, 15)] for r in range(6)])


def test_states_give_the_teacher_back() -> None:
    found = oracle(build("hidden"), ROWS, windows=range(6), batch=4)
    assert found.agreement == 1.0
    assert abs(found.kl) < 1e-5
    assert found.kl_under_noise[0] < found.kl_under_noise[-1]
    assert found.tokens == 6 * (8 + 14)


def test_embeddings_are_recovered_and_noise_hides_them() -> None:
    found = oracle(build("embedding"), ROWS, windows=range(6), batch=4)
    assert found.agreement == 1.0
    assert found.agreement_under_noise[0] == 1.0
    assert found.agreement_under_noise[-1] < 0.2
    assert found.sigma_half is not None
    assert SIGMAS[0] < found.sigma_half < SIGMAS[-1]


def test_the_crossing_is_interpolated_in_log_sigma() -> None:
    curve = np.array([1.0] * 4 + [0.75, 0.25] + [0.0] * (len(SIGMAS) - 6))
    middle = math.sqrt(SIGMAS[4] * SIGMAS[5])
    assert _half(curve, 0.5) == pytest.approx(middle)
    assert _half(np.ones(len(SIGMAS)), 0.5) is None
