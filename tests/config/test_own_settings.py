"""Settings of a denoiser's or sampler's own: one included file, and keys in its section."""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dihal_bench.cli.main import main
from dihal_bench.config.baseline import VERSION_3
from dihal_bench.config.command_line import run_command
from dihal_bench.config.identity import identity, version_3_digest
from dihal_bench.config.resolve import kept, resolve
from dihal_bench.config.schema import RunConfig, keys_of
from dihal_bench.core.configurable import Configurable
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS, SAMPLERS, include
from dihal_bench.diffusion.denoisers import DenoiserConfig
from dihal_bench.diffusion.schedule import Diffusion, DiffusionConfig
from dihal_bench.diffusion.unet import UNetOptions
from dihal_bench.leaderboard.groups import _labels
from dihal_bench.results.record import Record
from dihal_bench.runs.finished import FinishedRun

from ..conftest import Tiny, dihal

GOLDEN = Path(__file__).parents[1] / "golden" / "v3"
MINE = """
from dataclasses import dataclass
from typing import ClassVar

from dihal_bench.core.registry import DENOISERS, SAMPLERS
from dihal_bench.diffusion.denoisers import MLPDenoiser
from dihal_bench.diffusion.schedule import DDIM


@dataclass(frozen=True, kw_only=True)
class MineOptions:
    dropout: float = 0.0
    sizes: tuple[int, ...] = ()


@DENOISERS.register("mine")
class Mine(MLPDenoiser):
    Options = MineOptions
    presets: ClassVar = {"small": {"dropout": 0.25, "width": 64}}

    def encode(self, condition, layout):
        return (1 - self.options.dropout) * super().encode(condition, layout)  # its mean


@dataclass(frozen=True, kw_only=True)
class ChurnOptions:
    eta: float = 0.5


@SAMPLERS.register("my.churn")
class Churn(DDIM):
    Options = ChurnOptions

    @property
    def eta(self):
        return self.options.eta
"""


@pytest.fixture
def mine(tmp_path: Path, registries: None) -> Path:
    """One file: all that a denoiser and a sampler with settings of their own cost."""
    del registries
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    include(tmp_path / "mine.py")
    return tmp_path / "mine.py"


def resolved(file: Path, *sets: str, **more: Any) -> Any:
    return resolve(values={"include": [str(file)]}, sets=sets, **more)


SHORT = {"budget__diffusion_tokens": 256, "score__tokens": 128}


def trained(tiny: Tiny, mine: Path, out: Path, *sets: str) -> dict[str, Any]:
    flags = ["--include", str(mine), "--layer", "1", "--controls", "ridge", "--out", str(out)]
    words = ["run", *tiny.flags(**SHORT), *flags, *(f"--set={item}" for item in sets)]
    assert main(words) == 0
    return Record.read(out / "record.json").data


def nll(record: dict[str, Any]) -> list[float]:
    own = [s for s in record["scores"] if s["subject"] == "hidden" and s["metric"] == "nll"]
    return [score["value"] for score in own]


def test_a_denoisers_own_setting_reaches_it_in_a_run(tiny: Tiny, mine: Path, tmp_path) -> None:
    records = {
        value: trained(
            tiny, mine, tmp_path / value, "denoiser.name=mine", f"denoiser.mine.dropout={value}"
        )
        for value in ("0", "0.5")
    }
    for value, record in records.items():
        own = {"dropout": float(value), "sizes": []}
        assert record["config"]["denoiser"]["mine"] == own
        assert record["interface"]["args"]["denoiser"]["mine"] == own
        trunk = FinishedRun(tmp_path / value).interface("hidden").trunk
        assert trunk is not None
        assert trunk.options.dropout == float(value)
    assert records["0"]["run"] != records["0.5"]["run"]
    assert nll(records["0"]) != nll(records["0.5"])


def test_a_samplers_own_setting_reaches_it_in_a_run(tiny: Tiny, mine: Path, tmp_path) -> None:
    records = [
        trained(
            *(tiny, mine, tmp_path / eta, "diffusion.sampler=my.churn"),
            f"diffusion.my.churn.eta={eta}",
        )
        for eta in ("0", "1")
    ]
    assert [r["config"]["diffusion"]["my.churn"] for r in records] == [{"eta": 0.0}, {"eta": 1.0}]
    assert records[0]["run"] != records[1]["run"]
    assert nll(records[0])[0] == nll(records[1])[0]  # one step ends at x0, whatever eta is
    assert nll(records[0])[1] != nll(records[1])[1]


