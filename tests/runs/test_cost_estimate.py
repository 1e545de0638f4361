"""What work will cost: counted once where it is done once, and said as a person says it."""

import pytest

from dihal_bench.config.resolve import resolve
from dihal_bench.runs import cost_estimate
from dihal_bench.runs.context import RunContext
from dihal_bench.runs.cost_estimate import CostEstimate, cost_of, duration
from dihal_bench.runs.timing import Work

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
    parts, memory = {"locate": Work(seconds=4.0)}, {"locate": {"states": 5.0}}
    one = CostEstimate(tokens=1, training=2.0, flops=3.0, parts=parts, memory=memory)
    parts = {"locate": Work(seconds=40.0), "gate": Work(seconds=2.0)}
    memory = {"locate": {"states": 3.0}, "gate": {"logits": 1.0, "weights": 5.0}}
    both = one + CostEstimate(tokens=10, training=20.0, flops=30.0, parts=parts, memory=memory)
    assert (both.tokens, both.training, both.flops) == (11, 22.0, 33.0)
    assert {name: work.seconds for name, work in both.parts.items()} == {"locate": 44, "gate": 2}
    assert both.work.seconds == 46
    assert both.memory == {"locate": {"states": 5.0}, "gate": {"logits": 1.0, "weights": 5.0}}
    assert both.peak == 6.0


def test_runs_of_one_group_share_the_teachers_pass(tiny: Tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cost_estimate, "pass_seconds", lambda *_, **__: 7.0)
    jobs = [job(tiny, tmp_path, f"layer={layer}") for layer in (1, 2)]
    apart, together = cost_of([[own] for own in jobs]), cost_of([jobs])
    passed = 2 * jobs[0].inputs.backbone.info.parameters * 1024
    assert apart.tokens == together.tokens == 2 * 1024
    assert apart.training - together.training == passed
    assert apart.flops - together.flops == passed
    assert apart.parts == together.parts == cost_of([jobs[:1]]).parts  # located once


def test_what_is_trained_alike_is_trained_once(tiny: Tiny, tmp_path) -> None:
    one, other = (job(tiny, tmp_path, f"score.chains={count}") for count in (2, 4))
    assert cost_of([[one], [other]]).tokens == cost_of([[one]]).tokens == 1024
    seeded = job(tiny, tmp_path, "seed=1")
    assert cost_of([[one], [seeded]]).tokens == 2 * 1024
