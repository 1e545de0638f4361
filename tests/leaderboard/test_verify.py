"""Records that are what a record looks like, and say of themselves what is not so."""

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.cli.main import main
from dihal_bench.core.errors import UserError
from dihal_bench.leaderboard.verify import Verified, verify, verify_all
from dihal_bench.results.record import Record

from ..conftest import dihal
from .conftest import Make, told


def score_of(record: Record, subject: str, metric: str, chains: int = 1) -> int:
    """The place of a score among those of a record."""
    wanted = subject, metric, chains
    scores = record.data["scores"]
    return next(
        i for i, s in enumerate(scores) if (s["subject"], s["metric"], s["chains"]) == wanted
    )


@pytest.mark.parametrize(
    ("metric", "chains", "detail", "to"),
    [
        ("nll", 1, "sum_nll", 1.0),
        ("nll", 1, "documents", 3),
        ("nll", 2, "change_from_half", -0.5),
        ("nll", 2, "converged", None),
        ("nll_minus_teacher", 1, "paired", None),
        ("nll_minus_interface", 2, "reference_steps", 7),
        ("diffusion_gain", 1, "control", "token-mean"),
        ("diffusion_gain", 1, "control_steps", 9),
    ],
)
def test_details_follow_from_the_sums(
    make: Make, metric: str, chains: int, detail: str, to: Any
) -> None:
    scores = copy.deepcopy(make().data["scores"])
    index = score_of(make(), "hidden", metric, chains)
    assert scores[index]["details"][detail] != to
    scores[index]["details"][detail] = to
    with pytest.raises(UserError, match=rf"scores\[{index}\]\.details\.{detail} .* is {to!r}, and"):
        verify(make(scores=scores))


def test_documents_that_were_added_up_are_counted_all_the_same(make: Make) -> None:
    data = copy.deepcopy(make().data)
    parts = len(data["sums"]["tokens"])
    data["sums"]["documents"] = 2 * parts
    for score in data["scores"]:
        if "documents" in score["details"]:
            score["details"]["documents"] = 2 * parts
    verify(Record.of(data))


@pytest.mark.parametrize(
    ("subject", "metrics", "named"),
    [
        ("regress", {"nll_minus_interface"}, "nll_minus_interface of regress (S=1, K=1)"),
        (
            "regress",
            {
                "nll",
                "ppl",
                "word_ppl",
                "bits_per_byte",
                "nll_minus_teacher",
                "kl",
                "kl_reverse",
                "nll_minus_interface",
                "kl_minus_interface",
            },
            "bits_per_byte of regress (S=1, K=1)",
        ),
        ("hidden", {"brier1"}, "brier1 of hidden (S=0, K=1)"),
        ("hidden", {"diffusion_gain"}, "diffusion_gain of hidden (S=1, K=1)"),
    ],
)
def test_a_score_that_is_missing_is_named(
    make: Make, subject: str, metrics: set[str], named: str
) -> None:
    scores = copy.deepcopy(make().data["scores"])
    kept = [s for s in scores if s["subject"] != subject or s["metric"] not in metrics]
    assert len(kept) < len(scores)
    with pytest.raises(UserError, match=re.escape(f"scores has no {named}, which its sums give")):
        verify(make(scores=kept))


def test_an_older_scorer_may_lack_a_metric_but_of_no_single_row(make: Make) -> None:
    scores = [{**s, "version": s["version"] - 1} for s in copy.deepcopy(make().data["scores"])]
    verify(make(scores=[s for s in scores if s["metric"] != "diffusion_gain"]))
    kept = [s for s in scores if (s["subject"], s["metric"]) != ("regress", "kl")]
    with pytest.raises(UserError, match="scores has no kl of regress"):
        verify(make(scores=kept))


def bounded(make: Make, regime: str, **changes: Any) -> Record:
    """A record with a bound of blocks beside its scores, in the words of a regime."""
    data = copy.deepcopy(make().data)
    data["regime"] = data["config"]["regime"] = regime
    first = "first_token_" if regime == "sequence" else ""
    for score in data["scores"]:
        score["regime"], score["metric"] = regime, f"{first}{score['metric']}"
    own = data["scores"][score_of(Record(data), "hidden", f"{first}nll")]
    bound = {**own, "metric": "block_bound", "kind": "bound", "nfe": 9, "details": {}}
    data["scores"].append(bound | changes)
    return Record.of(data)


