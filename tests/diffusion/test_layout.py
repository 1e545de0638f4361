"""Who sees whom, by examples small enough to write down."""

import pytest
import torch
from torch import Tensor

from dihal_bench.diffusion.layout import Layout

TWO_DOCUMENTS = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])


def rows_of(mask: Tensor | None) -> list[str]:
    """A mask [1, 1, T, T] as one text per query, x where it sees."""
    assert mask is not None
    assert mask.dtype == torch.bool
    assert mask.shape[:2] == (1, 1)
    return ["".join("x" if seen else "." for seen in row) for row in mask[0, 0].tolist()]


def test_causal_regime() -> None:
    layout = Layout(torch.tensor([[0, 1, 0, 1]]))
    assert rows_of(layout.context_mask()) == ["x...", "xx..", "..x.", "..xx"]
    assert layout.block_mask() is None
    assert layout.documents.tolist() == [[1, 1, 2, 2]]


@pytest.mark.parametrize(
    ("size", "shift", "starts"),
    [
        (1, 0, [0, 1, 2, 3, 4, 5, 6, 7]),
        (2, 0, [0, 0, 2, 2, 4, 5, 5, 7]),
        (2, 1, [0, 1, 1, 3, 3, 5, 6, 6]),
        (3, 0, [0, 0, 0, 3, 3, 5, 5, 5]),
        (3, 1, [0, 0, 2, 2, 2, 5, 5, 7]),
        (3, 2, [0, 1, 1, 1, 4, 5, 6, 6]),
        (100, 0, [0, 0, 0, 0, 0, 5, 5, 5]),
        (100, 99, [0, 1, 1, 1, 1, 5, 6, 6]),
    ],
)
def test_starts_of_blocks(size: int, shift: int, starts: list[int]) -> None:
    """Each document is cut anew; its first block has size - shift places."""
    layout = Layout.blocks(TWO_DOCUMENTS, size, shift)
    assert layout.starts is not None
    assert layout.starts.dtype == torch.int64
    assert layout.starts.tolist() == [starts]


def test_starts_of_blocks_are_counted_along_each_row() -> None:
    positions = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 2]])
    layout = Layout.blocks(positions, 2)
    assert layout.starts is not None
    assert layout.starts.tolist() == [[0, 0, 2, 2], [0, 1, 1, 3]]


def test_masks_of_blocks() -> None:
    layout = Layout.blocks(TWO_DOCUMENTS, 3, 1)  # 0 1 | 2 3 4 || 5 6 | 7
    assert rows_of(layout.context_mask()) == [
        "x.......",
        "x.......",
        "xxx.....",
        "xxx.....",
        "xxx.....",
        ".....x..",
        ".....x..",
        ".....xxx",
    ]
    assert rows_of(layout.block_mask()) == [  # one's own place is no key: it is the query's input
        ".x......",
        "x.......",
        "...xx...",
        "..x.x...",
        "..xx....",
        "......x.",
        ".....x..",
        "........",
    ]
    assert rows_of(layout.causal().context_mask()) == rows_of(Layout(TWO_DOCUMENTS).context_mask())
    assert layout.causal().block_mask() is None


@pytest.mark.parametrize(("size", "shift"), [(1, 0), (3, 0), (3, 2), (100, 0)])
def test_every_place_sees_the_first_clean_place_of_its_document(size: int, shift: int) -> None:
    mask = Layout.blocks(TWO_DOCUMENTS, size, shift).context_mask()[0, 0]
    assert mask[:5, 0].all()
    assert mask[5:, 5].all()


@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
def test_values_at_the_starts(shape: tuple[int, ...]) -> None:
    positions = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 2]])
    values = torch.randn(*positions.shape, *shape)
    found = Layout.blocks(positions, 2).at_start(values)
    assert torch.equal(found[0], values[0, [0, 0, 2, 2]])
    assert torch.equal(found[1], values[1, [0, 1, 1, 3]])
    assert Layout(positions).at_start(values) is values
