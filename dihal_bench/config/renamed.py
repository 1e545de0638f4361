"""Keys of the configuration that version 3 called otherwise: the one list of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

RENAMED: Mapping[str, str] = {  # a key of version 3 -> what it is called now
    "denoiser.unet.image": "denoiser.sd-unet.image",
    "denoiser.unet.widths": "denoiser.sd-unet.widths",
    "denoiser.unet.vae": "denoiser.sd-unet.vae",
}


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted keys of a kept configuration as they are called today.

    Version 3 kept the settings of ``sd-unet`` with every denoiser; others had the defaults there,
    which are left out.
    """
    own = f"denoiser.{values.get('denoiser.name')}."
    names = {key: key if key.startswith(own) else RENAMED.get(key, key) for key in values}
    return {new: values[key] for key, new in names.items() if new == key or new.startswith(own)}
