"""Which rows stand together, and what the tables say of them."""

import copy
import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.core.markdown import escaped
from dihal_bench.leaderboard import figures
from dihal_bench.leaderboard.board import Board, board_of
from dihal_bench.leaderboard.groups import grouped
from dihal_bench.leaderboard.tables import facts, likelihood_table
from dihal_bench.reporting import writers
from dihal_bench.results.record import Record
from dihal_bench.results.table import Table

from .conftest import Make, configured

HIDDEN, EMBEDDING = "hidden (0, 2]", "embedding (0, 4]"
HOSTILE = '<script>alert(1)</script> | `x` $y$ [a](b) {c} \\input{d} "e"'


def shifted(record: Record, by: float) -> Record:
    """A record whose rows all have another Brier-1, and otherwise the same sums."""
    data = copy.deepcopy(record.data)
    for row in data["sums"]["rows"]:
        if row["subject"] == data["interface"]["name"]:
            tokens = data["sums"]["tokens"]
            row["sums"]["brier1"] = [
                b + by * t for b, t in zip(row["sums"]["brier1"], tokens, strict=True)
            ]
    return Record.of(data)


def row(table: Table, name: str, steps: int = 4, chains: int = 2) -> dict[str, Any]:
    (found,) = [
        r["cells"]
        for r in table.to_dict()["rows"]
        if (r["cells"]["row"], r["cells"]["steps"], r["cells"]["chains"]) == (name, steps, chains)
    ]
    return found


def test_runs_of_one_budget_stand_together_seed_by_seed(make: Make) -> None:
    records = [make(name, seed=seed) for name in ("embedding", "hidden") for seed in (1, 2, 3)]
    (group,) = grouped(records)
    assert list(group.records) == [HIDDEN, EMBEDDING]
    assert [r.data["config"]["seed"] for r in group.records[HIDDEN]] == [1, 2, 3]
    table = likelihood_table(group)
    assert {
        r["cells"]["seeds"] for r in table.to_dict()["rows"] if r["cells"]["role"] != "teacher"
    } == {3}
    assert table.section == "matched"
    keys = [column.key for column in table.columns]
    assert keys[:7] == ["row", "rank", "brier1", "nll", "kl", "gain", "gain_over"]
    assert keys[7:10] == ["replaced", "retained", "flop_ratio"]
    ids = {record.data["id"] for record in records}
    assert {run for r in table.to_dict()["rows"] for run in r["runs"]} == ids


@pytest.mark.parametrize(
    ("changes", "apart"),
    [
        ({"budget__diffusion_tokens": 4096}, True),
        ({"budget__matched": "total"}, True),
        ({"dtype": "bfloat16"}, True),
        ({"losses__ce": 0.125}, False),
        ({"device": "cuda"}, False),
    ],
)
def test_other_budgets_are_other_tables_and_other_settings_other_rows(
    make: Make, changes: dict[str, Any], apart: bool
) -> None:
    groups = grouped([make(), configured(make(), 0, **changes)])
    if "budget__diffusion_tokens" in changes:
        assert [group.setting.within for group in groups] == [True, False]
    assert (len(groups) == 2) is apart
    assert len({group.name for group in groups}) == len(groups)
    labels = [label for group in groups for label in group.records]
    if "losses__ce" in changes:
        assert labels in (
            [HIDDEN, f"{HIDDEN}, losses.ce=0.125"],
            [f"{HIDDEN}, losses.ce=0.125", f"{HIDDEN}, losses.ce=1.0"],
        )


def test_two_runs_of_one_seed_that_differ_in_nothing_stand_apart(make: Make) -> None:
    runs = [
        make(run=f"hidden-{i}", created=f"209{i}-01-01T00:00:00+00:00", command=f"run {i}")
        for i in range(3)
    ]
    (group,) = grouped([*runs, make()])
    assert next(iter(group.records)) == HIDDEN
    assert len(group.records) == 4
    likelihood_table(group)


def test_a_copy_is_no_further_training(make: Make) -> None:
    copies = []
    for seed in (0, 1, 2):
        data = copy.deepcopy(make().data)
        data["config"]["seed"] = seed
        data["run"] = f"hidden-{seed}"
        copies.append(Record.of(data))
    (group,) = grouped(copies)
    assert [len(own) for own in group.records.values()] == [1, 1, 1]


