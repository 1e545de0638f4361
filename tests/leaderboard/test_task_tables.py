"""Tables of what runs were scored on besides their own text."""

import re
from pathlib import Path

import numpy as np
import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.leaderboard.groups import grouped
from dihal_bench.leaderboard.tables import likelihood_table
from dihal_bench.leaderboard.tasks import task_tables
from dihal_bench.reporting import writers
from dihal_bench.results.record import Record

from .conftest import Make, told


def test_tasks_have_tables_of_their_own(make: Make) -> None:
    values = [40.0, 44.0, 42.0]
    records = [told(make(), value, seed, ("one-word",)) for seed, value in enumerate(values)]
    (group,) = grouped(records)
    (table,) = task_tables(group)
    (own,) = table.to_dict()["rows"]
    found = own["cells"]["metric:gen_ppl"]
    half = np.hypot(4.302652729696142 * 2 / np.sqrt(3), 1.0)
    assert found["value"] == pytest.approx(42.0)
    assert (found["lo"], found["hi"]) == pytest.approx((42 - half, 42 + half))
    assert found["flags"] == ["fooled"]
    assert "gen_ppl is won by one-word." in table.legend
    assert own["cells"]["metric:entropy"]["lo"] == 4.2
    better = {column.key: column.better for column in table.columns}
    assert (better["metric:gen_ppl"], better["metric:entropy"]) == ("lower", None)
    assert "42.0 [36.9, 47.1] *" in writers.markdown(table)
    metrics = [key for key in better if key.startswith("metric:")]
    assert metrics == ["metric:entropy", "metric:gen_ppl"]  # what is fooled comes last
    assert len(likelihood_table(group).rows) > 1  # and the rest is where it was


def test_rows_without_a_model_stand_in_the_table(make: Make, tmp_path: Path) -> None:
    records = [told(make(), 40.0, seed, ("loop",)) for seed in range(3)]
    measures = {"gen_ppl": {"value": 2.0, "lo": 1.0, "hi": 3.0, "n": 7, "unit": "per token"}}
    single = {"entropy": {"value": 4.0, "lo": None, "hi": None, "n": 7}}
    audit = {
        "data": {**measures, **single, "unknown": measures["gen_ppl"]},
        "impostors": [
            {"name": "loop", "kind": "periodic", "published": True, "measures": measures},
            {"name": "other", "kind": "periodic", "published": False, "measures": measures},
        ],
    }
    audited = [Record.of({**one.data, "audits": {"samples": audit}}) for one in records]
    (table,) = task_tables(grouped(audited)[0])
    assert [row["cells"]["row"] for row in table.to_dict()["rows"]] == [
        "real text",
        "hidden (0, 2]",
        "loop",
    ]
    assert [row["cells"]["role"] for row in table.to_dict()["rows"]] == [
        "reference",
        "interface",
        "no model",
    ]
    real, _, loop = (row["cells"] for row in table.to_dict()["rows"])
    assert real["metric:gen_ppl"] == {"value": 2.0, "lo": 1.0, "hi": 3.0, "flags": ["fooled"]}
    assert real["metric:entropy"] == {"value": 4.0, "flags": []}
    assert "metric:entropy" not in loop
    shown = writers.markdown(table)
    assert re.search(r"^\| real text +\|.* 2\.0 \[1\.0, 3\.0\] \* +\|", shown, re.MULTILINE)
    assert re.search(r"^\| · loop +\|", shown, re.MULTILINE)
    broken = {**audit, "impostors": [{**audit["impostors"][0], "measures": {"<b>": {}}}]}
    with pytest.raises(UserError, match=r"audits\.samples\.impostors"):
        Record.of({**records[0].data, "audits": {"samples": broken}}).write(tmp_path / "it")


def test_what_is_below_the_teachers_frontier_fools_the_perplexity_at_an_entropy(make: Make) -> None:
    data = told(make(), 40.0, 0).data
    score = next(own for own in data["scores"] if own["metric"] == "gen_ppl")
    scores = [*data["scores"], {**score, "metric": "gen_ppl_at_entropy"}]
    one = {"lo": None, "hi": None, "n": 7}

    def flags(perplexity: float, row: str = "teacher") -> list[str]:
        measures = {"entropy": {**one, "value": 4.5}, "gen_ppl": {**one, "value": perplexity}}
        audit = {
            "frontier": [
                {"row": row, "temperature": t, "entropy": 4 + t, "gen_ppl": 10.0 ** (1 + 2 * t)}
                for t in (1.0, 0.0)
            ],
            "impostors": [{"name": "repeats", "published": False, "measures": measures}],
        }
        record = Record.of({**data, "scores": scores, "audits": {"samples": audit}})
        (table,) = task_tables(grouped([record])[0])
        found = table.to_dict()["rows"][0]["cells"]["metric:gen_ppl_at_entropy"]["flags"]
        assert ("gen_ppl_at_entropy is won by repeats." in table.legend) == bool(found)
        return list(found)

    assert flags(99.0) == ["fooled"]  # the teacher has 100 there
    assert flags(101.0) == []
    assert flags(99.0, row="hidden S=4") == []


def test_samples_of_other_numbers_share_no_table(make: Make) -> None:
    first, other = (told(make(), 40.0, seed) for seed in (1, 2))
    fewer = Record.of({**other.data, "tasks": {"samples": {"key": "limited", "rows": []}}})
    assert len(task_tables(grouped([first, other])[0])) == 1
    tables = task_tables(grouped([first, fewer])[0])
    assert [len(table.rows) for table in tables] == [1, 1]
    assert len({table.id for table in tables}) == 2
