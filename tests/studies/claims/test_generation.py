"""Generated text, compared: planted values of every part, and what they come to together."""

import re
from collections.abc import Sequence

import numpy as np
import pytest

from dihal_bench.results.record import Record
from dihal_bench.studies.claims.claim import FAILS, HOLDS, UNDECIDED, Claim
from dihal_bench.studies.claims.evidence import Evidence
from dihal_bench.studies.claims.generation import generates, generation_findings

REAL = {"distinct_2": 0.5, "self_bleu": 0.1}


def record(
    name: str,
    seed: int,
    replaced: int,
    *,
    tokens: int = 1,
    task: str = "samples",
    curve: Sequence[tuple[float, float]] = (),
    **metrics: float,
) -> Record:
    """Of one training: what its text was measured to be, and (entropy, gen-PPL) of a frontier."""
    scores = [
        {
            **{"subject": name, "metric": metric, "value": value, "lo": None, "hi": None},
            **{"kind": "estimate", "n": 1, "unit": "", "task": task, "regime": "causal"},
            **{"version": 1, "dtype": "", "steps": 16, "chains": 1, "nfe": 16},
            **{"signal": "generated", "details": {}},
        }
        for metric, value in metrics.items()
    ]
    own = {"name": name, "replaced": replaced, "from": 8 - replaced if name != "hidden" else 0}
    config = {"seed": seed, "regime": "causal", "budget": {"diffusion_tokens": tokens}}
    config |= dict.fromkeys(("losses", "backbone", "corpus", "train"), "same")
    points = [
        {"row": f"{name} S=16", "temperature": place, "entropy": entropy, "gen_ppl": perplexity}
        for place, (entropy, perplexity) in enumerate(curve)
    ]
    audit = {"data": {m: {"value": v} for m, v in REAL.items()}, "frontier": points[::-1]}
    content = {"config": config, "interface": own, "scores": scores, "budget": {"within": True}}
    content["layer"] = own["from"] + replaced
    return Record(content | {"tasks": {task: {"key": "k"}}, "audits": {task: audit}})


def texts(rival: str = "latent", replaced: int = 1, **changes: float) -> list[Record]:
    """Of three trainings: hidden's, and a rival's that is worse in everything."""
    found = []
    for seed, shift in enumerate((1.0, 1.2, 1.5)):
        curve = [(3.0, 20 * shift), (4.0, 40 * shift), (5.0, 80 * shift)]
        own = {"gen_ppl": 40 * shift, "entropy": 4.0, "distinct_2": 0.52, "self_bleu": 0.12}
        own["energy"] = 0.5 + shift / 100
        found.append(record("hidden", seed, 1, curve=curve, **own))
        other = {"gen_ppl": 100 * shift, "entropy": 4.5, "distinct_2": 0.6, "self_bleu": 0.05}
        other["energy"] = 0.9
        other |= {name: v * shift if name == "gen_ppl" else v for name, v in changes.items()}
        found.append(record(rival, seed, replaced, **other))
    return found


def generated(records: Sequence[Record]) -> Claim:
    return generates(Evidence(records=list(records)))


def test_better_text_in_every_part_holds() -> None:
    claim = generated(texts())
    (leading,) = (f for f in claim.findings if f.leads)
    assert claim.verdict == leading.verdict == HOLDS
    assert leading.rival.startswith("latent: gen-PPL 123 (49.3), entropy 4.5 (4)")
    assert re.sub(r" \[.*?\]", "", leading.value) == "; ".join(
        [
            f"{np.log(100 / 40):+.3g} holds",  # of pairs: seeds differ by more than rows do
            f"{np.log(100 / 40) - np.log(2) / 2:+.3g} holds",  # at an entropy of 4.5
            "+0.08 holds",
            "+0.03 holds",
        ]
    )


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"gen_ppl": 10.0}, FAILS),
        ({"gen_ppl": 50.0}, FAILS),  # less than hidden's at that entropy
        ({"distinct_2": 0.5}, FAILS),
        ({"self_bleu": 0.1}, FAILS),
        ({"distinct_2": 0.9}, HOLDS),  # more varied than any text
        ({"entropy": 6.0}, UNDECIDED),  # that hidden does not reach
    ],
)
def test_every_part_counts(changes: dict[str, float], verdict: str) -> None:
    claim = generated(texts(**changes))
    assert claim.verdict == verdict
    if "entropy" in changes:
        assert "; not measured undecided; " in claim.findings[0].value
    varied = next(f for f in claim.findings if f.statistic.startswith("distinct-2: more varied"))
    assert varied.verdict == (FAILS if changes.get("distinct_2", 0.6) > 0.52 else HOLDS)
    assert not varied.leads


@pytest.mark.parametrize(("energy", "verdict"), [(0.9, HOLDS), (0.1, FAILS)])
def test_the_energy_distance_stands_beside_and_decides_nothing(energy: float, verdict: str) -> None:
    claim = generated(texts(energy=energy))
    assert claim.verdict == HOLDS
    beside = next(f for f in claim.findings if f.statistic.startswith("energy distance"))
    assert (beside.verdict, beside.leads) == (verdict, False)


def test_where_hidden_does_not_reach_the_others_entropy_the_other_is_moved() -> None:
    records = texts(entropy=6.0)
    for own in records[1::2]:
        points = [{"row": "latent S=16", "entropy": e, "gen_ppl": 90.0} for e in (3.5, 6.0)]
        own.data["audits"]["samples"]["frontier"] = [
            point | {"temperature": place} for place, point in enumerate(points)
        ]
    assert generated(records).verdict == HOLDS


def test_all_rivals_have_to_be_beaten_at_equal_replaced_blocks() -> None:
    good, bad = texts(), texts("c2d", gen_ppl=10.0)
    assert generated(good + bad[1::2]).verdict == FAILS
    apart = generated(good + texts("c2d", 8, gen_ppl=10.0)[1::2])
    assert apart.verdict == HOLDS
    assert FAILS in {f.verdict for f in apart.findings if f.rival.startswith("c2d: ")}
    assert generated(texts("c2d", 8)).verdict == UNDECIDED


def test_texts_of_other_terms_are_no_pair() -> None:
    records = texts()
    count = len(generation_findings(records))
    richer = [record("c2d", seed, 1, tokens=2, gen_ppl=1.0) for seed in range(3)]
    assert len(generation_findings(records + richer)) == count
    prompted = [record("c2d", seed, 1, task="continuations", gen_ppl=1.0) for seed in range(3)]
    assert len(generation_findings(records + prompted)) == count
    assert generated(records[:4]).verdict == UNDECIDED  # of two trainings
    for own in records[1::2]:  # nor is a run that spent more than it may
        own.data["budget"]["within"] = False
    assert generation_findings(records) == []


def test_runs_that_differ_in_a_setting_are_not_taken_for_one() -> None:
    records = texts()
    count = len(generation_findings(records))
    for own in texts(gen_ppl=1.0)[1::2]:
        own.data["config"]["denoiser"] = {"name": "mlp"}
        records.append(own)
    assert generated(records).verdict == HOLDS
    assert len(generation_findings(records)) == count  # no hidden of that denoiser is there
