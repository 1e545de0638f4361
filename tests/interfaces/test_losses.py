"""Token losses: their closed form, and the same where logits are too many to be widened at once."""

import pytest
import torch
from torch.autograd import gradcheck

from dihal_bench.interfaces import losses as module
from dihal_bench.interfaces.losses import token_losses

from ..tiny import PROBE, batch_of


@pytest.mark.parametrize("asked", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("rows", [1, 5, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_rows_at_a_time_are_all_at_once(
    asked: tuple[bool, bool], rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    ce, kd = asked
    batch, found = batch_of(PROBE), []
    where = torch.rand(batch.tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    vocabulary = batch.teacher_logits.shape[-1]
    for most in (1 << 24, rows * vocabulary):
        monkeypatch.setattr(module, "_AT_ONCE", most)
        generator = torch.Generator().manual_seed(1)
        logits = torch.randn(batch.teacher_logits.shape, generator=generator).to(dtype)
        logits.requires_grad_()
        values = token_losses(logits, batch, ce=ce, kd=kd, where=where)
        assert [*values] == [name for name, one in (("ce", ce), ("kd", kd)) if one]
        sum(0.3 * value if name == "ce" else value for name, value in values.items()).backward()
        assert logits.grad is not None
        found.append(([value.detach() for value in values.values()], logits.grad))
    (values, gradient), (again, other) = found
    for one, two in zip(values, again, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(other, gradient, rtol=tolerance, atol=1e-7)


def test_the_gradient_is_that_of_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 14)
    generator = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(2, 2, 3, 7, generator=generator, dtype=torch.float64)
    targets = torch.randint(7, (2, 3), generator=generator)
    logits.requires_grad_()
    assert gradcheck(lambda own: module._Distances.apply(own, teacher, targets), (logits,))
    assert gradcheck(lambda own: module._Distances.apply(own, None, targets)[0], (logits,))


def test_no_tensor_of_all_logits_is_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32 there are a few rows at a time, on the way there and back."""
    from torch.utils._python_dispatch import TorchDispatchMode

    monkeypatch.setattr(module, "_AT_ONCE", 3 * batch_of(PROBE).teacher_logits.shape[-1])
    most = 0

    class Widest(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal most
            out = func(*args, **(kwargs or {}))
            for value in out if isinstance(out, tuple | list) else [out]:
                if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                    most = max(most, value.numel())
            return out

    batch = batch_of(PROBE)
    batch._logits = batch.teacher_logits.bfloat16()
    logits = torch.randn(batch.teacher_logits.shape).bfloat16().requires_grad_()
    with Widest():
        sum(token_losses(logits, batch, ce=True, kd=True).values()).backward()
    assert most <= module._AT_ONCE
