"""What is declared of a metric once: checks, sums and columns follow from it."""

import copy
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import METRICS as REGISTRY
from dihal_bench.core.registry import Registry, include
from dihal_bench.evaluation.token_scores import token_scores
from dihal_bench.results.metric import Metrics
from dihal_bench.results.metrics import BRIER1, KL, METRICS, NLL, TOP1, Metric, Shown
from dihal_bench.results.record import Record, validate
from dihal_bench.results.schema import SCHEMA

from .content import CONTENT, row

HIDDEN, OWN = row("hidden", 16, 8), row("teacher", 1, 1)
TOP5 = replace(TOP1, key="top5", title="top-5", since=None)
FILE = """
from dihal_bench.results.metrics import METRICS, Metric

METRICS.register(Metric("mine", "Mine", "a user's own", unit="share"))
"""


def with_rows(**sums: list[float]) -> dict[str, Any]:
    """A sealed record whose interface has further sums."""
    content = copy.deepcopy(CONTENT)
    content["sums"]["rows"] = [row("hidden", 16, 8, **sums), OWN]
    return Record.of(content).data


@pytest.mark.usefixtures("registries")
def test_two_metrics_of_one_key_are_refused_naming_both_places() -> None:
    METRICS.register(TOP5)
    with pytest.raises(UserError) as caught:
        METRICS.register(replace(TOP5, title="another"))
    here = Path(__file__).resolve()
    lines = here.read_text(encoding="utf-8").splitlines()
    first = 1 + next(i for i, line in enumerate(lines) if "METRICS.register(TOP5)" in line)
    assert f"metric 'top5' is registered twice, at {here}:{first} and at {here}:{first + 2}" in str(
        caught.value
    )


def test_an_unknown_metric_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="no metric called 'brier'; did you mean 'brier"):
        METRICS["brier"]
    named = METRICS.named("first_token_brier,none", "score")
    assert (named.key, named.known, named.better) == ("brier", False, None)
    assert METRICS.named("first_token_nll") is NLL
    assert METRICS.named("kl,none") is KL


def test_sums_are_named_by_size() -> None:
    assert NLL.sums(4) == ["nll@1", "nll@2", "nll@4"]
    assert NLL.sizes(["nll@4", "kl", "nll@1"]) == [1, 4]
    assert [KL.sum_of(size, 4) for size in (1, 2, 4)] == ["kl_chain", "", "kl"]
    assert [BRIER1.sum_of(size, 4) for size in (1, 2, 4)] == ["", "", "brier1"]


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("since", [None, SCHEMA + 1])
def test_a_metric_newer_than_a_record_may_be_absent(since: int | None) -> None:
    METRICS.register(replace(TOP5, since=since))
    validate(with_rows(), "here.json")
    validate(with_rows(top5=[600.0, 400.0]), "here.json")


@pytest.mark.usefixtures("registries")
def test_a_promised_metric_cannot_be_left_out() -> None:
    METRICS.register(replace(TOP5, since=SCHEMA))
    with pytest.raises(UserError, match=r"rows\[0\]\.sums: the field top5 is missing"):
        validate(with_rows(), "here.json")


@pytest.mark.usefixtures("registries")
def test_the_range_of_a_declared_metric_holds_for_its_sums() -> None:
    beyond = with_rows(top5=[600.0, 402.0])
    validate(beyond, "here.json")  # of what is not declared nothing is known
    METRICS.register(TOP5)
    with pytest.raises(UserError, match=r"sums\.top5: 402 is no sum of 400 tokens"):
        validate(beyond, "here.json")


@pytest.mark.usefixtures("registries")
def test_an_included_file_may_declare_a_metric(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE, encoding="utf-8")
    include(path)
    include(path)  # once is enough
    assert METRICS["mine"].title == "Mine"
    assert REGISTRY.origin("mine") == f"{path.resolve()}:4"


@pytest.mark.usefixtures("registries")
def test_a_plug_in_may_declare_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = ModuleType("a_plugin")
    plugin.TOP5, plugin.OTHER = replace(TOP5), 5  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "a_plugin", plugin)

    def found(**points: str) -> Metrics:
        own = [
            metadata.EntryPoint(name, f"a_plugin:{value}", "dihal_bench.things")
            for name, value in points.items()
        ]
        monkeypatch.setattr("dihal_bench.core.registry.metadata.entry_points", lambda group: own)
        return Metrics(Registry("thing", ()))

    assert [metric.key for metric in found(top5="TOP5")] == ["top5"]
    with pytest.raises(UserError, match=r"metric 'top6' is .*, which is no Metric of that key"):
        list(found(top6="TOP5"))
    with pytest.raises(UserError, match=r"metric 'top5' is .*, which is no Metric of that key"):
        list(found(top5="OTHER"))


@pytest.mark.usefixtures("registries")
def test_a_metric_may_bring_what_computes_it() -> None:
    def second_best(log_q: torch.Tensor, teacher: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        """Share of places whose two likeliest tokens have the teacher's first."""
        return (log_q.topk(2).indices == teacher.argmax(-1, keepdim=True)).any(-1)

    assert TOP1.mean is not None
    mean = replace(TOP1.mean, compute=second_best)
    METRICS.register(Metric("top2", "top-2", "two likeliest", unit="share", mean=mean))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 50, 7, generator=generator)
    teacher, *chains = torch.log_softmax(logits, -1)
    found = token_scores(iter(chains), teacher, torch.zeros(50, dtype=torch.int64))
    single = np.mean([second_best(c, teacher, c).double().mean() for c in chains])
    assert float(found["top2_chain"].mean()) == pytest.approx(single)
    assert (found["top2"] >= found["top1"]).all()
    assert METRICS.sums(2).keys() == found.keys()  # all that is promised, and no other


def test_every_metric_says_what_it_is() -> None:
    for metric in METRICS:
        assert metric.help
        assert metric.unit
        assert metric.range[0] < metric.range[1]
        assert metric.better in ("higher", "lower", None)
    columns = [metric.name for metric in METRICS.shown_in(Shown.LEADERBOARD)]
    assert len(set(columns)) == len(columns)