def test_a_bound_of_blocks_is_of_blocks(make: Make) -> None:
    verify(bounded(make, "sequence"))
    with pytest.raises(UserError, match=r"\(hidden block_bound, .*\) follows from no sums"):
        verify(bounded(make, "causal"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "exact"}, "is exact .*, and no bound"),
        ({"value": -1.0, "lo": -2.0, "hi": 0.0}, "is bound -1.0, and no bound"),
        ({"steps": 7}, "is of no row"),
        ({"signal": "generated"}, "is of no row"),
    ],
)
def test_a_bound_that_is_none_is_named(make: Make, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"scores\[\d+\] \(hidden block_bound\) {said}"):
        verify(bounded(make, "sequence", **changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"value": 0.5, "lo": 0.0, "hi": 1.0}, "is 0.5, and its sums say .* over regress"),
        (
            {"details": {"control": "regress", "control_steps": 3}},
            "is of no row, or over none: regress in 3 steps",
        ),
        ({"details": {"control": "regress"}}, "is of no row, or over none: regress in None"),
    ],
)
def test_a_gain_in_blocks_is_over_the_control_that_it_names(
    make: Make, changes: dict[str, Any], said: str
) -> None:
    data = bounded(make, "sequence").data
    index = score_of(Record(data), "hidden", "first_token_diffusion_gain")
    data["scores"][index] |= {"details": {"control": "regress", "control_steps": 1}} | changes
    with pytest.raises(UserError, match=rf"scores\[{index}\] \(hidden first_token_diff.*\) {said}"):
        verify(Record.of(data))


def test_what_was_trained_hears_of_its_tokens(make: Make) -> None:
    gates = copy.deepcopy(make().data["gates"])
    gates["leak"]["token-mean"]["effect"] = 0.0  # fitted in closed form, where nothing may move
    verify(make(gates=gates))
    gates["leak"]["regress"]["effect"] = 0.0
    with pytest.raises(UserError, match=r"gates\.leak\.regress\.effect is 0, so that"):
        verify(make(gates=gates))


