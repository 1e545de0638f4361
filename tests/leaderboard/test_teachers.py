"""Records whose teachers differ stand apart, whatever they differ in."""

import copy

import pytest

from dihal_bench.leaderboard.groups import grouped
from dihal_bench.results.record import Record

from .conftest import Make


def of_another_teacher(record: Record, **moved: float) -> Record:
    """A record whose teacher's sums are moved by so much per token."""
    data = copy.deepcopy(record.data)
    (own,) = [row["sums"] for row in data["sums"]["rows"] if row["subject"] == "teacher"]
    for name, by in moved.items():
        tokens = data["sums"]["tokens"]
        own[name] = [v + by * t for v, t in zip(own[name], tokens, strict=True)]
    return Record.of(data)


@pytest.mark.parametrize("name", ["brier1", "kl", "kl_reverse", "top1"])
def test_teachers_are_compared_in_all_their_scores(make: Make, name: str) -> None:
    other = of_another_teacher(make(seed=3), **{name: 0.1})
    groups = grouped([make(seed=1), make(seed=2), other])
    assert [len(group.all) for group in groups] == [2, 1]
    assert groups[0].setting.reason == ""
    assert name in groups[1].setting.reason


def test_teachers_that_differ_by_arithmetic_are_one(make: Make) -> None:
    other = of_another_teacher(make(seed=3), brier1=1e-4, **{"nll@1": 1e-4})
    assert len(grouped([make(seed=1), make(seed=2), other])) == 1


def test_no_record_is_lost_where_teachers_are_several(make: Make) -> None:
    moved = [{"brier1": 0.006}, {"brier1": -0.006}, {"kl": 0.05}, {"kl": 0.05, "brier1": 0.05}]
    records = [of_another_teacher(make(seed=s), **by) for s, by in enumerate(moved, start=1)]
    groups = grouped([make(seed=9), *records])
    assert sum(len(group.all) for group in groups) == 1 + len(moved)
    assert len({group.name for group in groups}) == len(groups)
