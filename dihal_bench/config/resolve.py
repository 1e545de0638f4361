"""From presets, files, flags and ``--set`` to one configuration; the last one wins."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from dihal_bench.config.choices import CHOICES, DENOISER
from dihal_bench.config.identity import baseline_of
from dihal_bench.config.schema import RunConfig, flatten, keys_of
from dihal_bench.core.devices import usual_dtype
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS, INTERFACES, include

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dihal_bench.config.choices import Choice

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},  # the defaults: minutes on two cores
    "small": {
        "text.window": 512,
        "text.train_tokens": 60_000_000,
        "text.validation_tokens": 2_000_000,
        "budget.diffusion_tokens": 50_000_000,
        "budget.recovery_tokens": 25_000_000,
        "denoiser.width": 512,
        "denoiser.heads": 8,
        "denoiser.context_layers": 3,
        "denoiser.layers": 2,
        "locate.windows": 3000,
        "locate.resamples": 100,
        "locate.stability_resamples": 30,
        "train.batch": 32,
        "train.micro": 4,
        "score.batch": 4,
        "score.tokens": 250_000,
        "dtype": "bfloat16",
    },
    "paper": {  # DiHAL, section 4.1: 300K sequences, four epochs, one-fold subsamples of 3K and 500
        "text.window": 512,
        "text.train_tokens": 153_600_000,
        "text.validation_tokens": 5_000_000,
        "budget.diffusion_tokens": 614_400_000,
        "budget.recovery_tokens": 307_200_000,
        "bridge.residual": "none",
        "denoiser.width": 1024,
        "denoiser.heads": 16,
        "denoiser.context_layers": 4,
        "denoiser.layers": 4,
        "locate.windows": 3000,
        "locate.resamples": 100,
        "locate.stability_resamples": 30,
        "train.batch": 64,
        "train.micro": 4,
        "score.batch": 4,
        "score.tokens": 1_000_000,
        "dtype": "bfloat16",
    },
}


def resolve(
    *,
    preset: str = "tiny",
    file: str | None = None,
    values: Mapping[str, Any],
    sets: Iterable[str] = (),
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
    others: Sequence[str] = (),
) -> RunConfig:
    """Build a configuration: preset, file, named flags, ``--set``; the last one wins.

    A budget that is set in any part is called "custom", unless it is given a name. Texts are read
    as the type that the key has: whole numbers also as 1_000_000 or 1e6, lists as 1,16 or [1, 16],
    truth values as true, false, 1 or 0. The dtype that nothing names follows from the device.

    Args:
        preset: a key of ``PRESETS``.
        file: a TOML or JSON file of (nested) keys.
        values: keys of the configuration and what the flags gave; None means not given.
        sets: "key.path=value" strings.
        defaults: preset -> keys that a verb has other defaults for than ``run``.
        others: denoisers and samplers of other configurations, made of the same keys: settings of
            theirs are left out.

    Raises:
        UserError: unknown preset, file or key, or a value of the wrong type.
    """
    if preset not in PRESETS:
        raise UserError(
            f"--budget {preset}: there is no such preset; choose one of {', '.join(PRESETS)}."
        )
    given = flatten(_read(Path(file))) if file is not None else {}
    given |= {key: value for key, value in values.items() if value is not None}
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--set {item}: write it as key.path=value.")
        given[key.strip()] = value.strip()
    given = {key.removeprefix("options."): value for key, value in given.items()}
    for path in included(given):
        include(path)
    own = of_preset(preset, _named(DENOISER, given))
    usual = {**own, "budget.name": preset, **(defaults or {}).get(preset, {})}
    if any(key.startswith("budget.") for key in given):
        usual["budget.name"] = "custom"
    flat = {**usual, **given}
    flat.setdefault("dtype", usual_dtype(_convert(flat.get("device", "cpu"), str, "device")))
    options = {
        section: _build(kind, own, f"{section}.")
        for section, kind in _sections().items()
        if (own := _take(flat, section))
    }
    chosen = {choice.section: _chosen(choice, flat, others) for choice in CHOICES}
    config = _build(RunConfig, flat, "", others=[f"{section}.*" for section in _sections()])
    parts = {
        section: dataclasses.replace(getattr(config, section), options=own)
        for section, own in chosen.items()
    }
    return dataclasses.replace(config, options=options, **parts)  # type: ignore[no-any-return]


def default_values(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every dotted key is by default, plain, with the own settings of what is chosen.

    Args:
        names: the dotted keys that name a denoiser and a sampler, and what they name; one that is
            not registered here has no settings that are known.
    """
    default = RunConfig()
    sections = {}
    for choice in CHOICES:
        name = names.get(choice.path)
        if name in choice.registry.names():
            own = choice.registry.get(str(name)).with_defaults(None)
            sections[choice.section] = dataclasses.replace(
                getattr(default, choice.section), **{choice.key: name}, options=own
            )
    chosen = dataclasses.replace(default, **sections)
    return {**chosen.keys(), **default.keys()}


def kept(tree: Mapping[str, Any]) -> RunConfig:
    """Return the configuration that a run or a record has kept as nested plain values.

    A key that is newer than what was kept has its baseline value, also where the default is another
    by now: that is how the run was made.

    Raises:
        UserError: a key is unknown, or an included file does not run.
    """
    values = keys_of(tree)
    for path in included(values):
        include(path)  # its interfaces may have options
    newer = {
        key: baseline_of(key, default)
        for key, default in _every_default(values).items()
        if key not in values and baseline_of(key, default) != default
    }
    return resolve(values={**newer, **values})


