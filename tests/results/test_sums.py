"""Sums of a record that are none: incomplete, impossible, or of somebody who had no part."""

import copy
from typing import Any

import pytest

from dihal_bench.core.errors import UserError
from dihal_bench.results.record import Record, validate

from .content import CONTENT, TEACHER, row

HIDDEN = row("hidden", 16, 8)
OWN = row("teacher", 1, 1)


def with_rows(*rows: dict[str, Any], **sums: Any) -> dict[str, Any]:
    """A sealed record with other rows of sums."""
    content = copy.deepcopy(CONTENT)
    content["sums"] |= {"rows": list(rows), **sums}
    return Record.of(content).data


def lacking(own: dict[str, Any], name: str) -> dict[str, Any]:
    return {**own, "sums": {key: value for key, value in own["sums"].items() if key != name}}


def test_what_can_be_is_taken() -> None:
    rounded = row("hidden", 16, 8, kl=[-1e-5, 0.0], brier1=[600.0001, -400.0001])
    validate(with_rows(rounded, OWN), "here.json")
    validate(with_rows(row("hidden", 16, 8, other=[-1.0, 5.0]), OWN), "here.json")


@pytest.mark.parametrize("name", HIDDEN["sums"])
def test_every_sum_of_a_row_is_needed(name: str) -> None:
    with pytest.raises(UserError, match=rf"rows\[0\]\.sums: the field {name} is missing"):
        validate(with_rows(lacking(HIDDEN, name), OWN), "here.json")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("brier1", [601.0, 4.0]),
        ("brier1", [6.0, -401.0]),
        ("top1", [0.0, 402.0]),
        ("top1_chain", [-1.0, 0.0]),
        ("kl", [-1.0, 0.0]),
        ("kl_reverse", [0.0, -1.0]),
        ("kl_chain", [1e308, 0.0]),
        ("nll@1", [-1.0, 1602.0]),
        ("nll@4", [1e308, 1e308]),
        ("other", [1e308, 0.0]),
    ],
)
def test_what_no_tokens_add_up_to_is_named(name: str, values: list[float]) -> None:
    with pytest.raises(UserError, match=rf"here.json: sums.rows\[0\].sums.{name}: .* is no sum of"):
        validate(with_rows(row("hidden", 16, 8, **{name: values}), OWN), "here.json")


@pytest.mark.parametrize("name", ["kl", "kl_reverse", "kl_chain", "top1_chain"])
def test_the_teacher_is_like_itself(name: str) -> None:
    with pytest.raises(UserError, match=rf"sums.rows\[1\].sums.{name}: .* is no sum of"):
        validate(with_rows(HIDDEN, row("teacher", 1, 1, **{name: [200.0, 100.0]})), "here.json")


@pytest.mark.parametrize(
    ("rows", "sums", "said"),
    [
        ([HIDDEN], {}, "rows must have one row of the teacher, S=1 and K=1"),
        ([HIDDEN, row("teacher", 1, 2)], {}, "rows must have one row of the teacher, S=1 and K=1"),
        ([OWN], {}, "rows has no row of hidden, which took part"),
        ([{**HIDDEN, "chains": 6}, OWN], {}, "chains is 6, .* power of two"),
        ([{**HIDDEN, "chains": 0}, OWN], {}, "chains is 0, .* power of two"),
        ([{**HIDDEN, "steps": -1}, OWN], {}, "steps is -1"),
        ([{**HIDDEN, "signal": "loud"}, OWN], {}, "signal is 'loud', which there is not"),
        ([{**HIDDEN, "subject": ["x"]}, OWN], {}, "the field subject has the wrong type"),
        (
            [row("hidden", 16, 8, **{"nll@16": [1.0, 1.0]}), OWN],
            {},
            "'nll@16' is the name of no sum of such a row",
        ),
        ([HIDDEN, OWN], {"words": [1e308, 1.0]}, r"\.words: a count is larger than any text"),
        ([HIDDEN, OWN], {"tokens": [600.5, 400.0]}, r"\.tokens: a count is no whole number"),
        (5, {}, "the field rows is no list"),
    ],
)
def test_rows_that_are_not_those_of_a_run_are_named(rows: Any, sums: Any, said: str) -> None:
    content = copy.deepcopy(CONTENT)
    content["sums"] |= {"rows": rows, **sums}
    with pytest.raises(UserError, match=rf"here\.json: sums.*{said}"):
        validate(Record.of(content).data, "here.json")


def test_a_control_without_rows_is_named() -> None:
    content = copy.deepcopy(CONTENT)
    content["interface"]["controls"] = ["regress"]
    with pytest.raises(UserError, match="rows has no row of regress, which took part"):
        validate(Record.of(content).data, "here.json")


def test_more_parts_than_a_record_has_are_refused() -> None:
    content, parts = copy.deepcopy(CONTENT), 1025
    content["sums"] = {"documents": parts, "rows": content["sums"]["rows"]}
    content["sums"] |= {name: [1.0] * parts for name in ("tokens", "words", "bytes")}
    with pytest.raises(UserError, match="documents is 1025, of 1025 parts"):
        validate(Record.of(content).data, "here.json")


def test_a_row_needs_a_score_on_the_runs_own_text() -> None:
    content = copy.deepcopy(CONTENT)
    content["tasks"] = {"more": {"key": "k", "rows": []}}
    content["scores"][1] = {**TEACHER.to_dict(), "task": "more"}
    with pytest.raises(UserError, match="sums has a row of teacher that no score is of"):
        validate(Record.of(content).data, "here.json")
