"""The documents of packed windows, and how to run them apart."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dihal_bench.core.errors import UserError


@dataclass(frozen=True)
class Documents:
    """Where the documents of packed windows lie, as an address for every token.

    Attributes:
        number: The token's document, counted through the batch, int64 [B, T].
        offset: The token's position in its document, int64 [B, T].
    """

    number: Tensor
    offset: Tensor

    @classmethod
    def find(cls, positions: Tensor | None) -> "Documents | None":
        """Reads the documents off position ids [B, T] that restart at 0 with each document.

        Returns:
            None when every row is one document, so that nothing has to be kept apart.

        Raises:
            UserError: A document starts at another position than 0.
        """
        if positions is None:
            return None
        starts = (
            torch.diff(positions, prepend=positions[:, :1], dim=-1) != 1
        )  # (B, T), True in column 0
        if bool((positions[starts] != 0).any()):
            raise UserError("positions must start every row and document at 0 and rise by 1 inside")
        if not bool(starts[:, 1:].any()):
            return None
        return cls(starts.flatten().cumsum(0).view_as(positions) - 1, positions)

    def to(self, device: torch.device) -> "Documents":
        """Places them on a device."""
        return Documents(self.number.to(device), self.offset.to(device))

    def split(self, packed: Tensor) -> Tensor:
        """[B, T, ...] to [documents, longest, ...]: a document per row, zeros on the right.

        Under causal attention the padding changes nothing, so no mask is needed.
        """
        rows, columns = int(self.number.max()) + 1, int(self.offset.max()) + 1
        empty = packed.new_zeros(rows, columns, *packed.shape[2:])
        return empty.index_put((self.number, self.offset), packed)

    def join(self, split: Tensor) -> Tensor:
        """The inverse of `split`: [documents, longest, ...] to [B, T, ...]."""
        return split[self.number, self.offset]


Positions = Tensor | Documents | None  # of windows; None: every row is one document
