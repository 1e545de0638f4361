"""Token losses on a share of the windows: unbiased, resumable, the same over processes, counted."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dihal_bench.config.identity import identity
from dihal_bench.config.schema import RunConfig
from dihal_bench.core.errors import UserError
from dihal_bench.data.tokens import PackedTokens
from dihal_bench.interfaces.settings import LossWeights, Step
from dihal_bench.training.ledger import count_flops
from dihal_bench.training.sampling import Need, Pass, rows_of, taught_places
from dihal_bench.training.trainee import TrainState

from ..tiny import PROBE, backbone, batch_of, build
from .test_trainer import BATCH, CONFIG, WINDOW, Stop, assert_same, data, run, stop_at  # noqa: F401

TOKENS = LossWeights(diff=0.0, rec=0.0)


@pytest.mark.parametrize("share", [0.5, 0.25, 0.3, 1 / 22, 0.999])
def test_every_place_is_taken_equally_often(share: float) -> None:
    batch, steps = 8, 4000
    taken = [taught_places(share, batch, seed=1, step=step) or () for step in range(steps)]
    sizes = {len(places) for places in taken}
    assert max(sizes) - min(sizes) <= 1
    assert abs(sum(map(len, taken)) - share * batch * steps) <= 1
    often = Counter(place for places in taken for place in places)
    for place in range(batch):
        assert often[place] / steps == pytest.approx(share, abs=0.03)
    assert all(len(set(places)) == len(places) for places in taken)


def test_all_windows_are_no_choice_and_passes_have_their_part() -> None:
    assert taught_places(1.0, 8, seed=0, step=3) is None
    assert rows_of(None, range(4, 8)) is None
    places = taught_places(0.5, 8, seed=0, step=3)
    assert places is not None
    low, high = rows_of(places, range(4)), rows_of(places, range(4, 8))
    assert low is not None
    assert high is not None
    assert [*low, *(row + 4 for row in high)] == [*places]
    assert len(low) == len(high) == 2


@pytest.mark.parametrize("block", [0, 4])
@pytest.mark.parametrize("name", ["hidden", "regress-loop"])
def test_on_average_over_the_windows_losses_and_gradients_are_those_of_all(
    name: str, block: int
) -> None:
    """Over all choices of one window of two; by linearity then over all others."""

    def gradient(taught: tuple[int, ...] | None, share: float) -> list[torch.Tensor]:
        interface = build(name, block=block, losses=replace(TOKENS, token_share=share))
        losses = interface.losses(batch_of(PROBE), Step(index=2, taught=taught))
        total = interface.total({key: losses[key] for key in ("ce", "kd")})
        total.backward()
        gradients = [p.grad for p in interface.parameters() if p.grad is not None]
        return [total.detach(), *gradients]

    whole = gradient(None, 1.0)
    halves = [gradient((row,), 0.5) for row in range(2)]
    assert len(batch_of(PROBE).tokens) == 2
    for all_of_it, *some in zip(whole, *halves, strict=True):
        torch.testing.assert_close(sum(some) / 2, all_of_it, rtol=1e-4, atol=1e-6)


def test_without_a_window_there_is_nothing_to_learn() -> None:
    trainee = TrainState("it", build("hidden", losses=TOKENS), CONFIG)
    values = trainee.learn(batch_of(PROBE), Step(index=0, taught=()))
    assert values["ce"] == values["kd"] == values["total"] == 0
    assert not any(p.grad.any() for p in trainee.parameters if p.grad is not None)


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_interrupted_and_resumed_is_never_interrupted(
    share: float,
    data: PackedTokens,  # noqa: F811
    tmp_path: Path,
) -> None:
    def trainees() -> list[TrainState]:
        losses = LossWeights(token_share=share)
        return [TrainState(n, build(n, losses=losses), CONFIG) for n in ("hidden", "regress")]

    whole = run(trainees(), data, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3, "regress")
        with pytest.raises(Stop):
            run(trainees(), data, tmp_path / "parts")
    for one, other in zip(whole, run(trainees(), data, tmp_path / "parts"), strict=True):
        assert_same(one, other)


def test_above_the_state_the_teacher_goes_on_for_some_windows_only() -> None:
    count = len(PROBE.tokens)
    one_pass = Pass(range(count), range(count), PROBE)
    need = Need(frozenset((1, 3)), frozenset([(1,)]))

    def flops(own: Need) -> float:
        return count_flops(lambda: own.lesson(one_pass, backbone()))

    low, one, full = (
        flops(Need(frozenset((1, 3)), frozenset(logits))) for logits in ([], [(1,)], [None])
    )
    assert one - low == pytest.approx((full - low) / count)
    batch = need.lesson(one_pass, backbone())
    torch.testing.assert_close(
        batch.part((1,)).teacher_logits[0], batch_of(PROBE).teacher_logits[1], rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(batch.part((1,)).hidden(3)[0], batch.hidden(3)[1])


def test_flops_of_a_share_lie_on_the_line_between_none_and_all(
    data: PackedTokens,  # noqa: F811
    tmp_path: Path,
) -> None:
    def flops(share: float, **weights: float) -> float:
        losses = LossWeights(token_share=share, **weights)
        trainee = TrainState("hidden", build("hidden", losses=losses), CONFIG)
        run([trainee], data, tmp_path / f"{share}{weights}", steps=8)
        assert trainee.spent.tokens == trainee.spent.counted_tokens == 8 * BATCH * WINDOW
        return trainee.spent.flops

    none, whole = flops(1.0, ce=0.0, kd=0.0), flops(1.0)
    taught = sum(len(taught_places(0.25, BATCH, seed=0, step=s) or ()) for s in range(8))
    expected = none + taught / (8 * BATCH) * (whole - none)
    assert flops(0.25) == pytest.approx(expected)


def test_a_share_is_another_run_and_the_default_is_none(tmp_path: Path) -> None:
    default = RunConfig()
    assert identity(RunConfig(losses=LossWeights(token_share=0.5))) != identity(default)
    assert identity(RunConfig(losses=LossWeights(token_share=1.0))) == identity(default)
    for share in (0.0, 1.5):
        with pytest.raises(UserError, match=r"losses\.token_share=.* must be between"):
            RunConfig(losses=LossWeights(token_share=share))
