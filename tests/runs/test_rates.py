"""The plan of a run: its parts are there, and follow what was timed."""

import json

import pytest
import torch

from dihal_bench.cli.main import main
from dihal_bench.evaluation.likelihood import TRUE, Row
from dihal_bench.runs.cost_estimate import Rater, cost_of
from dihal_bench.runs.rates import Scoring, rates_of
from dihal_bench.runs.timing import Timer, Work, count

from ..conftest import Tiny, dihal
from .test_cost_estimate import job

PARTS = {
    *("locate", "statistics", "training", "gate", "scoring", "recovery", "scores on the way"),
}


class EachOne(Timer):
    """Every piece of work takes one second, whatever it is; it is done once, to see that it can."""

    def time(self, work, *, tokens=0, memory=False):
        found = count(work) if self.counts else work()
        own = Work(seconds=1.0, tokens=tokens, peak=float(memory))
        return own + found if self.counts else own


@pytest.fixture
def steady(monkeypatch):
    def own(device, *, counts=False):
        return EachOne(device, lambda: 0.0, counts)

    monkeypatch.setattr(Timer, "on", own)


def test_the_parts_of_a_run_add_up(tiny: Tiny, tmp_path, steady) -> None:
    own = job(tiny, tmp_path, "layer=1")
    cost = cost_of([[own]], Rater([own]))
    assert set(cost.parts) == PARTS
    assert cost.work.seconds == pytest.approx(sum(w.seconds for w in cost.parts.values()))
    assert set(cost.memory) == {"locate", "statistics", "training", "gate", "scoring"}
    assert all(own["weights"] == cost.memory["gate"]["weights"] for own in cost.memory.values())


def test_training_is_as_long_as_what_was_timed(tiny: Tiny, tmp_path, steady) -> None:
    """1,024 tokens are 32 windows in 8 steps: of a teacher, and of two that learn and update."""
    own = job(tiny, tmp_path, "layer=1", "controls=regress")
    rates = rates_of(own, EachOne(torch.device("cpu"), lambda: 0.0))
    (phase,) = rates.phases.values()
    assert set(phase.learn) == {"hidden", "regress"}
    each = phase.teacher.seconds + sum(work.seconds for work in phase.learn.values())
    cost = cost_of([[own]], Rater([own]))
    assert cost.parts["training"].seconds == pytest.approx(32 * each + 8 * 2 * 1.0)


def test_runs_of_one_pass_have_one_teacher(tiny: Tiny, tmp_path, steady) -> None:
    jobs = [job(tiny, tmp_path, f"layer={layer}", "controls=") for layer in (1, 2)]
    rater = Rater(jobs)
    apart, together = cost_of([[own] for own in jobs], rater), cost_of([jobs], rater)
    rates, _ = rater.of(jobs[0])
    taught = 32 * rates.phases["diffusion"].teacher.seconds
    difference = apart.parts["training"].seconds - together.parts["training"].seconds
    assert difference == pytest.approx(taught)
    assert rater.remarks() == ["timed at layer 2 alone, of 1 to 2"]


def test_a_row_has_as_many_evaluations_as_steps_and_chains() -> None:
    second = Work(seconds=1.0)
    own = Scoring(fixed=second, evaluation=10 * second, recovery=100 * second)
    assert own.row(Row(subject="it", steps=4, chains=3)).seconds == 1 + 3 * (4 * 10 + 100)
    assert own.row(Row(subject="it", steps=0, signal=TRUE)).seconds == 100


def test_a_dry_run_says_parts_and_a_gpu(tiny: Tiny, steady) -> None:
    flags = [*tiny.flags(), "--layer", "1", "--dry-run", "--json"]
    status, out, _ = dihal("run", *flags, "--for", "h100")
    plan = json.loads(out)
    assert status == 0
    assert set(plan["cost"]["seconds"]) == PARTS
    assert all(seconds > 0 for seconds in plan["cost"]["seconds"].values())
    assert plan["cost"]["estimate"]["measured"] is False
    assert plan["cost"]["estimate"]["seconds"] > 0
    assert "not measured" in plan["summary"]["on one H100"]
    assert plan["config"]["dtype"] == "bfloat16"


def test_a_gpu_is_asked_for_beside_a_plan(tiny: Tiny, capsys) -> None:
    assert main(["run", *tiny.flags(), "--for", "h100"]) == 2
    assert "--dry-run" in capsys.readouterr().err
    assert main(["run", *tiny.flags(), "--dry-run", "--for", "abacus"]) == 2
    assert "--for abacus" in capsys.readouterr().err
