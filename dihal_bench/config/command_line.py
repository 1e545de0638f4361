"""The command of one run, from its configuration: the one it was made by may be a whole sweep's."""

from __future__ import annotations

import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

from dihal_bench.config.choices import CHOICES, DENOISER
from dihal_bench.config.resolve import PRESETS, default_values, of_preset
from dihal_bench.config.schema import keys_of
from dihal_bench.core.devices import usual_dtype
from dihal_bench.core.markdown import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

_RUN = "dihal-bench run"
_FLAGS = {
    **{"from_layer": "--from", "denoiser.name": "--denoiser", "include": "--include"},
    "text.column": "--text-column",
    **{key: f"--{key}" for key in ("interface", "controls", "layer", "backbone", "corpus")},
    **{key: f"--{key}" for key in ("regime", "seed", "device", "dtype")},
}


def alone(command: str, config: Mapping[str, Any]) -> str:
    """Return the command of a run alone, where the one that it was made by makes others too.

    Args:
        command: that made the run.
        config: of the run, resolved, as plain values.

    Returns:
        ``dihal-bench run`` with the preset that is nearest, and all that is otherwise; nothing
        where the run was made by such a command.
    """
    return "" if f"{command} ".startswith(f"{_RUN} ") else run_command(config)


def run_command(config: Mapping[str, Any]) -> str:
    """Return ``dihal-bench run`` with flags that give this configuration again."""
    own = keys_of(config)
    denoiser, sampler = (str(own.get(choice.path)) for choice in CHOICES)
    dtype = usual_dtype(str(own.get("device", "cpu")))
    usual = {preset: _usual(preset, dtype, denoiser, sampler) for preset in PRESETS}
    others = {preset: _differences(own, usual[preset]) for preset in PRESETS}
    preset = min(others, key=lambda name: len(others[name]))
    words = ["--budget", preset]
    for key, value in others[preset].items():
        if key == "budget.name" and value == preset:
            continue
        for text in value if key == "include" else [_said(value)]:
            flag = _FLAGS.get(key)
            words += [flag, str(text)] if flag else ["--set", f"{key}={text}"]
    return f"{_RUN} {shlex.join(map(one_line, words))}"


@cache
def _usual(preset: str, dtype: str, *chosen: str) -> dict[str, str]:
    """Return what a preset says of every key, defaults included, as a flag would."""
    names = {choice.path: name for choice, name in zip(CHOICES, chosen, strict=True)}
    usual = {**default_values(names), "dtype": dtype, **of_preset(preset, names[DENOISER.path])}
    return {key: _said(value) for key, value in usual.items()}


def _differences(own: Mapping[str, Any], usual: Mapping[str, str]) -> dict[str, Any]:
    return {key: value for key, value in own.items() if usual.get(key) != _said(value)}


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