def test_a_record_that_fails_does_not_hide_the_others(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, scores = [], copy.deepcopy(make().data["scores"])
    scores[0]["value"] += 1e-3
    for record in (make(run="one"), make(scores=scores), make(run="two")):
        paths.append(tmp_path / f"{record.data['id']}.json")
        record.write(paths[-1])
    done: list[Record] = []

    def counted(record: Record) -> Verified:
        done.append(record)
        if len(done) == 1:
            raise IndexError("cannot do a non-empty take from an empty axes.")
        return replace(verify(record), taken=1)

    monkeypatch.setattr("dihal_bench.leaderboard.verify.verify", counted)
    (first, second), found = verify_all(paths)
    assert first.startswith(f"{paths[0]} cannot be verified (IndexError: cannot do a non-empty")
    assert "scores[0].value" in second
    assert len(done) == len(paths)
    assert found.taken == 1  # of the last one


@pytest.mark.parametrize(
    ("row", "name", "values"),
    [
        (1, "top1", None),
        (2, "nll@2", None),
        (1, "nll@1", 1e308),
        (0, "kl", None),
    ],
)
def test_sums_that_are_missing_or_none_are_named_by_the_command(
    make: Make, tmp_path: Path, row: int, name: str, values: float | None
) -> None:
    data = copy.deepcopy(make().data)
    sums = data["sums"]["rows"][row]["sums"]
    if values is None:
        del sums[name]
    else:
        sums[name] = [values] * len(sums[name])
    bad, good = Record.of(data), make(run="good")
    for record in (bad, good):
        path = tmp_path / "records" / f"{record.data['id']}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(record.text())
    status, out, err = dihal("leaderboard", "verify", "--dir", str(tmp_path))
    assert (status, err) == (1, "")
    said, count = out.splitlines()
    assert f"{bad.data['id']}.json: sums.rows[{row}].sums" in said
    assert name in said
    assert count == "1 of 2 records say the same as their sums"
    status, _, err = dihal(
        "leaderboard", "add", str(tmp_path / "records" / f"{bad.data['id']}.json")
    )
    assert status == 2
    assert f"sums.rows[{row}].sums" in err


def judged(make: Make, value: float, *, reaches: float = 4.5, row: str = "hidden S=4") -> Record:
    """A record with generated text: its perplexity at the entropy of real text, and a frontier."""
    data = copy.deepcopy(told(make(), 30.0, seed=0).data)
    at = {**data["scores"][-1], "metric": "gen_ppl_at_entropy", "value": value}
    data["scores"].append({**at, "lo": value, "hi": value})
    real = {"value": 4.25, "lo": 4.2, "hi": 4.3, "n": 9}
    points = [(0.9, 4.0, 10.0), (1.2, reaches, 40.0), (0.8, 3.0, 1.0)]
    data["audits"] = {
        "samples": {
            "data": {"entropy": real},
            "frontier": [
                {"row": row, "temperature": t, "entropy": h, "gen_ppl": p} for t, h, p in points
            ],
        }
    }
    return Record.of(data)


def test_a_perplexity_on_the_frontier_follows_from_its_points(make: Make) -> None:
    at = len(judged(make, 20.0).data["scores"]) - 1
    assert verify(judged(make, 20.0)).taken == 2  # the perplexity and the entropy have no sums
    with pytest.raises(UserError, match=rf"scores\[{at}\]\.value .* is 21\.0, .* says 20; "):
        verify(judged(make, 21.0))
    with pytest.raises(UserError, match="its frontier does not reach the entropy of real text"):
        verify(judged(make, 20.0, reaches=4.1))
    pointless = judged(make, 21.0, row="hidden S=1")
    assert verify(pointless).taken == 3
    data = copy.deepcopy(judged(make, 21.0).data)
    data["audits"]["samples"]["data"] = {}
    assert verify(Record.of(data)).taken == 3
    data = copy.deepcopy(judged(make, 20.0).data)
    data["audits"]["samples"]["frontier"][0]["gen_ppl"] = 0.0
    with pytest.raises(UserError, match="and its frontier"):
        verify(Record.of(data))


def test_what_is_not_computed_anew_is_counted(make: Make, tmp_path: Path) -> None:
    for record in (judged(make, 20.0), make(run="plain")):
        record.write(tmp_path / "records" / f"{record.data['id']}.json")
    status, out, _ = dihal("leaderboard", "verify", "--dir", str(tmp_path))
    assert (status, out.splitlines()) == (
        0,
        [
            "2 of 2 records say the same as their sums",
            "2 scores could not be computed anew: a record has no sums of other tasks, nor of "
            "bounds",
        ],
    )
    assert verify(bounded(make, "sequence")).taken == 1


def test_what_may_be_named_and_what_a_status_means_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for action in ("add", "verify"):
        with pytest.raises(SystemExit):
            main(["leaderboard", action, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "folders of runs, or files of records" in said
    assert "Exit status: 0 if all records are valid" in said


def test_a_run_is_verified_where_it_lies(
    finished: dict[str, Path], make: Make, tmp_path: Path
) -> None:
    run, said = finished["hidden"], (0, "1 of 1 records say the same as their sums\n", "")
    for named in (run, run / "record.json"):
        assert dihal("leaderboard", "verify", str(named)) == said
    make().write(tmp_path / "some-name.json")
    assert dihal("leaderboard", "verify", str(tmp_path / "some-name.json")) == said
    for named, why in (
        (tmp_path / "nowhere", "nowhere holds no complete run"),
        (tmp_path, f"give the files: {tmp_path}/*.json"),
    ):
        status, out, err = dihal("leaderboard", "verify", str(run), str(named))
        assert (status, out) == (2, "")
        assert why in err
    (tmp_path / "some-name.json").write_text("{")
    status, out, err = dihal("leaderboard", "verify", str(run), str(tmp_path / "some-name.json"))
    assert (status, err) == (1, "")
    assert "some-name.json is not a readable record: it is cut off" in out
