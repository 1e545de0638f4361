"""FLOPs as they are counted against formulas by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dihal_bench.training.ledger import count_flops, rounded_as_ever

WINDOW, BATCH, STEPS = 16, 2, 6


# --- the ledger -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", ["none", "causal", "boolean"])
def test_flops_of_attention_and_a_linear_layer(mask: str) -> None:
    rows, heads, length, width, out = 2, 3, 10, 8, 5
    linear = nn.Linear(width, out)
    q, k, v = (torch.randn(rows, heads, length, width, requires_grad=True) for _ in range(3))
    options = {
        "none": {},
        "causal": {"is_causal": True},
        "boolean": {"attn_mask": torch.ones(length, length, dtype=torch.bool).tril()},
    }[mask]

    def forward() -> torch.Tensor:
        return linear(F.scaled_dot_product_attention(q, k, v, **options)).sum()

    with torch.no_grad():
        inference = count_flops(forward)
    matmul = 2 * rows * heads * length * length * width  # one of: scores, mixing
    dense = 2 * rows * heads * length * width * out
    assert inference == 2 * matmul + dense
    training = count_flops(lambda: forward().backward())
    # backward: scores again, and four products; the layer's input and its weight
    assert training == (2 + 5) * matmul + (1 + 2) * dense


@pytest.mark.parametrize("inference", [False, True])
def test_everything_else_is_counted_as_torch_does(inference: bool) -> None:
    image, rows = torch.randn(2, 3, 8, 8), torch.randn(4, 6, 8)
    layers = [(nn.Conv2d(3, 4, 3, groups=1), image), (nn.ConvTranspose2d(3, 4, 3), image)]
    layers += [(nn.GRU(8, 8), rows), (nn.Linear(8, 5), rows), (nn.Bilinear(8, 8, 3), rows)]

    def work() -> None:
        with torch.inference_mode(inference):
            torch.einsum("btd,bsd->bts", rows, rows).matmul(rows)
            for layer, given in layers:
                out = layer(given, given) if isinstance(layer, nn.Bilinear) else layer(given)
                total = (out[0] if isinstance(out, tuple) else out).square().sum()
                if not inference:
                    total.backward()

    with FlopCounterMode(display=False) as theirs:
        work()
    assert count_flops(work) == theirs.get_total_flops() > 0


def test_attention_alone_is_counted_in_bfloat16() -> None:
    q = torch.randn(1, 2, 16, 8)
    with torch.autocast("cpu", torch.bfloat16):
        flops = count_flops(lambda: F.scaled_dot_product_attention(q, q, q))
    assert flops == 2 * 2 * 2 * 16 * 16 * 8


# --- bits -----------------------------------------------------------------------------------------


def _gradient(x: torch.Tensor) -> torch.Tensor:
    own = x.clone().requires_grad_()
    F.silu(own).square().sum().backward()
    assert own.grad is not None
    return own.grad


def test_counting_changes_no_bit() -> None:
    x, found = torch.randn(500), []
    count_flops(lambda: found.append(_gradient(x)))
    assert torch.equal(found[0], _gradient(x))


def test_early_steps_are_rounded_as_they_were_when_all_of_them_were_counted() -> None:
    x = torch.randn(500)
    with rounded_as_ever(early=True):
        early = _gradient(x)
    with rounded_as_ever(early=False):
        late = _gradient(x)
    parts = torch.ops.aten.silu_backward.default.decompose(2 * F.silu(x), x)
    assert torch.equal(early, parts)
    assert not torch.equal(early, late)
