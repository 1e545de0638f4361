"""Configurations: presets, files, flags and settings, each read as the type that its key has."""

import dataclasses
import json
import re
import subprocess
import sys
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import torch

from dihal_bench.config.identity import identity
from dihal_bench.config.resolve import PRESETS, resolve
from dihal_bench.config.schema import RunConfig
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS
from dihal_bench.training.config import BudgetConfig


def with_sets(*sets: str, **values: Any) -> RunConfig:
    return resolve(values=values, sets=sets)


def test_the_default_is_the_preset_tiny():
    assert resolve(values={}) == RunConfig()


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_set_what_they_say_and_are_named(preset):
    config = resolve(preset=preset, values={}).to_dict()
    assert config["budget"]["name"] == preset
    for key, value in PRESETS[preset].items():
        section, _, name = key.rpartition(".")
        assert (config[section] if section else config)[name] == value


def test_a_budget_of_ones_own_is_not_called_by_a_presets_name():
    assert with_sets("budget.diffusion_tokens=7000").budget == BudgetConfig(
        name="custom", diffusion_tokens=7000
    )
    assert with_sets("budget.diffusion_tokens=7000", "budget.name=mine").budget.name == "mine"


def test_the_last_one_wins(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('seed = 1\ndtype = "float32"\n[train]\nbatch = 2\n[text]\nwindow = 100\n')
    config = resolve(
        preset="small", file=str(file), values={"seed": "2", "layer": None}, sets=["seed=3"]
    )
    assert config.seed == 3  # --set over the flag, the file, the default
    assert resolve(file=str(file), values={"seed": "2"}).seed == 2
    assert (config.dtype, config.text.window, config.train.batch) == ("float32", 100, 2)
    assert config.denoiser.width == PRESETS["small"]["denoiser.width"]
    assert config.layer == "auto"  # None: the flag was not given


def test_toml_and_json_say_the_same(tmp_path):
    (tmp_path / "run.toml").write_text(
        'layer = 3\ncontrols = ["ridge"]\n[score]\nsteps = [1, 4]\n[train]\nautocast = false\n'
    )
    tree = {"layer": 3, "controls": ["ridge"], "score": {"steps": [1, 4]}}
    (tmp_path / "run.json").write_text(json.dumps(tree | {"train.autocast": False}))
    one, other = (
        resolve(file=str(tmp_path / name), values={}) for name in ("run.toml", "run.json")
    )
    assert one == other
    assert one.layer == "3"
    assert one.score.steps == (1, 4)


def test_what_a_record_keeps_can_be_run_again(tmp_path):
    config = with_sets("score.steps=1,2", "train.autocast=false", "controls=mean", "seed=5")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    again = resolve(file=str(tmp_path / "config.json"), values={})
    assert again == config
    assert identity(again) == identity(config)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("budget.diffusion_tokens=1e6", 1_000_000),
        ("budget.diffusion_tokens=1_000_000", 1_000_000),
        ("budget.diffusion_tokens=1000000.0", 1_000_000),
        ("seed=4294967295", 4294967295),
        ("train.lr=3e-4", 3e-4),
        ("train.lr = 1", 1.0),
        ("train.autocast=False", False),
        ("train.autocast=1", True),
        ("score.steps=1,16", (1, 16)),
        ("score.steps=[1, 16]", (1, 16)),
        ("score.steps=4", (4,)),
        ("controls=regress, mean", ("regress", "mean")),
        ("controls=", ()),
        ("corpus=a=b.txt", "a=b.txt"),
    ],
)
def test_settings_are_read_as_their_type(setting, value):
    read = with_sets(setting)
    for name in setting.partition("=")[0].strip().split("."):
        read = getattr(read, name)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed=x", "--seed x: give a whole number"),
        ("seed=1.5", "--seed 1.5: give a whole number"),
        ("seed=-1", "--seed -1 must lie between 0 and 4294967295"),
        ("seed=4294967296", "--seed 4294967296 must lie between"),
        ("from_layer=x", "--from x: give a whole number"),
        ("text.window=1e400", "text.window=1e400: give a whole number"),
        ("text.window=1", "text.window=1 must be 2 or more"),
        ("train.batch=0", "train.batch=0 must be 1 or more"),
        ("score.tokens=0", "score.tokens=0 must be 1 or more"),
        ("score.oracle_tokens=0", "score.oracle_tokens=0 must be 1 or more"),
        ("score.bound_draws=0", "score.bound_draws=0 must be 1 or more"),
        ("score.bound_snr=0", "score.bound_snr=0.0 must be 1e-12 or more"),
        ("score.resamples=1", "score.resamples=1 must be 100 or more"),
        ("budget.diffusion_tokens=0", "budget.diffusion_tokens=0 is less than one step .* 2048"),
        ("train.lr=-1", "train.lr=-1.0 must be 1e-12 or more"),
        ("train.ema=1", "train.ema=1.0 must be between 0 and 0.999999"),
        ("losses.ce=-1", "losses.ce=-1.0 must be 0 or more"),
        ("denoiser.width=0", "denoiser.width=0 must be 1 or more"),
        ("denoiser.heads=0", "denoiser.heads=0 must be 1 or more"),
        ("locate.resamples=0", "locate.resamples=0 must be 1 or more"),
        ("train.lr=nan", "train.lr=nan: give a finite number"),
        ("train.lr=fast", "train.lr=fast: give a finite number"),
        ("train.autocast=maybe", "train.autocast=maybe: give true or false"),
        ("score.steps=1,x", "score.steps=x: give a whole number"),
        ("score.steps=", "score.steps= must be different numbers"),
        ("score.steps=0,4", "score.steps=0,4 must be different numbers, each 1 or more"),
        ("score.steps=4,4", "score.steps=4,4 must be different numbers"),
        ("score.steps=2000", "score.steps=2000 exceeds diffusion.train_steps=1000"),
        ("score.chains=3", "score.chains=3 must be a power of two"),
        (
            "bridge.residual=all",
            "bridge.residual=all is unknown; choose one of auto, none, token-mean",
        ),
        ("train.optimizer=sgd", "train.optimizer=sgd is unknown"),
        ("seed", "--set seed: write it as key.path=value"),
    ],
)
def test_bad_values_are_named(setting, message):
    with pytest.raises(UserError, match=message):
        with_sets(setting)


