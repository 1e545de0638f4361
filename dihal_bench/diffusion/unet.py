"""Stable Diffusion's U-Net as a denoiser: every token's state is a small image of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS
from dihal_bench.diffusion.denoisers import ContextEncoder, Denoiser, DenoiserConfig
from dihal_bench.diffusion.vae import FrozenVAE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dihal_bench.diffusion.layout import Layout

_TRAINED_LEVELS = 1000  # the time steps that the sinusoids of diffusers are made for


@dataclass(frozen=True)
class Prefix:
    """The clean context of a batch, as the images of its B x T tokens see it.

    Attributes:
        image: the clean stream at every token's own place, [B*T, C, s, s].
        keys_values: per cross-attention (K, V), each [B, H, 1 + past + T, d]; the null key comes
            first.
        mask: which keys a token sees, bool [B, 1, T, 1 + past + T]; the null key always.
    """

    image: Tensor
    keys_values: list[tuple[Tensor, Tensor]]
    mask: Tensor


class PrefixAttention:
    """Cross-attention of all images to one set of keys per sequence, as a diffusers processor.

    Diffusers hands what the U-Net gets as ``encoder_hidden_states`` to its cross-attentions as it
    is: here a ``Prefix``. Its own processor wants the context once per image, T times the prefix,
    and hides keys by adding -10000, which large activations outweigh.
    """

    def __init__(self, index: int):
        """Make the processor of the ``index``-th cross-attention."""
        self.index = index

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Prefix,
        attention_mask: None = None,
    ) -> Tensor:
        """Return what the pixels [B*T, P, W] find in the part of the prefix that they see.

        The pixels of an image see the same keys, so they count as heads of their token: the mask
        stays [B, 1, T, 1 + T].
        """
        assert attention_mask is None  # the prefix has the mask
        prefix, (images, pixels, width) = encoder_hidden_states, hidden_states.shape
        keys, values = prefix.keys_values[self.index]
        rows, heads, _, size = keys.shape
        query = attn.to_q(hidden_states).reshape(rows, -1, pixels, heads, size)
        mixed = F.scaled_dot_product_attention(
            query.permute(0, 3, 2, 1, 4).flatten(1, 2),  # (B, H*P, T, d)
            keys.repeat_interleave(pixels, dim=1),
            values.repeat_interleave(pixels, dim=1),
            attn_mask=prefix.mask,
        )
        mixed = mixed.reshape(rows, heads, pixels, -1, size).permute(
            0, 3, 2, 1, 4
        )  # (B, T, P, H, d)
        out: Tensor = attn.to_out[0](mixed.reshape(images, pixels, width))
        return out  # the rest of ``to_out`` is dropout, which is off


@dataclass(frozen=True, kw_only=True)
class UNetOptions:
    """Settings of ``sd-unet``; Stable Diffusion 1.5 has 4,32 and 320,640,1280,1280.

    Attributes:
        image: channels and side of the image that every token's state becomes.
        widths: channels per resolution, each half as wide and high as the one before.
        vae: folder or hub id of a frozen ``AutoencoderKL`` around the U-Net; empty: none.
    """

    image: tuple[int, ...] = (8, 4)
    widths: tuple[int, ...] = (16, 48)
    vae: str = ""

    def __post_init__(self) -> None:
        if len(self.image) != 2 or min(self.image) < 1:
            given = ",".join(map(str, self.image))
            raise UserError(
                f"denoiser.sd-unet.image={given} must be channels and side, such as 8,4."
            )
        if not self.widths or any(width < 8 or width % 8 for width in self.widths):
            given = ",".join(map(str, self.widths))
            raise UserError(
                f"denoiser.sd-unet.widths={given} must be multiples of 8, one per resolution, such "
                "as 16,48."
            )


@DENOISERS.register("sd-unet")
class UNetDenoiser(Denoiser):
    """Diffusers' ``UNet2DConditionModel`` in the shape of Stable Diffusion 1.5, in any size.

    A linear map makes an image of a token's state; the U-Net (Rombach et al., 2022) denoises it and
    attends to the clean prefix where Stable Diffusion attends to the prompt. A prefix is a set to
    it, in which the last place is not marked: as image-conditioned U-Nets do, this one also gets
    the stream at the token's own place in its input. Normalisation and convolution stay within an
    image, so that tokens meet in the masked cross-attention alone.
    """

    regimes: ClassVar[tuple[str, ...]] = ("causal",)
    Options: ClassVar[type | None] = UNetOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "small": {"image": (4, 16), "widths": (64, 128, 128)},
        # Stable Diffusion 1.5: 4 x 32 x 32 is d = 4096
        "paper": {"image": (4, 32), "widths": (320, 640, 1280, 1280), "layers": 2},
    }
    help: ClassVar[str] = (
        "causal context encoder, then Stable Diffusion's U-Net on an image a token"
    )

    def __init__(self, inputs: int, outputs: int, condition: int, config: DenoiserConfig):
        super().__init__(inputs, outputs, condition, config)
        channels, side = self.options.image
        self.shape = channels, side, side
        self.encoder = ContextEncoder(condition, config)
        self.context_norm = nn.RMSNorm(config.width)
        self.null = nn.Parameter(torch.randn(config.width))
        self.embed_context = nn.Linear(config.width, math.prod(self.shape))
        self.unet = _new_unet(config, self.options)
        self.vae = FrozenVAE(self.options.vae) if self.options.vae else None
        self.outer = self._outer_shape()
        self.embed_signal = nn.Linear(inputs, math.prod(self.outer))
        self.head = nn.Linear(math.prod(self.outer), outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def encode(self, condition: Tensor, layout: Layout) -> Prefix:
        """Run the encoder and all maps to keys and values, once; see ``Denoiser.encode``."""
        stream = self.context_norm(self.encoder(condition, layout)[0])
        return Prefix(
            image=self._as_images(self.embed_context(stream).to(condition.dtype), self.shape),
            keys_values=[
                self._keys_values(attn, stream, layout) for attn in cross_attentions(self.unet)
            ],
            mask=F.pad(layout.context_mask(), (1, 0), value=True),
        )

    def _keys_values(self, attn: Any, stream: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Return K and V of the null key and of all places, each [B, H, 1 + past + T, d]."""
        null = self.null.to(stream.dtype).expand(stream.shape[0], 1, -1)
        both = torch.cat((null, stream), dim=1)  # (B, 1 + T, W)
        keys, values = (split_heads(to(both), attn.heads) for to in (attn.to_k, attn.to_v))
        seen = layout.join(attn, (keys[:, :, 1:], values[:, :, 1:]))
        return torch.cat((keys[:, :, :1], seen[0]), dim=2), torch.cat(
            (values[:, :, :1], seen[1]), dim=2
        )

    def forward(self, z: Tensor, t: Tensor, context: Prefix) -> Tensor:
        """Denoise every place's image on its own; see ``Denoiser.forward``."""
        level = (_TRAINED_LEVELS * t).expand(z.shape[:2]).reshape(-1)  # (B*T)
        # kept wide under autocast: the U-Net computes the level's features in its input's dtype
        images = self._as_images(self.embed_signal(z), self.outer).to(z.dtype)
        images = images if self.vae is None else self.vae.encode(images)
        images = self.unet(images + context.image, level, context).sample
        images = images if self.vae is None else self.vae.decode(images)
        out: Tensor = self.head(images.reshape(*z.shape[:2], -1))
        return out

    @torch.no_grad()
    def vae_fvu(self, states: Tensor) -> float:
        """Return what the autoencoder's round trip alone loses of ``states``: its oracle.

        The states are mapped to images, encoded, decoded and mapped back by the pseudo-inverse.

        Args:
            states: [N, inputs].

        Returns:
            The fraction of the states' variance that is lost; 0 where nothing is.
        """
        assert self.vae is not None, "there is no autoencoder: denoiser.sd-unet.vae is empty"
        images = self._as_images(self.embed_signal(states), self.outer)
        decoded = self.vae.decode(self.vae.encode(images)).flatten(1)
        found = (decoded - self.embed_signal.bias) @ torch.linalg.pinv(self.embed_signal.weight).T
        lost = (states - found).square().sum() / (states - states.mean(0)).square().sum()
        return float(lost)

    def oracle(self, signal: Tensor) -> dict[str, float]:
        """Return the fraction of variance that the autoencoder alone loses, if there is one."""
        return {} if self.vae is None else {"vae_fvu": self.vae_fvu(signal)}

    def _outer_shape(self) -> tuple[int, int, int]:
        """Return the shape of the image that a state is mapped to: what the VAE reads, if any."""
        if self.vae is None:
            return self.shape
        channels, side, _ = self.shape
        if channels != self.vae.channels:
            raise UserError(
                f"denoiser.sd-unet.image={channels},{side} does not fit denoiser.sd-unet.vae, "
                f"whose latents have {self.vae.channels} channels; give "
                f"{self.vae.channels},{side}."
            )
        side *= self.vae.factor
        return self.vae.colours, side, side

    @staticmethod
    def _as_images(vectors: Tensor, shape: tuple[int, int, int]) -> Tensor:
        return vectors.reshape(-1, *shape)  # (B*T, C, s, s)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> UNetDenoiser:
        """Move the autoencoder along; it is no submodule."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.vae is not None:
            self.vae.model._apply(fn, recurse)
        return self


def cross_attentions(unet: Any) -> list[Any]:
    """Return the cross-attentions of a U-Net, in a fixed order."""
    return [module for name, module in unet.named_modules() if name.endswith(".attn2")]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return [B, H, T, W/H] of ``x`` [B, T, W]."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def _new_unet(config: DenoiserConfig, options: UNetOptions) -> Any:
    from diffusers import UNet2DConditionModel

    widths, (channels, side) = options.widths, options.image
    plain = min(1, len(widths) - 1)  # the lowest resolution has no attention, if it is not the only
    attended = len(widths) - plain
    unet = UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        layers_per_block=config.layers,
        down_block_types=("CrossAttnDownBlock2D",) * attended + ("DownBlock2D",) * plain,
        up_block_types=("UpBlock2D",) * plain + ("CrossAttnUpBlock2D",) * attended,
        cross_attention_dim=config.width,
        attention_head_dim=tuple(_heads(width) for width in widths),  # it means their number
        norm_num_groups=_groups(widths),
    )
    for index, attn in enumerate(cross_attentions(unet)):
        attn.set_processor(PrefixAttention(index))
    return unet


def _heads(width: int) -> int:
    """Return the number of heads: 8 as in Stable Diffusion 1.5, fewer if they got under 16 wide."""
    return max(n for n in range(1, 9) if n == 1 or (width % n == 0 and width >= 16 * n))


def _groups(widths: tuple[int, ...]) -> int:
    """Return the groups of a norm: 32 as in Stable Diffusion 1.5, fewer if they got under 4 wide.

    A norm removes what is common to its group, so a group of one channel would not hear the level.
    """
    common = math.gcd(*widths)
    return max(n for n in range(1, 33) if common % n == 0 and common >= 4 * n)
