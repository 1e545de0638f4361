"""Sections that name a registered class and hold its own settings: denoiser.NAME.key.

A sampler's are diffusion.NAME.key: ``diffusion.sampler`` names it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from dihal_bench.core.errors import UserError
from dihal_bench.core.registry import DENOISERS, SAMPLERS, Registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A key that names a registered class, whose own settings lie beside it.

    Attributes:
        section: of the configuration.
        key: in the section; its value is a name of the registry.
        registry: what there is to choose from.
    """

    section: str
    key: str
    registry: Registry

    @property
    def path(self) -> str:
        """The dotted key that names the chosen one."""
        return f"{self.section}.{self.key}"

    def options_of(self, name: str) -> Any:
        """Return the dataclass of the settings that an entry has; None: it has none.

        Raises:
            UserError: it is not registered.
        """
        return self.registry.get(name).Options

    def preset(self, name: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
        """Return dotted keys of what a preset sets for an entry: its own, or the section's."""
        kind = self.options_of(name)
        own = {field.name for field in fields(kind)} if kind else set()
        return {
            f"{self.section}.{name}.{key}" if key in own else f"{self.section}.{key}": value
            for key, value in sizes.items()
        }

    def refuse_others(self, name: str, keys: Iterable[str]) -> None:
        """Refuse settings of entries that are not chosen, which would be ignored.

        Args:
            name: of the chosen one.
            keys: dotted, without those of the chosen one.

        Raises:
            UserError: one of them is a setting of another, or is called otherwise now.
        """
        for key in (key for key in keys if key.startswith(f"{self.section}.")):
            if new := RENAMED.get(key):
                raise UserError(f"the configuration key {key} is called {new} now; write that.")
            for other in {*self.registry.names()} - {name}:
                if key.startswith(f"{self.section}.{other}.") and self.options_of(other):
                    raise UserError(
                        f"{key} is a setting of the {self.registry.kind} {other}, and {self.path} "
                        f"is {name}; set {self.path}={other}, or leave it out."
                    )


DENOISER = Choice(section="denoiser", key="name", registry=DENOISERS)
SAMPLER = Choice(section="diffusion", key="sampler", registry=SAMPLERS)
CHOICES = (DENOISER, SAMPLER)


def plain(config: Any) -> dict[str, Any]:
    """Return a dataclass that has these sections as nested values, own settings under their name.

    Args:
        config: of a run or of an interface.
    """
    values = asdict(config)
    for choice in CHOICES:
        section = values[choice.section]
        own = section.pop("options")
        section |= {section[choice.key]: own} if own else {}
    return values