def test_what_is_not_set_is_at_its_default_and_the_same_run(mine: Path) -> None:
    bare = resolved(mine, "denoiser.name=mine")
    assert bare == resolved(mine, "denoiser.name=mine", "denoiser.mine.dropout=0")
    assert identity(bare) != identity(
        resolved(mine, "denoiser.name=mine", "denoiser.mine.sizes=1,2")
    )
    churn = Diffusion.create(resolved(mine, "diffusion.sampler=my.churn").diffusion)
    assert churn.options.eta == churn.eta == 0.5
    assert Diffusion.create(DiffusionConfig(sampler="my.churn")).options.eta == 0.5
    assert Diffusion.create(DiffusionConfig()).options is None


def test_others_settings_are_no_part_of_a_configuration() -> None:
    config = resolve(values={}).to_dict()
    assert {*config["denoiser"]} == {"name", "width", "context_layers", "layers", "heads"}
    assert "options" not in config["diffusion"]


@pytest.mark.parametrize("given", [{}, {"preset": "small"}])
def test_a_configuration_comes_back_from_its_file_and_its_command(given, mine, tmp_path) -> None:
    sets = ["denoiser.name=mine", "denoiser.mine.sizes=1,2", "diffusion.sampler=my.churn"]
    config = resolved(mine, *sets, **given)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert resolve(file=str(tmp_path / "config.json"), values={}) == config
    own = [word for word in run_command(config.to_dict()).split() if ".mine." in word]
    assert own == ["denoiser.mine.sizes=1,2"]
    DENOISERS._entries.pop("mine")  # a record may be of what is not here
    assert "denoiser.mine.sizes=1,2" in run_command(config.to_dict())


def test_a_denoiser_declares_its_sizes_in_presets(mine: Path) -> None:
    config = resolved(mine, "denoiser.name=mine", preset="small")
    assert (config.denoiser.options.dropout, config.denoiser.width) == (0.25, 64)
    mine_too = type("Too", (DENOISERS.get("mine"),), {})
    DENOISERS.register("too")(mine_too)
    assert resolved(mine, "denoiser.name=too", preset="small").denoiser.options.dropout == 0.25


@pytest.mark.parametrize(
    ("sets", "sentence"),
    [
        (["denoiser.mine.dropout=much"], "denoiser.mine.dropout=much: give a finite number."),
        (
            ["denoiser.mine.drop=1"],
            "no configuration key denoiser.mine.drop; those here are "
            "denoiser.mine.dropout, denoiser.mine.sizes.",
        ),
        (["denoiser.options=1"], "there is no configuration key denoiser.options; those here are"),
        (
            ["diffusion.my.churn.eta=1"],
            "diffusion.my.churn.eta is a setting of the sampler "
            "my.churn, and diffusion.sampler is ddim; set diffusion.sampler=my.churn, or leave",
        ),
        (
            ["denoiser.name=mlp", "denoiser.mine.dropout=1"],
            "denoiser.mine.dropout is a setting of "
            "the denoiser mine, and denoiser.name is mlp; set denoiser.name=mine, or leave it out.",
        ),
        (["denoiser.name=mlp", "denoiser.mlp.x=1"], "there is no configuration key denoiser.mlp.x"),
        (["denoiser.unet.image=4,8"], "denoiser.unet.image is called denoiser.sd-unet.image now"),
    ],
)
def test_what_would_be_ignored_or_is_wrong_is_one_sentence(sets, sentence, mine: Path) -> None:
    words = ["run", "--dry-run", "--include", str(mine), "--denoiser", "mine"]
    status, out, err = dihal(*words, *(f"--set={item}" for item in sets))
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert sentence in line


@dataclass
class Thawed:
    width: int = 1


@dataclass(frozen=True)
class Required:
    width: int


