"""The embedded default on its real model and real text, with an eighth of its budget."""

import pytest

from dihal_bench import Record, run
from dihal_bench.config.resolve import resolve

pytestmark = pytest.mark.nightly


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    sets = [
        "budget.diffusion_tokens=65536",
        "budget.recovery_tokens=65536",
        "locate.resamples=2",
        "locate.stability_resamples=2",
        "score.tokens=8192",
        "score.chains=2",
    ]
    return run(resolve(values={}, sets=sets), out=tmp_path_factory.mktemp("runs") / "default")


def test_the_bridge_lies_between_its_teacher_and_the_hopeless(record: Record) -> None:
    distances = {
        score.subject: (score.lo, score.hi)
        for score in record.scores
        if score.metric == "nll_minus_interface"
    }
    assert distances["teacher"][1] < 0
    for control in ("ridge", "mean", "identity"):
        assert distances[control][0] > 0, control


def test_every_row_passed_the_gate(record: Record) -> None:
    gates = record.data["gates"]["leak"]
    assert set(gates) == {"hidden", *record.data["interface"]["controls"]}
    assert all(gate["verdict"] == "pass" for gate in gates.values())
