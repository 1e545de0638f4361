"""Logits that are no numbers stop every score that would be made of them."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.generation import Choice
from dihal_bench.evaluation.likelihood import Row, score
from dihal_bench.evaluation.rollouts import RolloutTask
from dihal_bench.evaluation.token_scores import require_finite, require_law
from dihal_bench.interfaces.hidden import Hidden

from ..conftest import Tiny
from ..tiny import backbone, build
from .harness_cases import CHOICE, QUESTIONS, UNTIL, new_given
from .samples.toy import judge, samples
from .texts import Text

TEXT = Text([[(0, 3, 9), (1, 0, 15)], [(2, 0, 24)]])


def spoil(interface: Hidden, monkeypatch: pytest.MonkeyPatch) -> None:
    """One logit of one place is NaN; the rest are as they were."""
    real = interface.recover

    def broken(x0: Tensor, batch: Any) -> Tensor:
        logits = real(x0, batch).clone()
        logits[-1, -1, 5] = math.nan
        return logits

    monkeypatch.setattr(interface, "recover", broken)


def test_what_is_finite_passes_and_the_rest_is_counted() -> None:
    require_finite(torch.tensor([1.0, -3e38]), "it", "logits")
    with pytest.raises(UserError, match=r"it: 2 of 3 logits are not finite numbers"):
        require_finite(torch.tensor([math.inf, 0.0, math.nan]), "it", "logits")


def test_teacher_forced_scores_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    interface = build("hidden")
    real = interface.recover
    monkeypatch.setattr(interface, "recover", lambda x0, batch: real(x0, batch) * math.nan)
    with pytest.raises(UserError, match=r"it S=2: \d+ of \d+ values of nll@1 are not finite"):
        score(
            [Row(subject="it", steps=2)],
            {"it": interface},
            TEXT,
            backbone(),
            windows=range(2),
            batch=2,
        )


@pytest.mark.parametrize("kind", ["choice", "until", "rollouts"])
def test_answers_and_rollouts_stop(
    kind: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argmax of NaN is a choice, and its accuracy would be a number like any other."""
    given = new_given(tiny, tmp_path)
    interface = given.interface("hidden")
    spoil(interface, monkeypatch)  # type: ignore[arg-type]
    task: Any = RolloutTask(name="few", lengths=(2,), count=4)
    if kind != "rollouts":
        task = given.task(CHOICE if kind == "choice" else UNTIL, QUESTIONS)
    with pytest.raises(UserError, match="not finite numbers"):
        task.perform(given.bench(hidden=interface))


def test_an_overflow_is_no_choice() -> None:
    logits = torch.tensor([[0.0, math.inf], [0.0, 1.0]])
    with pytest.raises(UserError, match="not finite numbers"):
        Choice(temperature=0.0).draw(logits, torch.arange(2), 0)


def test_a_judge_leaves_no_sample_out(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = judge(8)
    real = toy.model.read

    def broken(tokens: Tensor) -> tuple[Tensor, Tensor]:
        logits, states = real(tokens)
        return torch.where((tokens == 3)[..., None], math.nan, logits), states

    assert toy.read(samples("a b a", "a a")).tokens.tolist() == [2, 1]
    monkeypatch.setattr(toy.model, "read", broken)
    assert toy.read(samples("a a b", "a a")).tokens.tolist() == [2, 1]
    with pytest.raises(UserError, match="judge toy: 1 of 2 NLLs are not finite"):
        toy.read(samples("a b a", "a a"))


def test_tokens_that_cannot_follow_are_no_fault() -> None:
    require_law(torch.tensor([[0.0, -math.inf], [-math.inf, 1.0]]), "it")
    for wrong in (math.nan, math.inf):
        with pytest.raises(UserError, match="it: 1 of 2 places' logits"):
            require_law(torch.tensor([[0.0, wrong], [0.0, -math.inf]]), "it")
