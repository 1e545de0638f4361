"""Results are read with suspicion: what is wrong or was changed is named in one sentence."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.cli.main import main
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import write_json
from dihal_bench.leaderboard.board import read_sweeps
from dihal_bench.results.study_schema import PAPER
from dihal_bench.studies.claims.evidence import Evidence
from dihal_bench.studies.protocol_grid.grid import Protocol

from .planted import WAVE, grid, table, write


def test_the_papers_protocol_is_the_grids_default() -> None:
    assert asdict(Protocol()) == PAPER


def test_what_reads_results_needs_no_torch() -> None:
    """Processes that only draw are quick to start."""
    code = "import sys, dihal_bench.results.study_schema; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("sweep-layers.json", "{}", "not a readable sweep: the field seal is missing"),
        ("sweep-span-2.json", "[]", "not a readable sweep: it is no JSON object"),
        ("sweep-transform.json", "null", "not a readable sweep: it is no JSON object"),
        ("replication-layers.json", "[]", "not a readable replication: it is no JSON object"),
        ("grid.json", "{}", "not a readable grid: the field seal is missing"),
        ("grid.json", "[" * 100_000, "not a readable grid (maximum recursion"),
        ("record.json", "{}", "record.json"),
    ],
)
def test_what_is_no_result_is_one_sentence(
    name: str, text: str, said: str, tmp_path: Path, capsys
) -> None:
    (tmp_path / name).write_text(text)
    assert main(["claims", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert str(tmp_path / name) in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own: own["losses"]["kl"][0].__setitem__(0, 0.5), "losses.kl was changed"),
        (lambda own: own["predictions"]["score"].__setitem__(0, 9.0), "predictions.score was"),
        (lambda own: own["ranking"]["kl"]["score"].update(predicted=0), "ranking.kl was changed"),
        (lambda own: own["budget"].update(diffusion_tokens=1), "budget.diffusion_tokens was"),
        (lambda own: own["rests_on"].update(threads=[2]), "rests_on.threads was changed"),
        (lambda own: own.update(id="other"), "the field id was changed"),
        (lambda own: own.pop("seal"), "the field seal is missing"),
        (lambda own: own["ranking"]["kl"].pop("depth"), "ranking.kl lacks its loss, or one of"),
        (lambda own: own["losses"]["kl"].pop(), "not every loss is of 3 seeds"),
        (
            lambda own: own["losses"].update(kl="x"),
            "losses: the field kl has the wrong type: it is text and must be a list",
        ),
        (lambda own: own.pop("sample"), "the field sample is missing"),
        (lambda own: own.update(axis="over-x"), "axis: it must be layers, transform, or span-"),
        (lambda own: own.update(layers=[8, *range(1, 8)]), "layers are not ascending"),
    ],
)
def test_a_field_that_was_changed_is_named(
    change: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path
) -> None:
    write(tmp_path, "span-2", {"b": table(WAVE, -WAVE)})
    path = tmp_path / "b" / "sweep-span-2.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    write_json(path, content)
    with pytest.raises(UserError, match=r"sweep-span-2\.json is not a readable sweep") as refused:
        Evidence.read([tmp_path])
    assert said in str(refused.value)
    found, problems = read_sweeps(tmp_path)
    assert found == []
    assert problems == [str(refused.value)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own: own["cells"][0].update(selected=3), r"cells\[0\] was changed"),
        (lambda own: own["cells"].pop(0), "no cell is of the paper's protocol"),
        (lambda own: own["axes"].pop("rank"), "axes are not tokens, space"),
        (lambda own: own["sample"].pop("kept"), "sample: the field kept is missing"),
    ],
)
def test_a_changed_grid_is_refused(
    change: Callable[[dict[str, Any]], Any], said: str, tmp_path: Path
) -> None:
    write_json(tmp_path / "grid.json", grid([2, 2, 2, 2]))
    assert len(Evidence.read([tmp_path]).grids) == 1
    content = grid([2, 2, 2, 2])
    change(content)
    write_json(tmp_path / "grid.json", content)
    with pytest.raises(UserError, match=rf"grid\.json is not a readable grid: .*{said}"):
        Evidence.read([tmp_path])


def test_a_replication_rests_on_sweeps_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, "span-2", {f"b{i}": table(WAVE, -WAVE) for i in range(2)})
    (tmp_path / "b1" / "sweep-span-2.json").unlink()
    with pytest.raises(UserError, match=r"replication-span-2\.json rests on the sweep b1-span-2-"):
        Evidence.read([tmp_path])


def test_a_folder_without_results_is_refused(tmp_path: Path, capsys) -> None:
    (tmp_path / "other.json").write_text("{}")
    write(tmp_path / "a", "span-2", {"b": table(WAVE, -WAVE)})
    (tmp_path / "empty").mkdir()
    assert main(["claims", str(tmp_path / "a"), str(tmp_path / "empty")]) == 2
    captured = capsys.readouterr()
    assert "empty holds no result that claims are judged by" in captured.err
    assert captured.out == ""


def test_two_sweeps_of_one_backbone_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder, "span-2", {"b0": table(WAVE, -WAVE)})
    (tmp_path / "b" / "replication-span-2.json").unlink()
    with pytest.raises(UserError, match=r"b/b0/sweep-span-2.json is a second result of b0"):
        Evidence.read([tmp_path])


def test_one_backbone_under_two_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", "span-2", {"b0": table(WAVE, -WAVE)})
    same = {"backbones": ["weights of b0"], "records": [], "corpora": ["c"], "devices": []}
    with pytest.raises(UserError, match=r"a second result of b0 \(there called b1\) of its kind"):
        write(tmp_path, "span-2", {"b1": table(WAVE, -WAVE)}, {"rests_on": same | {"threads": []}})
