"""The whole job through the real command line, on a model and a text of a few kilobytes."""

import contextlib
import io
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

import dihal_bench.runs.context
import dihal_bench.runs.execute
from dihal_bench.cli.main import main
from dihal_bench.config.resolve import resolve
from dihal_bench.core.errors import UserError
from dihal_bench.results.record import Record
from dihal_bench.training import trainer
from dihal_bench.training.trainee import TrainState

from ..conftest import SETTINGS, Tiny

CONTROLS = ["regress", "token-mean", "ridge", "mean", "identity"]
MINE = """
from dihal_bench.interfaces.hidden import HiddenSpace
from dihal_bench.core.registry import INTERFACES


@INTERFACES.register("mine")
class Mine(HiddenSpace):
    "A user's own."
"""


@dataclass(frozen=True)
class Finished:
    folder: Path
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        return Record.read(self.folder / "record.json").data


def finish(tiny: Tiny, folder: Path, *flags: str, **settings: object) -> Finished:
    """Run to the end, in this process."""
    out, err = io.StringIO(), io.StringIO()
    words = ["run", *tiny.flags(**settings), "--out", str(folder), *flags]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(words) == 0, err.getvalue()
    return Finished(folder, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def first(_tiny: Tiny, _tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run at the middle layer with the usual controls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIHAL_BENCH_CACHE", str(_tiny_cache))
        return finish(_tiny, tmp_path_factory.mktemp("runs") / "first", "--layer", "middle")


def timeless(record: dict[str, Any]) -> str:
    """The record as JSON, without what may differ between equal runs."""
    data = json.loads(json.dumps(record))
    for name in ("created", "command", "id", "seal"):
        del data[name]
    for phases in data["spent"].values():
        for spent in phases.values():
            del spent["seconds"], spent["peak_memory_bytes"]
    del data["gates"]["seconds"]
    return json.dumps(data, sort_keys=True)


def test_the_record_is_complete(first: Finished):
    record = first.record
    assert (record["layer"], record["layer_policy"], record["interface"]["replaced"]) == (
        2,
        "middle",
        2,
    )
    assert record["budget"] == {
        **{"name": "custom", "diffusion_tokens": 1024, "recovery_tokens": 512},
        **{"matched": "diffusion", "within": True, "diffusion": 1.0, "trunk": 1.0},
    }
    assert list(record["gates"]["leak"]) == sorted(["hidden", *CONTROLS])
    subjects = {score["subject"] for score in record["scores"]}
    assert subjects == {"teacher", "hidden", *CONTROLS}
    for name in ("hidden", "regress"):
        spent = record["spent"][name]["diffusion"]
        assert (spent["tokens"], spent["steps"]) == (1024, 8)
        assert spent["flops"] == pytest.approx(spent["flops_per_token"] * 1024)
        assert len(record["bridge"]["curves"][name]["diffusion"]) == 8
    assert record["spent"]["ridge"] == {}
    assert record["interface"]["origin"] == "dihal_bench.interfaces.hidden:Hidden"
    assert len(record["locate"]["cells"]["paper"]["layers"]) == 3


def test_scores_rest_on_the_same_tokens(first: Finished):
    nll = [s for s in first.record["scores"] if s["metric"] == "nll"]
    counts = [{k: s["details"][k] for k in ("tokens", "words", "bytes", "documents")} for s in nll]
    assert all(count == counts[0] for count in counts)
    assert counts[0]["tokens"] <= 512
    chains = {s["chains"]: s["value"] for s in nll if s["subject"] == "hidden" and s["steps"] == 4}
    assert chains[2] < chains[1]


def test_the_streams_are_apart(first: Finished):
    for text in ("curvature", "diffusion gain", "leak gate: passed", str(first.folder)):
        assert text in first.out
        assert text not in first.err
    for text in ("backbone: ", "training hidden and regress: diffusion", "scoring"):
        assert text in first.err
        assert text not in first.out.replace("scored", "")
    assert "Loading weights" not in first.err
    rows = [line.split()[0] for line in first.out.split("diffusion gain")[1].splitlines()[2:]]
    assert rows[: 5 + len(CONTROLS)] == ["teacher", *["hidden"] * 3, "hidden,", *CONTROLS]


def test_weights_are_kept_as_safetensors(first: Finished):
    names = {path.name for path in (first.folder / "weights").iterdir()}
    assert names == {f"{name}.safetensors" for name in ("hidden", *CONTROLS)}
    assert {p.name for p in first.folder.iterdir()} == {
        *(".lock", "config.json", "inputs.json", "record.json", "shared"),
        *("training-diffusion-hidden-regress.safetensors", "weights"),
    }


def test_the_same_seed_gives_the_same_record_bit_for_bit(first: Finished, tiny: Tiny, tmp_path):
    again = finish(tiny, tmp_path / "run", "--layer", "middle", "--json")
    assert timeless(again.record) == timeless(first.record)
    assert json.loads(again.out) == again.record  # and nothing else on standard output
    for file in (first.folder / "weights").iterdir():
        assert (again.folder / "weights" / file.name).read_bytes() == file.read_bytes()


def test_an_interrupted_run_continues_to_the_same_record(
    first: Finished, tiny: Tiny, tmp_path, monkeypatch, capsys
):
    update = TrainState.update

    def tired(self, number, steps):
        if number == 5:
            raise KeyboardInterrupt
        return update(self, number, steps)

    monkeypatch.setattr(trainer, "_CHECKPOINT_SECONDS", 0.0)
    words = ["run", *tiny.flags(), "--layer", "middle", "--out", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "update", tired)
        assert main(words) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("the same command continues.")
    assert (tmp_path / "run" / "training-diffusion-hidden-regress.safetensors").exists()
    assert not (tmp_path / "run" / "record.json").exists()
    taken = []
    with monkeypatch.context() as patch:
        patch.setattr(TrainState, "update", lambda *a: taken.append(a[1]) or update(*a))
        assert main(words) == 0
    assert sorted(set(taken)) == [5, 6, 7]
    assert timeless(Record.read(tmp_path / "run" / "record.json").data) == timeless(first.record)


def test_a_complete_run_is_shown_and_not_done_again(
    first: Finished, tiny: Tiny, monkeypatch, capsys
):
    monkeypatch.setattr(dihal_bench.runs.context.PhaseRunner, "run", None)
    monkeypatch.setattr(dihal_bench.runs.context, "locate", None)
    before = (first.folder / "record.json").read_bytes()
    words = ["run", *tiny.flags(), "--layer", "middle", "--out", str(first.folder)]
    assert main(words) == 0
    streams = capsys.readouterr()
    table = first.out[first.out.index("row ") :]
    assert streams.out == table
    assert "already complete" in streams.err
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first.record
    assert (first.folder / "record.json").read_bytes() == before


def test_another_configuration_needs_another_folder(first: Finished, tiny: Tiny, capsys):
    before = (first.folder / "record.json").read_bytes()
    for flags in (["--layer", "late"], ["--layer", "middle", "--seed", "1"]):
        assert main(["run", *tiny.flags(), "--out", str(first.folder), *flags]) == 2
        assert "holds a run of another configuration" in capsys.readouterr().err
    assert (first.folder / "record.json").read_bytes() == before


def test_a_folder_is_one_process_at_a_time(tiny: Tiny, tmp_path, capsys):
    sets = [f"{key}={value}" for key, value in SETTINGS.items()]
    values = {"backbone": str(tiny.backbone), "corpus": str(tiny.corpus)}
    config = resolve(values=values, sets=sets)
    with dihal_bench.runs.execute.claimed(tmp_path / "run", config):
        assert main(["run", *tiny.flags(), "--out", str(tmp_path / "run")]) == 2
        assert main(["locate", *tiny.flags(), "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("another process works on this run; wait for it.") == 2


CASES = {
    "late": (["--layer", "late"], {"layer": 3, "from": 0}),
    "number, between": (["--layer", "3", "--from", "1"], {"layer": 3, "from": 1}),
    "auto": (["--set", "bridge.residual=none"], {"layer": 1, "from": 0}),
    "loop": (["--layer", "2", "--controls", "regress-loop"], {"layer": 2, "from": 0}),
    "alone": (["--layer", "1", "--controls", ""], {"layer": 1, "from": 0}),
    "a look-up": (
        ["--layer", "2", "--interface", "ridge", "--controls", "mean"],
        {"layer": 2, "from": 0},
    ),
    "bfloat16": (["--layer", "early", "--dtype", "bfloat16"], {"layer": 1, "from": 0}),
}


@pytest.mark.parametrize("name", CASES)
def test_other_ways_to_run(name, tiny: Tiny, tmp_path):
    flags, expected = CASES[name]
    short = {"budget__diffusion_tokens": 256, "score__tokens": 128}
    done = finish(tiny, tmp_path / "run", "--controls", "ridge", *flags, **short)
    record = done.record
    assert (record["layer"], record["interface"]["from"]) == (expected["layer"], expected["from"])
    assert record["interface"]["replaced"] == expected["layer"] - expected["from"]
    if name != "a look-up":  # which has its own table, or none
        assert record["interface"]["args"]["residual"] in ("none", "token-mean")
    wanted = {"teacher", record["config"]["interface"], *record["interface"]["controls"]}
    assert {score["subject"] for score in record["scores"]} == wanted
    gains = [s for s in record["scores"] if s["metric"] == "diffusion_gain"]
    assert bool(gains) == (name not in ("alone", "a look-up"))
    if name == "loop":  # its four passes are more than one evaluation of one chain, or of two
        assert {(s["steps"], s["chains"]) for s in gains} == {(4, 1), (4, 2)}


def test_a_users_own_interface_runs_from_its_file(tiny: Tiny, tmp_path, registries):
    (tmp_path / "mine.py").write_text(MINE)
    flags = ["--include", str(tmp_path / "mine.py"), "--interface", "mine", "--layer", "1"]
    short = {"budget__diffusion_tokens": 256, "score__tokens": 128}
    done = finish(tiny, tmp_path / "run", *flags, "--controls", "ridge", **short)
    assert done.record["interface"]["name"] == "mine"
    assert re.fullmatch(r"mine\.py#[0-9a-f]{8}:Mine", done.record["interface"]["origin"])
    assert f"--include {tmp_path / 'mine.py'}" in done.record["command"]
    assert "--interface mine --layer 1" in done.record["command"]


def interrupted(
    tiny: Tiny, folder: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Stop a run after it has located; return its command."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    words = ["run", *tiny.flags(), "--backbone", str(backbone), "--out", str(folder)]
    with monkeypatch.context() as patch:
        patch.setattr(dihal_bench.runs.context.PhaseRunner, "run", stop)
        assert main(words) == 130
    return words


def test_a_run_is_not_continued_on_another_model_of_the_same_name(
    tiny: Tiny, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "backbone"
    shutil.copytree(tiny.backbone, folder)
    words = interrupted(tiny, tmp_path / "run", folder, monkeypatch)
    model = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.1)
    model.save_pretrained(folder)
    capsys.readouterr()
    assert main(words) == 2
    assert "was begun with another backbone of the same name" in capsys.readouterr().err


def test_the_same_from_python(first: Finished, tiny: Tiny):
    from dihal_bench import Record as PublicRecord
    from dihal_bench import RunConfig, run

    config = resolve(
        values={"backbone": str(tiny.backbone), "corpus": str(tiny.corpus), "layer": "middle"},
        sets=[f"{key}={value}" for key, value in SETTINGS.items()],
    )
    assert isinstance(config, RunConfig)
    record = run(config, out=first.folder)
    assert isinstance(record, PublicRecord)
    assert record.data == first.record
    with pytest.raises(UserError, match="no interface called 'none'"):
        run(RunConfig(interface="none"))


def test_the_plan_counts_the_trunk_that_is_trained(first: Finished, tiny: Tiny, capsys):
    assert main(["run", "--dry-run", "--json", *tiny.flags()]) == 0
    summary = json.loads(capsys.readouterr().out)["summary"]
    counted = first.record["costs"]["hidden"]["trunk_parameters"]
    assert summary["trunk parameters"] == f"{counted:,}"


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        (["--interface", "embedding", "--set", "embedding.learned=true"], 1),
        (["--interface", "embedding", "--set", "diffusion.self_conditioning=true"], 1),
        (["--interface", "embedding", "--set", "embedding.clamp=true", "--from", "2"], 1),
        (["--interface", "c2d", "--set", "c2d.temperature=0.7", "--denoiser", "mlp"], 2),
        (["--interface", "c2d", "--regime", "sequence", "--set", "block=4"], 3),
        pytest.param(
            ["--interface", "hidden", "--layer", "2", "--denoiser", "sd-unet"],
            1,
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_options_run_to_the_end(flags, steps, tiny: Tiny, tmp_path):
    short = {"budget__diffusion_tokens": 256, "score__tokens": 256}
    done = finish(tiny, tmp_path / "run", *flags, **short)
    record, name = done.record, flags[1]
    assert all(gate["verdict"] == "pass" for gate in record["gates"]["leak"].values())
    single = [s for s in record["scores"] if (s["subject"], s["chains"]) == (name, 1)]
    assert {s["nfe"] for s in single if s["metric"].endswith("nll") and s["steps"] == 1} == {steps}
    assert record["budget"]["within"], record["budget"]
