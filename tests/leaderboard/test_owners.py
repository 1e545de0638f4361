"""Which interfaces a row stands beside, and in what order its trainings are named."""

import copy

from dihal_bench.leaderboard.groups import grouped
from dihal_bench.leaderboard.tables import likelihood_table
from dihal_bench.leaderboard.tasks import task_tables
from dihal_bench.results.record import Record

from .conftest import Make, told


def test_a_control_that_came_out_the_same_is_of_all_its_interfaces(make: Make) -> None:
    elsewhere = copy.deepcopy(make().data)
    elsewhere["interface"]["from"], elsewhere["layer"] = 2, 4
    elsewhere["backbone"]["blocks"] = 40
    elsewhere["run"] = "hidden-2"
    (group,) = grouped([make(), Record.of(elsewhere), make("embedding")])
    both = ["hidden (0, 2]", "hidden (2, 4]"]
    rows = likelihood_table(group).to_dict()["rows"]
    owners = [(row["cells"]["row"], row["owners"]) for row in rows]
    assert dict(owners)["teacher"] == []
    assert [own for name, own in owners if name == "regress"] == [both]
    assert [own for name, own in owners if name == "lm"] == [["embedding (0, 4]"]]
    for row in rows:
        if row["cells"]["role"] == "interface":
            assert row["owners"] == [row["cells"]["row"]]


def test_trainings_of_a_task_are_named_in_the_order_of_their_seeds(make: Make) -> None:
    records = [told(make(), 40.0, seed) for seed in (12, 7, 3)]
    (table,) = task_tables(grouped(records)[0])
    (row,) = table.rows
    assert row.runs == [record.data["id"] for record in reversed(records)]
    assert row.owners == ["hidden (0, 2]"]
