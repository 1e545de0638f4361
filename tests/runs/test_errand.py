"""Errands survive the way to another machine, and are done once by whoever comes."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dihal_bench import __version__
from dihal_bench.cli.main import main
from dihal_bench.config.identity import identity
from dihal_bench.config.resolve import resolve
from dihal_bench.core.errors import UserError
from dihal_bench.core.files import lock
from dihal_bench.runs.work_unit import Run, WorkUnit, perform_file, write_work_unit
from dihal_bench.training import phases

from ..conftest import Tiny
from .errands import config_for, errand, inputs_of, records, wait_for

OWN = """
from dataclasses import dataclass
from dihal_bench.baselines.embedding import Embedding
from dihal_bench.core.registry import INTERFACES

@dataclass(frozen=True, kw_only=True)
class Mine:
    learned: bool = False
    rounding: str = "readout"
    clamp: bool = False
    sigma0: float = 0.01
    names: tuple[str, ...] = ("a",)

@INTERFACES.register("own")
class Own(Embedding):
    Options = Mine
"""
CASES = {
    "defaults": {"values": {}},
    "one preset": {"preset": "small", "values": {}},
    "another preset": {"preset": "paper", "values": {"layer": "late", "from_layer": 2}},
    "sizes of a preset for a denoiser": {
        "preset": "small",
        "values": {"denoiser.name": "sd-unet", "device": "cuda"},
    },
    "others than those": {
        "preset": "paper",
        "values": {"denoiser.name": "sd-unet", "denoiser.unet.image": "4,16"},
        "sets": ["denoiser.unet.widths=32,64", "denoiser.layers=1", "denoiser.unet.vae=a,b"],
    },
    "sequence": {"values": {"regime": "sequence", "block": 8, "seed": 2**32 - 1}},
    "options": {
        "values": {"interface": "latent", "controls": ["regress", "lm"]},
        "sets": [
            *("latent.noise=0.1", "latent.states=true", "latent.dim=12"),
            *("embedding.sigma0=3e-7", "embedding.clamp=1", "c2d.temperature=0.7", "c2d.heads=4"),
        ],
    },
    "numbers": {
        "values": {"budget.name": "mine", "budget.matched": "total"},
        "sets": [
            *("train.lr=1e-5", "losses.diff=0", "losses.ce=0.1", "score.steps=7,9"),
            *("budget.diffusion_tokens=1e7", "text.train_tokens=1_000_000", "train.autocast=false"),
        ],
    },
    "names that look like numbers": {"values": {"backbone": "123", "corpus": "1e3", "layer": "3"}},
}


def there_and_back(config) -> WorkUnit:
    before = WorkUnit(
        runs=(Run(config=config, folder=Path("there/it"), title="it"),),
        shared=Path("shared"),
        command="dihal-bench compare --set 'a=b c'",
    )
    after = WorkUnit.from_dict(json.loads(json.dumps(before.to_dict())))
    assert after == before
    return after


@pytest.mark.parametrize("given", CASES.values(), ids=list(CASES))
def test_a_configuration_comes_back_equal(given) -> None:
    config = resolve(**given)
    back = there_and_back(config).runs[0].config
    assert identity(back) == identity(config)
    assert json.dumps(back.to_dict()) == json.dumps(config.to_dict())


@pytest.mark.usefixtures("registries")
def test_an_included_interface_comes_back_with_its_settings(tmp_path) -> None:
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    values = {"include": [str(tmp_path / "own.py")], "interface": "own"}
    config = resolve(values=values, sets=["own.sigma0=0.5", "own.names=b,c"])
    back = there_and_back(config).runs[0].config.options["own"]
    assert (back.sigma0, back.names) == (0.5, ("b", "c"))


@pytest.mark.usefixtures("registries")
def test_an_included_file_that_changed_is_noticed(tmp_path, capsys) -> None:
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    values = {"include": [str(tmp_path / "own.py")], "interface": "own"}
    run = Run(config=resolve(values=values), folder=tmp_path / "it", title="it")
    planned = WorkUnit(runs=(run,), shared=tmp_path / "shared", command="")
    file = write_work_unit(planned, tmp_path)
    (tmp_path / "own.py").write_text(OWN + "# edited\n", encoding="utf-8")
    assert main(["work", str(file)]) == 2
    assert "an included file has changed since this was planned" in capsys.readouterr().err
    assert not (tmp_path / "it").exists()


def test_the_verb_does_one_errand_and_only_once(tiny: Tiny, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_work_unit(errand(tiny, Path("here"), "embedding"), Path("jobs"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # a relative folder is that of the sender
    assert main(["work", str(file)]) == 0
    assert capsys.readouterr().out == ""
    (record,) = (tmp_path / "here" / "runs").glob("*/record.json")
    before = record.stat().st_mtime_ns
    assert json.loads(record.read_text())["command"] == "dihal-bench test"
    monkeypatch.setattr(phases, "train", None)
    assert main(["work", str(file)]) == 0
    assert record.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is not a job file (No such file"),
        ("\x00", "is not a job file (JSONDecodeError"),
        ("[]", "is not a job file (TypeError"),
        ("{}", "is not a job file (KeyError"),
        ({"runs": []}, "is not a job file (ValueError: no runs"),
        ({"runs": [{"config": 3}]}, "is not a job file (TypeError"),
        ({"runs": 3}, "is not a job file (TypeError"),
        ({"version": "0.0"}, "was written by dihal-bench 0.0"),
        ({"directory": "/nowhere"}, "the working directory /nowhere is not found here"),
    ],
)
def test_what_is_no_errand_is_refused(content, sentence, tmp_path, capsys) -> None:
    file = tmp_path / "job.json"
    if isinstance(content, dict):
        content = json.dumps({"version": __version__, "directory": str(tmp_path)} | content)
    if content is not None:
        file.write_text(content, encoding="utf-8")
    assert main(["work", str(file)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_whoever_comes_second_waits(tiny: Tiny, tmp_path) -> None:
    one = errand(tiny, tmp_path, "embedding")
    file = write_work_unit(one, tmp_path)
    said: list[str] = []
    second = threading.Thread(target=perform_file, args=(file, said.append))
    with lock(file, wait=False) as held:
        assert held
        second.start()
        wait_for(lambda: bool(said))
        assert said == ["another process is at this job; waiting for it"]
        assert second.is_alive()
        one.perform(lambda text: None)
        before = records([one])
    second.join()
    assert records([one]) == before
    assert "training" not in " ".join(said)


def test_runs_of_one_errand_share_the_teacher_and_equal_runs_alone(
    tiny: Tiny, tmp_path, monkeypatch
) -> None:
    alone = [errand(tiny, tmp_path / "alone", "hidden", layer=layer) for layer in ("1", "3")]
    both = WorkUnit(
        runs=tuple(
            replace(own.runs[0], folder=tmp_path / "both" / own.runs[0].folder.name)
            for own in alone
        ),
        shared=tmp_path / "both" / "shared",
        command="dihal-bench test",
    )
    passes = []
    train = phases.train

    def counted(trainees, *rest, **more):
        passes.append(len(trainees))
        return train(trainees, *rest, **more)

    monkeypatch.setattr(phases, "train", counted)
    inputs = inputs_of(alone)
    both.perform(lambda text: None, inputs)
    for own in alone:
        own.perform(lambda text: None, inputs)
    assert passes == [2, 1, 1]
    assert both.done
    for one, other in zip(both.runs, alone, strict=True):
        found, expected = (
            json.loads((r.folder / "record.json").read_text()) for r in (one, other.runs[0])
        )
        assert found["scores"] == expected["scores"]


@pytest.mark.usefixtures("registries")
def test_what_is_done_of_an_errand_is_left_alone(tiny: Tiny, tmp_path) -> None:
    first, second = (errand(tiny, tmp_path, "hidden", layer=layer) for layer in ("1", "2"))
    first.perform(lambda text: None)
    before = records([first])
    both = replace(first, runs=first.runs + second.runs)
    assert both.title == "hidden seed 0 and hidden seed 0"
    assert not both.done
    both.perform(lambda text: None)
    assert both.done
    assert records([first]) == before


def test_a_run_that_fails_takes_no_other_with_it(tiny: Tiny, tmp_path) -> None:
    parts = [errand(tiny, tmp_path, "hidden", layer=layer) for layer in ("9", "1", "2")]
    three = replace(parts[0], runs=tuple(own.runs[0] for own in parts))
    said: list[str] = []
    with pytest.raises(UserError, match=r"^hidden seed 0: --layer 9 is layer 9, outside"):
        three.perform(said.append)
    assert [own.done for own in three.runs] == [False, True, True]
    assert any(line.endswith("so that the others are done.") for line in said)
    assert not three.runs[0].folder.exists()


def test_an_errand_that_cannot_be_done_says_why(tiny: Tiny, tmp_path) -> None:
    bad = config_for(tiny, "hidden", layer="9", controls=[])
    runs = tuple(Run(config=bad, folder=tmp_path / name, title=name) for name in ("a", "b"))
    one = WorkUnit(runs=runs[:1], shared=tmp_path / "shared", command="")
    with pytest.raises(UserError, match=r"^a: --layer 9 is"):
        one.perform(lambda text: None)
    with pytest.raises(UserError, match=r"^2 of 2 runs failed, the first: a: --layer 9 is"):
        replace(one, runs=runs).perform(lambda text: None)
    assert not (tmp_path / "a").exists()
