"""A comparison through the real command line: complete, resumable, paired over seeds."""

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.cli.main import main
from dihal_bench.training import phases

from ...conftest import Tiny

SHORT = {"budget__diffusion_tokens": 256, "budget__recovery_tokens": 256, "score__tokens": 256}
FLAGS = ["--interfaces", "embedding,hidden", "--seeds", "0,1,2", "--blocks", "scratch,sequence"]


def words(tiny: Tiny, out: Path, *flags: str) -> list[str]:
    settings = SHORT | {"score__steps": "1,3", "train__batch": 2}
    both = "--blocks" not in flags or any("sequence" in flag for flag in flags)
    own = ["--workers", "1", *(["--set", "block=4"] if both else [])]
    return ["compare", *tiny.flags(**settings), *own, *flags, "--out", str(out)]


@pytest.fixture(scope="module")
def compared(_tiny: Tiny, _tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory):
    """Folder and output of a comparison of three seeds."""
    out, err = tmp_path_factory.mktemp("compared") / "it", io.StringIO()
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIHAL_BENCH_CACHE", str(_tiny_cache))
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(err):
            assert main(words(_tiny, out, *FLAGS)) == 0, err.getvalue()
    return out, text.getvalue()


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of(folder: Path, block: str, row: str, **fields: str) -> dict[str, str]:
    wanted = {"block": block, "row": row} | fields
    found = [r for r in rows(folder) if all(r[k] == v for k, v in wanted.items())]
    assert found, wanted
    return found[-1]


def test_every_interface_and_control_has_its_row(compared) -> None:
    folder, text = compared
    causal = {r["row"] for r in rows(folder) if r["block"] == "scratch"}
    controls = {"regress", "regress-loop", "token-mean", "ridge", "mean", "identity", "lm"}
    assert causal == {"teacher", "hidden", "embedding", *controls}
    blocks = {r["row"] for r in rows(folder) if r["block"] == "sequence"}
    assert blocks == {"teacher", "hidden", "embedding", "regress", "lm"}
    assert "causal regime, from scratch" in text
    assert "sequence regime" in text
    assert text.index("hidden  ") < text.index("embedding  ")  # the reference comes first


def test_differences_are_to_the_reference_at_equal_evaluations(compared) -> None:
    folder, _ = compared
    hidden = of(folder, "scratch", "hidden", steps="3", chains="2")
    other = of(folder, "scratch", "embedding", steps="3", chains="2")
    assert float(other["versus"]) == pytest.approx(float(other["nll"]) - float(hidden["nll"]))
    assert hidden["versus"] == ""
    assert float(other["versus_lo"]) <= float(other["versus"]) <= float(other["versus_hi"])
    regress = of(folder, "scratch", "regress")
    single = of(folder, "scratch", "hidden", steps="3", chains="1")
    assert float(regress["versus"]) == pytest.approx(float(regress["nll"]) - float(single["nll"]))
    assert float(single["gain"]) == pytest.approx(
        float(of(folder, "scratch", single["gain_over"])["nll"]) - float(single["nll"])
    )


def test_pairs_are_of_an_interface_and_its_own_controls(compared) -> None:
    folder, text = compared
    with (folder / "pairs.csv").open(encoding="utf-8") as file:
        found = [r for r in csv.DictReader(file) if r["block"] == "scratch"]
    against = {r["against"] for r in found if r["row"] == "embedding"}
    assert against == {"lm"}
    assert {r["steps"] for r in found} == {"1", "3"}
    pair = next(r for r in found if r["row"] == "embedding" and r["steps"] == "3")
    own = of(folder, "scratch", "embedding", steps="3", chains=pair["chains"])
    lm = of(folder, "scratch", "lm")
    assert float(pair["nll"]) == pytest.approx(float(own["nll"]) - float(lm["nll"]))
    assert float(pair["brier1"]) == pytest.approx(float(own["brier1"]) - float(lm["brier1"]))
    assert float(pair["nll_lo"]) <= float(pair["nll"]) <= float(pair["nll_hi"])
    assert "NLL minus its" in text