def _every_default(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``default_values``, options of all interfaces among them."""
    own = {name: dataclasses.asdict(kind()) for name, kind in _sections().items()}
    return {**default_values(names), **flatten(own)}


def of_preset(preset: str, denoiser: str) -> dict[str, Any]:
    """Return the keys that a preset sets, with its sizes of a denoiser if it is registered here."""
    if denoiser not in DENOISERS.names():
        return PRESETS[preset]
    sizes = DENOISERS.get(denoiser).presets.get(preset, {})
    return {**PRESETS[preset], **DENOISER.preset(denoiser, sizes)}


def _sections() -> dict[str, Any]:
    """Return the interfaces' own sections of settings, by name."""
    kinds = {name: INTERFACES.get(name) for name in INTERFACES.names()}
    return {name: k.Options for name, k in kinds.items() if k.Options and not k.section}


def _take(flat: dict[str, Any], section: str) -> dict[str, Any]:
    """Remove the keys of a section and return them, without its name."""
    own = [key for key in flat if key.startswith(f"{section}.")]
    return {key.removeprefix(f"{section}."): flat.pop(key) for key in own}


def _named(choice: Choice, flat: Mapping[str, Any]) -> str:
    """Return which one is chosen; without a word of it, the default."""
    default = getattr(getattr(RunConfig(), choice.section), choice.key)
    name: str = _convert(flat.get(choice.path, default), str, choice.path)
    return name


def _chosen(choice: Choice, flat: dict[str, Any], others: Sequence[str]) -> Any:
    """Take the chosen one's own settings out of the keys and build them; None: it has none."""
    name = _named(choice, flat)
    kind, section = choice.options_of(name), f"{choice.section}.{name}"
    own = _take(flat, section) if kind else {}
    for other in set(others) - {name}:
        _take(flat, f"{choice.section}.{other}")
    choice.refuse_others(name, flat)
    return _build(kind, own, f"{section}.") if kind else None


def included(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the paths of the files that given keys include.

    Raises:
        UserError: they are no paths.
    """
    paths: tuple[str, ...] = _convert(given.get("include", ()), tuple[str, ...], "include")
    return paths


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        loaded = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}; give a TOML or JSON file.") from error
    except ValueError as error:
        raise UserError(f"--config {path}: not valid TOML or JSON ({error}).") from error
    if not isinstance(loaded, dict):
        raise UserError(f"--config {path}: write one object of configuration keys.")
    return loaded


def _build(cls: Any, flat: Mapping[str, Any], prefix: str, others: Sequence[str] = ()) -> Any:
    """Build dataclass ``cls`` from dotted keys; ``prefix`` and ``others`` are for messages."""
    hints = {name: kind for name, kind in get_type_hints(cls).items() if kind not in _APART}
    plain: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        head, _, rest = key.partition(".")
        if head not in hints or bool(rest) != dataclasses.is_dataclass(hints[head]):
            names = [_shown(prefix + name, hint) for name, hint in hints.items()]
            known = ", ".join([*names, *others])
            raise UserError(f"there is no configuration key {prefix}{key}; those here are {known}.")
        if rest:
            nested.setdefault(head, {})[rest] = value
        else:
            plain[head] = _convert(value, hints[head], f"{prefix}{key}")
    built = {key: _build(hints[key], values, f"{prefix}{key}.") for key, values in nested.items()}
    return cls(**plain, **built)


def _shown(key: str, kind: Any) -> str:
    return f"{key}.*" if dataclasses.is_dataclass(kind) else key


def _convert(value: Any, kind: Any, key: str) -> Any:
    """Convert a flag's or a file's value to the type that the configuration declares."""
    if get_origin(kind) is tuple:
        parts = value.strip("[]() ").split(",") if isinstance(value, str) else value
        items = parts if isinstance(parts, list | tuple) else [parts]
        texts = [item.strip() if isinstance(item, str) else item for item in items]
        return tuple(_convert(item, get_args(kind)[0], key) for item in texts if item != "")
    if kind not in _CONVERSIONS:
        known = ", ".join(own.__name__ for own in _CONVERSIONS)
        raise UserError(f"{key} is declared as {kind}; declare it as one of {known}, or a tuple.")
    wanted, convert = _CONVERSIONS[kind]
    try:
        return convert(value)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        flag = _FLAGS.get(key)
        given = f"{flag} {value}" if flag else f"{key}={value}"
        raise UserError(f"{given}: give {wanted}.") from error


_APART = (dict[str, Any], Any)  # types of what holds settings of their own, built apart
_FLAGS = {"from_layer": "--from", "seed": "--seed"}  # typed keys that have a flag of their own


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise TypeError
    return str(value)


def _truth(value: Any) -> bool:
    return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]


def _real(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError
    return number


def _whole(value: Any) -> int:
    if isinstance(value, str) and value.lstrip("+-").replace("_", "").isdecimal():
        return int(value)
    number = _real(value)
    if not number.is_integer():
        raise ValueError
    return value if isinstance(value, int) else int(number)


_CONVERSIONS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    str: ("a text", _text),
    bool: ("true or false", _truth),
    float: ("a finite number", _real),
    int: ("a whole number", _whole),
}
