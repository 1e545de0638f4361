"""What a sweep refuses before it does anything, and what it says of what it would do."""

import json
import re
import shutil
from pathlib import Path

import pytest

from dihal_bench.cli.main import main
from dihal_bench.runs.rates import PhaseRates, Rates, Scoring
from dihal_bench.runs.timing import Work

from ...conftest import Tiny
from .test_sweep import refused, run, words


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--layers", "9"], "--layers 9: 9 names no layer from 1 to 3"),
        (["--layers", "1,x"], "x names no layer"),
        (["--layers", "2,"], "--layers 2,: an empty part names no layer"),
        (["--span", "4"], "--span 4 leaves no layer of 1 to 3"),
        (["--span", "0"], "--span 0 replaces nothing"),
        (["--from", "8"], "--from 8 leaves no layer of 1 to 3"),
        (["--from", "1", "--span", "1"], "--from 1 and --span 1 exclude each other"),
        (["--from", "0", "--span", "1"], "--from 0 and --span 1 exclude each other"),
        (["--set", "from_layer=1", "--span", "1"], "--from 1 and --span 1 exclude each other"),
        (["--from", "1", "--layers", "1,2"], "below the layer that is generated (1 for --layer 1)"),
        (["--span", "2", "--layers", "1,2,3"], "--span 2 does not fit below layer 1"),
        (["--span", "1", "--transform", "rotate"], "--span and --transform are different sweeps"),
        (["--over", "denoiser.name"], "write it as KEY=A,B"),
        (["--over", "denoiser.nam=a,b"], "denoiser.nam"),
        (["--over", "denoiser.name=mlp,transformer", "--layers", "1"], "give --layer instead"),
        (["--over", "denoiser.name=mlp"], "give two or more different values"),
        (["--over", "denoiser.name=mlp,mlp"], "give two or more different values"),
        (["--over", "denoiser.name=foo"], "there is no denoiser called 'foo'"),
        (["--over", "denoiser.name=foo,mlp", "--layer", "2"], "no denoiser called 'foo'"),
        (["--over", "corpus=/none,bundled", "--layer", "2"], "--corpus /none: there is no such"),
        (["--corpus", "/none"], "--corpus /none: there is no such file"),
        (["--grid", "--set", "locate.stability_sample=160"], "locate.windows at least 19"),
        (["--over", "seed=1,2"], "--over seed: seeds are what every candidate is trained with"),
        (["--over", "budget.diffusion_tokens=256,512"], "sweep them in separate folders"),
        (["--transform", "turn"], "transform turn is unknown"),
        (["--layer", "2"], "sweep takes --layers"),
        (["--seed", "3"], "sweep takes --seeds"),
        (["--seeds", "0,0"], "different numbers"),
        (["--layers-per-pass", "0"], "must be 1 or more"),
        (["--interface", "embedding"], "always enters at the last layer"),
        (["--backbones", "bundled"], "exclude each other"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    flags: list[str], message: str, tiny: Tiny, tmp_path: Path, capsys
) -> None:
    grid = ["--set", "locate.sample=200", "--set", "locate.windows=18"] if "--grid" in flags else []
    for dry in ([], ["--dry-run"]):
        assert message in refused(capsys, *words(tiny, tmp_path / "it", *flags, *grid, *dry))
        assert not (tmp_path / "it").exists()


def test_backbones_of_one_name_are_refused(tiny: Tiny, tmp_path: Path, capsys) -> None:
    flags = words(tiny, tmp_path / "it", "--backbones", "a/one,b/one")
    place = flags.index("--backbone")
    message = refused(capsys, *flags[:place], *flags[place + 2 :])
    assert "2 of them are called one" in message
    assert not (tmp_path / "it").exists()


def test_a_file_of_that_name_that_is_no_result_is_not_overwritten(
    tiny: Tiny, tmp_path: Path, capsys
) -> None:
    (tmp_path / "sweep-layers.json").write_text("[]", encoding="utf-8")
    assert "is not a sweep's result" in refused(capsys, *words(tiny, tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["sweep-layers.json"]


def test_a_sweep_that_is_hopeless_here_is_seen_to_be(tmp_path: Path, monkeypatch) -> None:
    second = Work(seconds=1.0)
    phase = PhaseRates(
        teacher=second,
        learn=dict.fromkeys(("hidden", "regress"), second),
        update=dict.fromkeys(("hidden", "regress"), second),
        state={},
    )
    names = ("hidden", "regress", "token-mean", "ridge", "mean", "identity")
    row = Scoring(fixed=second, evaluation=second, recovery=second)
    seconds = dict.fromkeys(
        ("reading", "statistics", "solving", "shared", "reconstruction"), second
    )
    rates = Rates(
        **seconds,
        layer=1,
        phases={"diffusion": phase},
        scoring=dict.fromkeys(names, row),
        weights=1.0,
    )
    monkeypatch.setattr("dihal_bench.runs.cost_estimate.Bench.rates", lambda own: rates)
    monkeypatch.setattr("dihal_bench.runs.cost_estimate.proxy_seconds", lambda *_: 1.0)
    monkeypatch.setattr("dihal_bench.runs.cost_estimate.pass_seconds", lambda *_, **__: 1.0)
    flags = ["--preset", "paper", "--dry-run", "--json", "--layers", "1,7"]
    found = json.loads(run("sweep", *flags, "--out", str(tmp_path / "it")))["summary"]
    assert re.match(r"about [\d,]+ days on this machine .* for what is left", found["time"])


def test_a_dry_run_that_knows_no_layer_says_so(tiny: Tiny, tmp_path: Path, capsys) -> None:
    flags = ["--over", "denoiser.name=transformer,mlp", "--seeds", "0", "--dry-run", "--json"]
    assert main(words(tiny, tmp_path / "it", *flags)) == 0
    streams = capsys.readouterr()
    assert "the layer is located when this is run" in streams.err
    assert {r["layer"] for r in json.loads(streams.out)["runs"]} == {"auto"}


def test_one_backbone_under_two_names_is_refused(tiny: Tiny, tmp_path: Path, capsys) -> None:
    for name in ("one", "two"):
        shutil.copytree(tiny.backbone, tmp_path / "zoo" / name)
    flags = words(tiny, tmp_path / "it", "--backbones", str(tmp_path / "zoo"))
    place = flags.index("--backbone")
    message = refused(capsys, *flags[:place], *flags[place + 2 :])
    assert "two has the same weights as one" in message
    assert not (tmp_path / "it").exists()