def test_the_figure_is_the_same_again(compared, tiny: Tiny, capsys) -> None:
    folder, _ = compared
    before = {name: (folder / name).read_bytes() for name in ("brier.png", "brier.svg")}
    assert before["brier.png"].startswith(b"\x89PNG")
    assert main(words(tiny, folder, *FLAGS)) == 0
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_a_signal_withheld_is_a_pair_too(tiny: Tiny, tmp_path, capsys) -> None:
    flags = ["--interfaces", "c2d", "--blocks", "scratch"]
    assert main(words(tiny, tmp_path / "it", *flags)) == 0
    with (tmp_path / "it" / "pairs.csv").open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    trials = {"c2d, signal zeroed", "c2d, signal shuffled"}
    headline = {r["against"] for r in found if r["steps"] == "3"}
    assert headline == {"lm", "lm-decoder", *trials}
    assert {r["chains"] for r in found if r["against"] in trials} == {"2"}


def test_a_denoiser_has_its_own_settings(tiny: Tiny, tmp_path, capsys) -> None:
    flags = ["--interfaces", "embedding", "--denoisers", "transformer,sd-unet"]
    flags += ["--blocks", "scratch", "--set", "denoiser.sd-unet.image=4,2"]
    flags += ["--set", "denoiser.sd-unet.widths=8"]
    assert main(words(tiny, tmp_path / "it", *flags)) == 0, capsys.readouterr().err
    found = {}
    for file in (tmp_path / "it").glob("runs/*/record.json"):
        denoiser = json.loads(file.read_text(encoding="utf-8"))["config"]["denoiser"]
        found[denoiser["name"]] = denoiser.get("sd-unet")
    assert found == {
        "transformer": None,
        "sd-unet": {"image": [4, 2], "widths": [8], "vae": ""},
    }


def test_ranks_need_three_seeds_and_are_of_interfaces(compared) -> None:
    folder, _ = compared
    ranked = [r for r in rows(folder) if r["rank"]]
    assert {r["role"] for r in ranked} == {"interface"}
    assert {float(r["rank"]) for r in ranked} <= {1.0, 2.0}
    assert all(r["seeds"] == "3" for r in rows(folder) if r["role"] != "teacher")


def test_spending_is_that_of_the_budget(compared) -> None:
    folder, _ = compared
    for row in rows(folder):
        trained = row["row"] in ("hidden", "regress", "regress-loop", "embedding", "lm")
        assert int(row["diffusion_tokens"]) == (256 if trained else 0)
        assert int(row["recovery_tokens"]) == 0
    assert float(of(folder, "sequence", "embedding", chains="1")["bound"]) > 0


def test_issued_again_nothing_is_done_again(compared, tiny: Tiny, monkeypatch, capsys) -> None:
    folder, text = compared
    monkeypatch.setattr(phases, "train", None)
    assert main(words(tiny, folder, *FLAGS)) == 0
    assert capsys.readouterr().out == text


