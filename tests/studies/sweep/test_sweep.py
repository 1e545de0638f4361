"""Sweeps through the real command line: complete, resumable, and ranked as scipy ranks."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from dihal_bench.cli.main import main
from dihal_bench.core.errors import UserError
from dihal_bench.leaderboard.board import read_sweeps
from dihal_bench.results.record import Record
from dihal_bench.studies.claims.evidence import Evidence
from dihal_bench.studies.study import plan
from dihal_bench.studies.sweep.outcomes import TITLES, Outcomes
from dihal_bench.studies.sweep.plan import layer_axis
from dihal_bench.training import phases

from ...conftest import Tiny, small_llama, small_tokenizer

SHORT = {"budget__diffusion_tokens": 256, "score__tokens": 256, "train__batch": 2}


def words(tiny: Tiny, out: Path, *flags: str) -> list[str]:
    return ["sweep", *tiny.flags(**SHORT), "--workers", "1", *flags, "--out", str(out)]


def run(*arguments: str) -> str:
    text, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(err):
        assert main(list(arguments)) == 0, err.getvalue()
    return text.getvalue()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(lines)
    return lines[-1]


@pytest.fixture(scope="module")
def swept(_tiny: Tiny, _tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory):
    """Folder and output of a sweep over all three layers with two seeds."""
    out = tmp_path_factory.mktemp("swept") / "it"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIHAL_BENCH_CACHE", str(_tiny_cache))
        text = run(*words(_tiny, out, "--seeds", "0,1", "--layers-per-pass", "3"))
    return out, text


def results(folder: Path, axis: str = "layers") -> dict:
    return json.loads((folder / f"sweep-{axis}.json").read_text(encoding="utf-8"))


def test_every_layer_and_seed_has_its_run(swept) -> None:
    folder, text = swept
    found = results(folder)
    assert found["candidates"] == ["1", "2", "3"]
    shapes = {name: np.shape(v) for name, v in found["losses"].items()}
    assert shapes == dict.fromkeys(TITLES, (2, 3))
    records = [json.loads(p.read_text()) for p in folder.glob("runs/*/record.json")]
    assert sorted((r["config"]["seed"], r["layer"]) for r in records) == [
        *((0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3))
    ]
    by_place = {(r["config"]["seed"], r["layer"]): r["bridge"]["fvu_mmse"] for r in records}
    assert found["losses"]["fvu_mmse"][1][2] == by_place[1, 3]
    first = next(r for r in records if (r["config"]["seed"], r["layer"]) == (0, 1))
    own = {
        (s["metric"], s["steps"], s["chains"]): s["value"]
        for s in first["scores"]
        if (s["subject"], s["signal"]) == ("hidden", "sampled")
    }
    most = max(steps for _, steps, _ in own)
    chains = max(k for metric, steps, k in own if (metric, steps) == ("brier1", most))
    assert {name: values[0][0] for name, values in found["losses"].items()} == {
        "fvu_mmse": first["bridge"]["fvu_mmse"],
        "kl_one_step": own["kl", 1, 1],
        "kl": own["kl", most, 1],
        "nll": own["nll", most, 1],
        "brier": 1 - own["brier1", most, chains],
    }
    assert "one bridge per layer" in text
    for suffix in ("md", "png", "svg"):
        assert (folder / f"sweep-layers.{suffix}").stat().st_size > 100


def test_a_result_says_what_it_rests_on(swept) -> None:
    folder, text = swept
    found = results(folder)
    records = [json.loads(p.read_text()) for p in folder.glob("runs/*/record.json")]
    assert sorted(found["rests_on"]["records"]) == sorted(r["id"] for r in records)
    assert found["rests_on"]["backbones"] == [records[0]["backbone"]["fingerprint"]]
    assert found["rests_on"]["corpora"] == [records[0]["corpus"]["fingerprint"]]
    assert found["rests_on"]["devices"] == ["cpu"]
    assert found["rests_on"]["threads"] == sorted({r["environment"]["threads"] for r in records})
    assert found["sample"] == {"tokens": 200, "kept": 320, "resamples": 2}
    assert "2, of 200 of 320 tokens." in text
    (sweep,) = Evidence.read([folder]).sweeps
    assert sweep == found
    assert read_sweeps(folder) == ([found], [])


def test_one_layer_has_no_ranking_and_no_stability(tiny: Tiny, tmp_path: Path, capsys) -> None:
    flags = ["--layers", "2", "--seeds", "0", "--interface", "ridge", "--set", "locate.sample=3000"]
    text = run(*words(tiny, tmp_path / "it", *flags))
    assert "of 320 of 320 tokens. They leave nothing out" in text
    page = run("claims", str(tmp_path / "it"))
    assert "nan" not in page
    assert page.count("| undefined") >= 3
    assert "holds |" not in page


def test_the_ranking_is_scipys_of_what_is_written(swept) -> None:
    folder, _ = swept
    found = results(folder)
    for loss, some in found["ranking"].items():
        mean = np.mean(found["losses"][loss], axis=0)
        for name, own in some.items():
            values = found["predictions"][name]
            assert own["predicted"] == int(np.argmax(values))
            assert own["regret"]["value"] == pytest.approx(mean[np.argmax(values)] - mean.min())
            if name in ("early", "middle", "late"):
                assert own["kendall"]["value"] is None
                continue
            expected = stats.kendalltau(values, -mean).statistic
            assert own["kendall"]["value"] == pytest.approx(expected)
            depth = stats.kendalltau([-1, -2, -3], -mean).statistic
            assert own["advantage"]["value"] == pytest.approx(expected - depth)


def test_the_score_and_every_rival_stand_side_by_side(swept) -> None:
    folder, text = swept
    names = set(results(folder)["predictions"])
    proxies = {"curvature", "stiffness", "-effective rank"}
    cells = {"score", *proxies} | {f"{name}, matched" for name in ("score", *proxies)}
    rivals = {"depth", "log norm", "early", "middle", "late", "ridge FVU", "token-mean FVU"}
    assert names == cells | rivals
    assert "p-value" in text  # and why there is none
    assert " p " not in text.partition("Predictors are")[0]


def test_the_score_is_that_of_locate(swept, tiny: Tiny, tmp_path: Path) -> None:
    folder, _ = swept
    located = json.loads(
        run("locate", *tiny.flags(**SHORT), "--json", "--out", str(tmp_path / "it"))
    )
    found = results(folder)["predictions"]
    for view, suffix in (("paper", ""), ("matched", ", matched")):
        rows = located["cells"][view]["layers"]
        expected = [row["score"]["value"] for row in rows]
        np.testing.assert_allclose(found[f"score{suffix}"], expected, rtol=1e-9)


def test_the_ridge_is_the_control_of_that_name(swept, tiny: Tiny, tmp_path: Path) -> None:
    """The closed forms' FVU equals what a run measures of them as interfaces."""
    folder, _ = swept
    found = results(folder)["predictions"]
    for name in ("ridge", "token-mean"):
        flags = ["--interface", name, "--layer", "2", "--set", "controls="]
        run("run", *tiny.flags(**SHORT), *flags, "--out", str(tmp_path / name))
        record = json.loads((tmp_path / name / "record.json").read_text())
        assert -found[f"{name} FVU"][1] == pytest.approx(record["bridge"]["fvu_mmse"], rel=1e-4)