def test_other_code_of_the_same_name_is_another_row(make: Make) -> None:
    data = copy.deepcopy(make(seed=1).data)
    data["interface"]["origin"] = "elsewhere:Hidden"
    (group,) = grouped([make(), Record.of(data)])
    assert sorted(group.records) == [
        f"{HIDDEN}, code=dihal_bench.interfaces.hidden:Hidden",
        f"{HIDDEN}, code=elsewhere:Hidden",
    ]


def test_where_an_included_file_lay_tells_no_rows_apart(make: Make) -> None:
    places = ("mine.py", "/there/mine.py", "/elsewhere/other.py")
    runs = [configured(make(), seed, include=[place]) for seed, place in enumerate(places)]
    (group,) = grouped(runs)
    assert {label: len(own) for label, own in group.records.items()} == {
        f"{HIDDEN}, include=mine.py": 2,
        f"{HIDDEN}, include=other.py": 1,
    }


def test_long_settings_that_begin_alike_are_told_apart(make: Make) -> None:
    ends = ("one", "two")
    runs = [configured(make(), i, bridge__residual="x" * 70 + end) for i, end in enumerate(ends)]
    (group,) = grouped(runs)
    assert len(group.records) == 2


def test_another_teacher_stands_apart(make: Make) -> None:
    data = copy.deepcopy(make(seed=3).data)
    for own in data["sums"]["rows"]:
        if own["subject"] == "teacher":
            own["sums"]["nll@1"] = [v + 0.05 * 30 for v in own["sums"]["nll@1"]]
    groups = grouped([make(seed=1), make(seed=2), Record.of(data)])
    assert [len(group.all) for group in groups] == [2, 1]
    assert groups[0].setting.reason == ""
    assert "their teacher scores otherwise" in groups[1].setting.reason


def test_rows_of_other_seeds_are_compared_as_independent_trainings(make: Make) -> None:
    base = make("embedding")
    low, high = (10, 11, 12), (0, 1, 2)
    runs = [configured(shifted(base, -0.5 + s / 1e4), s, losses__ce=0.5) for s in low]
    runs += [configured(shifted(base, s / 1e4), s) for s in high]
    (group,) = grouped(runs)
    ranks = {
        r["cells"]["row"]: (r["cells"]["rank"]["value"], r["ties"])
        for r in likelihood_table(group).to_dict()["rows"]
        if r["cells"]["rank"] is not None and r["cells"]["steps"] == 4
    }
    assert sorted(ranks.values()) == [(1, []), (2, [])]
    assert next(own for name, own in ranks.items() if "0.5" in name) == (2, [])


def test_ranks_are_of_equal_tasks_and_ties_are_named(make: Make) -> None:
    base = make("embedding")
    records = []
    for seed in (1, 2, 3):
        records.append(configured(base, seed))
        records.append(configured(shifted(base, (seed - 2) * 1e-3), seed, losses__ce=0.25))
        records.append(configured(shifted(base, 0.5), seed, losses__ce=0.5))
        records.append(make("hidden", seed=seed))
    (group,) = grouped(records)
    table = likelihood_table(group)
    ranks = {
        r["cells"]["row"]: (r["cells"]["rank"]["value"], r["ties"])
        for r in table.to_dict()["rows"]
        if r["cells"]["rank"] is not None and r["cells"]["steps"] == 4
    }
    assert ranks.pop(HIDDEN) == (1, [])  # alone: it replaces two blocks, the others four
    best = next(name for name in ranks if "losses.ce=0.5" in name)
    assert ranks.pop(best) == (1, [])
    for name, own in ranks.items():
        (other,) = set(ranks) - {name}
        assert own == (2, [other])
    markdown = writers.markdown(table)
    assert len(re.findall(r"\] = +\|", markdown)) >= 2
    assert "/" not in table.title  # a folder on somebody's machine is called by its name


def test_fewer_than_three_seeds_have_no_rank(make: Make) -> None:
    (group,) = grouped([make(name, seed=s) for name in ("hidden", "embedding") for s in (1, 2)])
    assert all(r["cells"]["rank"] is None for r in likelihood_table(group).to_dict()["rows"])