def test_an_interrupted_comparison_goes_on(tiny: Tiny, tmp_path, monkeypatch, capsys) -> None:
    flags = ["--interfaces", "embedding", "--blocks", "scratch,total"]
    done: list[str] = []
    train = phases.train

    def tired(trainees: Any, *arguments: Any, **settings: Any) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(trainees[0].name)
        train(trainees, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(phases, "train", tired)
        assert main(words(tiny, tmp_path / "it", *flags)) == 130
    assert len(list((tmp_path / "it").glob("runs/*/record.json"))) == 1
    assert not (tmp_path / "it" / "table.csv").exists()
    capsys.readouterr()
    assert main(words(tiny, tmp_path / "it", *flags)) == 0
    assert of(tmp_path / "it", "total", "embedding")["diffusion_tokens"] == "512"
    assert "run 1 of 2" not in capsys.readouterr().err


def test_equal_replaced_blocks(tiny: Tiny, tmp_path, capsys) -> None:
    flags = ["--interfaces", "all", "--blocks", "replaced", "--layer", "1", "--dry-run", "--json"]
    assert main(words(tiny, tmp_path / "it", *flags)) == 0
    runs = {run["interface"]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    assert (runs["hidden"]["layer"], runs["hidden"]["from"]) == ("1", 0)
    for name in ("embedding", "latent", "c2d"):
        assert runs[name]["from"] == 3, name  # of four blocks
    assert not (tmp_path / "it").exists()


def test_what_blocks_have_in_common_is_one_run(tiny: Tiny, tmp_path, capsys) -> None:
    flags = ["--interfaces", "all", "--layer", "1", "--blocks", "scratch,replaced"]
    assert main(words(tiny, tmp_path / "it", *flags, "--dry-run", "--json")) == 0
    folders: dict[str, set[str]] = {}
    for run in json.loads(capsys.readouterr().out)["runs"]:
        folders.setdefault(run["interface"], set()).add(run["folder"])
    counts = {name: len(own) for name, own in folders.items()}
    assert counts == {"hidden": 1, "embedding": 2, "latent": 2, "c2d": 2}


@pytest.mark.parametrize("interfaces", ["hidden,embedding", "embedding"])
def test_equal_replaced_blocks_above_a_condition(
    interfaces: str, tiny: Tiny, tmp_path, capsys
) -> None:
    flags = ["--interfaces", interfaces, "--blocks", "replaced", "--layer", "3", "--from", "1"]
    assert main(words(tiny, tmp_path / "it", *flags, "--dry-run", "--json")) == 0
    runs = {run["interface"]: run for run in json.loads(capsys.readouterr().out)["runs"]}
    assert runs["embedding"]["from"] == 2  # (2, 4] of four blocks, as many as (1, 3]


def test_a_dry_run_locates_nothing_and_leaves_nothing(tiny: Tiny, tmp_path, capsys) -> None:
    flags = ["--interfaces", "all", "--blocks", "scratch", "--dry-run", "--json"]
    assert main(words(tiny, tmp_path / "it", *flags)) == 0
    streams = capsys.readouterr()
    assert {run["layer"] for run in json.loads(streams.out)["runs"]} == {"auto"}
    assert "located when this is run" in streams.err
    assert not (tmp_path / "it").exists()


def test_a_dry_run_says_what_it_costs_and_counts_what_is_trained_once(
    tiny: Tiny, tmp_path, capsys
) -> None:
    flags = ["--layer", "1", "--blocks", "scratch,replaced", "--dry-run", "--json"]
    found = {}
    for names in ("embedding", "latent", "embedding,latent"):
        assert main(words(tiny, tmp_path / "it", "--interfaces", names, *flags)) == 0
        summary = json.loads(capsys.readouterr().out)["summary"]
        tokens = summary["training tokens"].partition(", left")[0]
        found[names] = int(tokens.replace(",", ""))
    common = 2 * 256  # their control, once per block
    assert found["embedding,latent"] == found["embedding"] + found["latent"] - common
    assert found["embedding"] == 2 * 2 * 256
    assert summary["runs"] == "4 (0 done, 4 left)"
    assert summary["budget"].startswith("custom: 256 recovery + 256 diffusion tokens")


@pytest.mark.parametrize("flags", [["--corpus", "/none"], ["--layer", "9"], ["--from", "7"]])
def test_a_dry_run_refuses_what_the_run_refuses(flags, tiny: Tiny, tmp_path, capsys) -> None:
    sentences = []
    for dry in ([], ["--dry-run"]):
        assert main(words(tiny, tmp_path / "it", "--blocks", "scratch", *flags, *dry)) == 2
        sentences.append(capsys.readouterr().err.splitlines()[-1])
        assert not (tmp_path / "it").exists()
    assert sentences[0] == sentences[1]


def test_a_dry_run_in_a_folder_of_another_comparison_is_refused(
    compared, tiny: Tiny, capsys
) -> None:
    folder, _ = compared
    assert main(words(tiny, folder, *FLAGS, "--set", "train.lr=0.5", "--dry-run")) == 2
    assert "holds a run of another configuration" in capsys.readouterr().err


def test_a_block_asked_for_twice_is_one(tiny: Tiny, tmp_path, capsys) -> None:
    flags = ["--interfaces", "embedding", "--blocks", "scratch,scratch"]
    assert main(words(tiny, tmp_path / "it", *flags)) == 0
    assert of(tmp_path / "it", "scratch", "embedding")["seeds"] == "1"


def test_seeds_have_a_flag_of_their_own(tiny: Tiny, tmp_path, capsys) -> None:
    assert main(words(tiny, tmp_path / "it", "--seed", "7")) == 2
    assert "compare takes --seeds" in capsys.readouterr().err


MINE = """
from dataclasses import dataclass
from dihal_bench.baselines.embedding import Embedding
from dihal_bench.core.registry import INTERFACES

@dataclass(frozen=True, kw_only=True)
class Mine:
    learned: bool = False
    rounding: str = "readout"
    clamp: bool = False
    sigma0: float = 0.01

@INTERFACES.register("mine")
class MyEmbedding(Embedding):
    Options = Mine
"""


@pytest.mark.usefixtures("registries")
def test_two_runs_at_a_time_give_the_same_table_with_included_code(
    tiny: Tiny, tmp_path, capsys
) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    flags = ["--interfaces", "mine,embedding", "--blocks", "scratch"]  # both need lm
    flags += ["--include", str(tmp_path / "mine.py"), "--set", "mine.sigma0=0.2"]
    found = []
    for workers in ("1", "2"):
        out = tmp_path / workers
        assert main(words(tiny, out, *flags, "--workers", workers)) == 0, capsys.readouterr().err
        found.append([{k: v for k, v in r.items() if k != "seconds"} for r in rows(out)])
        (file,) = out.glob("runs/mine-*/record.json")
        options = json.loads(file.read_text(encoding="utf-8"))["config"]["options"]
        assert options["mine"]["sigma0"] == 0.2
    assert found[0] == found[1]


def test_ranks_and_differences_know_the_task(tiny: Tiny, tmp_path, capsys) -> None:
    """At layer 1 of 4 hidden replaces one block, the rest all of them: no rank in common."""
    flags = ["--interfaces", "hidden,embedding", "--seeds", "0,1,2", "--layer", "1"]
    assert main(words(tiny, tmp_path / "it", *flags, "--blocks", "scratch,replaced")) == 0
    text = capsys.readouterr().out
    scratch, replaced = text.split("== causal regime, equal replaced")
    assert "†" in scratch.split("== causal")[1]
    assert "†" not in replaced.split("Differences are")[0]
    apart = [of(tmp_path / "it", "scratch", name) for name in ("hidden", "embedding")]
    assert [r["versus_flags"] for r in apart] == ["", "other task"]
    for name in ("hidden", "embedding"):
        top = of(tmp_path / "it", "scratch", name, steps="3", chains="2")
        assert float(top["rank"]) == 1.0, name


def test_a_row_without_a_likelihood_has_none(tiny: Tiny, tmp_path, capsys) -> None:
    flags = ["--interfaces", "embedding,hidden", "--blocks", "scratch", "--layer", "1"]
    flags += ["--set", "embedding.rounding=nearest"]
    assert main(words(tiny, tmp_path / "it", *flags)) == 0
    row = of(tmp_path / "it", "scratch", "embedding", steps="3", chains="2")
    assert [row[name] for name in ("nll", "versus", "kl", "gain")] == [""] * 4
    assert row["brier1"]
    assert of(tmp_path / "it", "scratch", "lm")["nll"]


def test_what_has_no_place_in_a_block_is_said(tiny: Tiny, tmp_path, capsys) -> None:
    flags = ["--interfaces", "embedding", "--denoisers", "transformer,mlp", "--dry-run", "--json"]
    assert main(words(tiny, tmp_path / "it", *flags, "--blocks", "scratch,sequence")) == 0
    streams = capsys.readouterr()
    assert len(json.loads(streams.out)["runs"]) == 3
    assert "left out: embedding with mlp in sequence, whose regime is sequence" in streams.err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--interfaces", "regress"], "--interfaces regress is a control"),
        (["--interfaces", "hiden"], "did you mean 'hidden'?"),
        (["--blocks", "all"], "--blocks all is unknown; choose among scratch, "),
        (["--seeds", "1,one"], "--seeds 1,one: give whole numbers"),
        (["--seeds", "1,1"], "--seeds 1,1: give different numbers"),
        (["--denoisers", "unet"], "there is no denoiser called 'unet'"),
    ],
)
def test_bad_input_is_one_sentence(flags, sentence, tiny: Tiny, tmp_path, capsys) -> None:
    assert main(words(tiny, tmp_path / "it", *flags)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in error
    assert not (tmp_path / "it").exists()


def test_a_failure_of_a_run_is_told(tiny: Tiny, tmp_path, capsys) -> None:
    flags = ["--interfaces", "embedding,latent", "--blocks", "scratch"]
    settings = ["--set", "train.lr=1e30"]
    assert main(words(tiny, tmp_path / "it", *flags, *settings)) == 2
    assert "error: " in capsys.readouterr().err
