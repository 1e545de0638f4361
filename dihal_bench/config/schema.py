"""The configuration of a run: dataclasses, presets, and the ways to override them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dihal_bench.config.choices import plain, with_new_names
from dihal_bench.core.errors import UserError
from dihal_bench.data.rows import COLUMN
from dihal_bench.diffusion.denoisers import DenoiserConfig
from dihal_bench.diffusion.schedule import DiffusionConfig
from dihal_bench.geometry.locate import LocateConfig
from dihal_bench.interfaces.hidden import RESIDUALS
from dihal_bench.interfaces.settings import REGIMES, LossWeights
from dihal_bench.training.config import BudgetConfig, TrainConfig

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """What is scored, and how precisely.

    Attributes:
        tokens: validation tokens scored (whole windows).
        steps: network evaluations per chain S of the stochastic rows; the last is the headline.
        chains: parallel chains drawn per stochastic row, the largest ensemble.
        batch: windows per pass.
        resamples: bootstrap resamples over documents.
        oracle_tokens: about so many of them for the recovery under noise and for scores on the way.
        bound_draws: noise levels per block that its variational bound is estimated from.
        bound_snr: signal-to-noise ratio from which on a signal is decoded, in that bound.
    """

    tokens: int = 24_576
    steps: tuple[int, ...] = (1, 16)
    chains: int = 8
    batch: int = 8
    resamples: int = 2000
    oracle_tokens: int = 4_096
    bound_draws: int = 8
    bound_snr: float = 1.0

    def __post_init__(self) -> None:
        if self.chains < 2 or self.chains & (self.chains - 1):
            raise UserError(f"score.chains={self.chains} must be a power of two, 2 or more.")
        if not self.steps or min(self.steps) < 1 or len(set(self.steps)) < len(self.steps):
            shown = ",".join(map(str, self.steps))
            raise UserError(f"score.steps={shown} must be different numbers, each 1 or more.")


AUTO = "auto"  # of the controls and the residual: what suits the interface and the regime
_BLOCK = 16  # tokens


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """How text is cut.

    Attributes:
        window: tokens per window.
        train_tokens: at most this many tokens of training text are kept on disk; 0: all.
        validation_tokens: the same of validation text.
        column: of a row that holds its text, or its chat; ``a.b`` is nested.
    """

    window: int = 256
    train_tokens: int = 0
    validation_tokens: int = 0
    column: str = COLUMN


@dataclass(frozen=True, kw_only=True)
class BridgeConfig:
    """What a bridge predicts.

    Attributes:
        residual: "none" (the state itself), "token-mean" (its difference from the mean state of
            its token), or "auto": the latter in the causal regime, the former in blocks, whose
            later tokens are not known.
    """

    residual: str = AUTO

    def __post_init__(self) -> None:
        if self.residual not in (AUTO, *RESIDUALS):
            known = ", ".join((AUTO, *RESIDUALS))
            raise UserError(f"bridge.residual={self.residual} is unknown; choose one of {known}.")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the result of ``dihal-bench run``.

    Attributes:
        interface: registered name of what is benchmarked.
        layer: "auto", "early", "middle", "late", or a number: the upper end b of the span.
        from_layer: the lower end a of the span; 0 conditions on the embedding output.
        backbone: "bundled", a local folder, or a hub id.
        corpus: "bundled", a file, a folder, or a Hugging Face dataset name.
        regime: "causal" (all positions in parallel) or "sequence" (blocks, denoised jointly).
        block: tokens per block in the sequence regime; 0: 16.
        controls: what stands beside the interface in its table; "auto": what it names itself.
        seed: of initialisation, data order and noise; a non-negative integer.
        device: a torch device.
        dtype: of the backbone's weights and states.
        include: Python files that register further interfaces.
        options: interface -> its own settings, where they are not the defaults; as keys they are
            NAME.key, for example ``embedding.clamp``.
    """

    interface: str = "hidden"
    layer: str = "auto"
    from_layer: int = 0
    backbone: str = "bundled"
    corpus: str = "bundled"
    regime: str = "causal"
    block: int = 0
    controls: tuple[str, ...] = (AUTO,)
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    include: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
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
        for phase, tokens in self.budget.caps.items():
            if tokens < step:
                raise UserError(
                    f"budget.{phase}_tokens={tokens} is less than one step of "
                    f"train.batch={self.train.batch} windows of text.window={self.text.window} "
                    f"tokens; give at least {step}."
                )
        self._check_regime()
        if not self.losses.learns:
            raise UserError("losses.*: every weight is 0, so nothing would be learnt; set one.")
        if max(self.score.steps) > self.diffusion.train_steps:
            raise UserError(
                f"score.steps={max(self.score.steps)} exceeds "
                f"diffusion.train_steps={self.diffusion.train_steps}; choose fewer."
            )

    def _check_regime(self) -> None:
        if self.regime not in REGIMES:
            raise UserError(f"--regime {self.regime} is unknown; choose {' or '.join(REGIMES)}.")
        causal = self.regime == "causal"
        if causal and self.block:
            raise UserError(
                f"block={self.block} has no meaning in the causal regime; add --regime sequence."
            )
        if not 0 <= self.block <= self.text.window or (not causal and self.text.window < _BLOCK):
            raise UserError(
                f"block={self.block or _BLOCK} must be between 1 and text.window="
                f"{self.text.window}; choose a shorter block."
            )
        if not causal and self.bridge.residual == "token-mean":
            raise UserError(
                "bridge.residual=token-mean needs the tokens of a block before they are generated; "
                "in the sequence regime leave it at auto or none."
            )

    @property
    def block_size(self) -> int:
        """Tokens that are denoised jointly; 0 in the causal regime."""
        return 0 if self.regime == "causal" else self.block or _BLOCK

    @property
    def residual(self) -> str:
        """What a predictor of a state predicts in this regime."""
        if self.bridge.residual != AUTO:
            return self.bridge.residual
        return "token-mean" if self.regime == "causal" else "none"

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved configuration as nested plain values; ``resolve`` reads its keys."""
        return json.loads(json.dumps(plain(self)))  # type: ignore[no-any-return]

    def keys(self) -> dict[str, Any]:
        """Return it as a user gives it: dotted keys, options under the name of what has them."""
        return keys_of(self.to_dict())


def keys_of(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted keys of today of a configuration that is kept as nested plain values."""
    flat = {key.removeprefix("options."): value for key, value in flatten(tree).items()}
    return with_new_names(flat)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, dict)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


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
    "score.oracle_tokens": (1, _ANY),
    "score.bound_draws": (1, _ANY),
    "score.bound_snr": (_TINY, _ANY),
    "losses.diff": (0, _ANY),
    "losses.rec": (0, _ANY),
    "losses.ce": (0, _ANY),
    "losses.kd": (0, _ANY),
    "losses.token_share": (_TINY, 1),
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
