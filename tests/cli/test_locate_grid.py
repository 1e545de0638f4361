"""``locate --grid`` on the command line."""

import json

import pytest
import torch

from dihal_bench.cli.main import main
from dihal_bench.results.study_schema import GridFields, read_result
from dihal_bench.runs.cost_estimate import duration
from dihal_bench.studies.protocol_grid.grid import Protocol

from ..conftest import Tiny

LARGE = {"locate__stability_sample": 160, "locate__neighbours": 20}


def protocol_of(cell):
    return Protocol(**{name: cell[name] for name in vars(Protocol())})


def test_the_papers_cell_is_what_locate_found(tiny: Tiny, capsys, tmp_path):
    out = tmp_path / "located"
    flags = ["locate", "--grid", "--out", str(out), *tiny.flags(**LARGE)]
    assert main(flags) == 0
    printed = capsys.readouterr().out
    assert "1,296 protocols" in printed
    assert "the paper's cell" in printed
    assert (out / "grid.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "grid.svg").read_text()
    assert "every small resample" not in printed
    assert read_result(out / "grid.json", GridFields)["sample"]["kept"] == 320
    grid, located = (json.loads((out / f"{name}.json").read_text()) for name in ("grid", "locate"))
    cell = next(own for own in grid["cells"] if protocol_of(own) == Protocol())
    rows = located["cells"]["paper"]["layers"]
    assert [layer["layer"] for layer in grid["layers"]] == [row["layer"] for row in rows]
    assert cell["scores"] == pytest.approx([row["score"]["value"] for row in rows], abs=1e-6)
    assert cell["selected"] == located["cells"]["paper"]["selected"]
    shares = {row["layer"]: row["selected_share"] for row in rows}
    assert cell["share"] == shares[cell["selected"]]
    assert cell["small_share"] == located["stability"]["paper"]
    assert main([*flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == located | {"grid": grid}


def test_resamples_that_leave_nothing_out_are_said(tiny: Tiny, capsys):
    flags = tiny.flags(locate__stability_sample=500, locate__sample=300)
    assert main(["locate", *flags]) == 0
    printed = capsys.readouterr().out
    assert "every small resample is all of the 320 tokens that were kept, so its agreement" in (
        " ".join(printed.split())
    )
    assert "every large resample" not in printed


def test_resamples_that_are_too_small_are_refused_before_anything_is_done(
    tiny: Tiny, capsys, tmp_path
):
    out = tmp_path / "located"
    few = {"locate__windows": 8} | LARGE
    for flags, key in ((tiny.flags(), "stability_sample"), (tiny.flags(**few), "windows")):
        assert main(["locate", "--grid", "--out", str(out), *flags]) == 2
        streams = capsys.readouterr()
        assert "--grid has neighbourhoods of 100 tokens" in streams.err
        assert f"give locate.{key} at least" in streams.err
        assert streams.out == ""
        assert not out.exists()


def test_a_text_that_is_too_short_for_the_grid_is_refused_before_it_is_located(
    tiny: Tiny, capsys, tmp_path
):
    lines = tiny.corpus.read_text(encoding="utf-8").splitlines()
    (tmp_path / "few.jsonl").write_text("\n".join(lines[:24]), encoding="utf-8")
    flags = [*tiny.flags(**LARGE), "--corpus", str(tmp_path / "few.jsonl")]
    flags += ["--set", "locate.per_window=4", "--set", "score.tokens=64"]
    assert main(["locate", "--grid", "--out", str(tmp_path / "it"), *flags]) == 2
    streams = capsys.readouterr()
    assert "give locate.windows at least 38, and enough text for that" in streams.err
    assert streams.out == ""
    assert not (tmp_path / "it").exists()


def test_a_dry_run_says_what_the_grid_is_made_of(tiny: Tiny, capsys):
    assert main(["locate", "--grid", "--dry-run", *tiny.flags(**LARGE)]) == 0
    made = "from 9 views of each layer in 2 resamples of 200 tokens and 2 of 160"
    assert f"grid: 1,296 protocols, {made}: at most about " in capsys.readouterr().out


def test_a_dry_run_counts_the_matrices_that_are_measured(tiny: Tiny, monkeypatch, capsys):
    monkeypatch.setattr("dihal_bench.geometry.seconds._timed", lambda rows, *_: rows / 200)
    flags = ["locate", "--dry-run", *tiny.flags(**LARGE, locate__pairs=201)]
    proxies = 2 * 3 * 2 * (1 + 0.8)  # views, layers, resamples of 200 and of 160 tokens
    assert main(flags) == 0
    assert f"time: about {proxies:.0f} s" in capsys.readouterr().out
    assert main([*flags, "--grid"]) == 0
    grid = 9 * 3 * 2 * (1 + 0.8) / torch.get_num_threads()
    out = capsys.readouterr().out
    assert f"at most about {duration(grid)}" in out
    assert f"time: about {duration(proxies + grid)}" in out