def moved(record: Record, start: int) -> Record:
    """The same run, said to replace its blocks from another one on."""
    data = copy.deepcopy(record.data)
    data["interface"]["from"], data["layer"] = start, start + data["interface"]["replaced"]
    data["backbone"]["blocks"] = 40
    data["run"] = f"{data['run']}-{start}"
    return Record.of(data)


def test_rows_name_their_blocks_and_stand_ranking_by_ranking(make: Make) -> None:
    records = [
        moved(shifted(make(seed=seed), 0.1 if start == 2 else 0.0), start)
        for start in (0, 10, 2)
        for seed in (1, 2, 3)
    ]
    records += [make("embedding", seed=seed) for seed in (1, 2, 3)]
    groups = grouped(records)
    assert list(groups[0].records) == [HIDDEN, "hidden (2, 4]", "hidden (10, 12]", EMBEDDING]
    table = likelihood_table(groups[0])
    led = [r["cells"] for r in table.to_dict()["rows"] if r["cells"]["role"] == "interface"]
    among = [cells["rank"]["among"] for cells in led if cells["rank"]]
    steps = sorted({cells["steps"] for cells in led})
    wanted = [f"of {n}: S={s}, {blocks} blocks" for blocks, n in ((2, 3), (4, 1)) for s in steps]
    assert list(dict.fromkeys(among)) == wanted
    for ranking in wanted:
        ranks = [c["rank"]["value"] for c in led if c["rank"] and c["rank"]["among"] == ranking]
        assert ranks == sorted(ranks)
    assert led[0]["row"] == "hidden (2, 4]"
    assert table.to_dict()["rows"][0]["cells"]["role"] == "teacher"
    assert {r["cells"]["role"] for r in table.to_dict()["rows"][1 : 1 + len(led)]} == {"interface"}
    markdown = writers.markdown(table)
    assert f"1 ({wanted[0]})" in markdown
    assert len(set(re.findall(r"\(of \d: S=\d+, \d blocks\)", markdown))) == len(wanted)
    rows = list(csv.DictReader(io.StringIO(writers.csv(table))))
    assert {own["rank_among"] for own in rows} == {"", *wanted}
    assert {own["rank"] for own in rows} <= {"", "1", "2", "3"}  # whole numbers


def test_markdown_has_what_a_reader_compares_and_explains_it(make: Make) -> None:
    (table,) = (likelihood_table(group) for group in grouped([make(seed=s) for s in (1, 2, 3)]))
    shown = writers.markdown(table)
    (heads,) = [x for x in shown.splitlines() if x.startswith("| row")]
    brief = [column for column in table.columns if column.brief]
    names = [head.strip(" ↑↓") for head in heads.strip("|").split("|")]
    assert names == [column.title for column in brief]
    assert names[:3] == ["row", "rank", "Brier-1"]
    assert len(names) <= 20
    for column in table.columns:
        assert shown.count(f"**{column.title}** {escaped(column.help)}") == 1
    with_all = csv.DictReader(io.StringIO(writers.csv(table)))
    assert {"oracle", "sigma_half", "flops", "seconds"} <= set(with_all.fieldnames or ())
    beside = list(with_all.fieldnames or ())
    assert beside.index("kl_hi") == beside.index("kl") + 2


def test_numbers_are_those_of_the_record_for_one_seed(make: Make) -> None:
    record = make()
    (group,) = grouped([record])
    own = row(likelihood_table(group), HIDDEN)
    for metric in ("nll", "kl", "brier1"):
        (score,) = [
            s
            for s in record.scores
            if (s.subject, s.metric, s.steps, s.chains, s.signal)
            == ("hidden", metric, 4, 2, "sampled")
        ]
        assert own[metric]["value"] == pytest.approx(score.value, rel=1e-8)
        assert own[metric]["lo"] == pytest.approx(score.lo, rel=1e-6)
    assert own["kind"] == "ensemble(2)"
    assert own["nfe"] == 8


def test_what_overspent_stands_apart(make: Make) -> None:
    spent = copy.deepcopy(make().data["spent"])
    spent["hidden"]["diffusion"]["tokens"] *= 2
    budget = {**make().data["budget"], "within": False}
    other = make(run="hidden-over", spent=spent, budget=budget)
    groups = grouped([other, make()])
    assert [group.setting.within for group in groups] == [True, False]
    table = likelihood_table(groups[1])
    assert table.section == "unmatched"
    assert "Not comparable with others: spent more or less" in writers.markdown(table)