@dataclass(frozen=True)
class Strange:
    width: dict[str, int] | None = None


@pytest.mark.parametrize("options", [Thawed, Required, dict])
def test_settings_that_tell_no_runs_apart_are_refused(options: type) -> None:
    with pytest.raises(UserError, match=r"Bad\.Options must be a frozen dataclass whose fields"):
        type("Bad", (Configurable,), {"Options": options})


@pytest.mark.usefixtures("registries")
def test_a_setting_of_a_type_that_no_flag_has_is_refused() -> None:
    SAMPLERS.register("strange")(type("Sampler", (SAMPLERS.get("ddim"),), {"Options": Strange}))
    sets = ["diffusion.sampler=strange", "diffusion.strange.width=1"]
    with pytest.raises(UserError, match=r"diffusion\.strange\.width is declared as dict"):
        resolve(values={}, sets=sets)


def test_the_kit_checks_a_denoiser_with_its_settings(mine: Path) -> None:
    words = ["check", "hidden", "--include", str(mine), "--denoiser", "mine"]
    status, out, _ = dihal(*words, "--set", "denoiser.mine.dropout=0.5")
    assert status == 0, out
    status, _, err = dihal(*words, "--set", "denoiser.mine.dropout=half")
    assert (status, "denoiser.mine.dropout=half" in err) == (2, True)
    status, _, err = dihal(*words, "--set", "denoiser.width=8")
    assert (status, "check reads settings of denoiser.mine, diffusion, hidden" in err) == (2, True)


def test_a_sweep_over_denoisers_gives_each_its_own(tiny: Tiny, mine: Path, tmp_path) -> None:
    words = ["sweep", *tiny.flags(), "--include", str(mine), "--seeds", "0", "--layer", "2"]
    words += ["--over", "denoiser.name=mlp,mine", "--set", "denoiser.mine.dropout=0.5"]
    status, out, err = dihal(*words, "--out", str(tmp_path / "it"), "--dry-run", "--json")
    assert status == 0, err
    assert len(json.loads(out)["runs"]) == 2


# --- what version 3 kept --------------------------------------------------------------------------

UNET = {"image": [4, 2], "widths": [8], "vae": ""}


def test_a_kept_configuration_of_version_3_is_read(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    config = FinishedRun(tmp_path / "run").config
    assert config.denoiser == DenoiserConfig(width=16, heads=2, context_layers=1, layers=1)


def of_version_3() -> dict[str, Any]:
    """The default configuration as version 3 kept it: without what is newer."""
    tree = RunConfig().to_dict()
    for section, own in tree.items():
        if isinstance(own, dict):
            tree[section] = {k: v for k, v in own.items() if f"{section}.{k}" in VERSION_3}
    return tree


def test_sd_unets_settings_of_version_3_are_its_own_now() -> None:
    old = of_version_3()
    old["denoiser"] |= {"unet": UNET}
    assert (
        keys_of(old).items() <= RunConfig().keys().items()
    )  # of another denoiser, they say nothing
    old["denoiser"] |= {"name": "sd-unet"}
    assert kept(old).denoiser.options == UNetOptions(image=(4, 2), widths=(8,))
    assert kept(kept(old).to_dict()) == kept(old)
    assert "--set denoiser.sd-unet.image=4,2" in run_command(old)
    digest = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()[:12]
    assert version_3_digest(kept(old).keys(), []) == digest  # its folder is found by that


def test_records_of_both_versions_are_labelled_alike() -> None:
    """What a record of version 3 holds of sd-unet tells no two rows apart."""
    old = Record.read(next((GOLDEN / "records").glob("hidden-*.json")))
    config = old.data["config"]

    def like(**denoiser: Any) -> Record:
        return Record({**old.data, "config": {**config, "denoiser": denoiser}, "id": "hidden-new"})

    own = {key: value for key, value in config["denoiser"].items() if key != "unet"}
    label, again = (label for label, _ in _labels("hidden", [old, like(**own)]))
    assert re.fullmatch(re.escape(label) + r" #\w+", again)
    unet = like(**{**config["denoiser"], "name": "sd-unet"})
    assert [label for label, _ in _labels("hidden", [old, unet])][1].endswith("name=sd-unet")
