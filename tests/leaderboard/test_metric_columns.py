"""A metric that is declared has its columns everywhere, and one that is not spoils nothing."""

import copy
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.evaluation.document_sums import from_plain
from dihal_bench.leaderboard.groups import grouped
from dihal_bench.leaderboard.tables import likelihood_table
from dihal_bench.leaderboard.verify import _known, verify
from dihal_bench.reporting import writers
from dihal_bench.reporting.comparison_table import Tables, show
from dihal_bench.reporting.hub.scores import tables
from dihal_bench.reporting.run_table import run_table
from dihal_bench.results.metrics import METRICS, TOP1
from dihal_bench.results.record import Record
from dihal_bench.studies.comparison.plan import BLOCKS
from dihal_bench.studies.comparison.pool import SeedPool

GOLDEN = Path(__file__).parents[1] / "golden" / "v3" / "records"
TOP5 = replace(TOP1, key="top5", title="top-5", since=4, brief=True)


@pytest.fixture(scope="module")
def plain() -> Record:
    return Record.read(next(GOLDEN.glob("hidden-00bcc14fa3a1-*.json")))


@pytest.fixture
def newer(plain: Record, registries: None) -> Record:
    """A record with the sums and scores of a metric that records of its version need not have."""
    METRICS.register(TOP5)
    data = copy.deepcopy(plain.data)
    for row in data["sums"]["rows"]:
        for end in ("", "_chain"):
            row["sums"][f"top5{end}"] = row["sums"][f"top1{end}"]
    record = Record.of(data)
    found = _known(record, from_plain(data["sums"])).values()
    data["scores"] += [asdict(score) for score in found if score.metric == "top5"]
    return Record.of(data)


def _shown(record: Record) -> dict[str, str]:
    """What a record looks like everywhere."""
    own = record.data["interface"]
    (group,) = grouped([record])
    table = likelihood_table(group)
    pool = SeedPool.gather([(own["name"], record)])
    block = next(iter(BLOCKS))
    order = ["teacher", own["name"], *own["controls"]]
    return {
        "run": writers.text(run_table(record.own_scores, order)),
        "comparison": show({block: Tables.of(pool, block, resamples=50)}),
        "markdown": writers.markdown(table),
        "csv": writers.csv(table).replace("top5", "top-5"),
        "latex": writers.latex(table),
        "card": "\n".join(tables(record)),
    }


def test_a_metric_has_its_columns(newer: Record) -> None:
    assert not verify(newer).unknown
    assert [name for name, shown in _shown(newer).items() if "top-5" not in shown] == []


@pytest.mark.usefixtures("registries")
def test_a_record_without_it_is_as_before(plain: Record) -> None:
    before = _shown(plain)
    METRICS.register(TOP5)
    verify(plain)
    after = _shown(plain)
    for name in ("run", "markdown", "csv", "latex"):
        assert after[name] == before[name], name


def test_its_scores_follow_from_its_sums(newer: Record) -> None:
    data = copy.deepcopy(newer.data)
    data["scores"][-1]["value"] -= 0.01
    with pytest.raises(UserError, match=r"\.value \(.* top5\) is .*, and its sums say"):
        verify(Record.of(data))
    del data["scores"][-1]
    with pytest.raises(UserError, match="scores has no top5 of"):
        verify(Record.of(data))


def test_one_that_is_not_declared_is_read_and_named(newer: Record, registries: None) -> None:
    from dihal_bench.core.registry import METRICS as REGISTRY

    del REGISTRY._entries["top5"]
    assert verify(newer).unknown == {"top5", "top5_chain"}
    assert "top-5" not in "".join(_shown(newer).values())


def test_a_value_that_no_such_metric_has_is_refused(plain: Record) -> None:
    data = copy.deepcopy(plain.data)
    score = {**data["scores"][0], "task": "samples", "metric": "mauve", "value": 1.5, "lo": None}
    data["scores"].append({**score, "hi": None, "kind": "estimate", "details": {}})
    data["tasks"] = {**data.get("tasks", {}), "samples": {"key": "k", "rows": []}}
    with pytest.raises(UserError, match=r"mauve\) is 1\.5, and it is from 0 to 1"):
        verify(Record.of(data))