def test_the_same_command_repeats_nothing(swept, tiny: Tiny, monkeypatch) -> None:
    folder, text = swept
    times = {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/record.json")}
    monkeypatch.setattr(phases, "train", lambda *a, **k: pytest.fail("trained again"))
    assert run(*words(tiny, folder, "--seeds", "0,1", "--layers-per-pass", "2")) == text
    assert times == {p: p.stat().st_mtime_ns for p in folder.glob("runs/*/record.json")}


def test_runs_of_one_pass_are_those_of_runs_alone(swept, tiny: Tiny, tmp_path: Path) -> None:
    folder, _ = swept
    run(*words(tiny, tmp_path / "it", "--seeds", "1", "--layers", "2"))
    (alone,) = (tmp_path / "it" / "runs").glob("*/record.json")
    own = json.loads(alone.read_text())
    (other,) = (
        record
        for p in folder.glob("runs/*/record.json")
        if (record := json.loads(p.read_text()))["config"] == own["config"]
    )
    assert own["scores"] == other["scores"]
    assert own["bridge"] == other["bridge"]


@pytest.mark.parametrize(
    ("flags", "lost"),
    [
        (["--seeds", "0,1", "--layers", "2"], "which has candidates 1, 3 as well"),
        (["--seeds", "0"], "which has seeds 1 as well"),
        (["--seeds", "0,2", "--layers", "1,2"], "which has candidates 3 and seeds 1 as well"),
    ],
)
def test_an_earlier_result_of_more_is_not_overwritten(
    flags: list[str], lost: str, swept, tiny: Tiny, capsys
) -> None:
    folder, _ = swept
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    for dry in ([], ["--dry-run"]):
        message = refused(capsys, *words(tiny, folder, *flags, *dry))
        assert f"sweep-layers.json would be overwritten, {lost}; choose another --out" in message
    after = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert {p for p in before if before[p] != after.get(p)} <= {
        *(folder / name for name in (".lock", "config.json"))
    }


def test_one_more_layer_replaces_the_result_and_what_was_drawn_of_it(
    tiny: Tiny, tmp_path: Path
) -> None:
    flags = ["--seeds", "0", "--interface", "ridge"]
    text = run(*words(tiny, tmp_path, *flags, "--layers", "2"))
    assert "fewer than 3 candidates have no ranking" in text
    for name in ("sweep-layers.png", "grid-layers.md"):  # of whatever was there
        (tmp_path / name).write_text("old", encoding="utf-8")
    run(*words(tiny, tmp_path, *flags, "--layers", "2"))
    assert (tmp_path / "grid-layers.md").exists()  # of the same candidates it is right
    run(*words(tiny, tmp_path, *flags, "--layers", "1,2"))
    assert results(tmp_path)["candidates"] == ["1", "2"]
    found = {p.name for p in tmp_path.iterdir() if p.name.startswith(("sweep-", "grid-"))}
    assert found == {"sweep-layers.json", "sweep-layers.md"}


def test_it_is_said_with_what_the_runs_were_made(swept) -> None:
    folder, text = swept
    record = json.loads(next(folder.glob("runs/*/record.json")).read_text())
    nll = next(
        s["value"] for s in record["scores"] if (s["subject"], s["metric"]) == ("teacher", "nll")
    )
    setting = (
        f"backbone: {record['backbone']['name']} (4 blocks); corpus: {record['corpus']['name']}; "
        f"tokens of training: 256 diffusion; seeds: 0, 1; the teacher's NLL: {nll:.3f}"
    )
    assert setting in text
    assert setting in (folder / "sweep-layers.md").read_text(encoding="utf-8")


def test_a_dry_run_says_what_is_left_and_what_it_costs(swept, tiny: Tiny, tmp_path: Path) -> None:
    folder, _ = swept
    flags = ["--seeds", "0,1", "--layers-per-pass", "3", "--dry-run", "--json"]
    done, new = (json.loads(run(*words(tiny, out, *flags))) for out in (folder, tmp_path / "new"))
    assert [len(done["runs"]), {r["done"] for r in done["runs"]}] == [6, {True}]
    pass_of = "; up to 3 of them learn from one pass of the teacher"
    assert done["summary"]["runs"] == f"6 (6 done, 0 left){pass_of}"
    assert new["summary"]["runs"] == f"6 (0 done, 6 left){pass_of}"
    assert done["summary"]["training tokens"].startswith("1,536, left 0; ")
    assert new["summary"]["training tokens"].startswith("1,536, left 1,536; ")
    assert done["summary"]["budget"].startswith("custom: 512 recovery + 256 diffusion")
    assert done["summary"]["training FLOPs"].endswith("left 0")
    assert "GiB" in new["summary"]["memory"]
    assert not (tmp_path / "new").exists()
    again = json.loads(run(*words(tiny, folder, "--seeds", "0,1,2", "--dry-run", "--json")))
    assert again["summary"]["runs"] == "9 (6 done, 3 left)"


def test_a_span_is_a_sweep_of_its_own_in_the_same_folder(swept, tiny: Tiny) -> None:
    folder, _ = swept
    run(*words(tiny, folder, "--seeds", "0", "--span", "1"))
    found = results(folder, "span-1")
    assert found["candidates"] == ["1", "2", "3"]
    # (0, 1] is the same run in both
    assert found["losses"]["kl"][0][0] == results(folder)["losses"]["kl"][0][0]
    assert found["losses"]["kl"][0][2] != results(folder)["losses"]["kl"][0][2]
    records = [json.loads(p.read_text()) for p in folder.glob("runs/*/record.json")]
    assert {(2, 3), (1, 2)} <= {(r["interface"]["from"], r["layer"]) for r in records}


def test_any_setting_can_be_swept(tiny: Tiny, tmp_path: Path) -> None:
    flags = ["--over", "denoiser.name=transformer,mlp", "--layer", "2", "--seeds", "0"]
    text = run(*words(tiny, tmp_path / "it", *flags))
    found = results(tmp_path / "it", "over-denoiser.name")
    assert found["candidates"] == ["transformer", "mlp"]
    assert found["ranking"] == {}
    assert found["losses"]["kl"][0][0] != found["losses"]["kl"][0][1]
    assert "one run per denoiser.name" in text


def test_coordinates_can_be_swept(tiny: Tiny, tmp_path: Path) -> None:
    flags = ["--transform", "rotate,scale,spectrum:1", "--layers", "1,2", "--seeds", "0"]
    run(*words(tiny, tmp_path / "it", *flags, "--layers-per-pass", "8"))
    assert [own["axis"] for own in Evidence.read([tmp_path / "it"]).sweeps] == ["transform"]
    found = results(tmp_path / "it", "transform")["intervention"]
    scale = found["differences"]["scale:4"]
    for loss in ("kl", "nll", "fvu_mmse"):  # a power of two divides out of what is diffused
        assert scale[loss]["value"] == pytest.approx(0, abs=1e-6)
    assert found["differences"]["spectrum:1"]["kl"]["value"] != 0
    assert found["moved"]["scale:4"]["diffused"] == 0
    assert found["moved"]["scale:4"]["raw"] > 1
    assert found["moved"]["rotate"] == {"diffused": 0, "raw": 0}
    assert found["moved"]["spectrum:1"]["diffused"] > 1


def test_backbones_are_the_unit_of_replication(tiny: Tiny, tmp_path: Path, capsys) -> None:
    texts = [json.loads(line)["text"] for line in tiny.corpus.read_text().splitlines()]
    for name, blocks in (("four", 4), ("five", 5)):
        small_llama(blocks).save_pretrained(tmp_path / "zoo" / name)
        small_tokenizer(texts).save_pretrained(tmp_path / "zoo" / name)
    own = [w for w in words(tiny, tmp_path / "it", "--seeds", "0") if w != str(tiny.backbone)]
    own.remove("--backbone")
    text = run(*own, "--backbones", str(tmp_path / "zoo"), "--layers-per-pass", "4")
    said = json.loads((tmp_path / "it" / "replication-layers.json").read_text())
    rows = said["rows"]
    (kl,) = (r for r in rows if (r["outcome"], r["statistic"]) == ("kl", "τ(score) - τ(depth)"))
    tables = {name: results(tmp_path / "it" / name) for name in ("four", "five")}
    assert [len(t["candidates"]) for t in tables.values()] == [3, 4]
    assert said["sweeps"] == {name: table["id"] for name, table in tables.items()}
    assert len(Evidence.read([tmp_path / "it"]).replications) == 1
    expected = {n: t["ranking"]["kl"]["score"]["advantage"]["value"] for n, t in tables.items()}
    assert kl["values"] == expected
    assert kl["test"]["mean"] == pytest.approx(np.mean(list(expected.values())))
    assert kl["test"]["least"] == 0.25
    assert all(r["test"] is None for r in rows if "τ(score)" not in r["statistic"])
    assert "sign-flip" in text
    small_llama(6).save_pretrained(tmp_path / "six")
    small_tokenizer(texts).save_pretrained(tmp_path / "six")
    message = refused(capsys, *own, "--backbones", f"{tmp_path / 'zoo' / 'four'},{tmp_path}/six")
    assert "replication-layers.json would be overwritten, which has the backbones five" in message
    assert json.loads((tmp_path / "it" / "replication-layers.json").read_text()) == said


def test_runs_of_different_budgets_are_not_ranked(swept) -> None:
    folder, _ = swept
    done = {json.loads(p.read_text())["layer"]: p.parent for p in folder.glob("runs/*/record.json")}
    axis = layer_axis([1, 2, 3], start=0, span=None)
    from dataclasses import replace

    from dihal_bench.config.resolve import resolve

    entries = plan(
        axis.candidates, [0], lambda own, seed: resolve(values={}, sets=own.settings), folder
    )
    kept = [replace(e, run=replace(e.run, folder=done[int(e.candidate.label)])) for e in entries]
    changed = folder.parent / "changed"
    record = json.loads((kept[1].run.folder / "record.json").read_text())
    for budget in (record["budget"], record["config"]["budget"]):
        budget["diffusion_tokens"] *= 2
    Record.of(record).write(changed / "record.json")
    kept[1] = replace(kept[1], run=replace(kept[1].run, folder=changed))
    with pytest.raises(UserError, match=r"budget\.diffusion_tokens=512, the first run with 256"):
        Outcomes.gather(kept)


def test_a_folder_of_another_configuration_is_refused(swept, tiny: Tiny, capsys) -> None:
    folder, _ = swept
    other = {**SHORT, "budget__diffusion_tokens": 512}
    flags = [*tiny.flags(**other), "--workers", "1", "--seeds", "0,1", "--out", str(folder)]
    before = sorted(p.name for p in folder.rglob("*"))
    for dry in ([], ["--dry-run"]):
        assert "holds a run of another configuration" in refused(capsys, "sweep", *flags, *dry)
    assert sorted(p.name for p in folder.rglob("*")) == before


@pytest.mark.parametrize("flags", [["--over", "score.batch=4,8", "--layer", "1"], []])
def test_backbones_with_too_few_candidates_are_not_ranked(
    flags: list[str], tiny: Tiny, tmp_path: Path
) -> None:
    texts = [json.loads(line)["text"] for line in tiny.corpus.read_text().splitlines()]
    for name, blocks in (("a", 3), ("b", 4)):
        small_llama(blocks).save_pretrained(tmp_path / "zoo" / name)
        small_tokenizer(texts).save_pretrained(tmp_path / "zoo" / name)
    own = words(tiny, tmp_path / "it", "--seeds", "0", "--interface", "ridge", *flags)
    place = own.index("--backbone")
    run(*own[:place], *own[place + 2 :], "--backbones", str(tmp_path / "zoo"))
    path = tmp_path / "it" / "replication-layers.json"
    assert path.exists() == (not flags)
    if not flags:
        rows = json.loads(path.read_text())["rows"]
        tau = next(r for r in rows if (r["outcome"], r["statistic"]) == ("kl", "τ(score)"))
        expected = results(tmp_path / "it" / "b")["ranking"]["kl"]["score"]["kendall"]["value"]
        assert tau["values"] == {"a": None, "b": expected}  # two candidates have no ranking
