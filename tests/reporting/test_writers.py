"""The one table in every format: numbers, intervals, marks, and text that stays text."""

import csv
import io
import json

import pytest

from dihal_bench.reporting import writers
from dihal_bench.reporting.run_table import run_table
from dihal_bench.results.metrics import NLL
from dihal_bench.results.record import Record
from dihal_bench.results.table import (
    NONE,
    UNCONVERGED,
    Estimate,
    Table,
    TableCell,
    TableRow,
    cell_text,
    differences,
    number,
    numbers,
    words,
)

from .finished import ROWS, content

FIRST = TableCell.of(Estimate(1.25, 1.0, 1.5), UNCONVERGED)
TABLE = Table(
    title="a | title",
    columns=[words("row"), numbers("loss", digits=2), words("said"), numbers("none")],
    rows=[
        TableRow(cells={"row": "one", "loss": FIRST, "said": "<b> | *c*"}),
        TableRow(cells={"row": "two", "role": "control", "loss": 0.5, "none": None}),
    ],
)


@pytest.mark.parametrize(
    ("cell", "column", "shown"),
    [
        (None, numbers("x"), NONE),
        ("undefined", numbers("x"), "undefined"),
        (FIRST, numbers("x", digits=1), "1.2 [1.0, 1.5] ~"),
        (TableCell(1.25, spread=0.125), numbers("x", digits=3), "1.250 ± 0.125"),
        (TableCell(2, among="of 3"), numbers("x", type="integer"), "2 (of 3)"),
        (TableCell(-0.25, -0.5, 0.0), differences("x"), "-0.25 [-0.50, +0.00]"),
        (TableCell(-0.25, -0.5, None), differences("x"), "-0.25"),
    ],
)
def test_a_cell_is_written_with_what_belongs_to_it(cell, column, shown) -> None:
    assert cell_text(cell, column) == shown


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (12345.6, {"type": "tokens"}, "12,346"),
        (1.5e12, {"type": "flops"}, "1.50e+12"),
        (0.256, {"type": "share", "digits": 1}, "25.6%"),
        (0.01234, {"type": "significant", "digits": 2}, "0.012"),
        (-1e-9, {"digits": 2}, "0.00"),  # no minus before nothing
        (-1e-9, {"digits": 2, "signed": True}, "-0.00"),  # but for a side of zero
        (1e-9, {"type": "number", "digits": 2}, "1e-09"),
        (2.5e7, {"digits": 2}, "2.5e+07"),
        (float("nan"), {"digits": 2}, "nan"),
    ],
)
def test_a_number_is_written_as_its_column_says(value, kind, shown) -> None:
    assert number(value, numbers("x", **kind)) == shown


def test_a_column_in_which_nothing_stands_is_left_out_of_text() -> None:
    head, _, first, second = writers.text(TABLE).splitlines()
    assert head.split() == ["row", "loss", "said"]
    assert first.split() == ["one", "1.25", "[1.00,", "1.50]", "~", "<b>", "|", "*c*"]
    assert second.split() == ["·", "two", "0.50", NONE]


def test_markdown_is_safe_and_its_numbers_stand_to_the_right() -> None:
    shown = writers.text(TABLE, "github")
    assert "<b>" not in shown
    assert r"&lt;b&gt; \| \*c\*" in shown
    (rule,) = [line for line in shown.splitlines() if line.startswith(("|--", "|:-"))]
    assert len(rule.strip("|").split("|")) == 3


def test_csv_has_every_column_and_the_ends_of_intervals() -> None:
    first, second = csv.DictReader(io.StringIO(writers.csv(TABLE)))
    assert list(first) == ["row", "loss", "loss_lo", "loss_hi", "loss_flags", "said", "none"]
    assert [float(first[f"loss{end}"]) for end in ("", "_lo", "_hi")] == [1.25, 1.0, 1.5]
    assert (first["loss_flags"], second["loss_flags"], second["loss_lo"]) == (UNCONVERGED, "", "")


def test_pages_get_plain_values() -> None:
    plain = TABLE.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    cells = [row["cells"]["loss"] for row in plain["rows"]]
    assert cells == [{"value": 1.25, "lo": 1.0, "hi": 1.5, "flags": [UNCONVERGED]}, 0.5]


def test_a_table_of_things_has_a_cell_per_column_and_thing() -> None:
    table = Table.of([2, 3], (numbers("x"), lambda n: n), (words("y"), lambda n: str(n * n)))
    assert [row.cells for row in table.rows] == [{"x": 2, "y": "4"}, {"x": 3, "y": "9"}]


def test_metrics_of_first_tokens_say_so() -> None:
    changed = [{**one, "metric": f"first_token_{NLL.key}"} for one in ROWS]
    record = Record.of(content(scores=changed))
    table = run_table(record.own_scores, ["teacher", "hidden", "regress", "ridge"])
    assert "first-token NLL" in {column.title for column in table.used}
