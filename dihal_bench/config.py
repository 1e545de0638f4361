"""The configuration of a run: dataclasses, presets, and the ways to override them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from dihal_bench.diffusion.denoisers import DenoiserConfig
from dihal_bench.diffusion.schedule import DiffusionConfig
from dihal_bench.errors import UserError
from dihal_bench.geometry.locate import LocateConfig
from dihal_bench.interfaces.base import LossWeights
from dihal_bench.training.budget import BudgetConfig
from dihal_bench.training.trainer import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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
        residual: "none" (the state itself) or "token-mean" (its difference from the token's mean state).
    """

    residual: str = "token-mean"


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What is scored, and how precisely.

    Attributes:
        tokens: validation tokens scored (whole windows).
        steps: network evaluations per chain S of the stochastic rows; the last is the headline.
        chains: parallel chains drawn per stochastic row, the largest ensemble.
        batch: windows per pass.
        resamples: bootstrap resamples over documents.
    """

    tokens: int = 32_768
    steps: tuple[int, ...] = (1, 16)
    chains: int = 8
    batch: int = 8
    resamples: int = 2000

    def __post_init__(self) -> None:
        if self.chains < 2 or self.chains & (self.chains - 1):
            raise UserError(f"score.chains={self.chains} must be a power of two, 2 or more.")


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

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved configuration as nested plain values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    def digest(self) -> str:
        """Return a short hash of the resolved configuration; runs are told apart by it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]


PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},  # the defaults: minutes on two cores
    "small": {
        "text.window": 512,
        "text.train_tokens": 60_000_000,
        "text.validation_tokens": 2_000_000,
        "budget.name": "small",
        "budget.diffusion_tokens": 50_000_000,
        "denoiser.width": 512,
        "denoiser.heads": 8,
        "denoiser.context_layers": 3,
        "denoiser.layers": 2,
        "locate.windows": 3000,
        "locate.resamples": 100,
        "locate.stability_resamples": 30,
        "train.batch": 32,
        "score.tokens": 250_000,
        "dtype": "bfloat16",
    },
    "paper": {  # DiHAL, section 4.1: 300K sequences, four epochs, one-fold subsamples of 3K and 500
        "text.window": 512,
        "text.train_tokens": 153_600_000,
        "text.validation_tokens": 5_000_000,
        "budget.name": "paper",
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
        "score.tokens": 1_000_000,
        "dtype": "bfloat16",
    },
}


def resolve(
    *, preset: str = "tiny", file: str | None = None, values: Mapping[str, Any], sets: Iterable[str] = ()
) -> RunConfig:
    """Build a configuration: preset, then the file, then named flags, then ``--set``; the last wins.

    Args:
        preset: a key of ``PRESETS``.
        file: a TOML or JSON file of (nested) keys.
        values: keys of the configuration and what the flags gave; None means not given.
        sets: "key.path=value" strings.

    Raises:
        UserError: unknown preset, file or key, or a value of the wrong type.
    """
    if preset not in PRESETS:
        raise UserError(f"--budget {preset}: there is no such preset; choose one of {', '.join(PRESETS)}.")
    flat = {"budget.name": preset, **PRESETS[preset]}
    if file is not None:
        flat |= _flatten(_read(Path(file)))
    flat |= {key: value for key, value in values.items() if value is not None}
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--set {item}: write it as key.path=value.")
        flat[key.strip()] = value.strip()
    return _build(RunConfig, flat, "")  # type: ignore[no-any-return]


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        loaded = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}; give a TOML or JSON file.") from error
    except ValueError as error:
        raise UserError(f"--config {path}: not valid TOML or JSON ({error}).") from error
    return dict(loaded)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, dict)
        flat |= _flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _build(cls: Any, flat: Mapping[str, Any], prefix: str) -> Any:
    """Build dataclass ``cls`` from dotted keys; ``prefix`` is where it hangs, for messages."""
    hints = get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for key, value in flat.items():
        head, _, rest = key.partition(".")
        if head not in hints or bool(rest) != dataclasses.is_dataclass(hints[head]):
            known = ", ".join(f"{prefix}{name}" for name in hints)
            raise UserError(f"there is no configuration key {prefix}{key}; those here are {known}.")
        if rest:
            arguments.setdefault(head, {})[rest] = value
        else:
            arguments[head] = _convert(value, hints[head], f"{prefix}{key}")
    built = {
        key: _build(hints[key], value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in arguments.items()
    }
    return cls(**built)


def _convert(value: Any, kind: Any, key: str) -> Any:
    """Convert a flag's or a file's value to the type that the configuration declares."""
    try:
        if get_origin(kind) is tuple:
            items = [i.strip() for i in value.split(",") if i.strip()] if isinstance(value, str) else value
            return tuple(_convert(item, get_args(kind)[0], key) for item in items)
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[str(value).lower()]
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise ValueError
        return kind(value)
    except (ValueError, TypeError, KeyError) as error:
        wanted = getattr(kind, "__name__", str(kind))
        raise UserError(f"{key}={value} is not of type {wanted}; give one that is.") from error
