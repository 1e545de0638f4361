"""The configuration of a run: dataclasses, presets, and the ways to override them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from dihal_bench.diffusion.denoisers import DenoiserConfig
from dihal_bench.diffusion.schedule import DiffusionConfig
from dihal_bench.errors import UserError
from dihal_bench.geometry.locate import LocateConfig
from dihal_bench.interfaces.base import LossWeights
from dihal_bench.interfaces.hidden import RESIDUALS
from dihal_bench.scoring.evaluate import ScoreConfig
from dihal_bench.training.budget import BudgetConfig
from dihal_bench.training.trainer import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How text is cut.

    Attributes:
        window: tokens per window.
        train_tokens: at most this many tokens of training text are kept on disk; 0: all.
        validation_tokens: the same of validation text.
    """

    window: int = 256
    train_tokens: int = 0
    validation_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """What a bridge predicts.

    Attributes:
        residual: "none" (the state itself) or "token-mean" (its difference from the mean state of
            its token).
    """

    residual: str = "token-mean"

    def __post_init__(self) -> None:
        if self.residual not in RESIDUALS:
            raise UserError(
                f"bridge.residual={self.residual} is unknown; choose one of {', '.join(RESIDUALS)}."
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the result of ``dihal-bench run``.

    Attributes:
        interface: registered name of what is benchmarked.
        layer: "auto", "early", "middle", "late", or a number: the upper end b of the span.
        from_layer: the lower end a of the span; 0 conditions on the embedding output.
        backbone: "bundled", a local folder, or a hub id.
        corpus: "bundled", a file, a folder, or a Hugging Face dataset name.
        regime: "causal".
        controls: what stands beside the interface in its table.
        seed: of initialisation, data order and noise; a non-negative integer.
        device: a torch device.
        dtype: of the backbone's weights and states.
        include: Python files that register further interfaces.
    """

    interface: str = "hidden"
    layer: str = "auto"
    from_layer: int = 0
    backbone: str = "bundled"
    corpus: str = "bundled"
    regime: str = "causal"
    controls: tuple[str, ...] = ("regress", "token-mean", "ridge", "mean", "identity")
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    include: tuple[str, ...] = ()
    text: TextConfig = field(default_factory=TextConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    locate: LocateConfig = field(default_factory=LocateConfig)
    bridge: BridgeConfig = field(default_factory=BridgeConfig)
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    train: TrainConfig = field(default_factory=TrainConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise UserError(f"--seed {self.seed} must lie between 0 and {_LARGEST_SEED}.")
        for key, (least, most) in _RANGES.items():
            section, _, name = key.partition(".")
            value = getattr(getattr(self, section), name)
            if not least <= value <= most:
                end = (
                    f"{least:g} or more" if math.isinf(most) else f"between {least:g} and {most:g}"
                )
                raise UserError(f"{key}={value} must be {end}.")
        step = self.train.batch * self.text.window
        if self.budget.diffusion_tokens < step:
            raise UserError(
                f"budget.diffusion_tokens={self.budget.diffusion_tokens} is less than one step of "
                f"train.batch={self.train.batch} windows of text.window={self.text.window} tokens; "
                f"give at least {step}."
            )
        if not any(dataclasses.astuple(self.losses)):
            raise UserError("losses.*: every weight is 0, so nothing would be learnt; set one.")
        if max(self.score.steps) > self.diffusion.train_steps:
            raise UserError(
                f"score.steps={max(self.score.steps)} exceeds "
                f"diffusion.train_steps={self.diffusion.train_steps}; choose fewer."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved configuration as nested plain values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    def digest(self) -> str:
        """Return a short hash of the configuration and of the included files' content.

        Runs are told apart by it: an interface that was edited is another run.

        Raises:
            UserError: an included file cannot be read.
        """
        digest = hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode())
        for path in self.include:
            try:
                digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
            except OSError as error:
                raise UserError(
                    f"--include {path}: {error.strerror}; give the path of a Python file."
                ) from error
        return digest.hexdigest()[:12]


_LARGEST_SEED = 2**32 - 1
_ANY, _TINY = math.inf, 1e-12
_RANGES = {  # what would end in an empty sum, a division by zero, or nonsense
    "text.window": (2, _ANY),
    "locate.windows": (1, _ANY),
    "locate.per_window": (1, _ANY),
    "locate.neighbours": (2, _ANY),
    "locate.ridge": (_TINY, _ANY),
    "locate.pairs": (1, _ANY),
    "locate.resamples": (1, _ANY),
    "locate.stability_resamples": (1, _ANY),
    "denoiser.context_layers": (0, _ANY),
    "losses.diff": (0, _ANY),
    "losses.rec": (0, _ANY),
    "losses.ce": (0, _ANY),
    "losses.kd": (0, _ANY),
    "train.batch": (1, _ANY),
    "train.micro": (1, _ANY),
    "train.lr": (_TINY, _ANY),
    "train.muon_lr": (_TINY, _ANY),
    "train.weight_decay": (0, _ANY),
    "train.warmup": (0, 1),
    "train.final": (0, 1),
    "train.clip": (_TINY, _ANY),
    "train.ema": (0, 0.999999),
    "score.tokens": (1, _ANY),
    "score.batch": (1, _ANY),
    "score.resamples": (100, _ANY),
}

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},  # the defaults: minutes on two cores
    "small": {
        "text.window": 512,
        "text.train_tokens": 60_000_000,
        "text.validation_tokens": 2_000_000,
        "budget.diffusion_tokens": 50_000_000,
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
) -> RunConfig:
    """Build a configuration: preset, file, named flags, ``--set``; the last one wins.

    A budget that is set in any part is called "custom", unless it is given a name. Texts are read
    as the type that the key has: whole numbers also as 1_000_000 or 1e6, lists as 1,16 or [1, 16],
    truth values as true, false, 1 or 0.

    Args:
        preset: a key of ``PRESETS``.
        file: a TOML or JSON file of (nested) keys.
        values: keys of the configuration and what the flags gave; None means not given.
        sets: "key.path=value" strings.

    Raises:
        UserError: unknown preset, file or key, or a value of the wrong type.
    """
    if preset not in PRESETS:
        raise UserError(
            f"--budget {preset}: there is no such preset; choose one of {', '.join(PRESETS)}."
        )
    given = _flatten(_read(Path(file))) if file is not None else {}
    given |= {key: value for key, value in values.items() if value is not None}
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--set {item}: write it as key.path=value.")
        given[key.strip()] = value.strip()
    own_budget = any(key.startswith("budget.") for key in given)
    name = {"budget.name": "custom" if own_budget else preset}
    return _build(RunConfig, {**PRESETS[preset], **name, **given}, "")  # type: ignore[no-any-return]


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


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _build(cls: Any, flat: Mapping[str, Any], prefix: str) -> Any:
    """Build dataclass ``cls`` from dotted keys; ``prefix`` is where it hangs, for messages."""
    hints = get_type_hints(cls)
    plain: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in flat.items():
        head, _, rest = key.partition(".")
        if head not in hints or bool(rest) != dataclasses.is_dataclass(hints[head]):
            known = ", ".join(_shown(prefix + name, hint) for name, hint in hints.items())
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
    wanted, convert = _CONVERSIONS[kind]
    try:
        return convert(value)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        flag = _FLAGS.get(key)
        given = f"{flag} {value}" if flag else f"{key}={value}"
        raise UserError(f"{given}: give {wanted}.") from error


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
