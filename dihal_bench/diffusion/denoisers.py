"""Denoisers: networks that see noise at their own position and clean context at earlier ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from dihal_bench.core.configurable import Configurable
from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS
from dihal_bench.diffusion.layers import (
    DenoisingLayer,
    EncoderLayer,
    ModulatedOutput,
    PerceptronLayer,
    level_features,
    rotary_angles,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dihal_bench.diffusion.layout import Layout


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """The trunk that all interfaces share.

    Attributes:
        name: registered denoiser.
        width: channels of the residual stream.
        context_layers: causal layers over the clean condition (run once per sequence).
        layers: denoising layers (run once per network evaluation); of a U-Net, per resolution.
        heads: attention heads.
        options: the denoiser's own settings, of its ``Options``; None: their defaults. As keys they
            are denoiser.NAME.key, for example ``denoiser.sd-unet.image``.
    """

    name: str = "transformer"
    width: int = 128
    context_layers: int = 2
    layers: int = 2
    heads: int = 4
    options: Any = None

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise UserError(f"denoiser.{name}={getattr(self, name)} must be 1 or more.")
        if self.width % (2 * self.heads):
            raise UserError(
                f"denoiser.width={self.width} must be an even multiple of "
                f"denoiser.heads={self.heads}."
            )


def check_denoiser(name: str, regime: str) -> None:
    """Refuse a denoiser that cannot be used in a regime.

    Raises:
        UserError: it cannot, or there is none of that name.
    """
    if regime not in DENOISERS.get(name).regimes:
        raise UserError(
            f"--denoiser {name} sees one place at a time and cannot denoise a block jointly, as "
            f"--regime {regime} does; choose transformer."
        )


class Denoiser(Configurable, nn.Module, ABC):
    """Maps a noised signal, its level and a clean condition to the network's output, per position.

    Locality is part of the contract. In the causal regime the output at position i depends on the
    noised signal at i alone and on the condition at positions <= i of the same document; in the
    sequence regime on the noised signal of i's block and on the condition up to the block's first
    place (``Layout``).

    Attributes:
        regimes: the regimes it can be used in.
        presets: preset -> what it sets for this denoiser: keys of ``Options``, or else of
            ``DenoiserConfig``.
        help: one line for ``dihal-bench list``.
    """

    regimes: ClassVar[tuple[str, ...]] = ("causal", "sequence")
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    help: ClassVar[str] = ""

    def __init__(self, inputs: int, outputs: int, condition: int, config: DenoiserConfig):
        """Build the network; this is how interfaces call every denoiser.

        Args:
            inputs: channels of the noised signal and of what is seen beside it.
            outputs: dimensions D of the signal.
            condition: dimensions C of the condition.
            config: sizes, and the settings of its own.

        Raises:
            UserError: a setting does not suit this denoiser.
        """
        super().__init__()
        self.options = self.with_defaults(config.options)
        self.inputs, self.outputs, self.condition, self.config = inputs, outputs, condition, config

    @abstractmethod
    def encode(self, condition: Tensor, layout: Layout) -> Any:
        """Digest the condition once.

        Args:
            condition: [B, T, C].
            layout: documents, and blocks if there are any.

        Returns:
            What ``forward`` wants to see of it; independent of the noise and its level.
        """

    def oracle(self, signal: Tensor) -> dict[str, float]:
        """Return what it loses of noisefree signals [N, inputs] by construction, by name.

        Most lose nothing and have nothing to say.
        """
        del signal
        return {}

    @abstractmethod
    def forward(self, z: Tensor, t: Tensor, context: Any) -> Tensor:
        """Return the output [B, T, outputs].

        Args:
            z: the noised signal, [B, T, inputs].
            t: its level in (0, 1], [B, T] or [].
            context: what ``encode`` returned.
        """


@dataclass(frozen=True)
class Context:
    """The clean stream and, per denoising layer, its keys and values.

    Attributes:
        stream: per place the clean stream at the latest place it may see, [B, T, W].
        keys_values: per denoising layer (K, V) of all clean places, each [B, H, past + T, W/H].
        masks: what a query sees of the clean places, bool [B, 1, T, past + T], and of the noisy
            ones.
        angles: rotary angles [T, W/H/2].
    """

    stream: Tensor
    keys_values: list[tuple[Tensor, Tensor]]
    masks: tuple[Tensor, Tensor | None]
    angles: Tensor


class ContextEncoder(nn.Module):
    """A causal transformer over the clean condition: run once, whatever the number of steps."""

    def __init__(self, condition: int, config: DenoiserConfig):
        super().__init__()
        width, heads = config.width, config.heads
        self.head_dim = width // heads
        self.embed = nn.Linear(condition, width)
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads) for _ in range(config.context_layers)
        )

    def forward(self, condition: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return the stream [B, T, W] and the rotary angles; the condition is [B, T, C]."""
        causal = layout.causal()
        mask = causal.context_mask()
        angles = rotary_angles(
            condition.shape[1], self.head_dim, condition.device, start=layout.before
        )
        stream: Tensor = self.embed(condition).to(condition.dtype)  # kept wide under autocast
        for layer in self.layers:
            stream = layer(stream, causal, mask, angles)
        return stream, angles


