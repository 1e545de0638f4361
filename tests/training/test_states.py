"""The teacher's states kept on disk: only if asked for, the same training, fewer passes."""

from pathlib import Path

import pytest
import torch

from dihal_bench.data.tokens import PackedTokens
from dihal_bench.interfaces.settings import LossWeights
from dihal_bench.training import states
from dihal_bench.training.states import KeptStates
from dihal_bench.training.trainee import TrainState

from ..damages import flip
from ..tiny import backbone as teacher
from ..tiny import build
from .test_trainer import BATCH, CONFIG, assert_same, data, run  # noqa: F401


def trainees(share: float = 1.0) -> list[TrainState]:
    losses = LossWeights(ce=0.03 * (share < 1), kd=0.03 * (share < 1), token_share=share)
    return [TrainState(name, build(name, losses=losses), CONFIG) for name in ("hidden", "regress")]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Layers that the teacher is asked for, pass by pass."""
    seen: list[list[int]] = []
    whole = type(teacher()).states

    def spy(self, tokens, positions=None, layers=None, *, logits=False):  # type: ignore[no-untyped-def]
        seen.append([*layers])
        return whole(self, tokens, positions, layers, logits=logits)

    monkeypatch.setattr(type(teacher()), "states", spy)
    return seen


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_they_are_read_again_and_nothing_else_changes(
    share: float,
    data: PackedTokens,  # noqa: F811
    tmp_path: Path,
    passes: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = run(trainees(share), data, tmp_path / "plain")
    monkeypatch.setenv(states.FOLDER, str(tmp_path / "states"))
    first = run(trainees(share), data, tmp_path / "first")
    made = len(passes)
    again = run(trainees(share), data, tmp_path / "again")
    counted = 1 if share == 1 else 2  # steps whose FLOPs are counted are as if nothing was kept
    assert len(passes) - made <= counted
    for one, two, three in zip(plain, first, again, strict=True):
        assert_same(one, two)
        assert_same(one, three)
        assert one.spent.flops == three.spent.flops


def test_what_is_damaged_is_made_anew(
    data: PackedTokens,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(states.FOLDER, str(tmp_path / "states"))
    whole = run(trainees(), data, tmp_path / "whole")
    for path in (tmp_path / "states").rglob("*.safetensors"):
        flip(path)
    for one, other in zip(whole, run(trainees(), data, tmp_path / "again"), strict=True):
        assert_same(one, other)
    store = KeptStates.of(teacher(), data, autocast=False)
    assert store is not None
    assert [*store.read(data.drawn(0, BATCH, BATCH), (0, 1, 3))] == [1, 3]


def test_other_arithmetic_or_text_has_a_place_of_its_own(
    data: PackedTokens,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert KeptStates.of(teacher(), data, autocast=False) is None
    monkeypatch.setenv(states.FOLDER, str(tmp_path))
    wide, narrow = (KeptStates.of(teacher(), data, autocast=own) for own in (False, True))
    assert wide is not None
    assert narrow is not None
    wide.write([5], {1: torch.ones(1, 4, 2)})
    assert torch.equal(wide.read([5], [1])[1], torch.ones(1, 4, 2))
    assert wide.read([5, 6], [1]) == narrow.read([5], [1]) == {}
