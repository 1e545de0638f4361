"""Verdicts on planted results, and a page that is a function of its evidence alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dihal_bench.cli.main import main
from dihal_bench.reporting.claims_page import page
from dihal_bench.studies.claims.claim import (
    FAILS,
    HOLDS,
    UNDECIDED,
    by_interval,
    by_replication,
    by_share,
)
from dihal_bench.studies.claims.evidence import Evidence
from dihal_bench.studies.claims.layers import carries_over, causes, predicts, shallow
from dihal_bench.studies.claims.stability import robust, stable
from dihal_bench.studies.sweep.outcomes import DOWNSTREAM
from dihal_bench.studies.sweep.table import SweepTable

from .planted import DEPTH, WAVE, grid, table, write


def test_a_score_that_knows_holds_and_one_that_is_depth_does_not(tmp_path: Path) -> None:
    knowing = {f"b{i}": table(WAVE, -WAVE) for i in range(6)}
    claim = predicts(write(tmp_path / "a", "span-2", knowing))
    assert claim.verdict == HOLDS
    assert {f.verdict for f in claim.findings} == {HOLDS}
    deep = {f"b{i}": table(WAVE, -DEPTH, spread=1e-6) for i in range(6)}
    claim = predicts(write(tmp_path / "b", "span-2", deep))
    assert claim.verdict == FAILS  # it adds nothing to depth
    blind = {f"b{i}": table(WAVE, (-1) ** i * WAVE) for i in range(6)}
    assert predicts(write(tmp_path / "c", "span-2", blind)).verdict == UNDECIDED


def test_to_beat_depth_is_not_enough_where_depth_is_the_wrong_way_round(tmp_path: Path) -> None:
    blind = 0.1 * DEPTH[[3, 6, 1, 0, 7, 4, 2, 5]]
    deeper = {f"b{i}": table(-DEPTH, -blind) for i in range(6)}  # the last layer is the best
    own = deeper["b0"].ranking["kl"]["score"]
    assert own.advantage.lo > 0
    assert own.kendall.hi < 0
    claim = predicts(write(tmp_path, "span-2", deeper))
    assert {f.verdict for f in claim.findings} == {FAILS}


def test_one_training_decides_nothing(tmp_path: Path) -> None:
    several = table(WAVE, -WAVE)
    outcomes = several.outcomes
    losses = {name: own[:1] for name, own in outcomes.losses.items()}
    one = SweepTable(
        "planted",
        replace(outcomes, seeds=[0], losses=losses),
        several.predictions,
        sample=several.sample,
        resamples=200,
    )
    evidence = write(tmp_path, "span-2", {"b": one})
    for rule in (predicts, shallow, carries_over):
        assert {f.verdict for f in rule(evidence).findings} == {UNDECIDED}


def test_what_leads_is_the_case_of_equal_replaced_blocks(tmp_path: Path) -> None:
    write(tmp_path, "span-2", {f"b{i}": table(WAVE, -WAVE) for i in range(6)})
    evidence = write(tmp_path, "layers", {f"b{i}": table(DEPTH, -DEPTH) for i in range(6)})
    claim = predicts(evidence)
    assert claim.verdict == HOLDS
    assert FAILS in {f.verdict for f in claim.findings if not f.leads}


def test_shallow_is_the_lowest_quarter(tmp_path: Path) -> None:
    assert shallow(write(tmp_path / "a", "span-2", {"b": table(DEPTH, -DEPTH)})).verdict == HOLDS
    assert shallow(write(tmp_path / "b", "span-2", {"b": table(-DEPTH, DEPTH)})).verdict == FAILS
    evidence = write(tmp_path / "d", "span-2", {"b": table(DEPTH, -DEPTH)})
    evidence.sweeps[0]["blocks"] = 16  # of which layers 9 to 15 were not tried
    assert shallow(evidence).verdict == UNDECIDED
    evidence = write(tmp_path / "e", "span-2", {"b": table(DEPTH, -DEPTH)})
    evidence.sweeps[0]["layers"] = list(range(3, 11))  # and here none that is shallow
    assert shallow(evidence).verdict == UNDECIDED
    even = {"b": table(np.zeros(8), DEPTH, spread=1.0)}
    assert shallow(write(tmp_path / "c", "span-2", even)).verdict == UNDECIDED


def test_stability_is_of_the_selected_layer(tmp_path: Path) -> None:
    sure, unsure = table(WAVE, -5 * WAVE), table(WAVE, 0.001 * WAVE, spread=1.0)
    assert stable(write(tmp_path / "a", "span-2", {"b": sure})).verdict == HOLDS
    assert stable(write(tmp_path / "b", "span-2", {"b": unsure})).verdict == FAILS


def test_every_axis_has_its_stability_and_equal_replaced_blocks_lead(tmp_path: Path) -> None:
    sure, unsure = table(WAVE, -5 * WAVE), table(WAVE, 0.001 * WAVE, spread=1.0)
    write(tmp_path, "layers", {"b": unsure})
    claim = stable(write(tmp_path, "span-2", {"b": sure, "c": sure}))
    found = [(f.scope.partition(";")[0], f.verdict, f.leads) for f in claim.findings]
    assert found == [
        ("b, 8 layers, blocks (l - 2, l] replaced", HOLDS, True),
        ("c, 8 layers, blocks (l - 2, l] replaced", HOLDS, True),
        ("b, 8 layers, blocks (0, l] replaced", FAILS, False),
    ]
    assert claim.verdict == HOLDS


@pytest.mark.parametrize(("tokens", "verdict"), [(500, HOLDS), (501, UNDECIDED), (1000, UNDECIDED)])
def test_subsamples_of_most_tokens_say_nothing(tokens: int, verdict: str, tmp_path: Path) -> None:
    claim = stable(write(tmp_path, "span-2", {"b": table(WAVE, -5 * WAVE, tokens=tokens)}))
    assert claim.verdict == verdict
    assert f"of {tokens:,} of 1,000 tokens" in claim.findings[0].scope


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.filterwarnings("error")
def test_what_few_layers_leave_undefined_is_said_to_be(count: int, tmp_path: Path) -> None:
    few = table(WAVE[:count], -WAVE[:count])
    evidence = write(tmp_path, "span-2", {f"b{i}": few for i in range(6)})
    for rule in (stable, carries_over):
        found = rule(evidence).findings
        assert {(f.value, f.verdict) for f in found} == {("undefined", UNDECIDED)}
    assert {f.value.partition("; ")[2] for f in shallow(evidence).findings} == {"undefined"}
    assert "nan" not in page(evidence)


def test_losses_that_agree_on_every_backbone_carry_over(tmp_path: Path) -> None:
    evidence = write(tmp_path, "span-2", {f"b{i}": table(WAVE, -WAVE) for i in range(6)})
    assert carries_over(evidence).verdict == HOLDS
    for own in evidence.sweeps:
        for name in DOWNSTREAM:
            own["losses"][name] = (-np.array(own["losses"][name])).tolist()
    assert carries_over(evidence).verdict == FAILS


def test_unrelated_curves_of_one_backbone_do_not_lead(tmp_path: Path) -> None:
    """Intervals over trainings alone find agreement in every second pair of unrelated curves."""
    held, leading = 0, []
    for seed in range(30):
        curves = np.random.default_rng(seed).normal(size=(2, 8))
        evidence = write(tmp_path, "span-2", {"b": table(curves[0], -WAVE)})
        own = evidence.sweeps[0]["losses"]
        other = (np.array(own["fvu_mmse"]) - curves[0] + curves[1]).tolist()
        own |= dict.fromkeys(DOWNSTREAM, other)
        claim = carries_over(evidence)
        held += claim.findings[0].verdict == HOLDS
        leading.append(claim.verdict)
    assert held > 5
    assert set(leading) == {UNDECIDED}


def test_a_selection_that_hangs_on_the_protocol_fails() -> None:
    assert robust(Evidence(grids=[grid([2, 2, 2, 2])])).verdict == HOLDS
    assert robust(Evidence(grids=[grid([2, 3, 3, 3])])).verdict == FAILS
    assert robust(Evidence(grids=[grid([2, 2, 2, 3])])).verdict == UNDECIDED
    assert robust(Evidence(grids=[grid([2, 2, 2, 2]) | {"layers": [1, 2]}])).verdict == UNDECIDED


def test_small_subsamples_of_a_grid_have_to_be_small() -> None:
    assert stable(Evidence(grids=[grid([2, 2, 2, 2])])).verdict == HOLDS
    assert stable(Evidence(grids=[grid([2, 2, 2, 2], small=600)])).verdict == UNDECIDED


def test_an_intervention_is_judged_in_the_diffused_space() -> None:
    def of(lo: float, hi: float, seeds: Sequence[int] = (0, 1, 2), backbones: int = 5) -> Evidence:
        interval = {"value": (lo + hi) / 2, "lo": lo, "hi": hi}
        own: dict[str, Any] = {
            "intervention": {"tau": {"diffused": {"kl": interval}, "raw": {"kl": None}}}
        }
        budget = {"diffusion_tokens": 1, "recovery_tokens": 1}
        own |= {"axis": "transform", "budget": budget, "seeds": seeds}
        return Evidence(sweeps=[{**own, "backbone": f"b{i}"} for i in range(backbones)])

    assert causes(of(0.1, 0.5)).verdict == HOLDS
    assert causes(of(-0.5, -0.1)).verdict == FAILS
    assert causes(of(0.1, 0.5, backbones=4)).verdict == UNDECIDED
    assert causes(of(0.1, 0.5, backbones=1)).verdict == UNDECIDED
    assert causes(Evidence()).verdict == UNDECIDED
    assert causes(of(-0.1, 0.5)).findings[0].verdict == UNDECIDED
    assert causes(of(0.1, 0.5)).findings[0].verdict == HOLDS
    assert causes(of(0.1, 0.5, seeds=(0, 1))).findings[0].verdict == UNDECIDED


def test_rules_of_judgement() -> None:
    assert by_interval({"value": 0.0, "lo": 0.0, "hi": 0.0}) == FAILS  # no gain is left
    assert by_interval({"value": None, "lo": None, "hi": None}) == UNDECIDED
    assert by_share(0.98) == HOLDS
    assert by_share(0.02) == FAILS
    assert by_share(0.5) == UNDECIDED
    assert by_replication([0.1, 0.2], 0.25, 1.0) == UNDECIDED
    assert by_replication([0.0, -0.2], 1.0, 0.25) == FAILS


def test_the_page_is_a_function_of_its_evidence(tmp_path: Path, capsys) -> None:
    write(tmp_path / "results", "span-2", {f"b{i}": table(WAVE, -WAVE) for i in range(3)})
    out = tmp_path / "claims.md"
    words = ["claims", str(tmp_path / "results"), "--out", str(out)]
    assert main(words) == 0
    text = out.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(words[:2]) == 0
    assert capsys.readouterr().out == text
    assert text == page(Evidence.read([tmp_path / "results"]))
    assert "No results of this are here yet." in text  # of grids, coordinates and generation
    assert text.count("Verdict: **") == 7
    assert main([*words, "--check"]) == 0
    out.write_text(text.replace("holds", "fails", 1), encoding="utf-8")
    assert main([*words, "--check"]) == 1
    capsys.readouterr()
    assert main(["claims", str(tmp_path / "nowhere")]) == 2
    assert "is no folder" in capsys.readouterr().err
    (tmp_path / "results" / "sweep-layers.json").write_text("{")
    assert main(words) == 2
    assert "sweep-layers.json is not a readable sweep" in capsys.readouterr().err


def test_check_says_what_it_needs(tmp_path: Path, capsys) -> None:
    assert main(["claims", str(tmp_path), "--check"]) == 2
    assert "name the page with --out FILE" in capsys.readouterr().err
    assert main(["claims", str(tmp_path), "--check", "--out", str(tmp_path / "page.md")]) == 2
    assert "page.md is no file; write it first" in capsys.readouterr().err


def test_names_stay_text(tmp_path: Path) -> None:
    name = "<script>alert(1)<|script>"
    evidence = write(tmp_path, "span-2", {name: table(WAVE, -WAVE)})
    evidence.grids.append(grid([2, 2, 2, 2]) | {"backbone": name})
    text = page(evidence)
    assert "<script>" not in text
    assert r"&lt;script&gt;alert(1)&lt;\|script&gt;, blocks (l - 2, l]" in text


def test_budgets_are_kept_apart(tmp_path: Path) -> None:
    """A backbone of another budget stands beside the others, and is not averaged with them."""
    some = {f"b{i}": table(WAVE, -WAVE) for i in range(3)}
    write(tmp_path / "small", "span-2", some)
    large = {"diffusion_tokens": 2048, "recovery_tokens": 512}
    evidence = write(tmp_path / "large", "span-2", {"b0": some["b0"]}, {"budget": large})
    evidence = Evidence.read([tmp_path / "small", tmp_path / "large"])
    for rule in (predicts, carries_over):
        findings = rule(evidence).findings
        scopes = {f.scope for f in findings if f.leads}
        assert scopes == {
            "3 backbones, blocks (l - 2, l] replaced; 1,024 diffusion and 512 recovery tokens"
        }
        own = {f.scope.partition("; ")[2] for f in findings if f.scope.startswith("b0,")}
        assert own == {
            "1,024 diffusion and 512 recovery tokens, 3 seeds",
            "2,048 diffusion and 512 recovery tokens, 3 seeds",
        }


def test_both_parts_of_the_first_claim_have_their_verdicts(tmp_path: Path) -> None:
    deep = {f"b{i}": table(DEPTH, -DEPTH, spread=1e-6) for i in range(6)}
    findings = predicts(write(tmp_path, "span-2", deep)).findings
    assert {f.verdict for f in findings} == {FAILS}
    assert {f.value for f in findings if not f.leads} == {"+1.00 holds; +0.00 fails"}
    (value,) = {f.value for f in findings if f.leads}
    assert value.startswith("+1.00 (p = 0.016, at least 0.016) holds; +0.00 (p = 1.000")
    assert value.endswith("fails")


def test_more_backbones_than_the_exact_test_takes_are_undecided(tmp_path: Path) -> None:
    evidence = write(tmp_path, "span-2", {f"b{i}": table(WAVE, -WAVE) for i in range(21)})
    leading = [f for f in carries_over(evidence).findings if f.leads]
    assert {f.verdict for f in leading} == {UNDECIDED}
    assert {f.value for f in leading} == {"+1.00 (more than 20: no exact test)"}


@pytest.mark.parametrize("missing", ["span-2", "layers"])
def test_a_missing_axis_is_no_verdict(missing: str, tmp_path: Path) -> None:
    axis = {"span-2": "layers", "layers": "span-2"}[missing]
    claim = predicts(write(tmp_path, axis, {f"b{i}": table(WAVE, -WAVE) for i in range(6)}))
    assert claim.verdict == (UNDECIDED if missing == "span-2" else HOLDS)


def test_the_committed_page_is_what_the_committed_results_say(capsys) -> None:
    root = Path(__file__).parent.parent.parent.parent
    words = ["claims", str(root / "leaderboards"), "--out", str(root / "docs" / "claims.md")]
    assert main([*words, "--check"]) == 0, capsys.readouterr().out
