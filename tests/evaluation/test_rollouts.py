"""Brier-n from paired rollouts: unbiased, and comparable with what is known exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dihal_bench.core.registry import INTERFACES
from dihal_bench.evaluation.incremental import IncrementalDecoder, TeacherDecoder, decoder_of
from dihal_bench.evaluation.rollouts import ORDERS, paired_brier
from dihal_bench.interfaces.base import Interface
from dihal_bench.interfaces.batch import Batch

from ..tiny import CONFIG, SPAN, VOCABULARY, backbone, redrawn

SHARES = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)


class Known(INTERFACES.get("mean")):
    """Tokens 5, 6 and 7 with known probabilities, whatever came before."""

    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        logits = torch.full((*batch.tokens.shape, VOCABULARY), -torch.inf, dtype=torch.float64)
        logits[..., 5:8] = SHARES.log()
        return logits


class TwoMinds(INTERFACES.get("hidden")):
    """Chains are of two minds: each has one of two distributions, drawn by its own noise."""

    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        logits = torch.full((*batch.tokens.shape, VOCABULARY), -torch.inf, dtype=torch.float64)
        first = (x0[:, :, :1] > 0).double()  # (B, T, 1)
        shares = first * SHARES + (1 - first) * SHARES.flip(0)
        logits[..., 5:8] = shares.log()
        return logits

    def draw(self, batch: Batch, context: object, *, chain: int, steps: int) -> Tensor:
        return self._normal(batch, chain)


def values(interface: Interface, text: list[int], rows: int) -> np.ndarray:
    tokens = torch.tensor([[9, 9, *text]]).expand(rows, -1)
    documents = torch.arange(rows)

    def read(chain: int) -> IncrementalDecoder:
        return decoder_of(interface, documents, steps=1, chain=chain)

    return paired_brier(read, tokens, documents, seed=0)


def made(kind: type[Interface]) -> Interface:
    interface = kind(backbone(torch.float64), SPAN, replace(CONFIG, residual="none"))
    return interface.double()


@pytest.mark.parametrize("text", [[5, 5, 5, 5], [7, 6, 5, 5], [20, 5, 5, 5]])
def test_the_mean_is_the_brier_score_of_a_known_law(text: list[int]) -> None:
    p = {5: 0.6, 6: 0.3, 7: 0.1}
    found = values(made(Known), text, 4000)
    for n in range(1, ORDERS + 1):
        true = np.prod([p.get(token, 0.0) for token in text[:n]])
        collision = float((SHARES**2).sum()) ** n
        error = found[n - 1].std() / len(found[0]) ** 0.5
        assert found[n - 1].mean() == pytest.approx(2 * true - collision, abs=4 * error + 1e-12)


def test_the_law_of_a_diffusion_is_the_mean_over_its_chains() -> None:
    """Scored as single chains, with one chain twice, the collision would be .46, not .37."""
    mixture = (SHARES + SHARES.flip(0)) / 2
    found = values(made(TwoMinds), [6, 6, 6, 6], 6000)
    for n in range(1, ORDERS + 1):
        expected = 2 * 0.3**n - float((mixture**2).sum()) ** n
        error = found[n - 1].std() / len(found[0]) ** 0.5
        assert found[n - 1].mean() == pytest.approx(expected, abs=4 * error)
    biased = 2 * 0.3 - float((SHARES**2).sum())
    assert abs(found[0].mean() - biased) > 0.05


def test_brier_1_of_the_teacher_is_what_teacher_forcing_gives() -> None:
    teacher = backbone(torch.float64)
    rows = torch.randint(2, 60, (600, 10), generator=torch.Generator().manual_seed(1))
    documents = torch.arange(len(rows))
    found = paired_brier(lambda chain: TeacherDecoder(teacher), rows, documents, seed=0)
    p = torch.softmax(teacher.logits(rows[:, :-ORDERS])[:, -1], dim=-1)
    exact = 2 * p.gather(1, rows[:, -ORDERS, None])[:, 0] - p.square().sum(1)
    difference = found[0] - exact.numpy()
    assert difference.mean() == pytest.approx(
        0.0, abs=4 * difference.std() / len(difference) ** 0.5
    )


@pytest.mark.parametrize(("name", "block"), [("hidden", 0), ("hidden", 4), ("c2d", 0)])
def test_a_row_depends_on_nothing_but_itself(name: str, block: int) -> None:
    interface = redrawn(name, block=block)
    rows = torch.randint(2, 60, (3, 9), generator=torch.Generator().manual_seed(2))
    documents = torch.tensor([4, 9, 2])

    def of(index: slice) -> np.ndarray:
        def read(chain: int) -> IncrementalDecoder:
            return decoder_of(interface, documents[index], steps=2, chain=chain)

        return paired_brier(read, rows[index], documents[index], seed=0)

    whole = of(slice(None))
    assert whole.shape == (ORDERS, 3)
    for row in range(3):
        assert of(slice(row, row + 1))[:, 0] == pytest.approx(whole[:, row], abs=1e-10)
