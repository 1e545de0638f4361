"""A pretrained image autoencoder that may stand around the U-Net; it is never trained."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


class FrozenVAE:
    """Diffusers' ``AutoencoderKL`` with its weights as they came, in evaluation mode.

    It is no module, so that the trunk that holds it neither counts, trains nor saves its weights.

    Attributes:
        model: the network.
        colours: channels of an image.
        channels: channels of its latents.
        factor: side of an image over side of its latents.
    """

    def __init__(self, source: str):
        """Load it from a folder or the hub.

        Raises:
            UserError: it cannot be had, or its weights are not safetensors or incomplete.
        """
        self.model = _load_vae(source).eval().requires_grad_(False)
        self.colours: int = self.model.config.in_channels
        self.channels: int = self.model.config.latent_channels
        self.factor = 2 ** (len(self.model.config.block_out_channels) - 1)

    def encode(self, images: Tensor) -> Tensor:
        """Return the scaled posterior mode [N, C, s, s] of images [N, 3, s*factor, s*factor]."""
        latents: Tensor = self.model.encode(images).latent_dist.mode()
        scaled: Tensor = (latents - self._shift) * self.model.config.scaling_factor
        return scaled

    def decode(self, latents: Tensor) -> Tensor:
        """Return the images of scaled latents: what undoes ``encode``, as far as anything does."""
        unscaled = latents / self.model.config.scaling_factor + self._shift
        images: Tensor = self.model.decode(unscaled).sample
        return images

    @property
    def _shift(self) -> float:
        return self.model.config.shift_factor or 0.0


def _load_vae(source: str) -> Any:
    """Return diffusers' model; raises a ``UserError`` if there is no complete one."""
    from diffusers import AutoencoderKL
    from safetensors import SafetensorError

    remedy = "give a folder made by AutoencoderKL.save_pretrained, or a hub id"
    path = Path(source).expanduser()
    if not path.is_dir() and (path.exists() or not _HUB_ID.fullmatch(source)):
        raise UserError(f"denoiser.sd-unet.vae={source} is no folder: {remedy}.")
    try:
        with _quiet():
            model, report = AutoencoderKL.from_pretrained(
                str(path) if path.is_dir() else source,
                use_safetensors=True,  # pickles run code
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, SafetensorError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = lines[0].split(". ")[0].rstrip(".: ")
        raise UserError(
            f"denoiser.sd-unet.vae={source} cannot be read ({reason}): {remedy}."
        ) from error
    if report["missing_keys"]:
        raise UserError(
            f"denoiser.sd-unet.vae={source} lacks {len(report['missing_keys'])} weights of its "
            f"configuration, such as {min(report['missing_keys'])}: {remedy}."
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep diffusers' own reports away: what matters of them is raised."""
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
