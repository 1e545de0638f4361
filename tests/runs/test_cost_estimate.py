"""What work will cost: counted once where it is done once, and said as a person says it."""

import pytest

from dihal_bench.config.resolve import resolve
from dihal_bench.runs import cost_estimate
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.cost_estimate import CostEstimate, cost_of, duration

from ..conftest import SETTINGS, Tiny


def job(tiny: Tiny, tmp_path, *sets: str) -> RunContext:
    values = {"backbone": str(tiny.backbone), "corpus": str(tiny.corpus), "controls": ()}
    usual = [f"{key}={value}" for key, value in SETTINGS.items()]
    return RunContext(resolve(values=values, sets=[*usual, *sets]), tmp_path)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (89, "89 s"),
        (120, "2 min"),
        (3600, "60 min"),
        (2.5 * 3600, "2.5 hours"),
        (47 * 3600, "47.0 hours"),
        (936275 * 60, "650 days"),
        (1e9, "11,574 days"),
    ],
)
def test_a_time_has_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_costs_add_up_but_for_memory() -> None:
    one = CostEstimate(tokens=1, training=2.0, flops=3.0, timed=1.0, measured=4.0, memory=5.0)
    tens = {"tokens": 10, "training": 20.0, "flops": 30.0, "timed": 10.0, "measured": 40.0}
    both = one + CostEstimate(**tens, memory=3.0)
    summed = {"tokens": 11, "training": 22.0, "flops": 33.0, "timed": 11.0, "measured": 44.0}
    assert both == CostEstimate(**summed, memory=5.0)
    assert both.seconds(speed=11.0) == 2.0 + 44.0


def test_runs_of_one_group_share_the_teachers_pass(tiny: Tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cost_estimate, "pass_seconds", lambda *_, **__: 7.0)
    jobs = [job(tiny, tmp_path, f"layer={layer}") for layer in (1, 2)]
    apart, together = cost_of([[own] for own in jobs]), cost_of([jobs])
    passed = 2 * jobs[0].inputs.backbone.info.parameters * 1024
    assert apart.tokens == together.tokens == 2 * 1024
    assert apart.training - together.training == passed
    assert apart.flops - together.flops == passed
    assert apart.measured == together.measured == cost_of([jobs[:1]]).measured  # located once


def test_what_is_trained_alike_is_trained_once(tiny: Tiny, tmp_path) -> None:
    one, other = (job(tiny, tmp_path, f"score.chains={count}") for count in (2, 4))
    assert cost_of([[one], [other]]).tokens == cost_of([[one]]).tokens == 1024
    seeded = job(tiny, tmp_path, "seed=1")
    assert cost_of([[one], [seeded]]).tokens == 2 * 1024
