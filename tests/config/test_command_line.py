"""A run's configuration as a command, and back."""

import shlex

import pytest

from dihal_bench.cli.common import command_of, config_of
from dihal_bench.cli.main import _parser
from dihal_bench.config.command_line import alone, run_command
from dihal_bench.config.resolve import resolve

SWEPT = ["budget.name=tiny-sweep", "budget.diffusion_tokens=131072", "score.chains=2"]


@pytest.mark.parametrize(
    ("preset", "values", "sets"),
    [
        ("tiny", {}, []),
        ("tiny", {"controls": (), "layer": "5", "from_layer": 3, "seed": 2}, SWEPT),
        ("small", {"backbone": "my model", "controls": "regress,ridge"}, ["train.lr=1e-3"]),
        ("tiny", {"text.column": "review.body"}, []),
        ("paper", {"denoiser.name": "sd-unet", "device": "cuda"}, ["score.steps=1,4"]),
        ("tiny", {"device": "cuda"}, []),
        ("tiny", {"device": "cuda", "dtype": "float32"}, []),
        ("tiny", {"interface": "latent"}, ["latent.dim=16", "train.autocast=false"]),
        ("tiny", {"interface": "embedding", "regime": "sequence"}, ["block=8"]),
    ],
)
def test_the_command_gives_the_configuration_again(preset, values, sets):
    config = resolve(preset=preset, values=values, sets=sets).to_dict()
    words = shlex.split(run_command(config))
    assert words[:2] == ["dihal-bench", "run"]
    assert config_of(_parser().parse_args(words[1:])).to_dict() == config
    own = [word for word in words if "=" in word and not word.startswith(("latent.", "budget.n"))]
    assert len(own) <= len(sets)  # what the preset has is not said again


def test_a_run_of_its_own_needs_no_other_command():
    config = resolve(values={"layer": "5"}).to_dict()
    assert alone("dihal-bench run --layer 5", config) == ""
    assert alone("dihal-bench sweep", config) == "dihal-bench run --budget tiny --layer 5"


def test_a_flag_of_two_words_is_said_again_as_it_was_given():
    command = "dihal-bench run --backbone x --text-column review.body --budget tiny"
    assert command_of(_parser().parse_args(shlex.split(command)[1:])) == command
