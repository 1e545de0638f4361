"""The command line: quick help, clean streams, and bad input in one sentence."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, LlamaConfig, T5Config

from dihal_bench import __version__
from dihal_bench.cli.main import main
from dihal_bench.models.loading import JUDGE, locate

from ..conftest import Tiny

LEAKY = """
import torch
from dihal_bench.diffusion.denoisers import TransformerDenoiser
from dihal_bench.core.registry import DENOISERS


@DENOISERS.register("leaky")
class Leaky(TransformerDenoiser):
    "Sees the next position."

    def forward(self, z, t, context):
        ahead = torch.roll(context.stream, -1, dims=1)
        return super().forward(z, t, context) + ahead.mean(-1, keepdim=True)
"""


def quickest(*words: str) -> tuple[float, str]:
    """Processor seconds of the best of three runs of the command, and what it printed."""
    best, out = float("inf"), ""
    for _ in range(3):
        before = os.times()
        command = [sys.executable, "-m", "dihal_bench", *words]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        after = os.times()
        used = after.children_user + after.children_system
        best = min(best, used - before.children_user - before.children_system)
    return best, out


@pytest.mark.parametrize("verb", [[], ["run"], ["locate"]])
def test_help_is_there_in_under_a_second(verb):
    seconds, out = quickest(*verb, "--help")
    assert seconds < 1
    assert "usage: dihal-bench" in out


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys\nfrom dihal_bench.cli.main import main\ntry:\n    main(['run', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "sys.exit(bool({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"dihal-bench {__version__}\n"


def test_list_names_everything_and_where_it_comes_from(capsys):
    assert main(["list", "--json"]) == 0
    entries = {(e["kind"], e["name"]): e for e in json.loads(capsys.readouterr().out)}
    controls = ("regress", "regress-loop", "token-mean", "ridge", "mean", "identity")
    for name in ("hidden", *controls):
        entry = entries["interface", name]
        file, line = entry["origin"].rsplit(":", 1)
        assert "class " in "".join(
            Path(file).read_text().splitlines()[int(line) - 1 : int(line) + 1]
        )
        assert entry["help"]
    assert ("denoiser", "transformer") in entries
    assert ("sampler", "ddim") in entries
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for _, name in entries)


def test_list_knows_what_an_included_file_registers(capsys, tmp_path, registries):
    (tmp_path / "leaky.py").write_text(LEAKY)
    assert main(["list", "--json", "--include", str(tmp_path / "leaky.py")]) == 0
    entries = {e["name"]: e for e in json.loads(capsys.readouterr().out)}
    assert entries["leaky"]["origin"] == f"{tmp_path / 'leaky.py'}:7"
    assert entries["leaky"]["help"] == "Sees the next position."


@pytest.mark.parametrize("words", [["list"], ["list", "--json"]])
def test_output_that_nobody_reads_on_is_no_fault(words):
    """Standard output is a pipe whose reader has ended, as under ``head``."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dihal_bench", *words]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert ended.stderr == ""
    assert ended.returncode == 128 + signal.SIGPIPE


def test_a_pipe_that_is_not_the_programs_own_is_a_fault(monkeypatch):
    def broken(arguments):
        raise BrokenPipeError

    monkeypatch.setattr("dihal_bench.cli.main.perform", broken)
    monkeypatch.setattr(sys, "stdout", sys.__stdout__)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    with pytest.raises(BrokenPipeError):
        main(["list"])