@pytest.mark.parametrize(
    ("setting", "known"),
    [
        (
            "train.learning_rate=1",
            r"train\.learning_rate; those here are train\.batch, train\.micro",
        ),
        ("layers=1", r"layers; those here are interface, layer, .*, text\.\*, budget\.\*"),
        ("text=5", r"text; those here are .* text\.\*"),
        ("seed.x=5", r"seed\.x; those here are"),
        ("=5", "there is no configuration key ;"),
    ],
)
def test_an_unknown_key_lists_the_known_ones(setting, known):
    with pytest.raises(UserError, match=known):
        with_sets(setting)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "seed = ", "not valid TOML or JSON"),
        ("a.json", "{", "not valid TOML or JSON"),
        ("a.json", "[1]", "write one object of configuration keys"),
        ("a.toml", "seed = true", "--seed True: give a whole number"),
        ("a.toml", "corpus = ['a', 'b']", r"corpus=.*: give a text"),
        ("a.toml", "[train]\nautocast = 'maybe'", "train.autocast=maybe: give true or false"),
        ("missing.toml", None, "missing.toml: No such file"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        resolve(file=str(tmp_path / name), values={})


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(UserError, match=r"--budget huge: .* choose one of tiny, small, paper"):
        resolve(preset="huge", values={})


def leaves(cls: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Every key with its type and default."""
    found = []
    for name, kind in get_type_hints(cls).items():
        default = getattr(cls(), name)
        if dataclasses.is_dataclass(kind):
            found += leaves(kind, f"{prefix}{name}.")
        else:
            found.append((prefix + name, kind, default))
    return found


LEAVES = leaves(RunConfig)
OTHERS = {
    "include": None,
    "bridge.residual": "none",
    "train.optimizer": "adamw",
    "diffusion.prediction": "v",
    "diffusion.sampler": "flow",
    "denoiser.name": "mlp",
    "denoiser.heads": "2",
    "denoiser.width": "64",
    "score.chains": "16",
    "score.steps": "2",
    "regime": "sequence",
    "budget.matched": "total",
}
ELSEWHERE = (
    "include",
    "options",
    "block",
    "denoiser.options",
    "diffusion.options",
)  # of no meaning on their own


def another(key: str, kind: Any, default: Any) -> str:
    if key in OTHERS:
        return OTHERS[key]
    if kind is bool:
        return str(not default)
    if kind is str or get_origin(kind) is tuple:
        return "another"
    return str(get_args(kind) or (default / 2 if kind is float else default + 1))


@pytest.mark.parametrize(
    ("key", "kind", "default"), [leaf for leaf in LEAVES if not leaf[0].startswith(ELSEWHERE)]
)
def test_every_key_changes_the_identity(key, kind, default):
    one, other = with_sets(f"{key}={another(key, kind, default)}"), RunConfig()
    assert (identity(one) != identity(other)) == (key not in ("device", "budget.name"))


@pytest.mark.parametrize(
    ("before", "sets"),
    [
        (["regime=sequence"], ["block=4"]),
        (["denoiser.name=sd-unet"], ["denoiser.sd-unet.image=4,8"]),
        (["denoiser.name=sd-unet"], ["denoiser.sd-unet.widths=16,32"]),
        ([], ["embedding.clamp=true"]),
        ([], ["c2d.temperature=0.5"]),
    ],
)
def test_what_depends_on_a_choice_changes_the_identity(before, sets):
    assert identity(with_sets(*before, *sets)) != identity(with_sets(*before))


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["block=4"], "block=4 has no meaning in the causal regime; add --regime sequence"),
        (["regime=sequence", "block=300"], "block=300 must be between 1 and text.window=256"),
        (["regime=sequence", "text.window=8", "train.batch=1"], "block=16 must be between 1 and"),
        (["regime=sideways"], "--regime sideways is unknown; choose causal or sequence"),
        (
            ["regime=sequence", "bridge.residual=token-mean"],
            "bridge.residual=token-mean needs the tokens of a block before they are generated",
        ),
        (["budget.matched=steps"], "budget.matched=steps is unknown; choose one of diffusion, tot"),
        (["budget.recovery_tokens=100"], "budget.recovery_tokens=100 is less than one step"),
        (["budget.warmup_tokens=1"], "there is no configuration key budget.warmup_tokens"),
        (["options=1"], "there is no configuration key options; those here are interface, layer"),
        (["options.rounding=up"], "score.*, c2d.*, embedding.*, hidden.*, latent.*."),
        (["embedding.clamps=true"], "there is no configuration key embedding.clamps; those here"),
        (["embedding.rounding=up"], "embedding.rounding=up is unknown; choose one of readout"),
    ],
)
def test_regimes_budgets_and_options_are_checked(sets, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        with_sets(*sets)


@pytest.mark.parametrize(("preset", "size"), [("small", 21.5e6), ("paper", 927.6e6)])
def test_presets_have_sizes_for_the_unet(preset, size):
    config = resolve(preset=preset, values={"denoiser.name": "sd-unet"})
    wide = 4096 if preset == "paper" else 768
    with torch.device("meta"):
        trunk = DENOISERS.get("sd-unet")(wide, wide, wide, config.denoiser)
    count = sum(p.numel() for p in trunk.parameters())
    assert count == pytest.approx(size, rel=0.05)


def test_what_is_saved_can_be_read_as_a_file(tmp_path):
    config = with_sets("regime=sequence", "block=4", "embedding.clamp=true", "latent.dim=8")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    again = resolve(file=str(tmp_path / "config.json"), values={})
    assert again.to_dict() == config.to_dict()


def test_an_included_file_that_is_gone_is_named(tmp_path):
    config = RunConfig(include=(str(tmp_path / "mine.py"),))
    with pytest.raises(UserError, match=r"--include .*mine\.py: there is no such file"):
        identity(config)


def test_the_identity_is_the_same_in_another_process():
    code = (
        "from dihal_bench.config.identity import identity;"
        "from dihal_bench.config.schema import RunConfig; print(identity(RunConfig(seed=3)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(identity(RunConfig(seed=3)))


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ({"device": "cpu"}, "float32"),
        ({"device": None}, "float32"),
        ({"device": "cuda"}, "bfloat16"),
        ({"device": "cuda:1"}, "bfloat16"),
        ({"device": "cuda", "dtype": "float32"}, "float32"),
        ({"device": "mps"}, "float32"),
    ],
)
def test_the_device_decides_the_dtype_that_nobody_names(
    flags: dict[str, str | None], dtype: str
) -> None:
    assert resolve(values=flags).dtype == dtype
    assert resolve(preset="small", values={"device": flags["device"]}).dtype == "bfloat16"


def test_a_gpu_without_bfloat16_is_not_given_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert resolve(values={"device": "cuda"}).dtype == "float32"


def test_the_dtype_is_part_of_what_a_run_is() -> None:
    here, there = (resolve(values={"device": device}) for device in ("cpu", "cuda"))
    assert identity(here).training == identity(RunConfig()).training
    assert identity(here).training != identity(there).training
