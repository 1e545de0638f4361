"""Scores derive from the stored sums, the gain from the best control that may be used."""

import math
from dataclasses import replace

import numpy as np
import pytest

from dihal_bench.config.schema import ScoreConfig
from dihal_bench.core.errors import UserError
from dihal_bench.data.tokens import evaluation_windows
from dihal_bench.evaluation.aggregate import Measured, Traits, scores_of
from dihal_bench.evaluation.cache import ScoreCache
from dihal_bench.evaluation.evaluate import evaluate
from dihal_bench.evaluation.likelihood import TEACHER, TRUE, Row, Totals
from dihal_bench.reporting.run_table import run_table
from dihal_bench.reporting.writers import text
from dihal_bench.results.record import Score

from ..tiny import backbone, build, redrawn
from .texts import Text

MEASURED = Measured(task="text", regime="causal", dtype="float32", resamples=200, seed=0)
TOKENS = np.array([30.0, 50.0, 20.0, 60.0])
COUNTS = {"words": TOKENS // 2, "bytes": 3 * TOKENS}
HIDDEN = Row(subject="hidden", steps=4, chains=2)
TRAITS = {"hidden": Traits(stochastic=True), **dict.fromkeys(("loop", "ridge", "mean"), Traits())}


def totals(nll: float, *, chains: int = 1, kl: float = 0.5) -> Totals:
    """Sums of documents that differ in length and a little in their means."""
    wave = TOKENS * np.array([1.0, 1.1, 0.9, 1.0])
    sums = {"nll@1": nll * wave, "brier1": -0.1 * wave, "kl_reverse": 0.3 * wave}
    sums |= {"kl": kl * wave, "kl_chain": (kl + 0.1) * wave}
    sums |= {"top1": 0.6 * TOKENS, "top1_chain": 0.5 * TOKENS}
    if chains > 1:
        sums["nll@2"] = (nll - 0.05) * wave
    return Totals(tokens=TOKENS, **COUNTS, sums=sums)


ROWS = {
    Row(subject=TEACHER): totals(3.0, kl=0.0),
    HIDDEN: totals(4.0, chains=2),
    Row(subject="loop", steps=6): totals(3.5),
    Row(subject="ridge"): totals(4.4),
    Row(subject="mean"): totals(6.0),
}


@pytest.fixture(scope="module")
def scores() -> list[Score]:
    return scores_of(ROWS, TRAITS, MEASURED, reference=HIDDEN)


def one(scores: list[Score], subject: str, metric: str, chains: int = 1) -> Score:
    found = [s for s in scores if (s.subject, s.metric, s.chains) == (subject, metric, chains)]
    assert len(found) == 1, found
    return found[0]


def test_units_derive_from_the_stored_sums(scores):
    for subject, chains in ((TEACHER, 1), ("hidden", 1), ("hidden", 2), ("ridge", 1)):
        nll = one(scores, subject, "nll", chains)
        stored = nll.details
        assert nll.value == pytest.approx(stored["sum_nll"] / stored["tokens"])
        derived = {
            "ppl": math.exp(nll.value),
            "word_ppl": math.exp(stored["sum_nll"] / stored["words"]),
            "bits_per_byte": stored["sum_nll"] / (math.log(2) * stored["bytes"]),
        }
        for metric, value in derived.items():
            assert one(scores, subject, metric, chains).value == pytest.approx(value), metric
    ppl, nll = one(scores, "ridge", "ppl"), one(scores, "ridge", "nll")
    assert (ppl.lo, ppl.hi) == pytest.approx((math.exp(nll.lo), math.exp(nll.hi)))


def test_every_score_says_what_it_is(scores):
    for score in scores:
        assert score.n == TOKENS.sum()
        assert score.nfe == score.steps * score.chains
        assert score.kind in ("exact", "ensemble", "estimate")
        assert (score.kind == "exact") == (score.subject != "hidden")
        assert score.lo <= score.value <= score.hi
    brier = [s for s in scores if s.metric == "brier1"]
    assert [s.subject for s in brier] == ["teacher", "hidden", "loop", "ridge", "mean"]
    assert {s.kind for s in brier if s.subject == "hidden"} == {"estimate"}
    assert {s.value for s in scores if s.metric == "top1" and s.chains == 2} == {0.6}
    assert one(scores, "hidden", "top1").value == 0.5  # of single chains


def test_an_ensemble_says_whether_more_chains_would_change_it(scores):
    details = one(scores, "hidden", "nll", 2).details
    change = one(scores, "hidden", "nll", 1).value - one(scores, "hidden", "nll", 2).value
    assert details["change_from_half"] == pytest.approx(change)
    assert details["converged"] is False
    assert "converged" not in one(scores, "hidden", "nll", 1).details


def test_differences_are_paired(scores):
    excess = one(scores, "ridge", "nll_minus_teacher")
    assert excess.value == pytest.approx(1.4 * sum([30, 55, 18, 60]) / 160)
    apart = one(scores, "ridge", "nll")
    assert excess.hi - excess.lo < 0.5 * (apart.hi - apart.lo)
    beside = one(scores, "ridge", "nll_minus_interface")
    assert beside.value == pytest.approx(apart.value - one(scores, "hidden", "nll").value)
    assert beside.details["reference"] == "hidden"
    own = [s for s in scores if s.subject == "hidden" and s.metric == "nll_minus_interface"]
    assert all((s.steps, s.chains) != (own[-1].details["reference_steps"], 1) for s in own)


def test_the_gain_is_against_the_best_control_with_no_more_evaluations(scores):
    few, many = one(scores, "hidden", "diffusion_gain"), one(scores, "hidden", "diffusion_gain", 2)
    assert few.details["control"] == "ridge"  # the loop's six evaluations are more than four
    assert few.value > 0
    ridge, hidden = (one(scores, name, "nll").value for name in ("ridge", "hidden"))
    assert few.value == pytest.approx(ridge - hidden)
    assert many.details["control"] == "loop"  # two chains of four are more than six
    assert many.value < 0
    assert many.hi < 0
    gains = {s.subject for s in scores if s.metric == "diffusion_gain"}
    assert gains == {"hidden"}


def test_without_a_control_there_is_no_gain():
    rows = {row: sums for row, sums in ROWS.items() if row.subject in (TEACHER, "hidden")}
    scores = scores_of(rows, {"hidden": TRAITS["hidden"]}, MEASURED, reference=HIDDEN)
    assert not [s for s in scores if s.metric == "diffusion_gain"]


def test_a_hopeless_row_has_no_perplexity_but_still_a_likelihood():
    rows = ROWS | {Row(subject="mean"): totals(800.0)}
    scores = scores_of(rows, TRAITS, MEASURED, reference=HIDDEN)
    assert one(scores, "mean", "nll").value > 700
    assert not [s for s in scores if s.subject == "mean" and "ppl" in s.metric]
    assert "mean" in {row.value("row") for row in run_table(scores, [*TRAITS, TEACHER]).rows}


def test_text_without_words_has_no_perplexity_per_word():
    empty = {row: replace(sums, words=0 * TOKENS) for row, sums in ROWS.items()}
    scores = scores_of(empty, TRAITS, MEASURED, reference=HIDDEN)
    assert not [s for s in scores if s.metric == "word_ppl"]


def test_the_table_shows_every_row_in_order(scores):
    table = text(run_table(scores, [TEACHER, "hidden", "ridge", "loop", "mean"]))
    lines = table.splitlines()[2:]
    assert [line.split()[0] for line in lines] == [
        TEACHER,
        "hidden",
        "hidden",
        "ridge",
        "loop",
        "mean",
    ]
    hidden = lines[2]
    assert "ensemble(2)" in hidden
    for metric, form in (("nll", ".3f"), ("diffusion_gain", "+.4f")):
        score = one(scores, "hidden", metric, 2)
        assert f"{score.value:{form}} [{score.lo:{form}}, {score.hi:{form}}]" in hidden


def test_rows_of_every_kind_come_from_real_interfaces():
    text = Text([[(0, 3, 9), (1, 0, 15)], [(2, 0, 24)]])
    interfaces = {name: redrawn(name) for name in ("hidden", "regress-loop", "ridge")}
    config = ScoreConfig(tokens=48, steps=(1, 3), chains=4, batch=2, resamples=50)
    scorer = ScoreCache(data=text, backbone=backbone(), windows=range(2), batch=config.batch)
    scores, sums = evaluate(interfaces, scorer, config, MEASURED)
    assert {row.subject for row in sums} == {TEACHER, *interfaces}
    nll = {(s.subject, s.steps, s.chains) for s in scores if s.metric == "nll"}
    assert nll == {
        (TEACHER, 1, 1),
        ("hidden", 1, 1),  # one step from pure noise: all chains are equal
        *(("hidden", 3, chains) for chains in (1, 2, 4)),
        ("regress-loop", 3, 1),
        ("ridge", 1, 1),
    }
    references = {s.details["reference_steps"] for s in scores if s.metric == "nll_minus_interface"}
    assert references == {3}


def test_the_true_signal_is_a_row_without_a_likelihood():
    text = Text([[(0, 3, 9), (1, 0, 15)], [(2, 0, 24)]])
    config = ScoreConfig(tokens=48, steps=(3,), chains=2, batch=2, resamples=50)
    scorer = ScoreCache(data=text, backbone=backbone(), windows=range(2), batch=config.batch)
    found = {}
    for name, interface in {"hidden": redrawn("hidden"), "embedding": build("embedding")}.items():
        scores, _ = evaluate({name: interface}, scorer, config, MEASURED)
        own = [s for s in scores if s.signal == TRUE]
        assert {s.metric for s in own} == {"brier1", "top1"}
        assert {(s.steps, s.chains, s.kind) for s in own} == {(0, 1, "exact")}
        found[name] = {s.metric: s.value for s in own}
        teacher = next(s for s in scores if (s.subject, s.metric) == (TEACHER, "brier1"))
    assert found["hidden"]["top1"] == 1  # the teacher's own state
    assert found["hidden"]["brier1"] == pytest.approx(teacher.value, abs=1e-5)
    assert found["embedding"]["brier1"] > teacher.value + 0.1  # it bears the next token
    (row,) = (r for r in run_table(scores, [TEACHER, "embedding"]).rows if "true" in r.value("row"))
    assert row.value("nll_minus_interface") == "no likelihood"


@pytest.mark.parametrize(
    ("count", "tokens", "window", "expected"),
    [
        (10, 40, 10, [0, 3, 6, 9]),
        (3, 1000, 10, [0, 1, 2]),
        (5, 1, 10, [0]),
        (1, 10, 10, [0]),
    ],
)
def test_evaluation_windows_are_spread_evenly(count, tokens, window, expected):
    text = Text([[(row, 0, 4), (100 + row, 0, window - 4)] for row in range(count)])
    assert evaluation_windows(text, tokens) == expected


def test_windows_of_one_document_have_no_interval():
    text = Text([[(0, 0, 10)], [(0, 10, 10)], [(0, 20, 4), (1, 0, 6)]])
    assert evaluation_windows(text, 30) == [0, 1, 2]
    with pytest.raises(UserError, match=r"score.tokens=10 are of a single validation document"):
        evaluation_windows(text, 10)
