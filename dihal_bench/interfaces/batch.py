"""A batch of windows together with what the teacher says of it, computed once and shared."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dihal_bench.core import devices
from dihal_bench.core.errors import UserError
from dihal_bench.models.packing import Documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from dihal_bench.data.tokens import Windows
    from dihal_bench.diffusion.noise import Noise
    from dihal_bench.diffusion.past import KVCache
    from dihal_bench.models.model import Backbone


_WITHHELD = ("windows", "documents", "offsets", "bytes", "words")  # they name the text


@dataclass
class Batch:
    """Packed windows on the backbone's device; every integer tensor has shape [B, T].

    Tokens, positions and where documents start are all that an interface sees of a text. Which text
    it is, only the noise knows.

    Attributes:
        backbone: the frozen teacher.
        tokens: token ids.
        positions: position ids; 0 at the start of a document and of the window.
        scored: whether the token is a target, bool.
        past: what the places before these left, where a text is read place by place.
    """

    backbone: Backbone
    tokens: Tensor
    positions: Tensor
    scored: Tensor
    past: KVCache | None = None
    _address: tuple[Tensor, Tensor] | None = None  # documents and offsets: where noise is drawn
    _hidden: dict[int, Tensor] = field(default_factory=dict)
    _logits: Tensor | None = None
    _teacher: tuple[Tensor, Tensor] | None = None
    _parts: dict[tuple[int, ...], Batch] = field(default_factory=dict)
    _documents: tuple[Documents | None] | None = None  # of the positions, found once

    @classmethod
    def of(
        cls,
        windows: Windows,
        backbone: Backbone,
        *,
        layers: Iterable[int] = (),
        logits: bool = False,
        known: Mapping[int, Tensor] = MappingProxyType({}),
        past: KVCache | None = None,
    ) -> Batch:
        """Place windows on the device and run the teacher once for all that will be asked of it.

        Args:
            windows: the packed windows.
            backbone: the teacher.
            layers: layers whose states ``hidden`` will be asked for.
            logits: whether ``teacher_logits`` will be asked for.
            known: states [B, T, D] that need not be computed, by layer.
            past: what the places before these left; every row is then one document.
        """

        def place(array: NDArray[Any]) -> Tensor:
            return devices.place(torch.from_numpy(array), backbone.device)

        batch = cls(
            backbone=backbone,
            tokens=place(windows.tokens),
            positions=place(windows.positions),
            scored=place(windows.scored),
            past=past,
            _address=(place(windows.documents), place(windows.offsets)),
        )
        batch._hidden = {layer: state.to(backbone.device) for layer, state in known.items()}
        wanted = sorted({*layers} - known.keys())
        if wanted or logits:
            found = Documents.find(torch.from_numpy(windows.positions))  # nobody waits for the host
            batch._documents = (found and found.to(backbone.device),)
            with torch.no_grad():
                states = backbone.states(batch.tokens, batch.apart, wanted, logits=logits)
            batch._hidden |= states.hidden
            batch._logits = states.logits
        return batch

    def __getattr__(self, name: str) -> Any:
        """Say why something is not here.

        Raises:
            UserError: it names the text, which an interface is not told.
            AttributeError: it was never here.
        """
        if name in _WITHHELD:
            raise UserError(
                f"batch.{name} is not given to interfaces, which see tokens, positions and starts "
                "of documents; draw noise by batch.normal or batch.uniform."
            )
        raise AttributeError(f"a batch has no {name}")

    def normal(self, noise: Noise, size: int, *, draw: int, step: int = 0) -> Tensor:
        """Return standard normal noise of every place, float64 [B, T, size]; see ``Noise``."""
        assert self._address is not None
        return noise.normal(*self._address, size, draw=draw, step=step)

    def uniform(self, noise: Noise, *, draw: int) -> Tensor:
        """Return a number in (0, 1) of every place, float64 [B, T]; see ``Noise``."""
        assert self._address is not None
        return noise.uniform(*self._address, draw=draw)

    def coin(self, noise: Noise, *, draw: int, begin: bool = False) -> Tensor:
        """Return a number in (0, 1) of every row, float64 [B, 1].

        Args:
            noise: it is drawn from.
            draw: number of the draw.
            begin: whether it is that of the document's first place, not that of the row's.
        """
        assert self._address is not None
        documents, offsets = (values[:, :1] for values in self._address)
        return noise.uniform(documents, offsets * (not begin), draw=draw)

    @property
    def begins(self) -> Tensor:
        """Which tokens begin a document, bool [B, T]; a window may begin inside one."""
        assert self._address is not None
        return self._address[1] == 0

    def part(self, rows: tuple[int, ...]) -> Batch:
        """Return some of the windows as a batch of their own, the same one whoever asks."""
        if rows not in self._parts:
            index = self.rows(rows)
            self._parts[rows] = replace(taken(self, index), _parts={}, _documents=None)
        return self._parts[rows]

    def rows(self, rows: tuple[int, ...]) -> Tensor:
        """Return an index of rows on the device of the batch."""
        return torch.tensor(rows, device=self.tokens.device)

    def go_on(self) -> Tensor:
        """Run the teacher on from the highest state there is; return its logits, [B, T, V]."""
        if self._logits is None and self._hidden:
            top = max(self._hidden)
            with torch.no_grad():
                self._logits = self.upper(self._hidden[top], top)
        return self.teacher_logits

    def hidden(self, layer: int) -> Tensor:
        """Return h_layer of the teacher, [B, T, D]."""
        if layer not in self._hidden:
            with torch.no_grad():
                self._hidden[layer] = self.backbone.lower(
                    self.tokens, layer, **self._way("lower", layer)
                )
        return self._hidden[layer]

    def upper(self, hidden: Tensor, layer: int) -> Tensor:
        """Return the logits [B, T, V] of states ``hidden`` [B, T, D] of a layer."""
        return self.backbone.upper(hidden, layer, **self._way("upper", layer))

    @property
    def apart(self) -> Documents | None:
        """The documents that passes of the backbone keep apart; None: every row is one.

        An accelerator's positions have to be waited for: once, not in every pass.
        """
        if self._documents is None:
            self._documents = (Documents.find(self.positions),)
        return self._documents[0]

    def _way(self, part: str, layer: int) -> dict[str, Any]:
        """Return where these places stand, as the backbone's passes want to know it."""
        if self.past is None:
            return {"positions": self.apart}
        places = self.tokens.shape[1]
        return {"cache": self.past.cache((part, layer), places, self.backbone.new_cache)}

    def following(self, values: Tensor) -> Tensor:
        """Return what ``values`` [B, T, ...] has at the next place; the last place repeats itself.

        It belongs to another document where ``followed`` is false.
        """
        return torch.cat((values[:, 1:], values[:, -1:]), dim=1)

    @property
    def followed(self) -> Tensor:
        """Whether the next token is there and of the same document, bool [B, T]."""
        return torch.nn.functional.pad(self.scored[:, 1:], (0, 1))

    @property
    def teacher_logits(self) -> Tensor:
        """The teacher's next-token logits, [B, T, V]."""
        if self._logits is None:
            with torch.no_grad():
                self._logits = self.backbone.logits(self.tokens, self.apart)
        return self._logits

    @property
    def teacher(self) -> tuple[Tensor, Tensor]:
        """The teacher's next-token probabilities [B, T, V] and their entropy [B, T], float32."""
        if self._teacher is None:
            logs = torch.log_softmax(self.teacher_logits.float(), dim=-1)
            probabilities = logs.exp()
            self._teacher = probabilities, -torch.linalg.vecdot(probabilities, logs)
        return self._teacher


def taken(value: Any, rows: Tensor) -> Any:
    """Return some rows of every tensor [B, ...] in a value; what has none stays as it is."""
    if isinstance(value, Tensor):
        return value.index_select(0, rows) if value.ndim else value
    if isinstance(value, tuple):
        return tuple(taken(own, rows) for own in value)
    if isinstance(value, dict):
        return {key: taken(own, rows) for key, own in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: taken(getattr(value, f.name), rows) for f in fields(value)}
        )
    return value