@DENOISERS.register("transformer")
class TransformerDenoiser(Denoiser):
    """A causal encoder of the clean context, then denoising layers that attend to it.

    Layers follow DiT (Peebles and Xie, 2023): the noise level shifts, scales and gates every branch
    (adaLN-zero). Rotary positions are relative, so that documents in one window need no restart.
    """

    help: ClassVar[str] = "causal context encoder, then DiT layers; bidirectional inside blocks"

    def __init__(self, inputs: int, outputs: int, condition: int, config: DenoiserConfig):
        super().__init__(inputs, outputs, condition, config)
        width, heads = config.width, config.heads
        self.embed_signal = nn.Linear(inputs, width)
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.encoder = ContextEncoder(condition, config)
        self.context_norm = nn.RMSNorm(width)
        self.layers = nn.ModuleList(DenoisingLayer(width, heads) for _ in range(config.layers))
        self.head = ModulatedOutput(width, outputs)

    def encode(self, condition: Tensor, layout: Layout) -> Context:
        """Run the causal encoder over the clean condition; see ``Denoiser.encode``."""
        stream, angles = self.encoder(condition, layout)
        normed = self.context_norm(stream)
        keys_values = []
        for layer in self.layers:
            assert isinstance(layer, DenoisingLayer)
            own = layer.attention.keys_values(normed, angles)
            keys_values.append(layout.join(layer.attention, own))
        masks = layout.context_mask(), layout.block_mask()
        return Context(layout.at_start(stream), keys_values, masks, angles)

    def forward(self, z: Tensor, t: Tensor, context: Context) -> Tensor:
        """Denoise every place, or every block, on its own; see ``Denoiser.forward``."""
        level = self.level(level_features(t, self.config.width).to(z.dtype))  # (B, T, W) or (W)
        x = context.stream + self.embed_signal(z)
        for layer, keys_values in zip(self.layers, context.keys_values, strict=True):
            x = layer(x, level, keys_values, context.masks, context.angles)
        out: Tensor = self.head(x, level)
        return out


@DENOISERS.register("mlp")
class MLPDenoiser(Denoiser):
    """A small residual perceptron per position on the cached causal context encoder.

    One pass of the encoder and S cheap steps, as in MAR's diffusion head (Li et al., 2024). It sees
    one place, so there is no joint denoising of a block.
    """

    regimes: ClassVar[tuple[str, ...]] = ("causal",)
    help: ClassVar[str] = "causal context encoder, then a perceptron per position"

    def __init__(self, inputs: int, outputs: int, condition: int, config: DenoiserConfig):
        super().__init__(inputs, outputs, condition, config)
        width = config.width
        self.embed_signal = nn.Linear(inputs, width)
        self.level = nn.Sequential(nn.Linear(width, width), nn.SiLU())
        self.encoder = ContextEncoder(condition, config)
        self.context_norm = nn.RMSNorm(width)
        self.layers = nn.ModuleList(PerceptronLayer(width) for _ in range(config.layers))
        self.head = ModulatedOutput(width, outputs)

    def encode(self, condition: Tensor, layout: Layout) -> Tensor:
        """Run the causal encoder over the clean condition; see ``Denoiser.encode``."""
        stream, _ = self.encoder(condition, layout)
        out: Tensor = self.context_norm(stream)
        return out

    def forward(self, z: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Denoise every place on its own; see ``Denoiser.forward``."""
        level = self.level(level_features(t, self.config.width).to(z.dtype))
        x = context + self.embed_signal(z)
        for layer in self.layers:
            x = layer(x, level + context)
        out: Tensor = self.head(x, level)
        return out