def test_an_interval_ends_where_its_metric_does(make: Make) -> None:
    """Student's interval of three values does not know that none of them can be negative."""
    records = []
    for seed, scale in ((1, 0.01), (2, 0.01), (3, 1.0)):
        data = copy.deepcopy(make(seed=seed).data)
        for row in data["sums"]["rows"]:
            if row["subject"] == "regress":
                for name in ("kl", "kl_chain"):
                    row["sums"][name] = [scale * value for value in row["sums"][name]]
        records.append(Record.of(data))
    table = likelihood_table(grouped(records)[0])
    (own,) = (row["cells"] for row in table.to_dict()["rows"] if row["cells"]["row"] == "regress")
    assert own["kl"]["lo"] == 0
    assert own["kl"]["hi"] > 2 * own["kl"]["value"] > 0


def hostile(make: Make) -> Board:
    record = make()
    data = copy.deepcopy(record.data)
    data["backbone"]["name"] = data["corpus"]["name"] = HOSTILE
    data["environment"]["git"] = HOSTILE
    data["config"]["corpus"] = HOSTILE
    for score in data["scores"]:
        score["task"] = f"{HOSTILE}:validation"
    return board_of([Record.of(data)], [])


def test_what_strangers_wrote_stays_text(make: Make, tmp_path: Path) -> None:
    board = hostile(make)
    (table,) = board.tables
    markdown = writers.markdown(table)
    assert "<script" not in markdown
    assert "&lt;script&gt;" in markdown
    width = [line.replace("\\|", "").count("|") for line in markdown.splitlines() if "|" in line]
    assert len({count for count in width if count > 2}) == 1
    latex = writers.latex(table)
    assert not [x for x in latex.splitlines() if "\\input{d}" in x and not x.startswith("% ")]
    assert all(x.isascii() for x in latex.splitlines() if not x.startswith("% "))
    rows = list(csv.DictReader(io.StringIO(writers.csv(table))))
    assert any("<script>" in own["versions"] for own in rows)  # a CSV file is text
    assert len(rows) == len(table.rows)
    figures.draw(board.to_dict(), tmp_path)  # dollar signs are no formulas


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex here")
def test_tables_can_be_set_by_latex(make: Make, tmp_path: Path) -> None:
    tables = [*hostile(make).tables, *board_of([make(), make("embedding")], []).tables]
    paper = ["\\documentclass{article}", "\\usepackage{booktabs}", "\\begin{document}"]
    paper += [*map(writers.latex, tables), "\\end{document}"]
    (tmp_path / "paper.tex").write_text("\n".join(paper), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000


def test_brackets_are_no_arguments_of_a_line_break_in_latex(make: Make) -> None:
    (table,) = board_of([make()], []).tables
    named = {"row": "[2em]", "role": "interface"}
    rows = [replace(row, cells={**row.cells, **named}) for row in table.rows]
    shown = writers.latex(replace(table, rows=rows))
    assert not re.search(r"(?m)^ *[\[*]", shown)
    assert "{}[2em]" in shown.replace(" ", "")


def test_formulas_of_spreadsheets_are_disarmed(make: Make) -> None:
    environment = copy.deepcopy(make().data["environment"])
    environment["versions"]["dihal-bench"] = "=cmd|calc"
    board = board_of([make(environment=environment)], [])
    rows = list(csv.DictReader(io.StringIO(writers.csv(board.tables[0]))))
    assert {own["versions"][0] for own in rows} == {"'"}
    assert not any(name.startswith(("=", "+", "-", "@")) for name in rows[0])
    assert rows[0]["table:matched"] == "diffusion"


def test_facts_say_what_the_model_and_its_text_are(make: Make) -> None:
    found = facts(grouped([make()])[0])
    backbone, corpus = make().data["backbone"], make().data["corpus"]
    assert found["architecture"] == backbone["architecture"]
    assert found["blocks"] == backbone["blocks"]
    assert found["parameters"] == backbone["parameters"] > 0
    assert found["vocabulary"] == backbone["vocab_size"] > 0
    assert found["training_tokens"] == corpus["train_tokens"] > 0
    odd = make(backbone={**backbone, "parameters": "many", "architecture": ["x"]})
    assert not {"parameters", "architecture"} & set(facts(grouped([odd])[0]))
