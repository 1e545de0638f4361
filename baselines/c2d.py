"""Diffusion over hidden states with a contextual decoder, and that decoder without diffusion.

CoDAR (arXiv 2603.02547): a continuous process, then an autoregressive decoder that looks at the
denoised signal and at the tokens so far ("contextual rounding"). Such a decoder can ignore the
signal and be a language model of its own: ``lm-decoder`` is just that, and stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import INTERFACES
from dihal_bench.diffusion.denoisers import ContextEncoder, DenoiserConfig
from dihal_bench.diffusion.layout import Layout
from dihal_bench.interfaces.losses import token_losses
from dihal_bench.interfaces.tokens import NextState, new_readout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import InterfaceConfig, Span, Step
    from dihal_bench.models.model import Backbone

_SILENT = 0.1  # share of windows whose decoder hears no signal while it is trained


@dataclass(frozen=True, kw_only=True)
class C2DOptions:
    """Settings of ``c2d`` and of ``lm-decoder``.

    Attributes:
        layer: L, whose state is the signal; 0: the last block but two, at least 1.
        layers: causal layers of the decoder.
        width: channels of the decoder; 0: as many as the denoiser has.
        heads: attention heads of the decoder; 0: as many as the denoiser has.
        temperature: divides the decoder's logits.
    """

    layer: int = 0
    layers: int = 2
    width: int = 0
    heads: int = 0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise UserError(f"c2d.layers={self.layers} must be 1 or more.")
        for name in ("width", "heads"):
            if getattr(self, name) < 0:
                raise UserError(f"c2d.{name}={getattr(self, name)} must be 0 or more.")
        if not self.temperature > 0:
            raise UserError(f"c2d.temperature={self.temperature} must be above 0.")


class PairDecoder(nn.Module):
    """A causal transformer over pairs (condition, signal), to logits.

    The logits at i depend on the pairs of places <= i of the same document.
    """

    def __init__(self, backbone: Backbone, pair: int, sizes: DenoiserConfig):
        super().__init__()
        self.stream = ContextEncoder(pair, sizes)
        self.readout = new_readout(backbone)
        self.head = nn.Sequential(
            nn.RMSNorm(sizes.width), nn.Linear(sizes.width, self.readout.in_features)
        )

    def forward(self, signal: Tensor, condition: Tensor, layout: Layout) -> Tensor:
        """Return logits [B, T, V] of signals [B, T, D] and conditions [B, T, C]."""
        pairs = torch.cat((condition, signal.to(condition.dtype)), dim=-1)
        stream, _ = self.stream(pairs, layout)
        logits: Tensor = self.readout(self.head(stream))
        return logits


class Decoded(NextState):
    """Signal h_L(i + 1), standardised; recovery by a causal decoder of (h_a(<=i), signal(<=i)).

    The decoder is trained by cross-entropy, like every recovery: it hears the next token's state,
    which the teacher does not, so that the teacher's probabilities are the wrong answer.
    """

    decoder_steps: ClassVar[int] = 1
    Options: ClassVar[type | None] = C2DOptions

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        super().__init__(backbone, span, config)
        sizes = _decoder_sizes(self.options, config.denoiser)
        self.recovery: PairDecoder = self._built(
            lambda: PairDecoder(backbone, sum(self.sizes), sizes)
        )

    @property
    def sizes(self) -> tuple[int, int]:
        """Signal and condition are both as wide as the backbone."""
        return self.backbone.hidden_size, self.backbone.hidden_size

    def target(self, batch: Batch) -> Tensor:
        """Return the standardised h_L(i + 1), [B, T, D]."""
        return self.next_state(batch)

    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        """Decode all places in one causal pass."""
        logits: Tensor = self._decode(x0, batch) / self.options.temperature
        return logits

    def heard(self, batch: Batch, step: Step) -> Tensor:
        """Return the signal [B, T, D] that the decoder hears in a step of its training.

        Noised to a level per place, uniform over all of them, as the best linear estimate of the
        signal: so does the denoiser's own estimate shrink as it knows less, down to the mean (zero)
        at pure noise. A few windows are silent throughout.
        """
        x0 = self.target(batch)
        drawn = self._recovery_normal(batch, self.sizes[0] + 2, step)
        eps, uniform = drawn[..., :-2], torch.special.ndtr(drawn[..., -2:])  # of a normal: uniform
        t = self.diffusion.draw_level(uniform[..., 0])
        z = self.diffusion.corrupt(x0, eps, t)
        audible = (uniform[:, :1, 1:] >= _SILENT).to(z.dtype)  # (B, 1, 1)
        heard: Tensor = self.diffusion.network_input(z, t) * audible
        return heard

    def recovery_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Return the decoder's cross-entropy."""
        logits = self._decode(self.heard(batch, step), batch)
        return {"decoder_ce": token_losses(logits, batch, ce=True, kd=False)["ce"]}

    def recovery_key(self) -> dict[str, Any]:
        """Return what the decoder depends on: its sizes may be the denoiser's; no shared losses."""
        sizes = _decoder_sizes(self.options, self.config.denoiser)
        own = {"losses": None, "width": sizes.width, "heads": sizes.heads}
        return super().recovery_key() | own

    def _decode(self, signal: Tensor, batch: Batch) -> Tensor:
        layout = Layout(batch.positions, past=batch.past)
        logits: Tensor = self.recovery(signal, self.condition(batch), layout)
        return logits


@INTERFACES.register("c2d")
class C2D(Decoded):
    """Diffusion over the next token's hidden state, then contextual decoding."""

    phases: ClassVar[tuple[str, ...]] = ("recovery", "diffusion")
    controls: ClassVar[tuple[str, ...]] = ("lm-decoder", "lm")
    help: ClassVar[str] = "CoDAR: diffusion over the next token's state, then a causal decoder"


@INTERFACES.register("lm-decoder")
class DecoderAlone(Decoded):
    """The decoder of ``c2d``, trained and used without a signal: a language model."""

    phases: ClassVar[tuple[str, ...]] = ("recovery",)
    stochastic: ClassVar[bool] = False
    iterative: ClassVar[bool] = False
    section: ClassVar[str] = "c2d"
    help: ClassVar[str] = "control: the decoder of c2d without a signal"

    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        """Decode without the signal, whatever it is."""
        return super().recover(torch.zeros_like(x0), batch)

    def heard(self, batch: Batch, step: Step) -> Tensor:
        """Return silence."""
        del step
        return self._silence(batch)

    def chains(
        self, batch: Batch, *, steps: int, count: int, layout: Layout | None = None
    ) -> Iterator[Tensor]:
        """Yield silence ``count`` times."""
        del steps, layout
        for _ in range(count):
            yield self._silence(batch)

    def _silence(self, batch: Batch) -> Tensor:
        shape = (*batch.tokens.shape, self.sizes[0])
        return torch.zeros(shape, dtype=self.dtype, device=batch.tokens.device)


def _decoder_sizes(options: C2DOptions, denoiser: DenoiserConfig) -> DenoiserConfig:
    """Return the decoder's sizes; what is not set is the denoiser's.

    Raises:
        UserError: the width does not fit the heads.
    """
    width, heads = options.width or denoiser.width, options.heads or denoiser.heads
    if width % (2 * heads):
        raise UserError(f"c2d.width={width} must be an even multiple of c2d.heads={heads}.")
    return DenoiserConfig(width=width, heads=heads, context_layers=options.layers)
