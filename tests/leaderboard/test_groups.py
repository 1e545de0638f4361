"""Which runs share a table, what tables and rows are called, and which table comes first."""

import copy
from collections.abc import Iterable

from dihal_bench.leaderboard.board import board_of
from dihal_bench.leaderboard.groups import Group, grouped
from dihal_bench.leaderboard.render import headline
from dihal_bench.results.record import Record

from .conftest import Make, configured, reseed

TITLE = "tiny, causal, 1,024 diffusion tokens"


def in_bfloat16(record: Record, seed: int = 0) -> Record:
    data = copy.deepcopy(record.data)
    data["config"]["dtype"] = "bfloat16"
    for score in data["scores"]:
        score["dtype"] = "bfloat16"
    reseed(data, seed)
    data["run"] = f"{data['interface']['name']}-b{seed}"
    return Record.of(data)


def names(groups: Iterable[Group]) -> dict[str, str]:
    return {group.setting.dtype: group.name for group in groups}


def test_titles_say_what_tells_tables_apart_and_files_keep_their_names(make: Make) -> None:
    alone = grouped([make()])
    both = grouped([make(), in_bfloat16(make())])
    plain = alone[0].title
    assert "float32" not in plain
    assert [group.title for group in both] == [f"{plain}, in bfloat16", f"{plain}, in float32"]
    assert names(alone).items() < names(both).items()
    assert len(set(names(both).values())) == 2
    outside = make(run="hidden-over", budget={**make().data["budget"], "within": False})
    within, over = grouped([make(), outside])
    assert (within.title, over.title) == (plain, f"{plain}, outside its budget")


def test_who_has_less_to_compare_does_not_come_first(make: Make) -> None:
    known = [make(name, seed=seed) for name in ("hidden", "embedding") for seed in range(3)]
    intruder = in_bfloat16(make("embedding"))
    small = configured(make(), 0, budget__diffusion_tokens=16)
    small.data["budget"]["diffusion_tokens"] = 16
    first, *rest = grouped([intruder, small, *known])
    assert len(first.all) == len(known)
    assert [len(group.all) for group in rest] == [1, 1]
    said = headline(board_of([intruder, small, *known], []))
    assert first.title in said
    assert said.count("\n| hidden (0, 2] ") == 2  # in one step, and in four


def test_rows_of_three_seeds_count_more_than_many_runs(make: Make) -> None:
    known = [make(seed=seed) for seed in range(3)]
    many = [in_bfloat16(configured(make(), 0, losses__ce=own / 10)) for own in range(1, 6)]
    for place, record in enumerate(many):
        record.data["run"] = f"hidden-m{place}"
    first, second = grouped([*many, *known])
    assert (first.setting.dtype, second.setting.dtype) == ("float32", "bfloat16")
    assert (len(first.all), len(second.all)) == (3, 5)


def test_a_label_names_no_more_settings_than_a_reader_takes_in(make: Make) -> None:
    changes = {f"losses__{'x' * 200}{place:04}": 1 for place in range(1000)}
    (group,) = grouped([make(), configured(make(), 0, **changes)])
    plain, long = group.records
    assert plain == "hidden (0, 2]"
    assert long.count(", ") == 1 + 4 + 1
    assert "996 more settings #" in long
    assert len(long) < 400


def test_the_first_of_one_seed_is_the_one_that_was_made_first(make: Make) -> None:
    """Also where its time, in another zone, comes after as text."""
    times = {"early": "2026-03-02T01:00:00+05:00", "late": "2026-03-01T23:00:00+00:00"}
    records = []
    for name, created in times.items():
        own = copy.deepcopy(make().data) | {"created": created, "run": f"hidden-{name}"}
        reseed(own, 7)
        if name == "late":
            for row in (row for row in own["sums"]["rows"] if row["chains"] > 1):
                row["sums"] = {metric: [v * 1.01 for v in s] for metric, s in row["sums"].items()}
        records.append(Record.of(own))
    (group,) = grouped(records)
    (label,) = (label for label, own in group.all if own.data["run"] == "hidden-early")
    assert label == "hidden (0, 2]"