def test_a_dry_run_plans_and_does_nothing(tiny: Tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIHAL_BENCH_CACHE", str(tmp_path / "cache"))
    assert main(["run", "--dry-run", *tiny.flags()]) == 0
    out = capsys.readouterr().out
    assert "training tokens: hidden 1,024, regress 1,024 in windows of 32" in out
    assert "layer: auto (of 1..3), conditioned on layer 0" in out
    assert main(["run", "--dry-run", "--json", *tiny.flags()]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["config"]["budget"]["diffusion_tokens"] == 1024
    assert main(["locate", "--dry-run", "--json", *tiny.flags()]) == 0
    assert "trunk parameters" in json.loads(capsys.readouterr().out)["summary"]
    assert not list(tmp_path.iterdir())


def test_a_dry_run_looks_for_the_corpus(tiny: Tiny, capsys):
    assert main(["run", *tiny.flags(), "--dry-run", "--corpus", "nowhere.txt"]) == 2
    assert "--corpus nowhere.txt: there is no such file" in sentence(capsys)


def test_a_dry_run_knows_included_interfaces(tiny: Tiny, tmp_path, registries):
    (tmp_path / "leaky.py").write_text(LEAKY)
    include = ["--include", str(tmp_path / "leaky.py"), "--denoiser", "leaky"]
    assert main(["run", "--dry-run", *include, *tiny.flags()]) == 0


def test_locate_prints_a_table_and_draws_a_figure(tiny: Tiny, capsys, tmp_path):
    out = tmp_path / "located"
    assert main(["locate", "--out", str(out), *tiny.flags()]) == 0
    streams = capsys.readouterr()
    assert "effective" not in streams.err
    assert [line.split()[0] for line in streams.out.splitlines()[2:5]] == ["1", "2", "3"]
    assert (out / "locate.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "locate.svg").read_text()
    assert main(["locate", "--json", "--out", str(out), *tiny.flags()]) == 0
    streams = capsys.readouterr()
    located = json.loads(streams.out)
    assert located == json.loads((out / "locate.json").read_text())
    assert "Loading weights" not in streams.err


NOTES = ("backbone: ", "corpus: ", "dihal-bench: error: ")


def sentence(capture: pytest.CaptureFixture[str]) -> str:
    """The one line of error; nothing but notes may stand before it."""
    streams = capture.readouterr()
    assert streams.out == "" or "the score is highest at layer" in streams.out
    lines = streams.err.splitlines()
    assert [line for line in lines if not line.startswith(NOTES)] == []
    errors = [line for line in lines if line.startswith("dihal-bench: error: ")]
    assert errors == lines[-1:]
    return errors[0].removeprefix("dihal-bench: error: ")


BAD = {
    "interface": (["--interface", "hiden"], "no interface called 'hiden'; did you mean 'hidden'"),
    "control": (["--controls", "ridge,rigde"], "'rigde'; did you mean 'ridge'"),
    "denoiser": (["--denoiser", "none"], "there is no denoiser called 'none'"),
    "sampler": (["--set", "diffusion.sampler=x"], "there is no sampler called 'x'"),
    "prediction": (
        ["--set", "diffusion.prediction=eps"],
        "diffusion.prediction=eps cannot recover",
    ),
    "layer too high": (["--layer", "4"], "--layer 4 is layer 4, outside .* from 1 to 3"),
    "layer zero": (["--layer", "0"], "--layer 0 is layer 0, outside"),
    "layer negative": (["--layer", "-1"], "--layer -1 is layer -1, outside"),
    "layer no number": (["--layer", "top"], "--layer top is neither a number nor a policy; choose"),
    "layer a fraction": (["--layer", "1.5"], "--layer 1.5 is neither a number nor a policy"),
    "from no number": (["--from", "x"], "--from x: give a whole number"),
    "from negative": (["--from", "-1"], "--from -1 must be at least 0"),
    "from too high": (["--from", "3"], "--from 3 .* below the layer that is generated .3 for"),
    "from at the layer": (["--layer", "2", "--from", "2"], "--from 2 .* .2 for --layer 2"),
    "seed": (["--seed", "-1"], "--seed -1 must lie between 0 and"),
    "seed no number": (["--seed", "x"], "--seed x: give a whole number"),
    "regime": (["--regime", "wild"], "--regime wild is unknown; choose causal"),
    "dtype": (["--dtype", "int8"], "--dtype int8 is unknown; choose one of float32"),
    "device": (["--device", "abacus"], "--device abacus is not available here"),
    "no device": (["--device", "meta"], "--device meta computes nothing; use --device cpu"),
    "judge": (["--backbone", "bundled-judge"], "bundled-judge is the judge, which must stay"),
    "its folder": (["--backbone", locate(JUDGE)], "judge is the judge, which must stay"),
    "budget": (["--budget", "huge"], "--budget huge: there is no such preset"),
    "key": (["--set", "train.lrr=1"], "no configuration key train.lrr; those here are train.batch"),
    "config": (["--config", "nowhere.toml"], "--config nowhere.toml: No such file"),
    "include": (["--include", "nowhere.py"], "--include nowhere.py: "),
    "window": (["--set", "text.window=65"], "text.window=65 exceeds the context .*64"),
    "corpus missing": (["--corpus", "nowhere.txt"], "--corpus nowhere.txt: there is no such file"),
    "backbone missing": (["--backbone", "./nowhere"], "backbone './nowhere' does not exist"),
}


ONLY_RUN = ("interface", "control")  # flags that locate does not have


@pytest.mark.parametrize(
    ("verb", "name"),
    [("run", name) for name in BAD] + [("locate", name) for name in BAD if name not in ONLY_RUN],
)
def test_bad_input_is_one_sentence(verb, name, tiny: Tiny, capsys, tmp_path, monkeypatch):
    flags, message = BAD[name]
    monkeypatch.chdir(tmp_path)
    assert main([verb, *tiny.flags(), *flags]) == 2
    found = sentence(capsys)
    assert re.search(message, found), found
    assert not list(tmp_path.iterdir()), "half-written"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tiny: Tiny, capsys):
    assert main(["run", *tiny.flags(), "--device", "cuda"]) == 2
    assert "--device cuda is not available here" in sentence(capsys)


CORPORA = {
    "empty": ("", "there is no text in it"),
    "one document": ('{"text": "only one of them"}\n', "all its text is one document"),
    "short": ('{"text": "one"}\n{"text": "two"}\n', "fewer than one window of 32"),
    "no JSON": ("{", "line 1: not JSON"),
}


@pytest.mark.parametrize("name", CORPORA)
def test_bad_corpora(name, tiny: Tiny, capsys, tmp_path):
    content, message = CORPORA[name]
    (tmp_path / "corpus.jsonl").write_text(content)
    flags = ["--corpus", str(tmp_path / "corpus.jsonl"), "--out", str(tmp_path / "run")]
    assert main(["run", *tiny.flags(), *flags]) == 2
    assert message in sentence(capsys)
    assert not (tmp_path / "run").exists()


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def other_shapes(folder: Path) -> None:
    LlamaConfig.from_pretrained(folder, hidden_size=64).save_pretrained(folder)


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def another_kind(folder: Path) -> None:
    T5Config().save_pretrained(folder)


def both_directions(folder: Path) -> None:
    BertConfig(hidden_size=32, num_attention_heads=4).save_pretrained(folder)


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def another_tokenizer(folder: Path) -> None:
    rules = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    rules["model"]["vocab"] |= {f"word{number}": 320 + number for number in range(9)}
    (folder / "tokenizer.json").write_text(json.dumps(rules), encoding="utf-8")


BACKBONES = {
    no_weights: "has no .*safetensors weights",
    other_shapes: "do not fit its config.json",
    cut_weights: "weights of backbone .* cannot be read",
    another_kind: "which is not a causal language model",
    both_directions: "of type 'bert' .* is not a causal language model",
    no_tokenizer: "tokenizer of backbone .* save one into the same folder",
    another_tokenizer: "tokenizer .* gives ids up to 328, but the model has 320 embeddings",
}


@pytest.mark.parametrize("spoil", BACKBONES)
def test_bad_backbones(spoil, tiny: Tiny, capsys, caplog, tmp_path):
    folder = tmp_path / "backbone"
    shutil.copytree(tiny.backbone, folder)
    spoil(folder)
    out = ["--out", str(tmp_path / "run")]
    assert main(["run", *tiny.flags(), "--backbone", str(folder), *out]) == 2
    found = sentence(capsys)
    assert caplog.messages == []  # the libraries' own long reports
    assert re.search(BACKBONES[spoil], found), found
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["run", "locate"])
def test_a_place_that_cannot_be_written(verb, tiny: Tiny, capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main([verb, *tiny.flags(), "--out", str(tmp_path / "file" / "run")]) == 2
    assert "choose a folder you may write to" in sentence(capsys)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if not os.access(closed, os.W_OK):  # an administrator may write anywhere
        assert main([verb, *tiny.flags(), "--out", str(closed / "run")]) == 2
        assert "Permission denied; choose a folder you may write to" in sentence(capsys)


def test_a_loss_that_is_no_number_stops_the_run(tiny: Tiny, capsys, tmp_path):
    wild = tiny.flags(train__lr="1e30", train__muon_lr="1e30")
    assert main(["run", "--layer", "middle", "--out", str(tmp_path / "run"), *wild]) == 2
    streams = capsys.readouterr()
    error = streams.err.splitlines()[-1]
    assert "the loss of hidden is not finite at step" in error
    assert "train.lr" in error
    assert "Traceback" not in streams.err
    assert not (tmp_path / "run" / "record.json").exists()
    assert not (tmp_path / "run" / "weights").exists()


def test_an_interface_that_leaks_gets_no_record(tiny: Tiny, capsys, tmp_path, registries):
    (tmp_path / "leaky.py").write_text(LEAKY)
    include = ["--include", str(tmp_path / "leaky.py"), "--denoiser", "leaky"]
    out = ["--layer", "middle", "--out", str(tmp_path / "run")]
    assert main(["run", *tiny.flags(), *include, *out]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "hidden did not pass the leak gate (leak: " in error
    assert not (tmp_path / "run" / "record.json").exists()


def test_a_leak_that_only_scoring_shows_gets_no_record_either(
    tiny: Tiny, capsys, tmp_path, registries
):
    """Changed tokens are looked at in float64."""
    hidden = LEAKY.replace("+ ahead", "+ (z.dtype == torch.float32) * ahead")
    (tmp_path / "leaky.py").write_text(hidden)
    include = ["--include", str(tmp_path / "leaky.py"), "--denoiser", "leaky"]
    out = ["--layer", "middle", "--out", str(tmp_path / "run")]
    assert main(["run", *tiny.flags(), *include, *out]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "leak: in S=" in error
    assert "knows only the prefix" in error
    assert not (tmp_path / "run" / "record.json").exists()
    assert not list((tmp_path / "run" / "shared").glob("scores-*"))
