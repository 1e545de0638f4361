"""Verdicts on planted results, and a page that is a function of its evidence alone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dihal_bench.claims.claim import FAILS, HOLDS, UNDECIDED, by_interval, by_replication, by_share
from dihal_bench.claims.evidence import Evidence
from dihal_bench.claims.generation import generation_findings
from dihal_bench.claims.page import page
from dihal_bench.claims.rules import carries_over, causes, predicts, robust, shallow, stable
from dihal_bench.cli import main
from dihal_bench.errors import UserError
from dihal_bench.ranking.agreement import Prediction
from dihal_bench.records import Record
from dihal_bench.sweep.outcomes import DOWNSTREAM, TITLES, Outcomes
from dihal_bench.sweep.plan import layer_axis
from dihal_bench.sweep.replicate import over_layers
from dihal_bench.sweep.table import Table

LAYERS = list(range(1, 9))
DEPTH = np.arange(8.0)


def table(loss: np.ndarray, score: np.ndarray, spread: float = 0.01) -> Table:
    """A sweep whose score and losses are planted; every loss is the same."""
    generator = np.random.default_rng(0)
    losses = loss + spread * generator.normal(size=(3, 8))
    outcomes = Outcomes(
        candidates=list(layer_axis(LAYERS, start=0, span=None).candidates),
        seeds=[0, 1, 2],
        losses=dict.fromkeys(TITLES, losses),
        steps=4,
        budget={"diffusion_tokens": 1024},
        costs=[{"ratio": 1.0}] * 8,
        origins=["dihal-bench 0"],
    )
    predictions = {
        "score": Prediction.of(score, score + spread * generator.normal(size=(20, 8))),
        "depth": Prediction.of(-DEPTH),
        "ridge FVU": Prediction.of(-loss),
    }
    return Table.of("planted", outcomes, predictions, resamples=200)


def write(folder: Path, axis: str, tables: dict[str, Table]) -> Evidence:
    for name, own in tables.items():
        content = {**own.to_dict(), "backbone": name, "blocks": 9}
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"sweep-{axis}.json").write_text(json.dumps(content))
    rows = [row.to_dict() for row in over_layers(tables)]
    (folder / f"replication-{axis}.json").write_text(json.dumps(rows))
    return Evidence.read([folder])


WAVE = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 0.5, 2.0, 6.0])


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
    one = Table.of(
        "planted",
        replace(outcomes, seeds=[0], losses=losses),
        several.predictions,
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
    evidence.sweeps["span-2"]["b"]["blocks"] = 16  # of which layers 9 to 15 were not tried
    assert shallow(evidence).verdict == UNDECIDED
    evidence = write(tmp_path / "e", "span-2", {"b": table(DEPTH, -DEPTH)})
    evidence.sweeps["span-2"]["b"]["layers"] = list(range(3, 11))  # and here none that is shallow
    assert shallow(evidence).verdict == UNDECIDED
    even = {"b": table(np.zeros(8), DEPTH, spread=1.0)}
    assert shallow(write(tmp_path / "c", "span-2", even)).verdict == UNDECIDED


def test_stability_is_of_the_selected_layer(tmp_path: Path) -> None:
    sure, unsure = table(WAVE, -5 * WAVE), table(WAVE, 0.001 * WAVE, spread=1.0)
    assert stable(write(tmp_path / "a", "layers", {"b": sure})).verdict == HOLDS
    assert stable(write(tmp_path / "b", "layers", {"b": unsure})).verdict == FAILS


def test_losses_that_agree_on_every_backbone_carry_over(tmp_path: Path) -> None:
    evidence = write(tmp_path, "span-2", {f"b{i}": table(WAVE, -WAVE) for i in range(6)})
    assert carries_over(evidence).verdict == HOLDS
    for own in evidence.sweeps["span-2"].values():
        for name in DOWNSTREAM:
            own["losses"][name] = (-np.array(own["losses"][name])).tolist()
    assert carries_over(evidence).verdict == FAILS


def test_unrelated_curves_of_one_backbone_do_not_lead(tmp_path: Path) -> None:
    """Intervals over trainings alone find agreement in every second pair of unrelated curves."""
    held, leading = 0, []
    for seed in range(30):
        curves = np.random.default_rng(seed).normal(size=(2, 8))
        evidence = write(tmp_path, "span-2", {"b": table(curves[0], -WAVE)})
        own = evidence.sweeps["span-2"]["b"]["losses"]
        other = (np.array(own["fvu_mmse"]) - curves[0] + curves[1]).tolist()
        own |= dict.fromkeys(DOWNSTREAM, other)
        claim = carries_over(evidence)
        held += claim.findings[0].verdict == HOLDS
        leading.append(claim.verdict)
    assert held > 5
    assert set(leading) == {UNDECIDED}


def grid(selected: list[int]) -> dict[str, Any]:
    axes = {"tokens": ["all"], "space": ["raw"], "curvature": ["largest"], "rank": ["stable"]}
    axes |= {"neighbours": [10, 20], "ridge": [1e-3, 1e-1]}
    cells = [
        {
            **{axis: values[0] for axis, values in axes.items()},
            **{"neighbours": k, "ridge": rho, "selected": layer},
            **{"small_share": 1.0, "small_rank_spread": 0.0},
        }
        for (k, rho), layer in zip(
            [(20, 1e-3), (10, 1e-3), (20, 1e-1), (10, 1e-1)], selected, strict=True
        )
    ]
    return {"axes": axes, "cells": cells, "sample": {"stability_resamples": 30}}


def test_a_selection_that_hangs_on_the_protocol_fails() -> None:
    assert robust(Evidence(grids={"b": grid([2, 2, 2, 2])})).verdict == HOLDS
    assert robust(Evidence(grids={"b": grid([2, 3, 3, 3])})).verdict == FAILS
    assert robust(Evidence(grids={"b": grid([2, 2, 2, 3])})).verdict == UNDECIDED


def test_an_intervention_is_judged_in_the_diffused_space() -> None:
    def of(lo: float, hi: float, seeds: Sequence[int] = (0, 1, 2), backbones: int = 5) -> Evidence:
        interval = {"value": (lo + hi) / 2, "lo": lo, "hi": hi}
        own: dict[str, Any] = {
            "intervention": {"tau": {"diffused": {"kl": interval}, "raw": {"kl": None}}}
        }
        own |= {"backbone": "b", "budget": {"diffusion_tokens": 1}, "seeds": seeds}
        return Evidence(sweeps={"transform": {f"b{i}": own for i in range(backbones)}})

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
    assert by_replication({"a": 0.1, "b": 0.2}, 0.25, 1.0) == UNDECIDED
    assert by_replication({"a": 0.0, "b": -0.2}, 1.0, 0.25) == FAILS


def record(name: str, seed: int, replaced: int, tokens: int = 1, **metrics: float) -> Record:
    scores = [
        {
            **{"subject": name, "metric": metric, "value": value, "lo": None, "hi": None},
            **{"kind": "estimate", "n": 1, "unit": "", "task": "samples", "regime": "causal"},
            **{"version": 1, "dtype": "", "steps": 16, "chains": 1, "nfe": 16},
            **{"signal": "generated", "details": {}},
        }
        for metric, value in metrics.items()
    ]
    own = {"name": name, "replaced": replaced}
    config = {"seed": seed, "regime": "causal", "budget": {"diffusion_tokens": tokens}}
    config |= dict.fromkeys(("losses", "backbone", "corpus", "train"), "same")
    content = {"config": config, "interface": own, "scores": scores}
    return Record(content | {"budget": {"within": True}})


def test_text_is_compared_seed_by_seed_and_better_is_above_zero() -> None:
    records = []
    for seed, shift in enumerate((0.0, 10.0, 20.0)):
        records.append(record("hidden", seed, 1, gen_ppl=40 + shift, distinct_2=0.5))
        records.append(record("latent", seed, 1, gen_ppl=50 + shift, distinct_2=0.6 + 1e-3 * seed))
        records.append(record("c2d", seed, 8, gen_ppl=60 + shift))
    found = {(f.rival, f.statistic.split(":")[0]): f for f in generation_findings(records)}
    assert found["latent", "gen_ppl"].verdict == HOLDS  # pairs: seeds differ by more than rows
    assert found["latent", "gen_ppl"].leads
    assert found["latent", "distinct_2"].verdict == FAILS
    assert found["c2d", "gen_ppl"].verdict == HOLDS
    assert not found["c2d", "gen_ppl"].leads
    richer = [record("c2d", seed, 1, tokens=2, gen_ppl=1.0) for seed in range(3)]
    assert len(generation_findings(records + richer)) == len(found)  # of another budget: no pair
    for seed in range(3):  # nor is a run that spent more than it may
        records[3 * seed + 1].data["budget"]["within"] = False
    assert {f.rival for f in generation_findings(records)} == {"c2d"}
    for seed in range(3):
        records[3 * seed + 1].data["budget"]["within"] = True
    few = generation_findings(records[:6])
    assert {f.verdict for f in few} == {UNDECIDED}


def test_the_page_is_a_function_of_its_evidence(tmp_path: Path, capsys) -> None:
    write(tmp_path / "results", "span-2", {f"b{i}": table(WAVE, -WAVE) for i in range(3)})
    out = tmp_path / "claims.md"
    words = ["claims", str(tmp_path / "results"), "--out", str(out)]
    assert main(words) == 0
    text = out.read_text(encoding="utf-8")
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
    assert "cannot be read" in capsys.readouterr().err


def test_two_sweeps_of_one_backbone_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder, "span-2", {"b0": table(WAVE, -WAVE)})
    (tmp_path / "b" / "replication-span-2.json").unlink()
    with pytest.raises(UserError, match=r"b/b0/sweep-span-2.json is a second result of b0"):
        Evidence.read([tmp_path])


@pytest.mark.parametrize("missing", ["span-2", "layers"])
def test_a_missing_axis_is_no_verdict(missing: str, tmp_path: Path) -> None:
    axis = {"span-2": "layers", "layers": "span-2"}[missing]
    claim = predicts(write(tmp_path, axis, {f"b{i}": table(WAVE, -WAVE) for i in range(6)}))
    assert claim.verdict == (UNDECIDED if missing == "span-2" else HOLDS)


def test_the_committed_page_is_what_the_committed_results_say(capsys) -> None:
    root = Path(__file__).parent.parent.parent
    words = ["claims", str(root / "leaderboards"), "--out", str(root / "docs" / "claims.md")]
    assert main([*words, "--check"]) == 0, capsys.readouterr().out
