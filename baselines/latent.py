"""Diffusion over latents of an autoencoder of the next token's hidden state.

Lovelace et al. (LD4LG, arXiv 2212.09462): an autoencoder on a frozen language model, latents
normalised to the square root of their dimension, diffusion on top of the fixed encoder. LDLM (arXiv
2605.07933): encoder, decoders and denoiser trained together (``--set latent.joint=true``).

Both encode whole texts by attention; here encoder and decoders see one position, so that a signal
stands for one token and nothing leaks. Unlike LDLM's, the joint recipe too begins with a recovery
phase, its latents have unit scale, noise levels are drawn uniformly, and its warm-up covers all
losses of the denoiser.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import INTERFACES
from dihal_bench.interfaces.losses import mean_over, token_losses
from dihal_bench.interfaces.tokens import NextState, new_readout, normalised

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dihal_bench.interfaces.batch import Batch
    from dihal_bench.interfaces.settings import InterfaceConfig, Span, Step
    from dihal_bench.models.model import Backbone

_DIM = 64
_STEEPNESS, _CENTRE = 10.0, 0.8  # of LDLM's warm-up


@dataclass(frozen=True, kw_only=True)
class LatentOptions:
    """Settings of ``latent``.

    Attributes:
        layer: L, whose state is encoded; 0: the last block but two, at least 1.
        dim: dimensions of a latent; 0: 64, with ``states`` as many as the state has (as in LDLM).
        width: hidden units of the encoder and of both decoders; 0: four times the state's.
        noise: standard deviation of the noise at the decoder's input while it is trained, in units
            of the latents.
        states: the latent is trained to give back the state, and the token decoder on what comes
            back, without gradient between them (LDLM); else all of it by the token decoder's loss.
        joint: encoder and decoders train on with the denoiser; implies ``states``.
    """

    layer: int = 0
    dim: int = 0
    width: int = 0
    noise: float = 0.25
    states: bool = False
    joint: bool = False

    def __post_init__(self) -> None:
        for name in ("dim", "width", "noise"):
            if getattr(self, name) < 0:
                raise UserError(f"latent.{name}={getattr(self, name)} must be 0 or more.")

    @property
    def gives_back_states(self) -> bool:
        """Whether the state's error is a loss of its own."""
        return self.states or self.joint

    def dim_for(self, hidden: int) -> int:
        """Return the dimensions of a latent of states of ``hidden`` dimensions."""
        return self.dim or (hidden if self.gives_back_states else _DIM)


class Autoencoder(nn.Module):
    """Perceptrons per position: state -> latent -> state -> logits."""

    def __init__(self, backbone: Backbone, options: LatentOptions):
        super().__init__()
        hidden = backbone.hidden_size
        width, self.dim = options.width or 4 * hidden, options.dim_for(hidden)
        self.encoder = _perceptron(hidden, width, self.dim)
        self.state_decoder = _perceptron(self.dim, width, hidden)
        self.readout = new_readout(backbone)
        self.token_decoder = _perceptron(hidden, width, self.readout.in_features)

    def encode(self, state: Tensor) -> Tensor:
        """Return latents of norm sqrt(dim) [..., dim]: no parameter can shrink their scale."""
        return normalised(self.encoder(state))

    def tokens(self, state: Tensor) -> Tensor:
        """Return the logits [..., V] of what the state decoder gives back.

        They are bounded: samples fall beside the latents that decoders learn from, and would be
        read wrongly with tens of nats of confidence.
        """
        logits: Tensor = self.readout(normalised(self.token_decoder(state)))
        return logits


@INTERFACES.register("latent")
class Latent(NextState):
    """Signal Enc(h_L(i + 1)), standardised; recovery by a decoder that sees no tokens."""

    phases: ClassVar[tuple[str, ...]] = ("recovery", "diffusion")
    local_recovery: ClassVar[bool] = True
    least_accuracy: ClassVar[float] = 0.95
    controls: ClassVar[tuple[str, ...]] = ("lm",)
    Options: ClassVar[type | None] = LatentOptions
    help: ClassVar[str] = "LD4LG, LDLM: diffusion over a latent of the next token's hidden state"

    def __init__(self, backbone: Backbone, span: Span, config: InterfaceConfig):
        super().__init__(backbone, span, config)
        self.recovery: Autoencoder = self._built(lambda: Autoencoder(backbone, self.options))
        zeros = torch.zeros(self.recovery.dim, dtype=torch.float32, device=backbone.device)
        self.register_buffer("latent_mean", zeros)
        self.register_buffer("latent_std", torch.ones_like(zeros))
        self.latent_mean: Tensor
        self.latent_std: Tensor

    @property
    def sizes(self) -> tuple[int, int]:
        """Latent dimensions, and the condition's."""
        hidden = self.backbone.hidden_size
        return self.options.dim_for(hidden), hidden

    def target(self, batch: Batch) -> Tensor:
        """Return the standardised latent of h_L(i + 1), [B, T, D]; fixed unless trained jointly."""
        latent = self.recovery.encode(self.next_state(batch))
        x0 = (latent - self.latent_mean) / self.latent_std
        return x0 if self.options.joint else x0.detach()

    def recover(self, x0: Tensor, batch: Batch) -> Tensor:
        """Decode the signal of every place on its own."""
        del batch
        state = self.recovery.state_decoder(x0 * self.latent_std + self.latent_mean)
        return self.recovery.tokens(state)

    def recovery_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Return the cross-entropy of the decoded token, and with ``states`` the state's error."""
        state = self.next_state(batch)
        latent = self.recovery.encode(state)
        noise = self._recovery_normal(batch, self.sizes[0], step).to(latent.dtype)
        decoded = self.recovery.state_decoder(latent + self.options.noise * noise)
        losses = {}
        if self.options.gives_back_states:
            losses["states"] = mean_over((decoded - state).square().mean(-1), self.known(batch))
            decoded = decoded.detach()
        logits = self.recovery.tokens(decoded)
        return losses | {"tokens": token_losses(logits, batch, ce=True, kd=False)["ce"]}

    def recovery_key(self) -> dict[str, Any]:
        """Its own settings decide: neither span nor diffusion has a part in it."""
        return {}

    @torch.no_grad()
    def settle(self, batches: Iterable[Batch]) -> None:
        """Estimate the mean and standard deviation of the latents, per dimension."""
        rows = [self.recovery.encode(self.next_state(b))[self.known(b)] for b in batches]
        latents = torch.cat(rows).double()  # (n, D)
        std = latents.std(0, correction=0)
        self.latent_mean.copy_(latents.mean(0))
        self.latent_std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Return the phase's losses; jointly, the denoiser's warm up beside those of the recovery.

        L = gamma(s) L_denoiser + L_states + L_tokens, gamma a sigmoid of the progress s.
        """
        losses = super().losses(batch, step)
        if not self.options.joint or step.phase == "recovery":
            return losses
        weight = warm_up(step.index / step.of)
        warmed = {name: weight * value for name, value in losses.items()}
        return warmed | self.recovery_losses(batch, step)

    def parameters_in(self, phase: str) -> list[nn.Parameter]:
        """Return what is trained in a phase: jointly, in the last one everything."""
        trained = super().parameters_in(phase)
        if self.options.joint and phase == "diffusion":
            trained = super().parameters_in("recovery") + trained
        return trained


def warm_up(progress: float) -> float:
    """Return gamma(s) = 1 / (1 + exp(-k (s - c))) of the progress s in [0, 1], k = 10, c = 0.8."""
    return 1 / (1 + math.exp(-_STEEPNESS * (progress - _CENTRE)))


def _perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, outputs))
